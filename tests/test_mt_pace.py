"""How fast and how much at a time MT go to the operator: the account's share, the operator's window, its refusals."""

import pytest
import trio
from relay_world import Wire, World, heads, sequence_of, submit_sm_resp

from dlrproxy.config import Address, Config, Custody, Log, Node, Operator, Peer, Ring, Secret
from dlrproxy.node import Node as RunningNode
from protocols.smpp import constants as c


def passed(world, bind, seconds=10, step=0.1):
    """How many MT go out in this time."""
    sent = 0
    for _ in range(round(seconds / step)):
        world.tick(step)
        sent += len(bind.connection.take())
    return sent


# The account's rate


@pytest.mark.parametrize(
    ("settings", "nodes", "per_s"),
    [
        ({}, 3, None),
        ({"max_per_s": 10.0}, 3, 10),
        ({"account_max_per_s": 60.0}, 1, 60),
        ({"account_max_per_s": 60.0}, 3, 20),
        ({"account_max_per_s": 60.0, "max_per_s": 10.0}, 3, 10),
        ({"account_max_per_s": 60.0, "max_per_s": 50.0}, 3, 20),
    ],
)
def test_a_node_takes_its_share_or_less(settings, nodes, per_s):
    world = World(window=1000, **settings)
    assert world.operator.pace_per_s(nodes) == per_s
    world.relay.share_among(nodes)
    assert world.relay.pace_per_s == per_s


def test_the_share_changes_while_mt_wait():
    world = World(window=1000, account_max_per_s=40.0)
    bind, session = world.bind(), world.session()
    world.submit(session, *range(1, 601))
    bind.connection.take()
    world.relay.share_among(4)
    assert passed(world, bind, 4) == pytest.approx(40, abs=2)


# The operator's window


def test_operator_window_bounds_the_sum_over_the_binds():
    world = World(window=3, operator_window=4)
    binds, session = [world.bind("1"), world.bind("2")], world.session()
    world.submit(session, *range(1, 8))
    assert sorted(len(bind.window) for bind in binds) == [1, 3]
    assert world.counters.waited_for_room == 3
    full = max(binds, key=lambda bind: len(bind.window))
    first = full.connection.sent[0]
    world.relay.from_operator(full, [submit_sm_resp(sequence_of(first), b"id1")])
    assert sum(len(bind.window) for bind in binds) == 4


def test_binds_that_have_room_do_not_wake_anybody_while_the_operators_window_is_full():
    world = World(window=10, operator_window=1, max_per_s=1000.0)
    bind, session = world.bind(), world.session()
    world.submit(session, 1, 2)
    assert world.relay._next_due() is None
    world.relay.from_operator(bind, [submit_sm_resp(sequence_of(bind.connection.take()[0]), b"id1")])
    world.tick(0.1)
    assert len(bind.connection.take()) == 1


def test_a_lost_bind_gives_its_part_of_the_operators_window_back():
    world = World(window=4, operator_window=4)
    first, session = world.bind("1"), world.session()
    world.submit(session, 1, 2, 3, 4)
    second = world.bind("2")
    world.relay.lost(first)
    world.submit(session, 5, 6)
    assert len(second.connection.take()) == 2


# What the operator refuses


def refuse(world, bind, status=c.ESME_RTHROTTLED, count=1):
    """The operator refuses what it was sent."""
    frames = [submit_sm_resp(sequence_of(frame), status=status) for frame in bind.connection.take()[:count]]
    world.relay.from_operator(bind, frames)
    return frames


@pytest.mark.parametrize("status", [c.ESME_RTHROTTLED, c.ESME_RMSGQFUL])
@pytest.mark.parametrize("slow", [False, True])
def test_a_refusal_reaches_the_gateway_and_slows_where_it_is_told_to(status, slow):
    world = World(window=1000, slow_on_throttle=slow)
    bind, session = world.bind(), world.session()
    world.submit(session, *range(1, 101))
    refuse(world, bind, status)
    assert heads(session.connection.take()) == [("submit_sm_resp", status, 1)]
    assert (world.counters.throttled, world.counters.slowed) == (1, int(slow))
    assert world.relay.pace_per_s == (50 if slow else None)


def test_another_error_slows_nobody():
    world = World(slow_on_throttle=True)
    bind, session = world.bind(), world.session()
    world.submit(session, 1)
    refuse(world, bind, c.ESME_RINVDSTADR)
    assert (world.counters.throttled, world.relay.pace_per_s) == (0, None)


def test_refusals_of_one_batch_halve_once():
    world = World(window=1000, slow_on_throttle=True)
    bind, session = world.bind(), world.session()
    world.submit(session, *range(1, 101))
    refuse(world, bind, count=60)
    assert (world.counters.throttled, world.counters.slowed, world.relay.pace_per_s) == (60, 1, 50)


def test_the_slowed_pace_is_kept_and_grows_until_it_is_gone():
    world = World(window=10_000, slow_on_throttle=True)
    bind, session = world.bind(), world.session()
    world.submit(session, *range(1, 101))
    refuse(world, bind)
    world.submit(session, *range(101, 601))
    assert passed(world, bind, 5) == pytest.approx(5 * 50 + 62, rel=0.1)  # 50 a second, 5 more every second
    assert passed(world, bind, 5) < 500
    world.tick(25)
    assert world.relay.pace_per_s is None


def test_the_configured_limit_counts_while_it_is_the_smaller():
    world = World(window=1000, slow_on_throttle=True, max_per_s=60.0)
    bind, session = world.bind(), world.session()
    world.submit(session, *range(1, 601))
    passed(world, bind, 3)
    world.submit(session, 601)
    bind.connection = Wire()
    world.tick(0.1)
    refuse(world, bind)
    assert world.relay.pace_per_s == pytest.approx(30, rel=0.1)
    world.tick(12)
    assert world.relay.pace_per_s == 60


# In a node


def node_config(tmp_path, names, **settings):
    operator = Operator(
        name="acme",
        host="127.0.0.1",
        port=1,
        system_id="shop",
        password=Secret(b"secret"),
        listen={"gw1": Address("127.0.0.1", 0)},
        account_max_per_s=60.0,
        **settings,
    )
    peers = tuple(Peer(name=name, url=f"ws://127.0.0.1:{port}") for name, port in names.items())
    return Config(
        node=Node(name="gw1", data_dir=tmp_path),
        operators=(operator,),
        peers=peers,
        ring=Ring(listen=Address("127.0.0.1", 0)),
        custody=Custody(),
        log=Log(),
    )


async def test_a_reload_with_other_peers_changes_the_share(tmp_path):
    node = RunningNode(node_config(tmp_path, {"gw1": 7301, "gw2": 7302}))
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        assert node.term.fronts["acme"].relay.pace_per_s == 30
        front = node.term.fronts["acme"]
        await node.reload(node_config(tmp_path, {"gw1": 7301, "gw2": 7302, "gw3": 7303}))
        assert node.term.fronts["acme"] is front  # its sessions were not touched
        assert front.relay.pace_per_s == 20
        await node.reload(node_config(tmp_path, {"gw1": 7301, "gw2": 7302, "gw3": 7303}, max_per_s=5.0))
        assert node.term.fronts["acme"].relay.pace_per_s == 5
        await node.reload(node_config(tmp_path, {"gw1": 7301, "gw2": 7302, "gw3": 7303}, window=11))
        assert node.term.fronts["acme"].relay.pace_per_s == 20
        node.stop()
