"""MO in the custody machine: where each goes, and that all parts of a concatenated one go to one gateway."""

import pytest
from attrs import evolve
from custody_world import SETTINGS, World

from dlrproxy.logs import ROUTE_EVENTS
from protocols.peer.frames import Decided, Gather, PartOf, Place
from protocols.smpp.constants import ESME_RSYSERR, ESME_RX_P_APPN
from ring import commands as c
from ring.coordinator import name_of
from ring.rows import decode_parked

CONVERSING = evolve(SETTINGS, conversations=True)


def places(world: World, trace: str) -> list[str]:
    return [delivery.gateway for delivery in world.delivered if delivery.trace == trace]


def events(world: World, trace: str) -> list[str]:
    return [note.event for _, note in world.notes if note.envelope.trace == trace]


def message_for(world: World, coordinator: str) -> bytes:
    """The name of a message whose first coordinator is that node."""
    names = (name_of("acme", b"%d" % number) for number in range(1000))
    return next(name for name in names if topology(world).ranked(name)[0] == coordinator)


def topology(world: World):
    machine = world.nodes[world.names[0]].machine
    assert machine is not None
    return machine._gathering._topology


# By rule


def test_an_mo_for_a_gateway_of_another_node_goes_there_and_passes_others_over():
    world = World(4, named=True)
    world.mo("n0", "mo1", "n3", gateway="gw-n3")
    world.settle_down()
    assert places(world, "mo1") == ["gw-n3"]
    world.check()


def test_an_mo_for_a_gateway_that_is_not_bound_waits_for_it_and_goes_at_once_when_it_binds():
    world = World(3, named=True)
    world.set_gateway("n2", up=False)
    world.settle_down()
    world.mo("n0", "mo1", "n2", gateway="gw-n2")
    world.settle_down()
    world.advance(100)
    world.settle_down()
    assert places(world, "mo1") == []
    world.set_gateway("n2", up=True)
    world.settle_down()
    assert places(world, "mo1") == ["gw-n2"]
    world.check()


def test_an_mo_for_a_gateway_of_this_node_that_is_not_bound_waits_here():
    world = World(2, named=True)
    world.set_gateway("n0", up=False)
    world.mo("n0", "mo1", "n0", gateway="gw-n0")
    world.settle_down()
    assert places(world, "mo1") == []
    world.set_gateway("n0", up=True)
    world.settle_down()
    assert places(world, "mo1") == ["gw-n0"]


@pytest.mark.parametrize("policy", ["park", "local", "drop"])
def test_an_mo_whose_gateway_never_binds_is_parked_as_unclaimed_whatever_the_policy(policy):
    policies = {"acme": evolve(SETTINGS.operators["acme"], unclaimed=policy, local_gateway="gw-n0")}
    world = World(3, evolve(SETTINGS, operators=policies), named=True)
    world.mo("n0", "mo1", gateway="nowhere")
    for _ in range(80):
        world.settle_down()
        world.advance(20)
    world.settle_down()
    assert world.custodies("mo1") == [("n0", "parked")]
    assert dict(world.notes[-1][1].fields)["reason"] == "unclaimed"


def test_a_parked_mo_is_replayed_to_the_gateway_that_it_was_for():
    world = World(3, evolve(SETTINGS, claim_for_s=0.0), named=True)
    world.set_gateway("n2", up=False)
    world.mo("n0", "mo1", "n2", gateway="gw-n2")
    world.settle_down()
    node = world.nodes["n0"]
    [row] = [decode_parked(value) for (table, _), value in node.disk.rows.items() if table is c.Table.PARKED]
    world.set_gateway("n2", up=True)
    assert node.machine is not None
    _, out = node.machine.replay(row, "", world.now)
    world.do("n0", out)
    world.settle_down()
    assert places(world, "mo1") == ["gw-n2"]
    world.check()


# In conversation


def test_an_mo_goes_to_the_gateway_in_conversation_with_its_sender_wherever_that_is():
    world = World(4, CONVERSING, named=True)
    world.nodes["n2"].conversing.add(b"anna")
    world.mo("n0", "anna/1", "n2")
    world.settle_down()
    assert places(world, "anna/1") == ["gw-n2"]
    assert not any(note.event == "waiting" for _, note in world.notes)
    world.check()


