"""`make isolated`: messages a second of the modes with databases against ring mode's, on processors of their own.

How that is done on a machine with fewer: `processors`.

python -m benchmarks.isolated --help
"""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click
from attrs import asdict, evolve
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import Contestant, StartFailedError, end_on_sigterm
from benchmarks.isolation import BASES, Compared, Ratios, compared
from benchmarks.load import RunFailedError
from benchmarks.processors import LEAST_SHARE, NoControlError, Processors, processors
from benchmarks.rounds import Load, field_of, rig, run
from benchmarks.starters import CROSSED, STARTERS, slowed

_NAMES: Final = tuple(dict.fromkeys((*BASES.values(), *BASES)))
_HOP_SHARE: Final = 0.25  # of the messages: a hop is dearer by an order than a match
_WINDOWS: Final = 30  # at least, in a run: filling the first and emptying the last one is no throughput
_END_SHARE: Final = 0.5  # of a processor, for the load generator and the SMSC each: they need a tenth of a node's
_FILE_WIDTH: Final = 126


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--messages", default=12_000, show_default=True, type=click.IntRange(1), help="A run; a quarter over a hop."
)
@click.option("--repeat", default=5, show_default=True, type=click.IntRange(1), help="Rounds; medians are shown.")
@click.option(
    "--window",
    "windows",
    multiple=True,
    type=click.IntRange(1),
    default=(100, 1000),
    show_default=True,
    help="Unanswered submit_sm kept in flight (repeatable).",
)
@click.option(
    "--share",
    default=0.3,
    show_default=True,
    type=click.FloatRange(LEAST_SHARE, 1),
    help="Of a processor, for each node.",
)
@click.option(
    "--server-processors",
    default=2.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Of each database server, as fast as a node's.",
)
@click.option(
    "--reports-after",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds from a message's response to its report; 0: at once, while the message still waits for its commit.",
)
@click.option("--only", multiple=True, type=click.Choice(_NAMES), help="Measure only these (repeatable).")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where stores and databases are kept while it runs; else the directory for temporary files.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output instead of a table.")
def main(
    messages: int, repeat: int, windows: tuple[int, ...], reports_after: float, share: float, server_processors: float,
    only: tuple[str, ...], directory: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Throughput and CPU of active-passive and quorum against ring mode, as if each process had a machine.

    Where the kernel's cpu controller cannot be used, nothing is limited: then the messages a second are those of all
    processes together, and only the column "by CPU" says what they would be.
    """
    end_on_sigterm()
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    names = [name for name in _NAMES if name in (only or _NAMES)]
    loads = [Load(window, max(messages, _WINDOWS * window), hold_s=reports_after) for window in windows]
    try:
        with ExitStack() as stack:
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix="dlrproxy-bench-", dir=directory))
            given, why_not = _controlled(stack)
            starters = STARTERS if given is None else slowed(1 / share)
            status = stack.enter_context(console.status("starting"))
            ends = stack.enter_context(rig())
            contestants, absent = stack.enter_context(field_of(names, Path(work), ends.port, starters))
            if given is not None:
                _share_out(given, contestants, share, server_processors)
            fair = [evolve(each, share=_HOP_SHARE if each.name in CROSSED else 1.0) for each in contestants]
            found = compared(run(ends, fair, loads, repeat, status.update), server_processors)
    except (RunFailedError, StartFailedError, NoControlError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        limited = None if why_not else {"share": share, "server_processors": server_processors}
        rows = [asdict(row) for row in found]
        click.echo(json.dumps({"rows": rows, "limited": limited, "not_limited": why_not, "absent": absent}, indent=2))
        return
    for name, why in absent.items():
        console.print(f"[bold red]{name} is absent:[/] {why}")
    if why_not:
        console.print(f"[bold red]The processes share this machine's processors:[/] {why_not}")
    limits = "" if why_not else f"{share:g} of a processor for a node, {share * server_processors:g} for a server. "
    run_so = f"Medians of {repeat} rounds, {os.cpu_count()} cores. {limits}Reports come {reports_after:g} s later. "
    console.print(_table(found, run_so))


def _controlled(stack: ExitStack) -> tuple[Processors | None, str]:
    """None, and why, where the processors cannot be shared out."""
    try:
        return stack.enter_context(processors()), ""
    except NoControlError as error:
        return None, str(error)


def _share_out(given: Processors, contestants: Sequence[Contestant], share: float, server_processors: float) -> None:
    for end in multiprocessing.active_children():
        given.give(end.pid or 0, _END_SHARE)
    for contestant in contestants:
        for pid in contestant.pids:
            given.give(pid, share)
        for pid in contestant.database_pids:
            given.give(pid, share * server_processors)


def _table(rows: Sequence[Compared], caption: str) -> Table:
    table = Table(
        title="Modes with databases against ring mode",
        caption=f"{caption}To ring mode's: median (least-most) of the ratios within a round; of what came over a "
        "hop, to that of a ring over a hop. By CPU: of what the busiest process, node or server, has time for.",
    )
    for heading in ("load", "through"):
        table.add_column(heading, no_wrap=True)
    for heading in ("per s", "to ring mode's", "by CPU", "CPU us", "to ring mode's", "busiest server us"):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = None
    for row in rows:
        if previous is not None and row.load != previous:
            table.add_section()
        table.add_row(
            row.load if row.load != previous else "",
            row.contestant,
            f"{row.per_s:,.0f}",
            _ratios(row.throughput),
            _ratios(row.accounted),
            f"{row.cpu_us:.1f}",
            _ratios(row.cpu),
            f"{row.server_us:.1f}" if row.server_us else "",
        )
        previous = row.load
    return table


def _ratios(found: Ratios | None) -> str:
    return "" if found is None else f"{found.middle:.2f} ({found.least:.2f}-{found.most:.2f})"


if __name__ == "__main__":
    sys.exit(main())
