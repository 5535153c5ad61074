"""Which nodes can be reached, told from what their links let us hear: a pure machine that is given the time.

    link     silent for                          state
    up       less than suspect_after_s           alive     the only state in which a node is reachable
    up       suspect_after_s up to dead_after_s  suspect   envelopes walk round it; the link stays
    down     less than dead_after_s              suspect
    either   dead_after_s or more, or never      dead      the runner closes a link that is still open (half-open TCP)

State changes only in `tick`, which reports every change once. The runner ticks several times within `suspect_after_s`
and after each link that comes up or goes down. Two ticks that lie further apart than `suspect_after_s` mean that this
process stood still (stopped, swapped out, its machine suspended): nobody could be heard meanwhile, so nobody is blamed.
"""

from collections.abc import Iterable
from enum import Enum

import attrs


class State(Enum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


@attrs.frozen
class Transition:
    """A node's state changed; an event for the log, and what the runner acts on."""

    node: str
    old: State
    new: State


@attrs.define
class _Member:
    linked: bool = False
    heard_at: float | None = None
    state: State = State.DEAD


class Membership:
    """The other nodes of the ring and their states. Times are seconds of any monotonic clock.

    What is told about a node that is not in the table is ignored: a reload may have removed it a moment ago.
    """

    def __init__(self, nodes: Iterable[str], *, suspect_after_s: float, dead_after_s: float) -> None:
        if not 0 < suspect_after_s <= dead_after_s:
            raise ValueError(f"suspect_after_s {suspect_after_s} is not between 0 and dead_after_s {dead_after_s}")
        self._suspect_after_s = suspect_after_s
        self._dead_after_s = dead_after_s
        self._members = {node: _Member() for node in nodes}
        self._alive: frozenset[str] = frozenset()
        self._ticked_at: float | None = None

    def set_nodes(self, nodes: Iterable[str]) -> None:
        """Take a new table: nodes that stay keep their state, new ones are dead until their link is up."""
        self._members = {node: self._members.get(node) or _Member() for node in nodes}
        self._alive = self._alive & self._members.keys()

    def linked(self, node: str, now: float) -> None:
        """An authenticated link to `node` is up; that counts as hearing it."""
        if member := self._members.get(node):
            member.linked = True
            member.heard_at = now

    def unlinked(self, node: str, now: float) -> None:
        """The link went down, at `now`: what was heard until then keeps the node from being dead for a while."""
        member = self._members.get(node)
        if member and member.linked:
            member.linked = False
            member.heard_at = min(now, member.heard_at) if member.heard_at is not None else now

    def heard(self, node: str, now: float) -> None:
        """Something came from `node`, whatever it was."""
        member = self._members.get(node)
        if member and member.linked:
            member.heard_at = now

    def tick(self, now: float) -> list[Transition]:
        """Bring every state up to date, and return what changed since the last tick, in table order."""
        self._forgive_own_pause(now)
        changes = []
        for node, member in self._members.items():
            state = self._judge(member, now)
            if state is not member.state:
                changes.append(Transition(node, member.state, state))
                member.state = state
        if changes:
            self._alive = frozenset(node for node, member in self._members.items() if member.state is State.ALIVE)
        return changes

    def alive(self) -> frozenset[str]:
        """The reachable nodes as of the last tick."""
        return self._alive

    def state(self, node: str) -> State:
        """The node's state as of the last tick. Raises KeyError for a node that is not in the table."""
        return self._members[node].state

    def silent_s(self, node: str, now: float) -> float | None:
        """How long nothing has been heard of the node; None when nothing ever was."""
        heard_at = self._members[node].heard_at
        return None if heard_at is None else max(0.0, now - heard_at)

    def _forgive_own_pause(self, now: float) -> None:
        pause = now - self._ticked_at if self._ticked_at is not None else 0.0
        self._ticked_at = now
        if pause <= self._suspect_after_s:
            return
        for member in self._members.values():
            if member.heard_at is not None:
                member.heard_at = min(now, member.heard_at + pause)

    def _judge(self, member: _Member, now: float) -> State:
        if member.heard_at is None or now - member.heard_at >= self._dead_after_s:
            return State.DEAD
        if member.linked and now - member.heard_at < self._suspect_after_s:
            return State.ALIVE
        return State.SUSPECT
