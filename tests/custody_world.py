"""A ring of custody machines over a pretended network, disks and gateways, driven one step at a time.

The machines are those that run in the product. Links keep order and lose everything in flight when they are cut, as a
TCP connection does; a disk makes writes durable one by one, in order, and loses the rest in a crash. Every step is
chosen by the test (or a seeded random generator), so a failing run can be repeated.
"""

import random
from collections import deque
from collections.abc import Callable

import frames_v1
from attrs import define, field

from protocols.peer.frames import (
    VERSION,
    Envelope,
    EnvelopeKey,
    Forward,
    Frame,
    PartOf,
    SummaryPart,
    SummaryWanted,
    decode,
    encode,
    speaks,
)
from ring import commands as c
from ring.accepting import Offer
from ring.custody import Custody
from ring.rows import decode_custody, decode_key, decode_parked, encode_key
from ring.settings import CustodySettings, OperatorPolicy
from ring.summaries import Summaries
from ring.topology import Topology

SETTINGS = CustodySettings(
    operators={"acme": OperatorPolicy("park", "gw")},
    claim_for_s=1000.0,
    lap_timeout_s=15.0,
    walk_retry_min_s=5.0,
    walk_retry_max_s=20.0,
    deliver_retry_min_s=1.0,
    deliver_retry_max_s=5.0,
    repeat_s=5.0,
    concat_wait_s=5.0,
)

ANYBODY = "anybody"  # the owner of an MO that any gateway may have, but only one


def through_version_1(frame: Frame) -> Frame:
    """What is left of a frame that a node of version 1 has sent or read."""
    [there] = frames_v1.decode(encode([frame]))
    [back] = decode(frames_v1.encode([there]))
    return back


@define
class Disk:
    rows: dict[tuple[c.Table, bytes], bytes] = field(factory=dict)
    pending: deque[c.Write] = field(factory=deque)

    def commit(self) -> c.Write:
        write = self.pending.popleft()
        for row in write.rows:
            if row.value is None:
                self.rows.pop((row.table, row.key), None)
            else:
                self.rows[row.table, row.key] = row.value
        return write

    def seen(self, table: c.Table, key: bytes) -> bytes | None:
        value = self.rows.get((table, key))
        for write in self.pending:
            for row in write.rows:
                if (row.table, row.key) == (table, key):
                    value = row.value
        return value


@define
class Delivery:
    node: str
    trace: str
    final: bool
    gateway: str
    message_id: bytes
    answered: bool = False
    finals_before: tuple[str, ...] = ()  # traces of final reports of its message that the gateway had answered by then


@define(eq=False)
class Node:
    name: str
    store_id: bytes
    disk: Disk = field(factory=Disk)
    machine: Custody | None = None  # None while the process is down
    summaries: Summaries | None = None  # None while it is down, and in a world without
    runs: int = 0
    open: dict[bytes, str] = field(factory=dict)  # exact message id -> gateway
    inexact: dict[bytes, str] = field(factory=dict)  # reported id -> gateway, by a rule not learned
    finished: set[bytes] = field(factory=set)
    version: int = VERSION  # of the frames; an earlier one goes through that version's codec
    gateway: str = "gw"
    gateway_up: bool = True
    room: int = 1_000  # unanswered deliveries that the gateway's session takes
    unsent: int = 0  # deliveries that it did not take
    taking: bool = True  # the store takes writes for others
    conversing: set[bytes] = field(factory=set)  # subscribers that its gateway is in conversation with
    at_gateway: deque[tuple[EnvelopeKey, Delivery]] = field(factory=deque)


