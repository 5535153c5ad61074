"""How fast this node sends to the operator: by the configuration, and by what the operator itself refuses.

    max_per_s            of this node
    account_max_per_s    of the account, shared evenly by the configured nodes: nobody has to count for the others
    slow_on_throttle     less than these, for a while, when the operator answers ESME_RTHROTTLED or ESME_RMSGQFUL

The least of them counts.
"""

from typing import Final

from dlrproxy.config.operator import Operator
from dlrproxy.counters import Counters
from protocols.smpp import constants as c
from protocols.smpp.pacing import Pace, Slowdown

THROTTLED: Final = frozenset({c.ESME_RTHROTTLED, c.ESME_RMSGQFUL})


class MtPace:
    """Of one operator. `limited` is False while everything may go at once."""

    __slots__ = ("_configured", "_counters", "_operator", "_pace", "_slowdown", "limited", "per_s")

    def __init__(self, operator: Operator, counters: Counters, nodes: int, now: float) -> None:
        """`nodes`: how many share the account."""
        self._operator = operator
        self._counters = counters
        self._configured = self.per_s = operator.pace_per_s(nodes)
        self.limited = self.per_s is not None
        self._pace = Pace(self.per_s, now)
        self._slowdown = Slowdown(0, now) if operator.slow_on_throttle else None

    def share_among(self, nodes: int, now: float) -> None:
        """Another number of nodes share the account from now on."""
        self._configured = self._operator.pace_per_s(nodes)
        self._adjust(now)

    def take(self, now: float) -> bool:
        """Whether one more may be sent now; if so it counts as sent."""
        return self._pace.take(now)

    def wait_s(self, now: float) -> float:
        """Seconds until `take` allows the next one; 0 if it does now."""
        return self._pace.wait_s(now)

    def throttled(self, now: float) -> None:
        """The operator has answered one of THROTTLED."""
        self._counters.throttled += 1
        if self._slowdown is not None and self._slowdown.throttled(self._counters.requests, now):
            self._counters.slowed += 1
            self._adjust(now)

    def tick(self, now: float) -> None:
        """To be called several times a second."""
        if self._slowdown is not None:
            self._slowdown.observe(self._counters.requests, now)
            self._adjust(now)

    def _adjust(self, now: float) -> None:
        slowed = self._slowdown.per_s(now) if self._slowdown is not None else None
        per_s = self._configured if slowed is None else min(slowed, self._configured or slowed)
        if per_s != self.per_s:
            self.per_s = per_s
            self.limited = per_s is not None
            self._pace.change(per_s, now)
