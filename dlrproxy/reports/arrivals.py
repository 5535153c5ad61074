"""Reports and MO from the operator: whose they are, and where they go. What is owed from then on: `owed.py`.

    deliver_sm --> in line behind an earlier report of its message
               --> its message is known: the owner's session
               --> it is not: `seeking.py`, then custody

A line is named by the id as reported, and one report of a line is under way at a time: so their order holds whatever
happens to the first (promise 4). What is not answered yet is bounded: what comes beyond it, or is not
placed and on disk within `operator_answer_s`, is answered `retry_status`.
"""

from collections import deque
from functools import partial
from typing import Final

from dlrproxy import routing
from dlrproxy.mo.routing import Why
from dlrproxy.mt.responses import Responses
from dlrproxy.mt.submissions import Submissions
from dlrproxy.reports.arrival import Arrival, Stage
from dlrproxy.reports.finals import Finals
from dlrproxy.reports.matching import Matching
from dlrproxy.reports.owed import Owed
from dlrproxy.reports.passing import Passing
from dlrproxy.reports.renaming import Renaming
from dlrproxy.reports.seeking import Seeking
from dlrproxy.routing import Step
from dlrproxy.sessions.links import Bind, GatewaySession
from dlrproxy.store.port import OpenMessage
from dlrproxy.surroundings import Surroundings
from protocols.smpp import constants as c
from protocols.smpp.message_ids import Ambiguous, Inexact, Verdict
from protocols.smpp.receipts import read

MAX_UNANSWERED: Final = 10_000  # per operator; operators' own windows are 10 to 25 a bind


