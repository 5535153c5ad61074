"""Two joined rings of custody machines in one pretended world (custody_world.py), with the real carriers at the edges.

Nodes of the ring "north" are named n0, n1, ...; those of "south" s0, s1, ...
"""

from collections.abc import Sequence

from custody_world import SETTINGS, World

from protocols.peer.frames import SINCE, VERSION, Frame, Joined, Relayed
from ring.far import far_name, is_far, node_of
from ring.join import Join
from ring.settings import CustodySettings
from ring.topology import Topology

CLUSTERS = {"n": "north", "s": "south"}


def in_full(name: str) -> str:
    return far_name(CLUSTERS[name[0]], name)


class JoinedWorld(World):
    def __init__(
        self,
        north: int = 2,
        south: int = 2,
        gates: Sequence[str] | None = None,
        settings: CustodySettings = SETTINGS,
        old: Sequence[str] = (),
    ) -> None:
        """`gates`: the nodes that hold the links; all, if None; no join, if empty. `old` speak version 1."""
        self._sizes = {"n": north, "s": south}
        self.joins: dict[str, Join] = {}
        self.removed: set[str] = set()
        names = self.named(north + south)
        self.gates = names if gates is None else list(gates)
        self._old = old
        super().__init__(north + south, settings)

    def named(self, size: int) -> list[str]:
        return [f"{ring}{i}" for ring, count in self._sizes.items() for i in range(count)]

    def ring_of(self, name: str) -> list[str]:
        return [other for other in self.names if other[0] == name[0]]

    def table(self, name: str) -> list[str]:
        """The nodes that its ring is configured to have."""
        return [other for other in self.ring_of(name) if other not in self.removed]

    def topology(self, name: str) -> Topology:
        return Topology(self.table(name), name, [in_full(gate) for gate in self.gates if gate[0] != name[0]])

    def linked(self, a: str, b: str) -> bool:
        held = a[0] == b[0] or (a in self.gates and b in self.gates)
        return held and super().linked(a, b)

    def start(self, name: str) -> None:
        if name in self._old:
            self.nodes[name].version = 1
        elif self.gates:
            self.joins[name] = Join(
                cluster=CLUSTERS[name[0]],
                me=name,
                gates=[in_full(gate) for gate in self.gates],
                nodes=self.table(name),
                send=lambda to, frame: self.send(name, to, frame),
                send_across=lambda gate, frame: self.send(name, node_of(gate), frame),
                receive=lambda sender, frame: self._receive(name, sender, frame),
            )
        super().start(name)

    def links_changed(self) -> None:
        for name, node in self.nodes.items():
            if node.machine is None:
                continue
            if name in self.joins:
                near = {o for o in self.ring_of(name) if self.linked(name, o)}
                far = {o for o in self.names if o[0] != name[0] and self.linked(name, o)}
                able = frozenset(o for o in near if self.version(name, o) >= SINCE[Relayed])
                self.joins[name].near(able)
                self.joins[name].linked(dict.fromkeys(map(in_full, sorted(far)), VERSION))
            self.tell_reachable(name)

    def tell_reachable(self, name: str) -> None:
        machine = self.nodes[name].machine
        assert machine is not None
        near = {o: self.version(name, o) for o in self.ring_of(name) if self.linked(name, o)}
        far = self.joins[name].reachable(VERSION) if name in self.joins else {}
        self.do(name, machine.reachable(near | far, self.now))
        if name in self.joins:
            self.do(name, machine.joined(self.joins[name].far_nodes(), self.now))

    def send(self, name: str, to: str, frame: Frame) -> bool:
        if is_far(to):
            return name in self.joins and self.joins[name].send(to, frame)
        return super().send(name, to, frame)

    def arrived(self, wire: tuple[str, str], frame: Frame) -> None:
        sender, name = wire
        if self.nodes[name].machine is None:
            return
        if isinstance(frame, Relayed) and sender[0] == name[0]:
            self.joins[name].from_near(sender, frame)
        elif isinstance(frame, Relayed):
            self.joins[name].from_across(frame)
        elif isinstance(frame, Joined):
            if sender[0] == name[0]:
                self.joins[name].heard(sender, frame)
            else:
                self.joins[name].heard_across(in_full(sender), frame)
            self.tell_reachable(name)
        else:
            assert sender[0] == name[0], f"a bare {type(frame).__name__} crossed from {sender} to {name}"
            super().arrived(wire, frame)

    def _receive(self, name: str, sender: str, frame: Frame) -> None:
        node = self.nodes[name]
        assert node.machine is not None
        self.do(name, node.machine.frame(sender, frame, self.now, taking=node.taking))

    def take_out(self, removed: str) -> None:
        """Stop it, and reload the others of its ring without it."""
        self.removed.add(removed)
        self.crash(removed)
        self._reload(removed)

    def put_back(self, removed: str) -> None:
        """With what it has on disk."""
        self.removed.discard(removed)
        self._reload(removed)
        self.start(removed)

    def _reload(self, changed: str) -> None:
        for name in self.ring_of(changed):
            machine = self.nodes[name].machine
            if machine is not None:
                self.joins[name].retopologize(self.table(name))
                self.do(name, machine.retopologize(self.topology(name), self.now))

    def cut_join(self) -> None:
        for north in self.ring_of("n0"):
            for south in self.ring_of("s0"):
                self.cut_link(north, south)

    def heal_join(self) -> None:
        for north in self.ring_of("n0"):
            for south in self.ring_of("s0"):
                self.heal_link(north, south)

    def crossings(self, trace: str) -> list[str]:
        """Who sent it across, each time."""
        return [name for name, note in self.notes if note.event == "crossed" and note.envelope.trace == trace]
