"""From a gateway to the operator: MT and every other request of a gateway's, and the responses on their way back.

A request goes to a bind with window room. When no bind has room, or the pace is reached, it waits in a bounded queue
in which the gateways take turns; what does not fit, or waits too long, is answered `busy_status`. A request whose fate
is unknown, since its bind was lost, is answered `no_bind_status`: gateways send it again.
"""

import sys
from collections.abc import Callable
from typing import Final

from dlrproxy.mt.pace import THROTTLED, MtPace
from dlrproxy.mt.queue import MtQueue, Queued
from dlrproxy.mt.responses import MAX_WAITING, Responses
from dlrproxy.sessions.connection import HIGH_WATER
from dlrproxy.sessions.links import Bind, GatewaySession, Outstanding
from dlrproxy.store.port import MANY, OpenMessage
from dlrproxy.surroundings import Surroundings
from protocols.smpp import constants as c
from protocols.smpp.framing import resequence
from protocols.smpp.message_ids import digits
from protocols.smpp.pdu import pack, response_id
from protocols.smpp.session import WITHOUT_RESPONSE, response_to
from protocols.smpp.validity import seconds_until

HOUR_S: Final = 3_600.0
DAY_S: Final = 24 * HOUR_S
ROOM_WAIT_S: Final = 5.0  # below the response timers of gateways, 10 s and more
MT: Final = frozenset({c.SUBMIT_SM, c.SUBMIT_MULTI, c.DATA_SM, c.BROADCAST_SM})

_TO_MANY: Final = frozenset({c.SUBMIT_MULTI, c.BROADCAST_SM})
_NO_TIMES: Final = b"\0\0"  # schedule_delivery_time and validity_period, both empty: as in most messages
_LONGEST_TIMES: Final = 2 * 17  # octets, with their NULs
_SHORTEST_S: Final = 60.0  # also of a message that is past its validity: the operator tells its end all the same
_REPORT_REQUESTED: Final = 0x1F  # registered_delivery: SMSC receipt, SME acknowledgement, intermediate notification


