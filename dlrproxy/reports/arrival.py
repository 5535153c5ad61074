"""One report or MO from the operator, from its arrival until nothing more is owed for it."""

from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Protocol

from dlrproxy.sessions.links import Bind
from protocols.smpp.message_ids import Verdict, digits
from protocols.smpp.receipts import Report, read_body

if TYPE_CHECKING:
    from dlrproxy.store.port import OpenMessage


class Stage(Enum):
    BEHIND = auto()  # an earlier report of its message is not answered yet
    SEEKING = auto()  # its message is looked for
    RACING = auto()  # its message is not known; responses that were outstanding when it came may still bring it
    PLACED = auto()  # it knows its gateway, and waits for its submit_sm_resp or for receipt_delay_ms
    PASSED = auto()  # written to a session
    KEEPING = auto()  # custody has been asked to take it
    KEPT = auto()  # custody has it; it is still unanswered on a session, whose answer custody waits for
    LEFT = auto()  # the operator was told to send it again; it is still unanswered on a session
    DONE = auto()  # the operator has been answered, or is gone; a session may still answer, to no effect


# The operator has been answered, and the session's answer still counts: a last copy is settled by it, or one that the
# operator sends again is taken for the first.
_AWAITED: Final = frozenset({Stage.KEPT, Stage.LEFT})


class Owner(Protocol):
    """Whoever knows what to do when a gateway answers."""

    def answered(self, arrival: "Arrival", frame: bytes, status: int, now: float) -> None: ...

    def overdue(self, arrival: "Arrival", now: float) -> None: ...

    def unanswered(self, arrival: "Arrival", now: float) -> None: ...


class Arrival:
    """Mutable, made for every deliver_sm: slots, and nothing that is not needed. A `links.Request`."""

    __slots__ = (
        "again",
        "arrived_at",
        "barrier",
        "bind",
        "command",
        "forms",
        "frame",
        "gateway",
        "late",
        "lined",
        "message_id",
        "owner",
        "raced",
        "record",
        "report",
        "sequence",
        "stage",
        "taken",
        "token",
        "trace",
        "verdict",
    )

    def __init__(
        self,
        owner: Owner,
        bind: Bind,
        frame: bytes,
        command: int,
        sequence: int,
        report: Report | None,
        now: float,
    ) -> None:
        self.owner = owner
        self.bind = bind
        self.frame = frame
        self.command = command
        self.sequence = sequence  # the operator's
        self.report = report  # None: an MO
        self.message_id = (report.message_id or b"") if report is not None else b""  # as reported
        self.arrived_at = now
        self.stage = Stage.SEEKING
        self.lined = True  # reports that name its message line up behind it, or it behind them
        self.record: OpenMessage | None = None
        self.gateway = ""  # the one that it was passed to
        self.token = 0  # the session
        self.trace = ""  # given when it leaves the common path
        self.forms: tuple[bytes, ...] = ()  # normal forms of a response id that would be its message's
        self.barrier = 0  # the last request sent to the operator when it was first looked for
        self.again = False  # a response came that may be its message's, while the store was being read
        self.raced = False  # it was held for a response
        self.verdict: Verdict[OpenMessage] | None = None  # on what the store knew when it was held
        self.taken = False  # the gateway has answered ESME_ROK, or custody has it on disk
        self.late: tuple[int | None] | None = None  # the session's answer or end, before custody had it on disk

    @property
    def subscriber(self) -> bytes:
        """Digits of the number that a report is about, or that an MO was sent to: they tell destinations apart."""
        if self.report is not None:
            return self.report.source
        body = read_body(self.frame)
        return digits(body[1]) if body is not None else b""

    @property
    def final(self) -> bool:
        return self.report is not None and self.report.final

    def answered(self, frame: bytes, status: int, now: float) -> None:
        self.owner.answered(self, frame, status, now)

    @property
    def awaited(self) -> bool:
        return self.stage in _AWAITED

    def overdue(self, now: float) -> None:
        self.owner.overdue(self, now)

    def unanswered(self, now: float) -> None:
        self.owner.unanswered(self, now)
