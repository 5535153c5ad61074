"""The metrics of a node of an active-passive pair. docs/metrics.md has them all."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.metrics_core import Metric

from dlrproxy.admin.families import counter, gauge, one_of, single, single_counter
from dlrproxy.admin.pair_view import BehindStatus, PairStatus, ServerStatus

ROLES: Final = ("standby", "catching-up", "active", "fenced", "failed")  # as `PairStatus.role` has them


def pair_metrics(pair: PairStatus) -> Iterator[Metric]:
    yield one_of("role", "1 for the role that this node of a pair has.", "role", ROLES, pair.role)
    yield single("epoch", "The highest that is known: it counts promotions.", pair.epoch)
    yield single("pair_serving", "1 while it listens and dials.", pair.serving)
    yield single("pair_both_active", "1 while both servers take writes for their own node.", pair.both_active)
    if pair.serves_for_s is not None:
        left = "Seconds that the active may go on without another acknowledgement; none where it needs none."
        yield single("pair_serves_for_seconds", left, pair.serves_for_s)
    yield single("semi_sync_degraded", "1 while it is active and its commits are nowhere else.", pair.degraded)
    yield single("journal_rows", "Open messages on this node's disk that the database lacks.", pair.journal_rows)
    if pair.witness_lends is not None:
        yield single("witness_lends", "1 while the witness grants what this node asks.", pair.witness_lends)
    yield from _servers({"own": pair.own, "peer": pair.other})
    if pair.semi_sync is not None:
        commits = counter("semi_sync_commits", "Commits of the own server, as a primary, since its start.", "result")
        commits.add_metric(["acknowledged"], pair.semi_sync.acknowledged)
        commits.add_metric(["unacknowledged"], pair.semi_sync.unacknowledged)
        yield commits
        off = "How often that was switched off, since the server's start."
        yield single_counter("semi_sync_switched_off", off, pair.semi_sync.degraded)
    yield from _behind({"received": pair.not_received, "applied": pair.not_applied})


def _servers(servers: Mapping[str, ServerStatus | None]) -> Iterator[Metric]:
    reached = gauge("database_reachable", "1 while the database server answers.", "server")
    writable = gauge("database_writable", "1 while read_only is off there.", "server")
    receiving = gauge("replication_receiving", "1 while the server receives from the other one.", "server")
    applying = gauge("replication_applying", "1 while it applies what it has received.", "server")
    failed = gauge("replication_failed", "1 while it says that replication has failed.", "server")
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
    transactions = gauge("replication_behind_transactions", "Those that the replica has not reached.", "stage")
    size = gauge("replication_behind_bytes", "The size of these in the primary's log.", "stage")
    for stage, behind in stages.items():
        if behind is not None and behind.transactions is not None:
            transactions.add_metric([stage], behind.transactions)
        if behind is not None and behind.bytes is not None:
            size.add_metric([stage], behind.bytes)
    yield from (transactions, size)
