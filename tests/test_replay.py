"""What a person does with a parked report: round the ring again, or to a node of their choice."""

from attrs import evolve
from custody_world import SETTINGS, World

from ring import commands as c
from ring.rows import decode_parked
from ring.settings import OperatorPolicy


def parked_at(world, name):
    rows = world.nodes[name].disk.rows
    return [decode_parked(value) for (table, _), value in rows.items() if table is c.Table.PARKED]


def replay(world, name, gateway="", *, node=""):
    """The one thing that is parked there."""
    machine = world.nodes[name].machine
    [row] = parked_at(world, name)
    _, out = machine.replay(row, gateway, world.now, node=node)
    world.do(name, out)
    world.settle_down()


def test_a_parked_report_is_replayed_round_the_ring():
    world = World(2, evolve(SETTINGS, claim_for_s=0.0, watch_s=0.0))
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    world.submit("n1", b"id1")
    replay(world, "n0")
    world.check()
    assert world.nodes["n0"].machine.count().parked == 0


def test_a_parked_report_is_replayed_to_a_node_that_a_person_names_and_waits_for_a_gateway_there():
    """Its owner is gone for good, and another node has its customers now."""
    world = World(4, evolve(SETTINGS, claim_for_s=0.0, watch_s=0.0), named=True)
    world.report("n0", b"id1", "t1", owner="n2")
    world.settle_down()
    world.settings = SETTINGS
    for name in world.names:
        world.crash(name)
        world.start(name)
    world.settle_down()
    world.set_gateway("n2", up=False)
    world.forwards.clear()
    replay(world, "n0", node="n2")
    assert world.forwards[0][:2] == ("n0", "n2")  # straight there
    assert not world.delivered
    world.crash("n0")  # what the person has said is on disk
    world.start("n0")
    world.settle_down()
    world.set_gateway("n2", up=True)  # which wakes it
    world.settle_down()
    assert [(delivery.node, delivery.gateway) for delivery in world.delivered] == [("n2", "gw-n2")]
    world.check()


def test_what_a_person_sent_to_a_node_is_not_given_to_the_local_gateway_instead_and_may_go_round_the_ring_after_all():
    settings = evolve(SETTINGS, claim_for_s=0.0, watch_s=0.0, operators={"acme": OperatorPolicy("park", "gw")})
    world = World(3, settings)
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    world.set_gateway("n2", up=False)
    settings.operators["acme"] = OperatorPolicy("local", "gw")
    replay(world, "n0", node="n2")
    assert [(row.reason, row.envelope.node) for row in parked_at(world, "n0")] == [("unclaimed", "n2")]
    world.submit("n1", b"id1")
    replay(world, "n0")
    assert [delivery.node for delivery in world.delivered] == ["n1"]
    world.check()


def test_a_parked_report_goes_to_the_gateway_of_that_node_that_a_person_names():
    world = World(2, evolve(SETTINGS, claim_for_s=0.0, watch_s=0.0), named=True)
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    replay(world, "n0", "gw-n0", node="n1")  # n1 has none of that name
    assert [row.reason for row in parked_at(world, "n0")] == ["unclaimed"]
    replay(world, "n0", "gw-n1", node="n1")
    assert [delivery.gateway for delivery in world.delivered] == ["gw-n1"]
    world.check()
