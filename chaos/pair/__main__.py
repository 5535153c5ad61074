"""`python -m chaos.pair`: some rounds. Exit status 1 if anything is found that must not be, 2 if they broke off."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import click
import trio

from chaos.interruption import uninterrupted
from chaos.pair.machine import CommandError
from chaos.pair.rounds import NotInTimeError, Outcome, play
from dlrproxy.demo.node_process import NodeFailedError
from dlrproxy.failures import leaves

_FOUND: Final = 1
_BROKEN: Final = 2
# A network of our own, and processes that end with the first of them: nothing of the host is changed, or left.
_OWN_NETWORK: Final = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


@click.command()
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1), help="How often the active is killed.")
@click.option("--rate", default=100.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Messages/s.")
@click.option(
    "--fence-after",
    "fence_after_s",
    default=6.0,
    show_default=True,
    type=click.FloatRange(3),
    help="pair.fence_after_s; promote_after_s is 3 more.",
)
@click.option("--keepalived", is_flag=True, help="Real keepalived, in network namespaces, moves the address.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Keep everything here: a new one.")
@click.option("--inside", is_flag=True, hidden=True)
def main(
    rounds: int, rate: float, fence_after_s: float, directory: Path | None, *, keepalived: bool, inside: bool
) -> None:
    """A pair over two real MariaDB servers: the active and its database are killed under load; nothing may be lost."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # of servers, which not every account has
    if keepalived and not inside:
        _enter_own_network()
    where = Path(tempfile.mkdtemp(prefix="dlrproxy-pair-")) if directory is None else directory.resolve()
    where.mkdir(parents=True, exist_ok=True)
    outcome = _play(partial(play, rounds, rate, where, _say, keepalived=keepalived, fence_after_s=fence_after_s))
    if outcome is None:
        click.echo(f"Configuration, logs and ledgers are kept in {where}", err=True)
        sys.exit(_BROKEN)
    _show(outcome)
    if not outcome.passed:
        click.echo(f"Configuration, logs and ledgers are kept in {where}", err=True)
        sys.exit(_FOUND)
    if directory is None:
        shutil.rmtree(where)


def _say(line: str) -> None:
    click.echo(line)


def _enter_own_network() -> None:
    """Run this again in there. Exits with a reason where that cannot be."""
    for program, package in (("keepalived", "keepalived"), ("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            raise click.ClickException(f"{program} is missing: apt-get install {package}")
    probe = subprocess.run(
        [*_OWN_NETWORK, "ip", "link", "add", "probe", "type", "veth"], capture_output=True, text=True
    )
    if probe.returncode != 0:
        raise click.ClickException(
            "network namespaces cannot be made here; that takes root, and in a container CAP_NET_ADMIN and "
            f"CAP_SYS_ADMIN: {probe.stderr.strip()}"
        )
    again = [*_OWN_NETWORK, sys.executable, "-m", "chaos.pair", *sys.argv[1:], "--inside"]
    os.execvp(again[0], again)  # noqa: S606 - no shell is wanted


def _play(run: Callable[[], Awaitable[Outcome]]) -> Outcome | None:
    failures: list[str] = []
    try:
        outcome = trio.run(uninterrupted, run)
        if outcome is not None:
            return outcome
        failures = ["interrupted; all processes are ended"]
    except* (NotInTimeError, CommandError, NodeFailedError, OSError, subprocess.CalledProcessError) as group:
        failures = [str(error) for error in leaves(group)]
    click.echo("\n".join(f"Error: {failure}" for failure in failures), err=True)
    return None


def _show(outcome: Outcome) -> None:
    verdict = outcome.verdict
    killed = [each.killed_s for each in outcome.rounds]
    switched = [each.switched_s for each in outcome.rounds]
    for what, seconds in (("Killed until served again", killed), ("Moved by plan", switched)):
        click.echo(f"{what:28}{statistics.median(seconds):6.1f} s median {max(seconds):6.1f} s worst")
    for what, count in (
        ("Messages", outcome.messages),
        ("Reports answered ESME_ROK", verdict.reports_sent),
        ("  whose id nobody was told", verdict.ownerless),
        ("Duplicates", verdict.duplicates),
        ("Unfinished", outcome.unfinished),
        ("Lost", verdict.lost),
    ):
        click.echo(f"{what:28}{count:6,}")
    click.echo("PASSED" if outcome.passed else f"FAILED: {verdict}")


if __name__ == "__main__":
    main()
