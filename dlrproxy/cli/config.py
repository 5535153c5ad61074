"""`dlrproxy check-config` and `dlrproxy sample-config`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from dlrproxy.config import Address, Config, ConfigError, Operator, Problem, load
from dlrproxy.config.database import Quorum
from dlrproxy.config.sample import sample
from dlrproxy.modes.survival import losses_of


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check_config(config: Path, *, as_json: bool) -> None:
    """Say everything that is wrong with CONFIG, each with the path of its key.

    Secrets and certificates are read and directories looked at, so run it on the machine, and best as the user, that
    the file is for. Exit code 1 when there is a problem; warnings do not count.
    """
    try:
        found = load(config)
    except ConfigError as error:
        _say_problems(error, as_json=as_json)
        raise SystemExit(1) from None
    if as_json:
        click.echo(json.dumps({"ok": True, "problems": [], "warnings": _listed(found.warnings), **_facts(found)}))
        return
    for warning in found.warnings:
        click.echo(f"{config}: warning: {warning}", err=True)
    click.echo(f"{config}: OK")
    for line in _summary(found):
        click.echo(line)


@click.command()
def sample_config() -> None:
    """Print a configuration with every key, its meaning and its default; it passes check-config as it is."""
    click.echo(sample(), nl=False)


def _say_problems(error: ConfigError, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"ok": False, "problems": _listed(error.problems), "warnings": []}))
        return
    click.echo(str(error), err=True)
    count = len(error.problems)
    click.echo(f"{count} problem{'s' if count > 1 else ''}", err=True)


def _listed(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"path": problem.path, "text": problem.text} for problem in problems]


def _facts(config: Config) -> dict[str, object]:
    return {
        "node": config.node.name,
        "mode": config.node.mode,
        "peers": list(config.node_names),
        **_database_facts(config),
        "operators": [
            {
                "name": operator.name,
                "system_id": operator.system_id,
                "addresses": [str(where) for where in operator.addresses],
                "bind_type": operator.bind_type,
                "binds": operator.binds,
                "max_per_s": operator.pace_per_s(config.serving_nodes),
                "listen": {gateway: str(where) for gateway, where in operator.listen.items()},
            }
            for operator in config.operators
        ],
    }


def _database_facts(config: Config) -> dict[str, object]:
    """Of the modes that have one."""
    database = config.database
    if database is None or config.node.mode == "ring":
        return {}
    where = str(database.socket or Address(database.host, database.port))
    return {"database": {"server": where, "schema": database.schema, "user": database.user}}


def _summary(config: Config) -> Iterator[str]:
    names = config.node_names
    nodes = f"with {', '.join(name for name in names if name != config.node.name)}" if len(names) > 1 else "alone"
    yield f"  node {config.node.name}, mode {config.node.mode}, {nodes}; data in {config.node.data_dir}"
    yield from _database(config)
    yield from _losses(config)
    for operator in config.operators:
        yield f"  operator {operator.name}: {_binds(operator)}{_pace(operator, config.serving_nodes)}"
        for gateway, where in operator.listen.items():
            yield f"    gateway {gateway} dials {where}"


def _losses(config: Config) -> Iterator[str]:
    """What the cluster of a quorum survives, by the weights that are configured."""
    if config.node.mode != "quorum":
        return
    for loss in losses_of(config.node_names, config.quorum or Quorum()):
        what = "survives" if loss.survived else "does NOT survive"
        yield f"  {what} the loss of {loss.of}"


def _database(config: Config) -> Iterator[str]:
    """Of the modes that have one."""
    database, pair = config.database, config.pair
    if database is None or config.node.mode == "ring":
        return
    where = database.socket or Address(database.host, database.port)
    admin = f"; {database.admin_user} for the replication" if database.admin_user is not None else ""
    yield f"  database server at {where}, schema {database.schema}, as {database.user}{admin}"
    if pair is not None and config.node.mode == "active-passive":
        other = pair.peer_socket or Address(pair.peer_host or "", pair.peer_port)
        who = "this node changes it" if pair.manage_database else "another tool changes it, and this node follows"
        yield f"    replicates with the one at {other}; {pair.safety}; {who}"


def _pace(operator: Operator, nodes: int) -> str:
    per_s = operator.pace_per_s(nodes)
    if per_s is None:
        return ""
    share = operator.account_max_per_s is not None and per_s == operator.account_max_per_s / nodes and nodes > 1
    of = f", this node's share of {operator.account_max_per_s:g} over {nodes}" if share else ""
    return f"; at most {per_s:.4g} MT a second{of}"


def _binds(operator: Operator) -> str:
    binds = f"{operator.binds} {operator.bind_type} bind{'s' if operator.binds > 1 else ''}"
    return f"{binds} as {operator.system_id} to {', '.join(map(str, operator.addresses))}"
