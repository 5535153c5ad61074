"""One WebSocket connection between two nodes, from its first byte to its last.

`hold` opens it, runs the handshake under the bounds for strangers, and hands it on once both sides agreed. `Link` is
the agreed connection: a reader that gives whole messages to a callback, and a writer that joins what is ready.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, cast

import attrs
import h11
import trio
from trio_websocket import (
    CloseReason,
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
    wrap_server_stream,
)
from wsproto.utilities import ProtocolError

from protocols.peer.frames import MAX_MESSAGE_BYTES, Frame, FrameError, Heartbeat, decode, join
from protocols.peer.hello import MAX_HELLO_BYTES
from ring.guarded_stream import GuardedStream
from ring.handshake import Agreed, DiallerHandshake, ListenerHandshake, Refused
from ring.link_settings import LinkSettings
from ring.outbox import Outbox

RECEIVE_BYTES: Final = 128 * 1024  # the library's 4 KiB would cost 64 wake-ups for one of our messages
_NO_CLOSING_HANDSHAKE: Final = 1006  # RFC 6455 7.4.1: what the library notes when the stream ended or broke
_REASON_BYTES: Final = 120  # RFC 6455 5.5: a control frame carries 125 bytes, two of them the code

# Why a link ended, where it is said in more than one place.
STOPPED: Final = "stopped"  # this node's run was cancelled
LEAVING: Final = "leaving"
CLOSED_BY_PEER: Final = "closed by peer"

WhenAgreed = Callable[[WebSocketConnection, GuardedStream, Agreed], Awaitable[None]]
Machine = ListenerHandshake | DiallerHandshake


@attrs.frozen
class Failure:
    """Why there is no link; `reason` is one word for counters, `detail` is for our log only."""

    reason: str
    detail: str
    node: str | None = None
    error: BaseException | None = attrs.field(default=None, repr=False, eq=False)  # where a traceback helps

    def fields(self) -> dict[str, object]:
        """For a log event."""
        fields: dict[str, object] = {"reason": self.reason, "detail": self.detail}
        return fields if self.error is None else fields | {"exc_info": self.error}


class Link:
    """An authenticated connection to `peer`. `close` it from anywhere; `run` then ends, and `why` says the reason."""

    def __init__(
        self,
        websocket: WebSocketConnection,
        stream: GuardedStream,
        agreed: Agreed,
        settings: LinkSettings,
        *,
        address: str,
        dial: int,
    ) -> None:
        self.peer = agreed.hello.node
        self.hello = agreed.hello
        self.version = agreed.version
        self.address = address
        self.dial = dial
        self.stream = stream
        self.since = trio.current_time()
        self.outbox = Outbox(settings.outbox_frames, settings.outbox_bytes)
        self.why: str | None = None
        self.draining = False  # the peer's last heartbeat said so
        self.frames_in = self.frames_out = self.messages_in = self.messages_out = 0
        self.skipped: Counter[int] = Counter()  # frames of a later version than ours, by tag
        self._websocket = websocket
        self._settings = settings
        self._scope = trio.CancelScope()
        self._bytes_seen = 0
        self._forced = False
        self._leaving = False
        self._unsaid: Heartbeat | None = None  # the outbox was full

    def shows_life(self) -> bool:
        """Whether anything came since the last call, a part of a message even."""
        before, self._bytes_seen = self._bytes_seen, self.stream.bytes_in
        return self._bytes_seen > before

    def supersedes(self, old: "Link") -> bool:
        """The newest link of a peer is the one it uses; only a late attempt of the same process is not the newest."""
        return self.hello.boot != old.hello.boot or self.dial > old.dial

    def close(self, why: str, *, forced: bool = False) -> None:
        """End the link now, `forced` without a word to a peer that does not answer anyway. The first reason stays."""
        if self.why is None:
            self.why = why
            self._forced = forced
        self._scope.cancel()

    def say(self, heartbeat: Heartbeat) -> None:
        """Send it behind what is queued, as soon as there is room: a busy link sends no other for a long time."""
        self._unsaid = None if self.outbox.put(heartbeat) else heartbeat

    def leave(self, last: Heartbeat) -> None:
        """Send what is queued, with `last` behind it, then close."""
        self._leaving = True
        self.say(last)

    async def run(self, receive: Callable[["Link", list[Frame]], None], heartbeat: Callable[[], Heartbeat]) -> None:
        """Read and write until the link ends, then take leave of the peer for at most `goodbye_s`."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, heartbeat)
                await self._read(receive)
        if not self._forced:
            with trio.move_on_after(self._settings.goodbye_s):
                reason = (self.why or "").encode()[:_REASON_BYTES].decode(errors="ignore")
                await self._websocket.aclose(reason=reason)

    async def _read(self, receive: Callable[["Link", list[Frame]], None]) -> None:
        try:
            while True:
                message = await self._websocket.get_message()
                if not isinstance(message, bytes):
                    raise FrameError("a text message")
                frames = decode(message, self.skipped)
                self.messages_in += 1
                self.frames_in += len(frames)
                receive(self, frames)
        except FrameError as error:
            self.close(f"bad frames: {error}")
        except ConnectionClosed as closed:
            self.close(_told(closed.reason))
        except ProtocolError as error:  # the connection is closing, and the library has not noticed yet
            self.close(f"connection lost: {error}")

    async def _write(self, heartbeat: Callable[[], Heartbeat]) -> None:
        settings, outbox = self._settings, self.outbox
        try:
            while True:
                with trio.move_on_after(settings.heartbeat_s):
                    await outbox.filled()
                if not outbox:
                    outbox.put(heartbeat())
                batch = outbox.take(settings.batch_frames, settings.batch_bytes)
                if self._unsaid is not None:
                    self.say(self._unsaid)
                await self._websocket.send_message(join(batch))
                self.messages_out += 1
                self.frames_out += len(batch)
                if self._leaving and not outbox:
                    self.close(LEAVING)
        except ConnectionClosed as closed:
            self.close(_told(closed.reason))
        except ProtocolError as error:  # the connection is closing, and the library has not noticed yet
            self.close(f"connection lost: {error}")


