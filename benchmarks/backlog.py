"""`make backlog`: what millions of waiting or parked reports cost a node, and the traffic that it has besides.

    parked       parked at gw1, and replayed by hand to a gateway of gw1
    parked-node  the same, to a gateway of gw2
    gateway      wait at gw1 for a gateway of its own that is not bound, until it binds
    node         wait at gw1 for their owner's node gw2, which is down, until it starts

A data directory is filled, real nodes are started, and what waited is let go while other traffic (submit_sm, and
receipts that match) goes on at a pace: through another gateway of gw1, then through the one that they are for. Every
report is counted where it arrives, by its number.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import click
from attrs import frozen

from benchmarks.backlog_gateway import Bind, Heard, Pace, Spread, serve
from benchmarks.backlog_site import OTHER, SYSTEM_ID, WAITED_FOR, Site, Waits, fill, owned, sites, waiting
from benchmarks.contestants import Started, end_on_sigterm
from benchmarks.cpu import cpu_ns
from benchmarks.rounds import PACED_HOLD_S, rig
from benchmarks.smsc import Settings

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.sharedctypes import Synchronized

WITHIN_S: Final = 900.0
STALL_S: Final = 120.0  # nothing more has drained for so long: the run has failed
MIB: Final = 1024 * 1024


class Far:
    """The gateway's process, seen from here. Use `gateway()`."""

    def __init__(
        self, control: "Connection[object, object]", drained: "Synchronized[int]", last_at: "Synchronized[float]"
    ) -> None:
        self._control = control
        self._drained = drained
        self._last_at = last_at

    @property
    def drained(self) -> int:
        return self._drained.value

    @property
    def last_at(self) -> float:
        return self._last_at.value

    def bind(self, name: str, port: int) -> None:
        self._control.send(Bind(name, port, SYSTEM_ID))
        self._control.recv()

    def keep(self, pace: Pace) -> Heard:
        self._control.send(pace)
        return cast("Heard", self._control.recv())


@contextmanager
def gateway(expected: int) -> Iterator[Far]:
    """The process, for as long as the block runs."""
    processes = multiprocessing.get_context("spawn")
    near, far = processes.Pipe()
    drained: Synchronized[int] = processes.Value("q", 0)
    last_at: Synchronized[float] = processes.Value("d", 0.0)
    process = processes.Process(target=serve, args=(far, expected, drained, last_at), daemon=True)
    process.start()
    far.close()
    try:
        yield Far(near, drained, last_at)
    finally:
        near.close()
        process.terminate()
        process.join()


@frozen
class Plan:
    kind: Waits
    count: int
    max_messages: int
    paces: tuple[float, ...]
    seconds: float
    to_the_end: bool


