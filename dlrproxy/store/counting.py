"""How many rows a table has."""

from typing import Final

from dlrproxy.store.port import Store, Table

_PAGE: Final = 1000  # rows read at a time


async def count_rows(store: Store, table: Table) -> int:
    """Raises StoreError."""
    count, after = 0, b""
    while rows := await store.scan(table, after, _PAGE):
        count += len(rows)
        after = rows[-1][0]
    return count
