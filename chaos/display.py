"""The table at the end, and the routes of what must not be."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos.judgement import Judgement
from dlrproxy.cli.trace import Wanted, by_trace, read_events, shown

_ROUTES = 5  # findings whose routes are shown
_FINDINGS = 40  # that are named
_GOOD, _BAD, _DIM = "bold green", "bold red", "dim"


def show(console: Console, judgement: Judgement) -> None:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for name, count, note in _rows(judgement):
        table.add_row(name, f"{count:,}", Text(note, _DIM))
    for name, count in (
        ("Out of order", judgement.verdict.order_violations - sum(judgement.late.values())),
        ("Delivered elsewhere", judgement.verdict.delivered_elsewhere + judgement.verdict.unexpected),
        ("Lost", judgement.lost),
    ):
        table.add_row(name, Text(f"{count:,}", _BAD if count else _GOOD), "")
    console.print()
    console.print(table)
    if judgement.passed:
        console.print(Text("PASSED: 0 lost, 0 elsewhere (judged from the simulators' ledgers).", _GOOD))


Row = tuple[str, int, str]


def _rows(judgement: Judgement) -> Iterator[Row]:
    verdict = judgement.verdict
    yield "Faults", sum(judgement.faults.values()), ""
    for kind, count in judgement.faults.items():
        yield f"  {kind}", count, ""
    yield "Starts of nodes", judgement.starts, ""
    again = verdict.submitted - judgement.messages
    yield "Messages", judgement.messages, f"{again:,} more, submitted again after a lost link" if again > 0 else ""
    yield "Reports made", verdict.reports_made, ""
    yield "Reports answered ESME_ROK", verdict.reports_sent, ""
    yield "  delivered to their owner", verdict.delivered_to_owner, ""
    yield "  overtaken by the final one", judgement.superseded, "intermediate, and rightly kept back"
    yield from _counted("  parked", judgement.parked, "no gateway was told the id: its response went with a link")
    yield from _counted("  and meant to stay", judgement.kept, "")
    yield from _counted("Replayed by hand", judgement.replayed, "parked while their owner could not be asked")
    yield from _counted("Duplicates", judgement.repeated, "")
    yield from _counted("Intermediate after final", judgement.late, "")
    if verdict.mo_sent:
        yield from _mo_rows(judgement)
    yield from _counted("Errors logged", judgement.errors, "")


def _mo_rows(judgement: Judgement) -> Iterator[Row]:
    verdict = judgement.verdict
    yield "MO answered ESME_ROK", verdict.mo_sent, "each part for itself"
    yield "  delivered", verdict.mo_delivered, ""
    yield "    by a rule", judgement.mo.by_rule, "to the gateway that it names"
    yield "    in a conversation", judgement.mo.in_conversation, "to the gateway that had written"
    yield "    to another gateway", judgement.mo.out_of_conversation, "the one that had written could not be asked"
    yield "  duplicates", verdict.mo_duplicates, ""
    yield "  concatenated, at two gateways", verdict.mo_split, "the nodes that decided could not ask each other"


def _counted(title: str, counts: Mapping[str, int], note: str) -> Iterator[Row]:
    yield title, sum(counts.values()), note if counts else ""
    for name, count in sorted(counts.items()):
        yield f"    {name}", count, ""


def show_findings(console: Console, judgement: Judgement, logs: list[Path]) -> None:
    """Every finding, and the routes of the first reports among them, from the nodes' logs."""
    console.print(Text(f"FAILED: {len(judgement.findings):,} findings.", _BAD))
    for finding in judgement.findings[:_FINDINGS]:
        console.print(Text(f"{finding.what}: {finding.message_id} {finding.detail}"), soft_wrap=True)
    if len(judgement.findings) > _FINDINGS:
        console.print(f"and {len(judgement.findings) - _FINDINGS:,} more")
    named = dict.fromkeys(finding.message_id for finding in judgement.findings if finding.message_id)
    for message_id in list(named)[:_ROUTES]:
        wanted = Wanted(message_id=message_id.encode())
        for name, events in by_trace(event for log in logs for event in read_events(log, wanted)).items():
            console.print()
            console.print(shown(name, events))
