"""The metrics of a node of a quorum. docs/metrics.md has them all."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from dlrproxy.admin.quorum_view import QuorumStatus

ROLES: Final = ("unreachable", "no-quorum", "joining", "serving")  # as `QuorumStatus.role` has them


def quorum_metrics(quorum: QuorumStatus) -> Iterator[Metric]:
    role = _gauge("role", "1 for the role that this node has.", "role")
    for name in ROLES:
        role.add_metric([name], name == quorum.role)
    yield role
    yield _single("epoch", "Of the present term of service; 0 while there is none.", quorum.epoch)
    yield _single("master", "1 while this node does what is to be done once.", quorum.is_master)
    yield _single("master_epoch", "Counts how often the master has changed.", quorum.master_epoch)
    if quorum.serves_for_s is not None:
        left = "Seconds that the node may go on without another certified write."
        yield _single("quorum_serves_for_seconds", left, quorum.serves_for_s)
    yield _single("journal_rows", "Open messages on this node's disk that the database lacks.", quorum.journal_rows)
    yield _single("inbox_rows", "Custody given to this node that it has not taken.", quorum.inbox_rows)
    yield _single("inbox_oldest_seconds", "Since the first of it was seen there.", quorum.inbox_oldest_s)
    yield _single("database_reachable", "1 while the own database server answers.", quorum.server is not None)
    server = quorum.server
    if server is not None:
        yield _single("database_primary", "1 while it says that it belongs to the quorum.", server.primary)
        yield _single("database_synced", "1 while it says that it is synced.", server.state == "Synced")
        yield _single("cluster_size", "Servers in its part of the cluster.", server.size)
        yield _single("cluster_weight", "Of those together.", server.weight)
        yield _single("cluster_conf_id", "Counts changes of membership.", server.conf_id)
    apart = "Nodes that serve over another cluster than this one: there must be none."
    yield _single("nodes_apart", apart, len(quorum.apart))
    differ = _gauge("settings_differ", "Settings of the other node that are not this node's.", "node")
    differing = Counter(each.node for each in quorum.differences)
    for node in quorum.members.keys() | differing.keys():
        differ.add_metric([node], differing[node])
    yield differ
    taken = _gauge("member_taken", "1 while the node is gone and its custody is another's.", "node")
    for node, member in quorum.members.items():
        taken.add_metric([node], member.taken)
    yield taken


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dlrproxy_{name}", text, labels=labels)


def _single(name: str, text: str, value: float) -> Metric:
    metric = _gauge(name, text)
    metric.add_metric([], value)
    return metric
