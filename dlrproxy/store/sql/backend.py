"""A database server as what stands behind a `GroupedStore`."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, cast

import trio

from dlrproxy.store.backend import Due, Records, WriteError
from dlrproxy.store.group import Group, Key
from dlrproxy.store.layout import open_key, parted
from dlrproxy.store.port import OpenMessage, Table
from dlrproxy.store.sql import statements
from dlrproxy.store.sql.errors import FencedError, SqlError
from dlrproxy.store.sql.fence import INBOX, Fence
from dlrproxy.store.sql.pool import Pool
from protocols.smpp.message_ids import normal

# On a connection with it each read waits for what the cluster has committed before. Said as both MariaDB's Galera and
# Percona XtraDB Cluster know it: for one statement the first has SET STATEMENT, and the other one hints.
CAUSAL: Final = "SET SESSION wsrep_sync_wait=1"
_CATCH_UP: Final = "SELECT 1 FROM schema_version"


class SqlBackend:
    """See `grouped.Backend`. A write whose outcome is unknown is sent again: every statement may be repeated."""

    def __init__(self, pool: Pool, fence: Fence | None = None, causal: Pool | None = None) -> None:
        """With `fence` custody, parked items and what a node remembers are those of its node in a cluster, whose writes
        the connections of `causal` wait for: their account's `session` is CAUSAL."""
        self._pool = pool
        self._causal = causal
        self._fence = fence
        self._node = "" if fence is None else fence.node

    async def read_opens(
        self, keys: Sequence[Key], forms: Sequence[Key]
    ) -> tuple[Records, dict[Key, tuple[bytes, ...]]]:
        statement = statements.find_opens(keys, forms)
        if statement is None:
            return {}, {}
        result = await self._pool.run(statement)
        records = {message.key: message for message in map(statements.open_of, result.rows)}
        wanted = set(forms)
        same: dict[Key, list[bytes]] = defaultdict(list)
        for operator, message_id in records:
            form = operator, normal(message_id)
            if form in wanted:
                same[form].append(message_id)
        return records, {form: tuple(ids) for form, ids in same.items()}

    async def unchanged(self, messages: Sequence[OpenMessage]) -> bool:
        """Whether each of these, none of which has a final report, is stored just so. Raises SqlError."""
        by_operator: dict[str, list[OpenMessage]] = defaultdict(list)
        for message in messages:
            by_operator[message.operator].append(message)
        for own in by_operator.values():
            for start in range(0, len(own), statements.ROWS):
                some = own[start : start + statements.ROWS]
                result = await self._pool.run(statements.count_unchanged(some))
                if result.rows[0][0] != len(some):
                    return False
        return True

    async def read_due(self, now: float, limit: int, done: frozenset[bytes]) -> list[Due]:
        result = await self._pool.run(statements.due_opens(now, limit + len(done)))
        rows: list[Due] = []
        for message in map(statements.open_of, result.rows):
            row_key = open_key(*message.key)
            if row_key not in done and len(rows) < limit:
                rows.append(Due(row_key, [message.key], (), {message.key: message}))
        return rows

    async def scan_opens(self, after: bytes, limit: int) -> list[tuple[bytes, OpenMessage]]:
        result = await self._pool.run(statements.scan_opens(parted(after), limit))
        return [(open_key(*message.key), message) for message in map(statements.open_of, result.rows)]

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), statements.ROWS):
            some = keys[start : start + statements.ROWS]
            result = await self._pool.run(statements.get_items(table, some, self._node))
            found.update((cast("bytes", name), cast("bytes", content)) for name, content in result.rows)
        return [found.get(key) for key in keys]

    async def scan(self, table: Table, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        result = await self._pool.run(statements.scan_items(table.value, after, limit, self._node))
        return [(cast("bytes", name), cast("bytes", content)) for name, content in result.rows]

    async def scan_inbox(self, limit: int) -> list[tuple[bytes, bytes]]:
        """Rows of custody that other nodes have put there for this one, the oldest of each origin first."""
        result = await self._pool.run(statements.scan_items(INBOX, b"", limit, self._node))
        return [(cast("bytes", name), cast("bytes", content)) for name, content in result.rows]

    async def of_others(self, name: bytes) -> dict[str, bytes]:
        """The META row of that name of each other node of the cluster that is not taken over from. Raises SqlError."""
        result = await self._pool.run(statements.items_of_members(Table.META, name, self._node))
        return {statements.text(node): cast("bytes", content) for node, content in result.rows}

    async def catch_up(self) -> None:
        """Return when this server has applied all that any of its Galera cluster had committed at the time of the call.

        A server that is in no cluster has nothing to wait for. Raises SqlError.
        """
        if self._causal is not None:
            await self._causal.run(_CATCH_UP)

    async def write(self, group: Group) -> None:
        # To its end even when cancelled: a stop would leave statements behind whose outcome nobody knows.
        try:
            with trio.CancelScope(shield=True):
                made = statements.statements_of(group) if self._fence is None else self._fence.statements_of(group)
                for statement in made:
                    await self._pool.run(statement)
        except FencedError as error:
            why = f"another node has taken over the custody of {self._node}"
            raise WriteError(f"{self._pool.account.server}: {why}", why=why, lost=True) from error
        except SqlError as error:
            raise WriteError(str(error), why=str(error)) from error

    async def replace(self) -> None:
        """Nothing to do: the pool dials again by itself."""

    def abandon(self) -> None:
        for pool in self._pools():
            pool.abandon()

    async def close(self) -> None:
        for pool in self._pools():
            await pool.close()

    def _pools(self) -> list[Pool]:
        return [self._pool] if self._causal is None else [self._pool, self._causal]
