"""A whole node inside the test: start, reload, drain, stop, and what it keeps for its next start."""

import ssl
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
import trustme
from attrs import evolve
from smpp_peer import Peer, bind_request

from dlrproxy.config import Address, Config, Node, Operator, Secret
from dlrproxy.custody_port import Accepted
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.node import Node as RunningNode
from dlrproxy.node_view import View
from dlrproxy.simulator.operator import Operator as SimulatedOperator
from dlrproxy.simulator.options import OperatorOptions
from dlrproxy.store.port import StoreBusyError
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from protocols.smpp.message_ids import Rule
from protocols.smpp.pdu import Message, pack


@pytest.fixture(autouse=True)
def no_long_farewell(monkeypatch):
    """The gateways here neither answer an unbind nor close, and what a node owes them is waited for before it stops."""
    monkeypatch.setattr("dlrproxy.gateways.PARTING_S", 0.1)
    monkeypatch.setattr("dlrproxy.sessions.connection.GOODBYE_S", 0.1)


@pytest.fixture
async def smsc(nursery):
    operator = SimulatedOperator(OperatorOptions(port=0))
    await nursery.start(operator.run)
    yield operator
    await operator.stop()


def operator(name, smsc, port, **settings):
    settings = {"reconnect_min_s": 0.05, "reconnect_max_s": 0.2, **settings}
    return Operator(
        name=name,
        host=LOOPBACK,
        port=smsc.port,
        system_id="shop",
        password=Secret(b"secret"),
        listen={"gw1": Address(LOOPBACK, port)},
        **settings,
    )


def config(tmp_path, *operators):
    node = Node(name="gw1", data_dir=tmp_path / "data", min_free_mb=16, drain_s=2.0)
    return Config(node=node, operators=operators)


