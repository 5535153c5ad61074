"""A few connections to one database server: each held by one task at a time, replaced when it is broken.

A statement whose connection broke may still be running at the server, or be read by it later, and then undo what was
written since. So before anything else is sent, the server is told to end that connection, and is watched until it has.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

import attrs
import trio

from dlrproxy.store.sql.connection import Account, Connection, Result
from dlrproxy.store.sql.errors import AgainError, NoSuchThreadError, SqlError, UnknownOutcomeError, UnreachableError
from dlrproxy.store.sql.statements import literal

TRIES: Final = 5  # of a statement that met a deadlock or a lock wait
# A server that is away is not dialled more often than this: whoever asks meanwhile is told at once.
REDIAL_S: Final = 0.2
SETTLE_POLL_S: Final = 0.05


@attrs.frozen
class Doubt:
    """A connection that ended with a statement under way."""

    thread_id: int
    opened_at: float  # trio's clock


class Pool:
    """At most `size` connections, opened when they are needed. Used inside trio."""

    def __init__(self, account: Account, size: int, timeout_s: float, doubts: list[Doubt] | None = None) -> None:
        """`timeout_s` is the deadline of a statement, once it has a connection.

        `doubts` is what an earlier pool of this process has left at the same server, and gets what this one leaves.
        """
        self.account = account
        self._timeout_s = timeout_s
        self._free = trio.Semaphore(size, max_value=size)
        self._idle: deque[Connection] = deque()
        self._doubts = [] if doubts is None else doubts
        self._settling = trio.Lock()
        self._failed_at = float("-inf")  # the last time that dialling failed; trio's clock
        self._failure: SqlError | None = None
        self._closed = False
        self._under_way: set[trio.CancelScope] = set()

    async def run(self, statement: str, timeout_s: float | None = None) -> Result:
        """Run one statement, again where it met a deadlock. Raises SqlError. It must do no harm when done twice."""
        with trio.CancelScope() as scope:
            self._under_way.add(scope)
            try:
                return await self._run(statement, timeout_s or self._timeout_s)
            finally:
                self._under_way.remove(scope)
        raise UnknownOutcomeError(f"a statement to {self.account.server} was abandoned")

    async def _run(self, statement: str, timeout_s: float) -> Result:
        async with self._connection() as connection:
            if self._doubts:
                await self._settle(connection, timeout_s)
            for _ in range(TRIES - 1):
                try:
                    return await connection.run(statement, timeout_s)
                except AgainError:
                    continue
            return await connection.run(statement, timeout_s)

    async def end(self, thread_id: int) -> None:
        """End another connection at the server, if it is still there. Raises SqlError."""
        with suppress(NoSuchThreadError):
            await self.run(f"KILL CONNECTION {thread_id}")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._free:
            self._check_open()
            connection = self._idle.pop() if self._idle else await self._dial()
            try:
                yield connection
            except (UnknownOutcomeError, trio.Cancelled):
                self._doubts.append(Doubt(connection.thread_id, connection.opened_at))
                raise
            finally:
                if connection.broken:
                    await self._drop_idle()  # most often the server went, and the idle ones went with it
                elif self._closed:
                    await connection.close()
                else:
                    self._idle.append(connection)

    def _check_open(self) -> None:
        if self._closed:
            raise UnreachableError(f"the connections to {self.account.server} are closed")

    async def _dial(self) -> Connection:
        if self._failure is not None and trio.current_time() - self._failed_at < REDIAL_S:
            raise type(self._failure)(*self._failure.args)
        try:
            connection = await Connection.open(self.account)
        except SqlError as error:
            self._failed_at, self._failure = trio.current_time(), error
            raise
        self._failure = None
        return connection

    async def _settle(self, connection: Connection, timeout_s: float) -> None:
        """Return when no statement of a broken connection can run any more. Raises SqlError."""
        async with self._settling:
            doubts = list(self._doubts)
            if not doubts:
                return
            started_at = await _started_at(connection, timeout_s)
            ids = [doubt.thread_id for doubt in doubts if doubt.opened_at >= started_at]
            for thread_id in await self._running(connection, ids, timeout_s):
                with suppress(NoSuchThreadError):
                    await connection.run(f"KILL CONNECTION {thread_id}", timeout_s)
            if await self._ended(connection, ids, timeout_s):
                self._doubts[:] = [doubt for doubt in self._doubts if doubt not in doubts]
                return
            raise UnreachableError(
                f"{self.account.server} is still busy with a statement of a connection that broke; nothing is sent "
                "until that has ended"
            )

    async def _ended(self, connection: Connection, thread_ids: list[int], timeout_s: float) -> bool:
        """Wait until none of them runs any more, for so long."""
        deadline = trio.current_time() + timeout_s
        while await self._running(connection, thread_ids, timeout_s):
            if trio.current_time() >= deadline:
                return False
            await trio.sleep(SETTLE_POLL_S)
        return True

    async def _running(self, connection: Connection, thread_ids: list[int], timeout_s: float) -> list[int]:
        """Of this account alone: a server that was restarted a moment ago may use their numbers for its own threads."""
        if not thread_ids:
            return []
        wanted, mine = ",".join(map(str, thread_ids)), literal(self.account.user)
        result = await connection.run(
            f"SELECT id FROM information_schema.processlist WHERE id IN ({wanted}) AND user={mine}", timeout_s
        )
        return [cast("int", row[0]) for row in result.rows]

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._idle.popleft().close()

    def abandon(self) -> None:
        """End the statements that are under way, even shielded ones, and send no more: whoever waits gets an error."""
        self._closed = True
        for scope in self._under_way:
            scope.cancel()

    async def close(self) -> None:
        """Close what is idle, and the others when they are given back."""
        self._closed = True
        await self._drop_idle()


async def _started_at(connection: Connection, timeout_s: float) -> float:
    """When the server started, a second early at most, on trio's clock: its connections before that are gone."""
    result = await connection.run("SHOW GLOBAL STATUS LIKE 'Uptime'", timeout_s)
    return trio.current_time() - int(cast("str", result.rows[0][1])) - 1.0
