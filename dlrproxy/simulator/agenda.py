"""What is to happen later: delayed reports and responses, retries, back-off. One heap, one task."""

import heapq
import time
from collections.abc import Callable

import trio

# Things due within this time of each other happen in one batch, with one write per peer: at high rates a wake-up
# for each would cost more than the thing itself.
GRAIN_S = 0.001


class Agenda:
    """Actions with a due time, in time.monotonic() seconds. Actions with the same due time keep their order."""

    __slots__ = ("_after_batch", "_count", "_heap", "_sleeps_until", "_woken")

    def __init__(self, after_batch: Callable[[], None]) -> None:
        """`after_batch` is called once after each batch of actions: it flushes what they wrote."""
        self._after_batch = after_batch
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._woken = trio.Event()
        self._sleeps_until = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, due: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, action))
        if due < self._sleeps_until:
            self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._sleep()
            now = time.monotonic()
            while self._heap and self._heap[0][0] <= now:
                heapq.heappop(self._heap)[2]()
            self._after_batch()

    async def _sleep(self) -> None:
        self._sleeps_until = self._heap[0][0] if self._heap else float("inf")
        self._woken = trio.Event()
        with trio.move_on_after(max(self._sleeps_until - time.monotonic(), 0)):
            await self._woken.wait()
        self._sleeps_until = 0.0
        await trio.sleep(GRAIN_S)
