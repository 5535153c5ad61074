"""One TCP or TLS stream: a reader that awaits, and a `send` that does not.

`send` tries the socket at once. Only what the socket does not take is buffered, for a writer task that sleeps until
then: the cheapest safe shape that was found. So the code that relays never awaits, and neither direction can block
the other. Over TLS everything goes through the writer task.

The buffer is bounded by what fills it: requests stop at the window of their session and at `congested`; responses are
owed only for what the peer itself sent, and it is not read while it is congested. Should a peer get past both, its
connection ends with `output_overflow`.
"""

import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from dlrproxy.config.keys import Address
from dlrproxy.sessions.licence import Licence
from protocols.smpp.framing import FramingError, split_until_error

RECEIVE_SIZE: Final = 0x10000
HIGH_WATER: Final = 256 * 1024  # about a window of 1,000 ordinary PDUs: a peer so far behind takes no more requests
MAX_BUFFERED: Final = 4 * 1024 * 1024  # far above what windows allow; beyond it the peer does not read at all
GOODBYE_S: Final = 2.0  # how long a closing connection may take to send what is left

CLOSED_BY_PEER: Final = "closed_by_peer"
LICENCE_LAPSED: Final = "licence_lapsed"  # this node may not serve any more
CROWDED_OUT: Final = "crowded_out"  # it has not bound, and others want its place

# Linux; elsewhere delayed acknowledgements stay as they are. Kannel waits for ours.
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)

TlsStream = trio.SSLStream[trio.SocketStream]


class Connection:
    """`scope` encloses the reading of this connection; whoever ends it cancels that scope through `end`."""

    __slots__ = (
        "_buffer",
        "_finishing",
        "_licence",
        "_parting",
        "_relieved",
        "_wake",
        "congested",
        "ended",
        "peer",
        "scope",
        "writing",
    )

    def __init__(self, peer: str, licence: Licence | None = None) -> None:
        """`peer` names the other end in logs. A connection whose licence has lapsed sends nothing, and ends."""
        self.peer = peer
        self.scope = trio.CancelScope()
        self.writing = trio.CancelScope(shield=True)  # until the goodbye is out
        self._licence = licence
        self._parting = False  # what is buffered is the last word
        self.congested = False
        self.ended: str | None = None  # why, once somebody has ended it
        self._buffer = bytearray()
        self._finishing = False
        self._wake = trio.Event()
        self._relieved = trio.Event()

    def send(self, data: bytes) -> None:
        """Never blocks and never raises: a connection that is broken ends, and its reader finds out."""
        if self.ended is not None:
            return
        if self._lapsed:
            self.cut(LICENCE_LAPSED)
            return
        if not self._buffer:
            try:
                sent = self._send_now(data)
            except OSError as error:
                self.end(f"send_failed: {error.strerror}")
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._buffer += data
        self._measure()
        self._wake.set()

    def end(self, reason: str) -> None:
        """Stop reading, and close once what was sent before is out. The first reason counts."""
        if self.ended is None:
            self.ended = reason
            self.scope.cancel()

    def cut(self, reason: str, farewell: bytes = b"") -> None:
        """End at once: what is not on its way yet is taken back. Only `farewell` is sent, if it starts a PDU there."""
        begun = bool(self._buffer)  # and perhaps half of it is sent
        self._buffer.clear()
        if begun:
            self.writing.cancel()
        elif farewell and self.ended is None:
            self._parting = True
            with suppress(OSError):  # it is gone already
                self._buffer += farewell[self._send_now(farewell) :]
            self._wake.set()
        self.end(reason)

    @property
    def _lapsed(self) -> bool:
        return self._licence is not None and not self._licence.valid and not self._parting

    async def relieved(self) -> None:
        """Wait until the peer has read enough of what it was sent."""
        while self.congested:
            self._relieved = trio.Event()
            await self._relieved.wait()

    async def write_behind(self) -> None:
        """The writer task: sends what `send` could not. Returns after `finish`, or when the connection breaks."""
        while True:
            await self._wake.wait()
            while self._buffer:
                try:
                    sent = await self._send_soon()
                except (OSError, trio.BrokenResourceError) as error:
                    self._buffer.clear()
                    self.end(f"send_failed: {error}")
                    return
                del self._buffer[:sent]
                self._measure()
            if self._finishing:
                return
            self._wake = trio.Event()

    def finish(self) -> None:
        """Nothing more will be sent: the writer task sends what is left, and returns."""
        self._finishing = True
        self._wake.set()

    def _measure(self) -> None:
        waiting = len(self._buffer)
        self.congested = waiting > HIGH_WATER
        if not self.congested:
            self._relieved.set()
        elif waiting > MAX_BUFFERED:
            self.end("output_overflow")

    async def receive(self) -> bytes:
        """What has arrived, up to RECEIVE_SIZE; empty at the end of the stream. Raises trio.BrokenResourceError."""
        raise NotImplementedError

    async def aclose(self, *, linger: bool) -> None:
        """Close. With `linger` the peer gets a moment to read what it was sent last, and to close first."""
        raise NotImplementedError

    def _send_now(self, data: bytes) -> int:
        """Send what can be sent without waiting; how much that was. Raises OSError."""
        raise NotImplementedError

    async def _send_soon(self) -> int:
        """Send from the buffer's start, waiting for room; how much that was. Raises OSError, BrokenResourceError."""
        raise NotImplementedError


