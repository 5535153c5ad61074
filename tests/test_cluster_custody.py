"""The rules of custody in a cluster, each by name (`ring/sharing.py`)."""

import pytest
from attrs import evolve
from cluster_world import ANYBODY, CLUSTER, INBOX, SETTINGS, World

from protocols.peer.frames import PartOf
from protocols.smpp.constants import ESME_RSYSERR, ESME_RX_P_APPN
from ring.items import State
from ring.rows import Kind, decode_custody
from ring.settings import OperatorPolicy
from ring.sharing import MOVING_AT_ONCE


def world_with(size=3, **cluster):
    return World(size, evolve(SETTINGS, cluster=evolve(CLUSTER, **cluster)))


def kept(world, trace):
    return world.database.places().get(trace, [])


def got(world, trace):
    return [(one.node, one.gateway) for one in world.delivered if one.trace == trace]


def events(world, trace):
    return [note.event for _, note in world.notes if note.envelope.trace == trace]


def sent_on(world):
    return [dict(note.fields)["to"] for _, note in world.notes if note.event == "moved"]


def report_for(world, gateway, *, at):
    """The report "t" of a message of that gateway comes in at that node."""
    world.submit(b"m", gateway)
    world.report(at, b"m", "t")


def bind(world, node, gateway):
    world.bind(node, gateway)
    world.settle_down()


def unbind(world, node, gateway):
    world.unbind(node, gateway)
    world.settle_down()


def pass_time(world, seconds):
    world.advance(seconds)
    world.settle_down()


# --- one hop


def test_a_report_goes_to_the_node_where_its_gateway_is_bound_in_one_hop():
    world = World()
    report_for(world, "gw2", at="n0")
    world.settle_down()
    assert got(world, "t") == [("n2", "gw2")]
    assert sent_on(world) == ["n2"]
    world.check()


def test_at_its_gateways_own_node_it_goes_nowhere():
    world = World()
    report_for(world, "gw0", at="n0")
    world.settle_down()
    assert got(world, "t") == [("n0", "gw0")]
    assert sent_on(world) == []


def test_a_gateway_that_is_bound_here_too_is_not_looked_for_elsewhere():
    world = World()
    bind(world, "n1", "gw2")
    report_for(world, "gw2", at="n1")
    world.settle_down()
    assert got(world, "t") == [("n1", "gw2")]


def test_a_lost_word_that_something_came_only_costs_time():
    world = World()
    report_for(world, "gw2", at="n0")
    while not world.wires.get(("n0", "n2")):
        world.busy_steps()[0]()
    world.wires[("n0", "n2")].clear()
    world.processes["n2"].wants_collecting = False
    world.settle_down()
    assert kept(world, "t") == [("n2", INBOX)]
    pass_time(world, 5.0)
    assert got(world, "t") == [("n2", "gw2")]


def test_what_a_node_gives_away_twice_since_it_heard_no_answer_is_taken_once():
    """Its database had done it, and the connection broke before the answer: the statement is sent again."""
    world = World()
    report_for(world, "gw2", at="n0")
    while not any(row.inbox for write in world.processes["n0"].pending for row in write.rows):
        world.busy_steps()[0]()
    world.commit_unanswered("n0")
    world.collect("n2")
    there = world.processes["n2"]
    while there.pending or there.at_gateway:
        (world.commit if there.pending else world.answer)("n2")
    assert world.database.rows == {}
    world.settle_down()
    assert got(world, "t") == [("n2", "gw2")]
    assert events(world, "t").count("arrived_again") == 1
    assert world.database.rows == {}


def test_a_report_for_a_gateway_that_is_bound_nowhere_waits_until_it_binds_anywhere():
    world = World()
    unbind(world, "n2", "gw2")
    report_for(world, "gw2", at="n0")
    world.settle_down()
    pass_time(world, 300.0)
    assert (got(world, "t"), kept(world, "t")) == ([], [("n0", "custody")])
    bind(world, "n1", "gw2")
    assert got(world, "t") == [("n1", "gw2")]
    world.check()


