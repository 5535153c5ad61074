"""One bind of the gateway: connected, bound, kept alive, and connected again when it is lost."""

import time
from typing import TYPE_CHECKING

import trio

from dlrproxy.simulator.bodies import read_delivered, read_delivered_data
from dlrproxy.simulator.ledger import Linked, Unlinked
from dlrproxy.simulator.stream import SmppStream, StreamEndedError, connect
from protocols.smpp import constants as c
from protocols.smpp.constants import HEADER_SIZE
from protocols.smpp.framing import HEADER
from protocols.smpp.pdu import Bind, BodyError, pack, response_id

if TYPE_CHECKING:
    from dlrproxy.simulator.gateway import Gateway
    from dlrproxy.simulator.messages import Outgoing

CONNECT_S = 10.0
BIND_S = 10.0  # how long the peer may take to answer the bind request
ENQUIRE_ANSWER_S = 10.0
CHECK_S = 0.25

_SUBMIT_ANSWERS = frozenset({c.SUBMIT_SM_RESP, c.GENERIC_NACK})
_READERS = {c.DELIVER_SM: read_delivered, c.DATA_SM: read_delivered_data}
_ANSWER_BODY = b"\0"  # message_id of a deliver_sm_resp: always empty


class Session:
    """A slot for one bind. Its sequence numbers continue over reconnects."""

    __slots__ = (
        "_command", "_enquired", "_gateway", "_heard", "_sequence", "_stream", "_unanswered", "bound", "connections",
        "name",
    )  # fmt: skip

    def __init__(self, name: str, command: int, gateway: "Gateway") -> None:
        self.name = name
        self.bound = False
        self.connections = 0
        self._command = command
        self._gateway = gateway
        self._stream: SmppStream | None = None
        self._sequence = 0
        self._unanswered: dict[int, tuple[Outgoing, float]] = {}  # by sequence number, with the time of submission
        self._heard = 0.0
        self._enquired: float | None = None

    @property
    def room(self) -> int:
        """How many messages the window takes; none while the session is not bound to transmit."""
        if not self.bound or self._command == c.BIND_RECEIVER or self._gateway.frozen:
            return 0
        return max(0, self._gateway.options.window - len(self._unanswered))

    @property
    def unanswered(self) -> int:
        """Submits whose responses are outstanding."""
        return len(self._unanswered)

    def expect(self, message: "Outgoing", now: float) -> int:
        """Take a place in the window for `message`, and give its sequence number."""
        sequence = self._next_sequence()
        self._unanswered[sequence] = (message, now)
        return sequence

    def write(self, pdu: bytes) -> None:
        """Queue one PDU; only while bound."""
        if self._stream is not None:
            self._stream.write(pdu)

    def unbind(self) -> None:
        if self.bound:
            self.write(pack(c.UNBIND, 0, self._next_sequence()))

    def cut(self) -> None:
        """Close the connection without a word."""
        if self._stream is not None:
            self._stream.close()

    async def keep_up(self) -> None:
        """Connect, bind and serve, again and again with back-off, until the gateway stops."""
        first, longest = (milliseconds / 1000 for milliseconds in self._gateway.options.reconnect_ms)
        wait = first
        while not self._gateway.stopping:
            await self._gateway.wait_present()
            was_bound, why = await self._connect_and_serve()
            self._gateway.ledger.add(Unlinked(time.monotonic(), self.name, why))
            self._gateway.changed()
            wait = first if was_bound else min(wait * 2, longest)
            await trio.sleep(wait)

    async def _connect_and_serve(self) -> tuple[bool, str]:
        """Whether it was bound, and why it ended."""
        gateway = self._gateway
        options = gateway.options
        try:
            with trio.fail_after(CONNECT_S):
                connected = await connect(options.host, options.port)
        except (OSError, trio.TooSlowError) as error:
            return False, f"connect: {error}"
        if not gateway.present:
            connected.close()
            return False, "it has left meanwhile"
        self.connections += 1
        stream = self._stream = SmppStream(connected, gateway.new_stream(self))
        was_bound = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.run_writer)
                try:
                    with trio.fail_after(BIND_S):
                        await self._bind(stream)
                    was_bound = True
                    nursery.start_soon(self._watch, stream)
                    while True:
                        frames = await stream.receive()
                        if self._gateway.frozen:
                            await self._gateway.wait_awake()
                        self._handle(stream, frames)
                except StreamEndedError as error:
                    return was_bound, str(error)
                except trio.TooSlowError:
                    return was_bound, "the bind request was not answered"
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            self._end(stream)

    def _end(self, stream: SmppStream) -> None:
        stream.close()
        self._stream = None
        self.bound = False
        self._gateway.lost([message for message, _ in self._unanswered.values()])
        self._unanswered.clear()

    async def _bind(self, stream: SmppStream) -> None:
        """Raises StreamEndedError where the bind is refused."""
        options = self._gateway.options
        request = Bind(
            options.system_id.encode("latin-1"),
            options.password.encode("latin-1"),
            options.system_type.encode("latin-1"),
            options.interface_version,
        )
        stream.write(pack(self._command, 0, self._next_sequence(), request.encode()))
        self._gateway.flush()
        frames: list[bytes] = []
        while not frames:
            frames = await stream.receive()
        _, command, status, _ = HEADER.unpack_from(frames[0])
        if command != self._command | c.RESPONSE_BIT or status:
            raise StreamEndedError(f"bind refused: {c.STATUS_NAMES.get(status, hex(status))}")
        self.bound = True
        self._heard = time.monotonic()
        self._gateway.ledger.add(Linked(self._heard, self.name))
        self._gateway.changed()
        self._handle(stream, frames[1:])

    async def _watch(self, stream: SmppStream) -> None:
        """enquire_link when nothing was heard for a while; a link that stays silent, or leaves a submit unanswered
        for too long, is closed."""
        options = self._gateway.options
        while True:
            await trio.sleep(CHECK_S)
            if self._gateway.frozen:
                continue
            now = time.monotonic()
            oldest = next(iter(self._unanswered.values()), None)
            if oldest is not None and now - oldest[1] > options.response_timeout_s:
                stream.close()
            elif self._enquired is not None and self._enquired > self._heard:
                if now - self._enquired > ENQUIRE_ANSWER_S:
                    stream.close()
            elif now - self._heard > options.enquire_link_s:
                self._enquired = now
                stream.write(pack(c.ENQUIRE_LINK, 0, self._next_sequence()))
                self._gateway.flush()

    def _handle(self, stream: SmppStream, frames: list[bytes]) -> None:
        now = self._heard = time.monotonic()
        gateway = self._gateway
        unpack = HEADER.unpack_from
        for frame in frames:
            _, command, status, sequence = unpack(frame)
            if command in _SUBMIT_ANSWERS:
                entry = self._unanswered.pop(sequence, None)
                if entry is not None:
                    message_id = "" if status else response_id(frame).decode("latin-1")
                    gateway.responded(self, entry[0], status, message_id, now)
            elif command in _READERS:
                self._delivered(stream, frame, command, sequence, now)
            elif command == c.UNBIND:
                self.bound = False
                stream.write(pack(c.UNBIND_RESP, 0, sequence))
                gateway.flush()
                stream.close()
            elif command == c.UNBIND_RESP:
                gateway.flush()  # the answers to what came just before
                stream.close()
            elif command == c.ENQUIRE_LINK:
                stream.write(pack(c.ENQUIRE_LINK_RESP, 0, sequence))
            elif not command & c.RESPONSE_BIT and command != c.ALERT_NOTIFICATION:
                stream.write(pack(c.GENERIC_NACK, c.ESME_RINVCMDID, sequence))
        gateway.fill(self)
        gateway.flush()

    def _delivered(self, stream: SmppStream, frame: bytes, command: int, sequence: int, now: float) -> None:
        answer = command | c.RESPONSE_BIT
        try:
            message = _READERS[command](frame)
        except BodyError:
            stream.write(pack(answer, c.ESME_RINVMSGLEN, sequence, _ANSWER_BODY))
            return
        status, delay = self._gateway.delivered(self, message, now)
        if status is None:
            return
        pdu = HEADER.pack(HEADER_SIZE + 1, answer, status, sequence) + _ANSWER_BODY
        if delay:
            self._gateway.answer_later(now + delay, stream, pdu)
        else:
            stream.write(pdu)

    def _next_sequence(self) -> int:
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        return self._sequence
