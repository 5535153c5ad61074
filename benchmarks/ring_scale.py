"""`make scale`: what a report at the wrong node costs a ring of N nodes, with summaries and without.

python -m benchmarks.ring_scale --help

The machines are those of the product (custody, summaries, membership), with the bytes of every frame encoded and
decoded; disks, gateways and links answer at once. Time is virtual: a tick of a tenth of a second at a time. Every node
submits at an even rate, every report comes 1 to 10 s after its message. Until as many messages are open as will be,
reports come to their owner's node; in the seconds that are measured every one of them comes to another node, drawn at
random.

CPU is this thread's, of the machines and the codec alone: no sockets, disks or logs, which cost more than these.
"""

import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar

import click
from attrs import define, evolve, field, frozen

from protocols.peer.frames import VERSION, Frame, SummaryPart, SummaryWanted, decode, encode
from protocols.smpp.constants import ESME_ROK
from ring import commands as c
from ring.accepting import Offer
from ring.custody import Custody
from ring.membership import Membership
from ring.settings import CustodySettings
from ring.summaries import Summaries
from ring.summary_telling import TELL_S
from ring.topology import Topology

SOONEST_S: Final = 1.0
LATEST_S: Final = 10.0
SUSPECT_S: Final = 3.0
DEAD_S: Final = 10.0
MEMORY_MB: Final = 64
OPERATOR: Final = "acme"
GATEWAY: Final = "gw"

T = TypeVar("T")


@define
class Cost:
    """Processor time, in nanoseconds, by what it was spent on."""

    spent: Counter[str] = field(factory=Counter)

    def of(self, what: str, work: Callable[[], T]) -> T:
        began = time.thread_time_ns()
        result = work()
        self.spent[what] += time.thread_time_ns() - began
        return result


@frozen
class Row:
    """One line of the table. Per report: over all nodes."""

    nodes: int
    summaries: bool
    reports: int
    hops: float
    one_hop: float  # share of the reports
    frames: float  # a report, without those of summaries
    custody_us: float  # a report
    summary_us: float  # a report, which is also a message opened and closed
    told_frames: float  # of summaries, that a node sends in a second
    told_bytes: float  # of summaries, a message and other node, on the wire
    kept_bytes: float  # a message and other node, in memory


class Node:
    def __init__(self, name: str, names: list[str], summaries: bool) -> None:
        topology = Topology(names, name)
        self.name = name
        self.summaries = Summaries(topology, MEMORY_MB) if summaries else None
        self.custody = Custody(
            topology=topology,
            store_id=name.encode().ljust(8),
            run=1,
            settings=CustodySettings(),
            owners=self.summaries,
        )
        self.others = topology.others
        self.membership = Membership(topology.others, suspect_after_s=SUSPECT_S, dead_after_s=DEAD_S)
        self.open: set[bytes] = set()


