"""Which node of an active-passive pair serves: a pure machine that is told what both database servers say.

    role          binds, listener   own database
    STANDBY       no                a read-only replica of the peer's; or idle, a replica of nobody's
    CATCHING_UP   no                being promoted: receives no more, applies what it has received
    ACTIVE        yes               the primary
    FENCED        no                the primary, or was: whether it may be used is not known
    FAILED        no                cannot be reached, or replication has failed

The next step is always decided from what the servers say now, never from the memory of having done the last one: what
is interrupted anywhere goes on when it is asked for again. A machine remembers times only, and a new one errs to the
safe side.

**Two nodes and a cut link** (`Safety.STRICT`). The active writes beats through semi-synchronous replication that never
degrades: such a write returns only when the replica has received it. A beat that returned, counted from when it was
*sent*, lets the active go on for `fence_after_s`. The standby promotes no sooner than `promote_after_s`, which is
longer, after it last saw the beat move, and it looks again once it receives nothing more. What it saw move was sent
earlier; so when it promotes the old active has released its binds. Only intervals are compared: clocks need not agree.

**Alone.** A node that has just been promoted has no replica and serves all the same: its epoch is the higher one, and
the other can neither get a beat acknowledged nor promote without a person's word. The row of the pair says that its
holder may serve alone, for restarts and for a standby: that refuses to promote while the row that it has says so, since
it may lack rows. A replica that has caught up ends it. With a witness, being alone needs its lease as well, renewed as
beats are: it lends itself to one node at a time.

`Safety.AVAILABLE` fences nobody: in a partition both may be active, and their rows are merged after it.
"""

from typing import Final

from dlrproxy.modes.pair import (
    AcceptWrites,
    Alone,
    BecomePrimary,
    Command,
    GoAlone,
    GoPaired,
    MakeReadOnly,
    Observation,
    PairSettings,
    Release,
    Role,
    Serve,
    Server,
    StartReceiving,
    StopReceiving,
    TakeOver,
)

NOT_ASKED: Final = "nobody has asked for it"
_IS_REPLICA: Final = "its database server is a replica"
_NEVER: Final = float("-inf")


