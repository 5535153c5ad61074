"""The node's clock: seconds that neither go back nor jump, whatever happens to the wall clock.

At start it continues from the wall clock or from where the last run stopped, whichever is later; from then on it
follows the monotonic clock alone. Ages and expiry times are kept in it, on disk too.
"""

import time
from collections.abc import Callable


class NodeClock:
    """Seconds since the epoch at start, plus the time that has passed since."""

    __slots__ = ("_base", "_monotonic")

    def __init__(
        self,
        high_water: float = 0.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`high_water` is the last reading that the store remembers."""
        self._monotonic = monotonic
        self._base = max(wall(), high_water) - monotonic()

    def now(self) -> float:
        return self._base + self._monotonic()

    def not_before(self, high_water: float) -> None:
        """Continue from `high_water` if that is later. For the start of a node: it must open its store to read it."""
        self._base = max(self._base, high_water - self._monotonic())
