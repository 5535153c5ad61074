"""Two joined rings: a report whose owner is in the other one gets there, once, whatever fails on its way."""

import random

import attrs
import pytest
from custody_world import SETTINGS
from joined_world import JoinedWorld

from protocols.peer.frames import Relayed
from ring.commands import Table
from ring.items import State
from ring.settings import OperatorPolicy
from ring.topology import Topology

# All nodes as gates; or one a ring, so that origin and owner are none.
GATES = pytest.mark.parametrize("gates", [None, ("n1", "s0")], ids=["all are gates", "one gate a ring"])


def crossing(gates=None, **more):
    """A report at n0 whose owner is s1, and nothing has happened yet."""
    world = JoinedWorld(2, 2, gates, **more)
    world.submit("s1", b"m1")
    world.report("n0", b"m1", "t1", owner="s1")
    return world


def events(world, trace):
    return [(note.event, name) for name, note in world.notes if note.envelope.trace == trace]


def reasons(world, trace):
    return [dict(n.fields)["reason"] for _, n in world.notes if n.event == "parked" and n.envelope.trace == trace]


@GATES
def test_an_owner_in_the_other_ring_gets_it_once_and_nothing_is_left(gates):
    world = crossing(gates)
    world.settle_down()
    world.check()
    assert [(delivery.node, delivery.trace) for delivery in world.delivered] == [("s1", "t1")]
    steps = events(world, "t1")
    assert steps.index(("forwarded", "n0")) < steps.index(("crossed", "n0")) < steps.index(("claimed", "s1"))
    [settled] = [dict(note.fields) for _, note in world.notes if note.event == "settled"]
    assert settled["by"] == "south/s1"


def test_a_ring_is_asked_to_the_end_before_the_other_one_is():
    world = JoinedWorld(3, 1)
    world.submit("n2", b"m1")
    world.submit("s0", b"m1")
    world.report("n0", b"m1", "t1", owner="n2")
    world.settle_down()
    world.check()
    assert not world.crossings("t1")


def test_an_inexact_owner_at_home_comes_before_the_other_ring():
    world = JoinedWorld(2, 1)
    world.submit("n1", b"hex", inexact=b"m1")
    world.submit("s0", b"m1")
    world.report("n0", b"m1", "t1", owner="n1")
    world.settle_down()
    world.check()


def test_over_there_an_exact_owner_comes_before_an_inexact_one():
    world = JoinedWorld(1, 3)
    for name in ("s0", "s2"):
        world.submit(name, b"hex", inexact=b"m1")
    world.submit("s1", b"m1")
    world.report("n0", b"m1", "t1", owner="s1")
    world.settle_down()
    world.check()


def test_over_there_an_inexact_owner_is_found_in_a_second_lap():
    world = JoinedWorld(2, 2, ("n1", "s0"))
    world.submit("s1", b"hex", inexact=b"m1")
    world.report("n0", b"m1", "t1", owner="s1")
    world.settle_down()
    world.check()
    assert world.crossings("t1") == ["n0", "n0"]


def test_without_gates_nothing_crosses():
    world = crossing(gates=())
    world.settle_down()
    world.advance(SETTINGS.claim_for_s + 1)
    world.settle_down()
    assert not world.crossings("t1")
    assert not world.delivered
    assert reasons(world, "t1") == ["unclaimed"]


def test_what_nobody_owns_is_asked_for_by_its_origin_alone_and_parks():
    world = JoinedWorld(2, 3, ("n0", "n1", "s0", "s1"))
    world.report("n0", b"m1", "t1", owner="")
    world.report("s2", b"m2", "t2", owner="")
    for _ in range(60):
        world.settle_down()
        world.advance(20.0)
    world.settle_down()
    world.check()
    assert set(world.crossings("t1")) == {"n0"}
    assert set(world.crossings("t2")) == {"s2"}
    assert reasons(world, "t1") == reasons(world, "t2") == ["unclaimed"]
    most = {"n": 3, "s": 2}  # hops of a lap in the other ring
    for _, to, frame in world.forwards:
        origin, there = frame.envelope.origin.rpartition("/")[2][0], to.rpartition("/")[2][0]
        assert frame.hop <= (most[origin] if origin != there else len(world.ring_of(to)) - 1)


def test_a_node_that_is_missing_at_home_keeps_it_at_home():
    world = JoinedWorld(2, 1)
    world.submit("s0", b"m1")
    world.crash("n1")
    world.report("n0", b"m1", "t1", owner="s0")
    world.settle_down()
    assert not world.crossings("t1")
    world.start("n1")
    world.settle_down()
    world.check()


