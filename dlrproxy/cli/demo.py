"""`dlrproxy demo`."""

import json
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console

from dlrproxy.demo import display
from dlrproxy.demo.node_process import NodeFailedError
from dlrproxy.demo.plan import MOST_MESSAGES, MOST_NODES, Plan
from dlrproxy.demo.stage import Stage
from dlrproxy.demo.summary import Summary
from dlrproxy.failures import leaves

_FAILED = 1  # something was lost, or went to a wrong gateway
_BROKEN = 2  # the demo itself could not be played
_INTERRUPTED = 130  # as a shell reports an interrupted command

# A node refuses MT below min_free_mb, 256 by default; and logs and ledgers take room as well.
_WANTED_FREE_MB = 512


@click.command(epilog="Exit status 1 if a report was lost or reached a wrong gateway; 2 if a node failed.")
@click.option(
    "--nodes", default=3, show_default=True, type=click.IntRange(2, MOST_NODES), help="How many: gw1, gw2, ..."
)
@click.option(
    "--messages", default=3000, show_default=True, type=click.IntRange(1, MOST_MESSAGES), help="Over all gateways."
)
@click.option(
    "--misroute",
    default=0.7,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the reports that the operator sends to a wrong node.",
)
@click.option("--seed", default=1, show_default=True, type=int, help="For what the operator and the gateways draw.")
@click.option(
    "--kill", metavar="NODE", default=None, help="Kill -9 this node half way, and restart it 2 seconds later."
)
@click.option(
    "--config-dir",
    default=None,
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the TOML files, logs and ledgers here: a new or an empty directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def demo(config_dir: Path | None, *, as_json: bool, **given: Any) -> None:
    """Run a ring on this machine: real nodes, and a simulated operator that sends reports to the wrong ones.

    Every node is a process of its own, with a gateway of its own. What the simulators wrote into their ledgers decides
    in the end whether every report reached the gateway that had sent the message.

    \b
    Five nodes, nearly every report astray, and a node that dies half way:
      dlrproxy demo --nodes 5 --misroute 0.9 --kill gw3
    Files to start from:
      dlrproxy demo --config-dir demo
    """
    try:
        plan = Plan(**given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    directory = _directory(config_dir)
    console = Console(stderr=as_json, highlight=False)
    console.print(display.headline(plan), style="bold", soft_wrap=True)
    stage = Stage(plan, directory, partial(console.print, soft_wrap=True))
    summary = _play(stage, console, directory)
    if summary is None:
        _tidy(directory, kept=config_dir is not None)
        console.print("Interrupted; all nodes are stopped.")
        sys.exit(_INTERRUPTED)
    if as_json:
        click.echo(json.dumps(summary.as_dict()))
    else:
        display.show(console, summary, stage.routes.examples())
    if not summary.passed:
        console.print(f"Configuration, data, logs and ledgers are in {directory}", soft_wrap=True)
        sys.exit(_FAILED)
    if config_dir is not None:
        console.print(f"Configuration, logs and ledgers are in {directory}", soft_wrap=True)
    _tidy(directory, kept=config_dir is not None)


def _directory(wanted: Path | None) -> Path:
    """An empty directory to play in."""
    try:
        if wanted is not None:
            wanted.mkdir(parents=True, exist_ok=True)
            if any(wanted.iterdir()):
                raise click.UsageError(f"--config-dir: {wanted} is not empty")
        parent = wanted or Path(tempfile.gettempdir())
        free = shutil.disk_usage(parent).free >> 20
        if free < _WANTED_FREE_MB:
            raise click.UsageError(f"{parent} has {free} MB of free space, and {_WANTED_FREE_MB} MB are wanted")
        return wanted.resolve() if wanted is not None else Path(tempfile.mkdtemp(prefix="dlrproxy-demo-"))
    except OSError as error:
        raise click.UsageError(str(error)) from error


def _play(stage: Stage, console: Console, directory: Path) -> Summary | None:
    """None when a signal ended it. Exits where it cannot be played; everything then stays for a look at it."""
    summary: Summary | None = None
    failures: list[str] = []
    try:
        summary = trio.run(_until_signal, stage, console, strict_exception_groups=True)
    except* (NodeFailedError, OSError) as group:
        failures = [str(error) for error in leaves(group)]
    if failures:
        click.echo("\n".join(f"Error: {failure}" for failure in failures), err=True)
        click.echo(f"Configuration, data and logs are in {directory}", err=True)
        sys.exit(_BROKEN)
    return summary


async def _until_signal(stage: Stage, console: Console) -> Summary | None:
    """None when a signal came first. Either way no node is left running."""
    summary: Summary | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_cancel_on_signal, nursery.cancel_scope)
        nursery.start_soon(display.follow, stage.view, console)
        summary = await stage.run()
        nursery.cancel_scope.cancel()
    return summary


async def _cancel_on_signal(scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


def _tidy(directory: Path, *, kept: bool) -> None:
    """Remove what is not wanted any more: the nodes' data, or all there is."""
    shutil.rmtree(directory / "data" if kept else directory)
