"""A byte stream that takes only so much from a stranger, and tells when the stranger is gone.

It lies between the WebSocket library and the socket or TLS, because only here all that a stranger can send is seen:
HTTP headers, WebSocket frames of any kind, messages. `lift` takes the guard away once the peer has proved itself.
"""

from collections.abc import Callable
from typing import Literal

import trio

End = Literal["closed_by_peer", "closed_by_us", "broken", "oversize"]


class GuardedStream(trio.abc.Stream):
    """Passes everything on, and reads at most `budget` bytes in all until `lift`.

    While the guard is on, the end of the stream, for whatever reason, is kept in `end` and told once by `on_end`: the
    library waits for a handshake that nobody can finish any more.
    """

    def __init__(self, stream: trio.abc.Stream, budget: int, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._budget = budget
        self._on_end = on_end
        self._guarded = True
        self.end: End | None = None
        self.bytes_in = 0
        self.bytes_out = 0

    def lift(self) -> None:
        self._guarded = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._guarded:
            room = self._budget - self.bytes_in
            if room <= 0:
                self._ended("oversize")
                raise trio.BrokenResourceError("too many bytes from a stranger")
            max_bytes = min(room, max_bytes or room)
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._ended("broken")
            raise
        if not data:
            self._ended("closed_by_peer")
        self.bytes_in += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self._ended("broken")
            raise
        self.bytes_out += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._ended("closed_by_us")
        await self._stream.aclose()

    def _ended(self, end: End) -> None:
        if self._guarded and self.end is None:
            self.end = end
            self._on_end()
