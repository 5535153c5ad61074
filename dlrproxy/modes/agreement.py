"""What the nodes of a quorum are set to: which may not serve together, and what merely differs. Pure.

A node must have let go of everything before any other one takes over from it:

    its fence_after_s + RELEASE_S  is at most  RATE_MARGIN of the takeover_after_s of EVERY node

`check-config` sees to that within one file; here are the files of all. A node that comes to serve, and finds one there
already with which this does not hold in either direction, does not begin, and says why. Who serves goes on. Of two that
come at one moment the first in the order of names has its way: the other one waits twice as long to see whether it
lives. Whoever is gone is not asked; when it comes back it asks itself.

All else that differs puts no message at risk, and is said: two masters by different `lease_s` do nothing twice that may
not be done twice (`lease.py`), and the rest is what each node does with what it has.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen
from msgspec import UNSET

from dlrproxy.config import Config
from dlrproxy.config.database import Quorum
from dlrproxy.modes.cluster import Member, Rows, fits
from dlrproxy.modes.node_settings import NodeSettings
from dlrproxy.modes.watch import Watch

_PEERS: Final = "peers"


def settings_of(config: Config) -> NodeSettings:
    """Of this node."""
    quorum, nodes = config.quorum or Quorum(), config.node_names
    return NodeSettings(
        fence_after_s=quorum.fence_after_s,
        takeover_after_s=quorum.takeover_after_s,
        lease_s=quorum.lease_s,
        unmatched_for_s=quorum.unmatched_for_s,
        maybe_delivered=quorum.maybe_delivered,
        stand_in=dict(quorum.stand_in),
        weights={node: quorum.weight(node) for node in nodes},
        arbitrators=dict(quorum.arbitrators),
        sites=dict(quorum.sites),
        peers=tuple(sorted(nodes)),
    )


@frozen
class Difference:
    """From another node's settings."""

    node: str
    key: str
    here: str
    there: str


class Agreement:
    """Of one node with the others. Times are seconds of one monotonic clock."""

    def __init__(self, me: str, own: NodeSettings) -> None:
        self.own = own
        self.differences: tuple[Difference, ...] = ()  # as it was seen last
        self.objected = ""  # the last objection
        self._me = me
        self._watches: dict[str, Watch] = {}
        self._since: dict[Difference, float] = {}

    def observe(self, rows: Rows, now: float) -> None:
        """To be told of whatever is seen."""
        for node, member in rows.members.items():
            self._watches.setdefault(node, Watch()).still_for(member.epoch, member.beat, now)
        for node in self._watches.keys() - rows.members.keys():
            del self._watches[node]
        self.differences = tuple(self._compared(rows.members))
        self._since = {difference: self._since.get(difference, now) for difference in self.differences}

    def lasting(self, for_s: float, now: float) -> set[Difference]:
        """Those that have been there for so long: not what is over once every node has read its new configuration."""
        return {difference for difference, since in self._since.items() if now - since >= for_s}

    def told(self, rows: Rows) -> bool:
        """Whether the own row says what this node is set to."""
        own = rows.members.get(self._me)
        return own is not None and own.settings == self.own

    def objection(self, rows: Rows, now: float) -> str:
        """Why this node must not begin to serve; empty: it may."""
        self.objected = next(self._objections(rows, now), "")
        return self.objected

    def _objections(self, rows: Rows, now: float) -> Iterator[str]:
        for node, member in sorted(rows.members.items()):
            if node == self._me or member.taken or member.settings is None:
                continue
            if (why := _unsafe(self.own, node, member.settings)) and not self._is_gone(node, member, now):
                yield why

    def _is_gone(self, node: str, member: Member, now: float) -> bool:
        """Whether nobody serves under that name, though nobody has taken over from it yet."""
        settings = member.settings or NodeSettings()
        times = (self.own.takeover_after_s, settings.takeover_after_s)
        longest_s = max(each for each in times if each is not UNSET)
        patience = 1 if self._me < node else 2
        return self._watches[node].still_for(member.epoch, member.beat, now) >= patience * longest_s

    def _compared(self, members: Mapping[str, Member]) -> Iterator[Difference]:
        peers = self.own.peers or ()
        for node in sorted({*members, *peers} - {self._me}):
            member = members.get(node)
            if member is None:
                yield Difference(node, _PEERS, "among them", "has never served")
            elif node not in peers:
                yield Difference(node, _PEERS, "not among them", "in the database")
            if member is not None and not member.taken and member.settings is not None:
                yield from _between(self.own, node, member.settings)


def _unsafe(own: NodeSettings, node: str, other: NodeSettings) -> str:
    """Empty: both may serve."""
    if not _fit(own, other):
        return _misfit("", own.fence_after_s, f" of {node}", other.takeover_after_s)
    if not _fit(other, own):
        return _misfit(f" of {node}", other.fence_after_s, "", own.takeover_after_s)
    return ""


def _fit(one: NodeSettings, other: NodeSettings) -> bool:
    if one.fence_after_s is UNSET or other.takeover_after_s is UNSET:
        return True
    return fits(one.fence_after_s, other.takeover_after_s)


def _misfit(whose: str, fence_after_s: object, others: str, takeover_after_s: object) -> str:
    return (
        f"quorum.fence_after_s{whose or ' here'}, {_text(fence_after_s)}, does not fit "
        f"quorum.takeover_after_s{others or ' here'}, {_text(takeover_after_s)}: it could still serve when its custody "
        "is given away"
    )


def _between(own: NodeSettings, node: str, other: NodeSettings) -> Iterator[Difference]:
    for key in NodeSettings.__struct_fields__:
        here, there = getattr(own, key), getattr(other, key)
        if here is not UNSET and there is not UNSET and here != there:
            yield Difference(node, key, _text(here), _text(there))


def _text(value: object) -> str:
    match value:
        case float():
            return f"{value:g}"
        case Mapping():
            return " ".join(f"{name}={each}" for name, each in sorted(value.items())) or "none"
        case tuple():
            return " ".join(map(str, value))
        case _:
            return str(value)
