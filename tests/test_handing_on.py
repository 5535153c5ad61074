"""A node that leaves hands its custody on: ring/handing_on.py and ring/inheritance.py, in rings of machines."""

import random

import pytest
from attrs import evolve
from custody_world import SETTINGS, World

from protocols.peer.frames import Claimed, Declined, Envelope, EnvelopeKey, Forward, HandOver, PartOf
from ring import commands as c
from ring.items import State
from ring.rows import Kind, decode_custody


def events(world, trace):
    return [(note.event, node) for node, note in world.notes if note.envelope.trace == trace]


def custody_rows(world, name):
    rows = [decode_custody(value) for (table, _), value in world.nodes[name].disk.rows.items()]
    return [(row.kind, row.envelope.trace) for row in rows if isinstance(row.kind, Kind)]


def of_an_absent_owner(size=3, *, traces=("t1",), final=True, owner=None, settings=SETTINGS):
    """n0 waits with reports of messages whose owner, the last node, is down."""
    world = World(size, settings)
    owner = owner or world.names[-1]
    world.submit(owner, b"id1")
    world.crash(owner)
    for number, trace in enumerate(traces, 1):
        assert world.report("n0", b"id1", trace, owner, final=final and number == len(traces))
    world.settle_down()
    assert events(world, traces[0])[-1] == ("waiting", "n0")
    return world


def until_sent(world, kind):
    """Steps until such a frame is under way; its wire."""
    for _ in range(1000):
        for wire, frames in world.wires.items():
            if any(isinstance(frame, kind) for frame in frames):
                return wire
        world.busy_steps()[0]()
    raise AssertionError(f"no {kind.__name__} is sent")


def test_what_waits_goes_to_another_node_and_is_delivered_from_there_while_the_leaver_is_gone():
    world = of_an_absent_owner()
    world.leave("n0")
    assert world.nodes["n0"].machine.handing_on
    world.settle_down()
    assert not world.nodes["n0"].machine.handing_on
    assert world.nodes["n0"].machine.count().items == 0
    assert custody_rows(world, "n0") == []
    assert custody_rows(world, "n1") == [(Kind.ORIGIN, "t1")]
    names = [event for event, _ in events(world, "t1")]
    assert names.count("handed_on") == names.count("inherited") == 1
    world.crash("n0")
    world.start("n2")
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n2"]
    world.recover()
    world.check()


def test_what_walks_is_handed_on_only_when_its_lap_is_over_and_nobody_claimed_it():
    world = World(3)
    world.submit("n2", b"id1")
    world.report("n0", b"id1", "owned", "n2")
    world.report("n0", b"nobody", "ownerless", "")
    world.commit("n0")
    world.commit("n0")
    world.leave("n0")
    world.settle_down()
    assert ("handed_on", "n0") not in events(world, "owned")
    assert ("handed_on", "n0") in events(world, "ownerless")
    assert world.nodes["n0"].machine.count().items == 0
    world.recover()
    world.check()


def test_its_age_counts_on():
    world = World(2)
    world.report("n0", b"nobody", "t1", "")
    world.settle_down()
    world.advance(600.0)
    world.settle_down()
    world.leave("n0")
    world.settle_down()
    assert custody_rows(world, "n1") == [(Kind.ORIGIN, "t1")]
    for _ in range(22):
        world.advance(20.0)
        world.settle_down()
    assert ("parked", "n1") in events(world, "t1")
    world.check()


def test_a_line_goes_as_one_and_stays_in_order():
    traces = tuple(f"t{number}" for number in range(5))
    world = of_an_absent_owner(traces=traces)
    world.leave("n0")
    offered = world.wires[until_sent(world, HandOver)]
    [offer] = [frame for frame in offered if isinstance(frame, HandOver)]
    assert [envelope.trace for envelope in offer.envelopes] == list(traces)
    world.settle_down()
    assert custody_rows(world, "n0") == []
    world.start("n2")
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered] == list(traces)
    world.check()


