"""What people are told of custody: how much is in which state, and for whose word it waits."""

from custody_world import World

from ring.items import State


def test_a_claim_waits_for_its_origin_and_a_grant_for_its_claimer():
    world = World(2)
    world.submit("n1", b"id1")
    world.report("n0", b"id1", "t1", owner="n1")
    world.set_gateway("n1", False)
    world.settle_down()
    owner, origin = (world.nodes[name].machine for name in ("n1", "n0"))
    assert origin.by_state() == {State.GRANTED: 1}
    assert origin.awaiting() == {"n1": {State.GRANTED: 1}}
    assert owner.by_state() == {State.QUEUED: 1}
    assert owner.awaiting() == {}
    assert owner.by_operator() == {"acme": 1}