class Arrivals:
    """One operator's reports and MO."""

    def __init__(
        self,
        around: Surroundings,
        responses: Responses,
        submissions: Submissions,
        passing: Passing,
        matching: Matching,
        renaming: Renaming,
        finals: Finals,
    ) -> None:
        self._operator = around.operator
        self._store = around.store
        self._custody = around.custody
        self._counters = around.counters
        self._mo = around.mo
        self._routes = around.routes
        self._new_trace = around.new_trace
        self._roaming = around.roaming
        self._responses = responses
        self._unwritten = responses.unwritten
        self._passing = passing
        self._matching = matching
        self._renaming = renaming
        self._finals = finals
        self.seeking = Seeking(around, submissions, matching, self)
        owed = self._owed = Owed(around, self.seeking.forget)
        self._open = owed.open
        self._lines = owed.lines
        self._next = owed.next
        self._repeats = owed.repeats
        self._lost = owed.repeats.firsts

    def __len__(self) -> int:
        """How many the operator has not been answered for."""
        return len(self._open)

    def under_way(self, message_id: bytes) -> bool:
        """A report of this id is not answered for yet."""
        return message_id in self._lines

    # From the operator

    def arrive(self, bind: Bind, frame: bytes, command: int, sequence: int, now: float) -> None:
        """A deliver_sm or data_sm."""
        report = read(frame, text_receipts=self._operator.receipt_text)
        if self._lost and self._repeated(bind, frame, sequence, report is None, now):
            return
        arrival = Arrival(self._owed, bind, frame, command, sequence, report, now)
        if len(self._open) >= MAX_UNANSWERED:
            self._counters.refused_full += 1
            self._owed.reply(arrival, self._operator.retry_status)
            return
        self._open[arrival] = None
        if report is None:
            self._counters.mo += 1
            self._place_mo(arrival, now)
            return
        self._counters.reports += 1
        message_id = report.message_id
        if not message_id:
            self._counters.no_id += 1
            self._place_locally(arrival, now)
        elif message_id in self._lines:
            self._join(arrival, message_id)
        else:
            self._lines[message_id] = None
            self._seek(arrival, now)

    def _repeated(self, bind: Bind, frame: bytes, sequence: int, is_mo: bool, now: float) -> bool:
        """It is sent again, unanswered or as it was told: it is answered for the first copy, now or in time."""
        first = self._repeats.first_of(frame, now)
        if first is None:
            return False
        if is_mo:
            self._counters.mo += 1
        else:
            self._counters.reports += 1
        self._counters.repeated += 1
        first.bind, first.sequence = bind, sequence
        if first.stage in (Stage.DONE, Stage.KEPT):
            self._repeats.taken(first)
            self._owed.reply(first, c.ESME_ROK)
        elif first not in self._open:
            self._owed.resume(first, now)
        return True

    def bind_lost(self, bind: Bind, now: float) -> None:
        """What it brought and was not answered, or not long ago, may come again."""
        self._repeats.bind_lost(bind, self._open, now)

    def _join(self, arrival: Arrival, message_id: bytes) -> None:
        self._counters.queued_behind += 1
        arrival.stage = Stage.BEHIND
        line = self._lines[message_id]
        if line is None:
            self._lines[message_id] = deque((arrival,))
        else:
            line.append(arrival)

    def _seek(self, arrival: Arrival, now: float) -> None:
        """It is first in its line."""
        record = self._store.recent(self._operator.name, arrival.message_id)
        if record is not None:
            self._matching.exact += 1
            self.found(arrival, record, now)
            return
        remembered = self._store.remembered(self._operator.name, arrival.message_id)
        if remembered is None or remembered.final_at:
            self.seeking.look_for(arrival)
        else:
            self.seeking.confirm(arrival, remembered)

    # Outcomes of the search

    def found(self, arrival: Arrival, record: OpenMessage, now: float) -> None:
        arrival.record = record
        self._counters.matched += 1
        finished = self._finals.finished(arrival.message_id, record) if self._finals.at else record.finished
        if finished and routing.matched(final=arrival.final, finished=True) is Step.SWALLOW:
            self._counters.late_intermediate += 1
            self._owed.close(arrival, c.ESME_ROK)
        elif self._custody.holds(self._operator.name, arrival.message_id):
            self._keep_for(arrival, record.owner)
        elif record.message_id in self._unwritten:
            self._counters.before_response += 1
            arrival.stage = Stage.PLACED
            self._responses.follow(record.message_id, partial(self._pass_to_owner, arrival, record))
        else:
            session = self._passing.sessions.get(record.session)
            if session is not None and session.has_room and session.gateway == record.owner:
                self._write(arrival, session, now)  # the common case of what follows
            else:
                self._pass_to_owner(arrival, record, now)

    def missed(self, arrival: Arrival, verdict: Verdict[OpenMessage], now: float) -> None:
        self._counters.missed += 1
        if isinstance(verdict, Ambiguous):
            self._counters.ambiguous += 1
        elif isinstance(verdict, Inexact):
            self._counters.inexact += 1
        arrival.trace = self._new_trace()
        step = routing.unmatched(observe=self._operator.observe)
        self._note_miss(arrival, observed=step is Step.LOCAL)
        if step is Step.KEEP:
            self._owed.keep(arrival)
        elif not self._pass_locally(arrival, now):
            # As without a ring: it waits for the gateway that would have got it.
            self._owed.keep(arrival, owner=next(iter(self._operator.listen)))

    def unreadable(self, arrival: Arrival) -> None:
        self._counters.refused_store_read += 1
        self._owed.close(arrival, self._operator.retry_status)

    def abandon(self, arrival: Arrival) -> None:
        self._owed.abandon(arrival)

    def _note_miss(self, arrival: Arrival, *, observed: bool) -> None:
        """A route event. Under observe it says what would have been done."""
        event = partial(
            self._routes.event,
            "dlr",
            "missed",
            trace=arrival.trace,
            operator=self._operator.name,
            message_id=arrival.message_id,
        )
        if observed:
            event(would="custody")
        else:
            event()

    # On to a gateway

    def _place_mo(self, arrival: Arrival, now: float) -> None:
        placing = self._mo.place(arrival.frame, self._passing.bound_gateways(), now)
        match placing.why:
            case Why.PART:
                self._counters.mo_parts += 1
            case Why.RULE:
                self._counters.mo_by_rule += 1
            case Why.CONVERSATION:
                self._counters.mo_in_conversation += 1
        if placing.step is Step.KEEP:
            self._owed.keep(arrival, designated=placing.gateway, part=placing.part)
        elif placing.step is Step.LOCAL:
            self._place_locally(arrival, now)
        elif (session := self._passing.choose(placing.gateway, 0)) is not None:
            self._write(arrival, session, now)
        else:
            self._owed.not_now(arrival, None, placing.gateway)

    def _place_locally(self, arrival: Arrival, now: float) -> None:
        """An MO that any gateway of this node may have, or a report that names no message."""
        bound = bool(self._passing.bound_gateways())
        if routing.placed_locally(bound=bound) is Step.KEEP:
            self._owed.keep(arrival)
        elif not self._pass_locally(arrival, now):
            self._owed.not_now(arrival, None, self._passing.bound_gateways()[0])

    def _pass_locally(self, arrival: Arrival, now: float) -> bool:
        """To the first gateway of this node, in the order of the configuration, that is bound and has room."""
        for gateway in self._passing.bound_gateways():
            session = self._passing.choose(gateway, 0)
            if session is not None:
                self._write(arrival, session, now)
                return True
        return False

    def _pass_to_owner(self, arrival: Arrival, record: OpenMessage, now: float) -> None:
        """Its response has been written."""
        if arrival.stage is Stage.DONE:
            return  # given up while it waited
        if not arrival.bind.alive:
            self._owed.abandon(arrival)
            return
        session = self._passing.choose(record.owner, record.session)
        if session is None:
            bound = self._passing.is_bound(record.owner)
            if routing.without_session(bound=bound, roaming=self._roaming) is Step.KEEP:
                self._keep_for(arrival, record.owner)
            else:
                self._owed.not_now(arrival, None, record.owner)
        elif (
            session.token != record.session
            and (ready_at := self._responses.ready_elsewhere_at(record.message_id)) > now
        ):
            self._counters.delayed += 1
            arrival.stage = Stage.PLACED
            self._passing.later(ready_at, partial(self._pass_to_owner, arrival, record))
        else:
            self._write(arrival, session, now)

    def _keep_for(self, arrival: Arrival, gateway: str) -> None:
        """In custody for that gateway: here, or wherever it is bound."""
        if self._roaming and not self._passing.is_bound(gateway):
            self._counters.matched_elsewhere += 1
            self._owed.keep(arrival, designated=gateway)
        else:
            self._owed.keep(arrival, owner=gateway)

    def _write(self, arrival: Arrival, session: GatewaySession, now: float) -> None:
        arrival.stage = Stage.PASSED
        arrival.gateway = session.gateway
        arrival.token = session.token
        self._counters.passed += 1
        frame = arrival.frame
        if self._renaming.enabled and arrival.record is not None:
            frame = self._renaming.renamed(frame, arrival.report, arrival.record.message_id)
        session.request(frame, arrival, now)

    def settle(self, now: float) -> None:
        """The end of a batch, or of anything else that was done: those that are now first in line set out."""
        self.seeking.settle(now)
        while self._next:
            arrival = self._next.popleft()
            if arrival.stage is Stage.DONE:
                continue  # given up before it could set out
            if arrival.bind.alive:
                self._seek(arrival, now)
            else:
                self._owed.abandon(arrival)
        self._matching.settle()

    def tick(self, now: float) -> None:
        """Give up what is not placed within operator_answer_s; end race windows."""
        self.seeking.tick(now)
        self._owed.tick(now)
