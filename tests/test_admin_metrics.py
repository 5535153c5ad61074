"""What Prometheus is told: every counter, every give-up, and the state of every bind and node."""

import re
from pathlib import Path

import attrs
import msgspec
import pytest
from admin_world import NOW, FakeNode, operator, pair_status, peer, quorum_status, server, standby_status
from prometheus_client.parser import text_string_to_metric_families

from dlrproxy.admin.metrics import Metrics
from dlrproxy.counters import Counters
from ring.commands import Reason


@pytest.fixture
def node():
    return FakeNode()


@pytest.fixture
def value(node):
    metrics = Metrics(node.status)

    def read(name, **labels):
        found = [
            sample.value
            for family in text_string_to_metric_families(metrics.text().decode())
            for sample in family.samples
            if (sample.name, sample.labels) == (name, labels)
        ]
        assert len(found) < 2
        return found[0] if found else None

    return read


def test_making_them_asks_nothing_and_each_scrape_asks_once(node):
    metrics = Metrics(node.status)
    assert node.calls["status"] == 0
    metrics.text()
    metrics.text()
    assert node.calls["status"] == 2


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Counters)])
def test_every_counter_of_an_operator_is_a_metric_of_its_name(node, value, name):
    node.change(operators=(operator(counters={name: 41}), operator("other", counters={})))
    assert value(f"dlrproxy_{name}_total", operator="acme") == 41
    assert value(f"dlrproxy_{name}_total", operator="other") == 0


def test_what_the_node_counts_beside_the_relay_is_a_metric_too(node, value):
    node.change(operators=(operator(counters={"expired": 5}),))
    assert value("dlrproxy_expired_total", operator="acme") == 5


def test_every_give_up_has_a_series_from_the_start(value):
    found = {reason.value: value("dlrproxy_parked_total", reason=reason.value) for reason in Reason}
    assert found == {reason.value: 0 for reason in Reason} | {"refused": 3, "unclaimed": 1}
    assert value("dlrproxy_custody_refused_total", reason="custody_full") == 2
    assert value("dlrproxy_custody_refused_total", reason="store_not_accepting") == 0


def test_custody(value):
    assert value("dlrproxy_custody_items") == 7
    assert value("dlrproxy_custody_items_limit") == 100_000
    assert value("dlrproxy_custody_walking") == 2
    assert value("dlrproxy_custody_waiting") == 3
    assert value("dlrproxy_parked_items") == 4
    assert value("dlrproxy_route_events_total", event="claimed") == 5
    assert value("dlrproxy_route_events_total", event="dropped") == 0


def test_hops_of_what_others_have_claimed(value):
    assert value("dlrproxy_claimed_hops_bucket", le="1.0") == 95
    assert value("dlrproxy_claimed_hops_bucket", le="16.0") == 97
    assert value("dlrproxy_claimed_hops_bucket", le="32.0") == value("dlrproxy_claimed_hops_count") == 98
    assert value("dlrproxy_claimed_hops_sum") == 95 + 2 * 2 + 31
    assert value("dlrproxy_summary_first_hops_total", result="right") == 95
    assert value("dlrproxy_summary_first_hops_total", result="none") == 0


def test_summaries(node, value):
    assert value("dlrproxy_summary_own_messages") == 1200
    assert value("dlrproxy_summary_own_bytes") == 6000
    assert value("dlrproxy_summary_left_out_total") == 7
    assert value("dlrproxy_summary_messages", peer="gw2") == 900
    assert value("dlrproxy_summary_bytes", peer="gw2") == 1700
    assert value("dlrproxy_summary_current", peer="gw2") == 1
    assert value("dlrproxy_summary_current", peer="gw3") == 0
    node.change(summaries=None)
    assert value("dlrproxy_summary_own_messages") is None


def test_the_join(node, value):
    assert value("dlrproxy_join_gates", cluster="south") == 1
    assert value("dlrproxy_join_gates_configured", cluster="south") == 2
    assert value("dlrproxy_join_frames_total", result="sent_across") == 30
    assert value("dlrproxy_join_frames_total", result="refused") == 0
    node.change(join=None)
    assert value("dlrproxy_join_gates", cluster="south") is None


def test_binds_and_gateways(value):
    assert value("dlrproxy_bind_up", operator="acme", bind="1") == 1
    assert value("dlrproxy_bind_up", operator="acme", bind="2") == 0
    assert value("dlrproxy_bind_window_used", operator="acme", bind="1") == 3
    assert value("dlrproxy_bind_window_size", operator="acme", bind="1") == 10
    assert value("dlrproxy_gateway_sessions", operator="acme", gateway="shop1") == 1
    assert value("dlrproxy_gateway_sessions", operator="acme", gateway="shop2") == 0
    assert value("dlrproxy_in_flight", operator="acme") == 4
    assert value("dlrproxy_message_id_rule", operator="acme", rule="hex-decimal") == 1


def test_the_pace_where_there_is_one(node, value):
    assert value("dlrproxy_pace_per_second", operator="acme") is None
    node.change(operators=(operator(pace_per_s=12.5),))
    assert value("dlrproxy_pace_per_second", operator="acme") == 12.5


