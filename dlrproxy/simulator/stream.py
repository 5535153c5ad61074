"""SMPP over one TCP socket: whole PDUs in by the receive, joined writes out.

`write` and `flush` never wait: a flush offers everything to the socket at once, and what it does not take goes to a
writer task. A peer that does not read stops us from reading from it (`HIGH_WATER`), so a buffer stays bounded by
what one receive can produce beyond it.
"""

import socket

import trio

from protocols.smpp.framing import FramingError, split_until_error

RECEIVE_SIZE = 256 * 1024
HIGH_WATER = 1024 * 1024


class StreamEndedError(Exception):
    """The stream is over: closed by the peer, reset, closed by us, or no longer SMPP."""


class SmppStream:
    """One connected socket. `run_writer` must run in a task for as long as the stream is used."""

    __slots__ = ("_backlog", "_blocked", "_closed", "_dirty", "_drained", "_error", "_pending", "_rest", "_socket")

    def __init__(self, connected: socket.socket, dirty: "list[SmppStream]") -> None:
        """Takes the socket over. A stream with unflushed writes puts itself on `dirty`; see `flush_all`."""
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._dirty = dirty
        self._pending: list[bytes] = []
        self._backlog = bytearray()
        self._blocked = trio.Event()
        self._drained = trio.Event()
        self._rest = b""
        self._error: FramingError | None = None
        self._closed = False

    def write(self, pdu: bytes) -> None:
        """Queue one PDU; it leaves with the next flush."""
        if not self._pending:
            self._dirty.append(self)
        self._pending.append(pdu)

    def flush(self) -> None:
        """Offer all that is queued to the socket, now. A broken socket is noticed by the reader, not here."""
        data = b"".join(self._pending)
        self._pending.clear()
        if self._closed:
            return
        if self._backlog:
            self._backlog += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader's next receive ends the session and says why
        if sent < len(data):
            self._backlog += memoryview(data)[sent:]
            self._blocked.set()

    async def receive(self) -> list[bytes]:
        """The whole PDUs of one receive, possibly none. Raises StreamEndedError when there will be no more."""
        if self._error is not None:
            raise StreamEndedError(str(self._error))
        while len(self._backlog) > HIGH_WATER:
            self._drained = trio.Event()
            await self._drained.wait()
        if self._closed:
            raise StreamEndedError("closed")
        try:
            await trio.lowlevel.wait_readable(self._socket)
            data = self._socket.recv(RECEIVE_SIZE)
        except BlockingIOError:  # woken for nothing, as the operating system may
            return []
        except (OSError, trio.ClosedResourceError) as error:
            raise StreamEndedError(str(error) or "closed") from error
        if not data:
            raise StreamEndedError("closed by the peer")
        frames, self._rest, self._error = split_until_error(self._rest + data if self._rest else data)
        return frames

    async def run_writer(self) -> None:
        """Write what the socket did not take at once. Ends when the stream does."""
        while not self._closed:
            await self._blocked.wait()
            try:
                while self._backlog:
                    await trio.lowlevel.wait_writable(self._socket)
                    sent = self._socket.send(memoryview(self._backlog)[:RECEIVE_SIZE])
                    del self._backlog[:sent]
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                self._backlog.clear()
                self._drained.set()
                return
            self._blocked = trio.Event()
            self._drained.set()

    def close(self) -> None:
        """Close at once; waiting tasks get StreamEndedError. What is still unwritten is gone."""
        if self._closed:
            return
        self._closed = True
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._blocked.set()
        self._drained.set()


def flush_all(dirty: list[SmppStream]) -> None:
    """Flush every stream on the list, in the order of their first write, and empty it."""
    for stream in dirty:
        stream.flush()
    dirty.clear()


def listening_socket(host: str, port: int) -> socket.socket:
    """A listening socket on the first address that `host` means; port 0 takes a free one. Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.create_server((str(address[0]), port), family=family, backlog=512)
    listener.setblocking(False)
    return listener


async def accept(listener: socket.socket) -> tuple[socket.socket, str]:
    """The next connection, and the host that it comes from."""
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            connected, address = listener.accept()
        except (BlockingIOError, ConnectionError):  # gone before we looked
            continue
        return connected, str(address[0])


async def connect(host: str, port: int) -> socket.socket:
    """A socket connected to the first address of `host` that takes the connection. Raises OSError."""
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        plain = socket.socket(family, kind, protocol)
        plain.setblocking(False)
        try:
            await trio.socket.from_stdlib_socket(plain).connect(address)
        except OSError as error:
            plain.close()
            failure = error
        except BaseException:
            plain.close()
            raise
        else:
            return plain
    raise failure
