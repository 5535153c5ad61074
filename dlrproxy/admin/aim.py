"""Where a replay goes: round the ring, to a gateway of this node, or to another node."""

from typing import Final

from attrs import frozen

from dlrproxy.admin.problems import RequestError
from dlrproxy.admin.view import NodeStatus
from protocols.peer.frames import DIRECTED_SINCE
from ring.peer_status import PeerStatus

RING: Final = "ring"  # every node is asked, and the owner's claims it


@frozen
class Aim:
    gateway: str = ""  # of `node`; of this node, where that is empty; empty: any
    node: str = ""  # another node than this one
    operators: frozenset[str] | None = None  # that the gateway dials; None: not known here

    def fits(self, operator: str) -> bool:
        return self.operators is None or operator in self.operators


def aim(to: str, status: NodeStatus) -> Aim:
    """`to` is RING, a gateway of this node, another node, or NODE/GATEWAY.

    The other node must be there to say whether it takes it. Raises RequestError.
    """
    if to == RING:
        return Aim()
    takers = [each.name for each in status.operators if to in (gateway.name for gateway in each.gateways)]
    if takers:
        return Aim(to, operators=frozenset(takers))
    node, _, gateway = to.partition("/")
    peer = next((peer for peer in status.ring if peer.name == node), None)
    if peer is None:
        what = f"{to} is no gateway of this node, and {node} no other node"
        raise RequestError(400, f"to: {what}; give one of those, NODE/GATEWAY, or {RING}")
    if why_not := _why_not(peer):
        raise RequestError(409, f"to: {node} {why_not}; nothing was replayed")
    return Aim(gateway, node)


def _why_not(peer: PeerStatus) -> str:
    if not peer.linked:
        return f"cannot be reached now ({peer.state})"
    if peer.version < DIRECTED_SINCE:
        return f"speaks version {peer.version} of the peer protocol, and this takes version {DIRECTED_SINCE}"
    return "is being drained" if peer.draining else ""
