"""What a person sends to another node, and everything else that can happen to it (test_replay.py has the rest)."""

import pytest
from attrs import evolve
from custody_world import SETTINGS, World

from ring import commands as c
from ring.rows import decode_parked

AT_ONCE = evolve(SETTINGS, claim_for_s=0.0, watch_s=0.0)  # what nobody claims is parked after its first laps


def parked_rows(world, name):
    rows = world.nodes[name].disk.rows.items()
    return [decode_parked(value) for (table, _), value in rows if table is c.Table.PARKED]


def replay(world, name, node, gateway=""):
    machine = world.nodes[name].machine
    for row in parked_rows(world, name):
        key, out = machine.replay(row, gateway, world.now, node=node)
        assert key is not None
        world.do(name, out)


def events(world, trace):
    return [(note.event, node) for node, note in world.notes if note.envelope.trace == trace]


def with_parked(*traces, size=3, message_id=b"id1", settings=AT_ONCE):
    """n0 has parked reports of one message that nobody owns; every node's gateway is named after it."""
    world = World(size, settings, named=True)
    for number, trace in enumerate(traces, 1):
        assert world.report("n0", message_id, trace, owner="", final=number == len(traces))
    for _ in range(200):
        world.settle_down()
        world.advance(20)  # and nobody remembers what has passed
        if len(parked_rows(world, "n0")) == len(traces):
            return world
    raise AssertionError("not parked")


def delivered(world):
    return [(delivery.trace, delivery.gateway) for delivery in world.delivered]


def owned_by(world, node):
    """From now on the person has made it that node's."""
    world.accepted = dict.fromkeys(world.accepted, node)


def test_a_report_goes_to_the_gateway_of_that_node_in_one_hop_and_leaves_this_one():
    world = with_parked("t1")
    world.forwards.clear()
    replay(world, "n0", "n2")
    world.settle_down()
    assert delivered(world) == [("t1", "gw-n2")]
    assert [(sender, to) for sender, to, _ in world.forwards] == [("n0", "n2")]
    [replayed] = [note for _, note in world.notes if note.event == "replayed"]
    assert dict(replayed.fields) == {"reason": "unclaimed", "to": "n2"}
    owned_by(world, "n2")
    world.check()
    assert world.nodes["n0"].machine.count().parked == 0


def test_the_owner_of_the_message_does_not_take_what_is_for_another_node():
    world = with_parked("t1")
    world.submit("n1", b"id1")
    replay(world, "n0", "n2")
    world.submit("n0", b"id1")
    world.settle_down()
    assert delivered(world) == [("t1", "gw-n2")]


def test_reports_of_one_message_keep_their_order():
    world = with_parked("t1", "t2", "t3")
    replay(world, "n0", "n2")
    world.settle_down()
    assert delivered(world) == [(trace, "gw-n2") for trace in ("t1", "t2", "t3")]


def test_a_report_that_names_no_message_has_somewhere_to_go():
    world = with_parked("t1", message_id=b"")
    replay(world, "n0", "n1")
    world.settle_down()
    assert delivered(world) == [("t1", "gw-n1")]


def test_an_mo_goes_there_too_and_not_where_it_was_for():
    world = World(3, AT_ONCE, named=True)
    world.mo("n0", "mo1", gateway="gw-gone")
    world.settle_down()
    replay(world, "n0", "n2")
    world.settle_down()
    assert delivered(world) == [("mo1", "gw-n2")]
    world.check()


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        (lambda world: world.set_gateway("n2", up=False), "unclaimed"),
        (lambda world: world.crash("n2"), "owner_unreachable"),
    ],
)
def test_what_cannot_get_there_is_parked_here_again_and_can_be_sent_elsewhere(gone, reason):
    world = with_parked("t1")
    replay(world, "n0", "n2")
    gone(world)
    world.settle_down()
    [row] = parked_rows(world, "n0")
    assert row.reason == reason
    world.submit("n1", b"id1")
    replay(world, "n0", "")
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n1"]


def test_what_the_gateway_refuses_is_parked_at_its_node():
    world = with_parked("t1")
    replay(world, "n0", "n2")
    while not world.nodes["n2"].at_gateway:
        world.busy_steps()[0]()
    world.answer("n2", status=0x45)
    world.settle_down()
    assert world.custodies("t1") == [("n2", "parked")]
    [row] = parked_rows(world, "n2")
    assert (row.reason, row.gateway) == ("refused", "gw-n2")
    replay(world, "n2", "n0")
    world.settle_down()
    assert delivered(world)[-1] == ("t1", "gw-n0")
    assert not world.custodies("t1")


def test_a_full_node_takes_it_when_it_has_room():
    world = with_parked("t1", settings=SETTINGS)
    world.nodes["n2"].taking = False
    replay(world, "n0", "n2")
    world.settle_down()
    assert world.custodies("t1") == [("n0", "custody")]
    world.nodes["n2"].taking = True
    world.advance(20)
    world.settle_down()
    assert delivered(world) == [("t1", "gw-n2")]


def test_a_node_that_leaves_hands_it_on_and_it_still_goes_there():
    world = with_parked("t1", size=4, settings=SETTINGS)
    replay(world, "n0", "n2")
    world.set_gateway("n2", up=False)
    world.settle_down()
    world.leave("n0")
    world.settle_down()
    assert world.custodies("t1") == [("n1", "custody")]
    world.crash("n0")
    world.set_gateway("n2", up=True)
    world.settle_down()
    assert delivered(world) == [("t1", "gw-n2")]


def test_by_way_of_a_node_of_version_1_it_reaches_one_that_has_no_link_to_this_one():
    world = with_parked("t1")
    world.nodes["n1"].version = 1
    world.links_changed()
    world.cut_link("n0", "n2")
    replay(world, "n0", "n2", "gw-n2")
    world.submit("n1", b"id1")  # its owner, which only passes it on
    world.settle_down()
    assert ("claimed", "n2") in events(world, "t1")
    assert not world.delivered
    world.heal_link("n0", "n2")
    world.settle_down()
    assert delivered(world) == [("t1", "gw-n2")]


@pytest.mark.parametrize("crashing", ["n0", "n2"])
def test_it_is_always_on_a_disk_and_arrives_wherever_a_node_crashes(crashing):
    """A crash after each step in turn, writes among them, until a run comes to its end first."""
    for steps in range(200):
        world = with_parked("t1", "t2", settings=SETTINGS)
        replay(world, "n0", "n2")
        for _ in range(steps):
            held = {trace for trace in ("t1", "t2") if world.custodies(trace)}
            assert held | {delivery.trace for delivery in world.delivered if delivery.answered} == {"t1", "t2"}
            if not world.busy_steps():
                return
            world.busy_steps()[0]()
        world.crash(crashing)
        world.start(crashing)
        world.recover()
        if parked := parked_rows(world, "n0"):  # the write of the replay was lost: so it is as before
            assert [row.envelope.node for row in parked] == [""] * len(parked)
            replay(world, "n0", "n2")
            world.recover()
        owned_by(world, "n2")
        world.check()
    raise AssertionError("it never comes to rest")
