"""What the ledgers prove about a run, and what must be explained.

A report that was answered ESME_ROK is at its owner, or parked in one place, or was overtaken by its final report. What
a gateway took twice must have had an answer on its way when something failed. Everything else is a finding.

What kind of run it was says what may be explained, and how (`Excuses`): a ring's are in `excuses.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final, Protocol

from attrs import frozen

from chaos.told import Told
from dlrproxy.admin.parked import ParkedItem
from dlrproxy.simulator import ledger as events
from dlrproxy.simulator.judge import Arrival, Cases, Named, Verdict, examine
from protocols.smpp import constants as c
from ring.commands import Reason

_LINES: Final = 20  # of a log, in a finding

ReportKey = tuple[str, bool]  # message id, final


class Excuses(Protocol):
    """What the faults of a run, its ledgers and its logs explain; an empty text: nothing does."""

    def repeated(self, case: Named, first: Arrival, second: Arrival) -> str:
        """Why a gateway took it once more."""

    def disordered(self, case: Named) -> str:
        """Why it came after the final report, or before the response to its message."""

    def parked(self, item: ParkedItem, case: Named | None) -> str:
        """Why it may stay parked, though it has an owner, or (`case` is None) was delivered or never acknowledged."""


@frozen
class Rest:
    """How it was when nothing moved any more, or should not have."""

    unrest: str  # what still moved when the time was up; empty as it should be
    parked: Mapping[str, list[ParkedItem]]  # by node, in the end
    replayed: list[ParkedItem]  # had been parked though they had an owner, and were replayed


@frozen(kw_only=True)
class Evidence:
    """All that is known of a run when everybody has stopped."""

    operator: Iterable[events.Event]
    gateways: Mapping[str, Iterable[events.Event]]
    rules: Mapping[str, str] = {}  # for MO: the number that it is for, and its gateway
    faults: Mapping[str, int]  # how many there were, by kind
    removed: Container[str] = ()  # nodes that were out of the table at some time
    rest: Rest
    superseded: Container[str]  # message ids of which some node says that it kept an intermediate report back
    lines_lost: Container[str] = ()  # nodes whose log is not whole: a full disk was theirs as well
    unfinished: int  # messages without a final report at their gateway
    failures: Iterable[str] = ()  # nodes that ended by themselves, or did not end when they should
    unexpected_lines: Mapping[str, list[str]] = {}  # by node: what is in the log and no event
    starts: int = 0
    errors: Mapping[str, int] = {}


@frozen
class Finding:
    """Something that must not be. `message_id` is empty where it is not about one report."""

    what: str
    detail: str
    message_id: str = ""


@frozen
class MoCount:
    """Of distinct MO, each part for itself; those that were answered ESME_ROK and taken by a gateway."""

    by_rule: int  # at the gateway that a rule names
    in_conversation: int  # at the gateway that had written to the subscriber
    out_of_conversation: int  # at another one: who cannot be reached, or was restarted, says nothing of a conversation


@frozen(kw_only=True)
class Judgement:
    """The outcome of a run."""

    faults: Mapping[str, int]
    messages: int
    verdict: Verdict
    parked: Mapping[str, int]  # in the end, by reason
    kept: Mapping[str, int]  # of these: with an owner, or delivered as well, by explanation
    replayed: Mapping[str, int]  # by reason
    superseded: int
    repeated: Mapping[str, int]  # deliveries beyond the first, by explanation
    late: Mapping[str, int]  # reports out of order, by explanation
    starts: int  # of nodes, the first of each included
    errors: Mapping[str, int]  # what the nodes logged at level error
    lost: int  # of those answered ESME_ROK: at no gateway, not parked, not overtaken
    mo: "MoCount"
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return not self.findings


def judged(evidence: Evidence, told: Told, excuses: Excuses) -> Judgement:
    """`told` is of the same ledgers as `evidence`."""
    verdict, cases = examine(evidence.operator, evidence.gateways)
    missing = _Missing(cases, evidence, excuses)
    repeats = [
        (case, excuses.repeated(case, first, second))
        for case in cases.repeated
        for first, second in pairwise(case.received)
    ]
    late = [(case, excuses.disordered(case)) for case in cases.disordered]
    mo = _Mo(evidence, excuses)
    return Judgement(
        faults=evidence.faults,
        messages=len(set(_submitted(evidence))),
        verdict=verdict,
        parked=Counter(item.reason for items in evidence.rest.parked.values() for item in items),
        kept=missing.kept + mo.kept,
        replayed=Counter(item.reason for item in evidence.rest.replayed),
        superseded=verdict.superseded + len(missing.superseded),
        repeated=Counter(why or "unexplained" for _, why in repeats),
        late=Counter(why for _, why in late if why),
        starts=evidence.starts,
        errors=evidence.errors,
        lost=len(missing.lost) + max(0, verdict.mo_lost - mo.parked),
        mo=mo.count,
        findings=(
            *_at_all(evidence, verdict),
            *missing.findings,
            *(Finding("elsewhere", _where(case), case.message_id) for case in cases.elsewhere),
            *(Finding("out of order", _where(case), case.message_id) for case, why in late if not why),
            *(Finding("repeated without a reason", _where(case), case.message_id) for case, why in repeats if not why),
            *_abandoned(told),
            *_disowned(evidence),
            *mo.findings(),
        ),
    )


def _submitted(evidence: Evidence) -> Iterator[str]:
    for ledger in evidence.gateways.values():
        yield from (event.tag for event in ledger if isinstance(event, events.Submitted))


def _at_all(evidence: Evidence, verdict: Verdict) -> Iterator[Finding]:
    """What is not about one report."""
    if evidence.rest.unrest:
        yield Finding("no rest", evidence.rest.unrest)
    for failure in evidence.failures:
        yield Finding("node failed", failure)
    for node, lines in evidence.unexpected_lines.items():
        yield Finding("said more than its log", "\n".join((node, *lines[:_LINES])))
    if evidence.unfinished:
        yield Finding("unfinished", f"{evidence.unfinished} messages without a final report at their gateway")
    if verdict.unexpected:
        yield Finding("unexpected", f"{verdict.unexpected} reports that the operator never made")


def _disowned(evidence: Evidence) -> Iterator[Finding]:
    """Every node said that it was not its own, while the owner's node was in every table."""
    owners = {
        event.id: name
        for name, ledger in evidence.gateways.items()
        for event in ledger
        if isinstance(event, events.Responded) and event.status == c.ESME_ROK
    }
    for item in _reports(evidence.rest.replayed):
        owner = owners.get(item.message_id, "")
        if item.reason == Reason.UNCLAIMED.value and owner not in evidence.removed:
            yield Finding("unclaimed, and it had an owner", f"of {owner}, taken by {item.origin}", item.message_id)


