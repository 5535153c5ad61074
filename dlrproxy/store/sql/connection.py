"""One connection to a database server: trio-mysql behind rules that its faults make necessary.

- One statement at a time, each a transaction of its own (autocommit). There is no BEGIN: cancelled in a transaction,
  trio-mysql sends no ROLLBACK, and the next BEGIN commits what was cancelled.
- A deadline for the whole of connecting and for every statement; its own covers TCP only.
- After a cancel and any error but a few (a deadlock, a lock wait, a duplicate key) the connection may be out of step
  with the server: it is closed for good, its socket at once, and `broken` says so.
- Every error comes out as a SqlError that says whether the statement may have been done.
"""

import ssl
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import attrs
import trio
from trio_mysql import connections, cursors, err
from trio_mysql.constants import CLIENT

from dlrproxy.store.sql.errors import (
    AgainError,
    NoSuchThreadError,
    RefusedError,
    SqlError,
    UnknownOutcomeError,
    UnreachableError,
    error_of,
)

Value = bytes | str | int | float | None
Row = tuple[Value, ...]

# MySQL 8's, the first by default. trio-mysql tries, and gets out of step with the server.
UNSUPPORTED_PLUGINS: Final = frozenset({"caching_sha2_password", "sha256_password"})


class Result(NamedTuple):
    rows: Sequence[Row]
    affected: int  # rows changed, or returned
    columns: Sequence[str] = ()  # the names of those of `rows`


@attrs.frozen(kw_only=True)
class Account:
    """Where a database server is, and as whom it is spoken to."""

    host: str = "localhost"
    port: int = 3306
    socket: str | None = None  # the path of a unix socket, instead of host and port
    user: str
    password: str = attrs.field(default="", repr=False)
    schema: str | None = None
    tls: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    connect_timeout_s: float = 5.0
    session: str | None = None  # a statement that each connection begins with

    @property
    def server(self) -> str:
        """How errors call it."""
        return f"the database server at {self.socket or f'{self.host}:{self.port}'}"


class Connection:
    """See the module's docstring. Made by `open`; used by one task at a time."""

    def __init__(self, account: Account, driver: Any, stream: trio.SocketStream) -> None:
        self.broken = False
        self.opened_at = trio.current_time()
        self._server = account.server
        self._driver = driver
        self._stream = stream  # the driver forgets it, open, when anything goes wrong

    @classmethod
    async def open(cls, account: Account) -> "Connection":
        """Raises UnreachableError, RefusedError."""
        driver = _Driver(
            host=account.host,  # for the name in the server's certificate
            user=account.user,
            password=account.password,
            database=account.schema,
            ssl=account.tls,
            charset="utf8mb4",
            use_unicode=True,
            autocommit=True,
            init_command=account.session,
            sql_mode="STRICT_ALL_TABLES",  # a value that does not fit is an error, not a shorter value
            cursorclass=_Cursor,
        )
        stream = None
        try:
            with trio.fail_after(account.connect_timeout_s):
                stream = await _dial(account)
                await driver.connect(stream)
        except BaseException as error:
            if stream is not None:
                await _close_at_once(stream)
            if isinstance(error, Exception):
                raise _connect_error(error, account) from error
            raise
        return cls(account, driver, stream)

    @property
    def thread_id(self) -> int:
        """The server's number for this connection."""
        return int(self._driver.thread_id())

    @property
    def version(self) -> str:
        """As the server calls itself: "10.11.6-MariaDB-0+deb12u1", "8.0.36"."""
        return str(self._driver.server_version)

    async def run(self, statement: str, timeout_s: float) -> Result:
        """Run one statement. Raises SqlError; what it did is certain for any but UnknownOutcomeError.

        Cancelled, it may have been done as well.
        """
        if self.broken:
            raise UnreachableError(f"the connection to {self._server} is broken")
        try:
            with trio.fail_after(timeout_s):
                return await self._run(statement)
        except err.IntegrityError as error:
            raise error_of(*_code_and_text(error), self._server) from error
        except BaseException as error:
            translated = _statement_error(error, self._server, timeout_s) if isinstance(error, Exception) else None
            if not isinstance(translated, AgainError | NoSuchThreadError):
                await self._discard()
            if translated is None:
                raise
            raise translated from error

    async def _run(self, statement: str) -> Result:
        cursor = self._driver.cursor()
        affected = await cursor.execute(statement)
        described = cursor.description or ()
        rows = await cursor.fetchall() if described else ()
        await cursor.aclose()
        return Result(rows, affected, [column[0] for column in described])

    async def close(self) -> None:
        """Say goodbye, for a second at most."""
        if not self.broken:
            self.broken = True
            with trio.move_on_after(1, shield=True):
                await self._driver.aclose()
        await self._discard()

    async def _discard(self) -> None:
        self.broken = True
        self._driver._sock = None
        await _close_at_once(self._stream)


