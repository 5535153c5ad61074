"""The gateway sessions of one operator's relay, and what is written to them: reports, MO, and what custody delivers.

A request that was written stays in its session's window until it is answered or the session ends, however long ago the
operator was answered for it: so nothing is sent again on a session that may still answer (promise 3). A gateway that
leaves one unanswered for `response_s` is disconnected.
"""

import heapq
import itertools
from collections.abc import Callable
from typing import Final

from dlrproxy.counters import Counters
from dlrproxy.mt.responses import Responses
from dlrproxy.reports.finals import Finals
from dlrproxy.routing import choose
from dlrproxy.sessions.links import Bind, GatewaySession
from dlrproxy.store.port import OpenMessage
from dlrproxy.surroundings import Surroundings
from protocols.smpp import constants as c
from protocols.smpp.framing import resequence
from protocols.smpp.pdu import pack
from protocols.smpp.receipts import read
from protocols.smpp.session import response_to

_WRITTEN_S: Final = 60.0  # more than a response waits for the disk: its gateway's session ends before


class Passing:
    """Who is bound, and which session takes the next request."""

    def __init__(self, around: Surroundings, responses: Responses, finals: Finals) -> None:
        """`finals` is told of the final reports that custody delivers."""
        self._finals = finals
        operator = self._operator = around.operator
        self._store = around.store
        self._custody = around.custody
        self._counters = around.counters
        self._responses = responses
        self.sessions: dict[int, GatewaySession] = {}  # every bound one, by token
        self._receivers: dict[str, list[GatewaySession]] = {gateway: [] for gateway in operator.listen}
        self._later: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = itertools.count()

    def session_up(self, session: GatewaySession) -> None:
        """It has been answered that it is bound."""
        self.sessions[session.token] = session
        self._responses.tracks_writing = len(self.sessions) > 1
        if session.session.receives:
            receivers = self._receivers.setdefault(session.gateway, [])
            receivers.append(session)
            if len(receivers) == 1:
                self._custody.gateway_bound(self._operator.name, session.gateway)

    def session_lost(self, session: GatewaySession, now: float) -> None:
        """Its connection is gone; what it has not answered is told so."""
        self.sessions.pop(session.token, None)
        self._responses.tracks_writing = len(self.sessions) > 1
        receivers = self._receivers.get(session.gateway, [])
        if session in receivers:
            receivers.remove(session)
            if not receivers:
                self._custody.gateway_gone(self._operator.name, session.gateway)
        for entry in session.window.take_all():
            entry.unanswered(now)

    @property
    def awaited(self) -> int:
        """Requests on the sessions whose answers are waited for (`links.Request.awaited`)."""
        return sum(entry.awaited for session in self.sessions.values() for _, entry in session.window.waiting.values())

    def bound_gateways(self) -> list[str]:
        """Those with a session that takes deliver_sm, in the order of the configuration."""
        return [gateway for gateway, receivers in self._receivers.items() if receivers]

    def is_bound(self, gateway: str) -> bool:
        """It has a session that takes deliver_sm."""
        return bool(self._receivers.get(gateway))

    def choose(self, gateway: str, token: int) -> GatewaySession | None:
        """The session with that token, else another receiver of the gateway; None if none has room."""
        return choose(gateway, self.sessions.get(token), self._receivers.get(gateway, ()))

    def _choose_for_custody(self, gateway: str, token: int) -> GatewaySession | None:
        """The same, where there is room for what custody delivers."""
        receivers = [session for session in self._receivers.get(gateway, ()) if session.has_room_for_custody]
        submitter = self.sessions.get(token)
        return choose(gateway, submitter if submitter in receivers else None, receivers)

    def later(self, due: float, act: Callable[[float], None]) -> None:
        """Call `act` at that time. Bounded by what waits: each report or delivery is in here at most once."""
        heapq.heappush(self._later, (due, next(self._count), act))

    def next_due(self) -> float | None:
        return self._later[0][0] if self._later else None

    def tick(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, _, act = heapq.heappop(self._later)
            act(now)
        for session in list(self.sessions.values()):
            self._check_answers(session, now)

    def _check_answers(self, session: GatewaySession, now: float) -> None:
        for _, entry in list(session.window.sent_until(now - self._operator.gateway_answer_s)):
            entry.overdue(now)
        if next(session.window.sent_until(now - self._operator.response_s), None) is not None:
            self._counters.unresponsive_gateway += 1
            session.unbind("unresponsive_gateway")

    def deliver(
        self,
        gateway: str,
        message_id: bytes,
        pdu: bytes,
        done: Callable[[int | None], None],
        now: float,
        record: OpenMessage | None = None,
        *,
        age_s: float = 0.0,
    ) -> bool:
        """See `custody_port.Deliveries.deliver`. `record`: the message that it is about, where that has been found."""
        if record is None and message_id:
            record = self._store.remembered(self._operator.name, message_id)
        token = record.session if record is not None else 0
        if self._choose_for_custody(gateway, token) is None:
            return False

        def answered(status: int | None, now: float) -> None:
            if status == c.ESME_ROK and message_id and self._is_final(pdu):
                self._finals.note(message_id, now)  # before custody goes on, with what stands behind it in line
            done(status)

        def write(now: float) -> None:
            session = self._choose_for_custody(gateway, token)
            if session is None:
                done(None)
                return
            self._counters.from_custody += 1
            session.kept += 1
            session.request(pdu, _Delivery(session, answered), now)

        def write_in_time(now: float) -> None:
            """The response is on its session; on another one the report follows after a while."""
            session = self._choose_for_custody(gateway, token)
            ready_at = 0.0
            if message_id and (session is None or session.token != token):
                ready_at = self._responses.ready_elsewhere_at(record.message_id if record is not None else None)
            if ready_at > now:
                self.later(ready_at, write)
            else:
                write(now)

        # Without a record the report is of a message whose id is written otherwise, and any response may be its own;
        # but none that comes so long after it: what was outstanding then has been given up.
        response = record.message_id if record is not None else self._responses.last_unwritten()
        if record is None and age_s > self._operator.response_s + _WRITTEN_S:
            write(now)
        elif message_id and response is not None and response in self._responses.unwritten:
            self._responses.follow(response, write_in_time)
        else:
            write_in_time(now)
        return True

    def _is_final(self, pdu: bytes) -> bool:
        report = read(pdu, text_receipts=self._operator.receipt_text)
        return report is not None and report.final

    def pass_other(self, bind: Bind, frame: bytes, command: int, sequence: int, now: float) -> None:
        """A request of the operator's that is neither report nor MO: any receiver of this node may answer it."""
        sessions = (self.choose(gateway, 0) for gateway in self._receivers)
        session = next((session for session in sessions if session is not None), None)
        if command == c.ALERT_NOTIFICATION:  # no response exists
            if session is None:
                self._counters.others_refused += 1
            else:
                self._counters.others += 1
                session.put(resequence(frame, session.window.next_sequence()))
        elif session is None:
            self._counters.others_refused += 1
            bind.put(pack(response_to(command), c.ESME_RX_T_APPN, sequence))
        else:
            self._counters.others += 1
            session.request(frame, _Other(bind, command, sequence, self._counters), now)


class _Delivery:
    """What custody delivers: only its end matters, for custody has answered the operator long ago."""

    __slots__ = ("_done", "_session")

    awaited = False  # the relay counts what custody has given it

    def __init__(self, session: GatewaySession, done: Callable[[int | None, float], None]) -> None:
        self._session = session
        self._done = done

    def answered(self, frame: bytes, status: int, now: float) -> None:
        self._session.kept -= 1
        self._done(status, now)

    def overdue(self, now: float) -> None:
        """It waits on: while the session lives, a late answer settles."""

    def unanswered(self, now: float) -> None:
        self._session.kept -= 1
        self._done(None, now)


class _Other:
    """Another request of the operator's: its response goes back as it is."""

    __slots__ = ("_bind", "_command", "_counters", "_sequence")

    awaited = True

    def __init__(self, bind: Bind, command: int, sequence: int, counters: Counters) -> None:
        self._bind = bind
        self._command = command
        self._sequence = sequence
        self._counters = counters

    def answered(self, frame: bytes, status: int, now: float) -> None:
        self._bind.put(resequence(frame, self._sequence))

    def overdue(self, now: float) -> None:
        """The operator has its own timer for it."""

    def unanswered(self, now: float) -> None:
        self._counters.others_refused += 1
        self._bind.put(pack(response_to(self._command), c.ESME_RX_T_APPN, self._sequence))