def _reports(items: Iterable[ParkedItem]) -> Iterator[ParkedItem]:
    return (item for item in items if item.kind == "dlr")


class _Mo:
    """What subscribers sent: each at the gateway that a rule names, and none nowhere."""

    def __init__(self, evidence: Evidence, excuses: Excuses) -> None:
        parked = [item for items in evidence.rest.parked.values() for item in items if item.kind == "mo"]
        self.parked = len(parked)
        self.kept = Counter(filter(None, (excuses.parked(item, None) for item in parked)))
        self._rules = evidence.rules
        self._made: dict[str, events.Mo] = {}
        self._accepted: set[str] = set()
        tags: dict[int, str] = {}
        for event in evidence.operator:
            if isinstance(event, events.Mo):
                self._made[event.tag] = event
                tags[event.n] = event.tag
            elif isinstance(event, events.Answered) and event.status == c.ESME_ROK and event.n in tags:
                self._accepted.add(tags[event.n])
        self._wrote = {  # the numbers of a conversation: which gateways have written to the subscriber
            event.destination: name
            for name, ledger in evidence.gateways.items()
            for event in ledger
            if isinstance(event, events.Submitted)
        }
        self._at: defaultdict[str, list[str]] = defaultdict(list)
        for name, ledger in evidence.gateways.items():
            for heard in ledger:
                if isinstance(heard, events.MoReceived) and heard.status == c.ESME_ROK:
                    self._at[heard.tag].append(name)

    @property
    def count(self) -> MoCount:
        counts: Counter[str] = Counter()
        for tag, gateways in self._at.items():
            mo = self._made.get(tag)
            if mo is not None and mo.destination in self._rules:
                counts["rule"] += self._rules[mo.destination] in gateways
            elif mo is not None and mo.source in self._wrote:
                counts["in" if self._wrote[mo.source] in gateways else "out"] += 1
        return MoCount(counts["rule"], counts["in"], counts["out"])

    def findings(self) -> Iterator[Finding]:
        nowhere = sorted(self._accepted - self._at.keys())
        if len(nowhere) > self.parked:
            yield Finding(
                "MO lost", f"{len(nowhere)} at no gateway, {self.parked} parked: {', '.join(nowhere[:_LINES])}"
            )
        if for_good := self.parked - self.kept.total():
            yield Finding("MO parked for good", f"{for_good}, though every gateway is there")
        for tag, gateways in self._at.items():
            mo = self._made.get(tag)
            wanted = self._rules.get(mo.destination, "") if mo is not None else ""
            if wanted and set(gateways) != {wanted}:
                yield Finding("MO elsewhere", f"{tag}, for {wanted} by rule, is at {', '.join(gateways)}")