class Ring:
    def __init__(self, size: int, summaries: bool) -> None:
        names = [f"n{number:02}" for number in range(size)]
        self.nodes = {name: Node(name, names, summaries) for name in names}
        self.now = 0.0
        self.cost = Cost()
        self.hops: Counter[int] = Counter()
        self.delivered = 0
        self.frames = self.summary_frames = self.summary_bytes = 0
        self._wire: deque[tuple[str, str, bytes]] = deque()
        for node in self.nodes.values():
            for other in node.others:
                node.membership.linked(other, self.now)
        self.pass_time()

    def submit(self, owner: str, message_id: bytes) -> None:
        node = self.nodes[owner]
        node.open.add(message_id)
        if node.summaries is not None:
            node.summaries.opened(OPERATOR, message_id)

    def close(self, owner: str, message_id: bytes) -> None:
        node = self.nodes[owner]
        node.open.discard(message_id)
        if node.summaries is not None:
            node.summaries.closed(OPERATOR, message_id)

    def report(self, at: str, message_id: bytes) -> None:
        """The operator sends the final report to a node that does not own the message."""
        offer = Offer(OPERATOR, "dlr", message_id, b"447700900123", b"\0" * 190, True, message_id.decode())
        node = self.nodes[at]
        _, out = self.cost.of("custody", partial(node.custody.accept, offer, self.now))
        self._carry_out(node, out)
        self._deliver_frames()

    def pass_time(self) -> None:
        """A tick: every node is heard, and does and says what is due."""
        self.now += TELL_S
        for node in self.nodes.values():
            for other in node.others:
                node.membership.heard(other, self.now)
            if node.membership.tick(self.now):
                versions = dict.fromkeys(node.membership.alive(), VERSION)
                self._carry_out(node, node.custody.reachable(versions, self.now))
                if node.summaries is not None:
                    node.summaries.reachable(versions, self.now)
            self._carry_out(node, self.cost.of("custody", partial(node.custody.tick, self.now)))
        for node in self.nodes.values():
            summaries = node.summaries
            if summaries is not None:
                for send in self.cost.of("summaries", partial(summaries.tick, self.now)):
                    self._send(node.name, send.to, send.frame)
        self._deliver_frames()

    def _send(self, sender: str, to: str, frame: Frame) -> None:
        told = isinstance(frame, SummaryPart | SummaryWanted)
        data = self.cost.of("summaries" if told else "custody", partial(encode, [frame]))
        if told:
            self.summary_frames += 1
            self.summary_bytes += len(data)
        else:
            self.frames += 1
        self._wire.append((sender, to, data))

    def _deliver_frames(self) -> None:
        while self._wire:
            sender, to, data = self._wire.popleft()
            node = self.nodes[to]
            began = time.thread_time_ns()
            [frame] = decode(data)
            if isinstance(frame, SummaryPart | SummaryWanted):
                if node.summaries is not None:
                    node.summaries.frame(sender, frame, self.now)
                self.cost.spent["summaries"] += time.thread_time_ns() - began
            else:
                out = node.custody.frame(sender, frame, self.now)
                self.cost.spent["custody"] += time.thread_time_ns() - began
                self._carry_out(node, out)

    def _carry_out(self, node: Node, out: Iterable[c.Command]) -> None:
        custody, now = node.custody, self.now
        todo = deque(out)
        while todo:
            more: Iterable[c.Command] = ()
            match todo.popleft():
                case c.Write(ticket=ticket):
                    more = self.cost.of("custody", partial(custody.durable, ticket, now))
                case c.Send(to=to, frame=frame):
                    self._send(node.name, to, frame)
                case c.Ask(envelope=envelope):
                    found = c.Finding(GATEWAY, exact=True) if envelope.message_id in node.open else None
                    more = self.cost.of("custody", partial(custody.asked, envelope.key, found, now))
                case c.Deliver(envelope=envelope):
                    self.delivered += 1
                    more = self.cost.of("custody", partial(custody.answered, envelope.key, ESME_ROK, now))
                case c.Closed(envelope=envelope):
                    self.close(node.name, envelope.message_id)
                case c.Note(event="settled", hop=hop):
                    self.hops[hop] += 1
                case _:
                    pass
            todo.extend(more)

    def kept_bytes(self) -> float:
        """Of summaries, for an open message at each other node."""
        known = [known for node in self.nodes.values() if node.summaries for known in node.summaries.known().values()]
        messages = sum(each.messages for each in known)
        return sum(each.bytes_used for each in known) / messages if messages else 0.0


