"""What the nodes' logs tell: where each report went, and which links are up. Lines in, figures and traces out.

For display only, but for one thing: which reports are parked. Whether a report arrived is for the gateways' ledgers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import msgspec
from attrs import frozen

_MOST_TRACES = 20_000  # kept step by step, some 2 KB each; the figures count all

# Within one millisecond, the log's grain, the steps of a lap happen in this order.
_ORDER: Mapping[str, int] = {
    "dlr.missed": 0, "dlr.received": 1, "dlr.forwarded": 2, "dlr.waiting": 3, "dlr.busy": 3, "dlr.claimed": 4,
    "dlr.settled": 5, "dlr.delivered": 6,
}  # fmt: skip
_LAST = 9
_TAKEN_BACK = frozenset({"dlr.replayed", "dlr.dropped", "dlr.delivered"})


class Step(msgspec.Struct, frozen=True, gc=False):
    """One route event; see dlrproxy.logs.ROUTE_EVENTS."""

    event: str
    node: str
    timestamp: datetime
    trace: str = ""
    message_id: str = ""
    hop: int = 0
    lap: int = 0
    to: str = ""
    origin: str = ""
    by: str = ""
    gateway: str = ""
    status: int = 0
    wait_s: float = 0.0
    complete: bool = False
    nodes: str = ""
    parked: str = ""
    reason: str = ""


class _Notice(msgspec.Struct, gc=False):
    """Any other event, as far as it is wanted here."""

    node: str
    peer: str = ""


_STEP = msgspec.json.Decoder(Step)
_NOTICE = msgspec.json.Decoder(_Notice)


@frozen
class Trace:
    """The steps of one report, over all nodes, in the order in which they happened."""

    steps: tuple[Step, ...]

    @property
    def message_id(self) -> str:
        return self.steps[0].message_id

    @property
    def hops(self) -> int:
        """Links travelled until it was claimed."""
        return next((step.hop for step in self.steps if step.event == "dlr.claimed"), 0)

    @property
    def whole(self) -> bool:
        """Claimed over the ring, settled and delivered."""
        return {"dlr.received", "dlr.claimed", "dlr.settled", "dlr.delivered"} <= {step.event for step in self.steps}

    @property
    def seconds(self) -> float:
        return (self.steps[-1].timestamp - self.steps[0].timestamp).total_seconds()


class Routes:
    """Give it every line of every node's log, each node's in their order."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()  # by node: how often it was up and running
        self.peers: dict[str, set[str]] = defaultdict(set)  # by node: the others that it is linked to
        self.forwarded: set[str] = set()  # message ids
        self.claimed: dict[str, int] = {}  # message ids, with the hops of the claim
        self.claimed_by: Counter[str] = Counter()  # by node
        self._parked: dict[str, Step] = {}  # by trace
        self._traces: dict[str, list[Step]] = {}

    def add(self, line: bytes) -> None:
        """Lines that are no events are somebody else's; others may have any fields."""
        if b'"event":"dlr.' in line:
            self._route(_STEP.decode(line))
        elif b'"event":"peer.up"' in line:
            notice = _NOTICE.decode(line)
            self.peers[notice.node].add(notice.peer)
        elif b'"event":"node.running"' in line:
            self.starts[_NOTICE.decode(line).node] += 1

    def gone(self, node: str) -> None:
        """The process has ended: its links are down."""
        self.peers.pop(node, None)
        for linked in self.peers.values():
            linked.discard(node)

    @property
    def parked(self) -> set[str]:
        """Message ids of what is parked now."""
        return {step.message_id for step in self._parked.values()}

    @property
    def parked_reasons(self) -> dict[str, int]:
        """How much of it for which reason."""
        return dict(Counter(step.reason for step in self._parked.values()))

    @property
    def hop_histogram(self) -> dict[int, int]:
        return dict(sorted(Counter(self.claimed.values()).items()))

    def examples(self) -> list[Trace]:
        """Two reports that came home over the ring: an ordinary one, and the one that it took the most.

        The ordinary one took the median time of those with the commonest number of hops.
        """
        whole = [trace for trace in self._sorted_traces() if trace.whole]
        if not whole:
            return []
        commonest, _ = Counter(trace.hops for trace in whole).most_common(1)[0]
        alike = sorted((trace for trace in whole if trace.hops == commonest), key=lambda trace: trace.seconds)
        ordinary = alike[len(alike) // 2]
        others = [trace for trace in whole if trace is not ordinary]
        return [ordinary, *([max(others, key=_effort)] if others else [])]

    def _route(self, step: Step) -> None:
        match step.event:
            case "dlr.forwarded":
                self.forwarded.add(step.message_id)
            case "dlr.claimed":
                self.claimed_by[step.node] += step.message_id not in self.claimed
                self.claimed[step.message_id] = step.hop
            case "dlr.parked":
                self._parked[step.trace] = step
            case _ if step.event in _TAKEN_BACK or step.parked:
                self._parked.pop(step.trace, None)
            case _:
                pass  # a step of the trace and nothing more
        if step.trace in self._traces or len(self._traces) < _MOST_TRACES:
            self._traces.setdefault(step.trace, []).append(step)

    def _sorted_traces(self) -> Iterator[Trace]:
        for steps in self._traces.values():
            yield Trace(tuple(_in_order(steps)))


def _in_order(steps: Iterable[Step]) -> list[Step]:
    return sorted(steps, key=lambda step: (step.timestamp, step.lap, _ORDER.get(step.event, _LAST), step.hop))


def _effort(trace: Trace) -> tuple[int, int, float]:
    """Laps first: whoever sees a second lap sees the ring at work. Then hops, then the time."""
    return max(step.lap for step in trace.steps), trace.hops, trace.seconds