@GATES
def test_while_the_join_is_cut_it_waits_and_goes_across_when_it_is_whole_again(gates):
    world = JoinedWorld(2, 2, gates)
    world.cut_join()
    world.submit("s1", b"m1")
    world.submit("n1", b"m2")
    world.report("n0", b"m1", "t1", owner="s1")
    world.report("n0", b"m2", "t2", owner="n1")
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered] == ["t2"]
    assert not world.crossings("t1")
    [waiting] = [dict(note.fields) for _, note in world.notes if note.event == "waiting"]
    assert waiting["complete"] is False
    assert "south/s0" in waiting["nodes"]
    world.heal_join()
    world.settle_down()
    world.check()


@pytest.mark.parametrize("policy", ["park", "drop", "local"])
def test_a_policy_does_not_decide_before_the_other_ring_has_answered(policy):
    world = crossing(settings=attrs.evolve(SETTINGS, operators={"acme": OperatorPolicy(policy, "gw")}))
    world.cut_join()
    world.settle_down()
    world.advance(SETTINGS.claim_for_s + 1)
    world.settle_down()
    assert reasons(world, "t1") == ["owner_unreachable"]


def test_a_node_of_the_other_ring_that_is_missing_makes_its_lap_incomplete():
    world = JoinedWorld(1, 2)
    world.crash("s1")
    world.submit("n0", b"other")
    world.report("n0", b"m1", "t1", owner="")
    world.settle_down()
    [waiting] = [dict(note.fields) for _, note in world.notes if note.event == "waiting"]
    assert (waiting["complete"], waiting["nodes"]) == (False, "south/s1")
    world.advance(SETTINGS.claim_for_s + 1)
    world.settle_down()
    assert reasons(world, "t1") == ["owner_unreachable"]


def test_a_node_that_one_gate_cannot_reach_is_asked_through_another():
    world = JoinedWorld(1, 2)
    world.cut_link("s0", "s1")
    world.submit("s1", b"m1")
    world.report("n0", b"m1", "t1", owner="s1")
    world.settle_down()
    world.check()


def test_a_node_that_could_not_answer_is_not_asked():
    world = JoinedWorld(1, 3, ("n0", "s0"), old=("s1",))
    world.submit("s1", b"m1")
    world.report("n0", b"m1", "t1", owner="s1")
    world.settle_down()
    assert world.nodes["s1"].machine.count().items == 0
    [waiting] = [dict(note.fields) for _, note in world.notes if note.event == "waiting"]
    assert waiting["nodes"] == "south/s1"


def test_a_gate_that_is_stuck_is_passed_over_in_the_next_lap():
    world = JoinedWorld(1, 2)
    world.submit("s0", b"m1")
    world.submit("s1", b"m1")
    world.report("n0", b"m1", "t1", owner="")
    while not world.crossings("t1"):
        world.busy_steps()[0]()
    first = next(wire for wire, frames in world.wires.items() if frames and wire[0] == "n0")
    world.wires[first].clear()  # and it is alive, and says nothing
    world.advance(SETTINGS.lap_timeout_s + 1)
    world.settle_down()
    world.advance(SETTINGS.walk_retry_max_s)
    world.settle_down()
    [delivery] = world.delivered
    assert delivery.node != first[1]


def test_an_owner_over_there_that_has_no_room_is_asked_again():
    world = crossing(("n1", "s0"))
    world.nodes["s1"].taking = False
    world.settle_down()
    assert ("busy", "n0") in events(world, "t1")
    [waiting] = [dict(note.fields) for _, note in world.notes if note.event == "waiting"]
    assert waiting["complete"] is False
    world.nodes["s1"].taking = True
    world.advance(SETTINGS.walk_retry_max_s)
    world.settle_down()
    world.check()


def test_an_mo_does_not_cross():
    world = JoinedWorld(1, 1)
    world.set_gateway("n0", up=False)
    world.mo("n0", "t1")
    world.settle_down()
    assert not world.crossings("t1")
    world.set_gateway("n0", up=True)
    world.settle_down()
    world.check()


def run_at_home(world):
    """Everything but frames from one ring to the other."""
    while True:
        for name, node in world.nodes.items():
            while node.disk.pending:
                world.commit(name)
            while node.at_gateway:
                world.answer(name)
        wires = [wire for wire, frames in world.wires.items() if frames and wire[0][0] == wire[1][0]]
        if not wires:
            return
        for wire in wires:
            world.deliver_frame(wire)


