"""Stores whose rows are in a database server."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from attrs import evolve, frozen

from dlrproxy.store.commits import REMEMBERED, StoreOptions
from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.journal import Journal
from dlrproxy.store.shared import GroupedSharedStore
from dlrproxy.store.space import MIB, Space
from dlrproxy.store.sql import partition, schema
from dlrproxy.store.sql.backend import CAUSAL, SqlBackend
from dlrproxy.store.sql.connection import Account
from dlrproxy.store.sql.homecoming import bring_home
from dlrproxy.store.sql.pool import Doubt, Pool

# What may wait for a server that stands still: one statement must carry it, in hexadecimal.
MAX_WAITING_BYTES: Final = 4 * MIB
# A commit takes 5 ms, and some 100 ms when the server is busy: later than this something is wrong with it.
JOURNAL_AFTER_S: Final = 0.25


@frozen(kw_only=True)
class Opening:
    """How a store is opened: what of this node's it uses."""

    space: Space
    connections: int
    statement_timeout_s: float
    remembered: int = REMEMBERED
    journal: Journal | None = None  # for open messages of which the commit takes longer than `journal_after_s`
    journal_after_s: float = JOURNAL_AFTER_S
    doubts: list[Doubt] | None = None  # of a process that opens it more than once: what an earlier store has abandoned

    @asynccontextmanager
    async def pool(self, account: Account) -> AsyncIterator[Pool]:
        """The store's, which is closed here only if it comes to no store."""
        pool = Pool(account, self.connections, self.statement_timeout_s, self.doubts)
        try:
            yield pool
        except BaseException:
            await pool.close()
            raise

    def options(self, account: Account) -> StoreOptions:
        return StoreOptions(
            name=f"the store at {account.server}",
            space=self.space,
            remembered=self.remembered,
            max_waiting_bytes=MAX_WAITING_BYTES,
            give_up_s=float("inf"),
            journal=self.journal,
            journal_after_s=self.journal_after_s,
        )


async def open_sql(account: Account, now: Callable[[], float], opening: Opening) -> GroupedStore:
    """Open the store in the schema that `account` names. Raises SqlError, SchemaError, JournalError.

    What a crash has left in the journal is written into the database first, and before that what an earlier store has
    abandoned has ended. It never gives the server up: until that is back nothing is accepted.
    """
    async with opening.pool(account) as pool:
        store_id = await schema.ready(pool)
        if opening.journal is not None:
            await bring_home(opening.journal, pool)
        return GroupedStore(SqlBackend(pool), store_id, now, opening.options(account))


async def open_shared(
    account: Account, now: Callable[[], float], node: str, epoch: int, opening: Opening
) -> GroupedSharedStore:
    """Open the store of a cluster in the schema that `account` names, to work on the partition of `node` under `epoch`.

    Whoever worked on that under an earlier epoch can write it no more, and so it goes with this one: after a later
    epoch its `run` raises StoreError. Otherwise as `open_sql`. Raises FencedError, SqlError, SchemaError, JournalError.
    """
    async with opening.pool(account) as pool:
        await schema.ready(pool)
        fence = await partition.fence(pool, node, epoch)
        await partition.sweep(pool, node)
        store_id = await partition.store_id(pool, node)
        if opening.journal is not None:
            await bring_home(opening.journal, pool, shared=True)
        causal = Pool(evolve(account, session=CAUSAL), opening.connections, opening.statement_timeout_s)
        return GroupedSharedStore(SqlBackend(pool, fence, causal), node, store_id, now, opening.options(account))