class PlainConnection(Connection):
    """Over TCP."""

    __slots__ = ("_socket",)

    def __init__(self, stream: trio.SocketStream, peer: str, licence: Licence | None = None) -> None:
        """Takes over the stream's socket, for calls that do not wait."""
        super().__init__(peer, licence)
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._socket.setblocking(False)
        with suppress(OSError):  # the peer has gone already: the reader finds out
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(RECEIVE_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(error.strerror) from error
            if _QUICKACK is not None:
                with suppress(OSError):  # what was received counts, whatever became of the peer since
                    self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            return data

    def _send_now(self, data: bytes) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def _send_soon(self) -> int:
        await trio.lowlevel.wait_writable(self._socket)
        if self._lapsed:
            self.cut(LICENCE_LAPSED)
        return self._send_now(bytes(self._buffer[:RECEIVE_SIZE]))

    async def aclose(self, *, linger: bool) -> None:
        try:
            if linger:
                with trio.move_on_after(GOODBYE_S):
                    await self._linger()
        finally:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def _linger(self) -> None:
        """Closing with unread input resets the connection, and what was just sent is lost with it."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while await self.receive():
                pass
        except (OSError, trio.BrokenResourceError):
            return  # the peer has gone already


class TlsConnection(Connection):
    """Over TLS."""

    __slots__ = ("_stream",)

    def __init__(self, stream: TlsStream, peer: str, licence: Licence | None = None) -> None:
        super().__init__(peer, licence)
        self._stream = stream
        with suppress(OSError):
            stream.transport_stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    async def handshake(self) -> None:
        """Agree on keys, and check certificates where that is asked for. Raises trio.BrokenResourceError."""
        await self._stream.do_handshake()

    async def receive(self) -> bytes:
        return bytes(await self._stream.receive_some(RECEIVE_SIZE))

    def _send_now(self, data: bytes) -> int:
        return 0

    async def _send_soon(self) -> int:
        if self._lapsed:
            self.cut(LICENCE_LAPSED)
        data = bytes(self._buffer)
        await self._stream.send_all(data)
        return len(data)

    async def aclose(self, *, linger: bool) -> None:
        transport = self._stream.transport_stream
        try:
            if linger:
                with trio.move_on_after(GOODBYE_S):
                    await self._linger(transport)
        finally:
            await trio.aclose_forcefully(transport)

    async def _linger(self, transport: trio.SocketStream) -> None:
        """TLS's own goodbye, then TCP's, as over plain TCP. A peer may answer neither, or be sending still."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.unwrap()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await transport.send_eof()
            while await transport.receive_some():
                pass


def connection_over(stream: trio.SocketStream | TlsStream, peer: str, licence: Licence | None = None) -> Connection:
    """Takes over the stream."""
    if isinstance(stream, trio.SSLStream):
        return TlsConnection(stream, peer, licence)
    return PlainConnection(stream, peer, licence)


def secured(stream: trio.SocketStream, context: ssl.SSLContext) -> TlsStream:
    """TLS on a connection that somebody has made to us; the handshake is still to come."""
    # Peers close without TLS's goodbye; that is an end like any other.
    return trio.SSLStream(stream, context, server_side=True, https_compatible=True)


async def converse(connection: Connection, read: Callable[[], Awaitable[None]], lost: Callable[[], None]) -> None:
    """Run a connection: `read` until it returns or somebody ends the connection, then `lost`, then the goodbye."""

    async def write() -> None:
        with connection.writing:
            await connection.write_behind()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            try:
                with connection.scope:
                    await read()
            finally:
                lost()
                connection.finish()
                connection.writing.deadline = trio.current_time() + GOODBYE_S
    finally:
        await connection.aclose(linger=connection.ended not in (CLOSED_BY_PEER, CROWDED_OUT))


class Incoming:
    """The PDUs that arrive on a connection, a receive at a time."""

    __slots__ = ("_connection", "_error", "_rest")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rest = b""
        self._error: FramingError | None = None

    async def next(self) -> list[bytes]:
        """Whole PDUs, at least one; none at the end of the stream, which then has ended the connection.

        Raises FramingError when what came before a bad length has been given. A peer that does not read what it is sent
        is not read either.
        """
        if self._error is not None:
            raise self._error
        if self._connection.congested:
            await self._connection.relieved()
        while True:
            try:
                data = await self._connection.receive()
            except trio.BrokenResourceError as error:
                self._connection.end(f"broken: {str(error) or error.__cause__}")
                return []
            if not data:
                self._connection.end(CLOSED_BY_PEER)
                return []
            frames, self._rest, self._error = split_until_error(self._rest + data)
            if frames:
                return frames
            if self._error is not None:
                raise self._error


def peer_of(stream: trio.SocketStream) -> str:
    """The address of whoever has connected to us, for logs."""
    try:
        host, port, *_ = stream.socket.getpeername()
    except OSError:  # it has gone between our accepting it and now
        return "unknown"
    return str(Address(host, port))
