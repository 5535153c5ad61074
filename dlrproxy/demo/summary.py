"""The figures of a run: what the ledgers prove, and beside it what the nodes say about the way."""

from collections.abc import Mapping, Sequence

from attrs import asdict, field, frozen

from dlrproxy.demo.plan import Plan
from dlrproxy.demo.routes import Routes
from dlrproxy.simulator import ledger as events
from dlrproxy.simulator.judge import Verdict
from dlrproxy.simulator.ledger import Ledger


@frozen(kw_only=True)
class Summary:
    """All counts are of distinct reports unless said otherwise; times in milliseconds."""

    nodes: int
    messages: int  # to be submitted
    misroute: float
    seed: int
    killed: str | None
    in_flight_at_kill: int | None  # reports that the operator had not had an answer for

    # From the ledgers
    submitted: int  # messages that the operator accepted, those submitted again after a lost link included
    unfinished: int  # messages without a final report at their gateway, and none of theirs is parked
    reports_sent: int  # answered ESME_ROK
    delivered_to_owner: int
    delivered_elsewhere: int
    duplicates: int  # deliveries beyond the first
    resent: int  # of these: the operator itself had sent the report again
    order_violations: int
    unexpected: int  # deliveries of what the operator never sent
    lost: int  # answered ESME_ROK, at no gateway, and not parked
    p50_ms: float | None  # from the operator to the owner's answer
    p99_ms: float | None

    # From the nodes' route events
    parked: int
    parked_reasons: Mapping[str, int] = field(factory=dict)
    forwarded: int  # handed to another node at least once
    claimed: int  # by the owner, over the ring
    matched_locally: int  # delivered to the owner, and not claimed over the ring
    hop_histogram: Mapping[int, int] = field(factory=dict)  # of those claimed

    @property
    def passed(self) -> bool:
        """Nothing is lost, nothing is at a gateway that it does not belong to, and no message came to nothing.

        Nothing is out of order either, unless a node was killed: what it had not answered comes a second time, and
        may do so behind its successor.
        """
        out_of_order = self.order_violations and not self.killed
        return not (self.lost or self.delivered_elsewhere or self.unexpected or self.unfinished or out_of_order)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        found = asdict(self)
        found["hop_histogram"] = {str(hops): count for hops, count in self.hop_histogram.items()}
        return {**found, "passed": self.passed}


def sum_up(
    plan: Plan,
    verdict: Verdict,
    routes: Routes,
    balance: "Balance",
    *,
    unfinished: int,
    in_flight_at_kill: int | None = None,
) -> Summary:
    """`unfinished` is the gateways' count of messages without a final report; the ledgers' balance is of the end.

    A report that was answered ESME_ROK, is at no gateway and is parked is not lost. Nothing else excuses one: in a
    demo every gateway is there at the end, and a report with an id that no gateway was told must be parked as well.
    """
    excused = balance.undelivered & routes.parked
    return Summary(
        nodes=plan.nodes,
        messages=plan.messages,
        misroute=plan.misroute,
        seed=plan.seed,
        killed=plan.kill,
        in_flight_at_kill=in_flight_at_kill,
        submitted=verdict.submitted,
        unfinished=unfinished - len(excused & balance.told),
        reports_sent=verdict.reports_sent,
        delivered_to_owner=verdict.delivered_to_owner,
        delivered_elsewhere=verdict.delivered_elsewhere,
        duplicates=verdict.duplicates,
        resent=verdict.resent,
        order_violations=verdict.order_violations,
        unexpected=verdict.unexpected,
        lost=verdict.lost + verdict.ownerless - len(excused),
        p50_ms=verdict.p50_ms,
        p99_ms=verdict.p99_ms,
        parked=len(routes.parked),
        parked_reasons=routes.parked_reasons,
        forwarded=len(routes.forwarded),
        claimed=len(routes.claimed),
        matched_locally=max(0, verdict.delivered_to_owner - len(routes.claimed)),
        hop_histogram=routes.hop_histogram,
    )


class Balance:
    """Which reports are answered ESME_ROK and at no gateway yet, kept while the ledgers grow.

    By message id: in a demo ids are unique, spelled alike everywhere, and have one report each.
    """

    def __init__(self, operator: Ledger, gateways: Sequence[Ledger]) -> None:
        """The ledgers keep their events."""
        self.undelivered: set[str] = set()  # as of the last `update`, like the others
        self.told: set[str] = set()  # ids that a gateway was given for a message of its own
        self.answered = 0
        self._operator = _Unread(operator)
        self._gateways = [_Unread(ledger) for ledger in gateways]
        self._ids: dict[int, str] = {}  # by the number of the delivery
        self._received: set[str] = set()

    @property
    def delivered(self) -> int:
        """Reports at a gateway."""
        return len(self._received)

    def update(self) -> None:
        """Read what is new. Gateways last: what is delivered meanwhile is not counted as missing."""
        for event in self._operator.events():
            match event:
                case events.Report():
                    self._ids[event.n] = event.id
                case events.Answered(status=0):
                    self.answered += 1
                    self.undelivered.add(self._ids[event.n])
                case _:
                    pass  # the judge's business
        for gateway in self._gateways:
            for event in gateway.events():
                match event:
                    case events.Responded(status=0):
                        self.told.add(event.id)
                    case events.Reported(status=0):
                        self._received.add(event.id)
                    case _:
                        pass  # likewise
        self.undelivered -= self._received  # costs as much as the smaller of the two


class _Unread:
    """The events that a growing ledger has had since it was last asked."""

    __slots__ = ("_ledger", "_read")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read = 0

    def events(self) -> list[events.Event]:
        found = self._ledger.events[self._read :]
        self._read += len(found)
        return found
