"""Stores whose rows are in a database server."""

from collections.abc import Callable
from typing import Final

from dlrproxy.store.grouped import REMEMBERED, GroupedStore
from dlrproxy.store.journal import Journal
from dlrproxy.store.shared import GroupedSharedStore
from dlrproxy.store.space import MIB, Space
from dlrproxy.store.sql import partition, schema
from dlrproxy.store.sql.backend import SqlBackend
from dlrproxy.store.sql.connection import Account
from dlrproxy.store.sql.homecoming import bring_home
from dlrproxy.store.sql.pool import Doubt, Pool

# What may wait for a server that stands still: one statement must carry it, in hexadecimal.
MAX_WAITING_BYTES: Final = 4 * MIB
# A commit takes 5 ms, and some 100 ms when the server is busy: later than this something is wrong with it.
JOURNAL_AFTER_S: Final = 0.25


async def open_sql(
    account: Account,
    now: Callable[[], float],
    *,
    space: Space,
    connections: int,
    statement_timeout_s: float,
    remembered: int = REMEMBERED,
    journal: Journal | None = None,
    journal_after_s: float = JOURNAL_AFTER_S,
    doubts: list[Doubt] | None = None,
) -> GroupedStore:
    """Open the store in the schema that `account` names. Raises SqlError, SchemaError, JournalError.

    What a crash has left in the journal is written into the database first. Later, open messages are journalled when a
    commit takes longer than `journal_after_s`. It never gives the server up: until that is back nothing is accepted.
    `doubts`, of a process that opens it more than once: statements that an earlier store has abandoned end first.
    """
    pool = Pool(account, connections, statement_timeout_s, doubts)
    try:
        store_id = await schema.ready(pool)
        if journal is not None:
            await bring_home(journal, pool)
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
        journal=journal,
        journal_after_s=journal_after_s,
    )


async def open_shared(
    account: Account,
    now: Callable[[], float],
    node: str,
    epoch: int,
    *,
    space: Space,
    connections: int,
    statement_timeout_s: float,
    remembered: int = REMEMBERED,
    journal: Journal | None = None,
    journal_after_s: float = JOURNAL_AFTER_S,
    doubts: list[Doubt] | None = None,
) -> GroupedSharedStore:
    """Open the store of a cluster in the schema that `account` names, to work on the partition of `node` under `epoch`.

    Whoever worked on that under an earlier epoch can write it no more, and so it goes with this one: after a later
    epoch its `run` raises StoreError. Otherwise as `open_sql`. Raises FencedError, SqlError, SchemaError.
    """
    pool = Pool(account, connections, statement_timeout_s, doubts)
    try:
        await schema.ready(pool)
        fence = await partition.fence(pool, node, epoch)
        await partition.sweep(pool, node)
        store_id = await partition.store_id(pool, node)
        if journal is not None:
            await bring_home(journal, pool, shared=True)
    except BaseException:
        await pool.close()
        raise
    return GroupedSharedStore(
        SqlBackend(pool, fence),
        node,
        store_id,
        now,
        name=f"the store at {account.server}",
        space=space,
        remembered=remembered,
        max_waiting_bytes=MAX_WAITING_BYTES,
        give_up_s=float("inf"),
        journal=journal,
        journal_after_s=journal_after_s,
    )
