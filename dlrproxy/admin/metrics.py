"""The node's status as Prometheus metrics. They are read off the plain counters at the scrape, and kept nowhere.

Names are those of the counters and give-ups (promise 7): `Counters.refused_busy` is dlrproxy_refused_busy_total.
docs/metrics.md has them all.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, get_args

from attrs import fields
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dlrproxy.admin.families import Family, counter, gauge, single, single_counter
from dlrproxy.admin.pair_metrics import pair_metrics
from dlrproxy.admin.quorum_metrics import quorum_metrics
from dlrproxy.admin.view import CustodyStatus, JoinStatus, NodeStatus, OperatorStatus, StoreStatus, SummaryStatus
from dlrproxy.counters import Counters
from ring.commands import EventName, Reason
from ring.peer_status import PeerStatus

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_PARKED_PREFIX: Final = "parked."
_SUMMARY_PREFIX: Final = "summary."
_HOPS: Final = (1, 2, 4, 8, 16, 32)

_PEER_GAUGES: Final = {
    "outbox_frames": "Frames that wait to be sent to the node.",
    "outbox_bytes": "The size of these.",
}
_PEER_COUNTERS: Final = {
    "frames_in": "Frames from the node.",
    "frames_out": "Frames to the node.",
    "bytes_in": "Bytes from the node, without TLS.",
    "bytes_out": "Bytes to the node, without TLS.",
    "ups": "Links with the node that came up.",
    "outbox_full": "Frames that were not taken because too many waited.",
    "frames_withheld": "Frames that were not sent, since the node's version does not know them.",
    "frames_skipped": "Frames from the node, of a later version, that this one does not know.",
}


class Metrics:
    """What /metrics answers."""

    def __init__(self, status: Callable[[], NodeStatus]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_NodeCollector(status))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _NodeCollector(Collector):
    def __init__(self, status: Callable[[], NodeStatus]) -> None:
        self._status = status

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering does not ask for the status."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        yield from _node(status)
        yield from _operators(status.operators)
        yield from _traffic(status.operators)
        yield from _ring(status.ring)
        yield _turned_away(status.turned_away)
        if status.join is not None:
            yield from _join(status.join)
        if status.custody is not None:
            yield from _custody(status.custody)
            yield _hops(status.custody)
            yield from _summaries(status.summaries, status.custody)
        if status.pair is not None:
            yield from pair_metrics(status.pair)
        if status.quorum is not None:
            yield from quorum_metrics(status.quorum)


def _node(status: NodeStatus) -> Iterator[Metric]:
    info = gauge("info", "Which node this is.", "node", "version", "mode")
    info.add_metric([status.node, status.version, status.mode], 1)
    yield info
    yield single("uptime_seconds", "Seconds since the node started.", status.uptime_s)
    yield single("serving", "1 while /health says that it serves.", not status.why_not_serving)
    yield single("draining", "1 while the node is being taken out of service.", status.draining is not None)
    if status.store is not None:
        yield from _store(status.store)


def _store(store: StoreStatus) -> Iterator[Metric]:
    yield single("store_accepting", "0 while the store takes no writes.", store.accepting)
    if store.free_bytes is not None:
        yield single("store_free_bytes", "Free space on the file system of data_dir.", store.free_bytes)
    yield single("store_min_free_bytes", "Below this much MT are refused.", store.min_free_bytes)


def _operators(operators: tuple[OperatorStatus, ...]) -> Iterator[Metric]:
    up = gauge("bind_up", "1 while the bind at the operator is up.", "operator", "bind")
    used = gauge("bind_window_used", "Requests that the operator has not answered.", "operator", "bind")
    size = gauge("bind_window_size", "How many there may be at one time.", "operator", "bind")
    sessions = gauge("gateway_sessions", "Bound sessions of the gateway.", "operator", "gateway")
    in_flight = gauge("in_flight", "Requests of either side that somebody waits for an answer to.", "operator")
    pace = gauge("pace_per_second", "MT a second that may be sent now; none without a limit.", "operator")
    rule = gauge("message_id_rule", "1 for the rule by which ids match; none while unknown.", "operator", "rule")
    contradictions = gauge("message_id_contradictions", "Reports in a row that spoke against the rule.", "operator")
    for operator in operators:
        for bind in operator.binds:
            up.add_metric([operator.name, bind.name], bind.up)
            used.add_metric([operator.name, bind.name], bind.window_used)
            size.add_metric([operator.name, bind.name], bind.window_size)
        for gateway in operator.gateways:
            sessions.add_metric([operator.name, gateway.name], len(gateway.sessions))
        in_flight.add_metric([operator.name], operator.in_flight)
        if operator.pace_per_s is not None:
            pace.add_metric([operator.name], operator.pace_per_s)
        rule.add_metric([operator.name, operator.message_id.rule or "none"], 1)
        contradictions.add_metric([operator.name], operator.message_id.contradictions)
    yield from (up, used, size, sessions, in_flight, pace, rule, contradictions)


def _traffic(operators: tuple[OperatorStatus, ...]) -> Iterator[Metric]:
    # The node may count more than the relay does; the relay's are there also while no operator is.
    names = dict.fromkeys(field.name for field in fields(Counters))
    names |= dict.fromkeys(name for operator in operators for name in operator.counters)
    for name in names:
        metric = counter(name, f"{name.replace('_', ' ').capitalize()}; see docs/metrics.md.", "operator")
        for operator in operators:
            metric.add_metric([operator.name], operator.counters.get(name, 0))
        yield metric


def _ring(peers: tuple[PeerStatus, ...]) -> Iterator[Metric]:
    up = gauge("peer_up", "1 while the node is linked and heard.", "peer")
    silent = gauge("peer_silent_seconds", "Seconds since the node was last heard; none while it never was.", "peer")
    version = gauge("peer_version", "Version of the frames that both nodes speak; 0 without a link.", "peer")
    info = gauge("peer_info", "Which release the node runs, or last ran; always 1.", "peer", "version")
    for peer in peers:
        if peer.release:
            info.add_metric([peer.name, peer.release], 1)
        version.add_metric([peer.name], peer.version)
        up.add_metric([peer.name], peer.linked and peer.state == "alive")
        if peer.silent_s is not None:
            silent.add_metric([peer.name], peer.silent_s)
    yield from (up, silent, version, info)
    for name, meaning in _PEER_GAUGES.items():
        yield _of_peers(gauge(f"peer_{name}", meaning, "peer"), name, peers)
    for name, meaning in _PEER_COUNTERS.items():
        yield _of_peers(counter(f"peer_{name}", meaning, "peer"), name, peers)


def _of_peers(metric: Family, field: str, peers: tuple[PeerStatus, ...]) -> Metric:
    for peer in peers:
        metric.add_metric([peer.name], getattr(peer, field))
    return metric


def _turned_away(reasons: Mapping[str, int]) -> Metric:
    metric = counter("peers_turned_away", "Connections to the ring that did not become links, by reason.", "reason")
    for reason, number in reasons.items():
        metric.add_metric([reason], number)
    return metric


def _join(join: JoinStatus) -> Iterator[Metric]:
    reached = gauge("join_gates", "Gates of the other ring that a report gets to from this node.", "cluster")
    reached.add_metric([join.cluster], len(join.gates))
    configured = gauge("join_gates_configured", "Gates of the other ring in [[join.gates]].", "cluster")
    configured.add_metric([join.cluster], join.configured)
    frames = counter("join_frames", "Frames between the two rings, at this node, by what became of them.", "result")
    for result in ("sent_across", "received", "no_way", "refused"):
        frames.add_metric([result], join.frames.get(result, 0))
    yield from (reached, configured, frames)


def _custody(custody: CustodyStatus) -> Iterator[Metric]:
    yield single("custody_items", "Reports and MO in custody.", custody.items)
    yield single("custody_unreadable", "Rows of a later release, or damaged: they are kept.", custody.unreadable)
    yield single("custody_items_limit", "custody.max_messages.", custody.max_items)
    yield single("custody_walking", "Of these: on their way round the ring.", custody.walking)
    yield single("custody_waiting", "Of these: to go round the ring again later.", custody.waiting)
    yield single("parked_items", "Reports and MO that are parked now.", custody.parked)
    yield single("parked_items_limit", "custody.max_parked.", custody.max_parked)
    # Every name stands there from the start, so that an alert on an increase sees the first one.
    states = gauge("custody_state", "Items in custody, by state.", "state")
    for state, number in custody.states.items():
        states.add_metric([state], number)
    yield states
    awaiting = gauge("custody_awaiting", "Items that wait for a word from another node.", "peer", "state")
    for peer, counts in custody.awaiting.items():
        for state, number in counts.items():
            awaiting.add_metric([peer, state], number)
    yield awaiting

    events = counter("route_events", "Steps of reports and MO in custody, by the event's name.", "event")
    for name in get_args(EventName):
        events.add_metric([name], custody.events.get(name, 0))
    yield events
    parked = counter("parked", "Reports and MO that were parked, by reason.", "reason")
    for reason in Reason:
        parked.add_metric([reason.value], custody.events.get(_PARKED_PREFIX + reason.value, 0))
    yield parked
    refused = counter("custody_refused", "What was not taken into custody, by reason.", "reason")
    for name in sorted({"custody_full", "store_not_accepting"} | custody.refused.keys()):
        refused.add_metric([name], custody.refused.get(name, 0))
    yield refused


def _hops(custody: CustodyStatus) -> Metric:
    metric = HistogramMetricFamily(
        "dlrproxy_claimed_hops", "Links that a report of this node travelled to the node that has claimed it."
    )
    buckets = [(str(float(most)), sum(n for hops, n in custody.hops.items() if hops <= most)) for most in _HOPS]
    total = sum(hops * number for hops, number in custody.hops.items())
    metric.add_metric([], [*buckets, ("+Inf", sum(custody.hops.values()))], total)
    return metric


def _summaries(summaries: SummaryStatus | None, custody: CustodyStatus) -> Iterator[Metric]:
    first = counter(
        "summary_first_hops", "Reports that another node has claimed: what summaries said of the first hop.", "result"
    )
    for result in ("right", "wrong", "none"):
        first.add_metric([result], custody.events.get(_SUMMARY_PREFIX + result, 0))
    yield first
    if summaries is None:
        return
    yield single("summary_own_messages", "Open messages that the other nodes are told of.", summaries.own)
    yield single("summary_own_bytes", "Memory for these.", summaries.own_bytes)
    yield single_counter("summary_left_out", "Open messages that found no room in a summary.", summaries.left_out)
    messages = gauge("summary_messages", "Open messages of the node that this one knows of.", "peer")
    size = gauge("summary_bytes", "Memory for these.", "peer")
    current = gauge("summary_current", "1 while the node has told all, and its changes come.", "peer")
    for peer, known in summaries.peers.items():
        messages.add_metric([peer], known.messages)
        size.add_metric([peer], known.bytes_used)
        current.add_metric([peer], known.current)
    yield from (messages, size, current)