@pytest.mark.parametrize(
    ("changes", "up"), [({}, 1), ({"state": "suspect"}, 0), ({"linked": False}, 0), ({"state": "dead"}, 0)]
)
def test_a_node_is_up_while_it_is_linked_and_heard(node, value, changes, up):
    node.change(ring=(peer(**changes),))
    assert value("dlrproxy_peer_up", peer="gw2") == up


def test_for_whose_word_custody_waits(node, value):
    custody = msgspec.structs.replace(node.answer.custody, states={"held": 3}, awaiting={"gw2": {"held": 3}})
    node.change(custody=custody)
    assert value("dlrproxy_custody_state", state="held") == 3
    assert value("dlrproxy_custody_awaiting", peer="gw2", state="held") == 3


def test_the_links_of_a_node(value):
    assert value("dlrproxy_peer_silent_seconds", peer="gw2") == 0.4
    assert value("dlrproxy_peer_silent_seconds", peer="gw3") is None
    assert value("dlrproxy_peer_version", peer="gw2") == 1
    assert value("dlrproxy_peer_info", peer="gw2", version="1.2.2") == 1
    assert value("dlrproxy_peer_frames_out_total", peer="gw2") == 34
    assert value("dlrproxy_peer_outbox_frames", peer="gw2") == 0


def test_the_node(node, value):
    assert value("dlrproxy_info", node="gw1", version="1.2.3", mode="ring") == 1
    assert value("dlrproxy_uptime_seconds") == 93_784
    assert (value("dlrproxy_serving"), value("dlrproxy_draining")) == (1, 0)
    node.change(draining="custody")
    assert (value("dlrproxy_serving"), value("dlrproxy_draining")) == (0, 1)


def test_the_store(node, value):
    assert value("dlrproxy_store_accepting") == 1
    assert value("dlrproxy_store_free_bytes") == 50 << 30
    node.change(store=msgspec.structs.replace(node.answer.store, accepting=False, free_bytes=None))
    assert value("dlrproxy_store_accepting") == 0
    assert value("dlrproxy_store_free_bytes") is None


def test_the_process_itself_is_measured_too(value):
    assert value("process_open_fds") > 0
    assert value("process_start_time_seconds") > 0
    assert value("process_start_time_seconds") < NOW


def test_every_connection_that_was_turned_away_is_counted_by_its_reason(value):
    assert value("dlrproxy_peers_turned_away_total", reason="wrong_secret") == 3


def test_an_active_of_a_pair(node, value):
    node.change(pair=pair_status())
    roles = {role: value("dlrproxy_role", role=role) for role in ("standby", "active", "fenced")}
    assert roles == {"standby": 0, "active": 1, "fenced": 0}
    assert value("dlrproxy_epoch") == 7
    assert value("dlrproxy_pair_serves_for_seconds") == 5.5
    assert value("dlrproxy_semi_sync_degraded") == 0
    assert value("dlrproxy_semi_sync_commits_total", result="acknowledged") == 90
    assert value("dlrproxy_replication_receiving", server="peer") == 1
    assert value("dlrproxy_replication_receiving", server="own") is None
    assert value("dlrproxy_replication_behind_transactions", stage="received") == 3
    assert value("dlrproxy_replication_behind_bytes", stage="applied") == 2048
    assert value("dlrproxy_journal_rows") == 5


def test_an_active_whose_commits_are_nowhere_else(node, value):
    pair = pair_status(other=None, not_received=None, not_applied=None)
    assert pair.semi_sync is not None
    node.change(pair=msgspec.structs.replace(pair, semi_sync=msgspec.structs.replace(pair.semi_sync, replicas=0)))
    assert value("dlrproxy_semi_sync_degraded") == 1
    assert value("dlrproxy_database_reachable", server="peer") == 0
    assert value("dlrproxy_replication_behind_bytes", stage="received") is None


def test_two_actives(node, value):
    node.change(pair=pair_status(other=server(holder="gw2", epoch=8)))
    assert value("dlrproxy_pair_both_active") == 1


def test_a_standby_has_no_store_and_no_custody_to_measure(node, value):
    node.answer = standby_status()
    assert value("dlrproxy_role", role="standby") == 1
    assert value("dlrproxy_serving") == 0
    assert value("dlrproxy_store_accepting") is None
    assert value("dlrproxy_custody_items") is None


# docs/metrics.md

DOCS = Path(__file__).parents[1] / "docs"


def test_every_metric_is_in_the_document_and_no_other(node):
    node.change(pair=pair_status())
    text = Metrics(node.status).text().decode()
    node.change(pair=None, quorum=quorum_status())
    text += Metrics(node.status).text().decode()
    exported = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE dlrproxy_")}
    counted = {f"dlrproxy_{field.name}_total" for field in attrs.fields(Counters)}
    named = set(re.findall(r"`(dlrproxy_\w+)`", (DOCS / "metrics.md").read_text()))
    assert named == {*exported, "dlrproxy_pace_per_second"} - counted | {"dlrproxy_NAME_total"}


def test_every_counter_is_in_one_of_the_documents():
    documents = (DOCS / "metrics.md").read_text() + (DOCS / "operations.md").read_text()
    in_tables = " ".join(line.split("|")[1] for line in documents.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`(\w+)`", in_tables))
    assert not {field.name for field in attrs.fields(Counters)} - named
