"""A peer made of our handshake and the bare library: what it does after that a test says."""

from contextlib import asynccontextmanager

import trio
from trio_websocket import wrap_client_stream

from protocols.peer import hello
from ring.handshake import Channel, DiallerHandshake, Terms


@asynccontextmanager
async def dialled(port, *, dial=1, store_id=b"gw1.....", boot=b"scripted", **changes):
    """gw1 dials gw2: the stream, the WebSocket on it, and what the handshake has come to. `changes` as in `Terms`."""
    terms = Terms(node="gw1", cluster="test", store_id=store_id, boot=boot, peers={"gw2": frozenset()}, **changes)
    machine = DiallerHandshake(terms, Channel(), b"n" * hello.NONCE_BYTES, peer="gw2", dial=dial)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(nursery, stream, "gw2", "/")
        while True:
            step = machine.receive(await websocket.get_message())
            if step.send:
                await websocket.send_message(step.send)
            if step.outcome:
                break
        yield stream, websocket, step.outcome
        nursery.cancel_scope.cancel()
