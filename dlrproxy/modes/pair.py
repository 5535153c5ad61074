"""What an active-passive pair is told, how it is set, and what it wants done: the values of `replication.py`."""

from enum import StrEnum

import attrs


class Role(StrEnum):
    STANDBY = "standby"
    CATCHING_UP = "catching-up"
    ACTIVE = "active"
    FENCED = "fenced"
    FAILED = "failed"


class Safety(StrEnum):
    STRICT = "strict"
    AVAILABLE = "available"


class Alone(StrEnum):
    """Whether the holder of the epoch may serve without a replica."""

    NO = "no"
    WITNESSED = "witnessed"  # while the witness lends itself
    FREE = "free"

    @classmethod
    def _missing_(cls, value: object) -> "Alone":
        """Of a later release: what that permits is not known here."""
        return cls.NO


@attrs.frozen(kw_only=True)
class PairSettings:
    """Times in seconds."""

    me: str  # the node's name
    safety: Safety = Safety.STRICT
    fence_after_s: float = 6.0
    promote_after_s: float = 9.0
    manage_database: bool = False  # False: another tool promotes, and this node follows
    witness: bool = False  # one is configured

    @property
    def strict(self) -> bool:
        return self.safety is Safety.STRICT


@attrs.frozen(kw_only=True)
class Replica:
    """What a server says of the replication that it is configured for."""

    receiving: bool  # the thread that fetches runs
    applying: bool  # the thread that applies runs
    all_applied: bool  # nothing that it has received is unapplied
    complete: bool = True  # it has not thrown away what it had received, or has fetched that again
    error: str = ""


@attrs.frozen(kw_only=True)
class Server:
    """What a database server says; the row of the pair as it stands there included."""

    writable: bool  # read_only is off
    epoch: int  # counts promotions
    holder: str  # the node that was promoted last
    beat: int  # counts up while the holder is active
    alone: Alone
    position: str  # all that it has applied (a GTID position)
    replica: Replica | None = None  # None: it replicates from nobody
    has_replica: bool = False  # a semi-synchronous replica that has caught up is connected


@attrs.frozen(kw_only=True)
class Observation:
    """What can be seen at one moment; the servers' answers to questions that were sent after the last one."""

    own: Server | None  # None: it cannot be reached
    peer: Server | None


# What is to be done. Each may be done again, and may be interrupted. One that fails ends the list it came in.
# Every change of the row counts the beat up, so that whoever sees the row sees that its holder was there.


@attrs.frozen
class StopReceiving:
    """Fetch no more from the peer; go on applying."""


@attrs.frozen
class StartReceiving:
    """Fetch from the peer again."""


@attrs.frozen
class BecomePrimary:
    """Stop applying, write the row, drop the replication's configuration, and only then accept writes.

    Once the row is written nobody else can serve: it is gone through with, asked for or not.
    """

    epoch: int
    alone: Alone


@attrs.frozen
class TakeOver:
    """Another tool has made the own server the primary: write the row."""

    epoch: int
    alone: Alone


@attrs.frozen
class AcceptWrites:
    """Of the server that was primary under the same epoch, and was made read-only."""


@attrs.frozen
class MakeReadOnly:
    """Write to the row that its holder may not serve alone, and accept no more writes."""


@attrs.frozen
class GoAlone:
    """Wait for no replica any more, and write `alone` to the row."""

    alone: Alone


@attrs.frozen
class GoPaired:
    """Write to the row that its holder may not serve alone, and wait for the replica from now on."""


@attrs.frozen
class Serve:
    """Open the store, hold the binds, listen."""

    epoch: int


@attrs.frozen
class Release:
    """Unbind, and stop listening. Custody stays where it is."""

    why: str


Command = (
    StopReceiving
    | StartReceiving
    | BecomePrimary
    | TakeOver
    | AcceptWrites
    | MakeReadOnly
    | GoAlone
    | GoPaired
    | Serve
    | Release
)
