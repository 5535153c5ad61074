"""Who got what: compares an operator's ledger with those of all gateways behind it.

Only ledgers are believed, never a counter of what stands between. The owner of a report is the gateway that submitted
the message with the tag that the report's message carried at the operator; ids are used only to tell which of the
operator's reports a gateway received.

What counts as received is what the gateway answered with ESME_ROK: what it refused or left unanswered is expected to
come again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from math import ceil

from attrs import asdict, define, field, frozen

from dlrproxy.simulator import ledger as events
from dlrproxy.simulator.ids import canonical, readings

ReportKey = tuple[int, int]  # run of the operator, number of the delivery in it


@frozen
class Verdict:
    """All counts are of distinct reports (or MO parts) unless said otherwise. Times in milliseconds."""

    submitted: int  # messages that the operator gave an id to
    reports_made: int
    reports_sent: int  # answered ESME_ROK by what the operator's binds end at
    delivered_to_owner: int
    delivered_elsewhere: int  # to a gateway that did not submit the message, whether or not to the owner as well
    duplicates: int  # deliveries beyond the first, over all gateways
    resent: int  # of `duplicates`: the operator itself had sent the report more than once
    lost: int  # of `reports_sent`: no gateway has it, though the owner could have been known
    ownerless: int  # of `reports_sent`: no gateway has it, and none was ever told the message's id
    superseded: int  # of `reports_sent`: an intermediate one that its final report, sent meanwhile, overtook
    unexpected: int  # deliveries of reports that the operator never made
    order_violations: int  # intermediate after final, or a report before its submit_sm_resp, at the owner
    p50_ms: float | None  # from the operator's first sending to the owner's answer
    p99_ms: float | None
    mo_sent: int  # parts, answered ESME_ROK
    mo_delivered: int
    mo_lost: int
    mo_duplicates: int
    mo_split: int  # concatenated messages whose parts reached different gateways

    @property
    def passed(self) -> bool:
        """Nothing lost, nothing at the wrong gateway, nothing out of order."""
        return not (
            self.lost
            or self.delivered_elsewhere
            or self.unexpected
            or self.order_violations
            or self.mo_lost
            or self.mo_split
        )

    def as_dict(self) -> dict[str, int | float | None]:
        return asdict(self)


@frozen
class Arrival:
    """A gateway took a report."""

    gateway: str
    position: int  # in that gateway's ledger: its order of events
    t: float


@frozen
class Named:
    """One report that a verdict counts, to be looked into."""

    message_id: str  # as in the submit_sm_resp
    state: str
    final: bool
    owner: str | None
    told: bool  # the owner was given the id
    sent: int  # how often, by the operator
    received: tuple[Arrival, ...]


@frozen
class Cases:
    """The reports behind a verdict's counts. `repeated` ones reached gateways more than once."""

    lost: tuple[Named, ...]
    ownerless: tuple[Named, ...]
    elsewhere: tuple[Named, ...]
    repeated: tuple[Named, ...]
    disordered: tuple[Named, ...]


@define
class _Delivery:
    """A report or an MO part, as the operator tells it."""

    first_sent: float | None = None
    sent: int = 0
    accepted_at: float | None = None


@define
class _Message:
    id: str
    tag: str
    reports: "list[_Report]" = field(factory=list)


@define
class _Report(_Delivery):
    message: _Message | None = None
    destination: str = ""
    state: str = ""
    final: bool = True
    received: list[Arrival] = field(factory=list)


@define
class _Mo(_Delivery):
    message: str = ""
    parts: int = 1
    received: list[str] = field(factory=list)  # names of gateways


def judge(operator: Iterable[events.Event], gateways: Mapping[str, Iterable[events.Event]]) -> Verdict:
    """The verdict on what happened between an operator and all gateways, by name, that submitted to it.

    A ledger may hold several runs, one after another.
    """
    return examine(operator, gateways)[0]


def examine(operator: Iterable[events.Event], gateways: Mapping[str, Iterable[events.Event]]) -> tuple[Verdict, Cases]:
    """As `judge`, with the reports behind the counts."""
    told = _Operator(operator)
    heard = _Gateways(told, gateways)
    cases = _cases(told, heard)
    return _verdict(told, heard, cases), cases


