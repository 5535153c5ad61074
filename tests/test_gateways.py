"""The gateway side over real sockets."""

import socket
import struct

import pytest
import structlog
import trio
import trio.testing
from gateway_world import gateway_side
from relay_world import World, command_of, deliver_sm_resp, heads, mo, sequence_of, status_of, submit_sm, submit_sm_resp
from smpp_peer import bind_request

from dlrproxy.config.keys import Address
from dlrproxy.gateways import MAX_SESSIONS, Gateways
from protocols.smpp import constants as c
from protocols.smpp.framing import MAX_PDU_SIZE, resequence
from protocols.smpp.pdu import pack


async def test_a_bind_is_accepted_and_mt_go_through():
    async with gateway_side() as side:
        bind = side.world.bind()
        side.world.relay.system_id = b"SMSC"
        peer = await side.dial("gw2")
        await peer.send(bind_request(7))
        assert await peer.receive() == pack(c.BIND_TRANSCEIVER_RESP, 0, 7, b"SMSC\0\x02\x10\x00\x01\x34")
        assert [session.gateway for session in side.world.relay.sessions] == ["gw2"]
        await peer.send(submit_sm(8))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert bind.connection.take() == [resequence(submit_sm(8), 1)]
        side.world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
        assert await peer.receive() == submit_sm_resp(8, b"id1")


@pytest.mark.parametrize("command", sorted(c.BINDS))
async def test_all_bind_types(command):
    async with gateway_side() as side:
        side.world.bind()
        peer = await side.dial()
        await peer.send(bind_request(command=command, interface_version=0x33))
        assert await peer.receive() == pack(command | c.RESPONSE_BIT, 0, 1, b"dlrproxy\0")


async def test_what_comes_in_one_piece_with_the_bind_is_not_lost():
    async with gateway_side() as side:
        bind = side.world.bind()
        peer = await side.dial()
        await peer.send(pack(c.ENQUIRE_LINK, 0, 1), bind_request(2), submit_sm(3))
        assert heads([await peer.receive(), await peer.receive()]) == [
            ("enquire_link_resp", 0, 1),
            ("bind_transceiver_resp", 0, 2),
        ]
        assert heads(bind.connection.take()) == [("submit_sm", 0, 1)]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"system_id": b"shop2"}, c.ESME_RINVSYSID),
        ({"system_id": b"shop2", "password": b"x"}, c.ESME_RINVSYSID),
        ({"password": b"Secret"}, c.ESME_RINVPASWD),
        ({"password": b""}, c.ESME_RINVPASWD),
    ],
)
async def test_wrong_credentials_are_refused_and_the_connection_is_closed(fields, status):
    async with gateway_side() as side:
        side.world.bind()
        peer = await side.dial()
        await peer.send(bind_request(**fields))
        assert await peer.receive_until_end() == [pack(c.BIND_TRANSCEIVER_RESP, status, 1)]
        assert side.world.relay.sessions == ()


async def test_a_bind_cut_short_is_refused():
    async with gateway_side() as side:
        side.world.bind()
        peer = await side.dial()
        await peer.send(pack(c.BIND_RECEIVER, 0, 5, b"shop\0sec"))
        assert await peer.receive_until_end() == [pack(c.BIND_RECEIVER_RESP, c.ESME_RINVMSGLEN, 5)]


async def test_a_bind_waits_for_an_operator_bind():
    async with gateway_side() as side:
        peer = await side.dial()
        await peer.send(bind_request())
        with trio.move_on_after(0.05) as waiting:
            await peer.receive()
        assert waiting.cancelled_caught
        side.world.bind()
        assert heads([await peer.receive()]) == [("bind_transceiver_resp", 0, 1)]


async def test_without_an_operator_bind_the_bind_fails_so_that_the_gateway_tries_again():
    async with gateway_side(session_init_s=0.1) as side:
        peer = await side.dial()
        await peer.send(bind_request())
        assert await peer.receive_until_end() == [pack(c.BIND_TRANSCEIVER_RESP, c.ESME_RBINDFAIL, 1)]


