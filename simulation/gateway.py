"""A gateway beside a node: binds, takes what it is sent, and answers, late or never, as its profile says."""

import random
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from protocols.smpp.constants import ESME_ROK, ESME_RSYSERR, ESME_RX_P_APPN
from simulation.history import History
from simulation.timeline import Timeline

_PDU: Final = b"pdu-"


def pdu_of(trace: str) -> bytes:
    return _PDU + trace.encode()


def trace_of(pdu: bytes) -> str:
    """Raises ValueError: these are not the bytes that the operator has sent."""
    if not pdu.startswith(_PDU):
        raise ValueError(f"{pdu!r} was never sent")
    return pdu.removeprefix(_PDU).decode()


@frozen
class Manners:
    """How a gateway answers: shares of all answers, and seconds."""

    temporary: float = 0.0
    permanent: float = 0.0
    slow: float = 0.0  # after more than gateway_answer_s
    silent: float = 0.0  # not at all, while the session lives
    room: int = 50  # unanswered requests that its session takes


@define(eq=False)
class Session:
    """One bind of a gateway at a node."""

    token: int
    alive: bool = True
    unanswered: dict[int, tuple[str, Callable[[int | None], None]]] = field(factory=dict)


class Gateway:
    """Times are those of the world; an answer comes only while the node's process lives."""

    def __init__(self, name: str, node: str, timeline: Timeline, choose: random.Random, history: History) -> None:
        self.name = name
        self.node = node
        self.manners = Manners()
        self.session: Session | None = None
        self._timeline = timeline
        self._choose = choose
        self._history = history
        self._tokens = 0
        self._requests = 0

    @property
    def has_room(self) -> bool:
        return self.session is not None and len(self.session.unanswered) < self.manners.room

    def bind(self) -> Session:
        self._tokens += 1
        self.session = Session(self._tokens)
        return self.session

    def end_session(self, *, tell: bool) -> None:
        """Its connection is gone, with answers on the way. `tell`: there is a process to be told."""
        session, self.session = self.session, None
        if session is None:
            return
        session.alive = False
        for trace, _ in session.unanswered.values():
            self._history.note("cut", trace, self.node)
        unanswered, session.unanswered = session.unanswered, {}
        if tell:
            for _, done in unanswered.values():
                done(None)

    def take(
        self, pdu: bytes, done: Callable[[int | None], None], plan: Callable[[float, Callable[[], None]], None]
    ) -> None:
        """A deliver_sm. `done` gets the answer, once, where one comes; `plan` is the node's way to wait."""
        session = self.session
        if session is None:
            raise RuntimeError(f"{self.name} is not bound")
        trace = trace_of(pdu)
        self._history.note("got", trace, self.node, self.name)
        self._requests += 1
        number = self._requests
        session.unanswered[number] = trace, done
        wait_s = self._wait_s()
        if wait_s is not None:
            status = self._status()
            plan(wait_s, lambda: self._answer(session, number, status))

    def _answer(self, session: Session, number: int, status: int) -> None:
        if session.alive and number in session.unanswered:
            trace, done = session.unanswered.pop(number)
            self._history.note("answered", trace, self.node, status)
            done(status)

    def _wait_s(self) -> float | None:
        roll = self._choose.random()
        if roll < self.manners.silent:
            return None
        if roll < self.manners.silent + self.manners.slow:
            return self._choose.uniform(3.0, 12.0)
        return self._choose.uniform(0.002, 0.1)

    def _status(self) -> int:
        roll = self._choose.random()
        if roll < self.manners.permanent:
            return ESME_RX_P_APPN
        if roll < self.manners.permanent + self.manners.temporary:
            return ESME_RSYSERR
        return ESME_ROK
