"""Where a node stands: in which ring, by which name there, and which nodes join that ring to another.

A host goes by one name in the whole world: its node's name, or "cluster/node" where there are two rings, for nodes of
two rings may have the same name. Its links to its ring end at that name; a gate's links to the other ring at another.
"""

from attrs import frozen

from ring.far import cluster_of, far_name
from ring.topology import Topology


def host_name(cluster: str, node: str) -> str:
    return far_name(cluster, node) if cluster else node


def gate_address(name: str) -> str:
    """Where the links between the rings end at the gate "cluster/node"."""
    return f"join:{name}"


@frozen
class Site:
    cluster: str  # empty where there is but one ring
    node: str
    gates: tuple[str, ...] = ()  # of both rings, "cluster/node"; none where there is but one

    @property
    def host(self) -> str:
        return host_name(self.cluster, self.node)

    @property
    def is_gate(self) -> bool:
        return self.host in self.gates

    @property
    def far_gates(self) -> tuple[str, ...]:
        return tuple(gate for gate in self.gates if cluster_of(gate) != self.cluster)

    def topology(self, nodes: list[str]) -> Topology:
        return Topology(nodes, self.node, self.far_gates)

    def near_address(self, node: str) -> str:
        """Where links to a node of this ring end."""
        return host_name(self.cluster, node)