async def test_where_the_operator_connects_to_us_a_gateway_need_not_wait_for_it():
    async with gateway_side(binds=0, outbind_listen=Address("127.0.0.1", 0)) as side:
        peer = await side.dial()
        await peer.send(bind_request())
        assert heads([await peer.receive()]) == [("bind_transceiver_resp", 0, 1)]


async def test_a_failed_operator_bind_does_not_strand_a_waiting_gateway():
    async with gateway_side() as side:
        peer = await side.dial()
        await peer.send(bind_request())
        await trio.testing.wait_all_tasks_blocked(0.01)
        never_bound = side.world.bind()
        side.world.relay.lost(never_bound)
        assert heads([await peer.receive()]) == [("bind_transceiver_resp", 0, 1)]


async def test_before_the_bind_other_requests_have_the_wrong_state():
    async with gateway_side() as side:
        side.world.bind()
        peer = await side.dial()
        await peer.send(submit_sm(4), pack(0x00010203, 0, 5), deliver_sm_resp_before_bind(), bind_request(6))
        assert heads([await peer.receive()]) == [("submit_sm_resp", c.ESME_RINVBNDSTS, 4)]
        assert await peer.receive() == pack(0x80010203, c.ESME_RINVBNDSTS, 5)
        assert heads([await peer.receive()]) == [("bind_transceiver_resp", 0, 6)]


def deliver_sm_resp_before_bind() -> bytes:
    return pack(c.DELIVER_SM_RESP, 0, 1, b"\0")


async def test_a_bind_that_never_comes():
    async with gateway_side(session_init_s=10) as side:
        peer = await side.dial()
        await trio.testing.wait_all_tasks_blocked(0.01)
        side.world.tick(9.9)
        await peer.send(pack(c.ENQUIRE_LINK, 0, 1))
        assert await peer.receive() == pack(c.ENQUIRE_LINK_RESP, 0, 1)
        side.world.tick(0.1)
        assert await peer.receive() is None


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"\0\0\0\x0f" + bytes(12),
        (MAX_PDU_SIZE + 1).to_bytes(4, "big") + bytes(12),
    ],
)
@pytest.mark.parametrize("bound", [True, False])
async def test_a_stream_that_is_not_smpp_is_answered_and_closed(junk, bound):
    async with gateway_side() as side:
        side.world.bind()
        peer = await (side.bound() if bound else side.dial())
        await peer.send(junk)
        assert await peer.receive_until_end() == [pack(c.GENERIC_NACK, c.ESME_RINVCMDLEN, 0)]
        assert side.world.counters.unreadable_stream == 1
        await peer.aclose()
        await side.ended()


async def test_what_comes_before_a_bad_length_is_still_done():
    async with gateway_side() as side:
        bind = side.world.bind()
        peer = await side.bound()
        await peer.send(submit_sm(1) + b"HTTP junk")
        await peer.receive_until_end()
        assert command_of(bind.connection.take()[0]) == c.SUBMIT_SM


async def test_one_byte_at_a_time():
    async with gateway_side() as side:
        bind = side.world.bind()
        peer = await side.dial()
        for octet in bind_request() + submit_sm(2):
            await peer.send(bytes((octet,)))
        assert heads([await peer.receive()]) == [("bind_transceiver_resp", 0, 1)]
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert bind.connection.take() == [resequence(submit_sm(2), 1)]


async def test_a_peer_that_vanishes_is_forgotten():
    async with gateway_side() as side:
        side.world.bind()
        peer = await side.bound()
        assert side.world.custody.bound == ["gw1"]
        await peer.aclose()
        await side.ended()
        assert side.world.relay.sessions == ()
        assert side.world.custody.bound == []


async def test_a_peer_that_resets_the_connection_hurts_nobody_else():
    async with gateway_side() as side:
        side.world.bind()
        staying = await side.bound()
        for _ in range(20):
            leaving = await side.dial()
            leaving.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(leaving.stream)
        await staying.send(pack(c.ENQUIRE_LINK, 0, 2))
        assert await staying.receive() == pack(c.ENQUIRE_LINK_RESP, 0, 2)


async def test_unbind_is_answered_and_closed():
    async with gateway_side() as side:
        side.world.bind()
        peer = await side.bound()
        await peer.send(pack(c.UNBIND, 0, 9))
        assert await peer.receive_until_end() == [pack(c.UNBIND_RESP, 0, 9)]
        await peer.aclose()
        await side.ended()


