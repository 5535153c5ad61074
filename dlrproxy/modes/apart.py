"""Nodes that serve, and not over this node's cluster: there are two, where one was meant to be. Pure.

Two parts of a cluster can go on at a time only by a person's hand: a second one was begun, or both were told to go on
(`dlrproxy db bootstrap`, `pc.bootstrap`). No server of either knows of the other. Their nodes still have links, and a
node has links only while it serves; so one that is linked for long, and in all that time has not beaten here, beats
elsewhere. That it is so by name and epoch, and not by the cluster's uuid, finds two that have the same history, too.

Which of the two is the right one no node can tell. What may be done with one that is apart is this: it is given no
custody, which it would never find, and what nobody here knows is not called nobody's, for that one may know it.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from dlrproxy.modes.cluster import Member, QuorumSettings
from dlrproxy.modes.watch import Watch

_NO_ROW: Final = (0, 0)  # of a node that has never beaten here


class Apart:
    """As one node sees it. Times are seconds of one monotonic clock."""

    def __init__(self, settings: QuorumSettings) -> None:
        # Without a beat it serves for `fence_after_s` at most, and what is read here is not older than that, or this
        # node does not serve itself. The rest is for links that end late.
        self._after_s = settings.fence_after_s + settings.takeover_after_s
        self._watched: dict[str, Watch] = {}
        self._found: frozenset[str] = frozenset()

    def observe(self, linked: AbstractSet[str], members: Mapping[str, Member] | None, now: float) -> frozenset[str]:
        """Who is apart, of those that are `linked` now. `members` None: the own server does not say."""
        for node in self._watched.keys() - linked:
            del self._watched[node]
        if members is None:
            self._found &= linked
            return self._found
        found = set()
        for node in linked:
            member = members.get(node)
            seen = _NO_ROW if member is None else (member.epoch, member.beat)
            if self._watched.setdefault(node, Watch()).still_for(*seen, now) >= self._after_s:
                found.add(node)
        self._found = frozenset(found)
        return self._found
