"""The API's client for commands: synchronous. How a node is reached: `reach.py`."""

import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote, urlencode

import h11
import msgspec

from dlrproxy.admin.problems import Problem

TIMEOUT_S: Final = 30.0  # between two bytes of an answer; a replay of a thousand rows takes a few seconds
_CHUNK: Final = 64 * 1024

T = TypeVar("T")


class AdminError(Exception):
    """The node cannot be asked, or refuses; the text is for the person at the terminal."""


class NotRunningError(AdminError):
    """No node is there."""


class RefusedError(AdminError):
    """The node's answer is a problem."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _UnansweredError(Exception):
    """The connection was closed before the first byte of an answer."""


class Reach(Protocol):
    """How a node is reached."""

    @property
    def name(self) -> str:
        """Which node is meant, for people."""

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """Host, and whatever else a request has to carry."""

    @property
    def if_unanswered(self) -> str:
        """What may be the matter when the connection is closed without an answer, for people; or empty."""

    def connect(self, timeout_s: float) -> socket.socket:
        """A blocking connection. Raises AdminError, which says what is wrong, and TimeoutError."""


class Client:
    """Asks one node. A connection a request: commands make few."""

    def __init__(self, reach: Reach, timeout_s: float = TIMEOUT_S) -> None:
        self._reach = reach
        self._timeout_s = timeout_s

    def get(self, path: str, wanted: type[T], query: Mapping[str, str | float] | None = None) -> T:
        """Query parameters that are empty or 0 are left out. Raises AdminError."""
        parameters = urlencode({name: str(value) for name, value in (query or {}).items() if value})
        target = quote(path) + (f"?{parameters}" if parameters else "")
        return _decoded(self._ask("GET", target), wanted)

    def post(self, path: str, wanted: type[T], body: Any) -> T:
        """`body` is what msgspec encodes. Raises AdminError."""
        return _decoded(self._ask("POST", quote(path), msgspec.json.encode(body)), wanted)

    def _ask(self, method: str, target: str, body: bytes = b"") -> bytes:
        headers = [*self._reach.headers, ("Connection", "close")]
        if method == "POST":
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        protocol = h11.Connection(h11.CLIENT)
        request = protocol.send(h11.Request(method=method, target=target, headers=headers)) or b""
        if body:
            request += protocol.send(h11.Data(body)) or b""
        request += protocol.send(h11.EndOfMessage()) or b""
        try:
            with self._reach.connect(self._timeout_s) as connection:
                connection.sendall(request)
                status, content = _answer(protocol, connection)
        except TimeoutError as error:
            raise AdminError(f"{self._reach.name} did not answer within {self._timeout_s:g} s") from error
        except _UnansweredError as error:
            raise AdminError(
                f"{self._reach.name} closed the connection without an answer{self._reach.if_unanswered}"
            ) from error
        except (OSError, h11.RemoteProtocolError) as error:
            raise AdminError(f"{self._reach.name} ended the conversation: {error}") from error
        if status >= 400:
            raise RefusedError(status, _problem(status, content))
        return content


def _answer(protocol: h11.Connection, connection: socket.socket) -> tuple[int, bytes]:
    """Status and content. Raises OSError, RemoteProtocolError, _UnansweredError."""
    status = 0
    content = bytearray()
    answered = False
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            received = connection.recv(_CHUNK)
            answered = answered or bool(received)
            if not answered:
                raise _UnansweredError
            protocol.receive_data(received)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            content += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(content)
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("no answer")


def _decoded(content: bytes, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=wanted)
    except msgspec.MsgspecError as error:
        raise AdminError(
            f"this node answers in another way than this command expects ({error}); are both of one version?"
        ) from error


def _problem(status: int, content: bytes) -> str:
    try:
        return msgspec.json.decode(content, type=Problem).error
    except msgspec.MsgspecError:
        return f"HTTP status {status}"
