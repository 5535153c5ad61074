"""`python -m chaos`: one run. Exit status 1 if anything is found that must not be, 2 if the stage did not come up."""

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Final

import click
import trio
from rich.console import Console

from chaos import display
from chaos.interruption import uninterrupted
from chaos.judgement import Judgement
from chaos.plan import FEWEST_NODES, MOST_NODES, Plan
from chaos.scenario import NoStartError, play
from dlrproxy.failures import leaves

_FOUND: Final = 1
_BROKEN: Final = 2
_INTERRUPTED: Final = 130  # as a shell reports an interrupted command
_WIDTH: Final = 132
_SEEDS: Final = 1_000_000


@click.command()
@click.option(
    "--minutes", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True), help="How long faults come."
)
@click.option("--seed", type=int, help="Of the schedule and of what the simulators draw.  [default: any]")
@click.option("--nodes", default=5, show_default=True, type=click.IntRange(FEWEST_NODES, MOST_NODES), help="How many.")
@click.option(
    "--rate",
    default=100.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Messages a second over all gateways; a fifth of them have two reports.",
)
@click.option(
    "--every",
    "every_s",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="A fault begins every so many seconds, on average.",
)
@click.option("--mounts/--no-mounts", default=True, help="Whether nodes may get a small tmpfs, to be filled up.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Keep everything here: a new one.")
def main(
    minutes: float, seed: int | None, nodes: int, rate: float, every_s: float, directory: Path | None, *, mounts: bool
) -> None:
    """Real nodes under load, and everything breaks, by a schedule that the seed repeats: nothing may be lost."""
    plan = Plan(
        seconds=60 * minutes,
        seed=SystemRandom().randrange(_SEEDS) if seed is None else seed,
        nodes=nodes,
        rate=rate,
        every_s=every_s,
    )
    console = Console(highlight=False, soft_wrap=True, width=_WIDTH)
    where = _directory(directory)
    console.print(f"{nodes} nodes, {rate:g} messages a second, {minutes:g} minutes of faults, seed {plan.seed}")
    judgement = _play(plan, where, console, mounts=mounts)
    if judgement is None:
        console.print("Interrupted; all nodes are stopped.")
        _tidy(where, kept=directory is not None)
        sys.exit(_INTERRUPTED)
    display.show(console, judgement)
    if not judgement.passed:
        display.show_findings(console, judgement, [where / f"{name}.log" for name in plan.names])
        console.print(f"Seed {plan.seed}. Configuration, logs and ledgers are kept in {where}")
        sys.exit(_FOUND)
    _tidy(where, kept=directory is not None)


def _directory(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="dlrproxy-chaos-"))
    try:
        wanted.mkdir(parents=True)
    except OSError as error:
        raise click.UsageError(f"--directory: {error}") from error
    return wanted.resolve()


def _play(plan: Plan, directory: Path, console: Console, *, mounts: bool) -> Judgement | None:
    """None when a signal ended it. Exits where the stage does not come up."""
    failures: list[str] = []
    try:
        return trio.run(uninterrupted, partial(play, plan, directory, console.print, mounts=mounts))
    except* (NoStartError, OSError) as group:
        failures = [str(error) for error in leaves(group)]
    click.echo("\n".join(f"Error: {failure}" for failure in failures), err=True)
    click.echo(f"Configuration and logs are in {directory}", err=True)
    sys.exit(_BROKEN)


def _tidy(directory: Path, *, kept: bool) -> None:
    """Remove what is not wanted any more: the nodes' data, or all there is."""
    shutil.rmtree(directory / "data" if kept else directory)


if __name__ == "__main__":
    main()
