"""Which node a report is sent to next: the one it is for or that seems to own it, else the next in the ring."""

from collections.abc import Collection
from typing import NamedTuple, Protocol

from protocols.peer.frames import Envelope
from ring.topology import Topology


class Owners(Protocol):
    """Says who may own a message. It may be wrong in either direction: that costs hops."""

    def likely(self, operator: str, message_id: bytes, nodes: Collection[str]) -> str | None:
        """The first of `nodes` that seems to own a message with this reported id; None if none does."""


class NextHop(NamedTuple):
    node: str
    named: bool  # since it seems to own the message


def next_hop(
    envelope: Envelope,
    visited: Collection[str],
    reachable: Collection[str],
    topology: Topology,
    owners: Owners | None,
    passed_over: int = 0,
) -> NextHop | None:
    """The node to ask next in this lap; None when all that can be reached have been asked.

    With `passed_over` whoever seems to own it is not asked first, nor are so many nodes of the ring: laps that began
    there were not answered, since somebody on the way is stuck.
    """
    nodes = topology.unasked(visited, reachable)
    if not nodes:
        return None
    if passed_over and not envelope.node:
        return NextHop(nodes[passed_over % len(nodes)], named=False)
    if envelope.node in nodes:
        return NextHop(envelope.node, named=False)
    if owners is not None and envelope.is_sought:
        named = owners.likely(envelope.operator, envelope.message_id, nodes)
        if named is not None:
            return NextHop(named, named=True)
    return NextHop(nodes[0], named=False)
