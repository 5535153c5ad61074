"""The metrics of a node of an active-passive pair. docs/metrics.md has them all."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from dlrproxy.admin.pair_view import BehindStatus, PairStatus, ServerStatus

ROLES: Final = ("standby", "catching-up", "active", "fenced", "failed")  # as `PairStatus.role` has them


def pair_metrics(pair: PairStatus) -> Iterator[Metric]:
    role = _gauge("role", "1 for the role that this node of a pair has.", "role")
    for name in ROLES:
        role.add_metric([name], name == pair.role)
    yield role
    yield _single("epoch", "The highest that is known: it counts promotions.", pair.epoch)
    yield _single("pair_serving", "1 while it listens and dials.", pair.serving)
    yield _single("pair_both_active", "1 while both servers take writes for their own node.", pair.both_active)
    if pair.serves_for_s is not None:
        left = "Seconds that the active may go on without another acknowledgement; none where it needs none."
        yield _single("pair_serves_for_seconds", left, pair.serves_for_s)
    yield _single("semi_sync_degraded", "1 while it is active and its commits are nowhere else.", pair.degraded)
    yield _single("journal_rows", "Open messages on this node's disk that the database lacks.", pair.journal_rows)
    if pair.witness_lends is not None:
        yield _single("witness_lends", "1 while the witness grants what this node asks.", pair.witness_lends)
    yield from _servers({"own": pair.own, "peer": pair.other})
    if pair.semi_sync is not None:
        commits = _counter("semi_sync_commits", "Commits of the own server, as a primary, since its start.", "result")
        commits.add_metric(["acknowledged"], pair.semi_sync.acknowledged)
        commits.add_metric(["unacknowledged"], pair.semi_sync.unacknowledged)
        yield commits
        off = _counter("semi_sync_switched_off", "How often that was switched off, since the server's start.")
        off.add_metric([], pair.semi_sync.degraded)
        yield off
    yield from _behind({"received": pair.not_received, "applied": pair.not_applied})


def _servers(servers: Mapping[str, ServerStatus | None]) -> Iterator[Metric]:
    reached = _gauge("database_reachable", "1 while the database server answers.", "server")
    writable = _gauge("database_writable", "1 while read_only is off there.", "server")
    receiving = _gauge("replication_receiving", "1 while the server receives from the other one.", "server")
    applying = _gauge("replication_applying", "1 while it applies what it has received.", "server")
    failed = _gauge("replication_failed", "1 while it says that replication has failed.", "server")
    for name, server in servers.items():
        reached.add_metric([name], server is not None)
        if server is None:
            continue
        writable.add_metric([name], server.writable)
        if server.replicates:
            receiving.add_metric([name], server.receiving)
            applying.add_metric([name], server.applying)
            failed.add_metric([name], bool(server.error))
    yield from (reached, writable, receiving, applying, failed)


def _behind(stages: Mapping[str, BehindStatus | None]) -> Iterator[Metric]:
    transactions = _gauge("replication_behind_transactions", "Those that the replica has not reached.", "stage")
    size = _gauge("replication_behind_bytes", "The size of these in the primary's log.", "stage")
    for stage, behind in stages.items():
        if behind is not None and behind.transactions is not None:
            transactions.add_metric([stage], behind.transactions)
        if behind is not None and behind.bytes is not None:
            size.add_metric([stage], behind.bytes)
    yield from (transactions, size)


def _gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dlrproxy_{name}", meaning, labels=labels)


def _counter(name: str, meaning: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"dlrproxy_{name}", meaning, labels=labels)


def _single(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dlrproxy_{name}", meaning, value=value)