def test_without_a_conversation_the_second_lap_follows_at_once_and_the_origins_gateway_goes_first():
    world = World(4, CONVERSING, named=True)
    world.mo("n1", "anna/1", "n1")
    world.settle_down()
    assert places(world, "anna/1") == ["gw-n1"]
    assert {frame.lap for _, _, frame in world.forwards} == {1}
    world.check()


def test_without_a_conversation_or_a_gateway_here_any_bound_one_takes_it():
    world = World(4, CONVERSING, named=True)
    for name in ("n0", "n1"):
        world.set_gateway(name, up=False)
    world.mo("n0", "anna/1", "n2")
    world.settle_down()
    assert places(world, "anna/1") == ["gw-n2"]
    world.check()


def test_a_conversation_whose_gateway_is_down_is_passed_over():
    world = World(3, CONVERSING, named=True)
    world.nodes["n2"].conversing.add(b"anna")
    world.set_gateway("n2", up=False)
    world.mo("n0", "anna/1", "n0")
    world.settle_down()
    assert places(world, "anna/1") == ["gw-n0"]


def test_an_incomplete_first_lap_does_not_hold_the_mo_up():
    world = World(3, CONVERSING, named=True)
    world.crash("n1")
    world.mo("n0", "anna/1", "n0")
    world.settle_down()
    assert places(world, "anna/1") == ["gw-n0"]


def test_an_mo_that_waited_asks_for_a_conversation_again():
    world = World(3, CONVERSING, named=True)
    for name in world.names:
        world.set_gateway(name, up=False)
    world.nodes["n2"].conversing.add(b"anna")
    world.mo("n0", "anna/1", "n2")
    world.settle_down()
    assert "waiting" in events(world, "anna/1")
    world.set_gateway("n2", up=True)
    world.settle_down()
    assert places(world, "anna/1") == ["gw-n2"]


# All parts of a concatenated MO


@pytest.mark.parametrize("coordinator", ["n0", "n1", "n2"])
def test_parts_that_arrive_at_different_nodes_at_once_go_to_one_gateway(coordinator):
    world = World(3, named=True)
    message = message_for(world, coordinator)
    for name, trace in (("n0", "anna/1"), ("n1", "anna/2"), ("n2", "anna/3")):
        world.mo(name, trace, part=PartOf(message))
    world.settle_down()
    assert len(world.gateways_of(message)) == 1
    assert len(world.delivered) == 3
    world.recover()
    world.check()


def test_the_parts_go_to_the_gateway_of_the_node_that_asked_first():
    world = World(3, named=True)
    message = message_for(world, "n1")
    world.mo("n2", "anna/1", "n2", part=PartOf(message))
    world.settle_down()
    world.mo("n0", "anna/2", "n2", part=PartOf(message))
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n2"}
    assert not [frame for _, _, frame in world.forwards if frame.envelope.trace == "anna/1"]


def test_a_node_alone_decides_for_itself():
    world = World(1, named=True)
    message = name_of("acme", b"anna")
    for trace in ("anna/1", "anna/2"):
        world.mo("n0", trace, "n0", part=PartOf(message))
    world.settle_down()
    assert len(world.delivered) == 2


def test_a_rule_decides_for_all_parts():
    world = World(3, named=True)
    message = message_for(world, "n1")
    for name, trace in (("n0", "anna/1"), ("n1", "anna/2")):
        world.mo(name, trace, "n2", part=PartOf(message, rule="gw-n2"))
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n2"}


def test_a_part_waits_for_the_first_whose_keyword_decides():
    world = World(3, named=True)
    message = message_for(world, "n1")
    world.mo("n0", "anna/2", "n2", part=PartOf(message, certain=False))
    world.settle_down()
    assert not world.delivered
    world.advance(2)
    world.mo("n1", "anna/1", "n2", part=PartOf(message, rule="gw-n2"))
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n2"}
    assert len(world.delivered) == 2


def test_a_first_part_that_does_not_come_is_not_waited_for_for_ever():
    world = World(3, named=True)
    message = message_for(world, "n1")
    world.mo("n0", "anna/2", "n2", part=PartOf(message, rule="gw-n2", certain=False))
    world.settle_down()
    world.advance(5)
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n2"}
    world.mo("n1", "anna/1", "n2", part=PartOf(message, rule="gw-n0"))
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n2"}  # it was decided without it


