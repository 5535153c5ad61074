"""How fast the backlog goes: so fast that the node has most of its time for what comes meanwhile."""

from collections.abc import Hashable
from itertools import takewhile
from typing import Final

PER_S: Final = 1_500.0  # some 150 us each: a fifth of a core
BURST: Final = 150.0  # a driver ticks ten times a second
_MOST_KEPT: Final = BURST / 2
_ONE: Final = 0.999  # as good as one: seconds since 1970 are counted in steps of a quarter of a microsecond


class Pace:
    """A bucket of `BURST` that fills up at `PER_S`, for several who take from it.

    For each who found nothing and has not been back one is kept, in the order in which they came: so one who comes
    often leaves some to the others.
    """

    def __init__(self) -> None:
        self._left = BURST
        self._at = 0.0
        self._came_in_vain: dict[Hashable, None] = {}

    def take(self, now: float, who: Hashable = None) -> bool:
        """One more may go now."""
        self._left = min(BURST, self._left + max(0.0, now - self._at) * PER_S)
        self._at = now
        if self._left < self._needed(who):
            self._came_in_vain[who] = None
            return False
        self._came_in_vain.pop(who, None)
        self._left -= 1.0
        return True

    def give_back(self) -> None:
        """What was to go has not gone."""
        self._left = min(BURST, self._left + 1.0)

    def forget(self, who: Hashable) -> None:
        """It does not come back."""
        self._came_in_vain.pop(who, None)

    def ready_at(self, who: Hashable = None) -> float:
        """When one more may go; in the past, if it may now."""
        return self._at + (1.0 - _ONE + self._needed(who) - self._left) / PER_S

    def _needed(self, who: Hashable) -> float:
        before = takewhile(lambda other: other != who, self._came_in_vain)
        return _ONE + min(_MOST_KEPT, sum(1 for _ in before))
