"""One non-blocking socket of the load generator or of the SMSC: joined writes out, what came in since the last look."""

import socket

RECEIVE_SIZE = 256 * 1024


class WireClosedError(Exception):
    """The other side closed or reset the connection."""


class Wire:
    """Writes are collected by `write` and leave with `flush`; what the socket does not take waits in a buffer.

    Bounded by the windows: neither side writes what its window does not allow.
    """

    __slots__ = ("_backlog", "_pending", "socket")

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connected
        self._pending: list[bytes] = []
        self._backlog = b""

    def write(self, pdu: bytes) -> None:
        self._pending.append(pdu)

    def flush(self) -> None:
        """Raises WireClosedError."""
        if self._pending:
            data = b"".join((self._backlog, *self._pending))
            self._pending.clear()
        elif self._backlog:
            data = self._backlog
        else:
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise WireClosedError(str(error)) from error
        self._backlog = data[sent:]

    @property
    def blocked(self) -> bool:
        return bool(self._backlog)

    def receive(self) -> bytes:
        """What is there; empty where there is nothing. Raises WireClosedError."""
        try:
            data = self.socket.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise WireClosedError(str(error)) from error
        if not data:
            raise WireClosedError("closed by the other side")
        return data

    def close(self) -> None:
        self.socket.close()

    def fileno(self) -> int:
        return self.socket.fileno()
