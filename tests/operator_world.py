"""The operator side of a relay over real sockets, and an SMSC of which a test plays every PDU."""

import ssl
from contextlib import asynccontextmanager, suppress

import structlog
import trio
import trio.testing
from relay_world import World, command_of, deliver_sm_resp, receipt, sequence_of, submit_sm_resp
from smpp_peer import Peer

from dlrproxy.config.keys import Address
from dlrproxy.operators import Operators
from protocols.smpp import constants as c
from protocols.smpp.pdu import pack

QUICK = {"reconnect_min_s": 0.01, "reconnect_max_s": 0.05}


class Smsc:
    """Accepts connections; a test plays the rest."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._send, self._receive = trio.open_memory_channel[Peer](10)
        self._tls = tls
        self.peers: list[Peer] = []

    async def run(self, task_status=trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream) -> None:
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        peer = Peer(stream)
        self.peers.append(peer)
        await self._send.send(peer)
        if self._tls is not None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.do_handshake()
        await trio.sleep_forever()

    async def accept(self) -> Peer:
        with trio.fail_after(100):
            return await self._receive.receive()

    async def bound(self, body: bytes = b"SMSC\0") -> Peer:
        """The next connection, bound."""
        peer = await self.accept()
        request = await peer.receive()
        await peer.send(pack(command_of(request) | c.RESPONSE_BIT, 0, sequence_of(request), body))
        await trio.testing.wait_all_tasks_blocked(0.01)
        return peer


class Side:
    def __init__(self, world: World, smsc: Smsc, operators: Operators, nursery: trio.Nursery) -> None:
        self.world = world
        self.smsc = smsc
        self.operators = operators
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self.released = trio.Event()

    def start(self) -> None:
        self._nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self._scope:
            await self.operators.run()
        self.released.set()

    def release(self) -> None:
        self._scope.cancel()


@asynccontextmanager
async def operator_side(smsc: Smsc | None = None, hosts: int = 1, **settings):
    smsc = smsc or Smsc()
    async with trio.open_nursery() as nursery:
        addresses = tuple([Address("127.0.0.1", await nursery.start(smsc.run)) for _ in range(hosts)])
        world = World(hosts=addresses, **{**QUICK, **settings})
        side = Side(world, smsc, Operators(world.relay, structlog.get_logger()), nursery)
        side.start()
        try:
            yield side
        finally:
            side.release()
            for peer in smsc.peers:
                await trio.aclose_forcefully(peer.stream)
        await side.released.wait()
        nursery.cancel_scope.cancel()


async def exchange(world, peer):
    """A message and its report pass on this bind, and the answers to both."""
    session = world.session()
    world.submit(session, 5)
    request = await peer.receive()
    await peer.send(submit_sm_resp(sequence_of(request), b"id1"), receipt(3, b"id1"))
    await trio.testing.wait_all_tasks_blocked(0.01)
    response, report = session.connection.take()
    assert response == submit_sm_resp(5, b"id1")
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(report))])
    assert await peer.receive() == deliver_sm_resp(3)
