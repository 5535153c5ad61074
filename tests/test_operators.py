"""The operator side over real sockets: binds that are made, lost, refused and released."""

import pytest
import structlog
import trio
import trio.testing
from operator_world import Smsc, exchange, operator_side
from relay_world import World, command_of, deliver_sm_resp, heads, receipt, sequence_of, submit_sm_resp

from dlrproxy.config.keys import Address
from dlrproxy.operators import Operators, Waits
from dlrproxy.sessions.binding import Ending
from dlrproxy.sessions.dialling import TlsRefusedError, UnreachableError, dial
from protocols.smpp import constants as c
from protocols.smpp.pdu import pack, parse_bind


async def test_the_bind_carries_what_the_configuration_says():
    async with operator_side(
        system_type="EMG", address_range="447*", addr_ton=1, addr_npi=2, interface_version="5.0", bind_type="receiver"
    ) as side:
        peer = await side.smsc.accept()
        request = await peer.receive()
        assert command_of(request) == c.BIND_RECEIVER
        bind = parse_bind(request[16:])
        assert (bind.system_id, bind.password, bind.system_type) == (b"shop", b"secret", b"EMG")
        assert (bind.interface_version, bind.addr_ton, bind.addr_npi, bind.address_range) == (0x50, 1, 2, b"447*")


@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"SMSC", b"SMSC\0", b"SMSC\0\x10\x02\x00\x01\x34", b"SMSC\0\x02\x10\x00\x09\x34"],
    ids=["no body", "a lone NUL", "no NUL", "as it should be", "a byte-swapped TLV", "a TLV cut short"],
)
async def test_every_bind_resp_that_says_ok_is_one(body):
    async with operator_side() as side:
        await side.smsc.bound(body)
        assert len(side.world.relay.binds) == 1
        assert side.world.relay.system_id == (b"SMSC" if b"SMSC" in body else b"")


async def test_a_pair_is_two_connections():
    async with operator_side(bind_type="transmitter+receiver", binds=2) as side:
        for _ in range(4):
            await side.smsc.bound()
        assert sorted(bind.name for bind in side.world.relay.binds) == ["1rx", "1tx", "2rx", "2tx"]
        session = side.world.session()
        side.world.submit(session, 1, 2, 3)
        assert all(not bind.window for bind in side.world.relay.binds if bind.name.endswith("rx"))


async def test_what_comes_in_one_piece_with_the_bind_resp_is_not_lost():
    async with operator_side() as side:
        side.world.custody.at_once = True
        peer = await side.smsc.accept()
        request = await peer.receive()
        nameless = pack(c.DELIVER_SM, 0, 9, b"\0\1\x014477\0\0\0SHOP\0\x04\0\0\0\0\0\0\0\0\0")
        await peer.send(pack(c.BIND_TRANSCEIVER_RESP, 0, sequence_of(request), b"\0") + nameless)
        assert await peer.receive() == deliver_sm_resp(9)


@pytest.mark.parametrize(("bind_type", "command"), [("transmitter", c.BIND_TRANSMITTER), ("receiver", c.BIND_RECEIVER)])
async def test_half_of_a_pair_alone(bind_type, command):
    async with operator_side(bind_type=bind_type) as side:
        assert command_of(await (await side.smsc.accept()).receive()) == command


async def test_source_ip_is_where_we_dial_from():
    async with operator_side(source_ip="127.0.0.2") as side:
        peer = await side.smsc.bound()
        assert peer.stream.socket.getpeername()[0] == "127.0.0.2"


async def test_reports_and_answers_pass():
    async with operator_side() as side:
        peer = await side.smsc.bound()
        await exchange(side.world, peer)


@pytest.mark.parametrize("status", [c.ESME_RBINDFAIL, c.ESME_RINVPASWD, c.ESME_RINVSYSID, c.ESME_RALYBND])
async def test_a_refused_bind_is_not_tried_again_soon(status):
    async with operator_side(refused_bind_s=300) as side:
        with structlog.testing.capture_logs() as logs:
            peer = await side.smsc.accept()
            await peer.receive()
            await peer.send(pack(c.BIND_TRANSCEIVER_RESP, status, 1))
            assert await peer.receive() is None
            with trio.move_on_after(0.2) as waiting:
                await side.smsc.accept()
            assert waiting.cancelled_caught
        [refused] = [line for line in logs if line["event"] == "operator.bind_refused"]
        assert (refused["log_level"], refused["status"]) == ("error", c.STATUS_NAMES[status])
        assert side.world.counters.bind_refusals == 1
        assert side.operators.slots[0].why == f"refused: {c.STATUS_NAMES[status]}"


@pytest.mark.parametrize(
    "answer",
    [pack(c.BIND_TRANSCEIVER_RESP, c.ESME_RSYSERR, 1), pack(c.GENERIC_NACK, c.ESME_RINVCMDID, 1), b"HTTP/1.1 "],
)
async def test_a_bind_that_failed_otherwise_is_tried_again(answer):
    async with operator_side() as side:
        peer = await side.smsc.accept()
        await peer.receive()
        await peer.send(answer)
        await peer.receive_until_end()
        await peer.aclose()
        await side.smsc.bound()
        assert len(side.world.relay.binds) == 1


async def test_a_bind_that_is_never_answered_ends():
    async with operator_side(session_init_s=10) as side:
        peer = await side.smsc.accept()
        await peer.receive()
        side.world.tick(10)
        assert await peer.receive() is None