def test_a_line_longer_than_a_frame_follows_to_the_same_heir():
    traces = tuple(f"t{number:03}" for number in range(70))
    world = of_an_absent_owner(4, traces=traces)
    world.leave("n0")
    world.settle_down()
    assert custody_rows(world, "n0") == []
    assert len(custody_rows(world, "n1")) == 70
    world.start("n3")
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered] == list(traces)
    world.check()


def test_what_comes_to_a_line_that_was_handed_on_goes_after_it():
    world = of_an_absent_owner(4, traces=("t1",), final=False)
    world.leave("n0")
    world.settle_down()
    world.report("n0", b"id1", "t2", "n3")
    world.settle_down()
    assert ("forwarded", "n0") not in events(world, "t2")
    assert custody_rows(world, "n1") == [(Kind.ORIGIN, "t1"), (Kind.ORIGIN, "t2")]
    world.start("n3")
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered] == ["t1", "t2"]
    world.check()


def test_what_follows_others_to_an_heir_does_not_overtake_them_while_that_is_out_of_reach():
    world = of_an_absent_owner(4, traces=("t1",), final=False)
    world.leave("n0")
    world.settle_down()
    world.cut_link("n0", "n1")
    world.report("n0", b"id1", "t2", "n3")
    world.settle_down()
    assert not world.nodes["n0"].machine.handing_on  # nothing can be done now
    world.start("n3")
    world.cut_link("n1", "n3")
    world.advance(SETTINGS.walk_retry_max_s)
    world.settle_down()
    assert not world.delivered
    world.heal_link("n0", "n1")
    world.settle_down()
    assert custody_rows(world, "n0") == []
    world.heal_link("n1", "n3")
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered] == ["t1", "t2"]
    world.check()


def test_what_its_own_gateway_takes_stays_and_is_delivered_after_the_restart():
    world = World(2)
    world.submit("n0", b"id1")
    world.set_gateway("n0", up=False)
    world.report("n1", b"id1", "t1", "n0")
    world.settle_down()
    world.leave("n0")
    world.settle_down()
    assert not world.nodes["n0"].machine.handing_on
    assert custody_rows(world, "n0") == [(Kind.CLAIM, "t1")]
    world.crash("n0")
    world.recover()
    world.check()


def test_an_mo_and_a_part_of_one_go_as_well():
    world = World(3, evolve(SETTINGS, conversations=True))
    for name in world.names:
        world.set_gateway(name, up=False)
    world.mo("n0", "mo1")
    world.mo("n0", "mo2", part=PartOf(b"m", "", certain=True))
    world.settle_down()
    world.leave("n0")
    world.settle_down()
    assert custody_rows(world, "n0") == []
    world.crash("n0")
    for name in ("n1", "n2"):
        world.set_gateway(name, up=True)
    world.settle_down()
    assert {delivery.trace for delivery in world.delivered} == {"mo1", "mo2"}
    world.recover()
    world.check()


# Who may be the heir


def test_without_an_heir_it_waits_on_disk_as_before():
    world = of_an_absent_owner(2)
    world.leave("n0")
    assert not world.nodes["n0"].machine.handing_on
    world.settle_down()
    assert custody_rows(world, "n0") == [(Kind.ORIGIN, "t1")]
    world.recover()
    world.check()


def test_an_owner_that_is_asked_as_an_heir_too_is_granted_only_what_it_has_on_disk():
    """It has claimed the first of two as their owner, and what it is offered besides has not arrived."""
    world = of_an_absent_owner(3, traces=("t1", "t2"))
    world.cut_link("n0", "n1")
    world.start("n2")
    until_sent(world, Claimed)
    world.wires["n2", "n0"].clear()
    world.leave("n0")
    world.advance(SETTINGS.lap_timeout_s)
    assert world.wires["n2", "n0"]  # it claims again
    [offer] = [frame for frame in world.wires["n0", "n2"] if isinstance(frame, HandOver)]
    assert [envelope.trace for envelope in offer.envelopes] == ["t1", "t2"]
    world.wires["n0", "n2"].clear()
    while world.wires["n2", "n0"]:
        world.deliver_frame(("n2", "n0"))
    while world.nodes["n0"].disk.pending:
        world.commit("n0")
    assert custody_rows(world, "n0") == [(Kind.GRANTED, "t1"), (Kind.ORIGIN, "t2")]
    world.recover()
    assert [delivery.trace for delivery in world.delivered] == ["t1", "t2"]
    world.check()


