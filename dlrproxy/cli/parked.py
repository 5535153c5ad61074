"""`dlrproxy parked`: what was given up on, why, and what to do with it."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click
import msgspec
from rich.table import Table
from rich.text import Text

from dlrproxy.admin.client import Client
from dlrproxy.admin.parked import DEFAULT_LIMIT, MAX_LIMIT, Done, Filter, Page, ParkedDetail, ParkedItem
from dlrproxy.cli.asking import asks_node, asks_node_about
from dlrproxy.cli.showing import BAD, QUIET, console, count, details, duration, moment, table
from ring.commands import Reason

_STOPPED = 1
_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)")


def _age_s(text: str) -> float | None:
    found = _AGE.fullmatch(text)
    return float(found[1]) * _UNITS_S[found[2]] if found else None


def _age(_: click.Context, __: click.Parameter, value: str) -> float:
    """Seconds since the epoch, so long ago; 0 for nothing."""
    if not value:
        return 0.0
    age_s = _age_s(value)
    if age_s is None:
        raise click.BadParameter(f'{value}: give an age: "90s", "30min", "2h", "7d"')
    return time.time() - age_s


def _moment(_: click.Context, __: click.Parameter, value: str) -> float:
    """Seconds since the epoch; 0 for nothing. "2h" is two hours ago; a date and time is local if it has no offset."""
    if not value:
        return 0.0
    if (age_s := _age_s(value)) is not None:
        return time.time() - age_s
    try:
        return datetime.fromisoformat(value).astimezone().timestamp()
    except ValueError as error:
        raise click.BadParameter(f'{value}: give an age ("90s", "30min", "2h", "7d") or "2027-01-31 14:00"') from error


def _moment_option(name: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, default="", callback=_moment, metavar="WHEN", help=text)


def _age_option(name: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, default="", callback=_age, metavar="AGE", help=text)


_FILTER_OPTIONS = (
    click.option("--operator", default="", help="Of this operator."),
    click.option("--reason", type=click.Choice([reason.value for reason in Reason]), help="Parked for it."),
    click.option("--owner", default="", metavar="GATEWAY", help="For this gateway, as far as that is known."),
    click.option("--kind", type=click.Choice(["dlr", "mo"]), help="Reports only, or MO only."),
    click.option("--destination", default="", help="A report's subscriber, or the number that an MO was sent to."),
    click.option("--id", "message_id", default="", help="Reported under this id, or one that it may mean."),
    _moment_option("--since", 'Parked then or later: "2h" (ago), or a date and time.'),
    _moment_option("--until", "Parked then or earlier."),
    _age_option("--older-than", 'Parked at least so long ago: "7d".'),
    _age_option("--newer-than", "Parked at most so long ago."),
)


def narrows(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say which parked ones are meant; `_filter` makes a Filter of them."""
    for option in reversed(_FILTER_OPTIONS):
        command = option(command)
    return command


def _filter(
    message_id: str, since: float, until: float, older_than: float, newer_than: float, **criteria: Any
) -> Filter:
    """Of two limits the narrower one counts."""
    until = min((limit for limit in (until, older_than) if limit), default=0.0)
    given = {name: value for name, value in criteria.items() if value}
    return Filter(id=message_id, since=max(since, newer_than), until=until, **given)


@click.group()
def parked() -> None:
    """Reports and MO that were given up on are parked: nothing is lost until a person drops it."""