async def test_requests_before_the_bind_resp_are_refused_and_counted():
    async with operator_side() as side:
        peer = await side.smsc.accept()
        request = await peer.receive()
        await peer.send(receipt(7, b"id1") + pack(c.ALERT_NOTIFICATION, 0, 8) + pack(c.ENQUIRE_LINK, 0, 9))
        assert await peer.receive() == pack(c.DELIVER_SM_RESP, c.ESME_RINVBNDSTS, 7)
        assert await peer.receive() == pack(c.ENQUIRE_LINK_RESP, 0, 9)
        assert side.world.counters.refused_state == 2
        await peer.send(pack(command_of(request) | c.RESPONSE_BIT, 0, sequence_of(request), b"SMSC\0"))
        await side.world.relay.bind_is_up()


async def test_a_lost_bind_answers_its_mt_and_is_made_again():
    async with operator_side() as side:
        peer = await side.smsc.bound()
        session = side.world.session()
        side.world.submit(session, 5)
        await peer.receive()
        await peer.aclose()
        await side.smsc.bound()
        assert heads(session.connection.take()) == [("submit_sm_resp", c.ESME_RSYSERR, 5)]


async def test_an_operator_that_unbinds_is_answered():
    async with operator_side() as side:
        peer = await side.smsc.bound()
        await peer.send(pack(c.UNBIND, 0, 4))
        assert await peer.receive_until_end() == [pack(c.UNBIND_RESP, 0, 4)]
        await peer.aclose()
        await side.smsc.bound()


async def test_the_other_host_is_tried_when_one_does_not_answer():
    async with trio.open_nursery() as nursery:
        smsc = Smsc()
        port = await nursery.start(smsc.run)
        closed = await trio.open_tcp_listeners(0, host="127.0.0.1")
        dead = closed[0].socket.getsockname()[1]
        await closed[0].aclose()
        world = World(hosts=(Address("127.0.0.1", dead), Address("127.0.0.1", port)), reconnect_min_s=60)
        nursery.start_soon(Operators(world.relay, structlog.get_logger()).run)
        peer = await smsc.bound()
        assert len(world.relay.binds) == 1
        await peer.aclose()
        nursery.cancel_scope.cancel()


async def test_release_unbinds_and_handles_what_comes_before_the_answer():
    async with operator_side() as side:
        peer = await side.smsc.bound()
        session = side.world.session()
        side.world.submit(session, 5)
        request = await peer.receive()
        side.release()
        unbind = await peer.receive()
        assert command_of(unbind) == c.UNBIND
        side.world.submit(session, 6)  # waits: this bind takes nothing new
        await peer.send(submit_sm_resp(sequence_of(request), b"id1"))
        await peer.send(pack(c.UNBIND_RESP, 0, sequence_of(unbind)))
        assert await peer.receive() is None
        await side.released.wait()
        assert heads(session.connection.take()) == [("submit_sm_resp", 0, 5), ("submit_sm_resp", c.ESME_RSYSERR, 6)]
        assert side.world.relay.binds == ()


async def test_release_does_not_wait_for_ever_for_the_answer(monkeypatch):
    monkeypatch.setattr("dlrproxy.sessions.binding.UNBIND_S", 0.05)
    async with operator_side() as side:
        peer = await side.smsc.bound()
        side.release()
        with trio.fail_after(100):
            await side.released.wait()
        assert [command_of(frame) for frame in await peer.receive_until_end()] == [c.UNBIND]


async def test_after_release_the_binds_can_be_made_again():
    async with operator_side(rebind_wait_s=0.2) as side:
        peer = await side.smsc.bound()
        side.release()
        unbind = await peer.receive()
        before_the_end = trio.current_time()
        await peer.send(pack(c.UNBIND_RESP, 0, sequence_of(unbind)))
        await side.released.wait()
        side._scope = trio.CancelScope()
        side.start()
        await side.smsc.bound()
        assert trio.current_time() - before_the_end >= 0.2


def waits(**settings) -> Waits:
    operator = World(**{"hosts": (Address("a", 1),), **settings}).operator
    return Waits(operator, draw=lambda low, high: high)


@pytest.mark.parametrize(
    ("ending", "failures", "wait_s"),
    [
        (Ending.LOST, 0, 2),
        (Ending.UNREACHABLE, 1, 2),
        (Ending.UNREACHABLE, 2, 4),
        (Ending.FAILED, 5, 32),
        (Ending.LOST, 9, 60),
        (Ending.UNREACHABLE, 5000, 60),
        (Ending.REFUSED, 1, 330),
        (Ending.HELD, 1, 33),
    ],
)
def test_waits_double_up_to_a_limit(ending, failures, wait_s):
    assert waits(reconnect_min_s=1, reconnect_max_s=60, refused_bind_s=300).after(ending, failures) == pytest.approx(
        wait_s
    )


def test_every_host_is_tried_before_a_wait():
    three = waits(hosts=tuple(Address("a", n) for n in range(1, 4)), reconnect_min_s=1)
    assert [three.after(Ending.UNREACHABLE, failures) for failures in range(1, 8)] == [0, 0, 2, 0, 0, 4, 0]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_host_that_no_resolver_takes_is_unreachable(tls):
    """The configuration refuses such names; what it lets through costs one attempt, not the node."""
    with pytest.raises(UnreachableError, match=r"smsc\.\.acme is not a host name"):
        await dial(World(tls=tls).operator, Address("smsc..acme", 2775))


async def test_a_name_that_no_certificate_can_hold_is_refused():
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, trio.aclose_forcefully, [listener])
        operator = World(tls=True).operator
        object.__setattr__(operator, "tls_server_name", ".acme.example")  # past the validator
        with pytest.raises(TlsRefusedError, match=r"no certificate can hold the name \.acme\.example"):
            await dial(operator, Address("127.0.0.1", listener.socket.getsockname()[1]))
        nursery.cancel_scope.cancel()
