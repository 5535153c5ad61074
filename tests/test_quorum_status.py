"""What a node of a quorum shows: its status, on the screen, as metrics, and why it does not serve."""

import attrs
import pytest
from admin_world import FakeNode, quorum_status
from rich.console import Console

from dlrproxy.admin.quorum_metrics import quorum_metrics
from dlrproxy.admin.quorum_view import DifferenceStatus
from dlrproxy.cli.quorum_status import shown_quorum
from dlrproxy.config.database import Quorum
from dlrproxy.modes.cluster import MasterRow, Member, Observation, QuorumSettings, Rows, Server
from dlrproxy.modes.inbox import MOST, Inbox, Waiting
from dlrproxy.modes.lease import Master
from dlrproxy.modes.quorum import Quorum as Machine
from dlrproxy.modes.quorum_node import HOME, home_of
from dlrproxy.modes.quorum_status import quorum_status as status_of

SYNCED = Server(primary=True, ready=True, state="Synced", size=3, weight=4, conf_id=9, uuid="u")


def said(status):
    console = Console(width=200, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(shown_quorum(status))
    return captured.get()


def of_machine(machine, seen, **values):
    return status_of(
        machine,
        Master(QuorumSettings(me="gw1", home=b"1")),
        seen,
        10.0,
        me="gw1",
        nodes=("gw1", "gw2"),
        quorum=Quorum(weights={"gw1": 2}, sites={"gw1": "north", "gw2": "south"}),
        **({"serving": False, "is_master": False, "journal_rows": 0, "inbox": Waiting(0, 0.0), "clocks": {}} | values),
    )


def test_status_says_what_the_driver_has_seen():
    machine = Machine(QuorumSettings(me="gw1", home=b"1", fence_after_s=8.0))
    rows = Rows(
        members={"gw1": Member(epoch=1, beat=1, home=b"1"), "gw2": Member(epoch=4, beat=1, taken=True, heir="gw1")},
        master=MasterRow(epoch=5, holder="gw2", beat=3),
    )
    seen = Observation(server=SYNCED, rows=rows)
    machine.observe(seen, 9.0)
    machine.vouched(2, 9.0)
    machine.observe(seen, 9.0)
    found = of_machine(machine, seen, serving=True)
    assert (found.role, found.epoch, found.serves_for_s) == ("serving", 2, 7.0)
    assert (found.master, found.master_epoch, found.is_master, found.site) == ("gw2", 5, False, "north")
    assert (found.server.size, found.server.weight, found.server.primary) == (3, 4, True)
    assert (found.members["gw2"].taken, found.members["gw2"].heir) == (True, "gw1")
    assert {loss.of: loss.survived for loss in found.losses} == {
        "gw1": False, "gw2": True, "site north": False, "site south": True,
    }  # fmt: skip


def test_weights_that_the_servers_do_not_have_are_named():
    machine = Machine(QuorumSettings(me="gw1", home=b"1"))
    text = said(of_machine(machine, Observation(server=attrs.evolve(SYNCED, size=2, weight=2))))
    assert "all servers weigh 2 together, and 3 by [quorum]" in text
    for fine in (attrs.evolve(SYNCED, size=2, weight=3), attrs.evolve(SYNCED, size=1, weight=1)):
        assert "by [quorum]" not in said(of_machine(machine, Observation(server=fine)))


def test_a_node_that_is_set_differently_is_named_on_the_screen_and_counted():
    differences = tuple(
        DifferenceStatus(node="gw2", key=key, here="6", there="9") for key in ("lease_s", "takeover_after_s")
    )
    status = quorum_status(differences=differences)
    assert "gw2 differs in lease_s: 9; here 6" in said(status)
    (metric,) = [metric for metric in quorum_metrics(status) if metric.name == "dlrproxy_settings_differ"]
    assert {sample.labels["node"]: sample.value for sample in metric.samples} == {"gw1": 0, "gw2": 2}


def test_a_node_that_was_taken_out_of_the_configuration_is_not_shown_as_gone():
    rows = Rows(members={"old": Member(epoch=4, beat=1, taken=True, heir="gw1")}, master=MasterRow())
    machine = Machine(QuorumSettings(me="gw1", home=b"1"))
    assert not of_machine(machine, Observation(server=SYNCED, rows=rows)).members


def test_a_clock_that_is_wrong_is_shown():
    machine = Machine(QuorumSettings(me="gw1", home=b"1"))
    text = said(of_machine(machine, Observation(server=SYNCED), clocks={"gw2": 86_400.0, "gw3": -120.0}))
    assert "its clock is 86,400 s ahead of that of gw2" in text
    assert "its clock is 120 s behind that of gw3" in text


def test_a_clock_that_is_wrong_is_a_metric():
    machine = Machine(QuorumSettings(me="gw1", home=b"1"))
    found = of_machine(machine, Observation(server=SYNCED), clocks={"gw2": 86_400.0})
    [ahead] = [metric for metric in quorum_metrics(found) if metric.name == "dlrproxy_clock_ahead_seconds"]
    assert [(sample.labels, sample.value) for sample in ahead.samples] == [({"node": "gw2"}, 86_400.0)]


def test_a_silent_server_leaves_little_to_say():
    machine = Machine(QuorumSettings(me="gw1", home=b"1"))
    machine.observe(Observation(server=None), 0.0)
    found = of_machine(machine, Observation(server=None), trouble="it says 1045: Access denied")
    assert (found.role, found.server, found.master, found.members) == ("unreachable", None, "", {})
    assert "gives no answer" in said(found)
    assert "1045: Access denied" in said(found)


def test_the_screen_names_who_is_gone_what_waits_and_what_is_not_survived():
    text = said(quorum_status(apart=("gw4", "gw5")))
    assert "TWO CLUSTERS: gw4, gw5 serve over another one" in text
    assert "this node is the master" in text
    assert "gone: gw2 (its custody went to gw3)" in text
    assert "does NOT survive the loss of: site north" in text
    assert "2 ids in the journal" in text
    assert "in the quorum, 2 servers of weight 2" in text


@pytest.mark.parametrize(
    ("role", "reasons"), [("serving", ()), ("no-quorum", ("its role is no-quorum: the other half",))]
)
def test_health_names_the_role(role, reasons):
    node = FakeNode()
    node.change(quorum=quorum_status(role=role, why="the other half"))
    assert node.status().why_not_serving == reasons


def test_a_data_directory_keeps_its_id(tmp_path):
    made = home_of(tmp_path)
    assert home_of(tmp_path) == made
    assert len(made) == 16
    (tmp_path / HOME).write_text("cut off")
    assert home_of(tmp_path) not in (made, b"")


def test_a_server_that_left_the_quorum_is_shown_as_such():
    server = attrs.evolve(SYNCED, primary=False, ready=False, state="Initialized")
    machine = Machine(QuorumSettings(me="gw1", home=b"1"))
    machine.observe(Observation(server=server), 0.0)
    assert "Initialized, NOT in the quorum" in said(of_machine(machine, Observation(server=server)))


def test_the_first_row_of_an_inbox_is_as_old_as_it_was_seen_and_others_come_and_go():
    inbox = Inbox()
    assert inbox.waiting(5.0) == Waiting(0, 0.0)
    inbox.observe([b"b", b"c"], 10.0)
    inbox.observe([b"a", b"c"], 11.0)
    assert inbox.waiting(13.0) == Waiting(2, 3.0)
    inbox.observe(None, 14.0)  # the server does not say
    assert inbox.waiting(15.0) == Waiting(2, 5.0)
    inbox.observe([b"a"], 16.0)
    assert inbox.waiting(16.0) == Waiting(1, 5.0)
    inbox.observe([], 17.0)
    assert inbox.waiting(17.0) == Waiting(0, 0.0)


def test_status_and_metrics_show_what_is_in_the_inbox_and_since_when():
    machine = Machine(QuorumSettings(me="gw1", home=b"1"))
    found = of_machine(machine, Observation(server=SYNCED), inbox=Waiting(MOST, 12.4))
    assert (found.inbox_rows, found.inbox_oldest_s) == (MOST, 12.4)
    assert "1,000 in its inbox, the first for 12 s" in said(found)
    samples = {sample.name: sample.value for metric in quorum_metrics(found) for sample in metric.samples}
    assert (samples["dlrproxy_inbox_rows"], samples["dlrproxy_inbox_oldest_seconds"]) == (MOST, 12.4)
    assert "inbox" not in said(of_machine(machine, Observation(server=SYNCED)))