@parked.command("list")
@asks_node
@narrows
@click.option("--limit", default=DEFAULT_LIMIT, show_default=True, type=click.IntRange(1), help="Show so many.")
@click.option("--after", default="", metavar="KEY", help="Go on behind this one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(client: Client, limit: int, after: str, *, as_json: bool, **criteria: Any) -> None:
    """List what is parked at the node of CONFIG, in the order of arrival. The text of a message is never shown."""
    page = _page(client, _filter(**criteria), limit, after)
    if as_json:
        click.echo(msgspec.json.encode(page))
        return
    screen = console()
    if page.items:
        screen.print(parked_table(page))
    else:
        screen.print("nothing")
    if page.unreadable:
        screen.print(Text(f"and {count(page.unreadable)} of a later release, which this one cannot read", BAD))
    if page.next is not None:
        screen.print(Text(f"there may be more: --after {page.next}", QUIET))


def _page(client: Client, wanted: Filter, limit: int, after: str) -> Page:
    """One answer holds a bounded number; this goes on until there are `limit`."""
    items: list[ParkedItem] = []
    unreadable = 0
    while True:
        query = msgspec.to_builtins(wanted) | {"after": after, "limit": min(limit - len(items), MAX_LIMIT)}
        page = client.get("/parked", Page, query)
        items += page.items
        unreadable += page.unreadable
        if page.next is None or len(items) >= limit:
            return msgspec.structs.replace(page, items=tuple(items), unreadable=unreadable)
        after = page.next


def parked_table(page: Page) -> Table:
    shown = table(
        "key", "reason", "parked", "operator", "kind", "id", "destination", "gateway", "status", title="Parked"
    )
    for item in page.items:
        ago = f"{duration(page.now - item.parked_at)} ago"
        shown.add_row(
            item.key, item.reason, ago, item.operator, item.kind, item.message_id, item.destination, item.gateway,
            item.status,
        )  # fmt: skip
    return shown


@parked.command()
@asks_node_about("KEY", 1, 1)
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer as it is.")
def show(client: Client, words: tuple[str, ...], *, as_json: bool) -> None:
    """Show one, by the KEY that the list shows."""
    content = client.get(f"/parked/{words[0]}", msgspec.Raw)
    if as_json:
        click.echo(bytes(content), nl=False)
        return
    console().print(details(*_rows(msgspec.json.decode(content, type=ParkedDetail))))


def _rows(item: ParkedDetail) -> Iterator[tuple[str, str]]:
    yield "key", item.key
    yield "reason", item.reason
    yield "parked", moment(item.parked_at)
    yield "taken into custody", f"{moment(item.accepted_at)}, at node {item.origin}"
    yield "operator", item.operator
    yield "kind", item.kind
    if item.kind == "dlr":
        yield "message id", item.message_id or "none"
        yield "reports", f"{item.state or 'no state'}{', final' if item.final else ''}, error {item.error or 'none'}"
    yield "destination", item.destination
    yield "gateway", item.gateway or "not known"
    yield "gateway's answer", item.status or "none"
    yield "size", f"{item.pdu_bytes} bytes"
    yield "trace", item.trace


def chooses(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say which ones to act on, where no KEY does."""
    return click.option("--all", "take_all", is_flag=True, help="All that are parked.")(narrows(command))


@parked.command()
@asks_node_about("[KEY]...", 0, MAX_LIMIT)
@chooses
@click.option(
    "--to",
    required=True,
    metavar="ring|GATEWAY|NODE[/GATEWAY]",
    help="Round the ring again, to this node's gateway, or to one of another node (any that is bound there).",
)
def replay(client: Client, keys: tuple[str, ...], to: str, **choice: Any) -> None:
    """Take parked ones back into custody, by KEY or by options, to be delivered after all.

    Those that a gateway refuses again are parked again.
    """
    _act(client, "/parked/replay", "replayed", _choice(keys, **choice) | {"to": to})


@parked.command()
@asks_node_about("[KEY]...", 0, MAX_LIMIT)
@chooses
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(client: Client, keys: tuple[str, ...], *, yes: bool, **choice: Any) -> None:
    """Give parked ones up for good, by KEY or by options. Nothing brings them back."""
    body = _choice(keys, **choice)
    if not yes:
        click.confirm(f"Drop {_described(body)} for good?", abort=True, err=True)
    _act(client, "/parked/drop", "dropped", body)


def _choice(keys: tuple[str, ...], take_all: bool, **criteria: Any) -> dict[str, Any]:
    """The body of a request. Raises UsageError where it is not clear what is meant."""
    wanted = _filter(**criteria)
    if sum((bool(keys), not wanted.takes_all, take_all)) != 1:
        raise click.UsageError("Say which ones: by KEY, or by options such as --reason; or --all, alone.")
    if keys:
        return {"keys": keys}
    return {"filter": wanted, "all": take_all}


def _described(body: dict[str, Any]) -> str:
    if "keys" in body:
        return f"{len(body['keys'])} by key"
    criteria = {name: value for name, value in msgspec.to_builtins(body["filter"]).items() if value}
    for name in ("since", "until"):
        if name in criteria:
            criteria[name] = moment(criteria[name])
    return "ALL that are parked" if body["all"] else "all with " + ", ".join(f"{k} {v}" for k, v in criteria.items())


def _act(client: Client, path: str, verb: str, body: dict[str, Any]) -> None:
    """One answer is about a bounded number; this goes on until there are no more, and says how far it is."""
    total, gone, unfit = 0, 0, 0
    while True:
        done = client.post(path, Done, body)
        total, gone, unfit = total + done.done, gone + done.gone, unfit + done.unfit
        if done.next is None or done.stopped:
            break
        click.echo(f"{count(total)} {verb} so far", err=True)
        body |= {"after": done.next, "until": done.until}
    click.echo(f"{count(total)} {verb}")
    if gone:
        click.echo(f"{count(gone)} not parked (any more)")
    if unfit:
        click.echo(f"{count(unfit)} left: of operators that this gateway does not dial")
    if done.stopped:
        click.echo("custody is full: the others stay parked; go on when status shows room", err=True)
        raise SystemExit(_STOPPED)