@pytest.mark.parametrize("how", ["its gateway binds elsewhere", "its node stops"])
def test_of_an_hours_reports_no_more_move_at_once_than_one_statement_carries(how):
    world = World()
    unbind(world, "n2", "gw2")
    traces = [f"t{number}" for number in range(3 * MOVING_AT_ONCE)]
    for trace in traces:
        world.submit(trace.encode(), "gw2")
        world.report("n0", trace.encode(), trace)
    world.settle_down()
    assert all(kept(world, trace) == [("n0", "custody")] for trace in traces)
    if how == "its node stops":
        world.do("n0", world.processes["n0"].machine.leave(world.now))
    else:
        world.bind("n1", "gw2")
    most = 0
    while steps := world.busy_steps():
        steps[0]()
        most = max(most, world.processes["n0"].machine.by_state()[State.MOVING])
    assert most == MOVING_AT_ONCE
    world.settle_down()
    if how == "its node stops":
        assert all(kept(world, trace) == [("n1", "custody")] for trace in traces)
        assert not world.processes["n0"].machine.handing_on
        bind(world, "n1", "gw2")
    assert [got(world, trace) for trace in traces] == [[("n1", "gw2")]] * len(traces)
    world.check()


def test_what_is_queued_for_a_gateway_follows_it_to_another_node():
    world = World()
    world.submit(b"m", "gw2")
    world.room = 0
    world.report("n0", b"m", "t")
    world.settle_down()
    assert kept(world, "t") == [("n2", "custody")]
    world.room = 10
    world.unbind("n2", "gw2")
    world.bind("n1", "gw2")
    pass_time(world, 2.0)
    pass_time(world, 2.0)
    assert got(world, "t") == [("n1", "gw2")]
    world.check()


def test_two_nodes_that_have_not_heard_of_a_gateways_move_do_not_throw_its_reports_to_and_fro():
    world = World()
    report_for(world, "gw2", at="n0")
    world.unbind("n2", "gw2")
    world.bind("n1", "gw2")
    for wire in world.wires.values():  # nobody hears of it
        wire.clear()
    for _ in range(200):
        if steps := world.busy_steps():
            steps[0]()
    assert len(sent_on(world)) <= 2


def test_reports_of_one_message_move_together_and_in_order():
    world = World()
    unbind(world, "n2", "gw2")
    world.submit(b"m", "gw2")
    for number in range(3):
        world.report("n0", b"m", f"t{number}", final=number == 2)
    world.settle_down()
    bind(world, "n2", "gw2")
    assert [one.trace for one in world.delivered] == ["t0", "t1", "t2"]
    assert sent_on(world) == ["n2"] * 3
    world.check()


def test_their_order_outlives_a_crash_of_the_node_that_they_have_come_to():
    world = World()
    world.room = 0
    world.submit(b"m", "gw2")
    for number in range(3):
        world.report("n0", b"m", f"t{number}", final=number == 2)
    world.settle_down()
    world.crash("n2")
    world.room = 10
    world.start("n2")
    world.settle_down()
    assert [one.trace for one in world.delivered] == ["t0", "t1", "t2"]


def test_an_older_report_that_comes_back_from_a_gone_node_goes_before_one_that_waits():
    world = World()
    unbind(world, "n2", "gw2")
    world.submit(b"m", "gw2")
    world.report("n0", b"m", "older", final=False)
    pass_time(world, 1.0)
    world.report("n1", b"m", "later")
    world.settle_down()
    world.crash("n0")
    world.take_over("n0", "n1")
    world.settle_down()
    bind(world, "n1", "gw2")
    pass_time(world, 2.0)
    assert [one.trace for one in world.delivered] == ["older", "later"]
    world.check_now()


@pytest.mark.parametrize(("final", "delivered"), [(False, []), (True, [("n1", "gw1")])])
def test_whose_message_is_found_late_and_is_over_gets_no_intermediate_report_any_more(final, delivered):
    world = World()
    world.report("n0", b"late", "t", final=final)
    world.settle_down()
    world.submit(b"late", "gw1")
    world.owners["t"] = "gw1"
    world.database.finished.add(b"late")
    pass_time(world, 10.0)
    assert got(world, "t") == delivered
    assert ("superseded" in events(world, "t")) is not final
    world.check()


def test_after_claim_for_s_it_is_parked():
    world = World()
    unbind(world, "n2", "gw2")
    report_for(world, "gw2", at="n0")
    world.settle_down()
    pass_time(world, SETTINGS.claim_for_s + 1)
    assert world.reason("t") == "owner_unreachable"


def test_an_intermediate_report_that_comes_after_the_final_one_was_delivered_elsewhere_is_not():
    world = World()
    unbind(world, "n2", "gw2")
    world.submit(b"m", "gw2")
    world.report("n0", b"m", "t", final=False)
    world.settle_down()
    world.database.finished.add(b"m")  # by a node where its gateway was bound for a moment
    bind(world, "n1", "gw2")
    assert got(world, "t") == []
    assert events(world, "t")[-1] == "superseded"
    world.check_now()


# --- nobody's