class Run:
    """One kind, from the start of the node to the last report."""

    def __init__(self, plan: Plan, here: Site, there: Site, far: Far, running: ExitStack) -> None:
        self._plan = plan
        self._here = here
        self._there = there
        self._far = far
        self._running = running

    def measure(self) -> None:
        began = time.monotonic()
        node = self._start(self._here)
        say("from exec to node.running", f"{time.monotonic() - began:.1f} s")
        say("memory then", f"{rss_mib(node):,} MiB")
        say("dlrproxy status takes", f"{self._status_s():.1f} s")
        if self._plan.kind != "node":
            self._start(self._there)
        self._far.bind(OTHER, self._here.ports[OTHER])
        self._traffic("nothing drains", OTHER)
        self._let_go()
        wait_for("the first of them", lambda: self._far.drained > 0)
        self._traffic("it drains", OTHER)
        if self._plan.kind in ("parked", "gateway"):
            self._traffic("it drains", WAITED_FOR)
        self._alone(node)
        say("memory at most", f"{peak_mib(node):,} MiB")
        if self._plan.to_the_end:
            self._finish(began)
        say("memory afterwards", f"{rss_mib(node):,} MiB")

    def _start(self, site: Site) -> Started:
        started = site.start()
        self._running.callback(started.stop)
        wait_for("node.running", lambda: '"node.running"' in started.log.read_text(errors="replace"))
        return started

    def _status_s(self) -> float:
        began = time.monotonic()
        command = [sys.executable, "-m", "dlrproxy", "status", str(self._here.config)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - began

    def _let_go(self) -> None:
        """What has waited may go on."""
        kind = self._plan.kind
        owner = self._here if kind in ("parked", "gateway") else self._there
        if kind == "node":
            self._start(owner)
        self._far.bind(WAITED_FOR, owner.ports[WAITED_FOR])
        if kind in ("parked", "parked-node"):
            self._replay(WAITED_FOR if kind == "parked" else f"{owner.name}/{WAITED_FOR}")

    def _replay(self, to: str) -> None:
        command = [sys.executable, "-m", "dlrproxy", "parked", "replay", str(self._here.config), "--all", "--to", to]
        with (self._here.config.parent / "replay.log").open("wb") as output:
            replaying = subprocess.Popen(command, stdout=output, stderr=output)
        self._running.callback(replaying.wait)
        self._running.callback(replaying.kill)

    def _traffic(self, when: str, through: str) -> None:
        for per_s in self._plan.paces:
            if 0 < self._plan.count == self._far.drained:
                return
            began, before = time.monotonic(), self._far.drained
            heard = self._far.keep(Pace(through, per_s, self._plan.seconds))
            rate = (self._far.drained - before) / (time.monotonic() - began)
            drains = f"; {rate:,.0f} drain a second" if self._far.drained else ""
            say(f"{when}, {per_s:,.0f}/s of {through}", f"{latency(heard)}{drains}")
            if heard.missing or heard.strange:
                raise click.ClickException(f"{heard.missing} are missing; {', '.join(heard.strange)}")

    def _alone(self, node: Started) -> None:
        began, before, used = time.monotonic(), self._far.drained, cpu_ns([node.process.pid])
        time.sleep(self._plan.seconds)
        came, used = self._far.drained - before, cpu_ns([node.process.pid]) - used
        if came:
            rate = came / (time.monotonic() - began)
            say("without other traffic", f"{rate:,.0f} drain a second, {used / came / 1000:,.0f} us of CPU each at gw1")

    def _finish(self, began: float) -> None:
        seen, progress = -1, time.monotonic()
        while self._far.drained < self._plan.count:
            if self._far.drained != seen:
                seen, progress = self._far.drained, time.monotonic()
            elif time.monotonic() > progress + STALL_S:
                raise click.ClickException(f"{seen:,} of {self._plan.count:,} have come, and no more")
            time.sleep(0.5)
        say("all of it has drained", f"{self._plan.count:,}, each once, {self._far.last_at - began:,.0f} s after exec")


def latency(heard: Heard) -> str:
    return f"response {_spread(heard.response)}, report {_spread(heard.report)} ms"


def _spread(spread: Spread) -> str:
    return f"{spread.p50:.1f} / {spread.p99:.1f} / {spread.most:.0f}"


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    """Raises ClickException when it takes too long."""
    until = time.monotonic() + WITHIN_S
    while not holds():
        if time.monotonic() > until:
            raise click.ClickException(f"waited {WITHIN_S:.0f} s for {what}")
        time.sleep(0.05)


def rss_mib(started: Started) -> int:
    pages = int(Path(f"/proc/{started.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // MIB


def peak_mib(started: Started) -> int:
    """Since its start (VmHWM, proc(5))."""
    for line in Path(f"/proc/{started.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise click.ClickException("/proc says nothing of the most memory that a process has used")


def say(name: str, value: str) -> None:
    click.echo(f"{name:<38}{value}")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--kind", default="parked", show_default=True, type=click.Choice(["parked", "parked-node", "gateway", "node"])
)
@click.option("--items", default=2_000_000, show_default=True, type=click.IntRange(1))
@click.option("--max-messages", type=click.IntRange(1), help="custody.max_messages; as many as wait, if not given.")
@click.option(
    "--pace", "paces", multiple=True, default=[50.0, 500.0], show_default=True, help="Other traffic a second."
)
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(1), help="Each pace for so long.")
@click.option("--to-the-end/--sample", default=True, show_default=True, help="Wait until all of it has drained.")
@click.option(
    "--route-events/--no-route-events", default=True, show_default=True, help="log.route_events of the nodes."
)
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), help="A directory on the disk that is meant.")
def main(
    kind: Waits,
    items: int,
    max_messages: int | None,
    paces: tuple[float, ...],
    seconds: float,
    work: Path | None,
    *,
    to_the_end: bool,
    route_events: bool,
) -> None:
    """Fill a node with waiting or parked reports, start it, and let them go beside other traffic.

    Latencies are p50 / p99 / highest.
    """
    end_on_sigterm()
    most = max_messages or (items + items // 10 if kind in ("gateway", "node") else 100_000)
    plan = Plan(kind, items, most, paces, seconds, to_the_end)
    with tempfile.TemporaryDirectory(dir=work) as made, rig() as ends, gateway(items) as far, ExitStack() as running:
        ends.settle(Settings(window=1000, hold_s=PACED_HOLD_S))
        here, there = sites(Path(made), ends.port, most, route_events=route_events)
        say("kind, items, max_messages", f"{kind}, {items:,}, {most:,}")
        began = time.monotonic()
        fill(here, items, waiting(kind))
        if kind == "node":
            fill(there, items, owned)
        say("filled in", f"{time.monotonic() - began:.0f} s, {disk_mib(here.data):,} MiB on disk")
        Run(plan, here, there, far, running).measure()


def disk_mib(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) // MIB


if __name__ == "__main__":
    main()
