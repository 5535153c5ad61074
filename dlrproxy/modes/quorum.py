"""When a node of a quorum serves: a pure machine that is told what its database server says, and which beats returned.

    role          binds, listeners   own database server
    UNREACHABLE   no                 gives no answer
    NO_QUORUM     no                 belongs to half of the cluster or less, or nothing that it writes is certified
    JOINING       no                 in the quorum, but not synced yet, or the node has not claimed its part of custody
    SERVING       yes                in the quorum, and the node's last beat is not older than `fence_after_s`

Several nodes serve at once. What must never be shared is a node's part of custody: the node holds it by a lease
(`lease.py` says why that is safe), which begins with a claim and is kept by beats: writes of the node's own row that
the cluster has certified. What a server says of itself is a hint: one that was stopped and goes on calls itself
Primary for half a second, and a process that was stopped remembers what it has heard. So nobody serves on a word,
only on a beat that returned, counted from when it was *sent*; after any gap longer than `fence_after_s` a new one
comes first. While a cluster regroups, writes wait, for 1.3 to 6 s as it is set: less than `fence_after_s`, so nobody
unbinds.

The claim is causal: its certification comes after everything that was certified before, and its commit after theirs
at this server. What the store reads then is not stale, and rows that were given away are gone.

Nor does anybody serve from a schema that does not fit its release: the node lets go, claims nothing, keeps looking, and
serves once the schema fits, or the node itself is upgraded.

What nodes must be set alike in they tell each other, each before it claims; who does not fit those that are there
(`agreement.py`) does not claim, or does not use its claim, which is ordered after theirs if it is the later one.

A server that gives its state to another one ("Donor/Desynced") may go on, as long as beats return; nobody begins to
serve on one that is not "Synced".
"""

from typing import Final

from dlrproxy.modes.agreement import Agreement
from dlrproxy.modes.cluster import (
    SETTLE_S,
    Adopt,
    Claim,
    Command,
    Member,
    Observation,
    Publish,
    QuorumSettings,
    Release,
    Role,
    Rows,
    Serve,
    Server,
)
from dlrproxy.modes.watch import Watch

SYNCED: Final = "Synced"
_NEVER: Final = float("-inf")


