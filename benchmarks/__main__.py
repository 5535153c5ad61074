"""`make bench`: what a message costs, in one run, with everything that it is compared to.

python -m benchmarks --help
"""

import os
import platform
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from benchmarks import report, results
from benchmarks.contestants import StartFailedError, end_on_sigterm
from benchmarks.cpu import fsync_ms
from benchmarks.load import RunFailedError
from benchmarks.relay_core import core_ns
from benchmarks.report import Report
from benchmarks.rounds import Load, field_of, rig, run
from benchmarks.starters import STARTERS

_BATCHED_FROM = 100  # from this window on messages are cheap: more of them, so that a run is not over in a blink
_BATCHED_FACTOR = 3
_CORE = "relay-core"
_FILE_WIDTH = 126  # of tables that go to a file or a pipe


def _windows(_context: click.Context, _parameter: click.Parameter, value: str) -> list[int]:
    try:
        windows = [int(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter("numbers with commas between them") from error
    if min(windows) < 1:
        raise click.BadParameter("a window holds at least one message")
    return windows


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--messages",
    default=15_000,
    show_default=True,
    type=click.IntRange(1),
    help="Messages a run; three times as many from W=100 on.",
)
@click.option("--repeat", default=3, show_default=True, type=click.IntRange(1), help="Rounds; medians are shown.")
@click.option(
    "--windows",
    default="10,100,1000",
    show_default=True,
    callback=_windows,
    help="Unanswered submit_sm kept in flight.",
)
@click.option(
    "--pace",
    default=1000.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Messages a second of the paced load; 0: none.",
)
@click.option(
    "--pace-s", default=2.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds of the paced load."
)
@click.option("--only", multiple=True, type=click.Choice([*STARTERS, _CORE]), help="Measure only these (repeatable).")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where stores are kept while it runs; else the directory for temporary files.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output instead of tables.")
def main(
    messages: int, repeat: int, windows: list[int], pace: float, pace_s: float, only: tuple[str, ...],
    directory: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """CPU microseconds per message and added latency of dlrproxy, a byte relay and HAProxy, in one run.

    dlrproxy as a ring of one, with one hop between two nodes, as the active of a pair, and as a node of a quorum.

    Ends with 1 when a single message, receipt or answer is missing, repeated or in the wrong place.
    """
    end_on_sigterm()
    loads = [Load(window, messages * (_BATCHED_FACTOR if window >= _BATCHED_FROM else 1)) for window in windows]
    paced = Load(10, max(1, int(pace * pace_s)), pace)
    if pace:
        loads.append(paced)
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    wanted = only or (*STARTERS, _CORE)
    names = [name for name in STARTERS if name in wanted]
    try:
        with (
            tempfile.TemporaryDirectory(prefix="dlrproxy-bench-", dir=directory) as work,
            console.status("starting") as status,
            rig() as ends,
            field_of(names, Path(work), ends.port) as (contestants, absent),
        ):
            core = {str(size): core_ns(size, messages) for size in windows} if _CORE in wanted else {}
            flush = fsync_ms(Path(work))
            rounds = run(ends, contestants, loads, repeat, status.update)
    except (RunFailedError, StartFailedError) as error:
        raise click.ClickException(str(error)) from error
    rows = results.rows(rounds)
    found = Report(
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        repeat=repeat,
        fsync_ms=flush,
        rows=rows,
        core_ns=core,
        verdicts=results.verdicts(rows, paced, flush),
        absent=absent,
    )
    if as_json:
        click.echo(report.as_json(found))
    else:
        report.show(found, console)


if __name__ == "__main__":
    sys.exit(main())
