"""What the ledgers prove about a run, and what must be explained.

A report that was answered ESME_ROK is at its owner, or parked in one place, or was overtaken by its final report. What
a gateway took twice must have had an answer on its way when something failed. Everything else is a finding.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final

from attrs import frozen

from chaos.plan import SLOW_S, Fault, Kind
from dlrproxy.admin.parked import ParkedItem
from dlrproxy.simulator import ledger as events
from dlrproxy.simulator.judge import Arrival, Cases, Named, Verdict, examine
from protocols.smpp import constants as c
from ring.commands import Reason

# An answer is on its way for so long at most where no fault is in its way: milliseconds as a rule, for it and for a
# group commit; but on a busy machine everything may stand still for seconds.
ON_ITS_WAY_S: Final = 10.0

# Faults that keep a gateway's answer, or its durable mark, from coming about for as long as they last.
_DETAINING: Final = frozenset(
    {
        Kind.PAUSE, Kind.LONG_PAUSE, Kind.DISK_FULL, Kind.GATEWAY_STUCK, Kind.GATEWAY_SLOW, Kind.GATEWAY_HALF_OPEN,
    }
)  # fmt: skip

# An answer that was put off while it lasted comes so much later; so does a write, since the store waits for up to five
# seconds before it tries a disk again that was full.
_AFTER_S: Final = {Kind.GATEWAY_SLOW: SLOW_S, Kind.DISK_FULL: 5.0}

_LINES: Final = 20  # of a log, in a finding

ReportKey = tuple[str, bool]  # message id, final


@frozen
class Episode:
    """A fault as it happened, in time.monotonic() seconds."""

    fault: Fault
    began: float
    ended: float


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
    episodes: Iterable[Episode]
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

    faults: Mapping[Kind, int]
    messages: int
    verdict: Verdict
    parked: Mapping[str, int]  # in the end, by reason
    replayed: Mapping[str, int]  # by reason
    superseded: int
    repeated: Mapping[str, int]  # deliveries beyond the first, by explanation
    late: int  # intermediate reports after the final one, whose delivery was not on disk when its node was killed
    starts: int  # of nodes, the first of each included
    errors: Mapping[str, int]  # what the nodes logged at level error
    lost: int  # of those answered ESME_ROK: at no gateway, not parked, not overtaken
    mo: "MoCount"
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return not self.findings


def judged(evidence: Evidence) -> Judgement:
    verdict, cases = examine(evidence.operator, evidence.gateways)
    told = _Told(evidence)
    missing = _Missing(cases, evidence)
    repeats = list(told.repeats(cases.repeated))
    late = [case for case in cases.disordered if told.forgot_final(case)]
    mo = _Mo(evidence)
    return Judgement(
        faults=Counter(episode.fault.kind for episode in evidence.episodes),
        messages=len(set(_submitted(evidence))),
        verdict=verdict,
        parked=Counter(item.reason for items in evidence.rest.parked.values() for item in items),
        replayed=Counter(item.reason for item in evidence.rest.replayed),
        superseded=verdict.superseded + len(missing.superseded),
        repeated=Counter(why or "unexplained" for _, why in repeats),
        late=len(late),
        starts=evidence.starts,
        errors=evidence.errors,
        lost=len(missing.lost) + max(0, verdict.mo_lost - mo.parked),
        mo=mo.count,
        findings=(
            *_at_all(evidence, verdict),
            *missing.findings(),
            *(Finding("elsewhere", _where(case), case.message_id) for case in cases.elsewhere),
            *(Finding("out of order", _where(case), case.message_id) for case in cases.disordered if case not in late),
            *(Finding("repeated without a reason", _where(case), case.message_id) for case, why in repeats if not why),
            *told.abandoned(),
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
    removed = {name for each in evidence.episodes if each.fault.kind is Kind.REMOVAL for name in each.fault.target}
    for item in _reports(evidence.rest.replayed):
        owner = owners.get(item.message_id, "")
        if item.reason == Reason.UNCLAIMED.value and owner not in removed:
            yield Finding("unclaimed, and it had an owner", f"of {owner}, taken by {item.origin}", item.message_id)


def _reports(items: Iterable[ParkedItem]) -> Iterator[ParkedItem]:
    return (item for item in items if item.kind == "dlr")


class _Mo:
    """What subscribers sent: each at the gateway that a rule names, and none nowhere."""

    def __init__(self, evidence: Evidence) -> None:
        self.parked = sum(item.kind == "mo" for items in evidence.rest.parked.values() for item in items)
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
        if self.parked:
            yield Finding("MO parked for good", f"{self.parked}, though every gateway is there")
        for tag, gateways in self._at.items():
            mo = self._made.get(tag)
            wanted = self._rules.get(mo.destination, "") if mo is not None else ""
            if wanted and set(gateways) != {wanted}:
                yield Finding("MO elsewhere", f"{tag}, for {wanted} by rule, is at {', '.join(gateways)}")


class _Missing:
    """Reports answered ESME_ROK that no gateway has."""

    def __init__(self, cases: Cases, evidence: Evidence) -> None:
        self._parked: defaultdict[ReportKey, list[str]] = defaultdict(list)
        for node, items in evidence.rest.parked.items():
            for item in _reports(items):
                self._parked[item.message_id, item.final].append(f"{node} ({item.reason})")
        missing = (*cases.lost, *cases.ownerless)
        self._missing = {(case.message_id, case.final): case for case in missing}
        self.superseded = [case for case in missing if not self._where(case) and _superseded(case, cases, evidence)]
        self.lost = [case for case in missing if not self._where(case) and case not in self.superseded]

    def _where(self, case: Named) -> list[str]:
        return self._parked.get((case.message_id, case.final), [])

    def findings(self) -> Iterator[Finding]:
        for case in self.lost:
            yield Finding("lost", f"{case.state}, of {case.owner}; nowhere", case.message_id)
        for (message_id, final), places in self._parked.items():
            missing = self._missing.get((message_id, final))
            if missing is None:
                yield Finding("parked, and delivered or never acknowledged", ", ".join(places), message_id)
            elif missing.told:
                yield Finding("parked for good, and it has an owner", ", ".join(places), message_id)
            elif len(places) > missing.sent:
                yield Finding("parked more than once", ", ".join(places), message_id)


def _superseded(case: Named, cases: Cases, evidence: Evidence) -> bool:
    """An intermediate report that was kept back, since its final one is with the gateway."""
    said = case.message_id in evidence.superseded or case.owner in evidence.lines_lost
    final_missing = any(
        other.final and other.message_id == case.message_id for other in (*cases.lost, *cases.ownerless)
    )
    return said and not case.final and not final_missing


class _Told:
    """What the ledgers say beside who has what: answers that did not come, sessions that ended."""

    def __init__(self, evidence: Evidence) -> None:
        self._names: dict[int, tuple[str, str]] = {}  # of deliveries: message id, state
        self._unanswered: set[tuple[str, str]] = set()
        self._put_off: set[tuple[str, str]] = set()
        self._abandoned: list[tuple[tuple[str, str], int | None]] = []
        for event in evidence.operator:
            match event:
                case events.Report():
                    self._names[event.n] = event.id, event.state
                case events.Mo():
                    self._names[event.n] = event.tag, "MO"
                case events.Unanswered():
                    self._unanswered.add(self._names[event.n])
                case events.Answered(status=status) if status != c.ESME_ROK:
                    self._put_off.add(self._names[event.n])
                case events.Abandoned():
                    self._abandoned.append((self._names[event.n], event.status))
                case _:
                    pass  # the judge's business
        self._ended = {
            name: [event.t for event in ledger if isinstance(event, events.Unlinked)]
            for name, ledger in evidence.gateways.items()
        }
        self._episodes = [episode for episode in evidence.episodes if episode.fault.kind in _DETAINING]
        self._kills = [episode for episode in evidence.episodes if episode.fault.kind in (Kind.KILL, Kind.POWER_CUT)]
        self._finals: dict[tuple[str, str], float] = {}  # gateway and message id: when it took the final report
        for name, ledger in evidence.gateways.items():
            for heard in ledger:
                if isinstance(heard, events.Reported) and heard.status == c.ESME_ROK and heard.state in c.FINAL_STATES:
                    self._finals.setdefault((name, heard.id), heard.t)

    def repeats(self, cases: Iterable[Named]) -> Iterator[tuple[Named, str]]:
        """Every delivery beyond the first, and what explains it; empty where nothing does."""
        for case in cases:
            for first, second in pairwise(case.received):
                yield case, self._why(case, first, second)

    def _why(self, case: Named, first: Arrival, second: Arrival) -> str:
        detained = self._detained_until(first.gateway, first.t)
        if (case.message_id, case.state) in self._unanswered:
            return "the operator had no answer, and sent it again"
        if detained > first.t + ON_ITS_WAY_S and (case.message_id, case.state) in self._put_off:
            return "the gateway's answer came late, the operator had been told to send it again"
        if any(first.t <= ended <= min(second.t, detained) for ended in self._ended[first.gateway]):
            return "the session ended with the answer on its way"
        if any(
            episode.fault.kind is Kind.DISK_FULL and episode.began <= first.t <= episode.ended + ON_ITS_WAY_S
            for episode in self._of(first.gateway)
        ):
            return "the disk was full when the gateway answered"
        return ""

    def forgot_final(self, case: Named) -> bool:
        """An intermediate report came after a final one of which the killed node had nothing on disk yet."""
        name = case.owner or ""
        at = self._finals.get((name, case.message_id))
        if case.final or at is None or case.received[-1].t < at:
            return False
        until = self._detained_until(name, at)
        return any(
            at <= kill.began <= until and (not kill.fault.target or name in kill.fault.target) for kill in self._kills
        )

    def _detained_until(self, name: str, at: float) -> float:
        """How long an answer of that time may be on its way to disk: one fault may take over from another."""
        until = at + ON_ITS_WAY_S
        for episode in sorted(self._of(name), key=lambda episode: episode.began):
            if episode.began <= until and at <= episode.ended:
                until = max(until, episode.ended + ON_ITS_WAY_S + _AFTER_S.get(episode.fault.kind, 0.0))
        return until

    def _of(self, name: str) -> Iterator[Episode]:
        return (episode for episode in self._episodes if name in episode.fault.target)

    def abandoned(self) -> Iterator[Finding]:
        """A permanent answer makes the operator drop a report."""
        for (message_id, state), status in self._abandoned:
            name = c.STATUS_NAMES.get(status, hex(status)) if status is not None else "no status"
            yield Finding("refused for good", f"{state}: the operator was answered {name}", message_id)


def _where(case: Named) -> str:
    received = ", ".join(f"{arrival.gateway} at {arrival.t:.2f}" for arrival in case.received)
    return f"{case.state}, of {case.owner}, sent {case.sent} times; received by {received or 'nobody'}"