def test_a_node_of_version_1_is_no_heir():
    world = of_an_absent_owner(4)
    world.nodes["n1"].version = 1
    world.links_changed()
    world.leave("n0")
    world.settle_down()
    assert custody_rows(world, "n1") == []
    assert custody_rows(world, "n2") == [(Kind.ORIGIN, "t1")]
    world.recover()
    world.check()


@pytest.mark.parametrize("reason", ["draining", "full", "operator"])
def test_a_node_that_declines_is_passed_over_for_the_next(reason):
    world = of_an_absent_owner(4)
    heir = world.nodes["n1"]
    if reason == "draining":
        world.leave("n1")
    elif reason == "full":
        heir.taking = False
    else:
        heir.machine._inheritance._settings = evolve(SETTINGS, operators={})
    world.leave("n0")
    wire = until_sent(world, Declined)
    assert wire == ("n1", "n0")
    [declined] = [frame for frame in world.wires[wire] if isinstance(frame, Declined)]
    assert declined.reason == reason
    world.settle_down()
    assert custody_rows(world, "n1") == []
    assert custody_rows(world, "n2") == [(Kind.ORIGIN, "t1")]
    world.recover()
    world.check()


def test_an_heir_keeps_a_fifth_of_its_custody_for_its_own_operators():
    world = World(2, evolve(SETTINGS, max_messages=10))
    for number in range(6):
        world.report("n1", b"own%d" % number, f"own{number}", "")
    for number in range(4):
        world.report("n0", b"other%d" % number, f"other{number}", "")
    world.settle_down()
    world.leave("n0")
    world.settle_down()
    assert not world.nodes["n0"].machine.handing_on
    assert len(custody_rows(world, "n1")) == 8
    assert len(custody_rows(world, "n0")) == 2
    world.recover()
    world.check()


def test_a_node_that_stays_after_all_walks_on_with_what_no_heir_has_got():
    world = of_an_absent_owner(4, traces=("t1", "t2"))
    world.leave("n0")
    wire = until_sent(world, HandOver)
    world.wires[wire].clear()
    world.do("n0", world.nodes["n0"].machine.stay(world.now))
    world.settle_down()
    assert custody_rows(world, "n0") == [(Kind.ORIGIN, "t1"), (Kind.ORIGIN, "t2")]
    world.start("n3")
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered] == ["t1", "t2"]
    world.report("n1", b"nobody", "t3", "")
    world.settle_down()
    world.leave("n1")
    world.settle_down()
    assert custody_rows(world, "n2") == [(Kind.ORIGIN, "t3")]
    world.leave("n2")
    world.settle_down()
    assert custody_rows(world, "n0") + custody_rows(world, "n3") == [(Kind.ORIGIN, "t3")]
    world.recover()
    world.check()


def test_when_all_nodes_leave_at_once_each_keeps_what_it_has():
    world = World(3)
    for name in world.names:
        world.report(name, b"nobody-%s" % name.encode(), name, "")
    world.settle_down()
    for name in world.names:
        world.leave(name)
    world.settle_down()
    for name in world.names:
        assert not world.nodes[name].machine.handing_on
        assert custody_rows(world, name) == [(Kind.ORIGIN, name)]
    world.recover()
    world.check()


def test_what_is_not_the_senders_own_is_declined():
    world = World(3)
    stolen = Envelope(EnvelopeKey(b"x" * 8, 1), "n2", "acme", "dlr", b"id", b"4479", b"pdu-t", "t", True)
    machine = world.nodes["n1"].machine
    out = machine.frame("n0", HandOver((stolen,), (0.0,)), world.now)
    assert out == [c.Send("n0", Declined((stolen.key,), "origin"))]


# What may happen in between


