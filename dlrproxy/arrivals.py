"""Reports and MO from the operator: whose they are, on to the gateway, and the operator's answer.

    deliver_sm --> in line behind an earlier report of its message
               --> its message is known: the owner's session, and the gateway's answer back to the operator
               --> it is not: `seeking.py`, then custody
    a temporary error, no answer in time, no session with room: custody, and ESME_ROK once it is durable

A line is named by the id as reported, and one report of a line is under way at a time: so their order holds whatever
happens to the first (promise 4). All that is not answered yet is in `_open`, oldest first. That is bounded: what comes
beyond it, or is not placed and on disk within `operator_answer_s`, is answered `retry_status`.
"""

from collections import deque
from functools import partial
from typing import Final

from dlrproxy import routing
from dlrproxy.arrival import Arrival, Stage
from dlrproxy.custody_port import Accepted
from dlrproxy.finals import Finals, close
from dlrproxy.links import Bind, GatewaySession
from dlrproxy.matching import Matching
from dlrproxy.mo_routing import Why
from dlrproxy.passing import Passing
from dlrproxy.renaming import Renaming
from dlrproxy.repeats import Repeats
from dlrproxy.responses import Responses
from dlrproxy.routing import Step
from dlrproxy.seeking import Seeking
from dlrproxy.store.port import OpenMessage
from dlrproxy.submissions import Submissions
from dlrproxy.surroundings import Surroundings
from protocols.peer.frames import PartOf
from protocols.smpp import constants as c
from protocols.smpp.framing import resequence
from protocols.smpp.message_ids import Ambiguous, Inexact, Verdict
from protocols.smpp.pdu import pack
from protocols.smpp.receipts import read
from protocols.smpp.session import response_to

MAX_UNANSWERED: Final = 10_000  # per operator; operators' own windows are 10 to 25 a bind

