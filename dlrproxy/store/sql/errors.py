"""What can go wrong with a database server, told apart by what may be done next."""

from typing import Final

from dlrproxy.store.port import StoreError

LOCK_WAIT_TIMEOUT: Final = 1205
DEADLOCK: Final = 1213
UNKNOWN_COMMAND: Final = 1047  # Galera: "WSREP has not yet prepared node for application use"
ERROR_DURING_COMMIT: Final = 1180
READ_ONLY: Final = frozenset({1290, 1836})  # read_only; the second is MySQL's super_read_only
ACCESS_DENIED: Final = frozenset({1044, 1045, 1130, 1142, 1143, 1227, 1698})
NO_SUCH_SCHEMA: Final = frozenset({1049, 1146})
NO_SUCH_THREAD: Final = 1094
DUPLICATE_KEY: Final = 1062
TOO_BIG: Final = 1153  # above max_allowed_packet
NULL_WHERE_NONE_MAY_BE: Final = 1048  # no statement here writes one, but a fence that does not hold (fence.py)


class SqlError(StoreError):
    """A statement was not done, or nobody knows. The text names the server."""


class UnreachableError(SqlError):
    """No connection: nothing was sent."""


class RefusedError(SqlError):
    """The server does not let this account in, or not do this. Trying again is of no use until somebody changes it."""


class UnknownOutcomeError(SqlError):
    """The connection ended, or time ran out, with a statement under way: it may have been done, and may still be."""


class AgainError(SqlError):
    """A deadlock or a lock wait: it was not done, and may be sent again on the same connection."""


class NoQuorumError(SqlError):
    """This Galera node is not part of a quorum: it neither reads nor writes."""


class ReadOnlyError(SqlError):
    """The server is read-only: it is not, or no longer, the primary."""


class FencedError(SqlError):
    """Another node has taken over what this one writes; nothing was written."""


class NoSuchThreadError(SqlError):
    """The connection that was to be ended is gone already."""


class StatementError(SqlError):
    """The server does not take the statement: a wrong schema, a wrong value, a packet above max_allowed_packet."""


class DuplicateKeyError(StatementError):
    """A row with that key is there already: nothing of the statement was done."""


def error_of(code: int, text: str, server: str) -> SqlError:
    """What the error `code` of the server named `server` means."""
    said = f"{server} says {code}: {text}"
    if code in {LOCK_WAIT_TIMEOUT, DEADLOCK}:
        return AgainError(said)
    if code == UNKNOWN_COMMAND:
        return NoQuorumError(said)
    if code == NO_SUCH_THREAD:
        return NoSuchThreadError(said)
    if code == NULL_WHERE_NONE_MAY_BE:
        return FencedError(said)
    if code == DUPLICATE_KEY:
        return DuplicateKeyError(said)
    if code in READ_ONLY:
        return ReadOnlyError(said)
    if code in ACCESS_DENIED:
        return RefusedError(said)
    if code in NO_SUCH_SCHEMA:
        return StatementError(f"{said}; `dlrproxy db init` makes what is missing")
    if code == TOO_BIG:
        return StatementError(f"{said}; `dlrproxy db check` says what max_allowed_packet must be")
    if code == ERROR_DURING_COMMIT or 2000 <= code < 3000:  # the second: the client's own errors
        return UnknownOutcomeError(said)
    return StatementError(said)
