"""The accounts and the schema that the modes with a database server need there, and how the schema comes about."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs

from dlrproxy.config import Config, accounts
from dlrproxy.config.database import Database
from dlrproxy.store.sql import rights, schema
from dlrproxy.store.sql.connection import Account
from dlrproxy.store.sql.dialect import dialect_of
from dlrproxy.store.sql.errors import ReadOnlyError, RefusedError, SqlError, StatementError
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.rights import Need, Task
from dlrproxy.store.sql.schema import Finding, SchemaError
from dlrproxy.store.sql.statements import text

PAIR: Final = "active-passive"


@attrs.frozen(kw_only=True)
class Made:
    """What `make` has done."""

    server: str
    schema: str
    version: int
    store_id: bytes
    new: bool  # False: everything was there
    replicated: bool = False  # it is read-only, and got the schema from the other node's server


class ElsewhereError(SqlError):
    """The schema of a pair is made and changed at the server that takes the writes, which is the other node's."""


class UnfitServerError(SqlError):
    """What would be made at this server could not be used."""


def database_of(config: Config) -> Database:
    """Raises ValueError where the mode uses none."""
    if config.node.mode == "ring" or config.database is None:
        raise ValueError('mode = "ring" keeps everything in data_dir, and uses no database server')
    return config.database


def needs(config: Config) -> tuple[Need, ...]:
    """The accounts that the configuration names, and what each is for."""
    database, pair = database_of(config), config.pair
    password = database.password.reveal().decode()
    if config.node.mode != PAIR or pair is None:
        rows = Need(user=database.user, password=password, tasks=(Task.ROWS,))
        if database.admin_user is None:
            return (rows,)
        secret = database.admin_password.reveal().decode()
        return rows, Need(user=database.admin_user, password=secret, tasks=(Task.ROWS, Task.BOOTSTRAP))
    changes = Task.MANAGE if pair.manage_database else Task.WATCH
    if database.admin_user is None:
        found = [Need(user=database.user, password=password, tasks=(Task.ROWS, changes))]
    else:
        found = [
            Need(user=database.user, password=password, tasks=(Task.ROWS,)),
            Need(
                user=database.admin_user, password=database.admin_password.reveal().decode(), tasks=(Task.ROWS, changes)
            ),
        ]
    if pair.replication_user is not None:
        copy = pair.replication_password.reveal().decode()
        found.append(Need(user=pair.replication_user, password=copy, tasks=(Task.COPY,)))
    return tuple(found)


@asynccontextmanager
async def connected(config: Config, account: Account, *, to_schema: bool = True) -> AsyncIterator[Pool]:
    """Without `to_schema`: as far as the server, which may have no schema yet."""
    account = account if to_schema else attrs.evolve(account, schema=None)
    pool = Pool(account, 1, database_of(config).statement_timeout_s)
    try:
        yield pool
    finally:
        await pool.close()


# Making the schema


async def make(config: Config) -> Made:
    """Make what is missing of the schema at this node's server.

    Raises SqlError, SchemaError, ElsewhereError, UnfitServerError, and RefusedError with the GRANT that is missing.
    """
    try:
        return await _make(config)
    except RefusedError as error:
        lacking = await lacking_rights(config)
        if lacking is None:
            raise
        raise RefusedError(f"{error}\n{lacking.setting}: {lacking.value}; {lacking.should}") from error


async def lacking_rights(config: Config) -> Finding | None:
    """What the ordinary account would need. Raises SqlError when it cannot get in."""
    async with connected(config, accounts.ordinary(config), to_schema=False) as pool:
        version = str((await pool.run("SELECT VERSION()")).rows[0][0])
        return await rights.missing(pool, needs(config)[0], database_of(config).schema, dialect_of(version))


async def _make(config: Config) -> Made:
    account = accounts.ordinary(config)
    async with connected(config, account, to_schema=False) as pool:
        if (await pool.run("SELECT @@global.read_only")).rows[0][0]:
            return await _replicated(config)
        if config.node.mode == PAIR and not (await pool.run("SELECT @@global.log_bin")).rows[0][0]:
            raise UnfitServerError(
                f"{account.server} writes no binary log: the schema would never reach the other server; `dlrproxy db "
                "check` says which settings are wrong"
            )
        name = database_of(config).schema
        if not await schema.exists(pool, name):
            await _refuse_a_second(config)
            await pool.run(f"CREATE DATABASE IF NOT EXISTS `{name}`")
    async with connected(config, account) as pool:
        known = await _known_version(pool)
        if known is None:
            await _refuse_a_second(config)
        store_id = await schema.init(pool, config.node.name if config.node.mode == PAIR else None)
        return _made(config, store_id, new=known is None)


async def _replicated(config: Config) -> Made:
    async with connected(config, accounts.ordinary(config)) as pool:
        if await _known_version(pool) is None:
            raise ElsewhereError(
                f"{pool.account.server} is read-only: the schema is made at the primary, and comes here by replication"
            )
        return _made(config, await schema.ready(pool), new=False, replicated=True)


def _made(config: Config, store_id: bytes, *, new: bool, replicated: bool = False) -> Made:
    return Made(
        server=accounts.ordinary(config).server,
        schema=database_of(config).schema,
        version=schema.VERSION,
        store_id=store_id,
        new=new,
        replicated=replicated,
    )


async def _known_version(pool: Pool) -> int | None:
    """None where there is no schema."""
    try:
        return (await schema.stage(pool)).version
    except (SchemaError, StatementError):
        return None


async def _refuse_a_second(config: Config) -> None:
    """Two servers of a pair that each had a schema of its own could never replicate from one another."""
    if config.node.mode != PAIR:
        return
    async with connected(config, accounts.peer_ordinary(config)) as pool:
        try:
            result = await pool.run("SELECT holder FROM pair WHERE id=1")
        except SqlError:
            return  # it is not there, or has no schema
    if result.rows:
        raise ElsewhereError(
            f"{pool.account.server}, the other node's, has the schema already, held by "
            f"{text(result.rows[0][0] or b'')}: it comes here by replication, when this server is made its replica"
        )


async def migrate(config: Config) -> range:
    """Bring the schema up to date; the versions gone through. Raises SqlError, SchemaError, ElsewhereError."""
    async with connected(config, accounts.ordinary(config)) as pool:
        try:
            gone_through = await schema.migrate(pool)
        except ReadOnlyError as error:
            raise ElsewhereError(
                f"{pool.account.server} is read-only: the schema is migrated at the primary, and that comes here by "
                "replication"
            ) from error
    return range(gone_through[0], gone_through[-1] + 1) if gone_through else range(0)
