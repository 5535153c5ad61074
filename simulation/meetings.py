"""Which nodes had the time to tell each other that they have decided otherwise about one message.

Two nodes tell each other what they have decided when they come to reach each other, and when they decide. A link on
which nothing passes is held for alive for a while, so being reached counts only where it has lasted.
"""

from collections import defaultdict
from collections.abc import Collection
from itertools import combinations

from attrs import define, field


@define
class Decisions:
    """About one message: who decided for which gateway, and when that was first seen."""

    first_part_at: float
    seen_at: dict[tuple[str, str], float] = field(factory=dict)  # by node and gateway

    def saw(self, node: str, gateway: str, now: float) -> None:
        self.seen_at.setdefault((node, gateway), now)


class Meetings:
    def __init__(self) -> None:
        self._reached: dict[str, frozenset[str]] = {}
        self._since: dict[frozenset[str], float] = {}  # pairs that reach each other now
        self._past: dict[frozenset[str], list[tuple[float, float]]] = defaultdict(list)

    def reached(self, node: str, others: Collection[str], now: float) -> None:
        """`others` are all that it can reach from now on; none if its process has ended."""
        before, after = self._reached.get(node, frozenset()), frozenset(others)
        self._reached[node] = after
        for other in before - after:
            if (since := self._since.pop(frozenset((node, other)), None)) is not None:
                self._past[frozenset((node, other))].append((since, now))
        for other in after - before:
            if node in self._reached.get(other, ()):
                self._since[frozenset((node, other))] = now

    def met(self, one: str, other: str, begin: float, end: float, least_s: float) -> bool:
        """They have reached each other for so long without a break, between `begin` and `end`."""
        pair = frozenset((one, other))
        spans = [*self._past.get(pair, ())]
        if pair in self._since:
            spans.append((self._since[pair], end))
        return any(min(until, end) - max(since, begin) >= least_s for since, until in spans)

    def may_be_silent(self, decisions: Decisions, kept_s: float, least_s: float) -> bool:
        """No two nodes that have decided otherwise have met before the first decision could be forgotten.

        That was not made before the first part was sent, and is kept for `kept_s`. One node decides otherwise only when
        it has forgotten. False where no two decisions differ.
        """
        forgotten_at = decisions.first_part_at + kept_s
        differing = [
            (one, other, max(one_at, other_at))
            for ((one, gateway), one_at), ((other, another), other_at) in combinations(decisions.seen_at.items(), 2)
            if gateway != another
        ]
        return bool(differing) and not any(
            seen_at < forgotten_at if one == other else self.met(one, other, seen_at, forgotten_at, least_s)
            for one, other, seen_at in differing
        )