class Quorum:
    """See the module's docstring. Times are seconds of one monotonic clock."""

    def __init__(self, settings: QuorumSettings, agreement: Agreement | None = None) -> None:
        """`agreement` with the settings of the other nodes; without one nothing is told and nothing compared."""
        self._settings = settings
        self.agreement = agreement
        self.role = Role.JOINING
        self.why = "it has just started"  # of the role, for people
        self.epoch = 0  # of the present term, claimed or served; 0: there is none
        # After this nothing may be sent or answered in the present or the last term, however late a process wakes up.
        self.serve_until = _NEVER
        self._over = 0  # epochs up to this one are done with
        self._refused = 0  # the epoch of the last term that was refused, until it claims again
        self.ended = ""  # why the last term is over
        self._own_row = Watch()
        self._inherited: frozenset[tuple[str, int, int]] = frozenset()

    # What it is told besides observations

    def vouched(self, epoch: int, sent_at: float) -> None:
        """A claim that gave `epoch`, or a beat under it, has been certified; it was sent then."""
        if epoch <= self._over:
            return
        if epoch > self.epoch:
            self.epoch, self.serve_until = epoch, _NEVER
        if epoch == self.epoch:
            self.serve_until = max(self.serve_until, sent_at + self._settings.fence_after_s)

    def refused(self, epoch: int) -> None:
        """A write under `epoch` has found another epoch in the row: the term is over, whatever else is seen."""
        if epoch == self.epoch:
            self._refused = epoch
        self._end(epoch, "another node has taken over from it")
        if not self.epoch:
            self.serve_until = _NEVER

    def ran_out(self, epoch: int) -> None:
        """Its service is ended, from `settle_from` on: the term is over, even if a beat returns yet."""
        self._end(epoch, self._out_of_time())

    def _end(self, epoch: int, why: str) -> None:
        if epoch == self.epoch:
            self._end_term()
            self.ended = why

    @property
    def settle_from(self) -> float:
        """From then on the term is to be ended."""
        return self.serve_until - SETTLE_S

    def may_act(self, epoch: int, now: float) -> bool:
        """Whether the term under `epoch` may send and answer at this moment."""
        return epoch == self.epoch and now < self.serve_until

    # Decisions

    def observe(self, seen: Observation, now: float) -> list[Command]:
        """To be called every second or so, and at `serve_until`."""
        if self.agreement is not None and seen.rows is not None:
            self.agreement.observe(seen.rows, now)
        if self.role is Role.SERVING:
            return self._serving(seen, now)
        if (out := _out_of(seen.server)) is not None:
            self._become(*out)
            self._end_term()  # a claim that was not used
            return []
        return self._join(seen, now)

    def _serving(self, seen: Observation, now: float) -> list[Command]:
        server = seen.server
        if not self.epoch:
            return self._stop(Role.JOINING, self.ended)
        if server is not None and (out := _out_of(server)) is not None:
            return self._stop(*out)
        if now >= self.settle_from:
            role = Role.UNREACHABLE if server is None else Role.NO_QUORUM
            return self._stop(role, self._out_of_time())
        if seen.misfit:
            return self._stop(Role.JOINING, seen.misfit)
        return [] if seen.rows is None else [*self._adopt(seen.rows), *self._publish(seen.rows)]

    def _out_of_time(self) -> str:
        return f"nothing that it wrote was certified for {self._settings.fence_after_s:g} s"

    def _stop(self, role: Role, why: str) -> list[Command]:
        self._become(role, why)
        self._end_term()
        self.ended = why
        return [Release(why)]

    def _end_term(self) -> None:
        """By its lease it may go on to answer until `serve_until`, but for one that was refused."""
        self._over = max(self._over, self.epoch)
        self.epoch = 0

    # To begin

    def _join(self, seen: Observation, now: float) -> list[Command]:
        server, rows = seen.server, seen.rows
        if seen.misfit:
            self._become(Role.JOINING, seen.misfit)
            self._end_term()
            return []
        if server is None or server.state != SYNCED:
            self._become(Role.JOINING, f"its database server is {server.state if server else 'silent'}")
            return []
        if rows is None:
            self._become(Role.JOINING, "its database server does not say which node holds what")
            return []
        if self.agreement is not None and (why := self.agreement.objection(rows, now)):
            self._become(Role.JOINING, why)
            self._end_term()
            # Of a node that has never claimed nobody reads it.
            return self._publish(rows) if self._settings.me in rows.members else []
        if self.epoch and self.may_act(self.epoch, now):
            self._become(Role.SERVING, "its database server is in the quorum, and has certified its claim")
            self._inherited = self._moved_here(rows)
            return [Serve(self.epoch)]
        self._end_term()
        return self._claim(rows, now)

    def _publish(self, rows: Rows) -> list[Command]:
        """Unless it stands there."""
        return [] if self.agreement is None or self.agreement.told(rows) else [Publish(self.agreement.own)]

    def _claim(self, rows: Rows, now: float) -> list[Command]:
        """Who had it before from the same data directory is dead, for that is locked; and who was fenced is over."""
        own = rows.members.get(self._settings.me)
        if own is not None and (rival := self._rival(own)):
            still = self._own_row.still_for(own.epoch, own.beat, now)
            if still < self._settings.takeover_after_s:
                self._become(Role.JOINING, rival)
                return []
        self._refused = 0
        self._become(Role.JOINING, "it claims its part of custody")
        return [*self._publish(rows), Claim(own)]

    def _rival(self, own: Member) -> str:
        """Who else may have its part under its name; empty: nobody. Two would take it from each other without end."""
        if own.taken:
            return ""
        if own.home != self._settings.home:
            return "its name was used on another data directory, and may still be"
        if 0 < self._refused < own.epoch:
            return "another process has claimed its part, from a copy of its data directory"
        return ""

    # While serving

    def _adopt(self, rows: Rows) -> list[Command]:
        before, self._inherited = self._inherited, self._moved_here(rows)
        return [Adopt()] if self._inherited - before else []

    def _moved_here(self, rows: Rows) -> frozenset[tuple[str, int, int]]:
        return frozenset(
            (node, member.epoch, member.moved)
            for node, member in rows.members.items()
            if member.heir == self._settings.me  # nobody's, but of one that is taken
        )

    def _become(self, role: Role, why: str) -> None:
        self.role = role
        self.why = why


def _out_of(server: Server | None) -> tuple[Role, str] | None:
    """Out of the quorum, by the server's own word: that much of it is believed."""
    if server is None:
        return Role.UNREACHABLE, "its database server cannot be reached"
    if not server.primary:
        return Role.NO_QUORUM, "its database server is with half of the cluster or less"
    if not server.ready:
        return Role.NO_QUORUM, "its database server takes no statements"
    if not server.certifies:
        return Role.NO_QUORUM, "its database server keeps what it is told to itself: wsrep_on is OFF"
    return None
