"""The two kinds of SMPP session that the relay works between: a bind at the operator, a session of a gateway.

A link collects what one batch of received PDUs makes it send (`put`), and is flushed once at the end of the batch.
"""

from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from protocols.smpp import constants as c
from protocols.smpp.framing import resequence
from protocols.smpp.pdu import pack
from protocols.smpp.session import Session, Side, response_to
from protocols.smpp.timers import Due, Limits, Timers
from protocols.smpp.window import Window

Entry = TypeVar("Entry")


class Output(Protocol):
    """What a link needs of its connection."""

    @property
    def peer(self) -> str:
        """Names the other end."""

    @property
    def congested(self) -> bool:
        """The peer is behind with reading: it takes no more requests."""

    def send(self, data: bytes) -> None: ...

    def end(self, reason: str) -> None:
        """Close once what was sent is out."""

    def cut(self, reason: str, farewell: bytes = b"") -> None:
        """Close, and take back what is not out yet; say `farewell` where that is possible."""


class Request(Protocol):
    """A request that waits for a gateway's response, and what becomes of it."""

    @property
    def awaited(self) -> bool:
        """Nobody counts it but the session, and its answer matters: an end in good order waits for it."""

    def answered(self, frame: bytes, status: int, now: float) -> None:
        """The gateway's response, with the sequence number that we gave the request."""

    def overdue(self, now: float) -> None:
        """No response within `gateway_answer_s`; it may still come. Called again at every tick until then."""

    def unanswered(self, now: float) -> None:
        """The session has ended without a response."""


class Link(Generic[Entry]):
    """What both kinds have. `window` holds our requests that the peer has not answered; `alive` until it is gone."""

    __slots__ = ("_dirty", "_out", "alive", "connection", "session", "timers", "window")

    def __init__(self, connection: Output, window: int, limits: Limits, dirty: "list[Link[Any]]", now: float) -> None:
        """`dirty` is the relay's list of links with something to send."""
        self.connection = connection
        self.session = Session()
        self.timers = Timers(limits, now)
        self.window: Window[Entry] = Window(window)
        self.alive = True
        self._dirty = dirty
        self._out: list[bytes] = []

    def put(self, frame: bytes) -> None:
        """Send it with the next flush. To a link that is gone nothing is sent."""
        if not self._out:
            self._dirty.append(self)
        self._out.append(frame)

    def flush(self) -> None:
        out = self._out
        if out:
            if self.alive:
                self.connection.send(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    def tick(self, now: float) -> None:
        """Ask whether the peer is there; end the session when it is not."""
        due = self.timers.tick(now)
        if due is Due.ENQUIRE_LINK:
            self.put(pack(c.ENQUIRE_LINK, c.ESME_ROK, self.window.next_sequence()))
        elif due is Due.INACTIVE:
            self.unbind(due.value)
        elif due is not None:
            self.connection.end(due.value)

    def unbind(self, reason: str) -> None:
        """Say goodbye and close; the answer is not waited for."""
        self.put(pack(c.UNBIND, c.ESME_ROK, self.window.next_sequence()))
        self.flush()
        self.connection.end(reason)

    def cut(self, reason: str) -> None:
        """End at once: of all that was put or sent nothing more goes out, but unbind if it is bound."""
        self._out.clear()
        goodbye = pack(c.UNBIND, c.ESME_ROK, self.window.next_sequence()) if self.session.bound else b""
        self.connection.cut(reason, goodbye)

    def control(self, peer: Side, command: int, status: int, sequence: int) -> bool:
        """Handle what concerns this link alone: enquire_link, unbind, and binds out of place. False: it is not such."""
        if command == c.ENQUIRE_LINK:
            self.put(pack(c.ENQUIRE_LINK_RESP, c.ESME_ROK, sequence))
        elif command == c.UNBIND:
            self.put(pack(c.UNBIND_RESP, c.ESME_ROK, sequence))
            self.session.responded(c.UNBIND_RESP, c.ESME_ROK)
            self.flush()
            self.connection.end("unbound_by_peer")
        elif command in c.BINDS or command == c.OUTBIND:
            if command != c.OUTBIND:
                self.put(pack(response_to(command), self.session.refusal(peer, command), sequence))
        elif command == c.UNBIND_RESP:
            self.session.responded(command, status)
            self.connection.end("unbound")
        elif command != c.ENQUIRE_LINK_RESP and command not in _BIND_RESPONSES:
            return False
        return True


_BIND_RESPONSES: Final = frozenset(map(response_to, c.BINDS))

# A request that a gateway sent and the operator has not answered, as the window of its bind remembers it: session, its
# sequence number, command_id, source_addr and digits of destination_addr (both empty where there is no one of them),
# the ticket that counts what was sent, and for how many seconds it is to be an open message, 0 for not at all. A plain
# tuple: one for every MT.
Outstanding: TypeAlias = "tuple[GatewaySession, int, int, bytes, bytes, int, float]"


class Bind(Link[Outstanding]):
    """A connection to the operator; `name` names it in logs. One that is `retiring` takes no more requests."""

    __slots__ = ("name", "retiring")

    def __init__(
        self, connection: Output, window: int, limits: Limits, dirty: list[Link[Any]], now: float, *, name: str
    ) -> None:
        super().__init__(connection, window, limits, dirty, now)
        self.name = name
        self.retiring = False

    @property
    def has_room(self) -> bool:
        """It may be sent another request now."""
        return not (self.window.full or self.connection.congested or self.retiring)


class GatewaySession(Link[Request]):
    """A connection from a gateway; `gateway` is the name of the listener that it dialled, `token` its own number."""

    __slots__ = ("_parted", "_retiring", "gateway", "kept", "token")

    def __init__(
        self,
        connection: Output,
        window: int,
        limits: Limits,
        dirty: list[Link[Any]],
        now: float,
        *,
        gateway: str,
        token: int,
    ) -> None:
        super().__init__(connection, window, limits, dirty, now)
        self.gateway = gateway
        self.token = token
        self.kept = 0  # requests in the window that come from custody
        self._retiring = False
        self._parted = False  # unbind is sent

    @property
    def has_room(self) -> bool:
        """It may be sent another request now."""
        window = self.window
        return (
            self.session.receives
            and len(window.waiting) < window.size
            and not (self.connection.congested or self._retiring)
        )

    @property
    def has_room_for_custody(self) -> bool:
        """Half of the window is for what has just come: it is not to wait behind what has waited already."""
        return self.has_room and self.kept < (self.window.size + 1) // 2

    def request(self, frame: bytes, entry: Request, now: float) -> None:
        """Send a request of the operator's or of custody's; `entry` learns what becomes of it."""
        self.put(resequence(frame, self.window.open(entry, now)))

    def retire(self) -> None:
        """It is sent no more requests; when it has answered those it has, unbind. Its answer ends the connection."""
        self._retiring = True
        self.part_when_done()

    def part_when_done(self) -> None:
        """Called after everything that it sends; only means something once it retires."""
        if self._retiring and not self._parted and not self.window.waiting:
            self._parted = True
            self.put(pack(c.UNBIND, c.ESME_ROK, self.window.next_sequence()))
            self.flush()

    def dismiss(self, reason: str) -> None:
        """Do not wait for it any longer."""
        if self._parted:
            self.connection.end(reason)
        else:
            self.unbind(reason)
