"""What the accounts may do at the database servers, as statements for whoever administers those."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

import attrs

from dlrproxy.store.sql.dialect import Dialect
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.schema import Finding

# On the schema. INDEX, ALTER and DROP are for `db migrate`.
ROWS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "INDEX")
REPLICATION: Final = ("REPLICATION SLAVE",)
PROVIDER: Final = ("SUPER",)  # wsrep_provider_options wants no less

_PIECE: Final = re.compile(r"\\?.")  # of a pattern: a character, or one that is escaped
_GRANT: Final = re.compile(r"GRANT (?P<rights>.+) ON (?P<where>\S+) TO .*")


class Task(StrEnum):
    """What an account is for."""

    ROWS = "reads and writes the rows"
    WATCH = "looks at the replication"
    MANAGE = "looks at the replication and changes it"
    COPY = "is the one by which the servers replicate"
    BOOTSTRAP = "makes a cluster that has lost its quorum go on"


@attrs.frozen(kw_only=True)
class Need:
    """An account, and what it is for."""

    user: str
    password: str = attrs.field(repr=False)
    tasks: tuple[Task, ...]

    def rights(self, schema: str, dialect: Dialect) -> dict[str, tuple[str, ...]]:
        """By where they are granted."""
        above = {
            Task.WATCH: dialect.to_watch,
            Task.MANAGE: dialect.to_manage,
            Task.COPY: REPLICATION,
            Task.BOOTSTRAP: PROVIDER,
        }
        needed = [right for task in self.tasks for right in above.get(task, ())]
        wanted: dict[str, tuple[str, ...]] = {}
        if set(self.tasks) != {Task.COPY}:
            wanted[f"{quoted_pattern(schema)}.*"] = ROWS
        if needed:
            wanted["*.*"] = tuple(dict.fromkeys(needed))
        return wanted


def statements(
    needs: Sequence[Need], schema: str, hosts: Sequence[str], dialect: Dialect, *, unlogged: bool
) -> Iterator[str]:
    """What makes the schema and the accounts. Each may be repeated.

    `unlogged`: each server of a pair is told by itself, so that neither has a transaction that the other lacks.
    """
    if unlogged:
        yield "SET SESSION sql_log_bin = 0;"
    yield f"CREATE DATABASE IF NOT EXISTS `{schema}`;"
    for need in needs:
        for host in hosts:
            account = account_name(need.user, host)
            yield f"-- {need.user} {' and '.join(need.tasks)}."
            known_by = f"IDENTIFIED WITH mysql_native_password AS '{native(need.password)}'"
            yield f"CREATE USER IF NOT EXISTS {account} {known_by};"
            yield from grants(need, schema, account, dialect)


def grants(need: Need, schema: str, account: str, dialect: Dialect) -> Iterator[str]:
    for where, rights in need.rights(schema, dialect).items():
        yield f"GRANT {', '.join(rights)} ON {where} TO {account};"


def account_name(user: str, host: str) -> str:
    return f"{_text(user)}@{_text(host)}"


def _text(value: str) -> str:
    doubled = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"


def quoted_pattern(schema: str) -> str:
    """As GRANT takes it: "_" alone would stand for any character."""
    escaped = schema.replace("_", r"\_")
    return f"`{escaped}`"


def native(password: str) -> str:
    """What a server keeps of a password for mysql_native_password."""
    once = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(once, usedforsecurity=False).hexdigest().upper()


async def missing(pool: Pool, need: Need, schema: str, dialect: Dialect) -> Finding | None:
    """The rights that the account of `pool` lacks. Raises SqlError."""
    shown = [str(row[0]) for row in (await pool.run("SHOW GRANTS")).rows]
    held = _held(shown, dialect)
    lacking = {
        where: [right for right in rights if not _has(held, right, where)]
        for where, rights in need.rights(schema, dialect).items()
    }
    lines = [f"GRANT {', '.join(rights)} ON {where} TO {{}};" for where, rights in lacking.items() if rights]
    if not lines:
        return None
    account = str((await pool.run("SELECT CURRENT_USER()")).rows[0][0])
    user, _, host = account.rpartition("@")
    should = " ".join(line.format(account_name(user, host)) for line in lines)
    value = "lack " + ", ".join(right for rights in lacking.values() for right in rights)
    return Finding(f"privileges of {need.user}", value, should, _RISKS[need.tasks[-1]], fatal=True)


_RISKS: Final = {
    Task.ROWS: "the node cannot store messages, or cannot bring its schema up to date",
    Task.WATCH: "the node cannot see whether it may serve, and does not",
    Task.MANAGE: "the node cannot be promoted, or cannot hand over",
    Task.COPY: "the standby gets nothing",
    Task.BOOTSTRAP: "`dlrproxy db bootstrap` cannot do what it is for",
}


def _held(shown: Sequence[str], dialect: Dialect) -> Mapping[str, set[str]]:
    """Rights by where, as SHOW GRANTS has them."""
    held: defaultdict[str, set[str]] = defaultdict(set)
    for line in shown:
        if (found := _GRANT.fullmatch(line)) is not None:
            rights = (right.strip() for right in found["rights"].split(","))
            held[found["where"]].update(dialect.old_names.get(right, right) for right in rights)
    return held


def _has(held: Mapping[str, set[str]], right: str, where: str) -> bool:
    return any({right, "ALL PRIVILEGES"} & rights for pattern, rights in held.items() if _covers(pattern, where))


def _covers(pattern: str, where: str) -> bool:
    """Whether what is granted on `pattern`, "`dlr%`.*", holds on `where`. A pattern has SQL's wildcards."""
    if pattern in {"*.*", where}:
        return True
    name, dot, tables = pattern.replace("`", "").partition(".")
    if where == "*.*" or dot + tables != ".*":
        return False
    return re.fullmatch("".join(map(_as_expression, _PIECE.findall(name))), _plain(where)) is not None


def _plain(where: str) -> str:
    return where.removesuffix(".*").strip("`").replace(r"\_", "_")


def _as_expression(piece: str) -> str:
    return {"%": ".*", "_": "."}.get(piece) or re.escape(piece.removeprefix("\\"))
