"""Virtual time: what happens next, and nothing in between. Seconds since the start of the simulated world."""

import heapq
from collections.abc import Callable
from typing import Final

MOST_EVENTS: Final = 400_000  # of one seed; more means that something goes round in circles


class Timeline:
    """Acts in the order of their time; at the same time, in the order in which they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, act))

    def after(self, delay: float, act: Callable[[], None]) -> None:
        self.at(self.now + delay, act)

    def run_until(self, end: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, act = heapq.heappop(heap)
            self.events += 1
            if self.events > MOST_EVENTS:
                raise RuntimeError(f"{MOST_EVENTS} events, and no end")
            act()
        self.now = end
