"""Connections that the operator makes: outbind, then our bind, then as any other."""

from contextlib import asynccontextmanager

import pytest
import structlog
import trio
import trio.testing
from operator_world import exchange
from relay_world import World, command_of, heads, sequence_of
from smpp_peer import Peer, bind_request

from dlrproxy.config.keys import Address
from dlrproxy.operators import Operators
from dlrproxy.secret import Secret
from dlrproxy.sessions.outbind import MAX_CONNECTIONS
from protocols.smpp import constants as c
from protocols.smpp.pdu import pack, parse_bind

LISTEN = Address("127.0.0.1", 0)


class Side:
    """The operator, which dials."""

    def __init__(self, world, operators, address):
        self.world = world
        self.operators = operators
        self._address = address
        self.peers = []

    async def connect(self, tls=None):
        stream = await trio.open_tcp_stream(*self._address)
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_hostname="127.0.0.1", https_compatible=True)
        peer = Peer(stream)
        self.peers.append(peer)
        return peer

    async def bound(self, *frames, tls=None):
        """A connection after outbind, our bind and its answer."""
        peer = await self.connect(tls)
        await peer.send(*(frames or (outbind(),)))
        request = await peer.receive()
        await peer.send(pack(command_of(request) | c.RESPONSE_BIT, 0, sequence_of(request), b"SMSC\0"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        return peer


@asynccontextmanager
async def listening(**settings):
    world = World(**{"binds": 0, "outbind_listen": LISTEN, **settings})
    operators = Operators(world.relay, structlog.get_logger())
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            side = Side(world, operators, await nursery.start(operators.run))
            side.scope = nursery.cancel_scope
            yield side
            for peer in side.peers:
                await trio.aclose_forcefully(peer.stream)
            nursery.cancel_scope.cancel()


def outbind(system_id=b"shop", password=b"secret"):
    return pack(c.OUTBIND, 0, 1, system_id + b"\0" + password + b"\0")


async def refused(side, *frames):
    """What it is answered, and why it is closed."""
    with structlog.testing.capture_logs() as logs:
        peer = await side.connect()
        await peer.send(*frames)
        answers = await peer.receive_until_end()
        await peer.aclose()
        with trio.fail_after(100):
            while not any(line["event"] == "operator.bind_ended" for line in logs):
                await trio.testing.wait_all_tasks_blocked(0.01)
    assert side.world.relay.binds == ()
    return answers, logs


@pytest.mark.parametrize(
    ("bind_type", "command"),
    [
        ("transceiver", c.BIND_TRANSCEIVER),
        ("receiver", c.BIND_RECEIVER),
        ("transmitter+receiver", c.BIND_RECEIVER),
    ],
)
async def test_an_outbind_is_followed_by_our_bind(bind_type, command):
    async with listening(bind_type=bind_type) as side:
        peer = await side.connect()
        await peer.send(outbind())
        request = await peer.receive()
        assert command_of(request) == command
        bind = parse_bind(request[16:])
        assert (bind.system_id, bind.password) == (b"shop", b"secret")


async def test_the_bind_is_one_of_the_operators():
    async with listening() as side:
        peer = await side.bound()
        [slot] = side.operators.slots
        assert (slot.name, slot.why) == ("outbind1", "")
        await exchange(side.world, peer)


async def test_it_is_unbound_when_the_node_lets_go():
    async with listening() as side:
        peer = await side.bound()
        side.scope.cancel()
        with trio.CancelScope(shield=True):
            assert command_of(await peer.receive()) == c.UNBIND
            await peer.aclose()


async def test_when_it_ends_it_is_forgotten_and_comes_again():
    async with listening() as side:
        peer = await side.bound()
        await peer.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (side.operators.slots, side.world.relay.binds) == ([], ())
        await side.bound()
        assert [slot.name for slot in side.operators.slots] == ["outbind1"]


async def test_it_joins_the_binds_that_we_make():
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, _ignore, [listener])
        host = Address("127.0.0.1", listener.socket.getsockname()[1])
        async with listening(binds=1, hosts=(host,)) as side:
            await side.bound()
            assert [slot.name for slot in side.operators.slots] == ["1", "outbind1"]
        nursery.cancel_scope.cancel()


async def _ignore(stream):
    await trio.sleep_forever()


async def test_it_may_ask_whether_we_are_there_before():
    async with listening() as side:
        peer = await side.connect()
        await peer.send(pack(c.ENQUIRE_LINK, 0, 7), outbind())
        assert await peer.receive() == pack(c.ENQUIRE_LINK_RESP, 0, 7)
        assert command_of(await peer.receive()) == c.BIND_TRANSCEIVER


async def test_its_credentials_may_be_others_than_the_accounts():
    async with listening(outbind_system_id="acme", outbind_password=Secret(b"other")) as side:
        peer = await side.connect()
        await peer.send(outbind(b"acme", b"other"))
        request = await peer.receive()
        assert parse_bind(request[16:]).password == b"secret"
        _, logs = await refused(side, outbind())
        assert logs[0]["why"] == "its system_id is not the one in the configuration"


@pytest.mark.parametrize(
    ("frame", "why", "answers"),
    [
        (outbind(b"shop2"), "its system_id is not the one in the configuration", []),
        (outbind(password=b"guess"), "its password is not the one in the configuration", []),
        (outbind(password=b""), "its password is not the one in the configuration", []),
        (pack(c.OUTBIND, 0, 1, b"shop"), "system_id: no NUL before the end of the body", []),
        (
            bind_request(4),
            "its first PDU is bind_transceiver, not outbind",
            [("bind_transceiver_resp", c.ESME_RINVBNDSTS, 4)],
        ),
        (pack(c.DELIVER_SM_RESP, 0, 4), "its first PDU is deliver_sm_resp, not outbind", []),
    ],
)
async def test_who_is_not_the_operator_is_cut_off(frame, why, answers):
    async with listening() as side:
        answered, logs = await refused(side, frame)
        assert heads(answered) == answers
        assert (logs[0]["event"], logs[0]["log_level"], logs[0]["why"]) == ("outbind.refused", "error", why)
        assert logs[0]["operator"] == "acme"
        assert side.world.counters.outbind_refused == 1
        assert "secret" not in str(logs)


async def test_what_is_no_smpp_is_cut_off():
    async with listening() as side:
        answered, logs = await refused(side, b"GET / HTTP/1.1\r\n\r\n")
        assert heads(answered) == [("generic_nack", c.ESME_RINVCMDLEN, 0)]
        assert logs[0]["event"] == "operator.unreadable_stream"
        assert side.world.counters.unreadable_stream == 1


@pytest.mark.parametrize("frames", [(), (outbind(),)], ids=["no outbind", "no answer to our bind"])
async def test_who_takes_too_long_is_cut_off(frames):
    async with listening(session_init_s=10) as side:
        peer = await side.connect()
        await peer.send(*frames)
        await trio.testing.wait_all_tasks_blocked(0.01)
        side.world.tick(10)
        assert [command_of(frame) for frame in await peer.receive_until_end()] == [c.BIND_TRANSCEIVER] * len(frames)


async def test_a_bind_that_the_operator_refuses_ends_the_connection():
    async with listening() as side:
        peer = await side.connect()
        await peer.send(outbind())
        request = await peer.receive()
        await peer.send(pack(c.BIND_TRANSCEIVER_RESP, c.ESME_RALYBND, sequence_of(request)))
        assert await peer.receive() is None
        assert side.world.counters.bind_refusals == 1


async def test_there_is_a_bound_to_how_many_connect():
    async with listening() as side:
        for _ in range(MAX_CONNECTIONS):
            await side.connect()
        await trio.testing.wait_all_tasks_blocked(0.01)
        one_more = await side.connect()
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            assert await one_more.receive() is not None


async def test_an_address_that_is_taken_is_named():
    [taken] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = Address("127.0.0.1", taken.socket.getsockname()[1])
    with pytest.raises(BaseExceptionGroup) as caught:
        async with listening(outbind_listen=address):
            pass
    assert caught.group_contains(OSError, match=f"operator acme: cannot listen on {address} for outbind")
    await taken.aclose()
