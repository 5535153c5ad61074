"""Frames on their way to one peer: filled synchronously, emptied by the link's writer, bounded in count and bytes.

At the bound `put` says no, and the caller keeps the frame where it is (custody repeats it). Whatever waits here when
the link goes down is gone, and that too is custody's to repeat.
"""

from collections import deque

import trio

from protocols.peer.frames import MAX_MESSAGE_BYTES, Frame, FrameError, encode_frame


class Outbox:
    """One link's queue of encoded frames. `put` is called by whoever has something to say, `take` by the writer."""

    __slots__ = ("_frames", "_max_bytes", "_max_frames", "_size", "_wake")

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    def put(self, frame: Frame) -> bool:
        """Queue it, or say False. Raises FrameError for a frame that no peer would take (a fault of ours)."""
        data = encode_frame(frame)
        size = len(data)
        if size > MAX_MESSAGE_BYTES // 2:
            raise FrameError(f"a {type(frame).__name__} of {size} bytes does not fit into a message")
        if len(self._frames) >= self._max_frames or self._size + size > self._max_bytes:
            return False
        self._frames.append(data)
        self._size += size
        self._wake.set()
        return True

    def take(self, max_frames: int, max_bytes: int) -> list[bytes]:
        """The oldest frames that fit into both limits, at least one if there is any."""
        batch: list[bytes] = []
        room = max_bytes
        frames = self._frames
        while frames and len(batch) < max_frames and (not batch or len(frames[0]) <= room):
            data = frames.popleft()
            batch.append(data)
            room -= len(data)
            self._size -= len(data)
        return batch

    async def filled(self) -> None:
        """Return when there is something to take."""
        if not self._frames:
            self._wake = trio.Event()
            await self._wake.wait()
