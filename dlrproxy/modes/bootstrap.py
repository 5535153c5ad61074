"""Makes the servers that are left a quorum of their own, when those that had the others' weight are lost for good.

Whoever still has the quorum elsewhere would go on as well, and the two could never be put together: only a person can
know that there is nobody.
"""

from typing import Final

import trio

from dlrproxy.config import Config, accounts
from dlrproxy.modes.cluster import Server
from dlrproxy.modes.database import connected
from dlrproxy.modes.quorum import SYNCED
from dlrproxy.store.sql.errors import SqlError
from dlrproxy.store.sql.galera import status_of

_LOOK_S: Final = 0.2


class NotLostError(SqlError):
    """The server belongs to a quorum: nothing was done."""


class NotYetError(SqlError):
    """It was told, and has not become the quorum in time."""


async def look(config: Config) -> Server:
    """What this node's server says now. Raises SqlError."""
    async with connected(config, accounts.admin(config), to_schema=False) as pool:
        return await status_of(pool)


async def bootstrap(config: Config, wait_s: float) -> Server:
    """Have this node's server, and those that it still sees, go on as the quorum. Raises NotLostError, SqlError."""
    async with connected(config, accounts.admin(config), to_schema=False) as pool:
        seen = await status_of(pool)
        if seen.primary:
            raise NotLostError(f"{pool.account.server} has a quorum, with {seen.size} servers: there is nothing to do")
        await pool.run("SET GLOBAL wsrep_provider_options='pc.bootstrap=YES'")
        deadline = trio.current_time() + wait_s
        while trio.current_time() < deadline:
            seen = await status_of(pool)
            if seen.primary and seen.state == SYNCED:
                return seen
            await trio.sleep(_LOOK_S)
        raise NotYetError(f"{pool.account.server} is {seen.state}, {wait_s:g} s after it was told to go on")
