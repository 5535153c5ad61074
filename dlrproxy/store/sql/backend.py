"""A database server as what stands behind a `GroupedStore`."""

from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import trio

from dlrproxy.store.backend import Due, Records, WriteError
from dlrproxy.store.group import Group, Key
from dlrproxy.store.layout import open_key, parted
from dlrproxy.store.port import OpenMessage, Table
from dlrproxy.store.sql import statements
from dlrproxy.store.sql.errors import SqlError
from dlrproxy.store.sql.pool import Pool
from protocols.smpp.message_ids import normal


class SqlBackend:
    """See `grouped.Backend`. A write whose outcome is unknown is sent again: every statement may be repeated."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

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

    async def get(self, table: Table, key: bytes) -> bytes | None:
        result = await self._pool.run(statements.get_item(table, key))
        return cast("bytes", result.rows[0][0]) if result.rows else None

    async def scan(self, table: Table, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        result = await self._pool.run(statements.scan_items(table, after, limit))
        return [(cast("bytes", name), cast("bytes", content)) for name, content in result.rows]

    async def write(self, group: Group) -> None:
        # To its end even when cancelled: a stop would leave statements behind whose outcome nobody knows.
        try:
            with trio.CancelScope(shield=True):
                for statement in statements.statements_of(group):
                    await self._pool.run(statement)
        except SqlError as error:
            raise WriteError(str(error), why=str(error)) from error

    async def replace(self) -> None:
        """Nothing to do: the pool dials again by itself."""

    async def close(self) -> None:
        await self._pool.close()
