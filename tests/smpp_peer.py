"""The other end of a socket, PDU by PDU."""

import trio

from protocols.smpp import constants as c
from protocols.smpp.framing import split
from protocols.smpp.pdu import Bind, pack


class Peer:
    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._frames: list[bytes] = []
        self._rest = b""

    async def send(self, *frames: bytes) -> None:
        await self.stream.send_all(b"".join(frames))

    async def receive(self) -> bytes | None:
        """The next PDU; None at the end of the stream."""
        while not self._frames:
            data = await self.stream.receive_some(65536)
            if not data:
                return None
            self._frames, self._rest = split(self._rest + data)
        return self._frames.pop(0)

    async def receive_until_end(self) -> list[bytes]:
        frames = []
        while (frame := await self.receive()) is not None:
            frames.append(frame)
        return frames

    async def aclose(self) -> None:
        await self.stream.aclose()


def bind_request(sequence: int = 1, command: int = c.BIND_TRANSCEIVER, **fields) -> bytes:
    fields = {"system_id": b"shop", "password": b"secret", **fields}
    return pack(command, 0, sequence, Bind(**fields).encode())
