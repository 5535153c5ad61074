"""What is owed for a report or an MO that has been placed: the gateway's answer, custody, and the operator's answer.

    the gateway answers                                   the operator gets that answer
    a temporary error, no answer in time, no session      custody, and ESME_ROK once it is durable; or retry_status
    a late answer                                         it settles what custody has, or what the operator sends again

Where it goes is decided in `arrivals.py`. All that the operator has not been answered for is in `open`, oldest first,
and in `lines`, where it holds up the reports of its message behind it.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from dlrproxy import routing
from dlrproxy.custody_port import Accepted
from dlrproxy.reports.arrival import Arrival, Stage
from dlrproxy.reports.finals import close
from dlrproxy.reports.repeats import Repeats
from dlrproxy.routing import Step
from dlrproxy.surroundings import Surroundings
from protocols.peer.frames import PartOf
from protocols.smpp import constants as c
from protocols.smpp.framing import resequence
from protocols.smpp.pdu import pack
from protocols.smpp.session import response_to

_EMPTY_MESSAGE_ID: Final = b"\0"  # all that a deliver_sm_resp carries (SMPP 3.4 4.6.2)
_UNPLACED: Final = frozenset({Stage.BEHIND, Stage.SEEKING, Stage.RACING, Stage.PLACED})


class Owed:
    """One operator's. An `arrival.Owner`."""

    def __init__(self, around: Surroundings, forget: Callable[[Arrival], None]) -> None:
        """`forget` is called with what needs to be sought no more."""
        self._operator = around.operator
        self._store = around.store
        self._custody = around.custody
        self._counters = around.counters
        self._new_trace = around.new_trace
        self._now = around.now
        self._forget = forget
        # Always the same objects.
        self.open: dict[Arrival, None] = {}
        self.lines: dict[bytes, deque[Arrival] | None] = {}  # by reported id: what is behind the one under way
        self.next: deque[Arrival] = deque()  # first in their lines since the last `settle` of the batch
        self.repeats = Repeats()

    # From the gateway

    def answered(self, arrival: Arrival, frame: bytes, status: int, now: float) -> None:
        """The session that it was passed to has answered."""
        if arrival.stage is not Stage.PASSED:
            self._answered_late(arrival, status, now)
            return
        if status == c.ESME_ROK:
            self._counters.answered_ok += 1
            self.repeats.taken(arrival)
            self._delivered(arrival, now)
        elif routing.after_answer(status, self._operator.on_temporary_error) is Step.RELAY:
            self._counters.answered_error += 1
        else:
            self._counters.answered_temporary += 1
            self.not_now(arrival, None, arrival.gateway)
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
            self.not_now(arrival, arrival.token, arrival.gateway)

    def unanswered(self, arrival: Arrival, now: float) -> None:
        """The session has ended without an answer."""
        if arrival.stage is Stage.PASSED:
            self.not_now(arrival, None, arrival.gateway)
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

    def not_now(self, arrival: Arrival, token: int | None, gateway: str) -> None:
        """The gateway does not take it now. `token`: the session that may still answer."""
        if not arrival.bind.alive:
            self.abandon(arrival)
        elif routing.after_answer(None, self._operator.on_temporary_error) is Step.KEEP:
            self.keep(arrival, owner=gateway, token=token)
        else:
            self._counters.refused_temporary += 1
            self._ask_again(arrival, Stage.DONE if token is None else Stage.LEFT)

    def keep(
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
            self.repeats.taken(arrival)
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
        elif arrival in self.open:
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

    def reply(self, arrival: Arrival, status: int) -> None:
        if arrival.bind.alive:
            arrival.bind.put(pack(response_to(arrival.command), status, arrival.sequence, _EMPTY_MESSAGE_ID))
        else:
            self._counters.answer_bind_gone += 1

    def close(self, arrival: Arrival, status: int) -> None:
        self.reply(arrival, status)
        self._finish(arrival, Stage.DONE)

    def _conclude(self, arrival: Arrival, status: int, stage: Stage) -> None:
        """As custody has it now, or has it not. The operator may have been told to send it again meanwhile."""
        if arrival in self.open:
            self.reply(arrival, status)
            self._finish(arrival, stage)
        else:
            arrival.stage = stage

    def _ask_again(self, arrival: Arrival, stage: Stage) -> None:
        """Answer retry_status. What custody or a session still has then is not given to it once more: see `Repeats`."""
        self.reply(arrival, self._operator.retry_status)
        self._finish(arrival, stage)
        if stage is not Stage.DONE:
            arrival.lined = False
            self.repeats.asked_again(arrival, self._now())

    def abandon(self, arrival: Arrival) -> None:
        """Its bind is gone, and nobody has it yet: the operator, unanswered, sends it again."""
        self._counters.abandoned += 1
        self._finish(arrival, Stage.DONE)

    def _finish(self, arrival: Arrival, stage: Stage) -> None:
        """The operator is owed nothing more; the next report of its message comes to the head of the line."""
        was_behind = arrival.stage is Stage.BEHIND
        arrival.stage = stage
        del self.open[arrival]
        if arrival.forms:
            self._forget(arrival)
        message_id = arrival.message_id
        if not message_id or was_behind or not arrival.lined:
            return
        line = self.lines.pop(message_id)
        while line:
            following = line.popleft()
            if following.stage is Stage.BEHIND:
                following.stage = Stage.SEEKING  # it holds the line from now on, however it ends
                self.lines[message_id] = line or None
                self.next.append(following)
                return

    def resume(self, first: Arrival, now: float) -> None:
        """The operator has sent it again while the first copy is still looked after, and waits for an answer anew."""
        if first.stage is Stage.LEFT:
            first.stage = Stage.PASSED
        first.arrived_at = now
        self.open[first] = None

    def tick(self, now: float) -> None:
        """Give up what is not placed and on disk within operator_answer_s."""
        limit = now - self._operator.operator_answer_s
        slow = []
        for arrival in self.open:
            if arrival.arrived_at > limit:
                break
            if arrival.stage in _UNPLACED or arrival.stage is Stage.KEEPING:
                slow.append(arrival)
        for arrival in slow:
            self._counters.refused_slow += 1
            self._ask_again(arrival, Stage.KEEPING if arrival.stage is Stage.KEEPING else Stage.DONE)
