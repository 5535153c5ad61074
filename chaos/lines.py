"""A TCP line between two players, which can be cut, held up in one or both directions, and slowed down.

Held up is what a half-open connection looks like from its ends: what is sent arrives nowhere, an end that closes is not
heard of, and a new connection is taken and stays silent. When that is over, what was sent goes on, as TCP would send it
again, unless the line is cut.
"""

import socket
import struct
from collections.abc import Collection
from enum import Enum
from typing import Final

import trio

from dlrproxy.demo.ports import LOOPBACK

_CHUNK: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time at all


class Way(Enum):
    """Seen from the one who dials."""

    THERE = "there"
    BACK = "back"


class Line:
    """Run it; everything else is synchronous."""

    def __init__(self, port: int, target: int) -> None:
        """Whoever dials `port` on loopback is connected to `target`."""
        self.port = port
        self._target = target
        self._connections: set[trio.CancelScope] = set()
        self._delay_s = 0.0
        self._refuses = False
        self._passable = {way: trio.Event() for way in Way}
        self.resume()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started when it listens."""
        listeners = await trio.open_tcp_listeners(self.port, host=LOOPBACK)
        task_status.started()
        await trio.serve_listeners(self._carry, listeners)

    def lead_to(self, target: int) -> None:
        """Reset every connection; new ones go there."""
        self._target = target
        self.reset()

    def cut(self) -> None:
        """Reset every connection; new ones are reset as well until `mend`."""
        self._refuses = True
        self.reset()

    def mend(self) -> None:
        self._refuses = False

    def reset(self) -> None:
        """Reset every connection, once."""
        for connection in self._connections:
            connection.cancel()

    def hold_up(self, ways: Collection[Way] = tuple(Way)) -> None:
        """Nothing passes in these directions until `resume`."""
        for way in ways:
            self._passable[way] = trio.Event()

    def resume(self) -> None:
        for passable in self._passable.values():
            passable.set()

    def slow_down(self, delay_s: float) -> None:
        """Everything takes so much longer; 0 for as fast as it goes."""
        self._delay_s = delay_s

    async def _carry(self, dialler: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                if self._refuses:
                    scope.cancel()
                else:
                    await self._join(dialler, scope)
            except OSError:
                pass  # nobody listens: the dialler's connection ends as well
            finally:
                self._connections.discard(scope)
                _end(dialler, reset=scope.cancel_called)

    async def _join(self, dialler: trio.SocketStream, scope: trio.CancelScope) -> None:
        await self._passable[Way.THERE].wait()
        listener = await trio.open_tcp_stream(LOOPBACK, self._target)
        try:
            async with trio.open_nursery() as nursery:
                for way, source, sink in ((Way.THERE, dialler, listener), (Way.BACK, listener, dialler)):
                    nursery.start_soon(self._pass_on, way, source, sink, nursery.cancel_scope)
        finally:
            _end(listener, reset=scope.cancel_called)

    async def _pass_on(
        self, way: Way, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        """Until one end is closed; then the other is told, as soon as something passes."""
        try:
            while data := await self._received(way, source):
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass  # the sink is gone: its own direction notices as well
        both.cancel()

    async def _received(self, way: Way, source: trio.SocketStream) -> bytes:
        """What comes next, when it may pass; nothing where the source has closed or reset."""
        try:
            data = bytes(await source.receive_some(_CHUNK))
        except trio.BrokenResourceError:
            data = b""
        await trio.sleep(self._delay_s)
        while not self._passable[way].is_set():
            await self._passable[way].wait()
        return data


def _end(stream: trio.SocketStream, *, reset: bool) -> None:
    """With `reset` whatever is still on its way is gone."""
    if reset:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.socket.close()
