"""Nothing intermediate is delivered after a final report, though they come in at two nodes."""

import pytest
import trio
from node_process import open_fleet
from one_node import part, receive, submit
from relay_world import heads, receipt
from smpp_peer import Peer, bind_request

from dlrproxy.demo.ports import LOOPBACK
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from protocols.smpp.pdu import Message, pack

pytestmark = pytest.mark.processes


def enroute(sequence, message_id):
    text = (
        b"id:%b sub:001 dlvrd:000 submit date:2401010000 done date:2401010001 stat:ENROUTE err:000 text:" % message_id
    )
    body = Message(source=b"447700900001", destination=b"SHOP", esm_class=0x20, short_message=text)
    return pack(c.DELIVER_SM, 0, sequence, body.encode())


async def bound(listener):
    peer = Peer(await listener.accept())
    _, _, _, sequence = HEADER.unpack_from(await receive(peer))
    await peer.send(pack(c.BIND_TRANSCEIVER_RESP, c.ESME_ROK, sequence, b"smsc\0"))
    return peer


async def test_an_intermediate_report_from_the_ring_does_not_follow_a_final_one_that_the_gateway_has(tmp_path):
    (one,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    (two,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    ports = {"gw1": one.socket.getsockname()[1], "gw2": two.socket.getsockname()[1]}
    async with one, two, open_fleet(tmp_path, ports) as fleet:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.start)
            own, other = await bound(one), await bound(two)
        gateway = Peer(await trio.open_tcp_stream(LOOPBACK, fleet.gateway_ports["gw1"]))
        async with own.stream, other.stream, gateway.stream:
            await gateway.send(bind_request())
            await receive(gateway)
            await submit(gateway, own, b"abc1")
            await own.send(receipt(8, b"abc1"))
            final = await receive(gateway)  # and does not answer yet
            await other.send(enroute(9, b"abc1"))
            assert heads([await receive(other)]) == [("deliver_sm_resp", c.ESME_ROK, 9)]
            await fleet["gw2"].seen("dlr.settled", by="gw1")
            await gateway.send(pack(c.DELIVER_SM_RESP, c.ESME_ROK, HEADER.unpack_from(final)[3], b"\0"))
            assert heads([await receive(own)]) == [("deliver_sm_resp", c.ESME_ROK, 8)]
            await fleet["gw1"].seen("dlr.superseded", message_id="abc1")
            async with trio.open_nursery() as nursery:
                for peer in (own, other, gateway):
                    nursery.start_soon(part, peer)
                await fleet.stop()
                nursery.cancel_scope.cancel()
