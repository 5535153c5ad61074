"""Removes what the database keeps of a node that was taken out of the configuration, and is gone.

Nothing that is to be delivered is lost by it: the master has given the node's custody to another one before, or it is
refused; and only rows that say something of the node are deleted, never custody, nor what a later release has written
(docs/upgrading.md). What stays is the row that fences its part (`store.sql.fence`): a process of that node which is
frozen somewhere writes nothing when it wakes up, and should the node be set up again it begins with a later epoch.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import attrs
from msgspec import UNSET

from dlrproxy.config import Config, accounts
from dlrproxy.modes import node_settings
from dlrproxy.modes.cluster import Member
from dlrproxy.modes.database import connected
from dlrproxy.store.port import Table
from dlrproxy.store.sql import partition
from dlrproxy.store.sql.backend import CAUSAL
from dlrproxy.store.sql.errors import FencedError, SqlError
from dlrproxy.store.sql.galera import members_of, status_of

_AGAIN: Final = "nothing was removed; try again"
_OF_THE_NODE: Final = (Table.META.value, node_settings.ROW)  # kinds of rows


class NotForgottenError(SqlError):
    """Nothing was removed; the text says why."""


async def forget(config: Config, node: str) -> None:
    """Remove the rows of `node`. Raises NotForgottenError, SqlError."""
    account = attrs.evolve(accounts.ordinary(config), session=CAUSAL)
    async with connected(config, account) as pool:
        if not (await status_of(pool)).primary:
            raise NotForgottenError(f"{account.server} has no quorum")
        members = await members_of(pool)
        for why in _objections(members, node, config):
            raise NotForgottenError(why)
        member = members[node]
        try:
            await partition.fence(pool, node, member.epoch)  # nothing comes into its custody after that
        except FencedError as error:
            raise NotForgottenError(f"{node} is back: {_AGAIN}") from error
        if left := await partition.unmoved(pool, node):
            raise NotForgottenError(
                f"{left:,} reports or MO of {node} are not given to {member.heir} yet: the master does that; try again"
            )
        if not await partition.remove(pool, node, member.epoch, _OF_THE_NODE):
            raise NotForgottenError(f"{node} is back: {_AGAIN}")


def _objections(members: Mapping[str, Member], node: str, config: Config) -> Iterator[str]:
    member = members.get(node)
    if node in config.node_names:
        yield f"{node} is among the [[peers]] of this configuration: take it out, at every node"
    if member is None:
        yield f"the database knows no node {node}; it knows {', '.join(sorted(members)) or 'none'}"
    elif not member.taken:
        yield f"{node} lives, or has died a moment ago: the master sees to that within quorum.takeover_after_s; stop it"
    yield from _still_peers(members, node)


def _still_peers(members: Mapping[str, Member], node: str) -> Iterator[str]:
    """One that has it among its peers may still put something into its inbox."""
    for name, other in sorted(members.items()):
        if name == node or other.taken:
            continue
        peers = UNSET if other.settings is None else other.settings.peers
        if peers is UNSET:
            yield f"{name} is of a release that does not tell whether {node} is among its [[peers]]: upgrade it first"
        elif node in peers:
            yield f"{name} still has {node} among its [[peers]]"
