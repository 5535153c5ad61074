"""What the user sees: progress while it runs, the figures and two traces when it is over."""

from collections.abc import Callable, Iterator, Sequence

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dlrproxy.demo.plan import Plan
from dlrproxy.demo.routes import Step, Trace
from dlrproxy.demo.stage import View
from dlrproxy.demo.summary import Summary

_REFRESH_S = 0.2
_BAR = 40  # characters
_GOOD, _BAD, _DIM = "bold green", "bold red", "dim"


def headline(plan: Plan) -> str:
    killed = f", {plan.kill} killed half way" if plan.kill is not None else ""
    return (
        f"{plan.nodes} nodes, {plan.messages:,} messages, {plan.misroute:.0%} of the reports sent to a wrong node"
        f"{killed} (seed {plan.seed})"
    )


# While it runs


async def follow(view: Callable[[], View], console: Console) -> None:
    """Show it until cancelled; on a terminal only."""
    if not console.is_terminal:
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_progress(view()), refresh=True)
            await trio.sleep(_REFRESH_S)


def _progress(view: View) -> RenderableType:
    bars = Table.grid(padding=(0, 2))
    bars.add_row("Messages submitted", _bar(view.submitted, view.messages), f"{view.submitted:,}")
    bars.add_row("Reports at their owner", _bar(view.delivered, view.messages), f"{view.delivered:,}")
    nodes = Table(box=None, padding=(0, 2, 0, 0), header_style=_DIM)
    nodes.add_column("Node")
    nodes.add_column("State", min_width=8)
    for title in ("Submitted", "Reports", "Of these over the ring"):
        nodes.add_column(title, justify="right")
    for node in view.nodes:
        style = {"up": "green", "killed": "red"}.get(node.state, "yellow")
        nodes.add_row(
            node.name, Text(node.state, style), f"{node.submitted:,}", f"{node.reports:,}", f"{node.claimed:,}"
        )
    return Group("", bars, "", nodes, "", Text(f"{view.phase} ...", _DIM))


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=total, completed=done, width=_BAR)


# When it is over


def show(console: Console, summary: Summary, examples: list[Trace]) -> None:
    console.print()
    console.print(Padding(_figures(summary), (0, 0, 0, 2), expand=False))
    for title, trace in zip(
        ("An ordinary report over the ring", "The one with the longest way"), examples, strict=False
    ):
        console.print()
        console.print(Text(f"{title}: message {trace.message_id}, trace {trace.steps[0].trace}", "bold"))
        console.print(Padding(_steps(trace), (0, 0, 0, 2), expand=False))
    console.print()
    console.print(_verdict(summary))


def _figures(summary: Summary) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for name, value, note in _rows(summary):
        table.add_row(name, value, note)
    return table


Row = tuple[RenderableType, RenderableType, RenderableType]


def _rows(summary: Summary) -> Iterator[Row]:
    again = summary.submitted - summary.messages
    yield "Messages sent", f"{summary.submitted:,}", _note(f"{again:,} of them again, after a lost link", again > 0)
    if summary.unfinished:
        yield "  without a report", *_count(summary.unfinished), ""
    yield "Reports taken from the operator", f"{summary.reports_sent:,}", ""
    yield "  matched locally", f"{summary.matched_locally:,}", _note("came down the right bind")
    yield "  claimed over the ring", f"{summary.claimed:,}", _note("came down a wrong one")
    most = max(summary.hop_histogram.values(), default=1)
    for hops, count in summary.hop_histogram.items():
        bar = ProgressBar(total=most, completed=count, width=_BAR, complete_style="cyan", finished_style="cyan")
        yield f"    {hops} hop{'s' if hops != 1 else ''}", f"{count:,}", bar
    away = _note(f"{summary.killed} was away for a while", summary.killed is not None)
    yield "From operator to gateway, p50", f"{_milliseconds(summary.p50_ms)} ms", ""
    yield "From operator to gateway, p99", f"{_milliseconds(summary.p99_ms)} ms", away
    yield "Duplicates", f"{summary.duplicates:,}", _note(_why_duplicates(summary), summary.duplicates > 0)
    yield "Parked", f"{summary.parked:,}", _note(_why_parked(summary))
    if summary.order_violations:
        yield "Out of order", *_count(summary.order_violations), _note("before the response to their message")
    yield "Delivered to another gateway", *_count(summary.delivered_elsewhere + summary.unexpected), ""
    yield "Lost", *_count(summary.lost), ""


