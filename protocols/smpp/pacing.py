"""How many messages a second may be sent: a token bucket, as a function of `now`."""

from typing import Final

# A bucket holds what may be sent in this time, and one message at least: operators count per second, so a burst of a
# tenth never puts two seconds' worth into one.
BURST_S: Final = 0.1

# Arithmetic of `wait_s` and then `take` may fall short of a whole message by rounding.
_ALMOST_ONE: Final = 1.0 - 1e-6


class Pace:
    """`per_s` None: no limit."""

    __slots__ = ("_at", "_burst", "_per_s", "_tokens")

    def __init__(self, per_s: float | None, now: float) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s * BURST_S) if per_s is not None else 0.0
        self._tokens = self._burst
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more may be sent now; if so it counts as sent."""
        if self._per_s is None:
            return True
        self._refill(now, self._per_s)
        if self._tokens < _ALMOST_ONE:
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def wait_s(self, now: float) -> float:
        """Seconds until `take` allows the next one; 0 if it does now."""
        if self._per_s is None:
            return 0.0
        self._refill(now, self._per_s)
        return max(0.0, (1.0 - self._tokens) / self._per_s)

    def _refill(self, now: float, per_s: float) -> None:
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * per_s)
            self._at = now
