"""The results as tables for people and as one JSON object for programs."""

import json
from collections.abc import Mapping, Sequence

from attrs import asdict, frozen
from rich.console import Console
from rich.table import Table

from benchmarks.load import Spread
from benchmarks.results import FLOOR, Row, Verdict


@frozen
class Report:
    cores: int
    python: str
    repeat: int
    fsync_ms: float
    rows: Sequence[Row]
    core_ns: Mapping[str, float]  # nanoseconds a message of the relay's synchronous core, by batch
    verdicts: Sequence[Verdict]
    absent: Mapping[str, str]


def as_json(report: Report) -> str:
    value = asdict(report)
    value["verdicts"] = [{**asdict(verdict), "holds": verdict.holds} for verdict in report.verdicts]
    return json.dumps(value, indent=2)


def show(report: Report, console: Console) -> None:
    if report.rows:
        console.print(_costs(report))
    if report.core_ns:
        core = ", ".join(f"{ns / 1000:.1f} us in batches of {name}" for name, ns in report.core_ns.items())
        console.print(f"The relay's synchronous core alone, CPU a message: {core}")
    for name, why in report.absent.items():
        console.print(f"[bold red]{name} is absent:[/] {why}")
    console.print(_budget(report))


def _costs(report: Report) -> Table:
    table = Table(
        title="A message is a submit_sm, its response, a receipt and its response",
        caption=(
            f"Medians of {report.repeat} rounds, {report.cores} cores, Python {report.python}. "
            f"Ratio: CPU to the {FLOOR}'s. Database: CPU of the servers behind, which CPU leaves out. "
            f"Latency: p50 / p99, direct's own and what the others add. "
            f"fdatasync of 4 KiB: {report.fsync_ms:.2f} ms."
        ),
    )
    table.add_column("load", no_wrap=True)
    table.add_column("through", no_wrap=True)
    for heading in ("CPU us", "min-max", "ratio", "database", "per s", "response ms", "report ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = None
    for row in report.rows:
        if previous is not None and row.load != previous:
            table.add_section()
        table.add_row(
            row.load if row.load != previous else "",
            row.contestant,
            _number(row.cpu_us),
            "" if row.cpu_us_min is None else f"{_number(row.cpu_us_min)}-{_number(row.cpu_us_max)}",
            _number(row.ratio),
            _number(row.database_us),
            f"{row.per_s:,.0f}",
            _latency(row.response_ms, row.added_response_ms),
            _latency(row.receipt_ms, row.added_receipt_ms),
        )
        previous = row.load
    return table


def _number(value: float | None, sign: str = "") -> str:
    """Three digits, as many as such a measurement is good for; nothing for None."""
    if value is None:
        return ""
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:{sign},.{decimals}f}"


def _latency(whole: Spread, added: Spread | None) -> str:
    if added is None:
        return f"{_number(whole.p50)} / {_number(whole.p99)}"
    return f"{_number(added.p50, '+')} / {_number(added.p99, '+')}"


def _budget(report: Report) -> Table:
    table = Table(title="Budget")
    table.add_column("what")
    for heading in ("at most", "measured", "holds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for verdict in report.verdicts:
        measured = "not measured" if verdict.measured is None else f"{verdict.measured:.2f} {verdict.unit}"
        holds = {None: "-", True: "[green]yes[/]", False: "[red]no[/]"}[verdict.holds]
        table.add_row(verdict.what, f"{verdict.budget:g} {verdict.unit}", measured, holds)
    return table
