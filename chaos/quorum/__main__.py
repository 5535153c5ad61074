"""`python -m chaos.quorum`: one run. Exit status 1 if anything is found that must not be, 2 if it broke off."""

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Final

import click
import galera_cluster
import trio
from rich.console import Console

from chaos import display
from chaos.interruption import uninterrupted
from chaos.quorum.configuration import NODES
from chaos.quorum.scenario import Outcome, play
from chaos.quorum.skew import NoFaketimeError
from chaos.quorum.stage import NotInTimeError, skew_servers
from dlrproxy.failures import leaves

_FOUND: Final = 1
_BROKEN: Final = 2
_WIDTH: Final = 132
_SEEDS: Final = 1_000_000
_LONG_S: Final = (0.5, 1.0, 6.0)  # in an inbox: what is above each of these is counted
_WORST: Final = 5


@click.command()
@click.option(
    "--minutes", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True), help="How long faults come."
)
@click.option("--seed", type=int, help="Of the schedule and of what the simulators draw.  [default: any]")
@click.option(
    "--rate",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Messages a second over all gateways; a fifth of them have two reports.",
)
@click.option("--skewed", is_flag=True, help="Clocks of nodes and servers 5 s ahead, right, and 5 s behind.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Keep everything here: a new one.")
def main(minutes: float, seed: int | None, rate: float, directory: Path | None, *, skewed: bool) -> None:
    """Three real nodes and servers of a quorum under load, and everything breaks: nothing may be lost."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # of servers, which not every account has
    seed = SystemRandom().randrange(_SEEDS) if seed is None else seed
    where = Path(tempfile.mkdtemp(prefix="dlrproxy-chaos-quorum-")) if directory is None else directory.resolve()
    where.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, soft_wrap=True, width=_WIDTH)
    console.print(f"{minutes:g} minutes of faults, {rate:g} messages a second, seed {seed}{', skewed' * skewed}")
    outcome = _play(minutes, where, console, seed, rate, skewed=skewed)
    if outcome is not None:
        display.show(console, outcome.judgement)
        _show(console, outcome)
    if outcome is not None and outcome.judgement.passed:
        if directory is None:
            shutil.rmtree(where)
        return
    if outcome is not None:
        display.show_findings(console, outcome.judgement, [where / f"{name}.log" for name in NODES])
    console.print(f"Seed {seed}. Configuration, logs and ledgers are kept in {where}")
    sys.exit(_BROKEN if outcome is None else _FOUND)


def _play(minutes: float, directory: Path, console: Console, seed: int, rate: float, *, skewed: bool) -> Outcome | None:
    failures: list[str] = []
    cluster = galera_cluster.Cluster()
    try:
        skew_servers(cluster, on=skewed)
        run = partial(play, minutes, directory, console.print, seed=seed, rate=rate, cluster=cluster, skewed=skewed)
        outcome = trio.run(uninterrupted, partial(_on_servers, cluster, run))
        if outcome is not None:
            return outcome
        failures = ["interrupted; all processes are ended"]
    except* (NotInTimeError, NoFaketimeError, OSError, RuntimeError) as group:
        failures = [str(error) for error in leaves(group)]
    finally:
        cluster.close()
    click.echo("\n".join(f"Error: {failure}" for failure in failures), err=True)
    return None


async def _on_servers(cluster: galera_cluster.Cluster, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
    await trio.to_thread.run_sync(cluster.start)
    return await run()


def _show(console: Console, outcome: Outcome) -> None:
    found: dict[str, list[float]] = {}
    for outage in outcome.outages:
        found.setdefault(outage.what, []).append(outage.seconds)
    console.print("Seconds between two accepted messages of one gateway, median and worst:")
    for what, each in sorted(found.items()):
        console.print(f"{statistics.median(each):7.1f} {max(each):6.1f}  {what}, {len(each)} times")
    seconds = sorted((stay.seconds for stay in outcome.stays), reverse=True)
    above = ", ".join(f"{sum(each > limit for each in seconds):,} above {limit:g} s" for limit in _LONG_S)
    worst = ", ".join(f"{each:.1f}" for each in seconds[:_WORST])
    console.print(f"Rows seen in inboxes: {len(seconds):,}, {above}; the longest {worst} s")


if __name__ == "__main__":
    main()
