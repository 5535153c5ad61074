"""A whole node that takes over another configuration: with custody, while it starts, drains and stops."""

import pytest
import structlog
import trio
from attrs import evolve
from smpp_peer import Peer, bind_request

from dlrproxy.config import Address, Config, Mo, MoRule, Node, Operator, Ring, Secret
from dlrproxy.config import Peer as PeerTable
from dlrproxy.config.changes import ReloadRefusedError
from dlrproxy.custody_port import Accepted
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.mo.routing import Why
from dlrproxy.node import Node as RunningNode
from dlrproxy.routing import Step
from dlrproxy.simulator.operator import Operator as SimulatedOperator
from dlrproxy.simulator.options import OperatorOptions
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from protocols.smpp.pdu import Message, pack

REPORT = pack(c.DELIVER_SM, 0, 7, Message(esm_class=4, short_message=b"id:1 stat:DELIVRD").encode())


@pytest.fixture
async def smsc(nursery):
    operator = SimulatedOperator(OperatorOptions(port=0))
    await nursery.start(operator.run)
    yield operator
    await operator.stop()


@pytest.fixture(autouse=True)
def time_to_part(monkeypatch):
    """A busy machine may need it; every gateway here says goodbye in the end."""
    monkeypatch.setattr("dlrproxy.gateways.PARTING_S", 60)


@pytest.fixture
def port():
    with reserved(1) as (port,):
        yield port


@pytest.fixture
def before(tmp_path, smsc, port):
    """A node with one operator."""
    node = Node(name="gw1", data_dir=tmp_path / "data", min_free_mb=16, drain_s=5.0)
    return Config(node=node, operators=(operator("acme", smsc, port),))


@pytest.fixture
async def node(before, nursery):
    node = RunningNode(before)
    await nursery.start(node.run)
    yield node
    node.stop()


def operator(name, smsc, port, **settings):
    return Operator(
        name=name,
        host=LOOPBACK,
        port=smsc.port,
        system_id="shop",
        password=Secret(b"secret"),
        listen={"gw1": Address(LOOPBACK, port)},
        reconnect_min_s=0.05,
        reconnect_max_s=0.2,
        **settings,
    )


def changed(config, **settings):
    """The same, with another window or whatever else at its first operator."""
    first, *others = config.operators
    return evolve(config, operators=(evolve(first, **{"window": first.window + 1, **settings}), *others))


async def keep(node, message_id=b"1", operator="acme"):
    """Into custody, for this node's gateway."""
    durable = trio.Event()
    report = Accepted(operator, "dlr", message_id, b"", REPORT, True, f"t{message_id}", "gw1")
    node.term.keeper.accept(report, lambda _: durable.set())
    await durable.wait()


async def dial(port):
    peer = Peer(await trio.open_tcp_stream(LOOPBACK, port))
    await peer.send(bind_request())
    _, command, status, _ = HEADER.unpack_from(await peer.receive())
    assert (command, status) == (c.BIND_TRANSCEIVER_RESP, c.ESME_ROK)
    return peer


async def next_request(peer, command):
    """The next PDU of this kind: its sequence number."""
    while True:
        _, found, _, sequence = HEADER.unpack_from(await peer.receive())
        if found == command:
            return sequence


async def until(holds):
    with trio.fail_after(100):
        while not holds():
            await trio.lowlevel.checkpoint()


async def test_an_address_that_is_taken_ends_nothing_and_is_tried_again(node, before, smsc):
    [taken] = await trio.open_tcp_listeners(0, host=LOOPBACK)
    beta = operator("beta", smsc, taken.socket.getsockname()[1])
    wanted = evolve(before, operators=(*before.operators, beta))
    with structlog.testing.capture_logs() as logged:
        await node.reload(wanted)
    assert [line["operator"] for line in logged if line["event"] == "config.operator_not_started"] == ["beta"]
    assert [each.name for each in node.config.operators] == ["acme"]
    await taken.aclose()
    await node.reload(wanted)
    assert list(node.term.fronts) == ["acme", "beta"]