def test_the_owner_may_claim_it_before_the_heir_does():
    world = of_an_absent_owner(4)
    world.leave("n0")
    until_sent(world, HandOver)
    machine = world.nodes["n0"].machine
    [item] = machine._shelf.items
    assert item.state is State.HANDING
    world.do("n0", machine.frame("n2", Claimed(item.key, "n2", 1, 1), world.now))
    world.settle_down()
    assert ("handed_on", "n0") not in events(world, "t1")
    assert ("claim_refused", "n1") in events(world, "t1")
    assert custody_rows(world, "n1") == []


def test_it_is_delivered_here_if_its_message_appears_here_after_all():
    world = World(2)
    world.report("n0", b"id1", "t1", "n0")
    world.settle_down()
    world.leave("n0")
    until_sent(world, HandOver)
    world.submit("n0", b"id1")
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n0"]
    world.recover()
    world.check()


def test_an_heir_that_says_nothing_is_passed_over_and_refused_later():
    world = of_an_absent_owner(4)
    world.leave("n0")
    wire = until_sent(world, HandOver)
    held_up = list(world.wires[wire])
    world.wires[wire].clear()
    world.advance(SETTINGS.repeat_s + 1)
    world.settle_down()
    assert custody_rows(world, "n2") == [(Kind.ORIGIN, "t1")]
    world.wires[wire].extend(held_up)
    world.settle_down()
    assert custody_rows(world, "n1") == []
    world.recover()
    world.check()


def test_an_heir_that_is_lost_is_passed_over_at_once():
    world = of_an_absent_owner(4)
    world.leave("n0")
    until_sent(world, HandOver)
    world.crash("n1")
    world.settle_down()
    assert custody_rows(world, "n2") == [(Kind.ORIGIN, "t1")]
    world.recover()
    world.check()


def test_a_whole_line_goes_to_the_first_heir_that_answers_though_another_was_asked_since():
    world = of_an_absent_owner(4, traces=("t1", "t2"))
    world.leave("n0")
    wire = until_sent(world, HandOver)
    world.deliver_frame(wire)
    world.advance(SETTINGS.repeat_s + 1)  # n1 has not written it down; n2 is asked
    world.commit("n1")
    while world.wires["n1", "n0"]:
        world.deliver_frame(("n1", "n0"))
    world.settle_down()
    assert [trace for _, trace in custody_rows(world, "n1")] == ["t1", "t2"]
    assert custody_rows(world, "n2") == []
    world.recover()
    world.check()


def test_a_leaver_that_comes_back_grants_what_the_heir_holds():
    world = of_an_absent_owner(3)
    world.leave("n0")
    wire = until_sent(world, HandOver)
    world.deliver_frame(wire)
    world.commit("n1")
    world.crash("n0")
    assert custody_rows(world, "n1") == [(Kind.HEIR, "t1")]
    world.crash("n1")
    world.start("n1")
    world.start("n0")
    world.settle_down()
    assert custody_rows(world, "n0") == []
    assert custody_rows(world, "n1") == [(Kind.ORIGIN, "t1")]
    world.recover()
    world.check()


def test_an_offer_that_comes_again_is_taken_once():
    world = of_an_absent_owner(3)
    world.leave("n0")
    wire = until_sent(world, HandOver)
    offer = next(frame for frame in world.wires[wire] if isinstance(frame, HandOver))
    for _ in range(3):
        world.wires[wire].append(offer)
    while any(isinstance(frame, HandOver) for frame in world.wires[wire]):
        world.deliver_frame(wire)
    world.settle_down()
    assert custody_rows(world, "n1") == [(Kind.ORIGIN, "t1")]
    world.recover()
    world.check()


def test_a_line_that_was_half_inherited_stands_in_order_after_a_restart():
    world = of_an_absent_owner(3, traces=("t1", "t2", "t3"))
    world.nodes["n1"].store_id = b"\xff" * 8  # its own keys sort behind those of the leaver
    world.crash("n1")
    world.start("n1")
    world.leave("n0")
    for _ in range(1000):
        if (Kind.ORIGIN, "t1") in custody_rows(world, "n1"):
            break
        world.busy_steps()[-1]()
    world.crash("n1")
    world.start("n1")
    world.settle_down()
    world.crash("n0")
    world.start("n2")
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered] == ["t1", "t2", "t3"]
    world.recover()
    world.check()


