"""What explains a report that came twice, or out of order, in a ring.

An answer that was on its way when something failed may have been lost, and then the report comes again. It is on its
way for ON_ITS_WAY_S at most, and longer only while a fault detains it.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from attrs import frozen

from chaos.plan import SLOW_S, Fault, Kind
from chaos.told import Told
from dlrproxy.admin.parked import ParkedItem
from dlrproxy.simulator.judge import Arrival, Named

# An answer is on its way for so long at most where no fault is in its way: milliseconds as a rule, for it and for a
# group commit; but on a busy machine everything may stand still for seconds.
ON_ITS_WAY_S: Final = 10.0

# Faults that keep a gateway's answer, or its durable mark, from coming about for as long as they last.
_DETAINING: Final = frozenset(
    {
        Kind.PAUSE, Kind.LONG_PAUSE, Kind.DISK_FULL, Kind.GATEWAY_STUCK, Kind.GATEWAY_SLOW, Kind.GATEWAY_HALF_OPEN,
    }
)  # fmt: skip

# An answer that was put off while it lasted comes so much later; so does a write, since the store waits for up to five
# seconds before it tries a disk again that was full.
_AFTER_S: Final = {Kind.GATEWAY_SLOW: SLOW_S, Kind.DISK_FULL: 5.0}


@frozen
class Episode:
    """A fault as it happened, in time.monotonic() seconds."""

    fault: Fault
    began: float
    ended: float


class RingExcuses:
    """`judgement.Excuses` of a ring."""

    def __init__(self, told: Told, episodes: Iterable[Episode]) -> None:
        self._told = told
        episodes = list(episodes)
        self._episodes = [episode for episode in episodes if episode.fault.kind in _DETAINING]
        self._kills = [episode for episode in episodes if episode.fault.kind in (Kind.KILL, Kind.POWER_CUT)]

    def repeated(self, case: Named, first: Arrival, second: Arrival) -> str:
        told, name = self._told, (case.message_id, case.state)
        detained = self._detained_until(first.gateway, first.t)
        if name in told.unanswered:
            return "the operator had no answer, and sent it again"
        if detained > first.t + ON_ITS_WAY_S and name in told.put_off:
            return "the gateway's answer came late, the operator had been told to send it again"
        if any(first.t <= ended <= min(second.t, detained) for ended in told.ended[first.gateway]):
            return "the session ended with the answer on its way"
        if any(
            episode.fault.kind is Kind.DISK_FULL and episode.began <= first.t <= episode.ended + ON_ITS_WAY_S
            for episode in self._of(first.gateway)
        ):
            return "the disk was full when the gateway answered"
        return ""

    def disordered(self, case: Named) -> str:
        """An intermediate report came after a final one of which the killed node had nothing on disk yet."""
        name = case.owner or ""
        at = self._told.finals.get((name, case.message_id))
        if case.final or at is None or case.received[-1].t < at:
            return ""
        until = self._detained_until(name, at)
        killed = any(
            at <= kill.began <= until and (not kill.fault.target or name in kill.fault.target) for kill in self._kills
        )
        return "its node was killed before the final one's delivery was on disk" if killed else ""

    def parked(self, item: ParkedItem, case: Named | None) -> str:
        return ""

    def _detained_until(self, name: str, at: float) -> float:
        """How long an answer of that time may be on its way to disk: one fault may take over from another."""
        until = at + ON_ITS_WAY_S
        for episode in sorted(self._of(name), key=lambda episode: episode.began):
            if episode.began <= until and at <= episode.ended:
                until = max(until, episode.ended + ON_ITS_WAY_S + _AFTER_S.get(episode.fault.kind, 0.0))
        return until

    def _of(self, name: str) -> Iterator[Episode]:
        return (episode for episode in self._episodes if name in episode.fault.target)