async def test_while_the_node_starts_it_waits(before, nursery):
    node = RunningNode(before)
    done = trio.Event()

    async def reload():
        await node.reload(changed(before))
        done.set()

    nursery.start_soon(reload)
    await trio.testing.wait_all_tasks_blocked()
    await nursery.start(node.run)
    await done.wait()
    assert node.term.fronts["acme"].relay.operator.window == before.operators[0].window + 1
    node.stop()


async def test_a_stop_cuts_it_short_and_none_is_taken_after(before, port):
    node = RunningNode(before)
    with structlog.testing.capture_logs() as logged:
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            await keep(node)
            gateway = await dial(port)
            sequence = await next_request(gateway, c.DELIVER_SM)
            nursery.start_soon(node.reload, changed(before))
            await until(lambda: node.term.fronts["acme"].relay.hand_over.closing)  # it waits for the gateway's answer
            node.stop()
            with pytest.raises(ReloadRefusedError, match="stopping"):
                await node.reload(before)
            await gateway.send(pack(c.DELIVER_SM_RESP, 0, sequence, b"\0"))
            await next_request(gateway, c.UNBIND)
            await gateway.aclose()
    events = [line["event"] for line in logged]
    assert "config.reload_cut_short" in events
    assert "config.reloaded" not in events
    assert node.term.keeper.in_custody() == 0


async def test_fronts_are_closed_together(node, before, smsc, port, nursery):
    with reserved(1) as (other,):
        both = evolve(before, operators=(*before.operators, operator("beta", smsc, other)))
        await node.reload(both)
        gateways = []
        for name, where in (("acme", port), ("beta", other)):
            await keep(node, b"1", name)
            gateways.append(await dial(where))
        sequences = [await next_request(gateway, c.DELIVER_SM) for gateway in gateways]
        nursery.start_soon(node.reload, evolve(before, operators=()))
        await until(lambda: all(front.relay.hand_over.closing for front in node.term.fronts.values()))
        for gateway, sequence in zip(gateways, sequences, strict=True):
            await gateway.send(pack(c.DELIVER_SM_RESP, 0, sequence, b"\0"))
            await next_request(gateway, c.UNBIND)
            await gateway.aclose()
        await until(lambda: not node.term.fronts)


async def test_what_custody_delivers_is_finished_before_the_gateway_is_unbound(node, before, port, nursery):
    for message_id in (b"1", b"2", b"3"):
        await keep(node, message_id)
    gateway = await dial(port)
    sequences = [await next_request(gateway, c.DELIVER_SM) for _ in range(3)]
    nursery.start_soon(node.reload, changed(before))
    await until(lambda: node.term.fronts["acme"].relay.hand_over.closing)
    await keep(node, b"4")  # is not delivered to a gateway that is being let go of
    for sequence in sequences:
        await gateway.send(pack(c.DELIVER_SM_RESP, 0, sequence, b"\0"))
    assert HEADER.unpack_from(await gateway.receive())[1] == c.UNBIND  # and no further delivery before it
    assert node.term.keeper.in_custody() == 1
    await gateway.aclose()
    await until(lambda: "acme" in node.term.fronts and not node.term.fronts["acme"].relay.hand_over.closing)
    again = await dial(port)
    await again.send(pack(c.DELIVER_SM_RESP, 0, await next_request(again, c.DELIVER_SM), b"\0"))
    await node.term.keeper.empty()
    await again.aclose()


async def test_a_node_that_drains_binds_nowhere_new(node, before, smsc, port):
    await until(lambda: smsc.binds)
    await keep(node)
    node.drain("custody")
    await until(lambda: not smsc.binds)
    await node.reload(changed(before))
    front = node.term.fronts["acme"]
    assert front.relay.draining
    gateway = await dial(port)  # what is in custody waits for it
    await gateway.send(pack(c.DELIVER_SM_RESP, 0, await next_request(gateway, c.DELIVER_SM), b"\0"))
    await node.term.keeper.empty()
    assert [slot.bind for slot in front.operators.slots] == [None]
    assert not smsc.binds
    await gateway.aclose()