class _UnsupportedPluginError(Exception):
    """The name of the plugin."""


class _NoTlsError(Exception):
    """TLS is asked for, and the server does not offer it."""


class _Cursor(cursors.Cursor):  # type: ignore[misc]  # likewise
    """Does not ask for warnings after a statement: under the strict mode they say nothing that matters."""

    _defer_warnings = True


class _Driver(connections.Connection):  # type: ignore[misc]  # the driver has no types
    """Ends a handshake before it can fail in ways that say nothing of the cause."""

    _auth_plugin_name: str  # the server's default, from its greeting

    async def _request_authentication(self) -> None:
        if self.ssl and not self.server_capabilities & CLIENT.SSL:
            raise _NoTlsError  # the driver would go on without
        # The greeting names the server's default, the account's own comes in a request to switch.
        if self._auth_plugin_name in UNSUPPORTED_PLUGINS:
            self._auth_plugin_name = "mysql_native_password"
        await super()._request_authentication()

    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> Any:
        name = plugin_name.decode("ascii", "replace")
        if name in UNSUPPORTED_PLUGINS:
            raise _UnsupportedPluginError(name)
        return await super()._process_auth(plugin_name, auth_packet)


async def _dial(account: Account) -> trio.SocketStream:
    if account.socket is not None:
        return await trio.open_unix_socket(account.socket)
    return await trio.open_tcp_stream(account.host, account.port)


async def _close_at_once(stream: trio.SocketStream) -> None:
    with trio.CancelScope(shield=True):  # it does not wait, and must happen
        await trio.aclose_forcefully(stream)


def _code_and_text(error: Exception) -> tuple[int, str]:
    if len(error.args) >= 2 and isinstance(error.args[0], int):
        return error.args[0] & 0xFFFF, str(error.args[1])  # the driver reads it as signed
    return 2000, str(error)  # CR_UNKNOWN_ERROR


def _connect_error(error: Exception, account: Account) -> SqlError:
    server = account.server
    if isinstance(error, _UnsupportedPluginError):
        return RefusedError(
            f"{server} wants {error} for {account.user}, which is not supported; let the account use "
            "mysql_native_password or ed25519 (ALTER USER ... IDENTIFIED WITH mysql_native_password BY ..., or "
            "IDENTIFIED VIA ed25519 ...)"
        )
    if isinstance(error, _NoTlsError):
        return RefusedError(f"{server} does not offer TLS, which the configuration asks for")
    if isinstance(error, trio.TooSlowError):
        return UnreachableError(f"{server} did not let us in within {account.connect_timeout_s:g} s")
    if isinstance(error, err.MySQLError):
        code, text = _code_and_text(error)
        if code not in {2000, 2003, 2006, 2013}:
            translated = error_of(code, text, server)
            if not isinstance(translated, UnknownOutcomeError):
                return translated
        return UnreachableError(f"{server} cannot be reached: {text}")
    if isinstance(error, trio.BrokenResourceError) and error.__cause__ is not None:
        return UnreachableError(f"{server} cannot be reached: {error.__cause__}")  # what TLS did not like
    return UnreachableError(f"{server} cannot be reached: {error}")


def _statement_error(error: Exception, server: str, timeout_s: float) -> SqlError:
    if isinstance(error, trio.TooSlowError):
        return UnknownOutcomeError(f"{server} has not answered within {timeout_s:g} s")
    if isinstance(error, err.InternalError | err.InterfaceError):  # out of step
        return UnknownOutcomeError(f"the connection to {server} broke: {error}")
    if isinstance(error, err.MySQLError):
        return error_of(*_code_and_text(error), server)
    return UnknownOutcomeError(f"the connection to {server} broke: {error!r}")
