"""The relay's part of a node, as custody sees it: passes a report to a bound gateway, or gives it into custody.

It stands in for `dlrproxy/relay.py`, whose business is SMPP sessions, with the same decisions (`dlrproxy/routing.py`)
and the same promises towards custody (`dlrproxy/custody_port.py`). It keeps open messages in the node's store.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

from attrs import define, evolve
from msgspec.structs import replace

from dlrproxy.custody import Keeper
from dlrproxy.custody_port import Accepted, Wanted
from dlrproxy.reports import finals
from dlrproxy.routing import Step, after_answer, matched
from dlrproxy.store.port import Lookup, OpenMessage, Store
from protocols.smpp.constants import ESME_ROK
from protocols.smpp.message_ids import Inexact, Match, Verdict, candidates, judge
from ring.summaries import Summaries
from simulation.gateway import Gateway, pdu_of, trace_of
from simulation.traffic import OPERATOR, Arrival, is_final, sender_of

_GATEWAY_ANSWER_S: Final = 3.0  # operators.gateway_answer_s
_GRACE_S: Final = 3600.0  # operators.final_grace_s
_OPEN_FOR_S: Final = 86_400.0

Later = Callable[[float, Callable[[], None]], None]


@define(eq=False)
class _Direct:
    """A report that is with a session, past custody."""

    arrival: Arrival
    gateway: str
    session: int
    answer: Callable[[bool], None]
    status: int | None = None
    ended: bool = False  # it will not be answered any more
    kept: bool = False  # custody has it
    durable: bool = False  # and has said so


class Front:
    """Implements `custody_port.Deliveries` for one run of a node."""

    def __init__(
        self,
        gateways: Sequence[Gateway],
        store: Store,
        keeper: Keeper,
        clock: Callable[[], float],
        later: Later,
        conversing: Callable[[str], bool],
        summaries: Summaries | None,
    ) -> None:
        """`conversing` says whether the gateway of this node is in conversation with that subscriber."""
        self._gateways = {gateway.name: gateway for gateway in gateways}
        self._store = store
        self._keeper = keeper
        self._clock = clock
        self._later = later
        self._conversing = conversing
        self._summaries = summaries
        self._finals = finals.Finals()
        self._unwritten: set[bytes] = set()  # ids whose responses wait for the disk
        self._lines: dict[bytes, deque[tuple[Arrival, Callable[[bool], None]]]] = {}  # behind the one under way

    # Gateways and their MT

    def bind(self, gateway: Gateway) -> None:
        gateway.bind()
        self._keeper.gateway_bound(OPERATOR, gateway.name)

    def unbind(self, gateway: Gateway) -> None:
        gateway.end_session(tell=True)
        self._keeper.gateway_gone(OPERATOR, gateway.name)

    def submitted(self, gateway: Gateway, message_id: bytes, destination: bytes, responded: Callable[[], None]) -> None:
        """The operator has accepted an MT. `responded` once the gateway may hear of it."""
        now = self._clock()
        session = 0 if gateway.session is None else gateway.session.token
        message = OpenMessage(OPERATOR, message_id, gateway.name, destination, b"7000", session, now, now + _OPEN_FOR_S)
        self._store.put_open(message)
        self._unwritten.add(message_id)
        if self._summaries is not None:
            self._summaries.opened(OPERATOR, message_id)
        self._keeper.open_message(message)
        self._store.after_opened(partial(self._durable, message_id, responded))

    def _durable(self, message_id: bytes, responded: Callable[[], None]) -> None:
        self._unwritten.discard(message_id)
        responded()

    # From the operator

    def arrive(self, arrival: Arrival, answer: Callable[[bool], None]) -> None:
        """`answer` once: ESME_ROK, or another status."""
        if arrival.kind == "mo":
            self._place_mo(arrival, answer)
        elif arrival.message_id in self._lines:
            self._lines[arrival.message_id].append((arrival, answer))
        else:
            self._place_report(arrival, answer)

    def _place_mo(self, arrival: Arrival, answer: Callable[[bool], None]) -> None:
        gateway = self._gateways.get(arrival.designated)
        if gateway is not None and gateway.has_room and arrival.part is None:
            self._pass(arrival, gateway, answer)
        else:
            self._keep(arrival, answer)

    def _place_report(self, arrival: Arrival, answer: Callable[[bool], None]) -> None:
        record = self._store.recent(OPERATOR, arrival.message_id)
        if record is None:
            self._keep(arrival, answer)
            return
        finished = self._finals.finished(arrival.message_id, record) or record.finished
        gateway = self._gateways.get(record.owner)
        if matched(final=arrival.final, finished=finished) is Step.SWALLOW:
            answer(True)
        elif gateway is None:  # of another node of a cluster
            self._keep(arrival, answer, designated=record.owner)
        elif self._keeper.holds(OPERATOR, arrival.message_id) or not gateway.has_room:
            self._keep(arrival, answer, owner=record.owner)
        elif arrival.message_id in self._unwritten:
            self._begin(arrival)
            self._store.after_durable(lambda: self._pass_after_response(arrival, gateway, answer))
        else:
            self._begin(arrival)
            self._pass(arrival, gateway, answer)

    def _begin(self, arrival: Arrival) -> None:
        self._lines.setdefault(arrival.message_id, deque())

    def _pass_after_response(self, arrival: Arrival, gateway: Gateway, answer: Callable[[bool], None]) -> None:
        if gateway.has_room:
            self._pass(arrival, gateway, answer)
        else:
            self._keep(arrival, answer, owner=gateway.name)
            self._end(arrival)

    def _keep(
        self,
        arrival: Arrival,
        answer: Callable[[bool], None],
        owner: str | None = None,
        session: int | None = None,
        designated: str = "",
    ) -> None:
        kept = Accepted(
            OPERATOR, arrival.kind, arrival.message_id, arrival.destination, pdu_of(arrival.trace), arrival.final,
            arrival.trace, owner, designated or (arrival.designated if owner is None else ""), arrival.part, session,
        )  # fmt: skip
        self._keeper.accept(kept, answer)

    def _pass(self, arrival: Arrival, gateway: Gateway, answer: Callable[[bool], None]) -> None:
        session = gateway.session
        if session is None:
            raise RuntimeError("a session with room, and no session")
        direct = _Direct(arrival, gateway.name, session.token, answer)
        gateway.take(pdu_of(arrival.trace), lambda status: self._answered(direct, status), self._later)
        self._later(_GATEWAY_ANSWER_S, lambda: self._overdue(direct))

    def _answered(self, direct: _Direct, status: int | None) -> None:
        """The session's last word on it."""
        arrival = direct.arrival
        direct.ended, direct.status = True, status
        if status == ESME_ROK and arrival.final and arrival.message_id:
            self._final_delivered(arrival.message_id)
        if direct.kept:
            self._tell_custody(direct)
        elif after_answer(status, "custody") is Step.RELAY:
            direct.answer(status == ESME_ROK)
            self._end(arrival)
        else:
            self._keep(arrival, direct.answer, owner=direct.gateway)
            self._end(arrival)

    def _final_delivered(self, message_id: bytes) -> None:
        now = self._clock()
        self._finals.note(message_id, now)
        if record := self._store.recent(OPERATOR, message_id):
            self.close(record)

    def _overdue(self, direct: _Direct) -> None:
        if direct.ended:
            return
        direct.kept = True

        def kept(taken: bool) -> None:
            direct.durable = taken
            direct.answer(taken)
            self._tell_custody(direct)

        self._keep(direct.arrival, kept, owner=direct.gateway, session=direct.session)
        self._end(direct.arrival)

    def _tell_custody(self, direct: _Direct) -> None:
        if direct.durable and direct.ended:
            self._keeper.answered(direct.arrival.trace, direct.status)

    def _end(self, arrival: Arrival) -> None:
        """The next one of its message sets out."""
        line = self._lines.pop(arrival.message_id, None)
        if line:
            for following, answer in line:
                self.arrive(following, answer)

    # custody_port.Deliveries

    def bound_gateways(self) -> Collection[str]:
        return [gateway.name for gateway in self._gateways.values() if gateway.session is not None]

    def wrap_up(self) -> None:
        """What is written is sent at once here."""

    def under_way(self, message_id: bytes) -> bool:
        return message_id in self._lines

    def finished(self, message_id: bytes) -> bool:
        record = self._store.recent(OPERATOR, message_id)
        return record is not None and self._finals.finished(message_id, record)

    def deliver(
        self, gateway: str, message_id: bytes, pdu: bytes, done: Callable[[int | None], None], *, age_s: float = 0.0
    ) -> bool:
        to = self._gateways.get(gateway)
        if to is None or not to.has_room:
            return False

        def answered(status: int | None) -> None:
            if status == ESME_ROK and message_id and is_final(trace_of(pdu)):
                self._finals.note(message_id, self._clock())
            done(status)

        def write() -> None:
            if to.has_room:
                to.take(pdu, answered, self._later)
            else:
                done(None)

        if message_id in self._unwritten:
            self._store.after_durable(write)
        else:
            write()
        return True

    def conversing(self, pdu: bytes) -> str | None:
        sender = sender_of(trace_of(pdu))
        return next((name for name in self._gateways if self._conversing(sender)), None)

    async def find_owners(self, wanted: Sequence[Wanted]) -> list[Verdict[OpenMessage]]:
        lookups = [Lookup(OPERATOR, each.message_id, candidates(each.message_id)) for each in wanted]
        found = await self._store.find(lookups)
        return [
            self._as_of_now(each, judge(each.message_id, each.destination, records, None))
            for each, records in zip(wanted, found, strict=True)
        ]

    def _as_of_now(self, wanted: Wanted, verdict: Verdict[OpenMessage]) -> Verdict[OpenMessage]:
        if not self._finals.at or not isinstance(verdict, Match | Inexact):
            return verdict
        finished_at = self._finals.finished_at(wanted.message_id, verdict.record)
        return evolve(verdict, record=replace(verdict.record, final_at=finished_at))

    def close(self, message: OpenMessage) -> None:
        finals.close(self._store, message, self._clock(), _GRACE_S)
        if self._summaries is not None:
            self._summaries.closed(OPERATOR, message.message_id)
