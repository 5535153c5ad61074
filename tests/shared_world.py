"""Nodes of a cluster as far as their stores go: each its own, over one schema of one server."""

import contextlib

import mariadb_server
import trio

from dlrproxy.store.directory import free_bytes
from dlrproxy.store.space import Space
from dlrproxy.store.sql import schema
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.store import Opening, open_shared


@contextlib.asynccontextmanager
async def running_stores(tmp_path, **clocks):
    """The pool of an onlooker, and the store of each node, by name; `clocks` are functions."""
    async with mariadb_server.fresh_schema() as account, contextlib.AsyncExitStack() as closing:
        pool = Pool(account, 1, 30)
        closing.push_async_callback(pool.close)
        await schema.init(pool)
        stores = {}
        async with trio.open_nursery() as nursery:
            for node, now in clocks.items():
                await pool.run(
                    f"INSERT INTO members (node,epoch,beat,home,taken,heir,moved) VALUES ('{node}',1,1,'',0,'',0)"  # noqa: S608
                )
                opening = Opening(space=Space(tmp_path, 0, free_bytes), connections=2, statement_timeout_s=30)
                stores[node] = store = await open_shared(account, now, node, 1, opening)
                closing.push_async_callback(store.close)
                nursery.start_soon(store.run)
            yield pool, stores
            nursery.cancel_scope.cancel()
