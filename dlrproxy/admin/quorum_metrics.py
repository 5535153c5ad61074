"""The metrics of a node of a quorum. docs/metrics.md has them all."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import Metric

from dlrproxy.admin.families import gauge, one_of, single
from dlrproxy.admin.quorum_view import QuorumStatus

ROLES: Final = ("unreachable", "no-quorum", "joining", "serving")  # as `QuorumStatus.role` has them


def quorum_metrics(quorum: QuorumStatus) -> Iterator[Metric]:
    yield one_of("role", "1 for the role that this node has.", "role", ROLES, quorum.role)
    yield single("epoch", "Of the present term of service; 0 while there is none.", quorum.epoch)
    yield single("master", "1 while this node does what is to be done once.", quorum.is_master)
    yield single("master_epoch", "Counts how often the master has changed.", quorum.master_epoch)
    if quorum.serves_for_s is not None:
        left = "Seconds that the node may go on without another certified write."
        yield single("quorum_serves_for_seconds", left, quorum.serves_for_s)
    yield single("journal_rows", "Open messages on this node's disk that the database lacks.", quorum.journal_rows)
    yield single("inbox_rows", "Custody given to this node that it has not taken.", quorum.inbox_rows)
    yield single("inbox_oldest_seconds", "Since the first of it was seen there.", quorum.inbox_oldest_s)
    yield single("database_reachable", "1 while the own database server answers.", quorum.server is not None)
    server = quorum.server
    if server is not None:
        yield single("database_primary", "1 while it says that it belongs to the quorum.", server.primary)
        yield single("database_synced", "1 while it says that it is synced.", server.state == "Synced")
        yield single("cluster_size", "Servers in its part of the cluster.", server.size)
        yield single("cluster_weight", "Of those together.", server.weight)
        yield single("cluster_conf_id", "Counts changes of membership.", server.conf_id)
    apart = "Nodes that serve over another cluster than this one: there must be none."
    yield single("nodes_apart", apart, len(quorum.apart))
    differ = gauge("settings_differ", "Settings of the other node that are not this node's.", "node")
    differing = Counter(each.node for each in quorum.differences)
    for node in quorum.members.keys() | differing.keys():
        differ.add_metric([node], differing[node])
    yield differ
    ahead = gauge("clock_ahead_seconds", "Of another node's, where they differ by a minute; below 0: behind.", "node")
    for node, by in quorum.clocks.items():
        ahead.add_metric([node], by)
    yield ahead
    taken = gauge("member_taken", "1 while the node is gone and its custody is another's.", "node")
    for node, member in quorum.members.items():
        taken.add_metric([node], member.taken)
    yield taken
