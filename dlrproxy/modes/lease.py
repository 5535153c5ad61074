"""Leases without a clock in common, and what the master of a quorum does with them. Pure.

A lease is a row with an epoch and a beat. Its holder counts the beat up; whoever else wants it watches the row, and
takes it when it has stood still for as long as the lease goes, by a statement that does nothing unless the row is
still as it was seen:

    holder    uses it until RATE_MARGIN * length after the last beat that returned was *sent*
    others    take it `length` after they first *saw* the row as it still is

What is seen was sent earlier, so the holder has let go before anybody takes it; a beat that is certified in between
makes the taking fail, and a beat that comes after it fails itself. Only intervals of one monotonic clock are
compared: by how much the clocks of two machines differ does not matter, and NOW() of a database server is used
nowhere.

The master holds such a lease; so does every node, on its own part of custody (`cluster.Member`). The master's other
duty is to watch those: a node whose row stands still for `takeover_after_s` is fenced, and its rows go to an heir.
Two masters would do no harm but for what is done twice: every statement of theirs is bound to rows that only one of
them can change.
"""

from collections.abc import Mapping
from typing import Final

from dlrproxy.modes.cluster import (
    RATE_MARGIN,
    Command,
    MasterRow,
    Member,
    Move,
    QuorumSettings,
    Rows,
    Take,
    TakeLease,
)
from dlrproxy.modes.watch import Watch

_NEVER: Final = float("-inf")


class Master:
    """Whether this node is the master, and what it does then. Times are seconds of one monotonic clock."""

    def __init__(self, settings: QuorumSettings) -> None:
        self._settings = settings
        self.epoch = 0  # held under, the last time
        self.hold_until = _NEVER  # after this it acts as master no more, however late a process wakes up
        self._held_by = Watch()
        self._members: dict[str, Watch] = {}

    def holds(self, now: float) -> bool:
        return now < self.hold_until

    def renewed(self, epoch: int, sent_at: float) -> None:
        """The lease was taken, or its beat counted up, under `epoch`, by a statement that was sent then."""
        if epoch >= self.epoch:
            self.epoch = epoch
            self.hold_until = max(self.hold_until, sent_at + RATE_MARGIN * self._settings.lease_s)

    def lost(self) -> None:
        """The lease is another's."""
        self.hold_until = _NEVER

    def observe(self, rows: Rows | None, now: float, *, serving: bool) -> list[Command]:
        """Only a node that serves can be master: after an outage the others have their time to come back, too. One that
        serves no more lets the lease run out, for it may not serve again for long."""
        if not serving:
            self.lost()
        if rows is None or not serving:
            self._held_by = Watch()
            self._members.clear()
            return []
        living = self._living(rows.members, now)
        if not self.holds(now):
            return self._stand_for(rows.master, now)
        return self._take_over(rows.members, living)

    def _living(self, members: Mapping[str, Member], now: float) -> list[str]:
        """All but those that are gone. Watched by every node, so that a new master need not begin to."""
        living = []
        for node, member in sorted(members.items()):
            still = self._members.setdefault(node, Watch()).still_for(member.epoch, member.beat, now)
            if node == self._settings.me or (not member.taken and still < self._settings.takeover_after_s):
                living.append(node)
        for node in self._members.keys() - members.keys():
            del self._members[node]
        return living

    def _stand_for(self, seen: MasterRow, now: float) -> list[Command]:
        still = self._held_by.still_for(seen.epoch, seen.beat, now)
        mine = seen.holder == self._settings.me  # under an epoch of an earlier process, or one that has run out
        if mine or not seen.holder or still >= self._settings.lease_s:
            return [TakeLease(seen)]
        return []

    def _take_over(self, members: Mapping[str, Member], living: list[str]) -> list[Command]:
        commands: list[Command] = []
        for node, member in sorted(members.items()):
            if member.taken and member.heir in living:
                commands.append(Move(node, member.epoch))
            elif node not in living:
                commands.append(Take(node, member, heir_of(node, living)))
        return commands


def heir_of(node: str, living: list[str]) -> str:
    """The next living node in the order of names."""
    return min(living, key=lambda other: (other < node, other))
