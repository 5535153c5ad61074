"""Each fault in which a server, a line or a disk is there, and does not do its part: the node says why, and it heals.

All but `locked` last until the node has let go of everything, which takes `fence_after_s`, and then for `for_s`. What a
server is told counts there alone: nothing of it is replicated.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio
from attrs import evolve

from chaos.quorum.configuration import ACCOUNT
from chaos.quorum.faults import fault
from chaos.quorum.stage import LONG_S, SERVER_OF, Stage
from dlrproxy.store.sql.errors import SqlError
from dlrproxy.store.sql.pool import Pool

_FEWEST: Final = 10  # max_connections, as MariaDB takes it
_CROWD: Final = 2 * _FEWEST
_HELD_S: Final = 0.5
_DIALLED_S: Final = 0.1
_ALONE: Final = "SET SESSION wsrep_on=OFF; "  # what follows is done at this server, and nowhere else
_NAMED: Final = f"'{ACCOUNT}'@'%'"
_EXPEL: Final = f"; KILL HARD CONNECTION USER {ACCOUNT}"  # rights count from the next connection
_WRITING: Final = f"INSERT, UPDATE, DELETE ON dlrproxy.* {{}} {_NAMED}"


async def read_only(stage: Stage, name: str, for_s: float) -> None:
    async with (
        fault(stage, "a database that is read-only", name),
        _told(stage, name, "SET GLOBAL read_only=1", "SET GLOBAL read_only=0"),
    ):
        await stage.says(name, "joining", "read-only")
        await trio.sleep(for_s)


async def no_account(stage: Stage, name: str, for_s: float) -> None:
    lock = f"{_ALONE} ALTER USER {_NAMED} ACCOUNT "
    async with (
        fault(stage, "a database whose account is locked", name),
        _told(stage, name, f"{lock} LOCK{_EXPEL}", f"{lock} UNLOCK"),
    ):
        await stage.says(name, "unreachable", "locked")
        await trio.sleep(for_s)


async def no_rights(stage: Stage, name: str, for_s: float) -> None:
    """Its account may read, and not write."""
    revoke, grant = (f"{_ALONE} {verb} {_WRITING.format(word)}" for verb, word in (("REVOKE", "FROM"), ("GRANT", "TO")))
    async with fault(stage, "a database whose account may not write", name), _told(stage, name, revoke + _EXPEL, grant):
        await stage.says(name, "joining", "denied")
        await trio.sleep(for_s)


async def no_connections(stage: Stage, name: str, for_s: float) -> None:
    """Somebody else has all that the server gives."""
    account = stage.cluster.account(SERVER_OF[name])
    most = stage.cluster.servers[SERVER_OF[name]].settings["max_connections"]
    admin = Pool(evolve(account, user="root", password="", schema=None), 1, LONG_S)  # one more could not get in
    async with fault(stage, "a database that has no connection left", name), trio.open_nursery() as nursery:
        try:
            await admin.run(f"SET GLOBAL max_connections={_FEWEST}")
            for _ in range(_CROWD):
                nursery.start_soon(_crowd_in, Pool(account, 1, 2 * _HELD_S))
            nursery.start_soon(_expel, admin)
            await stage.says(name, "unreachable", "Too many connections")
            await trio.sleep(for_s)
        finally:
            with trio.CancelScope(shield=True):
                await admin.run(f"SET GLOBAL max_connections={most}")
                nursery.cancel_scope.cancel()
                await admin.close()


async def _crowd_in(pool: Pool) -> None:
    """Get a connection, and keep it, until cancelled."""
    try:
        while True:
            try:
                await pool.run(f"DO SLEEP({_HELD_S})")
            except SqlError:
                await trio.sleep(_DIALLED_S)
    finally:
        with trio.CancelScope(shield=True):
            await pool.close()


async def _expel(admin: Pool) -> None:
    """The node comes back until the crowd has taken its places."""
    while True:
        await admin.run(f"KILL HARD CONNECTION USER {ACCOUNT}")
        await trio.sleep(_HELD_S)


async def black_hole(stage: Stage, name: str, for_s: float, *, reset: bool) -> None:
    """Between a node and its server nothing arrives, and nobody is told."""
    line = stage.lines[name]
    async with fault(stage, "a line to a database that swallows everything", name):
        line.hold_up()
        try:
            await stage.says(name, "unreachable", "not answered within")
            await trio.sleep(for_s)
        finally:
            if reset:
                line.reset()
            line.resume()


async def full_disk(stage: Stage, name: str, for_s: float) -> None:
    """The server is killed, and nothing can be written to the node's own disk, which keeps ids meanwhile."""
    pid = stage.nodes[name].pid
    if pid is None:  # it has just ended by itself; that is told elsewhere
        return
    async with fault(stage, "a full disk, and kill -9 of the database", name):
        await trio.to_thread.run_sync(stage.disks[name].fill, pid)
        try:
            await stage.on(name, "kill")
            await stage.says(name, "unreachable", "")
            await trio.sleep(for_s)
            await stage.in_cluster("restart", SERVER_OF[name])
        finally:
            stage.disks[name].free(stage.nodes[name].pid)


async def locked(stage: Stage, name: str, for_s: float) -> None:
    """All tables, as a backup does it, for so long: nothing is committed there, what the others write neither."""
    async with fault(stage, "a database that is locked", name), trio.open_nursery() as nursery:
        nursery.start_soon(stage.sql, name, f"FLUSH TABLES WITH READ LOCK; DO SLEEP({for_s})")
        await stage.starving(name)


@asynccontextmanager
async def _told(stage: Stage, name: str, make: str, mend: str) -> AsyncIterator[None]:
    await stage.sql(name, make)
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await stage.sql(name, mend)
