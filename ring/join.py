"""The join between two rings: how a frame gets from a node of one to a node of the other. Pure.

Some nodes of each ring are its gates; every gate of one has a link to every gate of the other. Between two nodes a
frame takes at most three links, and each node on its way knows from where it comes what is left to do:

    comes from              for                       goes
    this node's custody     a node of the other ring  across, or to a gate of this ring that can reach one over there
    a node of this ring     a node of the other ring  across, or nowhere
    a gate of the other     a node of this ring       to that node, or nowhere
    a node of this ring     this node                 to its custody

So it never goes round. What goes nowhere is lost, and custody repeats it; it is counted. Nodes are named "cluster/node"
while a frame is under way, and so are those of the other ring in what custody is given: it sends its answers to
such names, and knows of the other ring nothing but that.

What crosses are reports and what it takes to hand them over. Everything else is one ring's own business.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from protocols.peer.frames import (
    Claimed,
    Finished,
    Forgotten,
    Forward,
    Frame,
    FrameError,
    Joined,
    LapDone,
    Relayed,
    Settled,
    decode_frame,
    encode_frame,
)
from ring.far import cluster_of, far_name, is_far, node_of

CROSSING: Final = (Forward, LapDone, Claimed, Settled, Finished, Forgotten)

Send = Callable[[str, Frame], bool]


class Join:
    """At one node, gate or not. Bounded by what is configured."""

    def __init__(
        self,
        *,
        cluster: str,
        me: str,
        gates: Collection[str],
        nodes: Collection[str],
        send: Send,
        send_across: Send,
        receive: Callable[[str, Frame], None],
    ) -> None:
        """`gates` are all gates of both rings, "cluster/node"; `cluster` is this node's own, and `nodes` its nodes.

        `send` takes frames for nodes of this ring, `send_across` for gates of the other one that this node has a link
        to; both say whether they could. `receive` is given what is for this node, and whom it is from.
        """
        self._cluster = cluster
        self._me = me
        self._own_gates = tuple(node_of(gate) for gate in gates if cluster_of(gate) == cluster)
        self._far_gates = tuple(gate for gate in gates if cluster_of(gate) != cluster)
        self.other = cluster_of(self._far_gates[0])
        self._nodes = tuple(nodes)
        self._send = send
        self._send_across = send_across
        self._receive = receive
        self._near: frozenset[str] = frozenset()  # nodes of this ring that can be reached, and know the frames
        self._linked: Mapping[str, int] = {}  # gates of the other ring that this node has a link to, with its version
        # By gate of this ring: what it reaches of the other. It says so on each new link, when it changes, and every
        # second, since a claim would wait for ever where the word is lost. What was said before counts on while the
        # gate is out of reach, and does again after a silence that it knows nothing of.
        self._told: dict[str, tuple[str, ...]] = {}
        # The other ring's table, by the gate of either ring that has said it; and what that came to when last known.
        self._tables: dict[str, frozenset[str]] = {}
        self._far_nodes: frozenset[str] = frozenset()
        self.counts: Counter[str] = Counter()

    # What can be reached

    def near(self, nodes: frozenset[str]) -> None:
        """The nodes of this ring that can be reached and know the frames have changed."""
        joined, self._near = nodes - self._near, nodes
        self._tell(joined)

    def linked(self, gates: Mapping[str, int]) -> None:
        """The gates of the other ring that this node has a link to have changed."""
        self._linked = gates
        self.tell()

    def retopologize(self, nodes: Collection[str]) -> None:
        """The configured nodes of this ring have changed."""
        self._nodes = tuple(nodes)
        self.tell()

    def tell(self) -> None:
        """Tell the nodes of this ring what this gate reaches, and the other ring which nodes this one has; call it
        every second or so."""
        self._tell(self._near)
        table = Joined((), tuple(far_name(self._cluster, node) for node in self._nodes))
        for gate in self._linked:
            self._send_across(gate, table)

    def _tell(self, nodes: frozenset[str]) -> None:
        if self._me in self._own_gates:
            for node in sorted(nodes):
                self._send(node, Joined(tuple(self._linked), tuple(sorted(self._heard_here()))))

    def heard(self, sender: str, frame: Joined) -> bool:
        """True where a gate of this ring says something new."""
        if sender not in self._own_gates:
            return False
        before = self._told.get(sender), self.far_nodes()
        self._told[sender] = tuple(gate for gate in frame.gates if gate in self._far_gates)
        self._tables[sender] = self._of_other(frame.nodes)
        return (self._told[sender], self.far_nodes()) != before

    def heard_across(self, gate: str, frame: Joined) -> bool:
        """From a gate of the other ring: its table. True where that is news."""
        before = self.far_nodes()
        self._tables[gate] = self._of_other(frame.nodes)
        if self.far_nodes() == before:
            return False
        self._tell(self._near)
        return True

    def _of_other(self, nodes: Collection[str]) -> frozenset[str]:
        return frozenset(node for node in nodes if cluster_of(node) == self.other)

    def far_nodes(self) -> frozenset[str]:
        """The nodes that the other ring's table has, "cluster/node"; none while that is not known.

        One that is in the table of any gate counts. A gate out of reach may itself be gone, with an old table: that
        counts only while no other says anything.
        """
        told = (self._tables.get(gate, frozenset()) for gate in self._open_gates())
        self._far_nodes = self._heard_here().union(*told) or self._far_nodes
        return self._far_nodes

    def _heard_here(self) -> frozenset[str]:
        """What gates of the other ring have said on links of this node. No more of it is passed on, or two gates would
        each go by the other's word for ever."""
        return frozenset[str]().union(*(self._tables.get(gate, frozenset()) for gate in self._linked))

    def reachable(self, version: int) -> dict[str, int]:
        """The gates of the other ring that a frame gets to from here, and the version that is spoken with each.

        `version` is for those that another gate of this ring reaches: the earliest that such a gate may speak.
        """
        through = {far: version for gate in self._open_gates() for far in self._told[gate]}
        return through | dict(self._linked)

    # What is under way

    def send(self, to: str, frame: Frame) -> bool:
        """A frame of this node's custody for "cluster/node"."""
        if cluster_of(to) != self.other or not isinstance(frame, CROSSING):
            return False
        relayed = Relayed(to, far_name(self._cluster, self._me), encode_frame(frame))
        if self._across(relayed) or self._to_gate(relayed):
            return True
        self.counts["no_way"] += 1
        return False

    def _open_gates(self) -> list[str]:
        """Gates of this ring, other than this node, by which a frame gets across."""
        return [gate for gate in self._own_gates if gate in self._near and self._told.get(gate)]

    def _across(self, relayed: Relayed) -> bool:
        """To its very node, if that is a gate, else to any over there."""
        gates = (
            [relayed.to] if relayed.to in self._linked else [gate for gate in self._far_gates if gate in self._linked]
        )
        if not any(self._send_across(gate, relayed) for gate in gates):
            return False
        self.counts["sent_across"] += 1
        return True

    def _to_gate(self, relayed: Relayed) -> bool:
        gates = sorted(self._open_gates(), key=lambda gate: relayed.to not in self._told[gate])
        return any(self._send(gate, relayed) for gate in gates)

    def from_near(self, sender: str, relayed: Relayed) -> None:
        """From a node of this ring."""
        if relayed.to == far_name(self._cluster, self._me) and cluster_of(relayed.sender) == self.other:
            self._take(relayed)
        elif cluster_of(relayed.to) == self.other and relayed.sender == far_name(self._cluster, sender):
            if not self._across(relayed):
                self.counts["no_way"] += 1
        else:
            self.counts["refused"] += 1

    def from_across(self, relayed: Relayed) -> None:
        """From a gate of the other ring."""
        if cluster_of(relayed.to) != self._cluster or cluster_of(relayed.sender) != self.other:
            self.counts["refused"] += 1
        elif node_of(relayed.to) == self._me:
            self._take(relayed)
        elif node_of(relayed.to) not in self._near or not self._send(node_of(relayed.to), relayed):
            self.counts["no_way"] += 1

    def _take(self, relayed: Relayed) -> None:
        try:
            frame = decode_frame(relayed.frame)
        except FrameError:  # of a later version
            frame = None
        frame = None if frame is None else _with_far_names(frame, relayed.sender)
        if frame is None:
            self.counts["refused"] += 1
        else:
            self.counts["received"] += 1
            self._receive(relayed.sender, frame)