def measure(size: int, summaries: bool, rate: float, seconds: float, seed: int = 1) -> Row:
    """Raises RuntimeError when a report is not delivered exactly once."""
    source, ring = random.Random(seed), Ring(size, summaries)
    names = list(ring.nodes)
    due: defaultdict[int, list[tuple[str, bytes]]] = defaultdict(list)
    began = round(LATEST_S / TELL_S)
    end = began + round(seconds / TELL_S)
    number, reports = 10**9, 0
    for tick in range(end):
        if tick == began:
            ring.cost.spent.clear()
            ring.frames = ring.summary_frames = ring.summary_bytes = 0
        for owner, message_id in due.pop(tick, ()):
            if tick < began:
                ring.close(owner, message_id)
            else:
                reports += 1
                ring.report(source.choice([name for name in names if name != owner]), message_id)
        for _ in range(round(rate * TELL_S)):
            for owner in names:
                number += 1
                message_id = b"%d" % number
                ring.submit(owner, message_id)
                due[tick + round(source.uniform(SOONEST_S, LATEST_S) / TELL_S)].append((owner, message_id))
        ring.pass_time()
    if ring.delivered != reports or sum(ring.hops.values()) != reports:
        raise RuntimeError(f"{reports} reports, {ring.delivered} delivered, {sum(ring.hops.values())} settled")
    told = rate * seconds * size * (size - 1) if summaries else 1.0
    return Row(
        nodes=size,
        summaries=summaries,
        reports=reports,
        hops=sum(hops * count for hops, count in ring.hops.items()) / reports,
        one_hop=ring.hops[1] / reports,
        frames=ring.frames / reports,
        custody_us=ring.cost.spent["custody"] / reports / 1000,
        summary_us=ring.cost.spent["summaries"] / reports / 1000,
        told_frames=ring.summary_frames / size / seconds,
        told_bytes=ring.summary_bytes / told,
        kept_bytes=ring.kept_bytes(),
    )


def repeated(size: int, summaries: bool, rate: float, seconds: float, seed: int, rounds: int) -> Row:
    """The rounds differ in CPU alone, and other work on the machine only adds to that: the least counts."""
    rows = [measure(size, summaries, rate, seconds, seed) for _ in range(rounds)]
    return evolve(
        rows[0],
        custody_us=min(row.custody_us for row in rows),
        summary_us=min(row.summary_us for row in rows),
    )


_HEAD: Final = (
    "nodes", "summaries", "hops a report", "in one hop", "frames a report", "a node and report", "CPU us a report",
    "of these summaries", "summary frames a node and s", "wire bytes a message and node",
    "memory bytes a message and node",
)  # fmt: skip


def line(row: Row) -> str:
    cells = [
        str(row.nodes), "on" if row.summaries else "off", f"{row.hops:.3f}", f"{row.one_hop:.1%}", f"{row.frames:.2f}",
        f"{row.frames / row.nodes:.2f}", f"{row.custody_us + row.summary_us:.0f}",
    ]  # fmt: skip
    if row.summaries:
        cells += [f"{row.summary_us:.0f}", f"{row.told_frames:.0f}", f"{row.told_bytes:.1f}", f"{row.kept_bytes:.2f}"]
    else:
        cells += [""] * 4
    return "| " + " | ".join(cells) + " |"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--nodes", default="3,8,16,32", show_default=True, help="Sizes of the ring.")
@click.option("--rate", default=300.0, show_default=True, help="Messages a second that each node submits.")
@click.option("--seconds", default=3.0, show_default=True, help="How long reports go astray.")
@click.option("--rounds", default=1, show_default=True, help="Of each; the CPU is that of the cheapest.")
@click.option("--seed", default=1, show_default=True, help="For what is drawn.")
def main(nodes: str, rate: float, seconds: float, rounds: int, seed: int) -> None:
    """Print, as a table, what a report at the wrong node costs rings of several sizes.

    With summaries and without. Time is virtual: the figures do not depend on the machine, but for CPU.
    """
    print("| " + " | ".join(_HEAD) + " |")
    print("|" + "---|" * len(_HEAD))
    for size in map(int, nodes.split(",")):
        for summaries in (False, True):
            print(line(repeated(size, summaries, rate, seconds, seed, rounds)), flush=True)


if __name__ == "__main__":
    main()
