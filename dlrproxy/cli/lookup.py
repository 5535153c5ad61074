"""`dlrproxy lookup`: where is the message with this id?"""

from collections.abc import Iterator

import click
import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from dlrproxy.admin.client import Client
from dlrproxy.admin.lookup import Answer, Found, FoundInCustody, FoundMessage
from dlrproxy.cli.asking import asks_node_about
from dlrproxy.cli.parked import parked_table
from dlrproxy.cli.showing import BAD, DOUBTFUL, GOOD, QUIET, console, duration, moment, table

_VERDICTS = {
    "match": ("a report with this id finds its message here", GOOD),
    "inexact": ("a report with this id may mean a message here; no rule is in force that says so", DOUBTFUL),
    "ambiguous": ("a report with this id may mean several messages here; the subscriber's number decides", BAD),
    "none": ("a report with this id finds no message here", DOUBTFUL),
}
_NOTHING = 1


@click.command()
@asks_node_about("ID", 1, 1)
@click.option("--operator", default="", help="This operator's only; else all.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer as it is.")
def lookup(client: Client, words: tuple[str, ...], operator: str, *, as_json: bool) -> None:
    """Show what the node of CONFIG knows of ID: open messages that it may mean, reports in custody and parked ones.

    ID is a report's, or a response's as the gateway got it. Exit code 1 when there is nothing.
    """
    content = client.get("/lookup", msgspec.Raw, {"id": words[0], "operator": operator})
    answer = msgspec.json.decode(content, type=Answer)
    if as_json:
        click.echo(bytes(content), nl=False)
    else:
        console().print(Group(*_shown(answer)))
    if answer.nothing:
        raise SystemExit(_NOTHING)


def _shown(answer: Answer) -> Iterator[RenderableType]:
    for number, found in enumerate(answer.operators):
        if number:
            yield ""
        yield Text.assemble(
            (found.operator, "bold"), f"  {answer.id} at node {answer.node}: ", _VERDICTS[found.verdict]
        )
        yield Text(f"rule {found.rule or 'not learned yet'}; looked up as {', '.join(found.candidates)}", QUIET)
        yield from _places(found, answer.now)


def _places(found: Found, now: float) -> Iterator[RenderableType]:
    if found.open_messages:
        messages = table("response id", "rule", "gateway", "destination", "submitted", "state", title="Open messages")
        for message in found.open_messages:
            messages.add_row(*_message(message, now))
        yield from ("", messages)
    if found.custody:
        custody = table("id", "state", "for", "where", "lap", "tries", "trace", title="In custody")
        for entry in found.custody:
            custody.add_row(*_entry(entry, now))
        yield from ("", custody)
    if found.parked.items:
        yield from ("", parked_table(found.parked))
    if found.parked.next is not None:
        yield Text(f'there may be more: dlrproxy parked list --id "..." --after {found.parked.next}', QUIET)
    if not (found.open_messages or found.custody or found.parked.items):
        yield "nothing"


def _message(message: FoundMessage, now: float) -> tuple[str, ...]:
    if message.final_at is not None:
        state = f"final report delivered {duration(now - message.final_at)} ago"
    else:
        state = f"open for another {duration(message.expires_at - now)}"
    submitted = f"{moment(message.submitted_at)}, {duration(now - message.submitted_at)} ago"
    return message.message_id, message.rule or "none", message.owner, message.destination, submitted, state


def _entry(entry: FoundInCustody, now: float) -> tuple[str, ...]:
    where = f"from {entry.origin}"
    if entry.gateway:
        where += f", for gateway {entry.gateway}"
    if entry.granted_to:
        where += f", granted to {entry.granted_to}"
    age = duration(now - entry.accepted_at)
    return entry.message_id, entry.state, age, where, str(entry.lap), str(entry.attempts), entry.trace
