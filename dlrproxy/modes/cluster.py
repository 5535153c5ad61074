"""What a node of a quorum is told, how it is set, and what it wants done: the values of `quorum.py` and `lease.py`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import attrs

from dlrproxy.modes.node_settings import NodeSettings

# The part of a lease that its holder uses: two monotonic clocks may run at different speeds.
RATE_MARGIN: Final = 0.9


# So long before its time runs out a node begins nothing more, and answers gateways for what operators have accepted.
SETTLE_S: Final = 1.0


# The longest that a node takes to let go of its binds.
RELEASE_S: Final = 2.0


def fits(fence_after_s: float, takeover_after_s: float) -> bool:
    """Whether a node that lets go after the first time has done so before another takes over after the second."""
    return RATE_MARGIN * takeover_after_s >= fence_after_s + RELEASE_S


class Role(StrEnum):
    UNREACHABLE = "unreachable"
    NO_QUORUM = "no-quorum"
    JOINING = "joining"
    SERVING = "serving"


@attrs.frozen(kw_only=True)
class QuorumSettings:
    """Times in seconds. `fence_after_s` is less than RATE_MARGIN of `takeover_after_s`."""

    me: str  # the node's name
    home: bytes  # the id of its data directory, which one process at a time can use
    fence_after_s: float = 10.0
    takeover_after_s: float = 15.0
    lease_s: float = 6.0


@attrs.frozen(kw_only=True)
class Server:
    """What the own database server says of its cluster."""

    primary: bool  # it belongs to the part that has the quorum, as far as it knows
    ready: bool  # it takes statements
    certifies: bool = True  # wsrep_on: else what it writes is its own, and nobody else has it
    state: str  # "Synced", "Donor/Desynced", "Joined", "Joiner", ...
    size: int = 0  # servers in its part of the cluster
    weight: int = 0  # of those together
    conf_id: int = 0  # counts changes of membership
    uuid: str = ""  # of the cluster's history


@attrs.frozen(kw_only=True)
class Member:
    """A node's row: its lease on its own part of custody."""

    epoch: int  # counts terms of service, and takeovers
    beat: int  # counts up while it is there
    home: bytes = b""
    taken: bool = False  # its rows are given to `heir`, until it comes back
    heir: str = ""
    moved: int = 0  # counts up whenever rows have been given to the heir
    settings: NodeSettings | None = None  # what it is set to, if it says so


@attrs.frozen(kw_only=True)
class MasterRow:
    """The lease on what is to be done once. Its holder counts `beat` up."""

    epoch: int = 0
    holder: str = ""
    beat: int = 0


@attrs.frozen(kw_only=True)
class Rows:
    members: Mapping[str, Member]
    master: MasterRow


@attrs.frozen(kw_only=True)
class Observation:
    """What can be seen at one moment: the answers to questions that were sent after the last one."""

    server: Server | None  # None: it cannot be reached
    rows: Rows | None = None  # None: it does not say
    inbox: tuple[bytes, ...] | None = None  # names of rows in the node's own inbox, some of many; None: likewise
    trouble: str = ""  # why not, for people
    misfit: str = ""  # why this release cannot work with the schema there, and what to do; empty: it can


# What is to be done. Each may fail, and is then decided anew from what is seen. All but Serve, Release, Adopt and
# Publish are statements that do nothing when the row is no longer as it was seen.


@attrs.frozen
class Claim:
    """Begin a new term: count the epoch of the own row up, which ends whatever was done under the one before."""

    seen: Member | None  # None: there is no row yet


@attrs.frozen
class Publish:
    """Tell the others what this node is set to."""

    settings: NodeSettings


@attrs.frozen
class Serve:
    """Open the store, hold the binds, listen."""

    epoch: int


@attrs.frozen
class Release:
    """Answer gateways for what the operators have accepted, unbind, stop listening. Custody stays where it is."""

    why: str


@attrs.frozen
class Adopt:
    """The own part of custody has got rows of a node that is gone."""


@attrs.frozen
class TakeLease:
    """Become master."""

    seen: MasterRow


@attrs.frozen
class Take:
    """Fence a node that is gone: whatever it still writes under `seen.epoch` is refused. Its heir is `heir`."""

    node: str
    seen: Member
    heir: str


@attrs.frozen
class Move:
    """Give the rows of a taken node to its heir, as long as it has not come back."""

    node: str
    epoch: int


Command = Claim | Publish | Serve | Release | Adopt | TakeLease | Take | Move