def test_laps_of_the_other_ring_leave_room_for_those_of_this_one():
    world = JoinedWorld(2, 1, settings=attrs.evolve(SETTINGS, max_walking=4))
    for i in range(20):
        world.report("n0", b"far%d" % i, f"far{i}", owner="")
    run_at_home(world)
    assert world.nodes["n0"].machine.by_state()[State.WALKING] == 2
    world.submit("n1", b"near")
    world.report("n0", b"near", "near", owner="n1")
    run_at_home(world)
    assert [delivery.trace for delivery in world.delivered] == ["near"]


def steps_of(world):
    """How many steps it takes, from here, until nothing is under way."""
    count = 0
    while steps := world.busy_steps():
        steps[0]()
        count += 1
    return count


STEPS = {gates: steps_of(crossing(gates)) for gates in (None, ("n1", "s0"))}


@GATES
@pytest.mark.parametrize("victim", ["n0", "n1", "s0", "s1"])
def test_a_node_dies_at_any_step(gates, victim):
    for step in range(STEPS[gates]):
        world = crossing(gates)
        for _ in range(step):
            if steps := world.busy_steps():
                steps[0]()
        world.crash(victim)
        world.settle_down()
        world.advance(10.0)
        world.settle_down()
        world.recover()
        world.check()


@GATES
def test_the_join_is_cut_at_any_step(gates):
    for step in range(STEPS[gates]):
        world = crossing(gates)
        for _ in range(step):
            if steps := world.busy_steps():
                steps[0]()
        world.cut_join()
        world.settle_down()
        world.advance(60.0)
        world.settle_down()
        world.heal_join()
        world.recover()
        world.check()


@pytest.mark.parametrize("seed", range(60))
def test_whatever_fails(seed):
    """Crashes, cuts and frames that come twice, at steps that the seed chooses; reports both ways, each a few of one
    message."""
    choose = random.Random(seed)
    world = JoinedWorld(2, 3, choose.choice([None, ("n1", "s0"), ("n0", "n1", "s1", "s2")]))
    for name in world.names:
        world.submit(name, b"of-" + name.encode())
    reports = 0
    for _ in range(400):
        steps = world.busy_steps()
        chance = choose.random()
        if chance < 0.04:
            owner = choose.choice(world.names)
            origin = choose.choice(world.names)
            world.report(origin, b"of-" + owner.encode(), f"t{reports}", owner)
            reports += 1
        elif chance < 0.05:
            up = [name for name in world.names if world.nodes[name].machine is not None]
            if up:
                world.crash(choose.choice(up))
        elif chance < 0.065:
            down = [name for name in world.names if world.nodes[name].machine is None]
            if down:
                world.start(choose.choice(down))
        elif chance < 0.075:
            world.cut_link(*choose.sample(world.names, 2))
        elif chance < 0.085 and world.cut:
            world.heal_link(*sorted(choose.choice(sorted(world.cut, key=sorted))))
        elif chance < 0.10:
            world.advance(choose.choice([1.0, 6.0, 20.0]))
        elif chance < 0.14:
            full = [frames for frames in world.wires.values() if frames]
            if full:
                frames = choose.choice(full)
                frames.append(frames[0])
        elif steps:
            choose.choice(steps)()
    world.recover(choose)
    world.check()


@GATES
def test_a_node_that_leaves_keeps_what_it_has_claimed_from_the_other_ring(gates):
    world = crossing(gates)
    while world.nodes["s1"].machine.by_state()[State.HELD] == 0:
        world.busy_steps()[0]()
    world.cut_join()
    world.leave("s1")
    world.settle_down()
    assert not world.nodes["s1"].machine.handing_on
    world.crash("s1")
    world.heal_join()
    world.start("s1")
    world.recover()
    world.check()


def test_an_origin_that_leaves_hands_on_what_the_other_ring_has_not_claimed():
    world = JoinedWorld(2, 1)
    world.cut_join()
    world.submit("s0", b"m1")
    world.report("n0", b"m1", "t1", owner="s0")
    world.settle_down()
    world.leave("n0")
    world.settle_down()
    assert ("inherited", "n1") in events(world, "t1")
    world.crash("n0")
    world.start("n0")
    world.heal_join()
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["s0"]
    world.recover()
    world.check()


def test_an_origin_does_not_wait_for_ever_for_a_claimer_that_lost_its_data_directory():
    world = crossing(("n1", "s0"))
    while world.nodes["n0"].machine.by_state()[State.GRANTED] == 0:
        world.busy_steps()[0]()
    world.crash("s1")
    world.nodes["s1"].disk.rows.clear()
    world.nodes["s1"].store_id = b"anew----"
    world.start("s1")
    world.settle_down()
    assert world.nodes["n0"].machine.by_state()[State.GRANTED] == 1
    world.advance(SETTINGS.walk_retry_max_s + 1)
    world.settle_down()
    assert not world.nodes["n0"].machine.count().items


