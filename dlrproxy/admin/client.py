"""The API's client for commands on the node's own machine: synchronous, over the unix socket in the data directory."""

import errno
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import h11
import msgspec

from dlrproxy.admin import unix_socket
from dlrproxy.admin.problems import Problem

TIMEOUT_S: Final = 30.0  # between two bytes of an answer; a replay of a thousand rows takes a few seconds
_CHUNK: Final = 64 * 1024

T = TypeVar("T")


class AdminError(Exception):
    """The node cannot be asked, or refuses; the text is for the person at the terminal."""


class NotRunningError(AdminError):
    """No node runs on this data directory."""


class RefusedError(AdminError):
    """The node's answer is a problem."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Client:
    """Asks the node of one data directory. A connection a request: commands make few."""

    def __init__(self, data_dir: Path, timeout_s: float = TIMEOUT_S) -> None:
        self.data_dir = data_dir
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
        headers = [("Host", "localhost"), ("Connection", "close")]
        if method == "POST":
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        protocol = h11.Connection(h11.CLIENT)
        request = protocol.send(h11.Request(method=method, target=target, headers=headers)) or b""
        if body:
            request += protocol.send(h11.Data(body)) or b""
        request += protocol.send(h11.EndOfMessage()) or b""
        try:
            with self._connected() as connection:
                connection.sendall(request)
                status, content = _answer(protocol, connection)
        except TimeoutError as error:
            raise AdminError(f"the node of {self.data_dir} did not answer within {self._timeout_s:g} s") from error
        except (OSError, h11.RemoteProtocolError) as error:
            raise AdminError(f"the node of {self.data_dir} ended the conversation: {error}") from error
        if status >= 400:
            raise RefusedError(status, _problem(status, content))
        return content

    def _connected(self) -> socket.socket:
        """Raises AdminError, which says what is wrong with the directory, the socket or the node."""
        path = self.data_dir / unix_socket.NAME
        try:
            return unix_socket.connect(self.data_dir, self._timeout_s)
        except FileNotFoundError as error:
            raise self._absent() from error
        except NotADirectoryError as error:
            raise AdminError(f"{self.data_dir} is not a directory") from error
        except ConnectionRefusedError as error:
            if path.is_socket():
                raise NotRunningError(
                    f"the node of {self.data_dir} is not running; it was killed, and left {path.name} behind"
                ) from error
            raise AdminError(f"{path} is no socket; is this a node's data directory?") from error
        except PermissionError as error:
            raise AdminError(f"{path}: permission denied; run this as the node's user, or as root") from error
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno == errno.EAGAIN:  # what a full backlog is, on a unix socket
                raise AdminError(f"the node of {self.data_dir} takes no more connections now") from error
            raise AdminError(f"{path}: {error.strerror or error}") from error

    def _absent(self) -> AdminError:
        directory = self.data_dir
        try:
            found = {entry.name for entry in directory.iterdir()}
        except FileNotFoundError:
            return AdminError(f"{directory}: no such directory; is it this node's data_dir?")
        except OSError as error:
            return AdminError(f"{directory}: {error.strerror}; run this as the node's user, or as root")
        if "lock" not in found and "store" not in found:
            return AdminError(f"{directory} is no data directory: no node has run with it; is it this node's data_dir?")
        return NotRunningError(f"the node of {directory} is not running")


def _answer(protocol: h11.Connection, connection: socket.socket) -> tuple[int, bytes]:
    """Status and content. Raises OSError, RemoteProtocolError."""
    status = 0
    content = bytearray()
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(connection.recv(_CHUNK))
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
