"""Who comes after whom in the ring: pure functions of the configured node table.

The ring is the order of the `[[peers]]` table, the last node followed by the first. An envelope starts at its origin
and every node passes it on to `successor(visited, reachable)`. Because the sender adds itself to `visited` before it
asks, a lap visits a node at most once and has at most N - 1 hops, also when two nodes hold tables in a different
order while a reload is on its way round.
"""

from collections.abc import Collection, Iterable
from hashlib import blake2b

import attrs

from ring.far import cluster_of


def _as_tuple(nodes: Iterable[str]) -> tuple[str, ...]:
    return tuple(nodes)


@attrs.frozen
class Topology:
    """The configured nodes, in their order, seen from `me`.

    Raises ValueError when a name stands twice in the table, or when `me` is not in it.
    """

    nodes: tuple[str, ...] = attrs.field(converter=_as_tuple)
    me: str
    gates: tuple[str, ...] = attrs.field(default=(), converter=_as_tuple)
    """The nodes of another ring, "cluster/node", by which reports may cross to it; empty: this ring has no join."""
    others: tuple[str, ...] = attrs.field(init=False, eq=False)
    """Every other node, in the order in which this one would ask them: the next in the table first."""

    @others.default
    def _rotate(self) -> tuple[str, ...]:
        if len(set(self.nodes)) != len(self.nodes):
            raise ValueError(f"a node is named twice in {', '.join(self.nodes)}")
        if self.me not in self.nodes:
            raise ValueError(f"{self.me} is not among {', '.join(self.nodes)}")
        here = self.nodes.index(self.me)
        return self.nodes[here + 1 :] + self.nodes[:here]

    def successor(self, visited: Collection[str], reachable: Collection[str]) -> str | None:
        """The next node after `me` that can be reached and has not been asked in this lap; None when there is none.

        `visited` may name nodes that are not in this table (one was removed meanwhile); they are passed over.
        """
        return next(iter(self.unasked(visited, reachable)), None)

    def unasked(self, visited: Collection[str], reachable: Collection[str]) -> list[str]:
        """The nodes that can be reached and have not been asked in this lap, the successor first."""
        return [node for node in self.others if node in reachable and node not in visited]

    def missing(self, visited: Collection[str]) -> tuple[str, ...]:
        """The configured nodes that have not answered in this lap; a lap is complete when there is none."""
        return tuple(node for node in (self.me, *self.others) if node not in visited)

    @property
    def joined(self) -> str:
        """The cluster of the other ring; empty without a join."""
        return cluster_of(self.gates[0]) if self.gates else ""

    def ranked(self, name: bytes) -> tuple[str, ...]:
        """All nodes, in the order in which they would decide about what is so named (rendezvous hashing).

        Every node with the same table says the same, and a node more or less moves only what it ranks first for.
        """
        return tuple(sorted(self.nodes, key=lambda node: blake2b(node.encode() + b"\0" + name).digest()))