class World:
    """`N` nodes named n0, n1, ...; every node's gateway is called "gw", or with `named` after its node: "gw-n0".

    With `summaries` they tell each other what they own, whenever time passes.
    """

    def __init__(
        self, size: int, settings: CustodySettings = SETTINGS, named: bool = False, summaries: bool = False
    ) -> None:
        self.settings = settings
        self.with_summaries = summaries
        self.names = self.named(size)
        self.nodes = {name: Node(name, bytes([i]) * 8) for i, name in enumerate(self.names)}
        if named:
            for name, node in self.nodes.items():
                node.gateway = f"gw-{name}"
        self.now = 1_000_000.0
        self.cut: set[frozenset[str]] = set()
        self.wires: dict[tuple[str, str], deque[Frame]] = {}
        self.accepted: dict[str, str] = {}  # trace -> owner node ("" when nobody owns it): answered ESME_ROK
        self.delivered: list[Delivery] = []
        self.notes: list[tuple[str, c.Note]] = []
        self.superseded: set[str] = set()  # traces not delivered, since a final report was before
        self.disturbed: set[str] = set()  # traces whose delivery was cut off from its answer
        self.forwards: list[tuple[str, str, Forward]] = []
        self._offers: dict[tuple[str, EnvelopeKey], str] = {}
        self.owners: dict[str, str] = {}
        self.messages: dict[bytes, list[str]] = {}  # traces of the parts of each concatenated MO
        for name in self.names:
            self.start(name)
        self.settle_down()  # they have told each other which gateways are bound

    def named(self, size: int) -> list[str]:
        return [f"n{i}" for i in range(size)]

    def topology(self, name: str) -> Topology:
        return Topology(self.names, name)

    # Processes, links, gateways

    def start(self, name: str) -> None:
        node = self.nodes[name]
        node.runs += 1
        parked = sum(1 for table, _ in node.disk.rows if table is c.Table.PARKED)
        topology = self.topology(name)
        if self.with_summaries:
            node.summaries = Summaries(topology, memory_mb=16)
            for message_id in node.open.keys() - node.finished:
                node.summaries.opened("acme", message_id)
        node.machine = Custody(
            topology=topology, store_id=node.store_id, run=node.runs, settings=self.settings,
            parked=parked, owners=node.summaries,
        )  # fmt: skip
        for (table, key), value in sorted(node.disk.rows.items(), key=lambda row: row[0][1]):
            if table is c.Table.CUSTODY:
                row = decode_custody(value)
                assert decode_key(key) == row.envelope.key
                node.machine.restore(row, self.now)
        self.do(name, node.machine.resume(self.now))
        if node.gateway_up:
            self.do(name, node.machine.gateway_bound("acme", node.gateway, self.now))
        self.links_changed()

    def leave(self, name: str) -> None:
        """The node begins to stop gracefully."""
        machine = self.nodes[name].machine
        if machine is not None:
            self.do(name, machine.leave(self.now))

    def crash(self, name: str) -> None:
        node = self.nodes[name]
        node.machine = node.summaries = None
        # What its gateway has answered, and the disk does not know yet, comes again.
        answered = {delivery.trace for delivery in self.delivered if delivery.node == name and delivery.answered}
        self.disturbed |= {trace for trace in answered if (name, "custody") in self.custodies(trace)}
        node.disk.pending.clear()
        self.lose_session(name, tell=False)
        for wire in [wire for wire in self.wires if name in wire]:
            self.wires[wire].clear()
        self.links_changed()

    def cut_link(self, a: str, b: str) -> None:
        self.cut.add(frozenset((a, b)))
        for wire in ((a, b), (b, a)):
            self.wires.get(wire, deque()).clear()
        self.links_changed()

    def heal_link(self, a: str, b: str) -> None:
        self.cut.discard(frozenset((a, b)))
        self.links_changed()

    def linked(self, a: str, b: str) -> bool:
        up = self.nodes[a].machine is not None and self.nodes[b].machine is not None
        return a != b and up and frozenset((a, b)) not in self.cut

    def version(self, a: str, b: str) -> int:
        """What a link between the two speaks."""
        return min(self.nodes[a].version, self.nodes[b].version)

    def links_changed(self) -> None:
        for name, node in self.nodes.items():
            if node.machine is not None:
                reachable = {other: self.version(name, other) for other in self.names if self.linked(name, other)}
                self.do(name, node.machine.reachable(reachable, self.now))
                if node.summaries is not None:
                    node.summaries.reachable(reachable, self.now)

    def lose_session(self, name: str, tell: bool = True) -> None:
        """The gateway's session ends with deliveries unanswered."""
        node = self.nodes[name]
        unanswered, node.at_gateway = list(node.at_gateway), deque()
        for key, delivery in unanswered:
            self.disturbed.add(delivery.trace)
            if tell and node.machine is not None:
                self.do(name, node.machine.answered(key, None, self.now))

    def set_gateway(self, name: str, up: bool) -> None:
        node = self.nodes[name]
        node.gateway_up = up
        if not up:
            self.lose_session(name)
            if node.machine is not None:
                self.do(name, node.machine.gateway_gone("acme", node.gateway, self.now))
        elif node.machine is not None:
            self.do(name, node.machine.gateway_bound("acme", node.gateway, self.now))

    # What the outside does

    def submit(self, name: str, message_id: bytes, inexact: bytes | None = None) -> None:
        """A gateway's message is accepted by the operator: an open message at that node."""
        node = self.nodes[name]
        if node.machine is None:
            return
        node.open[message_id] = "gw"
        if inexact is not None:
            node.inexact[inexact] = "gw"
        if node.summaries is not None:
            node.summaries.opened("acme", message_id)
        self.do(name, node.machine.appeared("acme", message_id, self.now))

    def report(
        self, name: str, message_id: bytes, trace: str, owner: str, final: bool = True, kind: str = "dlr"
    ) -> bool:
        """The operator sends a report or MO to a node that does not know its message."""
        node = self.nodes[name]
        if node.machine is None:
            return False
        offer = Offer("acme", kind, message_id, b"4479", b"pdu-" + trace.encode(), final, trace)  # type: ignore[arg-type]
        return self._offer(name, offer, owner)

    def mo(self, name: str, trace: str, owner: str = ANYBODY, *, gateway: str = "", part: PartOf | None = None) -> bool:
        """The operator sends an MO: for that gateway by rule, or a part of a message. `trace` up to "/" is its sender.

        With whom that sender is in conversation, `Node.conversing` says.
        """
        node = self.nodes[name]
        if node.machine is None:
            return False
        sender = trace.partition("/")[0].encode()
        offer = Offer("acme", "mo", b"", sender, b"pdu-" + trace.encode(), False, trace, gateway, part=part)
        if part is not None:
            self.messages.setdefault(part.message, []).append(trace)
        return self._offer(name, offer, owner)

    def _offer(self, name: str, offer: Offer, owner: str) -> bool:
        machine = self.nodes[name].machine
        assert machine is not None
        key, out = machine.accept(offer, self.now)
        if key is None:
            return False
        trace = offer.trace
        self.owners[trace] = owner
        self._offers[name, key] = trace
        self.do(name, out)
        return True

    def answer(self, name: str, status: int = 0) -> None:
        """The gateway answers its oldest unanswered delivery."""
        node = self.nodes[name]
        key, delivery = node.at_gateway.popleft()
        delivery.answered = status == 0
        if node.machine is not None:
            self.do(name, node.machine.answered(key, status, self.now))

    def commit(self, name: str) -> None:
        node = self.nodes[name]
        write = node.disk.commit()
        if node.machine is not None:
            self.do(name, node.machine.durable(write.ticket, self.now))

    def deliver_frame(self, wire: tuple[str, str]) -> None:
        frame = self.wires[wire].popleft()
        if self.version(*wire) == frames_v1.VERSION:
            frame = through_version_1(frame)
        self.arrived(wire, frame)

    def arrived(self, wire: tuple[str, str], frame: Frame) -> None:
        node = self.nodes[wire[1]]
        if isinstance(frame, SummaryPart | SummaryWanted):
            if node.summaries is not None:
                node.summaries.frame(wire[0], frame, self.now)
        elif node.machine is not None:
            self.do(wire[1], node.machine.frame(wire[0], frame, self.now, taking=node.taking))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for name, node in self.nodes.items():
            if node.machine is not None:
                self.do(name, node.machine.tick(self.now))
            if node.summaries is not None:
                self.do(name, list(node.summaries.tick(self.now)))

    # Carrying out commands

    def send(self, name: str, to: str, frame: Frame) -> bool:
        can = self.linked(name, to) and speaks(self.version(name, to), frame)
        if can:
            self.wires.setdefault((name, to), deque()).append(frame)
        return can

    def do(self, name: str, out: list[c.Command]) -> None:
        node = self.nodes[name]
        machine = node.machine
        assert machine is not None
        for command in out:
            match command:
                case c.Write():
                    node.disk.pending.append(command)
                case c.Send(to=to, frame=frame):
                    if isinstance(frame, Forward):
                        self.forwards.append((name, to, frame))
                        assert frame.hop <= len(self.names) - 1, f"hop {frame.hop} of {frame.envelope.trace}"
                        assert to not in frame.visited
                    self.send(name, to, frame)
                case c.Ask(envelope=envelope, inexact=inexact):
                    self.do(name, machine.asked(envelope.key, self._find(node, envelope, inexact), self.now))
                case c.Recall(key=key):
                    value = node.disk.seen(c.Table.PARKED, encode_key(key))
                    row = None if value is None else decode_parked(value)
                    self.do(name, machine.recalled(key, row, self.now))
                case c.Deliver(envelope=envelope):
                    self._deliver(node, envelope)
                case c.Accepted(key=key):
                    trace = self._offers.pop((name, key))
                    self.accepted[trace] = self.owners[trace]
                case c.Closed(envelope=envelope):
                    node.finished.add(envelope.message_id)
                    if node.summaries is not None:
                        node.summaries.closed("acme", envelope.message_id)
                case c.Note():
                    self.notes.append((name, command))
                    if command.event == "superseded":
                        self.superseded.add(command.envelope.trace)

    def _find(self, node: Node, envelope: Envelope, inexact: bool) -> c.Finding | None:
        if not envelope.is_sought:
            wanted = inexact or envelope.destination in node.conversing
            if envelope.gateway:
                wanted = envelope.gateway == node.gateway
            return c.Finding(node.gateway, exact=True, taking=node.taking) if node.gateway_up and wanted else None
        finished = envelope.message_id in node.finished
        if envelope.message_id in node.open:
            return c.Finding("gw", exact=True, finished=finished, taking=node.taking)
        if inexact and envelope.message_id in node.inexact:
            return c.Finding("gw", exact=False, finished=finished)
        return None

    def _deliver(self, node: Node, envelope: Envelope) -> None:
        assert node.machine is not None
        if not node.gateway_up or len(node.at_gateway) >= node.room:
            node.unsent += 1
            self.do(node.name, node.machine.unsent(envelope.key, self.now))
            return
        assert envelope.pdu == b"pdu-" + envelope.trace.encode()
        delivery = Delivery(node.name, envelope.trace, envelope.final, node.gateway, envelope.message_id)
        delivery.finals_before = tuple(
            before.trace
            for before in self.delivered
            if before.answered and before.final and before.message_id and before.message_id == envelope.message_id
        )
        self.delivered.append(delivery)
        node.at_gateway.append((envelope.key, delivery))

    # Running on, and judging

    def busy_steps(self) -> list[Callable[[], None]]:
        """Everything that could happen next without anybody's help."""
        steps: list[Callable[[], None]] = []
        for name, node in self.nodes.items():
            if node.disk.pending and node.machine is not None:
                steps.append(lambda name=name: self.commit(name))
            if node.at_gateway:
                steps.append(lambda name=name: self.answer(name))
        steps.extend(lambda wire=wire: self.deliver_frame(wire) for wire, frames in self.wires.items() if frames)
        return steps

    def settle_down(self, choose: random.Random | None = None) -> None:
        """Carry out what is under way until nothing is."""
        for _ in range(200_000):
            steps = self.busy_steps()
            if not steps:
                return
            (choose.choice(steps) if choose else steps[0])()
        raise AssertionError("it never comes to rest")

    def recover(self, choose: random.Random | None = None) -> None:
        """Bring everybody back, and let time pass until all that can be delivered is."""
        self.cut.clear()
        for name, node in self.nodes.items():
            if node.machine is None:
                self.start(name)
        for name in self.names:
            self.set_gateway(name, up=True)
        self.links_changed()
        for _ in range(60):
            self.settle_down(choose)
            self.advance(20.0)
        self.settle_down(choose)

    def custodies(self, trace: str) -> list[tuple[str, str]]:
        """Where a report still is: (node, table) of every row that holds its message."""
        found = []
        for name, node in self.nodes.items():
            for (table, _), value in node.disk.rows.items():
                row = decode_custody(value) if table is c.Table.CUSTODY else decode_parked(value)
                if row.envelope.trace == trace and row.envelope.pdu:
                    found.append((name, table.value))
        return found

    def check(self) -> None:
        """After `recover`: everything accepted was delivered to its owner, or is parked exactly once."""
        for trace, owner in self.accepted.items():
            places = [delivery.node for delivery in self.delivered if delivery.trace == trace]
            rows = self.custodies(trace)
            if trace in self.superseded:
                assert not rows, f"{trace}: superseded and still in {rows}"
            elif owner:
                assert places, f"{trace}: answered ESME_ROK and never delivered; rows {rows}"
                one = len(set(places)) == 1 if owner == ANYBODY else set(places) == {owner}
                assert one, f"{trace}: owner {owner}, delivered at {places}"
                assert not rows, f"{trace}: delivered and still in {rows}"
                taken = sum(delivery.trace == trace and delivery.answered for delivery in self.delivered)
                assert taken == 1 or trace in self.disturbed, f"{trace}: taken {taken} times"
            else:
                assert not places, f"{trace}: nobody's, delivered at {places}"
                assert len(rows) == 1, f"{trace}: held {rows}"
        for delivery in self.delivered:
            late = [trace for trace in delivery.finals_before if trace not in self.disturbed]
            assert delivery.final or not late, f"{delivery.trace}: intermediate, and after the final {late}"
        for message in self.messages:
            gateways = self.gateways_of(message)
            assert len(gateways) < 2 or message in self.split(), (
                f"{message!r} split over {gateways}, and nobody says so"
            )
        for name, node in self.nodes.items():
            left = [key for table, key in node.disk.rows if table is c.Table.CUSTODY]
            assert not left, f"{name} keeps {len(left)} custody rows"

    def split(self) -> set[bytes]:
        """Messages whose parts are said to have been split."""
        parts = [note.envelope.part for _, note in self.notes if note.event == "split"]
        return {part.message for part in parts if part is not None}

    def gateways_of(self, message: bytes) -> set[str]:
        """Where the parts of a message were delivered."""
        return {delivery.gateway for delivery in self.delivered if delivery.trace in self.messages[message]}
