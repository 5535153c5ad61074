"""What the HTTP API says of a node of an active-passive pair."""

from typing import Literal

import msgspec


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a database server said when it was last asked."""

    writable: bool  # read_only is off
    epoch: int  # of the row of the pair, as it stands there
    holder: str
    alone: str  # whether the holder may serve without a replica: no, witnessed, free
    position: str  # all that it has applied
    replicates: bool  # it is configured to replicate from another server
    receiving: bool = False
    applying: bool = False
    all_applied: bool = False  # of what it has received
    error: str = ""  # why replication does not run


class SemiSyncStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Of the node's own server, as a primary. Counts are since its start."""

    enabled: bool  # commits wait for the replica
    on: bool  # and it has not degraded
    replicas: int  # that acknowledge, or did when they were last heard of
    acknowledged: int  # commits
    unacknowledged: int
    degraded: int  # how often it was switched off, by itself or by anybody


class BehindStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How much of what the primary has written; None: not known."""

    transactions: int | None = None
    bytes: int | None = None  # of the primary's log


class PairStatus(msgspec.Struct, frozen=True, kw_only=True):
    role: Literal["standby", "catching-up", "active", "fenced", "failed"]
    why: str  # of the role
    refused: str  # why a promotion is not done; empty while it is being done
    epoch: int  # the highest that either server or the node knows: it counts promotions
    holder: str  # the node that was promoted last, as the own server knows; empty: not known
    serving: bool  # a term of service has begun: it listens and dials
    serves_for_s: float | None = None  # how long the active may go on without another acknowledgement; None: for ever
    safety: Literal["strict", "available"]
    manages_database: bool
    peer: str  # the other node's name
    own: ServerStatus | None  # None: the server cannot be reached
    other: ServerStatus | None
    own_out_of_reach: str = ""  # why `own` is None; empty before it has been asked
    other_out_of_reach: str = ""
    semi_sync: SemiSyncStatus | None = None  # of the own server
    # What the other server has not got: it is lost if the primary is lost now. And what it has not applied.
    not_received: BehindStatus | None = None  # None: no server replicates from the other one
    not_applied: BehindStatus | None = None
    witness_lends: bool | None = None  # it has granted the last request; None: there is none, or it was not asked yet
    journal_rows: int = 0  # open messages on this node's disk that the database does not have yet

    @property
    def degraded(self) -> bool:
        """It is active, and what it commits is nowhere else."""
        semi_sync = self.semi_sync
        protected = semi_sync is not None and semi_sync.enabled and semi_sync.on and semi_sync.replicas > 0
        return self.role == "active" and not protected

    @property
    def both_active(self) -> bool:
        """Both servers take writes and name their own node: two histories, to be merged."""
        own, other = self.own, self.other
        if own is None or other is None or self.role != "active":
            return False
        return other.writable and not other.replicates and other.holder == self.peer
