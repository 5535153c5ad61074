"""Which gateways are bound where: what every node tells the others of its own, so that an MO finds one."""

from collections.abc import Set as AbstractSet
from typing import Final

from protocols.peer.frames import Bound, Place
from ring.settings import CustodySettings
from ring.shelf import Shelf
from ring.topology import Topology

TELL_EVERY_S: Final = 30.0


class Presence:
    """Bounded by what is configured: nodes, operators, and the gateways that peers have listeners for."""

    def __init__(self, shelf: Shelf, settings: CustodySettings, topology: Topology) -> None:
        self._shelf = shelf
        self._settings = settings
        self._topology = topology
        self._reachable: AbstractSet[str] = frozenset()
        self._here: dict[str, list[str]] = {}  # by operator
        # By node and operator, as last heard; kept while the node is out of reach, and not counted on.
        self._elsewhere: dict[str, dict[str, tuple[str, ...]]] = {}
        self._last: dict[tuple[str, str], str] = {}  # by operator and gateway: the node where it has bound last
        self._tell_at = 0.0

    def bound(self, operator: str, gateway: str) -> None:
        """A gateway of this node is bound to receive. The one that takes what is local comes first."""
        here = self._here.setdefault(operator, [])
        if gateway in here:
            return
        self._last[operator, gateway] = self._topology.me
        if gateway == self._settings.policy(operator).local_gateway:
            here.insert(0, gateway)
        else:
            here.append(gateway)
        self._tell(operator)

    def gone(self, operator: str, gateway: str) -> None:
        here = self._here.get(operator, [])
        if gateway in here:
            here.remove(gateway)
            self._tell(operator)

    def _tell(self, operator: str) -> None:
        frame = Bound(operator, tuple(self._here[operator]))
        for node in sorted(self._reachable):
            self._shelf.send(node, frame)

    def heard(self, sender: str, frame: Bound) -> tuple[str, ...]:
        """Returns the gateways that were not bound before."""
        operators = self._elsewhere.setdefault(sender, {})
        before = operators.get(frame.operator, ())
        operators[frame.operator] = frame.gateways
        new = tuple(gateway for gateway in frame.gateways if gateway not in before)
        self._last.update(((frame.operator, gateway), sender) for gateway in new)
        return new

    def reachable(self, nodes: AbstractSet[str]) -> None:
        joined = nodes - self._reachable
        self._reachable = nodes
        for node in sorted(joined):
            for operator, gateways in self._here.items():
                self._shelf.send(node, Bound(operator, tuple(gateways)))

    def tick(self, now: float) -> None:
        """Say it again now and then: a frame may have been lost on a link that stayed up."""
        if now >= self._tell_at:
            self._tell_at = now + TELL_EVERY_S
            for operator in self._here:
                self._tell(operator)

    def retopologize(self, topology: Topology) -> None:
        self._topology = topology
        for node in self._elsewhere.keys() - set(topology.nodes):
            del self._elsewhere[node]
            self._last = {outlet: last for outlet, last in self._last.items() if last != node}

    def any_bound(self, operator: str) -> Place | None:
        """A bound gateway of this node, else of the next one in the ring that has one; None if nobody has."""
        me = self._topology.me
        if here := self._here.get(operator):
            return Place(here[0], me)
        for node in self._topology.others:
            gateways = self._elsewhere.get(node, {}).get(operator)
            if gateways and node in self._reachable:
                return Place(gateways[0], node)
        return None

    def here(self, operator: str) -> list[str]:
        """The bound gateways of this node."""
        return self._here.get(operator, [])

    def where(self, operator: str, gateway: str) -> str | None:
        """A node where that gateway is bound: this one, else the next in the ring; None as far as this node knows."""
        if gateway in self.here(operator):
            return self._topology.me
        for node in self._topology.others:
            if node in self._reachable and gateway in self._elsewhere.get(node, {}).get(operator, ()):
                return node
        return None

    def is_lost(self, operator: str, gateway: str) -> bool:
        """It is bound nowhere, and the node where it was bound last cannot be reached, or may be one that cannot."""
        if self.where(operator, gateway) is not None:
            return False
        last = self._last.get((operator, gateway))
        if last is None:
            return bool(self._topology.missing({self._topology.me, *self._reachable}))
        return last != self._topology.me and last not in self._reachable