class _Operator:
    """What the operator's ledger says."""

    def __init__(self, ledger: Iterable[events.Event]) -> None:
        self.accepted = 0
        self.reports: list[_Report] = []
        self.mos: dict[str, _Mo] = {}  # by tag
        self.by_id: dict[str, list[_Message]] = defaultdict(list)  # by every canonical spelling, oldest first
        self._current: dict[str, _Message] = {}  # by response id; ids come again after months, or a restart
        self._deliveries: dict[ReportKey, _Delivery] = {}
        self._run = 0
        for event in ledger:
            self._read(event)

    def _read(self, event: events.Event) -> None:
        match event:
            case events.OperatorStarted():
                self._run += 1
            case events.Accepted():
                self.accepted += 1
                message = self._current[event.id] = _Message(event.id, event.tag)
                for key in {canonical(event.id), canonical(event.receipt_id)}:
                    self.by_id[key].append(message)
            case events.Report():
                self._report(event)
            case events.Mo():
                mo = self.mos[event.tag] = _Mo(message=event.message, parts=event.parts)
                self._deliveries[self._run, event.n] = mo
            case events.Sent():
                delivery = self._deliveries[self._run, event.n]
                delivery.sent += 1
                if delivery.first_sent is None:
                    delivery.first_sent = event.t
            case events.Answered(status=0):
                delivery = self._deliveries[self._run, event.n]
                if delivery.accepted_at is None:
                    delivery.accepted_at = event.t
            case _:
                pass  # binds, refusals and errors say nothing about who has what

    def _report(self, event: events.Report) -> None:
        message = self._current[event.id]
        report = _Report(message=message, destination=event.destination, state=event.state, final=event.final)
        message.reports.append(report)
        self.reports.append(report)
        self._deliveries[self._run, event.n] = report

    def find(self, event: events.Reported) -> _Report | None:
        """The report that a gateway received: by id and state, then tag, then destination, the newest message first.

        Ids that spell the same number are one id here, since a proxy may be set to write them as submitted.
        """
        keys = dict.fromkeys((canonical(event.id), *readings(event.id)))
        for key in keys:
            messages = self.by_id.get(key, ())
            candidates = [
                report
                for message in reversed(messages)
                if not event.tag or message.tag == event.tag
                for report in message.reports
                if report.state == event.state
            ]
            exact = [report for report in candidates if report.destination == event.source]
            if exact or candidates:
                return (exact or candidates)[0]
        return None


class _Gateways:
    """What the gateways' ledgers say."""

    def __init__(self, told: _Operator, ledgers: Mapping[str, Iterable[events.Event]]) -> None:
        self.owners: dict[str, str] = {}  # tag: gateway
        self.responses: dict[tuple[str, str], int] = {}  # gateway and message id: position
        self.unexpected = 0
        received: list[tuple[events.Reported | events.MoReceived, Arrival]] = []
        for name, ledger in ledgers.items():
            for position, event in enumerate(ledger):
                match event:
                    case events.Submitted():
                        self.owners[event.tag] = name
                    case events.Responded(status=0):
                        self.responses.setdefault((name, event.id), position)
                    case events.Reported(status=0) | events.MoReceived(status=0):
                        received.append((event, Arrival(name, position, event.t)))
                    case _:
                        pass  # connections, and what was refused and will come again
        for event, arrival in received:
            self._assign(told, event, arrival)

    def _assign(self, told: _Operator, event: events.Reported | events.MoReceived, arrival: Arrival) -> None:
        if isinstance(event, events.MoReceived):
            mo = told.mos.get(event.tag)
            if mo is None:
                self.unexpected += 1
            else:
                mo.received.append(arrival.gateway)
            return
        report = told.find(event)
        if report is None:
            self.unexpected += 1
        else:
            report.received.append(arrival)

    def knows_id(self, message: _Message) -> bool:
        owner = self.owners.get(message.tag)
        return owner is not None and (owner, message.id) in self.responses


def _cases(told: _Operator, heard: _Gateways) -> Cases:
    missing = [
        report
        for report in told.reports
        if report.accepted_at is not None and not report.received and not _superseded(report)
    ]
    return Cases(
        lost=_named(heard, (report for report in missing if _known(heard, report))),
        ownerless=_named(heard, (report for report in missing if not _known(heard, report))),
        elsewhere=_named(heard, (report for report in told.reports if _elsewhere(heard, report))),
        repeated=_named(heard, (report for report in told.reports if len(report.received) > 1)),
        disordered=_named(heard, (*_early_reports(told, heard), *_late_intermediates(told, heard))),
    )