_EMPTY_MESSAGE_ID: Final = b"\0"  # all that a deliver_sm_resp carries (SMPP 3.4 4.6.2)
_UNPLACED: Final = frozenset({Stage.BEHIND, Stage.SEEKING, Stage.RACING, Stage.PLACED})


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
        self._now = around.now
        self._responses = responses
        self._unwritten = responses.unwritten
        self._passing = passing
        self._matching = matching
        self._renaming = renaming
        self._finals = finals
        self._open: dict[Arrival, None] = {}
        self._lines: dict[bytes, deque[Arrival] | None] = {}  # by reported id: what is behind the one under way
        self._repeats = Repeats()
        self._lost = self._repeats.firsts
        self._next: deque[Arrival] = deque()  # first in their lines since the last `settle`
        self.seeking = Seeking(around, submissions, matching, self)

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
        arrival = Arrival(self, bind, frame, command, sequence, report, now)
        if len(self._open) >= MAX_UNANSWERED:
            self._counters.refused_full += 1
            self._reply(arrival, self._operator.retry_status)
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
            self._reply(first, c.ESME_ROK)
        elif first not in self._open:
            self._resume(first, now)
        return True

    def _resume(self, first: Arrival, now: float) -> None:
        """The operator has sent it again while the first copy is still looked after, and waits for an answer anew."""
        if first.stage is Stage.LEFT:
            first.stage = Stage.PASSED
        first.arrived_at = now
        self._open[first] = None

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
        if record is None:
            self.seeking.look_for(arrival)
        else:
            self._matching.exact += 1
            self.found(arrival, record, now)

    # Outcomes of the search

    def found(self, arrival: Arrival, record: OpenMessage, now: float) -> None:
        arrival.record = record
        self._counters.matched += 1
        finished = self._finals.finished(arrival.message_id, record) if self._finals.at else record.finished
        if finished and routing.matched(final=arrival.final, finished=True) is Step.SWALLOW:
            self._counters.late_intermediate += 1
            self._close(arrival, c.ESME_ROK)
        elif self._custody.holds(self._operator.name, arrival.message_id):
            self._keep(arrival, owner=record.owner)
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
            self._keep(arrival)
        elif not self._pass_locally(arrival, now):
            # As without a ring: it waits for the gateway that would have got it.
            self._keep(arrival, owner=next(iter(self._operator.listen)))

    def unreadable(self, arrival: Arrival) -> None:
        self._counters.refused_store_read += 1
        self._close(arrival, self._operator.retry_status)

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
            self._keep(arrival, designated=placing.gateway, part=placing.part)
        elif placing.step is Step.LOCAL:
            self._place_locally(arrival, now)
        elif (session := self._passing.choose(placing.gateway, 0)) is not None:
            self._write(arrival, session, now)
        else:
            self._not_now(arrival, None, placing.gateway)

    def _place_locally(self, arrival: Arrival, now: float) -> None:
        """An MO that any gateway of this node may have, or a report that names no message."""
        bound = bool(self._passing.bound_gateways())
        if routing.placed_locally(bound=bound) is Step.KEEP:
            self._keep(arrival)
        elif not self._pass_locally(arrival, now):
            self._not_now(arrival, None, self._passing.bound_gateways()[0])

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
            self.abandon(arrival)
            return
        session = self._passing.choose(record.owner, record.session)
        if session is None:
            self._not_now(arrival, None, record.owner)
        elif (
            session.token != record.session
            and (ready_at := self._responses.ready_elsewhere_at(record.message_id)) > now
        ):
            self._counters.delayed += 1
            arrival.stage = Stage.PLACED
            self._passing.later(ready_at, partial(self._pass_to_owner, arrival, record))
        else:
            self._write(arrival, session, now)

    def _write(self, arrival: Arrival, session: GatewaySession, now: float) -> None:
        arrival.stage = Stage.PASSED
        arrival.gateway = session.gateway
        arrival.token = session.token
        self._counters.passed += 1
        frame = arrival.frame
        if self._renaming.enabled and arrival.record is not None:
            frame = self._renaming.renamed(frame, arrival.report, arrival.record.message_id)
        session.request(frame, arrival, now)

    # From the gateway

    def answered(self, arrival: Arrival, frame: bytes, status: int, now: float) -> None:
        """The session that it was passed to has answered."""
        if arrival.stage is not Stage.PASSED:
            self._answered_late(arrival, status, now)
            return
        if status == c.ESME_ROK:
            self._counters.answered_ok += 1
            self._repeats.taken(arrival)
            self._delivered(arrival, now)
        elif routing.after_answer(status, self._operator.on_temporary_error) is Step.RELAY:
            self._counters.answered_error += 1
        else:
            self._counters.answered_temporary += 1
            self._not_now(arrival, None, arrival.gateway)
            return
        if arrival.bind.alive:
            arrival.bind.put(resequence(frame, arrival.sequence))
        else:
            self._counters.answer_bind_gone += 1
        self._finish(arrival, Stage.DONE)

    def _answered_late(self, arrival: Arrival, status: int, now: float) -> None:
        self._counters.answered_late += 1
        if status == c.ESME_ROK:
            self._delivered(arrival, now)
        if arrival.stage is Stage.LEFT:
            arrival.taken = status == c.ESME_ROK
            arrival.stage = Stage.DONE
        elif arrival.stage is not Stage.DONE:
            self._tell_custody(arrival, status)

    def overdue(self, arrival: Arrival, now: float) -> None:
        """No answer within gateway_answer_s."""
        if arrival.stage is Stage.PASSED:
            self._counters.answer_timeout += 1
            self._not_now(arrival, arrival.token, arrival.gateway)

    def unanswered(self, arrival: Arrival, now: float) -> None:
        """The session has ended without an answer."""
        if arrival.stage is Stage.PASSED:
            self._not_now(arrival, None, arrival.gateway)
        elif arrival.stage is Stage.LEFT:
            arrival.stage = Stage.DONE
        elif arrival.stage is not Stage.DONE:
            self._tell_custody(arrival, None)

    def _delivered(self, arrival: Arrival, now: float) -> None:
        """The gateway has it. After a final report the open message lives on for a grace period only."""
        record = arrival.record
        if record is not None and arrival.final:
            close(self._store, record, now, self._operator.final_grace_s)

    # Custody

    def _not_now(self, arrival: Arrival, token: int | None, gateway: str) -> None:
        """The gateway does not take it now. `token`: the session that may still answer."""
        if not arrival.bind.alive:
            self.abandon(arrival)
        elif routing.after_answer(None, self._operator.on_temporary_error) is Step.KEEP:
            self._keep(arrival, owner=gateway, token=token)
        else:
            self._counters.refused_temporary += 1
            self._ask_again(arrival, Stage.DONE if token is None else Stage.LEFT)

    def _keep(
        self,
        arrival: Arrival,
        owner: str | None = None,
        token: int | None = None,
        designated: str = "",
        part: PartOf | None = None,
    ) -> None:
        arrival.stage = Stage.KEEPING
        arrival.trace = arrival.trace or self._new_trace()
        accepted = Accepted(
            self._operator.name,
            "mo" if arrival.report is None else "dlr",
            arrival.message_id,
            arrival.subscriber,
            arrival.frame,
            arrival.final,
            arrival.trace,
            owner,
            designated,
            part,
            token,
        )
        self._custody.accept(accepted, partial(self._kept, arrival, token))

    def _kept(self, arrival: Arrival, token: int | None, durable: bool) -> None:
        """Custody's answer."""
        if durable:
            self._counters.to_custody += 1
            self._repeats.taken(arrival)
            self._conclude(arrival, c.ESME_ROK, Stage.DONE if token is None else Stage.KEPT)
            if arrival.late is not None:
                self._tell_custody(arrival, arrival.late[0])
            return
        self._counters.refused_custody += 1
        if arrival.late == (c.ESME_ROK,):  # the gateway has taken it meanwhile
            arrival.taken = True
            self._conclude(arrival, c.ESME_ROK, Stage.DONE)
        elif token is None or arrival.late is not None:
            self._conclude(arrival, self._operator.retry_status, Stage.DONE)
        elif arrival in self._open:
            self._ask_again(arrival, Stage.LEFT)
        else:
            arrival.stage = Stage.LEFT

    def _tell_custody(self, arrival: Arrival, status: int | None) -> None:
        if arrival.stage is Stage.KEEPING:
            arrival.late = (status,)
        else:
            arrival.stage = Stage.DONE
            self._custody.answered(arrival.trace, status)

    # Back to the operator

    def _reply(self, arrival: Arrival, status: int) -> None:
        if arrival.bind.alive:
            arrival.bind.put(pack(response_to(arrival.command), status, arrival.sequence, _EMPTY_MESSAGE_ID))
        else:
            self._counters.answer_bind_gone += 1

    def _close(self, arrival: Arrival, status: int) -> None:
        self._reply(arrival, status)
        self._finish(arrival, Stage.DONE)

    def _conclude(self, arrival: Arrival, status: int, stage: Stage) -> None:
        """As custody has it now, or has it not. The operator may have been told to send it again meanwhile."""
        if arrival in self._open:
            self._reply(arrival, status)
            self._finish(arrival, stage)
        else:
            arrival.stage = stage

    def _ask_again(self, arrival: Arrival, stage: Stage) -> None:
        """Answer retry_status. What custody or a session still has then is not given to it once more: see `Repeats`."""
        self._reply(arrival, self._operator.retry_status)
        self._finish(arrival, stage)
        if stage is not Stage.DONE:
            arrival.lined = False
            self._repeats.asked_again(arrival, self._now())

    def abandon(self, arrival: Arrival) -> None:
        """Its bind is gone, and nobody has it yet: the operator, unanswered, sends it again."""
        self._counters.abandoned += 1
        self._finish(arrival, Stage.DONE)

    def _finish(self, arrival: Arrival, stage: Stage) -> None:
        """The operator is owed nothing more; the next report of its message comes to the head of the line."""
        was_behind = arrival.stage is Stage.BEHIND
        arrival.stage = stage
        del self._open[arrival]
        if arrival.forms:
            self.seeking.forget(arrival)
        message_id = arrival.message_id
        if not message_id or was_behind or not arrival.lined:
            return
        line = self._lines.pop(message_id)
        while line:
            following = line.popleft()
            if following.stage is Stage.BEHIND:
                following.stage = Stage.SEEKING  # it holds the line from now on, however it ends
                self._lines[message_id] = line or None
                self._next.append(following)
                return

    def settle(self, now: float) -> None:
        """The end of a batch, or of anything else that was done: those that are now first in line set out."""
        while self._next:
            arrival = self._next.popleft()
            if arrival.stage is Stage.DONE:
                continue  # given up before it could set out
            if arrival.bind.alive:
                self._seek(arrival, now)
            else:
                self.abandon(arrival)
        self.seeking.settle()
        self._matching.settle()

    def tick(self, now: float) -> None:
        """Give up what is not placed within operator_answer_s; end race windows."""
        self.seeking.tick(now)
        limit = now - self._operator.operator_answer_s
        slow = []
        for arrival in self._open:
            if arrival.arrived_at > limit:
                break
            if arrival.stage in _UNPLACED or arrival.stage is Stage.KEEPING:
                slow.append(arrival)
        for arrival in slow:
            self._counters.refused_slow += 1
            self._ask_again(arrival, Stage.KEEPING if arrival.stage is Stage.KEEPING else Stage.DONE)