def _why_parked(summary: Summary) -> str:
    if summary.killed is not None and summary.parked_reasons.keys() == {"unclaimed"}:
        return f"{summary.killed} took the response to their messages with it"
    return ", ".join(f"{count:,} {reason}" for reason, count in summary.parked_reasons.items())


def _why_duplicates(summary: Summary) -> str:
    """A process that comes back sends again what it had not yet noted as answered (promise 3)."""
    whys = {
        "sent again by the operator": summary.resent,
        f"when {summary.killed} came back": summary.duplicates - summary.resent,
    }
    return ", ".join(f"{count:,} {why}" for why, count in whys.items() if count and summary.killed is not None)


def _note(text: str, wanted: bool = True) -> Text:
    return Text(text if wanted else "", _DIM)


def _count(bad: int) -> tuple[Text]:
    return (Text(f"{bad:,}", _BAD if bad else _GOOD),)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _verdict(summary: Summary) -> Text:
    if summary.passed:
        parked = f", {summary.parked:,} parked" if summary.parked else ""
        return Text(f"PASSED: 0 lost, 0 elsewhere{parked} (judged from the simulators' ledgers).", _GOOD)
    faults = {
        "lost": summary.lost,
        "delivered to another gateway": summary.delivered_elsewhere,
        "delivered, though the operator never sent them": summary.unexpected,
        "messages without a report": summary.unfinished,
    }
    return Text(f"FAILED: {', '.join(f'{count:,} {fault}' for fault, count in faults.items() if count)}.", _BAD)


# Traces


def _steps(trace: Trace) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", style=_DIM)
    table.add_column(style="cyan")
    table.add_column()
    began = trace.steps[0].timestamp
    for step in shortened(trace.steps):
        if isinstance(step, Step):
            after = (step.timestamp - began).total_seconds() * 1000
            table.add_row(f"+{after:,.0f} ms", step.node, told(step))
        else:
            table.add_row("...", "", Text(step, _DIM))
    return table


def shortened(steps: Sequence[Step]) -> Iterator[Step | str]:
    """The steps of the first lap and of the last; laps between them in one line of words."""
    last = max(step.lap for step in steps)
    between = range(2, last)
    said = False
    for step in steps:
        if step.lap not in between:
            yield step
        elif not said:
            said = True
            laps = "lap 2 ends" if len(between) == 1 else f"laps 2 to {last - 1} end"
            yield f"{laps} likewise"


def told(step: Step) -> str:
    """One route event, in words."""
    match step.event:
        case "dlr.missed":
            return "a report from the operator, and no message of this node has its id"
        case "dlr.received":
            return "in custody, on disk; the operator is answered ESME_ROK"
        case "dlr.forwarded":
            return f"to {step.to}, hop {step.hop}{_lap(step)}"
        case "dlr.waiting":
            gap = "" if step.complete else f"; no answer from {step.nodes}" if step.nodes else "; not all have answered"
            return f"lap {step.lap} is over, nobody claimed it{gap}: again in {step.wait_s:.1f} s"
        case "dlr.claimed":
            return (
                f"claimed for its gateway {step.gateway} after {step.hop} hop{'s' if step.hop != 1 else ''}{_lap(step)}"
            )
        case "dlr.settled":
            return f"the origin lets go of it: {step.by} has it on disk"
        case "dlr.delivered":
            return f"gateway {step.gateway} has answered ESME_ROK"
        case "dlr.parked":
            return f"parked: {step.reason}"
        case "dlr.retried":
            return f"gateway {step.gateway} could not take it: again in {step.wait_s:.1f} s"
        case _:
            return step.event.partition(".")[2].replace("_", " ")


def _lap(step: Step) -> str:
    return f" of lap {step.lap}" if step.lap > 1 else ""
