"""One whole node, and both its ends played by a test, word for word.

async with one_node(tmp_path) as scene:
    await scene.node.start()
    bind = await scene.bound()
    gateway = await scene.bound_gateway()
    await submit(gateway, bind, GOES_ON)
    await report(gateway, bind, GOES_ON)
"""

import contextlib
from contextlib import asynccontextmanager

import trio
from node_process import Fleet, open_fleet
from relay_world import heads, receipt, submit_sm, submit_sm_resp
from smpp_peer import Peer, bind_request

from dlrproxy.demo.ports import LOOPBACK
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from protocols.smpp.pdu import pack

GOES_ON = b"0a1b2c"  # the first id that the SMSC gives


class Scene:
    """One node, and both ends of it: an operator and a gateway of which a test says every word."""

    def __init__(self, fleet: Fleet, operator: trio.SocketListener) -> None:
        self.node = fleet["gw1"]
        self.gateway_port = fleet.gateway_ports["gw1"]
        self.link_port = fleet.link_ports["gw1"]
        self.operator_port = operator.socket.getsockname()[1]
        self.peers: list[Peer] = []
        self._bound: list[Peer] = []
        self._operator = operator

    def _peer(self, stream: trio.SocketStream) -> Peer:
        self.peers.append(Peer(stream))
        return self.peers[-1]

    async def dialled(self) -> Peer:
        """Where the node has dialled its operator: the other end."""
        with trio.fail_after(100):
            return self._peer(await self._operator.accept())

    async def bound(self) -> Peer:
        """The operator's end of the node's next bind, accepted."""
        peer = await self.dialled()
        _, command, _, sequence = HEADER.unpack_from(await receive(peer))
        assert command == c.BIND_TRANSCEIVER
        await peer.send(pack(c.BIND_TRANSCEIVER_RESP, c.ESME_ROK, sequence, b"smsc\0"))
        self._bound.append(peer)
        return peer

    async def dial(self, port: int | None = None) -> Peer:
        """The gateway's port, unless told otherwise."""
        return self._peer(await trio.open_tcp_stream(LOOPBACK, self.gateway_port if port is None else port))

    async def bound_gateway(self) -> Peer:
        peer = await self.dial()
        await peer.send(bind_request())
        assert heads([await receive(peer)]) == [("bind_transceiver_resp", c.ESME_ROK, 1)]
        self._bound.append(peer)
        return peer

    async def stop(self) -> None:
        """SIGTERM; everybody who is bound says goodbye as is proper, and the node ends in good order."""
        async with trio.open_nursery() as nursery:
            for peer in self._bound:
                nursery.start_soon(part, peer)
            await self.node.stop()
            nursery.cancel_scope.cancel()


async def part(peer: Peer) -> None:
    """Until it is unbound, and then answer that."""
    with contextlib.suppress(trio.ClosedResourceError, trio.BrokenResourceError):  # it has left before
        while (frame := await peer.receive()) is not None:
            _, command, _, sequence = HEADER.unpack_from(frame)
            if command == c.UNBIND:
                await peer.send(pack(c.UNBIND_RESP, c.ESME_ROK, sequence))


@asynccontextmanager
async def one_node(directory, settings=None, **options):
    """Not started. `options` go to open_fleet."""
    (operator,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    async with operator, open_fleet(directory, {"gw1": operator.socket.getsockname()[1]}, settings, **options) as fleet:
        scene = Scene(fleet, operator)
        try:
            yield scene
        finally:
            for peer in scene.peers:
                await trio.aclose_forcefully(peer.stream)


async def receive(peer: Peer) -> bytes:
    with trio.fail_after(100):
        frame = await peer.receive()
    assert frame is not None, "the connection has ended"
    return frame


async def submit(gateway: Peer, bind: Peer, message_id: bytes) -> None:
    """An MT and its response, all the way."""
    await gateway.send(submit_sm(7))
    request = await receive(bind)
    assert request[:12] + request[16:] == submit_sm(7)[:12] + submit_sm(7)[16:]
    await bind.send(submit_sm_resp(HEADER.unpack_from(request)[3], message_id))
    assert await receive(gateway) == submit_sm_resp(7, message_id)


async def report(gateway: Peer, bind: Peer, message_id: bytes) -> None:
    """A report, to the gateway, and its answer, all the way."""
    await bind.send(receipt(8, message_id))
    await take(gateway, message_id)
    assert heads([await receive(bind)]) == [("deliver_sm_resp", c.ESME_ROK, 8)]


async def take(gateway: Peer, message_id: bytes) -> None:
    """The gateway takes the report on this message."""
    frame = await receive(gateway)
    sequence = HEADER.unpack_from(frame)[3]
    assert frame == receipt(sequence, message_id)
    await gateway.send(pack(c.DELIVER_SM_RESP, c.ESME_ROK, sequence, b"\0"))
