"""A store whose rows are in a database server."""

from collections.abc import Callable
from typing import Final

from dlrproxy.store.grouped import REMEMBERED, GroupedStore
from dlrproxy.store.space import MIB, Space
from dlrproxy.store.sql import schema
from dlrproxy.store.sql.backend import SqlBackend
from dlrproxy.store.sql.connection import Account
from dlrproxy.store.sql.pool import Pool

# What may wait for a server that stands still: one statement must carry it, in hexadecimal.
MAX_WAITING_BYTES: Final = 4 * MIB


async def open_sql(
    account: Account,
    now: Callable[[], float],
    *,
    space: Space,
    connections: int,
    statement_timeout_s: float,
    remembered: int = REMEMBERED,
) -> GroupedStore:
    """Open the store in the schema that `account` names. Raises SqlError, SchemaError.

    It never gives the server up: until that is back nothing is accepted.
    """
    pool = Pool(account, connections, statement_timeout_s)
    try:
        store_id = await schema.ready(pool)
    except BaseException:
        await pool.close()
        raise
    return GroupedStore(
        SqlBackend(pool),
        store_id,
        now,
        name=f"the store at {account.server}",
        space=space,
        remembered=remembered,
        max_waiting_bytes=MAX_WAITING_BYTES,
        give_up_s=float("inf"),
    )