async def test_stop_unbinds_everybody_and_takes_nobody_new():
    async with gateway_side() as side:
        side.world.bind()
        peers = [await side.bound("gw1"), await side.bound("gw2")]
        side.nursery.start_soon(side.gateways.stop)
        for peer in peers:
            await part(peer)
        await side.ended()
        with pytest.raises(OSError, match=r".*"):
            await side.dial()


async def part(peer) -> None:
    """The goodbye of a gateway that is unbound."""
    with trio.fail_after(100):
        request = await peer.receive()
        assert command_of(request) == c.UNBIND
        await peer.send(pack(c.UNBIND_RESP, c.ESME_ROK, sequence_of(request)))
        assert await peer.receive() is None
    await peer.aclose()


async def test_stop_waits_for_the_answers_to_what_was_sent():
    async with gateway_side() as side:
        side.world.bind()
        peer = await side.bound()
        answers = []
        assert side.world.deliver("gw1", b"", mo(1), answers.append)
        request = await peer.receive()
        side.nursery.start_soon(side.gateways.stop)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not side.world.deliver("gw1", b"", mo(2), answers.append)
        assert answers == []
        await peer.send(deliver_sm_resp(sequence_of(request)))
        await part(peer)
        assert answers == [c.ESME_ROK]
        await side.ended()


async def test_stop_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr("dlrproxy.gateways.PARTING_S", 0.05)
    async with gateway_side() as side:
        side.world.bind()
        silent, waiting = await side.bound(), await side.dial()  # one that answers nothing, one that has not bound yet
        answers = []
        assert side.world.deliver("gw1", b"", mo(1), answers.append)
        side.nursery.start_soon(side.gateways.stop)
        for peer, commands in ((silent, [c.DELIVER_SM, c.UNBIND]), (waiting, [c.UNBIND])):
            assert [command_of(frame) for frame in await peer.receive_until_end()] == commands
            await peer.aclose()
        await side.ended()
        assert answers == [None]


async def test_a_gateway_that_does_not_read_is_not_read_and_gets_no_more_reports():
    async with gateway_side() as side:
        bind = side.world.bind()
        peer = await side.bound()
        [session] = side.world.relay.sessions
        flood = b"".join(pack(c.ENQUIRE_LINK, 0, n) for n in range(4000))

        async def overwhelm():
            while True:
                await peer.stream.send_all(flood)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(overwhelm)
            with trio.fail_after(100):
                while not session.connection.congested:
                    await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert not session.has_room
        side.world.submit(session, 1)
        side.world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
        while session.connection.congested:
            await peer.receive()
        assert session.has_room


async def test_sessions_are_bounded(monkeypatch):
    monkeypatch.setattr("dlrproxy.gateways.MAX_SESSIONS", 1)
    assert MAX_SESSIONS > 1
    async with gateway_side() as side:
        side.world.bind()
        await side.bound()
        extra = await side.dial()
        assert await extra.receive() is None


async def test_connections_that_do_not_bind_keep_no_gateway_out(monkeypatch):
    monkeypatch.setattr("dlrproxy.gateways.MAX_UNBOUND", 2)
    async with gateway_side() as side:
        side.world.bind()
        bound = await side.bound()
        idle = []
        for _ in range(4):
            idle.append(await side.dial())
            await trio.testing.wait_all_tasks_blocked(0.01)
        await side.bound()
        with trio.fail_after(100):
            for peer in idle[:3]:
                assert await peer.receive() is None
        await idle[3].send(bind_request())
        assert status_of(await idle[3].receive()) == c.ESME_ROK
        await bound.send(pack(c.ENQUIRE_LINK, 0, 2))
        assert command_of(await bound.receive()) == c.ENQUIRE_LINK_RESP


async def test_an_address_in_use_is_named():
    async with gateway_side() as side:
        port = side.addresses["gw1"].port
        world = World(listen={"gw1": Address("127.0.0.1", port)})
        with pytest.raises(OSError, match=f"acme: cannot listen on 127.0.0.1:{port}"):
            await Gateways(world.relay, structlog.get_logger()).run()
