"""A cluster of custody machines over one pretended database, driven one step at a time.

The machines are those that run in the product. The database does what `dlrproxy/store/sql/fence.py` has a real one do:
a write of a node's part is whole or not at all, and refused once the node was taken over from. A process may crash,
or stop and go on when it was taken over from long ago; a gateway may bind at any node, at several, or at none.
"""

import random
from collections import deque
from collections.abc import Callable

from attrs import define, field

from protocols.peer.frames import VERSION, Envelope, EnvelopeKey, Frame, PartOf
from protocols.smpp.constants import ESME_ROK, TEMPORARY
from ring import commands as c
from ring.accepting import Offer
from ring.custody import Custody
from ring.rows import CustodyRow, decode_custody, decode_key, decode_parked
from ring.settings import ClusterSettings, CustodySettings, OperatorPolicy
from ring.topology import Topology

CLUSTER = ClusterSettings(unmatched_for_s=30.0, stand_in_after_s=12.0)
SETTINGS = CustodySettings(
    operators={"acme": OperatorPolicy("park", "gw0")},
    claim_for_s=1000.0,
    walk_retry_min_s=5.0,
    walk_retry_max_s=20.0,
    deliver_retry_max_s=5.0,
    repeat_s=5.0,
    concat_wait_s=5.0,
    cluster=CLUSTER,
)
INBOX = "inbox"
ANYBODY = "anybody"  # the owner of an MO that any gateway may have


@define
class Database:
    """Rows by node, kind and key."""

    rows: dict[tuple[str, str, bytes], bytes] = field(factory=dict)
    epochs: dict[str, int] = field(factory=dict)
    opens: dict[bytes, str] = field(factory=dict)  # message id -> the gateway that owns it
    finished: set[bytes] = field(factory=set)

    def fence(self, node: str) -> int:
        self.epochs[node] = self.epochs.get(node, 0) + 1
        return self.epochs[node]

    def write(self, node: str, epoch: int, rows: tuple[c.Row, ...]) -> bool:
        if self.epochs[node] != epoch:
            return False
        for row in rows:
            place = (row.inbox, INBOX, row.key) if row.inbox else (node, row.table.value, row.key)
            if row.value is None:
                self.rows.pop(place, None)
            else:
                self.rows[place] = row.value
        return True

    def move(self, dead: str, heir: str, most: int) -> bool:
        """One statement of a takeover; True when nothing is left to be moved."""
        places = sorted(place for place in self.rows if place[0] == dead)[:most]
        for place in places:
            kind = "parked" if place[1] == "parked" else INBOX
            assert (heir, kind, place[2]) not in self.rows
            self.rows[heir, kind, place[2]] = self.rows.pop(place)
        return not any(place[0] == dead for place in self.rows)

    def inbox(self, node: str) -> list[tuple[bytes, bytes]]:
        return sorted((key, value) for (at, kind, key), value in self.rows.items() if (at, kind) == (node, INBOX))

    def places(self) -> dict[str, list[tuple[str, str]]]:
        """Where the message of each trace is: node and kind of every row."""
        found: dict[str, list[tuple[str, str]]] = {}
        for (node, kind, _), value in self.rows.items():
            envelope = (decode_parked(value) if kind == "parked" else decode_custody(value)).envelope
            if envelope.pdu:
                found.setdefault(envelope.trace, []).append((node, kind))
        return found


@define(eq=False)
class Delivery:
    node: str
    trace: str
    gateway: str
    declined: bool = False  # by a temporary error: it comes again


@define(eq=False)
class Process:
    """One run of a node."""

    machine: Custody
    epoch: int
    pending: deque[c.Write] = field(factory=deque)
    wants_collecting: bool = True
    untold: deque[int] = field(factory=deque)  # tickets that are durable, and it has not heard of
    at_gateway: deque[tuple[EnvelopeKey, Delivery]] = field(factory=deque)
    stopped: bool = False


