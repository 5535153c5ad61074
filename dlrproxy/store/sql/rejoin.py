"""The database servers of a pair, as `dlrproxy rejoin` sees and changes them. MariaDB only.

Everything here may be done twice. `modes/rejoin.py` decides what is done when.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import attrs

from dlrproxy.modes.rejoin import OwnServer, Primary
from dlrproxy.store.sql.connection import Account, Value
from dlrproxy.store.sql.dialect import MARIADB, dialect_of
from dlrproxy.store.sql.errors import SqlError, StatementError
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import get_pair, text

# The source no longer has, or never had, what the replica needs next (ER_MASTER_FATAL_ERROR_READING_BINLOG).
NOT_IN_BINLOG: Final = 1236

_UNSAFE_IN_TEXT: Final = re.compile(r"[\x00-\x1f\x7f]")


class UnsupportedServerError(SqlError):
    """The server is none that this can be done with."""


@attrs.frozen(kw_only=True)
class Source:
    """Where a server replicates from, and as whom."""

    host: str
    port: int
    user: str
    password: str = attrs.field(repr=False)
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


class RejoiningServer:
    """One server, as the account that may change its replication. Nothing is dialled before it is needed."""

    def __init__(self, account: Account, timeout_s: float) -> None:
        """`account` names the schema; the server may be without it."""
        self._schema = account.schema or ""
        self._pool = Pool(attrs.evolve(account, schema=None), 1, timeout_s)

    async def close(self) -> None:
        await self._pool.close()

    # What it says

    async def read(self) -> OwnServer:
        """Raises SqlError."""
        await self._check_kind()
        (row,) = (
            await self._pool.run("SELECT @@global.read_only,@@global.gtid_binlog_pos,@@global.gtid_slave_pos")
        ).rows
        epoch, holder = await self._pair()
        # With log_slave_updates the binary log has all of it; without a binary log there is what was applied.
        position = _string(row[1]) or _string(row[2])
        status = await self._replica()
        if status is None:
            return OwnServer(writable=row[0] == 0, epoch=epoch, holder=holder, position=position)
        applying, receiving = _number(status["Last_SQL_Errno"]), _number(status["Last_IO_Errno"])
        return OwnServer(
            writable=row[0] == 0,
            epoch=epoch,
            holder=holder,
            position=position,
            source=f"{_string(status['Master_Host'])}:{_string(status['Master_Port'])}",
            running=status["Slave_IO_Running"] == "Yes" and status["Slave_SQL_Running"] == "Yes",
            error=_string(status["Last_SQL_Error"]) or _string(status["Last_IO_Error"]),
            beyond_repair=applying != 0 or receiving == NOT_IN_BINLOG,
        )

    async def read_primary(self) -> tuple[Primary, str]:
        """And its history: a GTID of each domain and server, up to which it has all. Raises SqlError."""
        own = await self.read()
        (row,) = (await self._pool.run("SELECT @@global.gtid_binlog_state,@@global.gtid_slave_pos")).rows
        primary = Primary(writable=own.writable, epoch=own.epoch, holder=own.holder, replicates=own.source != "")
        return primary, ",".join(filter(None, map(_string, row)))

    async def _check_kind(self) -> None:
        version = _string((await self._pool.run("SELECT VERSION()")).rows[0][0])
        if dialect_of(version) is not MARIADB:
            raise UnsupportedServerError(
                f"{self._pool.account.server} is {version}: rejoin knows MariaDB only; make it a replica with its own "
                "means"
            )

    async def _pair(self) -> tuple[int, str]:
        try:
            rows = (await self._pool.run(get_pair(self._schema))).rows
        except StatementError:  # it has no such schema
            return 0, ""
        return (_number(rows[0][0]), text(rows[0][1])) if rows else (0, "")

    async def _replica(self) -> Mapping[str, Value] | None:
        result = await self._pool.run(MARIADB.show_replica)
        return dict(zip(result.columns, result.rows[0], strict=True)) if result.rows else None

    # What is done

    async def make_read_only(self) -> None:
        """Raises SqlError. Commits that wait for a replica are let go on first: they would keep it waiting."""
        await self._pool.run(f"SET GLOBAL {MARIADB.semi_sync}=OFF")
        await self._pool.run("SET GLOBAL read_only=ON")

    async def stop_replica(self) -> None:
        """Raises SqlError."""
        await self._pool.run(MARIADB.stop)

    async def start_afresh_at(self, position: str) -> None:
        """Of a clone: what binary log there is belongs to the data before it. Raises SqlError."""
        await self._pool.run("RESET MASTER")
        await self._pool.run(f"SET GLOBAL gtid_slave_pos={quoted(position)}")

    async def start_at(self, position: str) -> None:
        """Of a server that has all up to there. Raises SqlError."""
        await self._pool.run(f"SET GLOBAL gtid_slave_pos={quoted(position)}")

    async def replicate_from(self, source: Source, heartbeat_s: float) -> None:
        """Point it there; the threads stay stopped. Raises SqlError."""
        await self._pool.run(change_source(source, heartbeat_s))

    async def start_replica(self) -> None:
        """Raises SqlError."""
        # One that has handed over waits for a replica still: what is applied would wait for one that it does not have.
        await self._pool.run(f"SET GLOBAL {MARIADB.semi_sync}=OFF")
        await self._pool.run(f"SET GLOBAL {MARIADB.semi_sync_replica}=ON")  # heeded as it connects
        await self._pool.run(MARIADB.start)


def change_source(source: Source, heartbeat_s: float) -> str:
    parts = [
        f"MASTER_HOST={quoted(source.host)}",
        f"MASTER_PORT={source.port}",
        f"MASTER_USER={quoted(source.user)}",
        f"MASTER_PASSWORD={quoted(source.password)}",
        "MASTER_USE_GTID=slave_pos",
        "MASTER_CONNECT_RETRY=1",
        f"MASTER_HEARTBEAT_PERIOD={heartbeat_s:g}",
        f"MASTER_SSL={int(source.tls)}",
    ]
    if source.tls:
        parts.append("MASTER_SSL_VERIFY_SERVER_CERT=1")
        files = (
            ("MASTER_SSL_CA", source.ca_file),
            ("MASTER_SSL_CERT", source.cert_file),
            ("MASTER_SSL_KEY", source.key_file),
        )
        parts.extend(f"{name}={quoted(str(path))}" for name, path in files if path is not None)
    return "CHANGE MASTER TO " + ",".join(parts)


def quoted(value: str) -> str:
    """A string literal; these statements take no hexadecimal ones. Raises ValueError for control characters."""
    if _UNSAFE_IN_TEXT.search(value):
        raise ValueError("a control character in an address, an account or a path")
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _string(value: Value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value if value is not None else "")


def _number(value: Value) -> int:
    return int(cast("str | int", value or 0))