class Submissions:
    """The requests of all gateways for one operator."""

    def __init__(
        self,
        around: Surroundings,
        responses: Responses,
        opened: Callable[[list[OpenMessage]], None],
        nodes: int,
    ) -> None:
        """`opened` is given the open messages of each batch, when their responses have been handed to `responses`."""
        operator = self._operator = around.operator
        self._store = around.store
        self._counters = around.counters
        self._conversations = around.mo.conversations
        self._conversing = self._conversations.enabled
        self._responses = responses
        self._opened = opened
        self._track_all = operator.track == "all"
        self._lifetime_s = operator.open_message_days * DAY_S
        self._longest_s = operator.open_message_max_days * DAY_S
        self._margin_s = operator.open_message_margin_h * HOUR_S
        self.pace = MtPace(operator, around.counters, nodes, around.now())
        self._transmitters: list[Bind] = []
        self._turn = -1
        self._refusal = c.ESME_ROK  # what answers MT in this batch
        self._bind: Bind | None = None  # takes the next requests of this batch: as many as `_room`
        self._room = 0
        self._queue = MtQueue()
        self._new: list[OpenMessage] = []
        self._unserved: dict[GatewaySession, None] = {}  # to be closed at the end of the batch: no_bind = "close"
        self._freed = False
        self.draining = False
        self.last_ticket = 0  # rises with every request sent to the operator

    def oldest_ticket(self) -> int:
        """The ticket of the oldest request that the operator has not answered; above `last_ticket` if there is none."""
        oldest = self.last_ticket + 1
        for bind in self._transmitters:
            entry = bind.window.oldest()
            if entry is not None and entry[5] < oldest:
                oldest = entry[5]
        return oldest

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def outstanding(self) -> int:
        return sum(len(bind.window) for bind in self._transmitters)

    def bind_up(self, bind: Bind) -> None:
        if bind.session.transmits:
            self._transmitters.append(bind)
            self._freed = True

    def begin(self) -> None:
        """The start of a batch from a gateway: what counts for all of it is looked at once."""
        self._room = 0
        if self.draining:
            self._refusal = self._operator.busy_status
        elif not self._store.accepting or self._responses.waiting >= MAX_WAITING:
            self._refusal = c.ESME_RMSGQFUL
        else:
            self._refusal = c.ESME_ROK

    def submit(self, session: GatewaySession, frame: bytes, command: int, sequence: int, now: float) -> None:
        """A request that the session's state allows. It is sent, queued or answered.

        MT are refused before the operator accepts them, where an id that comes back could not be kept (promise 6).
        """
        if not self._transmitters:
            self._refuse_no_bind(session, command, sequence)
        elif self._refusal and command in MT:
            self._refuse(session, command, sequence)
        elif self._queue or (bind := self._with_room()) is None or (self.pace.limited and not self.pace.take(now)):
            self._enqueue(session, frame, command, sequence, now)
        else:
            self._send(bind, session, frame, command, sequence, now)

    def _refuse_queued(self) -> None:
        """An id that came back could not be kept. Requests that bring none wait on."""
        for session, _, command, sequence, _ in self._queue.take_if(lambda queued: queued.command in MT):
            self._counters.refused_store += 1
            self._answer(session, command, c.ESME_RMSGQFUL, sequence)

    def _refuse(self, session: GatewaySession, command: int, sequence: int) -> None:
        if self.draining:
            self._refuse_draining(session, command, sequence)
        else:
            self._counters.refused_store += 1
            self._answer(session, command, self._refusal, sequence)

    def _refuse_draining(self, session: GatewaySession, command: int, sequence: int) -> None:
        self._counters.refused_draining += 1
        self._answer(session, command, self._operator.busy_status, sequence)

    def _refuse_no_bind(self, session: GatewaySession, command: int, sequence: int) -> None:
        if self.draining:  # it has no binds by intention, and its sessions take what is in custody: none is closed
            self._refuse_draining(session, command, sequence)
            return
        self._counters.refused_no_bind += 1
        self._answer(session, command, self._operator.no_bind_status, sequence)
        if self._operator.no_bind == "close":
            self._unserved[session] = None

    @staticmethod
    def _answer(session: GatewaySession, command: int, status: int, sequence: int) -> None:
        if command not in WITHOUT_RESPONSE:
            session.put(pack(response_to(command), status, sequence))

    def _with_room(self) -> Bind | None:
        """One bind until its window is full, then the next: what one batch brings is written to few sockets."""
        if self._room > 0:
            return self._bind
        left = self._left()
        if left <= 0:
            return None
        binds = self._transmitters
        for _ in range(len(binds)):
            self._turn = (self._turn + 1) % len(binds)
            bind = binds[self._turn]
            if bind.has_room:
                self._bind, self._room = bind, min(bind.window.room, left)
                return bind
        return None

    def _left(self) -> int:
        """How many more requests operator_window allows."""
        window = self._operator.operator_window
        return sys.maxsize if window is None else window - self.outstanding

    def _any_room(self) -> bool:
        return self._left() > 0 and any(bind.has_room for bind in self._transmitters)

    def _enqueue(self, session: GatewaySession, frame: bytes, command: int, sequence: int, now: float) -> None:
        if self._queue.add(Queued(session, frame, command, sequence, now)):
            self._counters.waited_for_room += 1
        else:
            self._refuse_busy(session, command, sequence)

    def _refuse_busy(self, session: GatewaySession, command: int, sequence: int) -> None:
        self._counters.refused_busy += 1
        self._answer(session, command, self._operator.busy_status, sequence)

    def _send(self, bind: Bind, session: GatewaySession, frame: bytes, command: int, sequence: int, now: float) -> None:
        self._counters.requests += 1
        self._room -= 1
        if command in WITHOUT_RESPONSE:
            bind.put(resequence(frame, bind.window.next_sequence()))
            return
        self.last_ticket += 1
        source, destination, lifetime_s = self._described(frame, command, now)
        entry: Outstanding = (session, sequence, command, source, destination, self.last_ticket, lifetime_s)
        bind.put(resequence(frame, bind.window.open(entry, now)))

    def _described(self, frame: bytes, command: int, now: float) -> tuple[bytes, bytes, float]:
        """source_addr, the digits of destination_addr, and for how long it is to be an open message (0: not one)."""
        if command in _TO_MANY:
            return b"", MANY, self._lifetime_s
        if command not in MT:
            return b"", b"", 0.0
        # service_type NUL ton npi source NUL ton npi destination NUL; a body cut short leaves both empty.
        source_at = frame.find(b"\0", c.HEADER_SIZE) + 3
        source_end = frame.find(b"\0", source_at)
        end = frame.find(b"\0", source_end + 3)
        if source_at < c.HEADER_SIZE + 3 or source_end < source_at or end < 0:
            return b"", b"", self._lifetime_s if self._track_all else 0.0
        if not self._track_all and not _wants_report(frame, command, end):
            lifetime_s = 0.0
        elif command == c.SUBMIT_SM and frame[end + 4 : end + 6] != _NO_TIMES:
            lifetime_s = self._stated_lifetime_s(frame, end + 4, now)
        else:
            lifetime_s = self._lifetime_s
        return frame[source_at:source_end], digits(frame[source_end + 3 : end]), lifetime_s

    def _stated_lifetime_s(self, frame: bytes, at: int, now: float) -> float:
        """By the submit_sm's schedule_delivery_time and validity_period, which begin at `at`.

        The margin is for the final report to come. A relative validity may count from now or from the scheduled time:
        the longer is taken, for a message that is kept too long costs a row, and one kept too short a report.
        """
        times = frame[at : at + _LONGEST_TIMES].split(b"\0", 2)
        if len(times) < 3:
            return self._lifetime_s
        starts_in = max(0.0, seconds_until(times[0], now) or 0.0)
        valid_for = seconds_until(times[1], now)
        lasts = self._lifetime_s if valid_for is None else max(0.0, valid_for) + self._margin_s
        return max(_SHORTEST_S, min(starts_in + lasts, self._longest_s))

    def answered(self, bind: Bind, frame: bytes, status: int, sequence: int, now: float) -> None:
        """A response of the operator's, generic_nack included."""
        entry = bind.window.take(sequence)
        if entry is None:
            self._counters.response_unknown += 1
            return
        self._freed = True
        if status and status in THROTTLED:
            self.pace.throttled(now)
        session, sequence_there, _, source, destination, _, lifetime_s = entry
        frame = resequence(frame, sequence_there)
        if source and destination and status == c.ESME_ROK and self._conversing:
            self._note_conversation(source, destination, session.gateway, now)
        if lifetime_s and status == c.ESME_ROK and (message_id := response_id(frame)):
            self._counters.open_messages += 1
            message = OpenMessage(
                self._operator.name,
                message_id,
                session.gateway,
                destination,
                source,
                session.token,
                now,
                now + lifetime_s,
            )
            self._store.put_open(message)
            self._responses.hold(session, frame, message_id)
            self._new.append(message)
        elif session.alive:
            session.put(frame)
        else:
            self._counters.response_session_gone += 1

    def _note_conversation(self, source: bytes, destination: bytes, gateway: str, now: float) -> None:
        """The operator has taken an MT. Nobody answers a name."""
        number = source if source.isdigit() else source.removeprefix(b"+")
        if number.isdigit() and (forgotten := self._conversations.note(number, destination, gateway, now)):
            self._counters.conversations_forgotten += forgotten

    def settle(self, now: float) -> None:
        """The end of a batch: responses wait for the disk together, and what waited for room is sent."""
        if self._new:
            new, self._new = self._new, []
            self._responses.settle()
            self._opened(new)
        if self._freed:
            self._freed = False
            if self._queue:
                self._send_queued(now)
        if self._unserved:
            for session in self._unserved:
                session.unbind("no_operator_bind")
            self._unserved.clear()

    def _send_queued(self, now: float) -> None:
        if not self._store.accepting:
            self._refuse_queued()
        self._room = 0
        while self._queue and (bind := self._with_room()) is not None:
            if not self._fill(bind, now):
                return

    def _fill(self, bind: Bind, now: float) -> bool:
        """Send on one bind as many as it has room for. False: the pace is reached."""
        unflushed = 0
        while self._queue and self._room > 0:
            if self.pace.limited and not self.pace.take(now):
                return False
            session, frame, command, sequence, _ = self._queue.take()
            self._send(bind, session, frame, command, sequence, now)
            unflushed += len(frame)
            if unflushed >= HIGH_WATER:
                bind.flush()  # only its connection knows whether the operator keeps up with reading
                self._room = 0
        return True

    def tick(self, now: float) -> None:
        """Answer what has waited too long, for room or for the operator; send what the pace allows again."""
        self.pace.tick(now)
        if self._queue:
            self._send_queued(now)
        if self._queue:
            for session, _, command, sequence, _ in self._queue.take_since(now - ROOM_WAIT_S):
                self._refuse_busy(session, command, sequence)
        for bind in self._transmitters:
            overdue = bind.window.take_sent_until(now - self._operator.response_s)
            if overdue:
                self._freed = True
                self._counters.unanswered_in_time += len(overdue)
                self._give_up(overdue)

    def next_due(self, now: Callable[[], float]) -> float | None:
        """When the pace lets the next queued request go; None if it is not the pace that it waits for."""
        if not self._queue or not self.pace.limited or not self._any_room():
            return None
        moment = now()
        return moment + self.pace.wait_s(moment)

    def bind_lost(self, bind: Bind) -> None:
        """Nobody knows what became of what waited there: the gateways are told to try again."""
        if bind in self._transmitters:
            self._transmitters.remove(bind)
        self._room = 0
        lost = bind.window.take_all()
        self._counters.unanswered_link_lost += len(lost)
        self._give_up(lost)
        if not self._transmitters:
            queue, self._queue = self._queue, MtQueue()
            for session, _, command, sequence, _ in queue.take_if(lambda _: True):
                self._refuse_no_bind(session, command, sequence)

    def _give_up(self, entries: list[Outstanding]) -> None:
        for session, sequence, command, *_ in entries:
            self._answer(session, command, self._operator.no_bind_status, sequence)

    def session_lost(self, session: GatewaySession) -> None:
        """What it still has in the queue is not sent: the gateway will send it again."""
        self._queue.take_if(lambda queued: queued.session is session)


def _wants_report(frame: bytes, command: int, addresses_end: int) -> bool:
    """registered_delivery asks for something. True where the body is cut before it: better one record too many."""
    at = addresses_end + 2  # behind esm_class
    if command == c.SUBMIT_SM:
        schedule_end = frame.find(b"\0", addresses_end + 4)  # behind protocol_id and priority_flag as well
        at = frame.find(b"\0", schedule_end + 1) + 1 if schedule_end >= 0 else len(frame)
    return not 0 < at < len(frame) or bool(frame[at] & _REPORT_REQUESTED)