class World:
    """`size` nodes n0, n1, ...; gateways gw0, gw1, ..., each of which begins at the node of its number."""

    def __init__(self, size: int = 3, settings: CustodySettings = SETTINGS) -> None:
        self.settings = settings
        self.names = [f"n{number}" for number in range(size)]
        self.database = Database()
        self.now = 1_000_000.0
        self.runs: dict[str, int] = dict.fromkeys(self.names, 0)
        self.processes: dict[str, Process] = {}
        self.taken: dict[str, str] = {}  # dead nodes that are being taken over from -> heirs
        self.bound: dict[str, set[str]] = {name: {f"gw{number}"} for number, name in enumerate(self.names)}
        self.room = 1_000
        self.wires: dict[tuple[str, str], deque[Frame]] = {}
        self.owners: dict[str, str] = {}  # trace -> gateway; ANYBODY; "" for nobody
        self.accepted: set[str] = set()
        self.delivered: list[Delivery] = []
        self.done: set[str] = set()  # traces that a gateway has answered ESME_ROK, or refused for good
        self.disturbed: set[str] = set()  # traces whose delivery was cut off from its answer
        self.marked: set[str] = set()  # traces that nobody delivers: their node was taken over from while it did
        self.superseded: set[str] = set()
        self.notes: list[tuple[str, c.Note]] = []
        self._offers: dict[EnvelopeKey, str] = {}
        for name in self.names:
            self.start(name)
        self.settle_down()

    # Processes

    def start(self, name: str) -> None:
        """It begins a new term: whoever had its part before has it no more."""
        assert name not in self.processes
        self.taken.pop(name, None)
        epoch = self.database.fence(name)
        self.runs[name] += 1
        rows = sorted((place, value) for place, value in self.database.rows.items() if place[0] == name)
        self.marked -= {decode_custody(value).envelope.trace for place, value in rows if place[1] == "custody"}
        machine = Custody(
            topology=Topology(self.names, name),
            store_id=name.encode().ljust(8, b"-"),
            run=self.runs[name],
            settings=self.settings,
            parked=sum(place[1] == "parked" for place, _ in rows),
        )
        self.processes[name] = Process(machine, epoch)
        for place, value in rows:
            if place[1] == "custody":
                row = decode_custody(value)
                assert decode_key(place[2]) == row.envelope.key
                machine.restore(row, self.now)
        self.do(name, machine.resume(self.now))
        for gateway in sorted(self.bound[name]):
            self.do(name, machine.gateway_bound("acme", gateway, self.now))
        self.links_changed()

    def crash(self, name: str) -> None:
        process = self.processes.pop(name)
        self._cut_off(process)
        for wire in [wire for wire in self.wires if name in wire]:
            self.wires[wire].clear()
        self.links_changed()

    def _cut_off(self, process: Process) -> None:
        """What its gateways had, and it cannot write down that they had it, comes again."""
        self.disturbed |= {delivery.trace for _, delivery in process.at_gateway}
        held = self.database.places()
        self.disturbed |= {trace for trace in self.done if trace in held}
        process.at_gateway.clear()

    def stop(self, name: str) -> None:
        """SIGSTOP: nothing that it does happens until `go_on`."""
        self.processes[name].stopped = True

    def go_on(self, name: str) -> None:
        process = self.processes[name]
        process.stopped = False
        while process.untold and self.processes.get(name) is process:
            self.do(name, process.machine.durable(process.untold.popleft(), self.now))

    def take_over(self, dead: str, heir: str) -> None:
        """The master fences it; it may be there all the same. `move` follows."""
        self.database.fence(dead)
        self.taken[dead] = heir
        for (node, kind, _), value in self.database.rows.items():
            if (node, kind) == (dead, "custody") and decode_custody(value).delivering:
                self.disturbed.add(decode_custody(value).envelope.trace)
                self.marked.add(decode_custody(value).envelope.trace)
        if dead in self.processes:
            self._disturb(self.processes[dead])

    def _disturb(self, process: Process) -> None:
        held = self.database.places()
        self.disturbed |= {delivery.trace for _, delivery in process.at_gateway}
        self.disturbed |= {trace for trace in self.done if trace in held}
        for write in process.pending:  # it may yet send what it was just going to
            for row in write.rows:
                if row.value is not None and row.table is c.Table.CUSTODY:
                    self.disturbed.add(decode_custody(row.value).envelope.trace)

    def move(self, dead: str, most: int = 2) -> None:
        heir = self.taken[dead]
        self.database.move(dead, heir, most)
        if heir in self.processes:
            self.processes[heir].wants_collecting = True

    def links_changed(self) -> None:
        for name, process in list(self.processes.items()):
            others = {other: VERSION for other in self.processes if other != name}
            self.do(name, process.machine.reachable(others, self.now))

    # Gateways

    def bind(self, name: str, gateway: str) -> None:
        self.bound[name].add(gateway)
        if name in self.processes:
            self.do(name, self.processes[name].machine.gateway_bound("acme", gateway, self.now))

    def unbind(self, name: str, gateway: str) -> None:
        self.bound[name].discard(gateway)
        process = self.processes.get(name)
        if process is None:
            return
        self.do(name, process.machine.gateway_gone("acme", gateway, self.now))
        ended = [entry for entry in process.at_gateway if entry[1].gateway == gateway]
        for key, delivery in ended:
            process.at_gateway.remove((key, delivery))
            self.disturbed.add(delivery.trace)
            self.do(name, process.machine.answered(key, None, self.now))

    def answer(self, name: str, status: int = ESME_ROK) -> None:
        process = self.processes[name]
        key, delivery = process.at_gateway.popleft()
        delivery.declined = status in TEMPORARY
        if not delivery.declined:
            self.done.add(delivery.trace)
        self.do(name, process.machine.answered(key, status, self.now))

    # From the operator

    def submit(self, message_id: bytes, gateway: str) -> None:
        self.database.opens[message_id] = gateway

    def report(self, name: str, message_id: bytes, trace: str, *, final: bool = True) -> None:
        """Comes in at that node, which looks its message up, as the relay does."""
        owner = self.database.opens.get(message_id, "")
        offer = Offer("acme", "dlr", message_id, b"4479", b"pdu-" + trace.encode(), final, trace, gateway=owner)
        self._offer(name, offer, owner)

    def mo(self, name: str, trace: str, gateway: str = "", part: PartOf | None = None) -> None:
        offer = Offer("acme", "mo", b"", b"7000", b"pdu-" + trace.encode(), False, trace, gateway, part=part)
        self._offer(name, offer, gateway or ANYBODY)

    def _offer(self, name: str, offer: Offer, owner: str) -> None:
        key, out = self.processes[name].machine.accept(offer, self.now)
        assert key is not None
        self.owners[offer.trace] = owner
        self._offers[key] = offer.trace
        self.do(name, out)

    # Steps

    def commit(self, name: str) -> None:
        """The database has its next write; a process that is stopped hears of it later."""
        process = self.processes[name]
        write = process.pending.popleft()
        if not self.database.write(name, process.epoch, write.rows):
            self.crash(name)  # it ends its term; `start` begins another one
            return
        if process.stopped:
            process.untold.append(write.ticket)
        else:
            self.do(name, process.machine.durable(write.ticket, self.now))

    def commit_unanswered(self, name: str) -> None:
        """The database has it, and the connection breaks before it can say so: it is written again."""
        process = self.processes[name]
        self.database.write(name, process.epoch, process.pending[0].rows)

    def leave(self, name: str) -> None:
        """It has been told to stop: what waits goes to others, until it is killed, starts anew, or is told to stay."""
        self.do(name, self.processes[name].machine.leave(self.now))

    def stay(self, name: str) -> None:
        self.do(name, self.processes[name].machine.stay(self.now))

    def collect(self, name: str) -> None:
        process = self.processes[name]
        process.wants_collecting = False
        taken = {row.key for write in process.pending for row in write.rows if row.inbox == name}
        rows = [decode_custody(value) for key, value in self.database.inbox(name) if key not in taken]
        if rows:
            self.do(name, process.machine.arrived(rows, self.now))

    def deliver_frame(self, wire: tuple[str, str]) -> None:
        frame = self.wires[wire].popleft()
        self.do(wire[1], self.processes[wire[1]].machine.frame(wire[0], frame, self.now))

    def advance(self, seconds: float) -> None:
        """Time passes; every node looks into its inbox now and then."""
        self.now += seconds
        for name, process in list(self.processes.items()):
            process.wants_collecting = True
            if not process.stopped:
                self.do(name, process.machine.tick(self.now))

    def busy_steps(self) -> list[Callable[[], None]]:
        """Everything that could happen next without anybody's help."""
        steps: list[Callable[[], None]] = []
        for name, process in self.processes.items():
            if process.stopped:
                continue
            if process.pending:
                steps.append(lambda name=name: self.commit(name))
            if process.at_gateway:
                steps.append(lambda name=name: self.answer(name))
            if process.wants_collecting:
                steps.append(lambda name=name: self.collect(name))
        for (sender, to), frames in self.wires.items():
            if frames and not self.processes[to].stopped:
                steps.append(lambda wire=(sender, to): self.deliver_frame(wire))
        left = {place[0] for place in self.database.rows}
        steps.extend(lambda dead=dead: self.move(dead) for dead in self.taken if dead in left)
        return steps

    def settle_down(self, choose: random.Random | None = None) -> None:
        for _ in range(100_000):
            steps = self.busy_steps()
            if not steps:
                return
            (choose.choice(steps) if choose else steps[0])()
        raise AssertionError("it never comes to rest")

    # Carrying out commands

    def do(self, name: str, out: list[c.Command]) -> None:
        process = self.processes[name]
        for command in out:
            match command:
                case c.Write():
                    process.pending.append(command)
                case c.Send(to=to, frame=frame):
                    if to in self.processes:
                        self.wires.setdefault((name, to), deque()).append(frame)
                case c.Ask(envelope=envelope, only_finished=True):
                    owner = self.database.opens.get(envelope.message_id, "")
                    finding = c.Finding(owner, exact=True, finished=envelope.message_id in self.database.finished)
                    self.do(name, process.machine.asked(envelope.key, finding, self.now))
                case c.Ask(envelope=envelope, inexact=inexact):
                    finding = self._find(name, envelope, inexact)
                    self.do(name, process.machine.asked(envelope.key, finding, self.now))
                case c.Collect():
                    process.wants_collecting = True
                case c.Deliver(envelope=envelope, gateway=gateway):
                    self._deliver(name, envelope, gateway)
                case c.Accepted(key=key):
                    self.accepted.add(self._offers.pop(key))
                case c.Closed(envelope=envelope):
                    self.database.finished.add(envelope.message_id)
                case c.Note():
                    self.notes.append((name, command))
                    if command.event == "superseded":
                        self.superseded.add(command.envelope.trace)
                case _:
                    raise AssertionError(f"{command} in a cluster")

    def _find(self, name: str, envelope: Envelope, inexact: bool) -> c.Finding | None:
        if envelope.is_sought:
            owner = self.database.opens.get(envelope.message_id)
            finished = envelope.message_id in self.database.finished
            return None if owner is None else c.Finding(owner, exact=True, finished=finished)
        bound = sorted(self.bound[name])
        wanted = envelope.gateway or (bound[0] if bound and inexact else "")
        return c.Finding(wanted, exact=True) if wanted in bound else None

    def _deliver(self, name: str, envelope: Envelope, gateway: str) -> None:
        process = self.processes[name]
        if gateway not in self.bound[name] or len(process.at_gateway) >= self.room:
            self.do(name, process.machine.unsent(envelope.key, self.now))
            return
        assert envelope.pdu == b"pdu-" + envelope.trace.encode()
        parks = self.settings.cluster is not None and self.settings.cluster.maybe_delivered == "park"
        by_heir = self.processes[name].epoch == self.database.epochs[name]  # who was taken over from may not know yet
        assert not (parks and by_heir and envelope.trace in self.marked), f"{envelope.trace} was being delivered"
        delivery = Delivery(name, envelope.trace, gateway)
        self.delivered.append(delivery)
        process.at_gateway.append((envelope.key, delivery))

    # Judging

    def check_now(self) -> None:
        """At every moment: nothing that was answered ESME_ROK is nowhere, and nothing is in two places."""
        places = self.database.places()
        for trace in self.accepted:
            found = places.get(trace, [])
            assert len(found) < 2, f"{trace} is in {found}"
            assert found or trace in self.done or trace in self.superseded, f"{trace} is nowhere"

    def recover(self, choose: random.Random | None = None) -> None:
        """Everybody is back, each gateway is bound somewhere, and time passes."""
        for name in self.names:
            if name in self.processes and self.processes[name].stopped:
                self.go_on(name)
        self.settle_down(choose)
        for number, name in enumerate(self.names):
            if name not in self.processes:
                self.start(name)
            self.stay(name)
            self.bind(name, f"gw{number}")
        for _ in range(60):
            self.settle_down(choose)
            for name in self.names:
                if name not in self.processes:  # it has found out that it was taken over from
                    self.start(name)
            self.advance(20.0)
        self.settle_down(choose)

    def check(self, stand_in: dict[str, str] | None = None) -> None:
        """After `recover`."""
        places = self.database.places()
        for trace in self.accepted:
            owner = self.owners[trace] or ""
            got = [one.gateway for one in self.delivered if one.trace == trace and not one.declined]
            found = places.get(trace, [])
            parked = self.reason(trace)
            allowed = {owner, (stand_in or {}).get(owner, owner)}
            assert owner == ANYBODY or set(got) <= allowed, f"{trace}: at {got}, and it is for {owner}"
            assert len(got) < 2 or trace in self.disturbed, f"{trace}: delivered {len(got)} times"
            if trace in self.superseded:
                assert not found, f"{trace}: superseded, and in {found}"
            elif parked == "maybe_delivered":
                assert trace in self.disturbed, f"{trace}: nobody can have been about to deliver it"
            elif owner:
                assert got, f"{trace}: never delivered; {found}, {parked}"
                assert not found, f"{trace}: delivered, and in {found}"
            else:
                assert parked in ("unclaimed", "owner_unreachable"), f"{trace}: nobody's, and {parked} in {found}"
        left = [place for place in self.database.rows if place[1] != "parked"]
        assert not left, left

    def reason(self, trace: str) -> str:
        """Why it is parked; empty when it is not."""
        for (_, kind, _), value in self.database.rows.items():
            if kind == "parked" and decode_parked(value).envelope.trace == trace:
                return decode_parked(value).reason
        return ""

    def row(self, trace: str) -> CustodyRow:
        for (_, kind, _), value in self.database.rows.items():
            if kind != "parked" and decode_custody(value).envelope.trace == trace:
                return decode_custody(value)
        raise AssertionError(f"{trace} is in no custody")
