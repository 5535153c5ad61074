"""`dlrproxy trace`: the route of one report or MO, hop by hop, from the logs of several nodes."""

import gzip
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
import orjson
from attrs import frozen
from rich.console import Group, RenderableType
from rich.text import Text

from dlrproxy.admin.parked import id_bytes, id_text
from dlrproxy.cli.showing import BAD, DOUBTFUL, GOOD, console, table
from dlrproxy.logs import ROUTE_EVENTS
from protocols.smpp.message_ids import candidates, normal

_NOTHING: Final = 1
_STANDARD_INPUT: Final = Path("-")

# What every event has, or what has a column of its own.
_OWN_COLUMN: Final = frozenset(
    {"timestamp", "level", "event", "node", "component", "trace", "operator", "message_id", "hop", "lap"}
)
_STYLES: Final = {
    "delivered": GOOD, "settled": GOOD, "claimed": GOOD, "parked": BAD, "dropped": BAD, "parking_full": BAD,
    "waiting": DOUBTFUL, "retried": DOUBTFUL, "busy": DOUBTFUL,
}  # fmt: skip

Event = dict[str, Any]


@frozen
class Wanted:
    """Which lines are meant: those of one trace, or of every trace that names a message."""

    trace: str = ""
    message_id: bytes = b""

    def takes(self, event: Event) -> bool:
        if self.trace:
            return bool(event.get("trace") == self.trace)
        named = event.get("message_id")
        return isinstance(named, str) and normal(id_bytes(named)) in candidates(self.message_id)

    @property
    def mark(self) -> bytes:
        """What every such line has in it: logs are large, and most lines are of other messages."""
        return self.trace.encode() or b'"trace":'


@click.command()
@click.argument("trace_and_files", metavar="[TRACE] FILES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--message-id", metavar="ID", help="Instead of TRACE: every report of this id, or one that it may mean.")
@click.option("--json", "as_json", is_flag=True, help="Print the events, one JSON object a line.")
def trace(trace_and_files: tuple[Path, ...], message_id: str | None, *, as_json: bool) -> None:
    """Show the route of one report or MO, hop by hop, from FILES: the logs of the nodes, also rotated ones (.gz).

    TRACE is in every event of the route, and in what `lookup` and `parked` show. "-" is standard input. Exit code 1
    when nothing is found.
    """
    if message_id is not None:
        wanted, files = Wanted(message_id=id_bytes(message_id)), trace_and_files
    else:
        wanted, files = Wanted(trace=str(trace_and_files[0])), trace_and_files[1:]
    if not files:
        raise click.UsageError("Give the log files of the nodes.")
    if wanted == Wanted():
        raise click.UsageError("The id must not be empty.")
    routes = by_trace(event for path in files for event in read_events(path, wanted))
    if not routes:
        click.echo("nothing found", err=True)
        raise SystemExit(_NOTHING)
    if as_json:
        for event in (event for events in routes.values() for event in events):
            click.echo(orjson.dumps(event))
        return
    console().print(Group(*_spaced(shown(name, events) for name, events in routes.items())))


def read_events(path: Path, wanted: Wanted) -> Iterator[Event]:
    """Route events of a log file. Lines that are no JSON object are passed over. Raises ClickException."""
    mark = wanted.mark
    try:
        with ExitStack() as stack:
            for line in _opened(path, stack):
                if mark in line and (event := _event(line)) and wanted.takes(event):
                    yield event
    except (OSError, EOFError) as error:  # EOFError: a .gz that breaks off
        raise click.ClickException(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _opened(path: Path, stack: ExitStack) -> Iterable[bytes]:
    if path == _STANDARD_INPUT:
        return sys.stdin.buffer
    if path.suffix == ".gz":
        return stack.enter_context(gzip.open(path))
    return stack.enter_context(path.open("rb"))


def _event(line: bytes) -> Event | None:
    """None for what is not a route event of ours: other events may name a trace, and files are what they are."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(event, dict) or event.get("event") not in ROUTE_EVENTS or not isinstance(event.get("trace"), str):
        return None
    return event


def by_trace(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Each trace's events in order of time; one that stands in two of the files, once. The oldest trace is first."""
    seen = {orjson.dumps(event, option=orjson.OPT_SORT_KEYS): event for event in events}
    routes: dict[str, list[Event]] = {}
    for event in sorted(seen.values(), key=_when):
        routes.setdefault(event["trace"], []).append(event)
    return routes


def _when(event: Event) -> tuple[str, int, int]:
    """Times are of UTC and of one format, so that they sort as they stand; within a millisecond the hops decide."""
    return str(event.get("timestamp", "")), _number(event.get("lap")), _number(event.get("hop"))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def shown(name: str, events: list[Event]) -> RenderableType:
    first = events[0]
    what = "MO" if first["event"].startswith("mo.") else f"id {_value(first.get('message_id', '')) or 'none'}"
    head = Text.assemble((_value(name), "bold"), f"  operator {_value(first.get('operator', '?'))}, {what}")
    route = table("time (UTC)", "node", "event", ">lap", ">hop", "")
    for event in events:
        step = event["event"].partition(".")[2]
        fields = "  ".join(f"{field} {_value(value)}" for field, value in event.items() if field not in _OWN_COLUMN)
        lap, hop = (str(event[field]) if event.get(field) else "" for field in ("lap", "hop"))
        when = str(event.get("timestamp", "")).replace("T", " ").partition("+")[0]
        route.add_row(when, str(event.get("node", "?")), Text(event["event"], _STYLES.get(step, "")), lap, hop, fields)
    parts: list[RenderableType] = [head, route]
    if node := _ahead_of_origin(events):
        parts.append(Text(f"the clock of {node} seems to be behind: the order of its events is not certain", DOUBTFUL))
    return Group(*parts)


def _value(value: object) -> str:
    """An id may have anything in it, also what a terminal obeys."""
    return id_text(value.encode()) if isinstance(value, str) else orjson.dumps(value).decode()


def _ahead_of_origin(events: list[Event]) -> str | None:
    """A node that logged something before the origin had the report; nobody can."""
    received = next((at for at, event in enumerate(events) if event["event"].endswith(".received")), None)
    if received is None:
        return None
    origin = events[received].get("node")
    return next((str(event.get("node")) for event in events[:received] if event.get("node") != origin), None)


def _spaced(parts: Iterable[RenderableType]) -> Iterator[RenderableType]:
    for number, part in enumerate(parts):
        if number:
            yield ""
        yield part
