"""Where a gateway dials: it is put through to the first node that listens, and it is remembered which one that was."""

import time
from collections.abc import Mapping
from contextlib import suppress

import trio
from attrs import frozen

from dlrproxy.demo.ports import LOOPBACK


@frozen
class Passage:
    """A connection: since when, in time.monotonic() seconds."""

    node: str
    began: float


class Turnstile:
    def __init__(self, port: int, targets: Mapping[str, int]) -> None:
        """`targets`: by node, in the order in which they are tried."""
        self.passages: list[Passage] = []
        self._port = port
        self._targets = targets

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started when it listens."""
        listeners = await trio.open_tcp_listeners(self._port, host=LOOPBACK)
        task_status.started()
        await trio.serve_listeners(self._put_through, listeners)

    def node_at(self, t: float) -> str:
        """Which node the gateway had what it read at that time from: it may read on when the node is gone.

        Empty: none yet. It dials again only when it has read the last of a connection.
        """
        return next((passage.node for passage in reversed(self.passages) if passage.began <= t), "")

    async def _put_through(self, gateway: trio.SocketStream) -> None:
        async with gateway:
            for node, port in self._targets.items():
                with suppress(OSError):
                    stream = await trio.open_tcp_stream(LOOPBACK, port)
                    await self._carry(gateway, stream, node)
                    return

    async def _carry(self, gateway: trio.SocketStream, stream: trio.SocketStream, node: str) -> None:
        self.passages.append(Passage(node, time.monotonic()))
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, gateway, stream, nursery.cancel_scope)
            nursery.start_soon(_pass_on, stream, gateway, nursery.cancel_scope)


async def _pass_on(source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await target.send_all(data)
    scope.cancel()
