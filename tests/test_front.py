"""One operator at a node as a whole: started together, let go of, bound again and closed in order."""

from contextlib import asynccontextmanager

import pytest
import structlog
import trio
import trio.testing
from operator_world import QUICK, Smsc
from relay_world import World, command_of, deliver_sm_resp, heads, receipt, sequence_of, submit_sm, submit_sm_resp
from smpp_peer import Peer, bind_request

from dlrproxy.config.keys import Address
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.failures import leaves
from dlrproxy.front import Front
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from ring.tls import TlsError


class Scene:
    """A front between an SMSC and a gateway, both played by the test."""

    def __init__(self, front, smsc, port, nursery):
        self.front = front
        self.smsc = smsc
        self.nursery = nursery
        self._port = port
        self._peers = []

    async def gateway(self):
        """A gateway's session, bound."""
        peer = Peer(await trio.open_tcp_stream(LOOPBACK, self._port))
        self._peers.append(peer)
        await peer.send(bind_request())
        assert HEADER.unpack_from(await peer.receive())[1:3] == (c.BIND_TRANSCEIVER_RESP, c.ESME_ROK)
        return peer

    async def end(self):
        for peer in (*self._peers, *self.smsc.peers):
            await trio.aclose_forcefully(peer.stream)


@asynccontextmanager
async def scene(*, binds=True, **settings):
    smsc = Smsc()
    with reserved(1) as (port,), trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            listen = {"gw1": Address(LOOPBACK, port)}
            hosts = (Address(LOOPBACK, await nursery.start(smsc.run)),)
            world = World(**{"hosts": hosts, "listen": listen, **QUICK, **settings})
            made = Scene(Front(world.relay, structlog.get_logger()), smsc, port, nursery)
            if not binds:
                made.front.without_binds()
            await nursery.start(made.front.run)
            made.world = world
            yield made
            await made.end()
            nursery.cancel_scope.cancel()


async def commands_until_end(peer):
    return [command_of(frame) for frame in await peer.receive_until_end()]


async def test_it_listens_and_dials():
    async with scene() as it:
        operator = await it.smsc.bound()
        gateway = await it.gateway()
        await gateway.send(submit_sm(5))
        request = await operator.receive()
        await operator.send(submit_sm_resp(sequence_of(request), b"id1"))
        assert await gateway.receive() == submit_sm_resp(5, b"id1")


async def test_letting_go_of_binds_unbinds_and_keeps_the_gateways():
    async with scene() as it:
        operator = await it.smsc.bound()
        gateway = await it.gateway()
        it.nursery.start_soon(it.front.release_binds)
        assert command_of(await operator.receive()) == c.UNBIND
        await operator.aclose()
        await gateway.send(submit_sm(5))
        assert heads([await gateway.receive()]) == [("submit_sm_resp", c.ESME_RSYSERR, 5)]
        assert len(it.world.relay.sessions) == 1


async def test_it_binds_again_after_it_was_let_go_of():
    async with scene() as it:
        operator = await it.smsc.bound()
        it.front.relay.draining = True
        it.nursery.start_soon(it.front.release_binds)
        assert command_of(await operator.receive()) == c.UNBIND
        await operator.aclose()
        await it.front.resume()
        await it.smsc.bound()
        assert not it.front.relay.draining
        assert len(it.world.relay.binds) == 1


async def test_resuming_what_was_not_let_go_of_only_takes_mt_again():
    async with scene() as it:
        await it.smsc.bound()
        (bind,) = it.world.relay.binds
        it.front.relay.draining = True
        await it.front.resume()
        assert (it.world.relay.binds, it.front.relay.draining) == ((bind,), False)


async def test_on_a_node_that_drains_it_binds_nowhere_until_it_resumes():
    async with scene(binds=False) as it:
        gateway = await it.gateway()  # what is in custody waits for it, so it may bind
        await gateway.send(submit_sm(5))
        assert heads([await gateway.receive()]) == [("submit_sm_resp", c.ESME_RTHROTTLED, 5)]
        assert it.smsc.peers == []
        await it.front.resume()
        await it.smsc.bound()


async def test_letting_go_before_it_has_begun_is_no_failure():
    async with scene(binds=False) as it:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.front.resume)
            nursery.start_soon(it.front.release_binds)
        await it.front.release_binds()
        assert it.world.relay.binds == ()


async def test_closing_finishes_what_is_in_flight_and_unbinds_the_operator_before_the_gateway():
    async with scene() as it:
        operator = await it.smsc.bound()
        gateway = await it.gateway()
        await gateway.send(submit_sm(5))
        request = await operator.receive()
        closed = trio.Event()

        async def close():
            await it.front.close(trio.current_time() + 20)
            closed.set()

        it.nursery.start_soon(close)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await gateway.send(submit_sm(6))
        assert heads([await gateway.receive()]) == [("submit_sm_resp", c.ESME_RTHROTTLED, 6)]
        await operator.send(submit_sm_resp(sequence_of(request), b"id1"))
        assert await gateway.receive() == submit_sm_resp(5, b"id1")
        assert command_of(await operator.receive()) == c.UNBIND
        await operator.send(receipt(3, b"id1"))  # while it is let go of
        report = await gateway.receive()
        await gateway.send(deliver_sm_resp(sequence_of(report)))
        assert await operator.receive() == deliver_sm_resp(3)
        await operator.aclose()
        assert c.UNBIND in await commands_until_end(gateway)
        await gateway.aclose()
        await closed.wait()
        with pytest.raises(OSError, match="all attempts"):
            await it.gateway()


async def test_closing_does_not_wait_beyond_its_deadline():
    async with scene() as it:
        operator = await it.smsc.bound()
        gateway = await it.gateway()
        await gateway.send(submit_sm(5))
        await operator.receive()
        it.nursery.start_soon(it.front.close, trio.current_time())
        assert command_of(await operator.receive()) == c.UNBIND
        await operator.aclose()
        assert heads(await gateway.receive_until_end())[0] == ("submit_sm_resp", c.ESME_RSYSERR, 5)


async def test_what_custody_has_given_it_goes_back_when_it_ends():
    async with scene() as it:
        await it.smsc.bound()
        await it.gateway()
        heard = []
        assert it.world.deliver("gw1", b"", receipt(1, b"id1"), heard.append)
        await it.end()
        it.nursery.start_soon(it.front.close, trio.current_time())
        while not heard:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert heard == [None]
        assert not it.world.deliver("gw1", b"", receipt(1, b"id1"), heard.append)


async def test_an_address_that_is_taken_ends_the_start():
    with reserved(1) as (port,):
        world = World(listen={"gw1": Address(LOOPBACK, port)})
        [taken] = await trio.open_tcp_listeners(port, host=LOOPBACK)
        with pytest.raises(BaseExceptionGroup) as caught:
            await Front(world.relay, structlog.get_logger()).run()
        [error] = leaves(caught.value)
        assert f"operator acme: cannot listen on {LOOPBACK}:{port}" in str(error)
        await taken.aclose()


async def test_certificates_that_cannot_be_used_end_the_start(tmp_path):
    files = {"outbind_cert_file": tmp_path / "absent.pem", "outbind_key_file": tmp_path / "absent.key"}
    world = World(binds=0, outbind_listen=Address(LOOPBACK, 0), outbind_tls=True, **files)
    with pytest.raises(BaseExceptionGroup) as caught:
        await Front(world.relay, structlog.get_logger()).run()
    [error] = leaves(caught.value)
    assert isinstance(error, TlsError)
    assert "outbind_cert_file" in str(error)