def _with_far_names(frame: Frame, sender: str) -> Frame | None:
    """As custody is to see it: the node that a frame names is named with its cluster. None if no ring sends it so.

    The nodes in Forward.visited and LapDone are those of the ring that is asked, and named as it names them.
    """
    match frame:
        case Forward(envelope=envelope) if envelope.origin == node_of(sender) and envelope.kind == "dlr":
            origin = msgspec.structs.replace(envelope, origin=sender)
            return msgspec.structs.replace(frame, envelope=origin)
        case Claimed(node=node, line=()) | Finished(node=node) if node == node_of(sender):
            return msgspec.structs.replace(frame, node=sender)
        case LapDone() | Settled() | Forgotten():
            return frame
        case _:
            return None


def check_gates(cluster: str, gates: Collection[str]) -> str:
    """The cluster of the other ring. Raises ValueError for a table that joins this ring to none, or to several."""
    alone = [gate for gate in gates if not is_far(gate)]
    if alone:
        raise ValueError(f'{alone[0]} must be named "cluster/node"')
    clusters = {cluster_of(gate) for gate in gates}
    if cluster not in clusters:
        raise ValueError(f"no gate is of this ring ({cluster}); gates of both rings stand in the table")
    others = sorted(clusters - {cluster})
    if len(others) != 1:
        named = ", ".join(others) or "none"
        raise ValueError(f"gates of one other ring are wanted, not {named}")
    return others[0]
