"""Whom a report is sent to first: whoever a summary names, and then the walk as without."""

import pytest
from custody_world import World

from protocols.peer.frames import Envelope, EnvelopeKey
from ring.next_hop import NextHop, next_hop
from ring.topology import Topology

TOPOLOGY = Topology(["n0", "n1", "n2", "n3"], "n1")


class Named:
    """Says of every message that one of these nodes owns it."""

    def __init__(self, *names):
        self.names = names

    def likely(self, operator, message_id, nodes):
        return next((node for node in nodes if node in self.names), None)


def envelope(kind="dlr", message_id=b"id1"):
    return Envelope(EnvelopeKey(b"s", 1), "n0", "acme", kind, message_id, b"", b"pdu", "t", True)


def test_the_named_node_comes_first_and_the_next_in_the_ring_where_none_is_named():
    reachable = {"n0", "n2", "n3"}
    assert next_hop(envelope(), ["n1"], reachable, TOPOLOGY, None) == NextHop("n2", named=False)
    assert next_hop(envelope(), ["n1"], reachable, TOPOLOGY, Named()) == NextHop("n2", named=False)
    assert next_hop(envelope(), ["n1"], reachable, TOPOLOGY, Named("n0", "n3")) == NextHop("n3", named=True)
    assert next_hop(envelope(), ["n1", "n3"], reachable, TOPOLOGY, Named("n0", "n3")) == NextHop("n0", named=True)
    assert next_hop(envelope(), ["n1", *reachable], reachable, TOPOLOGY, Named("n3")) is None


def test_a_named_node_that_cannot_be_reached_is_not_chosen():
    assert next_hop(envelope(), ["n1"], {"n0", "n2"}, TOPOLOGY, Named("n3")) == NextHop("n2", named=False)


def test_an_mo_belongs_to_no_message():
    assert next_hop(envelope("mo", b""), ["n1"], {"n0", "n2", "n3"}, TOPOLOGY, Named("n3")).node == "n2"


@pytest.mark.parametrize(("passed_over", "first"), [(1, "n3"), (2, "n0"), (3, "n2"), (4, "n3")])
def test_after_laps_that_nobody_answered_it_begins_elsewhere_whoever_is_named(passed_over, first):
    reachable = {"n0", "n2", "n3"}
    assert next_hop(envelope(), ["n1"], reachable, TOPOLOGY, Named("n2"), passed_over) == NextHop(first, named=False)


def hops(world, trace):
    return [(sender, to) for sender, to, frame in world.forwards if frame.envelope.trace == trace]


def settled(world, trace):
    [note] = [note for _, note in world.notes if note.event == "settled" and note.envelope.trace == trace]
    return note.hop, dict(note.fields).get("summary")


@pytest.fixture
def world():
    world = World(5, summaries=True)
    world.advance(0.1)
    world.settle_down()
    return world


def name_wrongly(world, *names):
    """Every node's summaries name these, whatever the message."""
    for node in world.nodes.values():
        node.machine._walk._owners = node.machine._passing._owners = Named(*names)


def test_a_report_goes_straight_to_its_owner(world):
    world.submit("n3", b"id1")
    world.advance(0.1)
    world.settle_down()
    world.report("n0", b"id1", "t1", owner="n3")
    world.settle_down()
    assert hops(world, "t1") == [("n0", "n3")]
    assert settled(world, "t1") == (1, "right")
    world.check()


def test_a_report_that_comes_before_its_owner_is_known_walks_at_once(world):
    world.submit("n3", b"id1")
    world.report("n0", b"id1", "t1", owner="n3")
    world.settle_down()
    assert hops(world, "t1") == [("n0", "n1"), ("n1", "n2"), ("n2", "n3")]
    assert settled(world, "t1") == (3, "none")
    world.check()


def test_wrong_summaries_cost_hops_and_nothing_else(world):
    name_wrongly(world, "n1", "n4")
    world.submit("n3", b"id1")
    world.report("n0", b"id1", "t1", owner="n3")
    world.report("n2", b"nobody", "t2", owner="")
    world.settle_down()
    assert hops(world, "t1") == [("n0", "n1"), ("n1", "n4"), ("n4", "n2"), ("n2", "n3")]
    assert settled(world, "t1") == (4, "wrong")
    assert hops(world, "t2")[:4] == [("n2", "n4"), ("n4", "n1"), ("n1", "n3"), ("n3", "n0")]
    world.recover()
    world.check()


def test_a_summary_that_names_a_node_which_is_down_costs_nothing(world):
    world.submit("n3", b"id1")
    world.advance(0.1)
    world.settle_down()
    world.crash("n3")
    world.report("n0", b"id1", "t1", owner="n3")
    world.settle_down()
    assert {to for _, to in hops(world, "t1")} == {"n1", "n2", "n4"}
    world.recover()
    world.check()


def test_an_owner_that_comes_back_is_asked_first(world):
    world.submit("n3", b"id1")
    world.advance(0.1)
    world.settle_down()
    world.crash("n3")
    world.start("n3")
    world.report("n0", b"id1", "t1", owner="n3")
    world.settle_down()
    assert hops(world, "t1") == [("n0", "n3")]
    world.check()
