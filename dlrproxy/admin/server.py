"""Serves the HTTP API: always on a unix socket in the data directory, on TCP where [admin].listen is set."""

import logging
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import hypercorn.config
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.run import worker_serve
from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger

from dlrproxy.admin import unix_socket
from dlrproxy.admin.access import NoForeignHost, TokenRequired
from dlrproxy.admin.api import Api
from dlrproxy.admin.view import NodeView
from dlrproxy.config import Config
from dlrproxy.config_keys import Address

_BACKLOG: Final = 100
_IDLE_S: Final = 15  # between two bytes of a request: clients are scripts and scrapers
_KEEP_ALIVE_S: Final = 5.0


async def serve(
    view: NodeView,
    config: Config,
    log: FilteringBoundLogger,
    *,
    task_status: trio.TaskStatus[Address | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Until cancelled. Started with the TCP address that is listened on, if any; the data directory's lock is held.

    Raises OSError, which names the socket, when one cannot be made.
    """
    api = Api(view, log, full_numbers=config.log.full_numbers)
    admin = config.admin
    with ExitStack() as sockets:
        serving: list[tuple[ASGIApp, list[socket.socket]]] = [
            (api.app, [sockets.enter_context(_unix_listener(config.node.data_dir))]),
        ]
        address = None
        if admin.listen is not None:
            guarded = NoForeignHost(api.app) if admin.token is None else TokenRequired(api.app, admin.token)
            listeners = [sockets.enter_context(each) for each in await _tcp_listeners(admin.listen)]
            serving.append((guarded, listeners))
            address = Address(admin.listen.host, listeners[0].getsockname()[1])
        async with trio.open_nursery() as nursery:
            for app, listening in serving:
                await nursery.start(partial(_serve, app, listening))
            log.info("admin.listening", listen=None if address is None else str(address))
            task_status.started(address)


async def _serve(app: ASGIApp, listening: list[socket.socket], *, task_status: trio.TaskStatus[list[str]]) -> None:
    sockets = hypercorn.config.Sockets([], listening, [])
    wrapped = ASGIWrapper(cast("Any", app))  # two packages' names for one protocol
    await worker_serve(wrapped, _settings(), sockets=sockets, task_status=task_status)


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
def _unix_listener(data_dir: Path) -> Iterator[socket.socket]:
    path = data_dir / unix_socket.NAME
    try:
        listener = unix_socket.listener(data_dir)
    except OSError as error:
        raise OSError(error.errno, f"the admin socket {path} cannot be made: {error.strerror or error}") from error
    made = path.stat(follow_symlinks=False)
    try:
        with listener:
            yield listener
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


async def _tcp_listeners(address: Address) -> list[socket.socket]:
    """One for each address that the host's name has."""
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host, backlog=_BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"admin.listen: cannot listen on {address}: {error}") from error
    return [socket.socket(fileno=listener.socket.detach()) for listener in listeners]
