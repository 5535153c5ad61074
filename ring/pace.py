"""How fast the backlog goes: so fast that the node has most of its time for what comes meanwhile."""

from typing import Final

PER_S: Final = 1_500.0  # some 150 us each: a fifth of a core
BURST: Final = 150.0  # a driver ticks ten times a second


class Pace:
    """A bucket of `BURST` that fills up at `PER_S`."""

    def __init__(self) -> None:
        self._left = BURST
        self._at = 0.0

    def take(self, now: float) -> bool:
        """One more may go now."""
        self._left = min(BURST, self._left + max(0.0, now - self._at) * PER_S)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    @property
    def ready_at(self) -> float:
        """When one more may go; in the past, if it may now."""
        return self._at + (1.0 - self._left) / PER_S
