"""The schema in the database server: made, brought up to date, and looked at before it is used.

`version` is the number of the newest migration that has been applied. A newer program brings an older schema up to
date (`migrate`), and serves from none that is older than itself. An older program serves from a newer schema if that
says so: `compatible_from` is the version of the oldest programs that can work with it. So a schema is migrated first,
and then one node after another is upgraded (docs/upgrading.md).
"""

import secrets
from collections.abc import Sequence
from importlib.resources import files
from typing import Final, cast

import attrs

from dlrproxy.modes.pair import Alone
from dlrproxy.release import RELEASE
from dlrproxy.store.directory import STORE_ID_KEY, STORE_ID_SIZE
from dlrproxy.store.port import StoreError, Table
from dlrproxy.store.sql.errors import StatementError
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import get_item, insert_item, literal


@attrs.frozen
class Migration:
    """What takes a schema from one version to the next, while nodes of the release before serve from it."""

    statements: tuple[str, ...]  # each may be repeated
    compatible_from: int = 1  # the version of the oldest programs that can work with the schema from then on


# MIGRATIONS[n] takes a schema from version n + 1 to n + 2. schema.sql is what a new one is made of, at VERSION.
MIGRATIONS: Final[tuple[Migration, ...]] = ()
VERSION: Final = 1 + len(MIGRATIONS)

# A statement carries at most what waits for a commit, twice as long in hexadecimal.
MIN_MAX_ALLOWED_PACKET: Final = 16 * 1024 * 1024


class SchemaError(StoreError):
    """The schema is missing, or of a version that does not fit; the text says what to run."""


@attrs.frozen
class Stage:
    """How far a schema has been brought."""

    version: int
    compatible_from: int

    def misfit(self, server: str) -> str:
        """Why this program cannot work with it, and what to do, for people; empty: it can."""
        if self.version < VERSION:
            return (
                f"the schema at {server} is of version {self.version}, and dlrproxy {RELEASE} needs {VERSION}; run "
                "`dlrproxy db migrate` of this release, at one node"
            )
        if self.compatible_from > VERSION:
            return (
                f"the schema at {server} is of version {self.version}, made by a newer dlrproxy, and can be used from "
                f"version {self.compatible_from} on; dlrproxy {RELEASE} knows {VERSION} and leaves it alone: upgrade "
                "this node"
            )
        return ""


@attrs.frozen
class Finding:
    """A server setting that is not what it should be."""

    setting: str
    value: str
    should: str
    risk: str
    fatal: bool  # messages can be lost, or cannot be stored


def creation() -> list[str]:
    """The statements of schema.sql."""
    text = (files("dlrproxy.store.sql") / "schema.sql").read_text()
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return [statement.strip() for statement in bare.split(";") if statement.strip()]


async def exists(pool: Pool, name: str) -> bool:
    """Whether the server has a schema of that name, as far as the account may know. Raises SqlError."""
    result = await pool.run(f"SELECT 1 FROM information_schema.schemata WHERE schema_name={literal(name)}")
    return bool(result.rows)


async def init(pool: Pool, holder: str | None = None) -> bytes:
    """Make what is missing; returns the store id. Harmless where everything is there. Raises SqlError, SchemaError.

    `holder` is the node of a pair that serves first.
    """
    for statement in creation():
        await pool.run(statement)
    made = f"1,{VERSION},{compatible_from(VERSION)}"
    await pool.run(f"INSERT IGNORE INTO schema_version (id,version,compatible_from) VALUES ({made})")
    await migrate(pool)
    fresh = secrets.token_bytes(STORE_ID_SIZE)
    # Two nodes may do this at once: the first row stays.
    await pool.run(insert_item(Table.META, STORE_ID_KEY, fresh))
    if holder is not None:
        await pool.run(
            f"INSERT IGNORE INTO pair (id,epoch,holder,beat,alone) VALUES (1,1,{literal(holder)},0,{literal(Alone.NO)})"
        )
    return await store_id(pool)


async def migrate(pool: Pool) -> Sequence[int]:
    """Bring an older schema to VERSION, step by step; returns the versions gone through. A newer one stays as it is.

    Raises SqlError, SchemaError.
    """
    found = await stage(pool)
    if found.version > VERSION and (misfit := found.misfit(pool.account.server)):
        raise SchemaError(misfit)
    for number in range(found.version, VERSION):
        for statement in MIGRATIONS[number - 1].statements:
            await pool.run(statement)
        await pool.run(
            f"UPDATE schema_version SET version={number + 1},compatible_from={compatible_from(number + 1)} "
            f"WHERE id=1 AND version={number}"
        )
    return range(found.version + 1, VERSION + 1)


def compatible_from(number: int) -> int:
    """Of a schema of that version, which is VERSION at most."""
    return MIGRATIONS[number - 2].compatible_from if number > 1 else 1


async def stage(pool: Pool) -> Stage:
    """Raises SqlError, SchemaError."""
    try:
        result = await pool.run("SELECT version,compatible_from FROM schema_version WHERE id=1")
    except StatementError as error:
        raise SchemaError(f"{error}. Is the schema {pool.account.schema!r} made?") from error
    if not result.rows:
        raise SchemaError(f"{pool.account.server} has an empty schema_version; run `dlrproxy db init`")
    number, oldest = result.rows[0]
    return Stage(cast("int", number), cast("int", oldest))


async def ready(pool: Pool) -> bytes:
    """The store id of a schema that fits this program. Raises SqlError, SchemaError."""
    if misfit := (await stage(pool)).misfit(pool.account.server):
        raise SchemaError(misfit)
    return await store_id(pool)


async def store_id(pool: Pool) -> bytes:
    """Raises SqlError, SchemaError."""
    result = await pool.run(get_item(Table.META, STORE_ID_KEY))
    if not result.rows:
        raise SchemaError(f"{pool.account.server} has a schema without a store id; run `dlrproxy db init`")
    return cast("bytes", result.rows[0][0])


async def check(pool: Pool) -> list[Finding]:
    """What the server's settings put at risk. Raises SqlError."""
    result = await pool.run("SHOW GLOBAL VARIABLES")
    found = {str(name).lower(): str(value) for name, value in result.rows}
    return [finding for rule in _RULES if (finding := rule(found)) is not None]


def _flush(found: dict[str, str]) -> Finding | None:
    value = found.get("innodb_flush_log_at_trx_commit", "")
    if value == "1":
        return None
    return Finding(
        "innodb_flush_log_at_trx_commit", value, "1", "a crash of the server loses what was acknowledged", fatal=True
    )


def _sync_binlog(found: dict[str, str]) -> Finding | None:
    value = found.get("sync_binlog", "")
    if found.get("log_bin") != "ON" or value == "1":
        return None
    return Finding(
        "sync_binlog", value, "1", "a crash of the machine loses events that a replica waits for", fatal=True
    )


def _packet(found: dict[str, str]) -> Finding | None:
    value = found.get("max_allowed_packet", "0")
    if int(value) >= MIN_MAX_ALLOWED_PACKET:
        return None
    return Finding(
        "max_allowed_packet",
        value,
        f"at least {MIN_MAX_ALLOWED_PACKET}",
        "a burst of long messages cannot be stored, and is refused until it is smaller",
        fatal=True,
    )


def _engine(found: dict[str, str]) -> Finding | None:
    value = found.get("innodb_strict_mode", "ON")
    if value == "ON":
        return None
    return Finding(
        "innodb_strict_mode", value, "ON", "a table that is not as declared is made without an error", fatal=False
    )


_RULES: Final = (_flush, _sync_binlog, _packet, _engine)