def test_a_report_that_nobody_owns_is_looked_for_and_then_parked():
    world = World()
    world.report("n0", b"nobody", "t")
    world.settle_down()
    pass_time(world, 25.0)
    assert kept(world, "t") == [("n0", "custody")]
    pass_time(world, 10.0)
    assert world.reason("t") == "unclaimed"
    assert sent_on(world) == []


def test_a_message_that_is_written_a_moment_later_still_gets_its_report():
    world = World()
    world.report("n0", b"late", "t")
    world.settle_down()
    world.owners["t"] = "gw1"
    world.submit(b"late", "gw1")
    pass_time(world, 6.0)
    assert got(world, "t") == [("n1", "gw1")]


def test_a_report_that_stood_in_line_for_longer_than_it_is_looked_for_is_looked_for_then():
    world = World()
    unbind(world, "n2", "gw2")
    for trace, final in (("first", False), ("second", True)):
        world.report("n0", b"late", trace, final=final)
        world.settle_down()
        world.owners[trace] = "gw2"
    world.submit(b"late", "gw2")
    pass_time(world, 10.0)  # the first is found, and waits for its gateway
    pass_time(world, CLUSTER.unmatched_for_s)
    bind(world, "n2", "gw2")
    pass_time(world, 10.0)
    assert [one.trace for one in world.delivered] == ["first", "second"]
    assert kept(world, "second") == []
    world.check()


def test_one_that_is_recorded_at_its_own_node_gets_it_at_once():
    world = World()
    world.report("n0", b"late", "t")
    world.settle_down()
    world.submit(b"late", "gw1")
    world.do("n0", world.processes["n0"].machine.appeared("acme", b"late", world.now))
    world.settle_down()
    assert got(world, "t") == [("n1", "gw1")]


def test_while_a_node_is_out_of_reach_nobodys_report_is_not_said_to_be_nobodys():
    """It may know of a message that it could not write yet."""
    settings = evolve(SETTINGS, operators={"acme": OperatorPolicy("drop")})
    world = World(3, settings)
    world.crash("n2")
    world.report("n0", b"nobody", "t")
    for _ in range(8):
        world.settle_down()
        pass_time(world, 5.0)
    assert world.reason("t") == "owner_unreachable"


# --- being delivered


def test_a_row_says_so_before_a_gateway_gets_it():
    world = World()
    report_for(world, "gw0", at="n0")
    world.commit("n0")
    assert got(world, "t") == []
    world.commit("n0")
    assert got(world, "t") == [("n0", "gw0")]
    assert world.row("t").delivering


@pytest.mark.parametrize("unsent", [True, False], ids=["no room", "a temporary error"])
def test_and_not_any_more_once_a_gateway_has_not_taken_it(unsent):
    world = World()
    world.submit(b"m", "gw0")
    if unsent:
        world.room = 0
    world.report("n0", b"m", "t")
    world.commit("n0")
    world.commit("n0")
    if not unsent:
        world.answer("n0", ESME_RSYSERR)
    while world.processes["n0"].pending:
        world.commit("n0")
    assert not world.row("t").delivering


@pytest.mark.parametrize("policy", ["park", "deliver"])
def test_what_a_dead_node_was_delivering_is_parked_or_delivered_once_more(policy):
    world = world_with(maybe_delivered=policy)
    report_for(world, "gw0", at="n0")
    world.commit("n0")
    world.commit("n0")
    world.crash("n0")
    world.take_over("n0", "n1")
    bind(world, "n1", "gw0")
    if policy == "park":
        assert world.reason("t") == "maybe_delivered"
        assert len(got(world, "t")) == 1
    else:
        assert got(world, "t") == [("n0", "gw0"), ("n1", "gw0")]


def test_what_cannot_be_parked_yet_is_parked_by_the_heirs_heir():
    world = World(3, evolve(SETTINGS, max_parked=0))
    report_for(world, "gw0", at="n0")
    world.commit("n0")
    world.commit("n0")
    world.crash("n0")
    world.take_over("n0", "n1")
    bind(world, "n1", "gw0")
    assert kept(world, "t") == [("n1", "custody")]
    world.settings = SETTINGS  # the next one has room
    world.crash("n2")
    world.start("n2")
    world.crash("n1")
    world.take_over("n1", "n2")
    bind(world, "n2", "gw0")
    assert world.reason("t") == "maybe_delivered"
    assert len(got(world, "t")) == 1


def test_a_node_that_restarts_in_time_delivers_it_again_itself():
    world = World()
    report_for(world, "gw0", at="n0")
    world.commit("n0")
    world.commit("n0")
    world.crash("n0")
    world.start("n0")
    world.settle_down()
    assert got(world, "t") == [("n0", "gw0"), ("n0", "gw0")]
    world.check()