class Pair:
    """See the module's docstring. Times are seconds of one monotonic clock."""

    def __init__(self, settings: PairSettings, now: float) -> None:
        self._settings = settings
        self.role = Role.STANDBY
        self.why = "it has just started"  # of the role, for people
        self.refused = NOT_ASKED  # why a promotion is not done; "" while it is being done
        self.epoch = 0  # served under, the last time
        self.serve_until = _NEVER  # after this nothing may be sent or answered, however late a process wakes up
        self._seen_at = _NEVER  # when the own server was last seen while active
        self._acknowledged_at = _NEVER  # when the last beat that returned was sent
        self._lent_at = _NEVER  # when the last request that the witness granted was sent
        self.wants_witness = False  # its word is needed now, or may be soon
        self._beat = (0, 0)  # the newest epoch and beat seen on either server
        self._moved_at = now  # when that was first seen; nobody knows what happened before the start
        self._wanted = False
        self._forced = False
        self._handing_over = False
        self._pairing = (
            False  # the row that ends being alone may be written, and the replica may have it before it shows
        )

    # What it is told besides observations

    def promote(self, *, force: bool = False) -> None:
        """Take over as soon as it is safe; with `force` at once, whatever the peer may be doing."""
        self._handing_over = False
        self._wanted = True
        self._forced = self._forced or force

    def demote(self) -> None:
        """Hand over: release, and make the own server read-only, so that the peer may promote without waiting."""
        self._handing_over = self.role in {Role.ACTIVE, Role.FENCED}
        self._cancel_request()

    def acknowledged(self, sent_at: float) -> None:
        """A beat that was sent then has returned, through semi-synchronous replication: the replica has received it."""
        self._acknowledged_at = max(self._acknowledged_at, sent_at)

    def lent(self, sent_at: float) -> None:
        """The witness has granted a request that was sent then, for longer than `fence_after_s`."""
        self._lent_at = max(self._lent_at, sent_at)

    def gives_back(self) -> None:
        """The witness is about to be told that it may lend itself to the other node."""
        self._lent_at = _NEVER

    @property
    def handing_over(self) -> bool:
        """It was asked to, and its server still takes writes, as far as is known."""
        return self._handing_over

    # Decisions

    def observe(self, seen: Observation, now: float) -> list[Command]:
        """To be called every second or so, and at `serve_until`."""
        self._watch(seen, now)
        own = seen.own
        self.wants_witness = self.role is Role.ACTIVE
        if own is None:
            return self._without_database(now)
        if own.alone is Alone.NO:
            self._pairing = False
        if self.role is Role.ACTIVE:
            return self._active(seen, own, now)
        if own.writable and own.replica is None:
            return self._primary(seen, own, now)
        return self._passive(seen, own, now)

    def _watch(self, seen: Observation, now: float) -> None:
        for server in (seen.own, seen.peer):
            if server is not None and (server.epoch, server.beat) > self._beat:
                self._beat = server.epoch, server.beat
                self._moved_at = now

    def _without_database(self, now: float) -> list[Command]:
        why = "its database server cannot be reached"
        if self.role is not Role.ACTIVE:
            self._become(Role.FAILED, why)
            return []
        until = min(self.serve_until, self._seen_at + self._settings.fence_after_s)
        return self._fence(why) if now >= until else []

    def _alone(self, own: Server) -> Alone:
        """As the replica may know it: it has a row before the commit of that returns, or fails here."""
        return Alone.NO if self._pairing else own.alone

    def _vouched(self, alone: Alone, now: float) -> bool:
        """The peer cannot be active now, nor soon."""
        return now < self._vouched_until(alone)

    def _vouched_until(self, alone: Alone) -> float:
        settings = self._settings
        if not settings.strict or alone is Alone.FREE:
            return float("inf")
        sent_at = self._lent_at if alone is Alone.WITNESSED else self._acknowledged_at
        return sent_at + settings.fence_after_s

    # Active

    def _active(self, seen: Observation, own: Server, now: float) -> list[Command]:
        self._seen_at = now
        if (higher := _epoch_elsewhere(seen)) > self.epoch:
            return [*self._fence(f"the peer serves under epoch {higher}"), *self._read_only(own)]
        if self._handing_over:
            return [*self._fence("it was asked to hand over"), *self._read_only(own)]
        if not own.writable or own.replica is not None:
            return self._fence("its database server is no longer the primary")
        if self._settings.strict and own.alone is not Alone.NO and own.has_replica:
            if not self._pairing:
                self.acknowledged(now)  # it is active by right until now, and the row that says so is seen later
                self._pairing = True
            self.serve_until = self._vouched_until(Alone.NO)  # as that row will have it, whenever it looks again
            return [GoPaired()]
        alone_now = self._alone(own)
        self.serve_until = self._vouched_until(alone_now)
        if self._vouched(alone_now, now):
            self._cancel_request()  # there is nothing to be done for it; another day it would be a surprise
            return []
        if (alone := self._may_go_alone(own, now)) is not None:
            return [GoAlone(alone)]
        return self._fence(self._unvouched(alone_now))

    def _may_go_alone(self, own: Server, now: float) -> Alone | None:
        if self._forced:
            self._pairing = False
            return Alone.FREE
        if self._alone(own) is Alone.NO and self._vouched(Alone.WITNESSED, now):
            return Alone.WITNESSED
        return None

    def _unvouched(self, alone: Alone) -> str:
        who = "the witness" if alone is Alone.WITNESSED else "its replica"
        return f"{who} has acknowledged nothing for {self._settings.fence_after_s:g} s"

    def _fence(self, why: str) -> list[Command]:
        self._become(Role.FENCED, why)
        return [Release(why)]

    def _read_only(self, own: Server) -> list[Command]:
        return [MakeReadOnly()] if own.writable and self._settings.manage_database else []

    # The own server is a primary, and this node does not serve

    def _primary(self, seen: Observation, own: Server, now: float) -> list[Command]:
        self.refused = NOT_ASKED
        if (higher := _epoch_elsewhere(seen)) > own.epoch:
            self._become(Role.FENCED, f"the peer serves under epoch {higher}; see `dlrproxy rejoin`")
            return self._read_only(own)
        if self._handing_over:
            self._become(Role.FENCED, "it was asked to hand over")
            return self._read_only(own)
        if own.holder != self._settings.me:
            return self._found_promoted(own)
        self.wants_witness = True
        if self._vouched(self._alone(own), now):
            return self._serve(own, now)
        self._become(Role.FENCED, self._unvouched(self._alone(own)))
        if (alone := self._may_go_alone(own, now)) is not None:
            return [GoAlone(alone)]
        return [GoPaired()] if self._pairing and own.has_replica else []

    def _found_promoted(self, own: Server) -> list[Command]:
        """By another tool, or by a person, or it is new: nobody else than this node can hold it."""
        if self._settings.manage_database and own.epoch and not self._forced:
            self._become(Role.FENCED, f"its database server takes writes, and {own.holder} holds it; see `--force`")
            return []
        self._become(Role.CATCHING_UP, "its database server has become the primary")
        return [TakeOver(own.epoch + 1, self._after_promotion())]

    def _after_promotion(self) -> Alone:
        return Alone.WITNESSED if self._settings.witness and not self._forced else Alone.FREE

    def _serve(self, own: Server, now: float) -> list[Command]:
        self._cancel_request()
        self.epoch = own.epoch
        self._seen_at = now
        self.serve_until = self._vouched_until(self._alone(own))
        self._become(Role.ACTIVE, "its database server is the primary")
        return [Serve(own.epoch)]

    # The own server is read-only, or a replica

    def _passive(self, seen: Observation, own: Server, now: float) -> list[Command]:
        self._handing_over = False
        if self._begun(seen, own):
            self.refused = ""
            self._become(Role.CATCHING_UP, "its promotion was interrupted, and goes on")
            return [BecomePrimary(own.epoch, own.alone)]
        self.refused = self._objection(seen, own, now) if self._wanted else NOT_ASKED
        if self.refused:
            return self._stand_by(own)
        return self._take_over(seen, own, now)

    def _begun(self, seen: Observation, own: Server) -> bool:
        """The row of a promotion is written. (Who hands over writes that it may not serve alone.)"""
        return (
            self._settings.manage_database
            and own.holder == self._settings.me
            and own.alone is not Alone.NO
            and own.epoch > _epoch_elsewhere(seen)
        )

    def _take_over(self, seen: Observation, own: Server, now: float) -> list[Command]:
        replica = own.replica
        if replica is None and own.holder == self._settings.me and not self._forced:
            self._become(Role.CATCHING_UP, "it takes back what it has handed over")
            return [AcceptWrites()]  # the peer may be promoting: whether it may serve is seen then
        self.wants_witness = True
        self.refused = self._too_early(seen, own, now)
        if self.refused and self.role is not Role.CATCHING_UP:
            return self._stand_by(own)
        self._become(Role.CATCHING_UP, "it is being promoted")
        if replica is not None and replica.receiving:
            return [StopReceiving()]
        if replica is not None and not replica.all_applied:
            return []  # what it has received and not applied would be thrown away
        if self.refused:
            return []  # a last beat has come in before it stopped to receive
        return [BecomePrimary(max(own.epoch, _epoch_elsewhere(seen)) + 1, self._after_promotion())]

    def _stand_by(self, own: Server) -> list[Command]:
        replica = own.replica
        if replica is None:
            self._become(Role.STANDBY, "its database server replicates from nobody; see `dlrproxy rejoin`")
            return []
        runs = replica.receiving and replica.applying
        if replica.error and not runs:
            self._become(Role.FAILED, f"replication has failed: {replica.error}")
            return []
        # An error of a replica that runs: its source is away, and that is what a standby is for.
        why = f"its database server is a replica; it has met {replica.error}" if replica.error else _IS_REPLICA
        self._become(Role.STANDBY, why)
        return [StartReceiving()] if self._settings.manage_database and not replica.receiving else []

    def _objection(self, seen: Observation, own: Server, now: float) -> str:
        """Why it must not take over, or "": nothing but time speaks against it."""
        replica, peer, settings = own.replica, seen.peer, self._settings
        if not settings.manage_database:
            return "another tool promotes the database server (manage_database = false)"
        if replica is not None and not replica.applying and not replica.all_applied:
            return f"what it has received cannot be applied: {replica.error or 'the thread that applies is stopped'}"
        if self._forced:
            return ""
        if _epoch_elsewhere(seen) > own.epoch:
            return "the peer was promoted after this node; see `dlrproxy rejoin`"
        if replica is None and own.holder != self._settings.me:
            return "its database server replicates from nobody: what it has may be old"
        if peer is not None and peer.writable and peer.replica is None and self._may_serve(peer, now):
            return "the peer's database server takes writes: it is active, or may be at once"
        if replica is not None and not replica.complete and settings.strict and not _handed_over(seen, own):
            return (
                "its database server was restarted, and threw away what it had received and not applied; the peer's "
                "server has that; `--force` takes over without it"
            )
        if own.alone is not Alone.NO and settings.strict:
            return "the active may have gone on without this replica; `--force` takes over with what is here"
        return ""

    def _may_serve(self, peer: Server, now: float) -> bool:
        """It has served until a moment ago; or it may begin without anybody's acknowledgement."""
        return peer.alone is not Alone.NO or self._silent_for(now) < self._settings.promote_after_s

    def _silent_for(self, now: float) -> float:
        """Seconds since the active was last heard of, on either server."""
        return now - self._moved_at

    def _too_early(self, seen: Observation, own: Server, now: float) -> str:
        """Why the peer may still be active, or "": it is not."""
        settings = self._settings
        if self._forced or not settings.strict or _handed_over(seen, own):
            return ""
        heard = self._silent_for(now)
        left = settings.promote_after_s - heard
        if left > 0:
            return f"the active was heard of {heard:.1f} s ago, and may serve for {left:.1f} s more"
        if settings.witness and not self._vouched(Alone.WITNESSED, now):
            return "the witness does not lend itself to this node"
        return ""

    # Bookkeeping

    def _cancel_request(self) -> None:
        self._wanted = False
        self._forced = False

    def _become(self, role: Role, why: str) -> None:
        self.role = role
        self.why = why


def _epoch_elsewhere(seen: Observation) -> int:
    return 0 if seen.peer is None else seen.peer.epoch


def _handed_over(seen: Observation, own: Server) -> bool:
    """The peer has made its server read-only, and this one has everything that it has."""
    peer = seen.peer
    return peer is not None and not peer.writable and peer.epoch == own.epoch and peer.position == own.position
