"""One operator's listeners over real sockets, with a relay that has nothing else around it."""

import ssl
from contextlib import asynccontextmanager

import structlog
import trio
import trio.testing
from relay_world import World
from smpp_peer import Peer, bind_request

from dlrproxy.gateways import Gateways
from protocols.smpp import constants as c


class Side:
    def __init__(self, world: World, gateways: Gateways, addresses, nursery: trio.Nursery) -> None:
        self.world = world
        self.gateways = gateways
        self.addresses = addresses
        self.nursery = nursery
        self.peers: list[Peer] = []

    async def dial(self, gateway: str = "gw1", tls: ssl.SSLContext | None = None) -> Peer:
        stream = await trio.open_tcp_stream("127.0.0.1", self.addresses[gateway].port)
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_hostname="127.0.0.1")
        self.peers.append(Peer(stream))
        return self.peers[-1]

    async def bound(
        self, gateway: str = "gw1", command: int = c.BIND_TRANSCEIVER, tls: ssl.SSLContext | None = None
    ) -> Peer:
        peer = await self.dial(gateway, tls)
        await peer.send(bind_request(command=command))
        assert (await peer.receive())[8:12] == b"\0\0\0\0"
        return peer

    async def ended(self) -> None:
        """Wait until no session is left."""
        with trio.fail_after(100):
            while self.gateways._sessions:
                await trio.testing.wait_all_tasks_blocked(0.005)


@asynccontextmanager
async def gateway_side(**settings):
    world = World(**settings)
    gateways = Gateways(world.relay, structlog.get_logger())
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(gateways.run)
        side = Side(world, gateways, addresses, nursery)
        try:
            yield side
        finally:
            for peer in side.peers:
                await trio.aclose_forcefully(peer.stream)
        nursery.cancel_scope.cancel()