async def test_the_file_of_another_node_is_refused(node, before, tmp_path):
    other = evolve(before, node=Node(name="gw2", data_dir=tmp_path / "other"), operators=())
    with pytest.raises(ReloadRefusedError) as refused:
        await node.reload(other)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["node.name", "node.data_dir"]
    assert node.config == before
    assert list(node.term.fronts) == ["acme"]


async def test_a_table_of_nodes_that_cannot_be_used_changes_nothing(before, nursery):
    with reserved(2) as ports:
        peers = tuple(PeerTable(name=f"gw{n}", url=f"ws://{LOOPBACK}:{at}") for n, at in enumerate(ports, start=1))
        node = RunningNode(evolve(before, peers=peers))
        await nursery.start(node.run)
        bare = PeerTable(name="gw3", url="ws://10.0.0.3:7301")
        wanted = evolve(before, peers=(*peers, bare), ring=Ring(secret=Secret(b"x" * 16)), operators=())
        with pytest.raises(ValueError, match="would leave this machine unencrypted"):
            await node.reload(wanted)
        assert [peer.name for peer in node.term.ring.peers()] == ["gw2"]
        assert node.config.peers == peers
        assert list(node.term.fronts) == ["acme"]
        node.stop()


async def test_what_needs_a_restart_is_named_every_time(node, before):
    wanted = evolve(changed(before, race_window_s=9.0), ring=Ring(claim_for_s=60.0))
    for _ in range(2):
        with structlog.testing.capture_logs() as logged:
            await node.reload(wanted)
        [warning] = [line for line in logged if line["event"] == "config.needs_restart"]
        assert warning["keys"] == ["ring.claim_for_s", "operators.race_window_s"]


async def test_other_rules_for_mo_and_an_empty_ring_are_taken_over_by_operators_that_stay(before, nursery):
    with reserved(2) as ports:
        peers = tuple(PeerTable(name=f"gw{n}", url=f"ws://{LOOPBACK}:{at}") for n, at in enumerate(ports, start=1))
        node = RunningNode(evolve(before, peers=peers))
        await nursery.start(node.run)
        front = node.term.fronts["acme"]
        text = pack(c.DELIVER_SM, 0, 7, Message(destination=b"7000", short_message=b"WIN").encode())
        assert front.relay.mo.place(text, ["gw1"], 0.0).step is Step.KEEP  # the ring may have a conversation
        ruled = evolve(before, peers=peers, mo=Mo(rules=(MoRule(keyword="win", gateway="gw1"),)))
        with structlog.testing.capture_logs() as logged:
            await node.reload(ruled)
        assert front.relay.mo.place(text, ["gw1"], 0.0).why is Why.RULE
        assert [line["mo_rules"] for line in logged if line["event"] == "config.reloaded"] == [True]
        assert "config.needs_restart" not in [line["event"] for line in logged]
        await node.reload(evolve(before, peers=peers[:1]))
        assert node.term.fronts["acme"] is front
        assert front.relay.mo.place(text, ["gw1"], 0.0).step is Step.LOCAL
        node.stop()


def as_gw2(config, peers):
    """Another node of that ring, without operators."""
    node = evolve(config.node, name="gw2", data_dir=config.node.data_dir.with_name("data-gw2"))
    return evolve(config, node=node, peers=peers, operators=())


async def test_a_node_that_was_alone_links_to_the_first_other_one_and_tells_no_summaries_yet(node, before):
    with reserved(2) as ports:
        peers = tuple(PeerTable(name=f"gw{n}", url=f"ws://{LOOPBACK}:{at}") for n, at in enumerate(ports, start=1))
        other = RunningNode(as_gw2(before, peers))
        async with trio.open_nursery() as nursery:
            await nursery.start(other.run)
            with structlog.testing.capture_logs() as logged:
                await node.reload(evolve(before, peers=peers))
            assert [line["keys"] for line in logged if line["event"] == "config.needs_restart"] == [["ring.summary_mb"]]
            text = pack(c.DELIVER_SM, 0, 7, Message(destination=b"7000", short_message=b"WIN").encode())
            assert node.term.fronts["acme"].relay.mo.place(text, ["gw1"], 0.0).step is Step.KEEP  # the ring decides
            await until(lambda: [peer.state for peer in node.term.ring.peers()] == ["alive"])
            await until(lambda: [peer.state for peer in other.term.ring.peers()] == ["alive"])
            other.stop()