@asynccontextmanager
async def running(settings):
    node = RunningNode(settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        yield node
        node.stop()


@pytest.fixture
async def dial():
    """A gateway's transceiver session, bound; all are closed in the end."""
    peers = []

    async def dial(port, tls=None):
        stream = await trio.open_tcp_stream(LOOPBACK, port)
        peer = Peer(stream if tls is None else trio.SSLStream(stream, tls, server_hostname=LOOPBACK))
        peers.append(peer)
        await peer.send(bind_request())
        _, command, status, _ = HEADER.unpack_from(await peer.receive())
        assert (command, status) == (c.BIND_TRANSCEIVER_RESP, c.ESME_ROK)
        return peer

    yield dial
    for peer in peers:
        await peer.aclose()


async def bound(node):
    """Wait until the node has its bind; the operator sees it a moment before."""
    while not node.term.fronts["acme"].relay.binds:
        await trio.lowlevel.checkpoint()


async def submit(peer, sequence=2):
    body = Message(source=b"7000", destination=b"447911123456", registered_delivery=1, short_message=b"hello").encode()
    await peer.send(pack(c.SUBMIT_SM, 0, sequence, body))


async def status_of_response(peer, command=c.SUBMIT_SM_RESP):
    while True:
        _, found, status, _ = HEADER.unpack_from(await peer.receive())
        if found == command:
            return status


async def test_a_message_goes_out_and_the_node_stops_in_good_order(tmp_path, smsc, dial):
    with reserved(1) as (port,):
        async with running(config(tmp_path, operator("acme", smsc, port))) as node:
            gateway = await dial(port)
            await submit(gateway)
            assert await status_of_response(gateway) == c.ESME_ROK
            status = View(node).status()
            assert [bind.up for bind in status.operators[0].binds] == [True]
            assert status.why_not_serving == ()
            assert status.operators[0].counters["open_messages"] == 1
        assert node.draining == "stop"
        assert not smsc.binds
        ended = [HEADER.unpack_from(frame)[1] for frame in await gateway.receive_until_end()]
        assert c.UNBIND in ended


async def test_a_reload_leaves_the_sessions_of_unchanged_operators_alone(tmp_path, smsc, dial):
    with reserved(3) as (first, second, third):
        acme, beta, gamma = (
            operator(name, smsc, port) for name, port in (("acme", first), ("beta", second), ("gamma", third))
        )
        before = config(tmp_path, acme, beta)
        async with running(before) as node:
            untouched, changed = await dial(first), await dial(second)
            relay = node.term.fronts["acme"].relay
            await node.reload(evolve(before, operators=(acme, evolve(beta, window=3), gamma)))
            assert node.term.fronts["acme"].relay is relay
            await submit(untouched)
            assert await status_of_response(untouched) == c.ESME_ROK
            assert c.UNBIND in [HEADER.unpack_from(frame)[1] for frame in await changed.receive_until_end()]
            for port in (second, third):
                again = await dial(port)
                await submit(again)
                assert await status_of_response(again) == c.ESME_ROK
            await node.reload(evolve(before, operators=(acme,)))
            assert list(node.term.fronts) == ["acme"]
            with pytest.raises(OSError, match="all attempts"):
                await trio.open_tcp_stream(LOOPBACK, third)


async def test_a_reload_reads_renewed_certificates_and_leaves_the_sessions_alone(tmp_path, smsc, dial):
    cert_file, key_file = tmp_path / "listen.pem", tmp_path / "listen.key"

    def certify(authority):
        issued = authority.issue_cert(LOOPBACK)
        key_file.write_bytes(issued.private_key_pem.bytes())
        cert_file.write_bytes(issued.cert_chain_pems[0].bytes())

    def trusting(authority):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    before, after = trustme.CA(), trustme.CA()
    certify(before)
    with reserved(1) as (port,):
        tls = {"listen_tls": True, "listen_cert_file": cert_file, "listen_key_file": key_file}
        settings = config(tmp_path, operator("acme", smsc, port, **tls))
        async with running(settings) as node:
            untouched = await dial(port, trusting(before))
            certify(after)
            with structlog.testing.capture_logs() as logs:
                await node.reload(settings)
            assert "gateway.certificate_renewed" in [log["event"] for log in logs]
            await dial(port, trusting(after))
            await submit(untouched)
            assert await status_of_response(untouched) == c.ESME_ROK


async def test_a_drain_of_custody_holds_no_binds_and_waits_until_it_is_empty(tmp_path, smsc, dial):
    with reserved(1) as (port,):
        async with running(config(tmp_path, operator("acme", smsc, port))) as node:
            pdu = pack(c.DELIVER_SM, 0, 7, Message(esm_class=4, short_message=b"id:1 stat:DELIVRD").encode())
            accepted = trio.Event()
            report = Accepted("acme", "dlr", b"1", b"", pdu, True, "t1", "gw1")
            node.term.keeper.accept(report, lambda durable: accepted.set())
            await accepted.wait()
            node.drain("custody")
            while smsc.binds:
                await trio.lowlevel.checkpoint()
            assert node.term.keeper.in_custody() == 1
            gateway = await dial(port)  # what is in custody waits for it, so it may bind
            await submit(gateway)
            delivery = None
            while delivery is None:
                frame = await gateway.receive()
                _, command, status, sequence = HEADER.unpack_from(frame)
                if command == c.SUBMIT_SM_RESP:
                    assert status == c.ESME_RTHROTTLED
                elif command == c.DELIVER_SM:
                    delivery = frame
            assert delivery[16:] == pdu[16:]
            await gateway.send(pack(c.DELIVER_SM_RESP, 0, sequence, b"\0"))
            await node.term.keeper.empty()


async def test_a_node_that_was_drained_goes_back_into_service(tmp_path, smsc, dial):
    with reserved(1) as (port,):
        async with running(config(tmp_path, operator("acme", smsc, port))) as node:
            gateway = await dial(port)
            node.drain("custody")
            while smsc.binds:
                await trio.lowlevel.checkpoint()
            await submit(gateway)
            assert await status_of_response(gateway) == c.ESME_RTHROTTLED
            with structlog.testing.capture_logs() as logs:
                assert node.undrain()
                await bound(node)
                assert View(node).status().draining is None
                await submit(gateway, 3)
                assert await status_of_response(gateway) == c.ESME_ROK
            assert "node.back_in_service" in [line["event"] for line in logs]
            node.drain("custody")  # and it can be drained again
            while smsc.binds:
                await trio.lowlevel.checkpoint()


async def test_a_drain_that_is_undone_at_once_changes_nothing(tmp_path, smsc, dial):
    with reserved(1) as (port,):
        async with running(config(tmp_path, operator("acme", smsc, port))) as node:
            gateway = await dial(port)
            (bind,) = node.term.fronts["acme"].relay.binds
            node.drain("custody")
            assert node.undrain()
            await submit(gateway)
            assert await status_of_response(gateway) == c.ESME_ROK
            assert node.term.fronts["acme"].relay.binds == (bind,)


async def test_a_stop_is_not_undone(tmp_path, smsc):
    with reserved(1) as (port,):
        async with running(config(tmp_path, operator("acme", smsc, port))) as node:
            node.stop()
            assert not node.undrain()
            assert node.draining == "stop"


async def test_a_stop_right_after_a_drain_was_undone_leaves_all_the_same(tmp_path, smsc, monkeypatch):
    with reserved(1) as (port,):
        async with running(config(tmp_path, operator("acme", smsc, port))) as node:
            await bound(node)
            node.drain("custody")
            while smsc.binds:
                await trio.lowlevel.checkpoint()
            told = []
            monkeypatch.setattr(node.term.keeper, "stay", lambda: told.append("stay"))
            monkeypatch.setattr(node.term.ring, "set_draining", lambda *, draining: told.append(draining))
            assert node.undrain()
            node.stop()
        assert told == [True]  # the other nodes; and custody is handed on


async def test_an_operator_that_is_changed_while_the_node_drains_is_put_back_too(tmp_path, smsc, dial):
    with reserved(1) as (port,):
        settings = config(tmp_path, operator("acme", smsc, port))
        async with running(settings) as node:
            node.drain("custody")
            while smsc.binds:
                await trio.lowlevel.checkpoint()
            await node.reload(evolve(settings, operators=(operator("acme", smsc, port, window=3),)))
            assert node.undrain()
            gateway = await dial(port)
            await bound(node)
            await submit(gateway)
            assert await status_of_response(gateway) == c.ESME_ROK


async def test_an_operator_that_cannot_be_put_back_is_named_and_the_others_are(tmp_path, smsc):
    async def said(event):
        while not (found := [line for line in logs if line["event"] == event]):
            await trio.lowlevel.checkpoint()
        logs.clear()
        return found[-1]

    with reserved(3) as (first, second, outbind):
        listen = Address(LOOPBACK, outbind)
        settings = config(
            tmp_path, operator("acme", smsc, first, binds=0, outbind_listen=listen), operator("beta", smsc, second)
        )
        with structlog.testing.capture_logs() as logs:
            async with running(settings) as node:
                await said("operator.bound")
                node.drain("custody")
                await said("node.custody_empty")
                [taken] = await trio.open_tcp_listeners(outbind, host=LOOPBACK)
                node.undrain()
                line = await said("node.operator_without_binds")
                assert line["operator"] == "acme"
                assert f"cannot listen on {listen} for outbind" in line["detail"]
                await said("operator.bound")
                await taken.aclose()
                node.drain("custody")  # what can be done about it: once more
                await said("node.custody_empty")
                node.undrain()
                await said("outbind.listening")


async def test_whose_messages_expire_with_an_event_is_each_operators_setting_as_reloaded(tmp_path, smsc):
    with reserved(2) as (first, second):
        acme, beta = operator("acme", smsc, first, expired_events=True), operator("beta", smsc, second)
        settings = config(tmp_path, acme, beta)
        async with running(settings) as node:
            assert node.term.housekeeping._named() == {"acme"}
            await node.reload(evolve(settings, operators=(acme, evolve(beta, expired_events=True))))
            assert node.term.housekeeping._named() == {"acme", "beta"}


async def test_what_is_learned_of_ids_is_known_at_the_next_start(tmp_path, smsc):
    with reserved(1) as (port,):
        settings = config(tmp_path, operator("acme", smsc, port))
        async with running(settings) as node:
            node.term._adopt("acme", Rule.HEX_DECIMAL, 5)
            assert node.term.learners["acme"].rule is Rule.HEX_DECIMAL
        async with running(settings) as node:
            assert node.term.learners["acme"].rule is Rule.HEX_DECIMAL


async def test_custody_and_the_clock_survive_a_restart(tmp_path, smsc):
    with reserved(1) as (port,):
        settings = config(tmp_path, operator("acme", smsc, port))
        async with running(settings) as node:
            answered = trio.Event()
            report = Accepted("acme", "dlr", b"1", b"", b"pdu", True, "t1", "gw1")
            node.term.keeper.accept(report, lambda durable: answered.set())
            await answered.wait()
            stopped_at = node.clock.now()
        async with running(settings) as node:
            assert node.term.keeper.in_custody() == 1
            assert node.clock.now() >= stopped_at
            assert node.term.keeper.machine.of_message("acme", [b"1"])[0].envelope.pdu == b"pdu"


async def test_a_second_node_on_the_same_directory_does_not_start(tmp_path, smsc):
    with reserved(2) as (one, other):
        async with running(config(tmp_path, operator("acme", smsc, one))):
            with pytest.raises(StoreBusyError, match="data"):
                await RunningNode(config(tmp_path, operator("acme", smsc, other))).run()