def test_a_conversation_at_a_third_node_decides_for_all_parts():
    world = World(4, CONVERSING, named=True)
    message = message_for(world, "n1")
    world.nodes["n3"].conversing.add(b"anna")
    for name, trace in (("n0", "anna/1"), ("n2", "anna/2")):
        world.mo(name, trace, "n3", part=PartOf(message))
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n3"}
    assert len(world.delivered) == 2
    assert events(world, "anna/1").count("claimed") == 1
    world.recover()
    world.check()


def test_a_rule_goes_before_a_conversation():
    world = World(3, CONVERSING, named=True)
    message = message_for(world, "n1")
    world.nodes["n2"].conversing.add(b"anna")
    world.mo("n0", "anna/1", "n1", part=PartOf(message, rule="gw-n1"))
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n1"}


def test_nodes_whose_gateways_are_down_are_passed_over():
    world = World(3, named=True)
    message = message_for(world, "n1")
    for name in ("n0", "n1"):
        world.set_gateway(name, up=False)
    world.settle_down()
    for name, trace in (("n0", "anna/1"), ("n1", "anna/2")):
        world.mo(name, trace, "n2", part=PartOf(message))
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n2"}
    assert len(world.delivered) == 2


def test_with_no_gateway_anywhere_the_parts_wait_together():
    world = World(3, named=True)
    message = message_for(world, "n1")
    for name in world.names:
        world.set_gateway(name, up=False)
    world.settle_down()
    for name, trace in (("n0", "anna/1"), ("n1", "anna/2")):
        world.mo(name, trace, part=PartOf(message))
    world.settle_down()
    world.advance(30)
    world.settle_down()
    assert not world.delivered
    world.set_gateway("n2", up=True)
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n2"}
    assert len(world.delivered) == 2


def test_parts_that_nobody_can_take_are_parked():
    world = World(2, evolve(SETTINGS, claim_for_s=0.0), named=True)
    for name in world.names:
        world.set_gateway(name, up=False)
    world.settle_down()
    world.mo("n0", "anna/1", part=PartOf(message_for(world, "n1")))
    world.settle_down()
    assert world.custodies("anna/1") == [("n0", "parked")]


def test_a_coordinator_out_of_reach_is_passed_over_for_the_next():
    world = World(3, named=True)
    message = message_for(world, "n1")
    world.crash("n1")
    for name, trace in (("n0", "anna/1"), ("n2", "anna/2")):
        world.mo(name, trace, part=PartOf(message))
    world.settle_down()
    assert len(world.delivered) == 2
    assert len(world.gateways_of(message)) == 1


def test_a_coordinator_that_does_not_answer_is_passed_over_after_a_while():
    world = World(3, named=True)
    message = message_for(world, "n1")
    world.mo("n0", "anna/1", part=PartOf(message))
    world.commit("n0")
    world.wires["n0", "n1"].clear()  # n1 reads nothing
    world.settle_down()
    assert not world.delivered
    world.advance(5)
    world.settle_down()
    assert len(world.delivered) == 1


def test_a_coordinator_that_dies_while_it_is_asked_is_passed_over_at_once():
    world = World(3, named=True)
    message = message_for(world, "n1")
    world.mo("n0", "anna/1", part=PartOf(message))
    world.commit("n0")
    world.crash("n1")
    world.settle_down()
    assert len(world.delivered) == 1


def test_the_next_coordinator_goes_by_what_the_one_that_left_had_decided():
    world = World(3, named=True)
    message = message_for(world, "n1")
    world.mo("n0", "anna/1", "n0", part=PartOf(message))
    world.settle_down()
    world.crash("n1")
    world.mo("n2", "anna/2", "n0", part=PartOf(message))
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n0"}
    assert len(world.delivered) == 2


def test_a_decision_outlives_the_restart_of_every_node():
    world = World(2, named=True)
    message = message_for(world, "n0")
    world.mo("n1", "anna/1", "n1", part=PartOf(message))
    world.settle_down()
    for name in world.names:
        world.crash(name)
    for name in world.names:
        world.start(name)
    world.mo("n0", "anna/2", "n1", part=PartOf(message))
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n1"}
    world.recover()
    world.check()


def test_nobody_is_told_of_a_decision_before_it_is_on_disk():
    world = World(2, named=True)
    message = message_for(world, "n0")
    world.mo("n1", "anna/1", part=PartOf(message))
    world.commit("n1")
    world.deliver_frame(("n1", "n0"))
    assert not world.wires["n0", "n1"]
    world.commit("n0")
    [frame] = world.wires["n0", "n1"]
    assert frame == Decided(message, Place("gw-n1", "n1"), "n0", 0.0)