def _named(heard: _Gateways, reports: Iterable[_Report]) -> tuple[Named, ...]:
    return tuple(
        Named(
            report.message.id if report.message is not None else "",
            report.state,
            report.final,
            _owner(heard, report),
            _known(heard, report),
            report.sent,
            tuple(sorted(report.received, key=lambda arrival: arrival.t)),
        )
        for report in reports
    )


def _verdict(told: _Operator, heard: _Gateways, cases: Cases) -> Verdict:
    sent = [report for report in told.reports if report.accepted_at is not None]
    latencies = sorted(_latencies(told, heard))
    mos = [mo for mo in told.mos.values() if mo.accepted_at is not None]
    return Verdict(
        submitted=told.accepted,
        reports_made=len(told.reports),
        reports_sent=len(sent),
        delivered_to_owner=sum(_at_owner(heard, report) is not None for report in told.reports),
        delivered_elsewhere=len(cases.elsewhere),
        duplicates=sum(len(report.received) - 1 for report in cases.repeated),
        resent=sum(len(report.received) - 1 for report in cases.repeated if report.sent > 1),
        lost=len(cases.lost),
        ownerless=len(cases.ownerless),
        superseded=sum(not report.received and _superseded(report) for report in sent),
        unexpected=heard.unexpected,
        order_violations=len(cases.disordered),
        p50_ms=_percentile(latencies, 0.50),
        p99_ms=_percentile(latencies, 0.99),
        mo_sent=len(mos),
        mo_delivered=sum(bool(mo.received) for mo in told.mos.values()),
        mo_lost=sum(not mo.received for mo in mos),
        mo_duplicates=sum(max(0, len(mo.received) - 1) for mo in told.mos.values()),
        mo_split=_split(told),
    )


def _known(heard: _Gateways, report: _Report) -> bool:
    return report.message is not None and heard.knows_id(report.message)


def _owner(heard: _Gateways, report: _Report) -> str | None:
    return heard.owners.get(report.message.tag) if report.message is not None else None


def _at_owner(heard: _Gateways, report: _Report) -> Arrival | None:
    """Its first arrival at the owner."""
    owner = _owner(heard, report)
    return next((arrival for arrival in report.received if arrival.gateway == owner), None)


def _elsewhere(heard: _Gateways, report: _Report) -> bool:
    owner = _owner(heard, report)
    return any(arrival.gateway != owner for arrival in report.received)


def _superseded(report: _Report) -> bool:
    """Whether this is an intermediate report that may rightly be kept back: when it was accepted, the final one had
    already been sent, and that one arrived."""
    if report.final or report.message is None or report.accepted_at is None:
        return False
    return any(
        other.final
        and other.destination == report.destination
        and other.received
        and other.first_sent is not None
        and other.first_sent <= report.accepted_at
        for other in report.message.reports
    )


def _latencies(told: _Operator, heard: _Gateways) -> Iterator[float]:
    for report in told.reports:
        arrival = _at_owner(heard, report)
        if arrival is not None and report.first_sent is not None:
            yield (arrival.t - report.first_sent) * 1000


def _percentile(ordered: list[float], share: float) -> float | None:
    """The nearest-rank percentile of a sorted list."""
    return round(ordered[max(0, ceil(len(ordered) * share) - 1)], 3) if ordered else None


def _early_reports(told: _Operator, heard: _Gateways) -> Iterator[_Report]:
    """Reports that reached the owner before the submit_sm_resp of their message did."""
    for report in told.reports:
        arrival = _at_owner(heard, report)
        if arrival is None or report.message is None:
            continue
        response = heard.responses.get((arrival.gateway, report.message.id))
        if response is not None and arrival.position < response:
            yield report


def _late_intermediates(told: _Operator, heard: _Gateways) -> Iterator[_Report]:
    """Intermediate reports that reached the owner after the final one of the same message and destination."""
    for report in told.reports:
        if report.final or report.message is None:
            continue
        owner = _owner(heard, report)
        finals = [
            arrival.position
            for other in report.message.reports
            if other.final and other.destination == report.destination
            for arrival in other.received
            if arrival.gateway == owner
        ]
        arrivals = [arrival.position for arrival in report.received if arrival.gateway == owner]
        if finals and arrivals and arrivals[-1] > finals[0]:
            yield report


def _split(told: _Operator) -> int:
    gateways: dict[str, set[str]] = defaultdict(set)
    for mo in told.mos.values():
        if mo.parts > 1:
            gateways[mo.message].update(mo.received)
    return sum(len(names) > 1 for names in gateways.values())