async def test_a_node_that_was_alone_and_drains_says_so_to_the_first_other_one(node, before, smsc):
    with reserved(2) as ports:
        peers = tuple(PeerTable(name=f"gw{n}", url=f"ws://{LOOPBACK}:{at}") for n, at in enumerate(ports, start=1))
        other = RunningNode(as_gw2(before, peers))
        async with trio.open_nursery() as nursery:
            await nursery.start(other.run)
            await until(lambda: smsc.binds)
            node.drain("custody")
            await until(lambda: not smsc.binds)
            await node.reload(evolve(before, peers=peers))
            await until(lambda: [peer.draining for peer in other.term.ring.peers()] == [True])
            other.stop()


async def test_a_node_that_was_alone_goes_on_where_the_address_for_the_others_is_taken(node, before):
    [taken] = await trio.open_tcp_listeners(0, host=LOOPBACK)
    own = PeerTable(name="gw1", url=f"ws://{LOOPBACK}:{taken.socket.getsockname()[1]}")
    dialler = PeerTable(name="gw0", url=f"ws://{LOOPBACK}:1")
    with structlog.testing.capture_logs() as logged:
        await node.reload(evolve(before, peers=(own, dialler)))
        await until(lambda: [line for line in logged if line["event"] == "ring.cannot_listen"])
        await taken.aclose()
        await node.reload(evolve(before, peers=(own, dialler)))
        await until(lambda: [line for line in logged if line["event"] == "ring.listening"])
    assert node.started.is_set()


async def test_a_node_whose_file_names_no_other_node_any_more_goes_on_alone_and_may_be_joined_again(before, nursery):
    with reserved(2) as ports:
        peers = tuple(PeerTable(name=f"gw{n}", url=f"wss://{LOOPBACK}:{at}") for n, at in enumerate(ports, start=1))
        secured = evolve(before, peers=peers, ring=Ring(secret=Secret(b"x" * 16)))
        node, other = RunningNode(secured), RunningNode(as_gw2(secured, peers))
        await nursery.start(node.run)
        await nursery.start(other.run)
        await until(lambda: [peer.state for peer in node.term.ring.peers()] == ["alive"])
        await node.reload(before)  # no [[peers]], and no secret
        assert node.term.ring.peers() == []
        assert node.config.peers == ()
        await until(lambda: [peer.linked for peer in other.term.ring.peers()] == [False])
        await node.reload(secured)
        await until(lambda: [peer.state for peer in node.term.ring.peers()] == ["alive"])
        node.stop()
        other.stop()


async def test_a_node_alone_refuses_a_table_that_it_cannot_secure_and_stays_alone(node, before):
    bare = tuple(PeerTable(name=f"gw{n}", url=f"ws://10.0.0.{n}:7301") for n in (1, 2))
    with pytest.raises(ValueError, match="would leave this machine unencrypted"):
        await node.reload(evolve(before, peers=bare))
    assert node.term.ring.peers() == []
    assert node.config.peers == ()


async def test_an_operator_with_something_in_custody_is_not_removed_silently(before):
    without = evolve(before, operators=())
    with structlog.testing.capture_logs() as logged:
        async with trio.open_nursery() as nursery:
            node = RunningNode(before)
            await nursery.start(node.run)
            await keep(node)
            await node.reload(without)
            assert node.term.keeper.in_custody() == 1
            node.stop()
        async with trio.open_nursery() as nursery:
            node = RunningNode(without)
            await nursery.start(node.run)
            node.stop()
    said = {line["event"]: line for line in logged}
    reloaded = said["config.operator_still_in_custody"]
    assert (reloaded["operator"], reloaded["count"]) == ("acme", 1)
    assert said["node.custody_without_operator"]["operators"] == {"acme": 1}