def test_a_part_is_placed_on_disk_so_that_it_goes_there_after_a_restart_too():
    world = World(3, named=True)
    message = message_for(world, "n1")
    world.mo("n0", "anna/1", "n2", part=PartOf(message, rule="gw-n2"))
    world.set_gateway("n2", up=False)
    world.settle_down()
    world.advance(700)  # the decision is forgotten by everybody
    for name in world.names:
        world.crash(name)
    for name in world.names:
        world.start(name)
    world.set_gateway("n2", up=True)
    world.settle_down()
    assert places(world, "anna/1") == ["gw-n2"]


def test_decisions_are_forgotten_after_a_while_and_beyond_their_bound():
    world = World(2, evolve(SETTINGS, max_decisions=3), named=True)
    for number in range(5):
        world.mo("n0", f"anna/{number}", part=PartOf(name_of("acme", b"%d" % number)))
        world.settle_down()
    for node in world.nodes.values():
        assert node.machine is not None
        assert len(node.machine._gathering._coordinator._known) == 3
    world.advance(601)
    world.settle_down()
    for node in world.nodes.values():
        assert node.machine is not None
        assert not node.machine._gathering._coordinator._known
    world.check()


def test_two_nodes_that_cannot_reach_each_other_split_a_message_and_one_of_them_says_so_once():
    world = World(2, named=True)
    message = message_for(world, "n1")
    world.cut_link("n0", "n1")
    world.mo("n0", "anna/1", "n0", part=PartOf(message))
    world.mo("n1", "anna/2", "n1", part=PartOf(message))
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n0", "gw-n1"}
    for _ in range(2):
        world.heal_link("n0", "n1")
        world.settle_down()
        world.cut_link("n0", "n1")
    [(name, note)] = [(name, note) for name, note in world.notes if note.event == "split"]
    assert (name, dict(note.fields)) == ("n0", {"gateway": "gw-n0", "other": "gw-n1", "nodes": "n0 n1"})
    world.recover()
    world.check()


def test_two_nodes_that_decide_the_same_have_split_nothing():
    world = World(2, named=True)
    message = message_for(world, "n1")
    world.cut_link("n0", "n1")
    for name, trace in (("n0", "anna/1"), ("n1", "anna/2")):
        world.mo(name, trace, "n0", part=PartOf(message, rule="gw-n0"))
    world.settle_down()
    world.heal_link("n0", "n1")
    world.settle_down()
    assert world.gateways_of(message) == {"gw-n0"}
    assert not world.split()


def test_a_coordinator_asked_for_too_many_messages_says_later():
    world = World(2, evolve(SETTINGS, max_decisions=1), named=True)
    machine = world.nodes["n1"].machine
    assert machine is not None
    one, two = name_of("acme", b"1"), name_of("acme", b"2")
    world.do("n1", machine.frame("n0", Gather("acme", "t", PartOf(one, certain=False)), world.now))
    world.do("n1", machine.frame("n0", Gather("acme", "t", PartOf(two, certain=False)), world.now))
    assert list(world.wires["n1", "n0"]) == [Decided(two, None, "n1")]


def test_a_part_that_its_gateway_refuses_is_retried_or_parked_like_a_report():
    world = World(2, named=True)
    message = message_for(world, "n1")
    world.mo("n0", "anna/1", part=PartOf(message, rule="gw-n1"))
    while not world.nodes["n1"].at_gateway:
        world.busy_steps()[0]()
    world.answer("n1", ESME_RSYSERR)
    world.advance(2)
    assert places(world, "anna/1") == ["gw-n1"] * 2
    world.answer("n1", ESME_RX_P_APPN)
    world.settle_down()
    assert world.custodies("anna/1") == [("n1", "parked")]


def test_every_route_event_says_what_the_documents_say():
    world = World(2, CONVERSING, named=True)
    message = message_for(world, "n1")
    world.cut_link("n0", "n1")
    for name, trace in (("n0", "anna/1"), ("n1", "anna/2")):
        world.mo(name, trace, part=PartOf(message))
    world.settle_down()
    world.recover()
    assert {"gathered", "split"} <= {note.event for _, note in world.notes}
    for _, note in world.notes:
        documented = ROUTE_EVENTS[f"{note.envelope.kind}.{note.event}"].fields
        assert {name for name, _ in note.fields} <= set(documented), note.event
