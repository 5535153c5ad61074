"""How the API's client reaches a node: by the unix socket in its data directory, or by a URL."""

import errno
import re
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from attrs import field, frozen

from dlrproxy.admin import unix_socket
from dlrproxy.admin.client import AdminError, NotRunningError
from dlrproxy.config.keys import Address
from dlrproxy.secret import Secret
from ring.tls import client_context

_VISIBLE: Final = re.compile(rb"[\x21-\x7e\x80-\xff]+")


@frozen
class Directory:
    """The node of this machine that has this data directory."""

    data_dir: Path

    @property
    def name(self) -> str:
        return f"the node of {self.data_dir}"

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return [("Host", "localhost")]

    @property
    def if_unanswered(self) -> str:
        return ""

    def connect(self, timeout_s: float) -> socket.socket:
        """Raises AdminError, which says what is wrong with the directory, the socket or the node."""
        path = self.data_dir / unix_socket.NAME
        try:
            return unix_socket.connect(self.data_dir, timeout_s)
        except FileNotFoundError as error:
            raise self._absent() from error
        except NotADirectoryError as error:
            raise AdminError(f"{self.data_dir} is not a directory") from error
        except ConnectionRefusedError as error:
            if path.is_socket():
                raise NotRunningError(
                    f"{self.name} is not running; it was killed, and left {path.name} behind"
                ) from error
            raise AdminError(f"{path} is no socket; is this a node's data directory?") from error
        except PermissionError as error:
            raise AdminError(f"{path}: permission denied; run this as the node's user, or as root") from error
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno == errno.EAGAIN:  # what a full backlog is, on a unix socket
                raise AdminError(f"{self.name} takes no more connections now") from error
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
        return NotRunningError(f"{self.name} is not running")


@frozen
class Url:
    """A node that has [admin] listen. Make one with `url`."""

    name: str
    address: Address
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    token: Secret | None = None

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        host = [("Host", str(self.address))]
        return (
            host
            if self.token is None
            else [*host, ("Authorization", f"Bearer {self.token.reveal().decode('latin-1')}")]
        )

    @property
    def if_unanswered(self) -> str:
        if self.tls is None:
            return "; does it speak https?"
        return "; does it want a client certificate (--cert-file, --key-file), and one that its ca_file has signed?"

    def connect(self, timeout_s: float) -> socket.socket:
        """Raises AdminError."""
        try:
            connection = socket.create_connection(self.address, timeout_s)
        except TimeoutError:
            raise
        except ConnectionRefusedError as error:
            raise NotRunningError(f"{self.name}: connection refused; nobody listens there") from error
        except OSError as error:
            raise AdminError(f"{self.name}: {error.strerror or error}") from error
        if self.tls is None:
            return connection
        try:
            return self.tls.wrap_socket(connection, server_hostname=self.address.host)
        except TimeoutError:
            connection.close()
            raise
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise AdminError(f"{self.name}: its certificate is refused: {error.verify_message}") from error
        except OSError as error:
            connection.close()
            raise AdminError(f"{self.name}: no agreement on TLS: {error}") from error


def url(
    given: str,
    *,
    ca_file: Path | None = None,
    certificate: tuple[Path, Path] | None = None,
    token: Secret | None = None,
) -> Url:
    """`certificate`: ours and its key. Without `ca_file` the system's authorities are trusted.

    Raises ValueError for what is no URL of a node, or for files that cannot be used; its text is for people.
    """
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{given} is no URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port is None or parts.path.strip("/"):
        raise ValueError(f"{given}: give scheme, host and port, as in https://gw2.example:7380")
    if token is not None and not _VISIBLE.fullmatch(token.reveal()):
        raise ValueError("the token has spaces or control characters; a header cannot carry it")
    address = Address(parts.hostname, port)
    if parts.scheme == "http":
        if ca_file is not None or certificate is not None:
            raise ValueError(f"{given}: certificates need https")
        return Url(given, address, None, token)
    return Url(given, address, client_context(ca_file, certificate or (None, None)), token)
