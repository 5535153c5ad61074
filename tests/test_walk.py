"""The walk where links are cut and nodes go: every node that can be reached is asked, whatever way leads there."""

import itertools

import pytest
from attrs import evolve
from custody_world import SETTINGS, World

from ring.topology import Topology

NAMES = ("n0", "n1", "n2", "n3")


def route(world):
    return [(sender, to) for sender, to, _ in world.forwards]


def test_a_lap_goes_round_links_that_are_cut_between_others():
    world = World(4)
    world.cut_link("n0", "n1")
    world.cut_link("n2", "n3")
    world.submit("n3", b"id1")
    world.cut_link("n0", "n3")  # until it is there by another way
    world.report("n0", b"id1", "t1", owner="n3")
    while ("n1", "n3") not in route(world):
        world.busy_steps()[0]()
    assert route(world) == [("n0", "n2"), ("n2", "n1"), ("n1", "n3")]
    world.heal_link("n0", "n3")
    world.recover()
    world.check()
    assert [delivery.node for delivery in world.delivered] == ["n3"]


@pytest.mark.parametrize("owner", ["n1", "n2", "n3"])
@pytest.mark.parametrize("cut", [("n0", "n1"), ("n1", "n2"), ("n2", "n3"), ("n3", "n0")])
def test_with_one_link_of_the_ring_cut_the_owner_gets_it_at_the_latest_when_the_link_is_whole(owner, cut):
    world = World(4)
    world.cut_link(*cut)
    world.submit(owner, b"id1")
    world.report("n0", b"id1", "t1", owner=owner)
    world.settle_down()
    if set(cut) != {"n0", owner}:  # then it asks its origin in vain
        assert [delivery.node for delivery in world.delivered] == [owner]
    world.recover()
    world.check()
    assert [delivery.node for delivery in world.delivered] == [owner]


def test_what_was_given_up_since_its_owner_could_not_answer_its_origin_is_delivered_when_the_link_is_whole():
    world = World(3, evolve(SETTINGS, claim_for_s=0.0))
    world.cut_link("n0", "n2")
    world.submit("n2", b"id1")
    world.report("n0", b"id1", "t1", owner="n2")
    for _ in range(3):
        world.settle_down()
        world.advance(20)
    assert ("n0", "parked") in world.custodies("t1")
    assert ("n2", "custody") in world.custodies("t1")
    world.recover()
    world.check()
    assert [delivery.node for delivery in world.delivered] == ["n2"]


def test_a_forwarder_that_dies_with_the_copy_in_hand_costs_no_time_out():
    world = World(4)
    world.submit("n2", b"id1")
    world.report("n0", b"id1", "t1", owner="n2")
    world.commit("n0")
    world.deliver_frame(("n0", "n1"))
    assert route(world) == [("n0", "n1"), ("n1", "n2")]
    world.crash("n1")  # what it had sent on is lost with it
    world.settle_down()
    assert route(world)[2] == ("n0", "n2")
    assert [delivery.node for delivery in world.delivered] == ["n2"]
    world.check()


def test_a_node_that_dies_two_hops_away_with_the_copy_in_hand_costs_no_time_out():
    world = World(4)
    world.submit("n3", b"id1")
    world.report("n0", b"id1", "t1", owner="n3")
    world.commit("n0")
    world.deliver_frame(("n0", "n1"))
    assert route(world) == [("n0", "n1"), ("n1", "n2")]
    world.crash("n2")  # with what was on its way to it
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n3"]
    world.check()


def test_a_forwarder_that_is_stuck_with_the_copy_in_hand_costs_one_lap_and_its_late_copy_nothing():
    world = World(4)
    world.submit("n2", b"id1")
    world.report("n0", b"id1", "t1", owner="n2")
    world.commit("n0")
    world.deliver_frame(("n0", "n1"))
    stuck = world.wires["n1", "n2"].popleft()
    for _ in range(4):
        world.advance(SETTINGS.lap_timeout_s)
        world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n2"]
    world.wires["n1", "n2"].append(stuck)
    world.settle_down()
    world.check()
    assert len(world.delivered) == 1


def test_what_waits_for_a_node_sets_out_at_once_when_that_leaves_the_table():
    """It may be over then: the lap was not complete for want of that node alone."""
    world = World(3)
    world.crash("n2")
    world.report("n0", b"id1", "t1", owner="")
    world.settle_down()
    machine = world.nodes["n0"].machine
    assert machine.count().waiting == 1
    world.forwards.clear()
    world.do("n0", machine.retopologize(Topology(("n0", "n1"), "n0"), world.now))
    world.settle_down()
    assert route(world)[0] == ("n0", "n1")
    assert [dict(note.fields)["complete"] for name, note in world.notes if note.event == "waiting"] == [False, True]


@pytest.mark.parametrize("summaries", [False, True])
@pytest.mark.parametrize(("stuck", "owner"), list(itertools.permutations(NAMES[1:], 2)))
def test_a_node_that_looks_for_nothing_though_it_is_alive_keeps_no_report_from_the_others(stuck, owner, summaries):
    """Its disk hangs, say: it is heard, and answers nothing. Each lap that ends so begins at another node."""
    world = World(4, summaries=summaries)
    world.submit(owner, b"id1")
    world.report("n0", b"id1", "t1", owner=owner)
    for _ in range(3 * len(NAMES)):
        while steps := world.busy_steps():
            for sender in world.names:
                world.wires.pop((sender, stuck), None)
            if steps := world.busy_steps():
                steps[0]()
        world.advance(SETTINGS.walk_retry_max_s)
    assert [delivery.node for delivery in world.delivered] == [owner]
