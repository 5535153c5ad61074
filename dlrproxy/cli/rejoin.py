"""`dlrproxy rejoin`: the database server of a node that was the primary becomes the replica of the other one's."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import click
import trio

from dlrproxy.config import Config, Database, Pair, accounts, load
from dlrproxy.modes.clone import CloneSite
from dlrproxy.modes.pair import Role
from dlrproxy.modes.rejoin import Done, Refused, Step, Wishes
from dlrproxy.modes.rejoin_driver import RejoinError, Rejoining, Servers
from dlrproxy.store.sql.merging import Merger
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.rejoin import RejoiningServer, Source

STATE_FILE: Final = "state"  # "ROLE EPOCH", touched with every heartbeat while the node runs
_STALE_AFTER: Final = 10  # heartbeats
_CHANGE_S: Final = 60.0  # RESET MASTER removes files; STOP SLAVE waits for what it applies
_SCAN_S: Final = 600.0  # all open messages may be read for a few that are new


@click.command()
@click.argument("config_file", type=click.Path(path_type=Path))
@click.option("--clone", is_flag=True, help="Clone the primary even where that is not needed.")
@click.option("--lost", is_flag=True, help="The old data cannot be read: clone, and give up what only it had.")
@click.option("--yes", is_flag=True, help="Do not ask before the old data is replaced by a clone.")
@click.option("--plan", is_flag=True, help="Say what would be done next, and do nothing.")
def rejoin(config_file: Path, *, clone: bool, lost: bool, yes: bool, plan: bool) -> None:
    """Make this node's database server a replica of the other node's, which was promoted meanwhile.

    Run it at the machine that was the primary, with its database server started, as a user that may read CONFIG_FILE
    and write to data_dir. The node itself may run or not. Where the server has nothing that the new primary has not, it
    replicates from there at once. Where it has, those rows are written to data_dir/rejoin-TIME.jsonl and to the new
    primary, and its data is replaced by a fresh clone; that takes pair.clone_command, stop_command, start_command and
    server_data_dir, and the rights to run them. The old data stays beside it, under another name.

    Each step may be interrupted, and the command run again. Exit code 1 when it could not be done; it says why.
    """
    config = load(config_file)
    if config.node.mode != "active-passive" or config.database is None or config.pair is None:
        raise click.ClickException(f'{config_file} is of mode "{config.node.mode}"; only a node of a pair rejoins')
    wishes = Wishes(manage=config.pair.manage_database, clone=clone or lost, lost=lost)
    try:
        trio.run(partial(_rejoin, config, config.database, config.pair, wishes, yes=yes, plan=plan))
    except RejoinError as error:
        raise click.ClickException(str(error)) from error


async def _rejoin(config: Config, database: Database, pair: Pair, wishes: Wishes, *, yes: bool, plan: bool) -> None:
    """Raises RejoinError."""
    servers = _servers(config, database)
    try:
        rejoining = _rejoining(config, database, pair, servers, wishes, yes=yes)
        if plan:
            click.echo(_said(await rejoining.plan()))
            return
        await rejoining.run()
    finally:
        with trio.CancelScope(shield=True):  # bounded: a second for each connection
            await servers.close()
    click.echo(f"this node's database server replicates from {_peer(config)}'s")


def _servers(config: Config, database: Database) -> Servers:
    limit = database.statement_timeout_s
    return Servers(
        own=RejoiningServer(accounts.admin(config), max(limit, _CHANGE_S)),
        primary=RejoiningServer(accounts.peer_admin(config), limit),
        own_rows=Pool(accounts.ordinary(config), 1, max(limit, _SCAN_S)),
        primary_rows=Pool(accounts.peer_ordinary(config), 1, limit),
    )


def _rejoining(
    config: Config, database: Database, pair: Pair, servers: Servers, wishes: Wishes, *, yes: bool
) -> Rejoining:
    """Raises RejoinError."""
    missing = list(_missing(("replication_user", "peer_host"), pair))
    if missing and wishes.manage:
        raise RejoinError(f"not set: {', '.join(missing)}")
    data_dir = config.node.data_dir
    return Rejoining(
        servers,
        me=config.node.name,
        peer=_peer(config),
        source=_source(database, pair),
        site=_site(pair),
        missing=tuple(_missing(("clone_command", "stop_command", "start_command", "server_data_dir"), pair)),
        role=partial(running_role, data_dir, pair.heartbeat_s),
        merger=Merger(data_dir),
        wishes=wishes,
        heartbeat_s=pair.heartbeat_s,
        may_replace=(lambda: True) if yes else _ask_to_replace,
        say=click.echo,
    )


def _missing(names: tuple[str, ...], pair: Pair) -> Iterator[str]:
    return (f"pair.{name}" for name in names if not getattr(pair, name))


def _peer(config: Config) -> str:
    return next(peer.name for peer in config.peers if peer.name != config.node.name)


def _source(database: Database, pair: Pair) -> Source:
    return Source(
        host=pair.peer_host or "",
        port=pair.peer_port,
        user=pair.replication_user or "",
        password=pair.replication_password.reveal().decode(),
        tls=database.tls,
        ca_file=database.ca_file,
        cert_file=database.cert_file,
        key_file=database.key_file,
    )


def _site(pair: Pair) -> CloneSite | None:
    if pair.server_data_dir is None:
        return None
    return CloneSite(
        pair.server_data_dir,
        clone_command=pair.clone_command,
        stop_command=pair.stop_command,
        start_command=pair.start_command,
    )


def running_role(data_dir: Path, heartbeat_s: float) -> Role | None:
    """Of the node that runs with this data_dir, by its state file; None: none runs."""
    path = data_dir / STATE_FILE
    try:
        age_s = time.time() - path.stat().st_mtime
        word = path.read_text().split()[0]
    except (OSError, IndexError):
        return None
    if age_s > _STALE_AFTER * heartbeat_s:
        return None
    return next((role for role in Role if role == word), None)


def _ask_to_replace() -> bool:
    return click.confirm("Replace the data of this node's database server by a clone of the other's?")


def _said(step: Step | Refused | Done) -> str:
    match step:
        case Done():
            return "nothing is to be done: it is a replica of the other node's database server"
        case Refused(why):
            return f"it cannot go on: {why}"
        case _:
            return f"next: {' '.join((step.__doc__ or '').split())}"