def test_a_permanent_error_parks_it_where_its_gateway_is():
    world = World()
    report_for(world, "gw1", at="n0")
    while not world.processes["n1"].at_gateway:
        world.busy_steps()[0]()
    world.answer("n1", ESME_RX_P_APPN)
    world.settle_down()
    assert world.reason("t") == "refused"
    assert kept(world, "t") == [("n1", "parked")]


# --- taking over


def test_custody_of_a_dead_node_goes_on_at_its_heir():
    world = World()
    unbind(world, "n2", "gw2")
    report_for(world, "gw2", at="n0")
    world.settle_down()
    world.crash("n0")
    world.take_over("n0", "n1")
    world.settle_down()
    assert kept(world, "t") == [("n1", "custody")]
    bind(world, "n2", "gw2")
    pass_time(world, 2.0)
    assert got(world, "t") == [("n2", "gw2")]
    world.check()


def test_what_nobody_had_been_found_for_is_looked_for_by_the_heir():
    world = World()
    world.report("n0", b"late", "t")
    world.settle_down()
    world.crash("n0")
    world.take_over("n0", "n1")
    world.owners["t"] = "gw2"
    world.submit(b"late", "gw2")
    world.settle_down()
    pass_time(world, 2.0)
    assert got(world, "t") == [("n2", "gw2")]


@pytest.mark.parametrize("clock_s", [-100_000.0, -5.0, 5.0, 100_000.0])
def test_it_is_looked_for_as_long_as_ever_whatever_the_clock_of_the_dead_node_said(clock_s):
    world = World(settings=evolve(SETTINGS, operators={"acme": OperatorPolicy("local", "gw1")}))
    world.now += clock_s
    world.report("n0", b"late", "t")
    world.settle_down()
    world.crash("n0")
    world.now -= clock_s
    world.take_over("n0", "n1")
    world.settle_down()
    pass_time(world, CLUSTER.unmatched_for_s - 6.0)
    world.start("n0")
    world.settle_down()
    assert got(world, "t") == []
    pass_time(world, 60.0)
    pass_time(world, 60.0)
    assert got(world, "t") == [("n1", "gw1")]


def test_a_node_that_stood_still_while_it_was_taken_over_from_writes_nothing_more():
    world = World()
    unbind(world, "n2", "gw2")
    report_for(world, "gw2", at="n0")
    world.settle_down()
    world.stop("n0")
    world.take_over("n0", "n1")
    world.settle_down()
    world.go_on("n0")
    world.bind("n2", "gw2")  # both would deliver it now
    world.settle_down()
    assert "n0" not in world.processes
    world.start("n0")
    pass_time(world, 2.0)
    assert got(world, "t") == [("n2", "gw2")]
    world.check()


def test_a_row_that_was_moved_and_not_taken_in_is_taken_over_as_well():
    world = World()
    report_for(world, "gw2", at="n0")
    while kept(world, "t") != [("n2", INBOX)]:
        world.commit("n0")
    world.crash("n2")
    world.take_over("n2", "n1")
    bind(world, "n1", "gw2")
    assert got(world, "t") == [("n1", "gw2")]
    world.check()


def test_an_heir_answers_for_what_a_dead_coordinator_has_decided():
    world = World()
    world.mo("n0", "s/0", part=PartOf(b"message"))
    world.settle_down()
    [place] = [place for place in world.database.rows if place[1] == "custody"]
    heir = next(name for name in world.names if name != place[0])
    world.crash(place[0])
    world.take_over(place[0], heir)
    world.settle_down()
    assert world.database.rows == {}  # the heir had heard of it


def test_also_one_that_it_had_not_heard_of():
    world = World()
    world.stop("n1")
    world.stop("n2")
    world.mo("n0", "s/0", part=PartOf(b"message"))
    world.settle_down()
    if not [place for place in world.database.rows if place[1] == "custody"]:
        return  # another node decides about this message
    world.wires.clear()
    world.crash("n0")
    world.go_on("n1")
    world.take_over("n0", "n1")
    world.settle_down()
    assert {place[:2] for place in world.database.rows} == {("n1", "custody")}
    pass_time(world, SETTINGS.decision_for_s + 1)
    assert world.database.rows == {}


# --- standing in


def lost_with_its_node(world):
    """gw2 is lost with n2, and a report for it is at n0."""
    world.submit(b"m", "gw2")
    world.crash("n2")
    world.report("n0", b"m", "t")
    world.settle_down()


