"""The journal: open messages on the node's own disk that its database server does not have yet.

A node whose store is in a database server answers a gateway when the open message is in either of the two. The journal
is a RocksDB in data_dir/journal, open for the life of the process; so it is also what keeps a second process out of
the data directory. In ordinary operation nothing is written to it: `journalling` says when it is, `sql.homecoming` how
what a crash left in it reaches the database.

Of two records with one key the newer counts: the later submission, and of one submission the one that is further
(`version`). No order of writing and forgetting, and no repetition after a crash, puts an older one in its place.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from dlrproxy.store.database import Database, DatabaseError
from dlrproxy.store.directory import DataDirectory, Opener
from dlrproxy.store.disk import Disk
from dlrproxy.store.group import Key
from dlrproxy.store.layout import OPEN, Changes, encode_open, open_key
from dlrproxy.store.port import OpenMessage, StoreError
from dlrproxy.store.visits import scan_opens

# A store stops accepting long before so many wait for its database (4 MiB are 10,000), and what the operators have in
# hand by then is bounded by their windows. At this bound nothing more is journalled: gateways wait for the database.
MAX_ROWS: Final = 50_000
PAGE: Final = 1000

RING_STORE: Final = "store"  # in data_dir: what a node has of the time when it was one of a ring

Version = tuple[float, float]

_log = structlog.get_logger()


class JournalError(StoreError):
    """The journal cannot be opened, read or written; the text says why."""


def version(message: OpenMessage) -> Version:
    """Rises with every change of the record of one key."""
    return message.submitted_at, message.final_at


class Journal:
    """Made by `open_journal`. Every method raises JournalError; after that it may be called again."""

    def __init__(self, directory: DataDirectory, disk: Disk, held: dict[Key, Version], max_rows: int) -> None:
        self._directory = directory
        self._disk = disk
        self._held = held
        self._max_rows = max_rows
        self._turn = trio.Lock()  # what is held in memory and on disk changes in one order
        self._failing = False

    @property
    def size(self) -> int:
        """How many open messages are in it."""
        return len(self._held)

    def knows(self, key: Key) -> bool:
        """It has a record of this key."""
        return key in self._held

    def holds(self, message: OpenMessage) -> bool:
        """It has this record of the message, or a newer one."""
        held = self._held.get(message.key)
        return held is not None and held >= version(message)

    async def write(self, messages: Iterable[OpenMessage]) -> None:
        """They are durable when this returns. Of one key the newest record stays. Either all are written or none."""
        async with self._turn:
            new = {message.key: message for message in sorted(messages, key=version) if not self.holds(message)}
            # Counted by what is new: most often much more is held than written.
            if len(self._held) + sum(key not in self._held for key in new) > self._max_rows:
                raise JournalError(f"the journal is full: it has {len(self._held)} open messages")
            await self._change([(open_key(*key), encode_open(message)) for key, message in new.items()], sync=True)
            self._held.update((key, version(message)) for key, message in new.items())

    async def forget(self, messages: Iterable[OpenMessage]) -> None:
        """The database has them. A newer record with the same key stays.

        Not durable by itself: what a crash brings back is compared with the database once more.
        """
        async with self._turn:
            gone = [m.key for m in messages if (held := self._held.get(m.key)) is not None and held <= version(m)]
            await self._change([(open_key(*key), None) for key in gone], sync=False)
            for key in gone:
                self._held.pop(key, None)

    async def _change(self, rows: list[tuple[bytes, bytes | None]], *, sync: bool) -> None:
        if not rows:
            return
        try:
            if self._failing:
                await self._disk.replace()  # a sync that failed is never repeated on the same files (see `rocks`)
            await self._disk.write(partial(_write, {OPEN: rows}, sync))
        except DatabaseError as error:
            self._failing = True
            raise self._failed(error) from error
        self._failing = False

    async def rows(self, after: bytes = b"", limit: int = PAGE) -> list[tuple[bytes, OpenMessage]]:
        """At most `limit` open messages with a key greater than `after`, with their keys, in the order of those."""
        try:
            return await self._disk.read(scan_opens, after, limit)
        except DatabaseError as error:
            raise self._failed(error) from error
        except StoreError as error:
            raise JournalError(f"the journal cannot be read: {error}") from error

    def _failed(self, error: DatabaseError) -> JournalError:
        return failure(self._directory.store, error)

    async def close(self) -> None:
        try:
            await self._disk.close()
        except DatabaseError as error:
            raise self._failed(error) from error
        finally:
            self._directory.release()


def failure(path: Path, error: DatabaseError) -> JournalError:
    if error.lost:
        return JournalError(
            f"the journal in {path} is damaged: {error.why}. Move it away to start with an empty one; the ids in it, "
            "which gateways were told while the database did not answer, are then forgotten"
        )
    return JournalError(f"the journal in {path} cannot be used: {error.why}")


def _write(changes: Changes, sync: bool, database: Database) -> None:
    database.write(changes)
    if sync:
        database.sync()


async def open_journal(data_dir: Path, *, opener: Opener = Database, max_rows: int = MAX_ROWS) -> Journal:
    """Open the journal in `data_dir`, or make it. Raises StoreBusyError, StoreError. The last two are for tests."""

    if (data_dir / RING_STORE).exists():
        _log.warning("journal.ring_store_left", path=str(data_dir / RING_STORE), detail='only mode = "ring" reads it')

    def take() -> tuple[DataDirectory, Database, dict[Key, Version]]:
        directory = DataDirectory(data_dir, "journal")
        try:
            database, _ = directory.open_store(opener)
            try:
                return directory, database, _read_all(database)
            except BaseException:
                database.close()
                raise
        except BaseException as error:
            directory.release()
            if isinstance(error, DatabaseError):
                raise failure(directory.store, error) from error
            raise

    directory, database, held = await trio.to_thread.run_sync(take)
    return Journal(directory, Disk(database, partial(opener, directory.store)), held, max_rows)


def _read_all(database: Database) -> dict[Key, Version]:
    held: dict[Key, Version] = {}
    after = b""
    while page := scan_opens(database, after, PAGE):
        held.update((message.key, version(message)) for _, message in page)
        after = page[-1][0]
    return held
