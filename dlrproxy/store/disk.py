"""The one open database of a store: reads by many, writes by one, replaced as a whole after a failure.

All work is done in worker threads; the loop never waits for a disk. While the database is being replaced readers wait,
briefly: a report in hand has seconds, and is better refused with a temporary status than held.
"""

import functools
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

import structlog
import trio

from dlrproxy.store.database import Database
from dlrproxy.store.port import StoreError

# Reads at a time. They mostly hit the block cache, and more threads would only queue for the interpreter's lock.
READERS: Final = 4
# How long a reader waits for a reopened database: opening takes 0.2 s; race and gateway answer have 1 s and 3 s.
READ_WAIT_S: Final = 1.0

_log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")


class Disk:
    """Who holds the database, and who is inside it. Made and used inside trio."""

    def __init__(self, database: Database, opener: Callable[[], Database]) -> None:
        self._database: Database | None = database
        self._opener = opener
        self._opened = trio.Event()
        self._opened.set()
        self._reading = 0
        self._unread = trio.Event()
        self._readers = trio.CapacityLimiter(READERS)
        self._writer = trio.CapacityLimiter(1)

    async def read(self, work: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(database, ...)` in a worker thread. Raises StoreError."""
        database = self._database
        if database is None:
            with trio.move_on_after(READ_WAIT_S):
                await self._opened.wait()
            database = self._database
            if database is None:
                raise StoreError("the store is closed, or being opened again after a failed write")
        self._reading += 1
        try:
            return await trio.to_thread.run_sync(
                functools.partial(work, database, *args, **kwargs), limiter=self._readers
            )
        finally:
            self._reading -= 1
            if not self._reading:
                self._unread.set()

    async def write(self, work: Callable[[Database], None]) -> None:
        """Run `work(database)` in a worker thread, to its end even when cancelled. One at a time. Raises StoreError."""
        if self._database is None:
            await self._open()
        database = self._database
        if database is None:
            raise StoreError("the store is closed")
        await trio.to_thread.run_sync(work, database, limiter=self._writer)

    async def replace(self) -> None:
        """Close the database, whatever its state, and open it again. Raises StoreError; then try again later."""
        try:
            await self.close()
        except StoreError as error:
            _log.warning("store.close_failed", why=str(error))  # expected of a disk that just failed
        await self._open()

    async def _open(self) -> None:
        self._database = await trio.to_thread.run_sync(self._opener, limiter=self._writer)
        self._opened.set()

    async def close(self) -> None:
        """Wait for the readers inside, then close; later reads fail. Raises StoreError when RocksDB complains."""
        database, self._database = self._database, None
        self._opened = trio.Event()
        if database is None:
            return
        with trio.CancelScope(shield=True):  # a database with nobody to close it would keep its lock
            while self._reading:
                self._unread = trio.Event()
                await self._unread.wait()
            await trio.to_thread.run_sync(database.close, limiter=self._writer)
