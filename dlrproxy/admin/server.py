"""Serves the HTTP API: always on a unix socket in the data directory, on TCP where [admin].listen is set. In a quorum
POST /look alone on a unix socket for the database server's group, where quorum.notify_socket is set.

Hypercorn's own server ends, and the node with it, when a client breaks off or misbehaves at the wrong moment: a
request behind one that is still being answered makes two tasks write at once, and nothing catches that. So the
connections are accepted here, a bounded number, and each is given to hypercorn on its own.
"""

import logging
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import hypercorn.config
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger

from dlrproxy.admin import unix_socket
from dlrproxy.admin.access import NoForeignHost, TokenRequired
from dlrproxy.admin.api import Api
from dlrproxy.admin.view import NodeView
from dlrproxy.config import Config
from dlrproxy.config.keys import Address
from dlrproxy.config.tables import Admin
from dlrproxy.failures import leaves
from dlrproxy.sessions.connection import TlsStream, peer_of, secured
from dlrproxy.sessions.listen_tls import ListenTls, to_administrators

MAX_CONNECTIONS: Final = 50  # on TCP, and as many on each unix socket: strangers cannot lock the commands out
_BACKLOG: Final = 100
_IDLE_S: Final = 15  # between two bytes of a request: clients are scripts and scrapers
_KEEP_ALIVE_S: Final = 1.0  # also how long hypercorn keeps a connection that was reset


async def serve(
    view: NodeView,
    config: Config,
    log: FilteringBoundLogger,
    *,
    task_status: trio.TaskStatus[Address | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Until cancelled. Started with the TCP address that is listened on, if any; the data directory's lock is held.

    Raises OSError, which names the socket, when one cannot be made, and TlsError for certificates. Whatever a client
    does ends its connection alone.
    """
    api = Api(view, log, full_numbers=config.log.full_numbers)
    with ExitStack() as sockets:
        unix = sockets.enter_context(_unix_listener(config.node.data_dir / unix_socket.NAME, "the admin socket"))
        served = [(_Front(api.app, log), [unix])]
        quorum = config.quorum if config.node.mode == "quorum" else None
        if quorum is not None and quorum.notify_socket is not None:
            told = _unix_listener(quorum.notify_socket, "quorum.notify_socket:", quorum.notify_group)
            served.append((_Front(api.look_app, log), [sockets.enter_context(told)]))
        address = None
        if config.admin.listen is not None:
            shown = to_administrators(config.admin)
            tls = None if shown is None else ListenTls(shown, log)
            listeners = await _tcp_listeners(config.admin.listen)
            for listener in listeners:
                sockets.enter_context(listener.socket)
            served.append((_Front(_guarded(api.app, config.admin), log, tls), listeners))
            address = Address(config.admin.listen.host, listeners[0].socket.getsockname()[1])
        async with trio.open_nursery() as nursery:
            for front, listeners in served:
                nursery.start_soon(partial(trio.serve_listeners, front.serve, listeners))
            log.info("admin.listening", listen=None if address is None else str(address), tls=config.admin.tls)
            task_status.started(address)


def _guarded(app: ASGIApp, admin: Admin) -> ASGIApp:
    """The application for who comes over TCP."""
    if admin.token is not None:
        return TokenRequired(app, admin.token)
    if admin.tls and admin.ca_file is not None:
        return app  # who comes so far has shown a certificate, and no web page has another name than ours in its own
    return NoForeignHost(app)


class _Front:
    """The connections of one kind, and the application that they reach."""

    def __init__(self, app: ASGIApp, log: FilteringBoundLogger, tls: ListenTls | None = None) -> None:
        self._app = ASGIWrapper(cast("Any", app))  # two packages' names for one protocol
        self._log = log
        self._tls = tls
        self._settings = _settings()
        self._context = WorkerContext(None)
        self._connections = 0
        self._full = False  # and it was said

    async def serve(self, stream: trio.SocketStream) -> None:
        if self._connections >= MAX_CONNECTIONS:
            if not self._full:
                self._full = True
                self._log.warning("admin.too_many_connections", limit=MAX_CONNECTIONS)
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            if self._tls is None:
                await self._converse(stream)
            elif (agreed := await self._agree(stream, self._tls)) is not None:
                await self._converse(agreed)
        except* Exception as group:  # noqa: BLE001 - whatever a client can make hypercorn raise ends here, and is said
            self._log.info("admin.connection_failed", error=", ".join(sorted({repr(leaf) for leaf in leaves(group)})))
        finally:
            self._connections -= 1
            self._full = False
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.SocketStream | TlsStream) -> None:
        # Hypercorn takes a stream without TLS as well, by looking.
        await TCPServer(self._app, self._settings, self._context, ConnectionState({}), cast("Any", stream))

    async def _agree(self, stream: trio.SocketStream, tls: ListenTls) -> TlsStream | None:
        """After the TLS handshake; None when there is no agreement, which is said."""
        peer = peer_of(stream)  # asked for now: nobody knows it any more once it is gone
        agreed, why = secured(stream, tls.context()), f"no handshake within {_IDLE_S} s"
        with trio.move_on_after(_IDLE_S):
            try:
                await agreed.do_handshake()
            except trio.BrokenResourceError as error:
                why = str(error.__cause__ or "the client closed the connection")
            else:
                return agreed
        self._log.warning("admin.tls_failed", peer=peer, error=why)
        return None


def _settings() -> hypercorn.config.Config:
    """Hypercorn takes any attribute; a test names those that are set here against its own."""
    settings = hypercorn.config.Config()
    settings.accesslog = None
    settings.errorlog = logging.getLogger("hypercorn.error")  # ends up in our log (logs.py)
    settings.alpn_protocols = ["http/1.1"]
    settings.include_server_header = False
    settings.keep_alive_timeout = _KEEP_ALIVE_S
    settings.read_timeout = _IDLE_S
    return settings


@contextmanager
def _unix_listener(path: Path, what: str, group: str | None = None) -> Iterator[trio.SocketListener]:
    try:
        listener = unix_socket.listener(path, group)
    except OSError as error:
        raise OSError(error.errno, f"{what} {path} cannot be made: {error.strerror or error}") from error
    made = path.stat(follow_symlinks=False)
    try:
        with listener:
            yield trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    finally:
        _unlink(path, made.st_ino)


def _unlink(path: Path, inode: int) -> None:
    """Remove the socket, unless somebody has put something else there."""
    try:
        found = path.stat(follow_symlinks=False)
        if stat.S_ISSOCK(found.st_mode) and found.st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        pass


async def _tcp_listeners(address: Address) -> list[trio.SocketListener]:
    """One for each address that the host's name has."""
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host, backlog=_BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"admin.listen: cannot listen on {address}: {error}") from error
