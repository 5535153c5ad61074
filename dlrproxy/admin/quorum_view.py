"""What a node of a quorum shows of itself: the values of `view.NodeStatus.quorum`."""

from collections.abc import Mapping

import msgspec


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A node's lease on its part of custody, as the own server has it."""

    epoch: int
    taken: bool  # it is gone: its custody was given to `heir`
    heir: str = ""


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the own database server says."""

    primary: bool
    ready: bool
    state: str  # "Synced", ...
    size: int
    weight: int
    conf_id: int
    uuid: str


class LossStatus(msgspec.Struct, frozen=True, kw_only=True):
    of: str  # a node, or "site NAME"
    nodes: tuple[str, ...]
    survived: bool


class DifferenceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Of another node's settings from this one's."""

    node: str
    key: str
    here: str
    there: str


class QuorumStatus(msgspec.Struct, frozen=True, kw_only=True):
    role: str  # unreachable, no-quorum, joining, serving
    why: str
    epoch: int  # of the present term; 0: there is none
    serving: bool  # a term of service is there
    serves_for_s: float | None  # without another certified beat; None: it does not serve
    master: str  # the node that holds the lease, as far as this one knows; "": none
    is_master: bool  # this node, at this moment
    master_epoch: int
    site: str
    server: ClusterStatus | None  # None: it cannot be reached
    members: Mapping[str, MemberStatus]
    losses: tuple[LossStatus, ...]  # by the configured weights
    servers: int  # configured, arbitrators too
    weight: int  # of those together
    trouble: str = ""  # what the own database server does not do, and why, the last time that it was asked to
    apart: tuple[str, ...] = ()  # nodes that serve, and over another cluster
    differences: tuple[DifferenceStatus, ...] = ()
    journal_rows: int  # open messages on this node's disk that the database does not have yet
    # By how many seconds its clock is ahead of another node's (or, below 0, behind it), where they differ by a minute.
    clocks: Mapping[str, float] = {}
    inbox_rows: int = 0  # custody that others have given to this node and it has not taken; 1000: so many at least
    inbox_oldest_s: float = 0.0  # since this process has seen the first of them there
