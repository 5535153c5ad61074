"""`dlrproxy status`: is it well, and if not, what is wrong?"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import click
import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from dlrproxy.admin.client import AdminError, Client
from dlrproxy.admin.view import (
    BindStatus,
    CustodyStatus,
    DrainState,
    JoinStatus,
    NodeStatus,
    OperatorStatus,
    StoreStatus,
    SummaryStatus,
)
from dlrproxy.cli.asking import asks_node
from dlrproxy.cli.pair_status import shown_pair
from dlrproxy.cli.quorum_status import shown_quorum
from dlrproxy.cli.showing import BAD, DOUBTFUL, GOOD, QUIET, console, count, details, duration, size, table
from protocols.peer.frames import VERSION
from ring.commands import Reason
from ring.peer_status import PeerStatus

_LINK_STYLES = {"alive": GOOD, "suspect": DOUBTFUL, "dead": BAD}

# Counters with a column of their own; of the others those are named that have counted something.
_COLUMNS: Mapping[str, str] = {
    "requests": "MT",
    "open_messages": "open messages",
    "reports": "reports",
    "matched": "matched",
    "missed": "missed",
    "mo": "MO",
    "passed": "passed",
    "to_custody": "to custody",
    "from_custody": "from custody",
}


@click.command()
@asks_node
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer as it is.")
@click.option("--watch", is_flag=True, help="Show it again and again, until interrupted.")
@click.option("--interval", default=2.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between.")
def status(client: Client, *, as_json: bool, watch: bool, interval: float) -> None:
    """Show how the node is, of which CONFIG is the configuration: binds, gateways, ring, custody, store."""
    if as_json:
        click.echo(bytes(client.get("/status", msgspec.Raw)), nl=False)
    elif watch:
        watch_status(client, lambda: time.sleep(interval))
    else:
        console().print(shown(client.get("/status", NodeStatus)))


def watch_status(client: Client, pause: Callable[[], None]) -> None:
    """Until interrupted. A node that cannot be asked may come back."""
    with Live(console=console(), auto_refresh=False) as live:
        try:
            while True:
                live.update(_now(client), refresh=True)
                pause()
        except KeyboardInterrupt:
            pass


def _now(client: Client) -> RenderableType:
    try:
        return shown(client.get("/status", NodeStatus))
    except AdminError as error:
        return Text(str(error), BAD)


def shown(status: NodeStatus) -> RenderableType:
    """What is wrong comes first."""
    parts: list[RenderableType] = [_head(status)]
    if status.pair is not None:
        parts.append(shown_pair(status.pair))
    if status.quorum is not None:
        parts.append(shown_quorum(status.quorum))
    if status.custody is None or status.store is None:
        return Group(*parts)  # it does not serve: there is nothing else
    parts.append(_custody_and_store(status.custody, status.store))
    if status.summaries is not None:
        parts.append(_summaries(status.summaries, status.custody))
    if status.join is not None:
        parts.append(_join(status.join))
    parts.append("")
    parts.append(_binds(status.operators))
    if any(operator.gateways for operator in status.operators):
        parts += ["", _gateways(status.operators)]
    if status.ring:
        parts += ["", _ring(status.ring, status.version)]
    if status.turned_away:
        parts.append(details(("turned away", _named(status.turned_away.items()))))
    parts += ["", _traffic(status.operators), *_ids_and_rest(status.operators)]
    return Group(*parts)


def _head(status: NodeStatus) -> Text:
    head = Text.assemble((status.node, "bold"), "  ")
    why_not = status.why_not_serving
    if status.pair is not None and status.pair.role == "standby":
        head.append("standing by", GOOD)
    else:
        head.append(f"NOT SERVING: {'; '.join(why_not)}" if why_not else "serving", BAD if why_not else GOOD)
    head.append(f"  mode {status.mode}, version {status.version}, up {duration(status.uptime_s)}", QUIET)
    if status.draining == "custody":
        state = DrainState.of(status)
        head.append("\ndrained" if state.empty else f"\ndrains: {state}", DOUBTFUL)
    elif status.draining == "stop":
        head.append("\nstops", DOUBTFUL)
    return head


def _custody_and_store(custody: CustodyStatus, store: StoreStatus) -> RenderableType:
    full = custody.items >= 0.9 * custody.max_items
    inside = Text(f"{count(custody.items)} of {count(custody.max_items)}", BAD if full else "")
    inside.append(f"  ({count(custody.walking)} walking, {count(custody.waiting)} waiting)", QUIET)
    full = custody.parked >= 0.9 * custody.max_parked
    parked = Text(f"{count(custody.parked)} of {count(custody.max_parked)}", BAD if full else "")
    since_start = [(reason.value, custody.events.get(f"parked.{reason.value}", 0)) for reason in Reason]
    if named := _named(since_start):
        parked.append(f"  (since the start: {named})", QUIET)
    rows = [("custody", inside), ("parked", parked)]
    for node, states in custody.awaiting.items():
        rows.append(("waits for", Text(f"{node}: {_named(states.items())}")))
    if custody.unreadable:
        rows.append(("unreadable", Text(f"{count(custody.unreadable)}, of a later release: kept, not delivered", BAD)))
    if refused := _named(custody.refused.items()):
        rows.append(("not taken", Text(refused, DOUBTFUL)))
    disk = Text("takes writes" if store.accepting else "TAKES NO WRITES", GOOD if store.accepting else BAD)
    if store.free_bytes is not None:
        disk.append(f"  {size(store.free_bytes)} free; below {size(store.min_free_bytes)} MT are refused", QUIET)
    return details(*rows, ("store", disk))


def _join(join: JoinStatus) -> RenderableType:
    if not join.gates:
        return details(("join", Text(f"ring {join.cluster} cannot be reached", BAD)))
    reached = f"ring {join.cluster}, {count(len(join.gates))} of {count(join.configured)} gates can be reached"
    text = Text(reached, DOUBTFUL if len(join.gates) < join.configured else GOOD)
    if frames := _named(join.frames.items()):
        text.append(f"  (frames: {frames})", QUIET)
    return details(("join", text))


def _summaries(summaries: SummaryStatus, custody: CustodyStatus) -> RenderableType:
    told, current = (sum(getattr(peer, side) for peer in summaries.peers.values()) for side in ("told", "current"))
    known = sum(peer.messages for peer in summaries.peers.values())
    used = summaries.own_bytes + sum(peer.bytes_used for peer in summaries.peers.values())
    nodes = "1 node" if told == 1 else f"{told} nodes"
    text = Text(f"{count(summaries.own)} open messages told to {nodes}, {count(known)} known of {current}")
    text.append(f"  ({size(used)})", QUIET)
    results = [(result, custody.events.get(f"summary.{result}", 0)) for result in ("right", "wrong", "none")]
    if named := _named(results):
        text.append(f"  first hops: {named}", QUIET)
    if summaries.left_out:
        text.append(f"  {count(summaries.left_out)} left out", DOUBTFUL)
    return details(("summaries", text))


def _binds(operators: tuple[OperatorStatus, ...]) -> RenderableType:
    binds = table("operator", "bind", "type", "state", "for", ">window", "host", "why", title="Operator binds")
    for operator in operators:
        for bind in operator.binds:
            binds.add_row(operator.name, bind.name, bind.bind_type, *_bind(bind))
        if not operator.binds:
            binds.add_row(operator.name, "-", "", Text("none", BAD))
    return binds


def _bind(bind: BindStatus) -> tuple[RenderableType, ...]:
    state = Text("up", GOOD) if bind.up else Text("DOWN", BAD)
    window = f"{bind.window_used}/{bind.window_size}" if bind.up else ""
    return state, duration(bind.since_s), window, bind.host, bind.why


def _gateways(operators: tuple[OperatorStatus, ...]) -> RenderableType:
    gateways = table("operator", "gateway", "listens on", "session", "type", ">window", title="Gateways")
    for operator in operators:
        for gateway in operator.gateways:
            where = (operator.name, gateway.name, gateway.listen)
            for session in gateway.sessions:
                window = f"{session.window_used}/{session.window_size}"
                gateways.add_row(*where, Text(session.peer, GOOD), session.bind_type, window)
            if not gateway.sessions:
                gateways.add_row(*where, Text("not bound", DOUBTFUL))
    return gateways


def _ring(peers: tuple[PeerStatus, ...], own: str) -> RenderableType:
    columns = ("node", "state", "heard", "linked for", "version", ">protocol", ">queue", ">frames in", ">out", "why")
    ring = table(*columns, title="Ring")
    for peer in peers:
        state = Text(peer.state if peer.linked else f"{peer.state}, no link", _LINK_STYLES.get(peer.state, DOUBTFUL))
        if peer.draining:
            state.append(", draining", DOUBTFUL)
        heard = "never" if peer.silent_s is None else f"{duration(peer.silent_s)} ago"
        linked = duration(peer.up_s) if peer.linked else "-"
        queue, frames_in, frames_out = map(count, (peer.outbox_frames, peer.frames_in, peer.frames_out))
        versions = _release(peer, own), _version(peer)
        ring.add_row(peer.name, state, heard, linked, *versions, queue, frames_in, frames_out, peer.failure)
    return ring


def _release(peer: PeerStatus, own: str) -> Text:
    """What it runs: another one than this node while they are being upgraded."""
    return Text(peer.release or "?", DOUBTFUL if peer.release not in ("", own) else "")


def _version(peer: PeerStatus) -> Text:
    """Of the frames on the link: an earlier one than ours while a ring is being upgraded."""
    return Text(str(peer.version) if peer.linked else "-", DOUBTFUL if 0 < peer.version < VERSION else "")


def _traffic(operators: tuple[OperatorStatus, ...]) -> RenderableType:
    traffic = table(
        "operator", *(f">{name}" for name in _COLUMNS.values()), ">in flight", title="Traffic since the start"
    )
    for operator in operators:
        counted = (count(operator.counters.get(name, 0)) for name in _COLUMNS)
        traffic.add_row(operator.name, *counted, count(operator.in_flight))
    return traffic


def _ids_and_rest(operators: tuple[OperatorStatus, ...]) -> Iterator[RenderableType]:
    for operator in operators:
        rows = [("message ids", _id_rule(operator))]
        if operator.pace_per_s is not None:
            rows.append(("pace", Text(f"{operator.pace_per_s:.4g} MT a second at most")))
        rest = [(name, number) for name, number in operator.counters.items() if name not in _COLUMNS]
        if named := _named(rest):
            rows.append(("also counted", Text(named)))
        yield ""
        yield Text(operator.name, "bold")
        yield details(*rows)


def _id_rule(operator: OperatorStatus) -> Text:
    ids = operator.message_id
    if ids.rule is None:
        text = Text("no rule learned yet", DOUBTFUL)
    else:
        text = Text(f"{ids.rule}, {'pinned' if ids.pinned else 'learned'}")
    if evidence := _named(ids.evidence.items()):
        text.append(f"  (reports that showed one: {evidence})", QUIET)
    if ids.contradictions:
        text.append(f"  {count(ids.contradictions)} reports in a row spoke against it", BAD)
    return text


def _named(counts: Iterable[tuple[str, int]]) -> str:
    """Those that have counted something."""
    return ", ".join(f"{name} {count(number)}" for name, number in counts if number)