def test_a_claim_under_the_former_name_does_not_hold_the_message_up():
    """The owner has got a late copy of the walk at the leaver, which is gone, and then the one that walks on."""
    world = of_an_absent_owner(3)
    stale = next(frame for _, _, frame in world.forwards if frame.envelope.trace == "t1")
    world.leave("n0")
    world.settle_down()
    world.crash("n0")
    world.cut_link("n1", "n2")
    world.start("n2")
    world.do("n2", world.nodes["n2"].machine.frame("n1", Forward(stale.envelope, 1, 2, ("n0", "n1"), False, 1.0), 0.0))
    world.settle_down()
    assert custody_rows(world, "n2") == [(Kind.CLAIM, "t1")]
    assert not world.delivered
    world.heal_link("n1", "n2")
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n2"]
    world.recover()
    world.check()


def rolling_restart(seed):
    """Five nodes leave in turn, under load, with crashes at any write, cut links and gateways that come and go."""
    choose = random.Random(seed)
    world = World(5, evolve(SETTINGS, claim_for_s=100_000.0))
    for round_ in range(6):
        for number in range(4):
            owner, at = choose.choice(world.names), choose.choice(world.names)
            if world.nodes[owner].machine is None:
                continue
            message = f"id{round_}-{number}"
            world.submit(owner, message.encode())
            if choose.random() < 0.5:
                world.crash(owner)
            parts = choose.randrange(1, 4)
            for part in range(parts):
                world.report(at, message.encode(), f"{message}-{part}", owner, final=part == parts - 1)
        leaver = choose.choice(world.names)
        for _ in range(choose.randrange(40)):
            disturb(world, choose)
        world.leave(leaver)
        for _ in range(choose.randrange(150)):
            disturb(world, choose)
        if world.nodes[leaver].machine is not None:
            world.crash(leaver)
        for name in world.names:
            if world.nodes[name].machine is None and choose.random() < 0.7:
                world.start(name)
    world.recover(choose)
    return world


def disturb(world, choose):
    """One step: mostly what is under way, now and then a fault."""
    dice, name = choose.random(), choose.choice(world.names)
    if dice < 0.01 and world.nodes[name].machine is not None:
        world.crash(name)
    elif dice < 0.02 and world.nodes[name].machine is None:
        world.start(name)
    elif dice < 0.03:
        world.cut_link(*choose.sample(world.names, 2))
    elif dice < 0.05 and world.cut:
        world.heal_link(*choose.choice(sorted(map(sorted, world.cut))))
    elif dice < 0.06:
        world.set_gateway(name, up=choose.random() < 0.7)
    elif dice < 0.1:
        world.advance(choose.uniform(0, 6))
    elif steps := world.busy_steps():
        choose.choice(steps)()


@pytest.mark.parametrize("seed", [*range(60), 171, 996])  # those two have lost something once
def test_nodes_that_leave_in_turn_lose_nothing_whatever_crashes(seed):
    world = rolling_restart(seed)
    world.check()
    for message, traces in first_deliveries(world).items():
        assert traces == sorted(traces) or message in parted(world), f"{message!r}: {traces}"


def parted(world):
    """Messages of which a node has handed on a report, was restarted, and has let another one walk by itself.

    Their order is not promised (docs/ring.md); without a restart what follows goes to the same heir.
    """
    handed_on, found = set(), set()
    for name, note in world.notes:
        of_message = name, note.envelope.message_id
        if note.event == "handed_on":
            handed_on.add(of_message)
        elif note.event == "settled" and of_message in handed_on and world.nodes[name].runs > 1:
            found.add(note.envelope.message_id)
    return found


def first_deliveries(world):
    """The traces of each message, which sort in the order of their arrival, as its gateway got them."""
    found = {}
    for delivery in world.delivered:
        found.setdefault(delivery.message_id, {})[delivery.trace] = None
    return {message: list(traces) for message, traces in found.items()}


def test_that_seeds_hand_on_and_refuse():
    seen = {note.event for seed in range(12) for _, note in rolling_restart(seed).notes}
    assert {"handed_on", "inherited", "claim_refused"} <= seen
