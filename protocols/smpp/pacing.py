"""How many messages a second may be sent, as a function of `now`: a token bucket, and what an operator will take."""

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

    def change(self, per_s: float | None, now: float) -> None:
        """Another limit from now on. Without one before it, nothing has been saved up."""
        if self._per_s is None:
            self._tokens = 0.0
        else:
            self._refill(now, self._per_s)
        self._per_s = per_s
        self._burst = max(1.0, per_s * BURST_S) if per_s is not None else 0.0
        self._tokens = min(self._tokens, self._burst)
        self._at = max(self._at, now)

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


# Operators count per second: what was in flight when the rate was halved is refused within it, and says nothing new.
HALVE_EVERY_S: Final = 1.0
RECOVERY_S: Final = 10.0  # from half of the rate that was refused back to it
LOWEST_PER_S: Final = 1.0  # so that it is noticed when the operator takes more again
_LIFTED_AT: Final = 2.0  # times the rate that was refused: whatever it was, it is over


class Slowdown:
    """How many a second an operator seems to take, that refuses what is too much: halved at once, recovered slowly.

    Additive increase, multiplicative decrease, as TCP does it. `sent` is what has been sent in all, ever.
    """

    __slots__ = ("_before", "_halved_at", "_latest", "_refused_per_s")

    def __init__(self, sent: int, now: float) -> None:
        self._before = self._latest = (now, sent)  # a second or two ago, and since
        self._refused_per_s: float | None = None
        self._halved_at = now

    def observe(self, sent: int, now: float) -> None:
        """To be called several times a second."""
        if now - self._latest[0] >= 1.0:
            self._before, self._latest = self._latest, (now, sent)

    def throttled(self, sent: int, now: float) -> bool:
        """The operator has refused something. Whether the rate was halved for it."""
        limit = self.per_s(now)
        if limit is not None and now - self._halved_at < HALVE_EVERY_S:
            return False
        at, sent_then = self._before
        rate = (sent - sent_then) / max(1.0, now - at)
        self._refused_per_s = max(LOWEST_PER_S, rate if limit is None else min(rate, limit))
        self._halved_at = now
        return True

    def per_s(self, now: float) -> float | None:
        """The rate that is to be kept; None: nothing has been refused for long."""
        refused = self._refused_per_s
        if refused is None:
            return None
        rate = refused / 2 * (1 + max(0.0, now - self._halved_at) / RECOVERY_S)
        return None if rate >= _LIFTED_AT * refused else max(LOWEST_PER_S, rate)
