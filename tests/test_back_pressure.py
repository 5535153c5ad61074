"""A slow or stuck node slows what is meant for it, and nobody else; custody has a quota, and recovers by itself."""

import pytest
from attrs import evolve
from custody_world import SETTINGS, World

from protocols.peer.frames import Forward
from protocols.smpp.constants import ESME_ROK
from ring.accepting import Offer

HUNG = "n1"  # heard, and doing nothing


def settle_without(world, hung=HUNG):
    """Carry out what is under way; what is sent to that node stays unread."""
    while True:
        for wire, frames in world.wires.items():
            if wire[1] == hung:
                frames.clear()
        steps = world.busy_steps()
        if not steps:
            return
        steps[0]()


def delivered(world):
    return [delivery.trace for delivery in world.delivered]


def missing(world, trace):
    """Who had not answered when laps of it were over."""
    fields = [dict(note.fields) for _, note in world.notes if note.envelope.trace == trace and note.event == "waiting"]
    return [each["nodes"] for each in fields]


def forwards(world, trace):
    return [(sender, to) for sender, to, frame in world.forwards if frame.envelope.trace == trace]


# A stuck node and the places to walk


def walking_into_a_hung_node(settings):
    """n0 has as many reports on their way to n1, which hangs, as may walk at a time."""
    world = World(3, settings, summaries=True)
    traces = [f"t{number}" for number in range(settings.max_walking)]
    for trace in traces:
        world.submit(HUNG, trace.encode())
    world.submit("n2", b"other")
    for _ in range(5):
        world.advance(1)
        world.settle_down()
    for trace in traces:
        world.report("n0", trace.encode(), trace, owner=HUNG)
    settle_without(world)
    assert world.nodes["n0"].machine.count().walking == settings.max_walking
    return world


def test_laps_that_a_hung_node_holds_up_give_their_places_to_others():
    world = walking_into_a_hung_node(evolve(SETTINGS, max_walking=3))
    world.report("n0", b"other", "other", owner="n2")
    settle_without(world)
    assert delivered(world) == []
    machine = world.nodes["n0"].machine
    due = machine.next_due()
    assert due <= world.now + 2.0  # lap_timeout_s is 15
    world.advance(2.0)
    settle_without(world)
    assert delivered(world) == ["other"]
    world.recover()
    world.check()


def test_a_slow_lap_goes_on_while_nobody_needs_its_place():
    world = walking_into_a_hung_node(evolve(SETTINGS, max_walking=3))
    world.advance(SETTINGS.lap_timeout_s - 1.0)
    assert world.nodes["n0"].machine.count().walking == 3
    assert not missing(world, "t0")


def test_a_claim_counts_though_the_lap_has_given_its_place_away():
    world = World(2, evolve(SETTINGS, max_walking=1))
    world.submit("n1", b"id1")
    world.report("n0", b"id1", "t1", owner="n1")
    world.commit("n0")
    world.report("n0", b"id2", "t2", owner="")
    world.commit("n0")
    world.advance(2.0)
    assert missing(world, "t1") == ["n1"]
    world.settle_down()
    assert delivered(world) == ["t1"]
    assert world.nodes["n0"].machine.count().walking <= 1


# A busy node


@pytest.mark.parametrize("busy", ["n1", "n2"])
def test_a_lap_goes_on_round_a_node_that_can_look_for_nothing_now(busy):
    world = World(4)
    world.submit("n3", b"id1")
    for name in world.names:
        world.settings = evolve(SETTINGS, max_passing=0 if name == busy else 100)
        world.crash(name)
        world.start(name)
    world.settle_down()
    world.report("n0", b"id1", "t1", owner="n3")
    world.settle_down()
    assert ("n0", "n3") in forwards(world, "t1") or ("n2", "n3") in forwards(world, "t1")
    assert delivered(world) == ["t1"]
    assert not missing(world, "t1")
    world.check()


def test_a_lap_round_a_busy_node_is_not_complete():
    world = World(4)
    world.settings = evolve(SETTINGS, max_passing=0)
    world.crash("n1")
    world.start("n1")
    world.settle_down()
    world.report("n0", b"nobody", "t1", owner="")
    world.settle_down()
    assert missing(world, "t1") == ["n1"]
    last = [frame for _, to, frame in world.forwards if isinstance(frame, Forward) and to == "n3"][-1]
    assert last.visited == ("n1", "n0", "n2")


def test_an_mo_for_anybody_goes_to_another_gateway_than_that_of_a_full_node():
    world = World(3, named=True)
    world.set_gateway("n0", up=False)
    world.nodes["n1"].taking = False
    world.mo("n0", "mo1")
    world.settle_down()
    assert [delivery.gateway for delivery in world.delivered] == ["gw-n2"]
    world.check()


# A slow gateway


def test_a_gateway_that_answers_nothing_holds_up_no_other_gateway():
    world = World(1, evolve(SETTINGS, delivery_window=2))
    machine = world.nodes["n0"].machine
    machine.gateway_bound("acme", "other", world.now)

    def offer(number, gateway):
        trace = f"{gateway}{number}"
        report = Offer(
            "acme", "dlr", trace.encode(), b"4479", b"pdu-" + trace.encode(), True, trace, gateway, local=True
        )
        assert world._offer("n0", report, "n0")
        while world.nodes["n0"].disk.pending:
            world.commit("n0")

    for number in range(5):
        offer(number, "slow")
    assert delivered(world) == ["slow0", "slow1"]
    for number in range(5):
        offer(number, "quick")
        key, delivery = world.nodes["n0"].at_gateway.pop()
        assert delivery.trace == f"quick{number}"
        world.do("n0", machine.answered(key, ESME_ROK, world.now))
    world.settle_down()
    assert delivered(world)[-3:] == ["slow2", "slow3", "slow4"]


# The quota


def test_a_full_custody_takes_more_as_soon_as_something_has_left_it():
    world = World(2, evolve(SETTINGS, max_messages=3))
    world.submit("n1", b"id1")
    world.set_gateway("n1", up=False)
    for number in range(3):
        assert world.report("n0", b"id1", f"t{number}", owner="n1", final=number == 2)
    assert not world.report("n0", b"id2", "refused", owner="")
    world.set_gateway("n1", up=True)
    world.settle_down()
    assert delivered(world) == ["t0", "t1", "t2"]
    assert world.nodes["n0"].machine.count().items == 0
    assert world.report("n0", b"id3", "again", owner="")
    assert "refused" not in world.accepted


# A link whose outbox is full


def test_what_a_full_link_does_not_take_is_sent_again_and_the_others_get_theirs():
    """The link takes nothing for a while: claims and grants are lost on it, and repeated."""
    world = World(3)
    for owner in ("n1", "n2"):
        world.submit(owner, owner.encode())
        for number in range(3):
            world.report("n0", owner.encode(), f"{owner}-{number}", owner, final=number == 2)
    settle_without(world)
    world.advance(SETTINGS.lap_timeout_s)
    settle_without(world)
    world.advance(SETTINGS.walk_retry_max_s)
    settle_without(world)
    assert "n2-0" in delivered(world)
    world.recover()
    world.check()
    assert sorted(delivered(world)) == [f"{owner}-{number}" for owner in ("n1", "n2") for number in range(3)]