async def hold(
    stream: trio.abc.Stream,
    machine: Machine,
    host: str,
    deadline: float,
    linked: WhenAgreed,
) -> Failure | None:
    """Hold the connection until `linked` returns; None if it came to that. The stream is closed in any case.

    `host` goes into the dialler's HTTP request; both sides must have agreed by `deadline`. What `linked` raises is
    raised. What the other side's bytes provoke in a library is a Failure, so that nobody from outside can end the node.
    """
    failure: Failure | None = None
    ours: Exception | None = None
    try:
        async with trio.open_nursery() as library:
            scope = trio.CancelScope(deadline=deadline)
            guard = GuardedStream(stream, MAX_HELLO_BYTES, scope.cancel)
            websocket: WebSocketConnection | None = None
            outcome: Agreed | Failure | None = None
            with scope:
                websocket = await _open(library, guard, machine, host)
                outcome = await _introduce(websocket, machine, guard)
            if websocket is not None and isinstance(outcome, Agreed):
                try:
                    await linked(websocket, guard, outcome)
                except Exception as error:
                    ours = error
                    raise
            else:
                failure = outcome if isinstance(outcome, Failure) else _unfinished(guard, scope, websocket)
            library.cancel_scope.cancel()
    except* (HandshakeError, ProtocolError, h11.ProtocolError) as group:
        failure = Failure("not_a_websocket", _first(group))
    except* Exception as group:
        if ours is not None:
            raise
        failure = Failure("unexpected_bytes", _first(group), error=group)
    finally:
        await trio.aclose_forcefully(stream)
    return failure


async def _open(library: trio.Nursery, guard: GuardedStream, machine: Machine, host: str) -> WebSocketConnection | None:
    """The WebSocket; None for a browser, lest a web page reaches a plain loopback port."""
    if isinstance(machine, DiallerHandshake):
        anything = cast("trio.SocketStream", guard)  # the library's annotation is narrower than what it takes
        return await wrap_client_stream(
            library, anything, host, "/", max_message_size=MAX_MESSAGE_BYTES, receive_buffer_size=RECEIVE_BYTES
        )
    request = await wrap_server_stream(
        library, guard, max_message_size=MAX_MESSAGE_BYTES, receive_buffer_size=RECEIVE_BYTES
    )
    if any(name.lower() == b"origin" for name, _ in request.headers):
        return None
    return await request.accept()


async def _introduce(
    websocket: WebSocketConnection | None, machine: Machine, guard: GuardedStream
) -> Agreed | Failure | None:
    """Run the machine to its outcome; None when the other side is gone before."""
    if websocket is None:
        return Failure("browser", "an Origin header: a browser asks for a WebSocket")
    try:
        if isinstance(machine, ListenerHandshake):
            await websocket.send_message(machine.opening())
        while True:
            message = await websocket.get_message()
            if not isinstance(message, bytes):
                return Failure("not_a_handshake", "a text message")
            step = machine.receive(message)
            if step.proven:
                guard.lift()
            if step.send:
                await websocket.send_message(step.send)
            if isinstance(step.outcome, Refused):
                return Failure(step.outcome.reason, step.outcome.detail, step.outcome.node)
            if step.outcome is not None:
                return step.outcome
    except ConnectionClosed:
        return None


def _unfinished(guard: GuardedStream, scope: trio.CancelScope, websocket: WebSocketConnection | None) -> Failure:
    if guard.end == "oversize":
        return Failure("oversize", f"more than {MAX_HELLO_BYTES} bytes before it proved itself")
    if guard.end is None and scope.cancelled_caught:
        return Failure("handshake_timeout", "it did not finish the handshake in time")
    if guard.end == "closed_by_us" and websocket is None:
        return Failure("not_a_websocket", "what it sent is no WebSocket handshake")
    told = _told(websocket.closed) if websocket else "connection lost"
    return Failure("closed_in_handshake", f"{told}; if the other side is a dlrproxy, its log says why")


def _told(closed: CloseReason | None) -> str:
    """What the closing handshake said, if there was one."""
    if closed is None or closed.code == _NO_CLOSING_HANDSHAKE:
        return "connection lost"
    return f"{CLOSED_BY_PEER}: {closed.reason or closed.name}"


def _first(group: BaseExceptionGroup) -> str:
    """The first of the errors, in words; there is seldom a second."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ConnectionRejected):  # without its headers and body, which differ each time: a date, for one
        return f"it answered with HTTP status {error.status_code}"
    return f"{type(error).__name__}: {error}"
