"""`dlrproxy db`: the accounts, the schema and the settings of this node's database server."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import trio
from rich.text import Text

from dlrproxy.cli.showing import BAD, DOUBTFUL, GOOD, console, table
from dlrproxy.config import Config, load
from dlrproxy.modes import bootstrap as recovery
from dlrproxy.modes import database, database_check
from dlrproxy.modes import forget as forgetting
from dlrproxy.store.port import StoreError
from dlrproxy.store.sql import rights
from dlrproxy.store.sql.dialect import MARIADB, MYSQL
from dlrproxy.store.sql.errors import RefusedError
from dlrproxy.store.sql.schema import Finding

T = TypeVar("T")
_NOT_SOUND: Final = 1
_CONFIG: Final = click.argument("config", type=click.Path(path_type=Path))
_DIALECTS: Final = {"mariadb": MARIADB, "mysql": MYSQL}


@click.group()
def db() -> None:
    """The database server of the modes active-passive and quorum: its accounts, its schema, its settings."""


@db.command()
@_CONFIG
@click.option(
    "--from", "hosts", multiple=True, metavar="HOST", help="Where the accounts may come from; again for more.  [any]"
)
@click.option("--server", type=click.Choice(list(_DIALECTS)), default="mariadb", show_default=True)
def grants(config: Path, hosts: tuple[str, ...], server: str) -> None:
    """Print the SQL that makes the schema and the accounts which CONFIG names, for the server's administrator.

    It does nothing by itself. Pipe it into the server's own client, as root: of a pair at each of the two servers, of a
    cluster at any one. The passwords are in it as the servers keep them, hashed.
    """
    found = _loaded(config)
    for need in database.needs(found):
        if not need.password:
            raise click.ClickException(f"the account {need.user} has no password, and would let everybody in")
    pair = found.node.mode == "active-passive"
    schema = database.database_of(found).schema
    for line in rights.statements(database.needs(found), schema, hosts or ("%",), _DIALECTS[server], unlogged=pair):
        click.echo(line)


@db.command()
@_CONFIG
def init(config: Path) -> None:
    """Make the schema, or what is missing of it; of a pair at the node that is to serve first. It may be repeated."""
    found = _loaded(config)
    made = _run(database.make, found, config)
    where = f"the schema {made.schema} at {made.server}"
    if made.replicated:
        click.echo(f"{where} is there, of version {made.version}: the server is read-only, and got it by replication")
        return
    click.echo(f"{where} {'is made' if made.new else 'was there already'}, of version {made.version}")
    click.echo(f"store id {made.store_id.hex()}")
    if made.new and found.node.mode == "active-passive":
        click.echo(f"{found.node.name} serves first")


@db.command()
@_CONFIG
def migrate(config: Path) -> None:
    """Bring the schema of an older release up to date, once, before the first node is upgraded.

    Nodes of the release before go on serving meanwhile, and with the new schema (docs/upgrading.md).
    """
    gone_through = _run(database.migrate, _loaded(config), config)
    click.echo("\n".join(f"the schema is now of version {number}" for number in gone_through) or "it is up to date")


@db.command()
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(config: Path, *, as_json: bool) -> None:
    """Say which settings and rights at this node's server are not what they should be, and what that risks.

    Exit code 1 when messages could be lost or the node could not work; what is merely unwise does not count. Run it at
    every node: each looks at its own server, and of a pair whether it gets in at the other one.
    """
    found = _run(database_check.look, _loaded(config), config)
    if as_json:
        click.echo(json.dumps(_as_json(found)))
    else:
        _show(found)
    if not found.sound:
        raise SystemExit(_NOT_SOUND)


@db.command()
@_CONFIG
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--wait", "wait_s", default=60.0, show_default=True, type=click.FloatRange(0, min_open=True), help="How long, in s."
)
def bootstrap(config: Path, wait_s: float, *, yes: bool) -> None:
    """In quorum mode, when the servers with the most weight are lost: go on with this node's, and those it still sees.

    Run it at one node of those that are left, once. Be sure that no server anywhere else still goes on: two quorums
    can never be put together again. It needs database.admin_user.
    """
    found = _loaded(config)
    _need_quorum(found)
    seen = _run(recovery.look, found, config)
    if seen.primary:
        raise click.ClickException(f"the server has a quorum, with {seen.size} servers: there is nothing to do")
    if not yes:
        click.confirm(
            f"This node's server sees {seen.size} of the cluster's, itself included, and no quorum. Is every other one "
            "dead, or certain not to go on by itself",
            abort=True,
        )
    made = _run(partial(recovery.bootstrap, wait_s=wait_s), found, config)
    click.echo(f"the cluster goes on, with {made.size} servers of weight {made.weight}; the nodes serve within seconds")
    click.echo("servers that come back join it, and take its state over theirs")


@db.command()
@_CONFIG
@click.argument("node")
def forget(config: Path, node: str) -> None:
    """In quorum mode, when NODE was taken out of every configuration for good: remove its rows from the database.

    Refused while it lives, while another node has it among its [[peers]], or while something of its custody is left.
    """
    found = _loaded(config)
    _need_quorum(found)
    _run(partial(forgetting.forget, node=node), found, config)
    click.echo(f"{node} is forgotten")


def _need_quorum(found: Config) -> None:
    """Raises click's errors."""
    if found.node.mode != "quorum":
        raise click.ClickException(f'mode = "{found.node.mode}" has no quorum')


def _loaded(config: Path) -> Config:
    """Raises ConfigError, and click's errors."""
    found = load(config)
    try:
        database.database_of(found)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    return found


def _run(what: Callable[[Config], Awaitable[T]], found: Config, file: Path) -> T:
    try:
        return trio.run(what, found)
    except RefusedError as error:
        hint = f"What the accounts need is printed by: dlrproxy db grants {file}"
        raise click.ClickException(f"{error}\n{hint}") from error
    except StoreError as error:
        raise click.ClickException(str(error)) from error


def _as_json(found: database_check.Report) -> dict[str, Any]:
    return {
        "ok": found.sound,
        "server": found.server,
        "version": found.version,
        "findings": [
            {
                "setting": finding.setting,
                "value": finding.value,
                "should": finding.should,
                "risk": finding.risk,
                "fatal": finding.fatal,
            }
            for finding in found.findings
        ],
    }


def _show(found: database_check.Report) -> None:
    screen = console()
    screen.print(f"{found.server}, {found.version}")
    if not found.findings:
        screen.print(Text("everything is as it should be", GOOD))
        return
    shown = table("", "setting", "is", "should be", "else")
    for finding in sorted(found.findings, key=lambda finding: not finding.fatal):
        shown.add_row(_weight(finding), finding.setting, finding.value, finding.should, finding.risk)
    screen.print(shown)


def _weight(finding: Finding) -> Text:
    return Text("wrong", BAD) if finding.fatal else Text("unwise", DOUBTFUL)