def test_a_join_that_is_taken_away_is_waited_for_as_long_as_a_node_that_is():
    world = crossing()
    while world.nodes["s1"].machine.by_state()[State.HELD] == 0:
        world.busy_steps()[0]()
    world.gates = []
    world.joins.clear()
    world.crash("s1")
    world.start("s1")
    world.settle_down()
    world.advance(SETTINGS.claim_for_s - 10)
    assert world.nodes["s1"].machine.by_state()[State.HELD] == 1
    world.advance(20)
    world.settle_down()
    assert reasons(world, "t1")[-1:] == ["origin_removed"]
    assert [table for _, table in world.custodies("t1")].count(Table.PARKED.value) >= 1


def claimed_of_a_node_over_there_that_is_taken_out():
    """s1 has claimed a report of n0, which has not heard of it; n1 is the gate of its ring."""
    world = crossing(("n1", "s0"))
    while world.nodes["s1"].machine.by_state()[State.HELD] == 0:
        world.busy_steps()[0]()
    world.take_out("n0")
    world.settle_down()
    return world


def test_a_node_taken_out_of_the_other_ring_is_waited_for_as_long_as_one_of_this_ring():
    world = claimed_of_a_node_over_there_that_is_taken_out()
    world.advance(SETTINGS.claim_for_s - 10)
    world.settle_down()
    assert world.nodes["s1"].machine.by_state()[State.HELD] == 1
    world.advance(20)
    world.settle_down()
    assert reasons(world, "t1") == ["origin_removed"]
    assert not world.nodes["s1"].machine.count().items


def test_a_node_put_back_into_the_other_ring_is_not_given_up():
    world = claimed_of_a_node_over_there_that_is_taken_out()
    world.advance(SETTINGS.claim_for_s - 10)
    world.cut_link("n0", "n1")
    world.put_back("n0")
    world.settle_down()
    world.advance(20)
    world.settle_down()
    assert world.nodes["s1"].machine.by_state()[State.HELD] == 1
    world.recover()
    world.check()
    assert [delivery.node for delivery in world.delivered] == ["s1"]


def test_what_was_granted_to_a_node_taken_out_of_the_other_ring_is_forgotten():
    world = crossing(("n0", "s0"))
    world.set_gateway("s1", up=False)
    world.settle_down()
    world.take_out("s1")
    world.settle_down()
    world.advance(SETTINGS.claim_for_s - 10)
    world.settle_down()
    assert world.nodes["n0"].machine.awaiting() == {"south/s1": {State.GRANTED: 1}}
    world.advance(20)
    world.settle_down()
    assert not world.nodes["n0"].machine.count().items


def test_a_claim_waits_for_an_origin_in_the_other_ring_as_long_as_they_are_joined():
    world = crossing()
    while world.nodes["s1"].machine.by_state()[State.HELD] == 0:
        world.busy_steps()[0]()
    world.cut_join()
    world.crash("s1")
    world.start("s1")
    world.settle_down()
    world.advance(SETTINGS.claim_for_s + 10)
    world.settle_down()
    assert reasons(world, "t1") == ["owner_unreachable"]  # at its origin, where a late claim takes it out again
    world.recover()
    world.check()
    assert [delivery.node for delivery in world.delivered] == ["s1"]


def test_a_node_that_knows_of_no_join_takes_nothing_that_it_could_not_answer():
    world = JoinedWorld(1, 2, ("n0", "s0"))
    world.do("s1", world.nodes["s1"].machine.retopologize(Topology(("s0", "s1"), "s1"), world.now))
    world.submit("s1", b"m1")
    world.report("n0", b"m1", "t1", owner="s1")
    world.settle_down()
    assert world.nodes["s1"].machine.count().items == 0
    world.advance(SETTINGS.lap_timeout_s + 1)
    world.settle_down()
    assert ("waiting", "n0") in events(world, "t1")


def test_only_what_carries_reports_crosses():
    world = crossing(("n1", "s0"))
    crossed = []
    arrived = world.arrived

    def seen(wire, frame):
        if wire[0][0] != wire[1][0]:
            crossed.append(frame)
        arrived(wire, frame)

    world.arrived = seen
    world.settle_down()
    world.check()
    assert crossed
    assert {type(frame) for frame in crossed} == {Relayed}