def test_reports_of_a_gateway_that_is_lost_with_its_node_go_to_its_stand_in():
    world = world_with(stand_in={"gw2": "gw1"})
    lost_with_its_node(world)
    pass_time(world, 11.0)
    assert got(world, "t") == []
    pass_time(world, 2.0)
    assert got(world, "t") == [("n1", "gw1")]
    assert "stood_in" in events(world, "t")
    world.check({"gw2": "gw1"})


def test_without_one_they_wait():
    world = World()
    lost_with_its_node(world)
    pass_time(world, 500.0)
    assert got(world, "t") == []


def test_nobody_stands_in_for_a_gateway_that_is_bound_at_another_node():
    world = world_with(stand_in={"gw2": "gw1"})
    lost_with_its_node(world)
    world.advance(5.0)
    bind(world, "n0", "gw2")
    assert got(world, "t") == [("n0", "gw2")]


def test_nobody_stands_in_for_one_that_has_only_unbound():
    world = world_with(stand_in={"gw2": "gw1"})
    unbind(world, "n2", "gw2")
    report_for(world, "gw2", at="n0")
    world.settle_down()
    pass_time(world, 500.0)
    assert got(world, "t") == []


def test_nobody_stands_in_for_one_whose_node_is_back_in_time():
    world = world_with(stand_in={"gw2": "gw1"})
    lost_with_its_node(world)
    pass_time(world, 11.0)
    world.bound["n2"].clear()
    world.start("n2")
    world.settle_down()
    pass_time(world, 100.0)
    assert got(world, "t") == []
    bind(world, "n2", "gw2")
    assert got(world, "t") == [("n2", "gw2")]


# --- MO


def test_an_mo_for_a_gateway_by_rule_goes_there_in_one_hop():
    world = World()
    world.mo("n0", "s/0", "gw2")
    world.settle_down()
    assert got(world, "s/0") == [("n2", "gw2")]
    world.check()


def test_an_mo_without_a_rule_goes_to_a_bound_gateway_and_nobody_claims_it():
    world = World()
    unbind(world, "n0", "gw0")
    world.mo("n0", "s/0")
    world.settle_down()
    assert len(got(world, "s/0")) == 1
    assert "claimed" not in events(world, "s/0")
    world.check()


def test_parts_of_one_mo_go_to_one_gateway():
    world = World()
    part = PartOf(b"message")
    for number, name in enumerate(("n0", "n1", "n2")):
        world.mo(name, f"s/{number}", part=part)
    world.settle_down()
    pass_time(world, 20.0)
    assert len({gateway for number in range(3) for _, gateway in got(world, f"s/{number}")}) == 1
    assert all(world.owners[f"s/{number}"] == ANYBODY for number in range(3))
    world.advance(1000.0)  # the decision is forgotten
    world.settle_down()
    world.check()


def test_parts_follow_their_gateway_to_the_node_where_it_binds_next():
    world = World()
    part = PartOf(b"message")
    world.mo("n0", "s/0", part=part)
    world.settle_down()
    [(node, gateway)] = got(world, "s/0")
    other = next(name for name in world.names if name != node)
    world.unbind(node, gateway)
    world.bind(other, gateway)
    world.settle_down()
    world.mo("n0", "s/1", part=part)
    world.settle_down()
    world.advance(20.0)
    world.settle_down()
    assert got(world, "s/1") == [(other, gateway)]


def test_what_is_decided_for_parts_names_a_gateway_and_no_node():
    """So two nodes that have decided apart contradict each other only by the gateway."""
    world = World()
    world.mo("n0", "s/0", part=PartOf(b"message"))
    world.settle_down()
    [(_, gateway)] = got(world, "s/0")
    [decision] = [decode_custody(row) for place, row in world.database.rows.items() if place[1] == "custody"]
    assert (decision.kind, decision.envelope.gateway, decision.envelope.node) == (Kind.DECISION, gateway, "")


# --- a node that stops


def test_a_node_that_stops_leaves_what_waits_to_another_one():
    world = World()
    unbind(world, "n2", "gw2")
    report_for(world, "gw2", at="n0")
    world.report("n0", b"nobody", "u")
    world.settle_down()
    machine = world.processes["n0"].machine
    world.do("n0", machine.leave(world.now))
    assert machine.handing_on
    world.settle_down()
    assert not machine.handing_on
    assert kept(world, "t") == kept(world, "u") == [("n1", "custody")]


def test_it_keeps_everything_when_it_is_alone():
    world = World()
    world.crash("n1")
    world.crash("n2")
    world.report("n0", b"nobody", "u")
    world.settle_down()
    machine = world.processes["n0"].machine
    world.do("n0", machine.leave(world.now))
    assert not machine.handing_on
    assert kept(world, "u") == [("n0", "custody")]