class _Missing:
    """Reports answered ESME_ROK that no gateway has."""

    def __init__(self, cases: Cases, evidence: Evidence, excuses: Excuses) -> None:
        self._parked: defaultdict[ReportKey, list[tuple[str, ParkedItem]]] = defaultdict(list)
        for node, items in evidence.rest.parked.items():
            for item in _reports(items):
                self._parked[item.message_id, item.final].append((node, item))
        missing = (*cases.lost, *cases.ownerless)
        self._missing = {(case.message_id, case.final): case for case in missing}
        self.superseded = [case for case in missing if not self._where(case) and _superseded(case, cases, evidence)]
        self.lost = [case for case in missing if not self._where(case) and case not in self.superseded]
        self.kept: Counter[str] = Counter()
        self.findings = tuple(self._find(excuses))

    def _where(self, case: Named) -> bool:
        return (case.message_id, case.final) in self._parked

    def _find(self, excuses: Excuses) -> Iterator[Finding]:
        for lost in self.lost:
            yield Finding("lost", f"{lost.state}, of {lost.owner}; nowhere", lost.message_id)
        for (message_id, final), items in self._parked.items():
            case = self._missing.get((message_id, final))
            places = ", ".join(f"{node} ({item.reason})" for node, item in items)
            why = [excuses.parked(item, case) for _, item in items] if case is None or case.told else []
            self.kept.update(filter(None, why))
            if case is None and not all(why):
                yield Finding("parked, and delivered or never acknowledged", places, message_id)
            elif not all(why):
                yield Finding("parked for good, and it has an owner", places, message_id)
            elif case is not None and len(items) > case.sent:
                yield Finding("parked more than once", places, message_id)


def _superseded(case: Named, cases: Cases, evidence: Evidence) -> bool:
    """An intermediate report that was kept back, since its final one is with the gateway."""
    said = case.message_id in evidence.superseded or case.owner in evidence.lines_lost
    final_missing = any(
        other.final and other.message_id == case.message_id for other in (*cases.lost, *cases.ownerless)
    )
    return said and not case.final and not final_missing


def _abandoned(told: Told) -> Iterator[Finding]:
    """A permanent answer makes the operator drop a report."""
    for (message_id, state), status in told.abandoned:
        name = c.STATUS_NAMES.get(status, hex(status)) if status is not None else "no status"
        yield Finding("refused for good", f"{state}: the operator was answered {name}", message_id)


def _where(case: Named) -> str:
    received = ", ".join(f"{arrival.gateway} at {arrival.t:.2f}" for arrival in case.received)
    return f"{case.state}, of {case.owner}, sent {case.sent} times; received by {received or 'nobody'}"
