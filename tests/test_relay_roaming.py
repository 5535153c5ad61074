"""Reports in a cluster: the store knows whose they are, and their gateway may be bound at another node."""

import pytest
from relay_world import World, deliver_sm_resp, receipt, sequence_of

from dlrproxy.store.port import OpenMessage
from protocols.smpp import constants as c


def world_of_a_cluster(**settings):
    """Messages id1 of gw1, and id9 of a gateway that this node has no listener for, submitted at another node."""
    world = World(roaming=True, **settings)
    for message_id, gateway in ((b"id1", "gw1"), (b"id9", "gw9")):
        world.store.put_open(OpenMessage("acme", message_id, gateway, b"447700900001", b"SHOP", 7, 990.0, 9e9))
    return world


async def test_a_report_whose_gateway_is_bound_here_is_passed_to_it():
    world = world_of_a_cluster()
    bind, session = world.bind(), world.session("gw1")
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    [passed] = session.connection.take()
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(passed))])
    assert bind.connection.take() == [deliver_sm_resp(1)]
    assert (world.custody.accepted, world.counters.matched_elsewhere) == ([], 0)


@pytest.mark.parametrize("policy", ["custody", "retry_status"])
@pytest.mark.parametrize(("message_id", "gateway"), [(b"id1", "gw1"), (b"id9", "gw9")])
async def test_one_whose_gateway_is_not_is_kept_for_wherever_that_is_bound(message_id, gateway, policy):
    world = world_of_a_cluster(on_temporary_error=policy)
    bind = world.bind()
    world.session("gw2")
    world.relay.from_operator(bind, [receipt(1, message_id)])
    [accepted] = world.custody.accepted
    assert (accepted.owner, accepted.designated, accepted.kind) == (None, gateway, "dlr")
    assert bind.connection.take() == []
    world.custody.answer()
    assert bind.connection.take() == [deliver_sm_resp(1)]
    assert world.counters.matched_elsewhere == 1


@pytest.mark.parametrize("bound", [True, False])
async def test_what_queues_behind_custody_is_for_this_node_only_where_its_gateway_is_bound(bound):
    world = world_of_a_cluster()
    bind = world.bind()
    if bound:
        world.session("gw1")
    world.custody.held.add(("acme", b"id1"))
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    [accepted] = world.custody.accepted
    assert (accepted.owner, accepted.designated) == (("gw1", "") if bound else (None, "gw1"))


async def test_a_gateway_that_is_bound_and_has_no_room_is_waited_for_here():
    world = world_of_a_cluster(gateway_window=1)
    bind = world.bind()
    world.session("gw1")
    world.relay.from_operator(bind, [receipt(1, b"id1"), receipt(2, b"id1", stat=b"ACCEPTD")])
    world.store.put_open(OpenMessage("acme", b"id2", "gw1", b"447700900001", b"SHOP", 7, 990.0, 9e9))
    world.relay.from_operator(bind, [receipt(3, b"id2")])
    [accepted] = world.custody.accepted
    assert (accepted.owner, accepted.message_id) == ("gw1", b"id2")


async def test_without_a_cluster_it_is_this_nodes_own_and_waits_here():
    world = World(on_temporary_error="retry_status")
    bind, session = world.bind(), world.session("gw1")
    world.open(session, bind, b"id1")
    world.relay.lost(session)
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    assert world.custody.accepted == []
    assert bind.connection.take() == [deliver_sm_resp(1, c.ESME_RTHROTTLED)]
