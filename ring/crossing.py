"""The lap that a report walks in another ring, as its origin sees it.

A report crosses after a complete unclaimed lap of its own ring, if a gate of the other one can be reached. The gate
asks its own store and passes it on in its ring as its own, and the last node there answers with those that are missing;
where another gate is one of these, the origin asks that. The first lap over there asks for the exact id, and if it is
complete, the next one at once for any, as at home. Then the report waits, and begins at home again.

It cannot go round in circles: only an origin sends a report across, and over there it is not at its origin. An MO does
not cross: gateways and conversations are one ring's own.
"""

from collections.abc import Set as AbstractSet

from ring.far import far_name, node_of
from ring.items import NOBODY, Item
from ring.topology import Topology


class Crossing:
    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._reachable: AbstractSet[str] = frozenset()

    def reachable(self, nodes: AbstractSet[str]) -> None:
        """`nodes` may name others than gates."""
        self._reachable = nodes & frozenset(self._topology.gates)

    def retopologize(self, topology: Topology) -> None:
        self._topology = topology
        self._reachable = self._reachable & frozenset(topology.gates)

    def wanted(self, item: Item) -> bool:
        """It is not unclaimed before the other ring has been asked too. What is for one node here is for no other."""
        return bool(self._topology.gates) and item.envelope.is_sought

    def possible(self, item: Item) -> bool:
        return bool(self._reachable) and self.wanted(item)

    def begin(self, item: Item) -> None:
        """A lap over there: as far as is known, nobody but its gates is there to answer."""
        item.answered = NOBODY
        item.missing = tuple(map(node_of, self._topology.gates))

    def next_gate(self, item: Item) -> str | None:
        """A gate that can be reached and has not answered in this lap.

        Every gate gets its share of first hops, and a lap that was not answered is followed by one from the next gate.
        """
        gates = self._topology.gates
        first = (item.key.number + item.unanswered_across) % len(gates) if gates else 0
        for gate in gates[first:] + gates[:first]:
            if gate in self._reachable and node_of(gate) in item.missing:
                return gate
        return None

    def missing(self, item: Item) -> tuple[str, ...]:
        """Nodes over there that have not answered in its last lap; the gates, if it has not come across."""
        if not self.wanted(item):
            return ()
        if not item.across:
            return self._topology.gates
        return tuple(far_name(self._topology.joined, node) for node in item.missing)
