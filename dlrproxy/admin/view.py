"""What the HTTP API asks of the node that it runs in: a Protocol, and the values that it gives.

The values are the JSON of the API as they stand. Times are seconds on the node's clock, which is close to the wall
clock; durations are seconds. Everything that is synchronous costs no disk and no wait.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.admin.quorum_view import QuorumStatus
from dlrproxy.store.port import Lookup, OpenMessage
from ring.peer_status import PeerStatus
from ring.rows import CustodyRow, ParkedRow

Drain = Literal["custody", "stop"]
"""How a node is taken out of service.

custody   take no MT and no reports from the operators, deliver and hand over what is in custody; stay up
stop      end gracefully within node.drain_s, as on SIGTERM; what is left in custody waits on disk for the next start
"""


class BindStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One bind that is to be up at an operator, whether it is or not."""

    name: str
    bind_type: str  # transceiver, transmitter, receiver
    up: bool
    host: str = ""  # the address it is bound at, or that is tried
    window_used: int = 0  # requests that the operator has not answered
    window_size: int = 0
    since_s: float | None = None  # how long it has been up, or down; None: unknown
    why: str = ""  # it is not up


class SessionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One bound session of a gateway."""

    peer: str  # its address
    bind_type: str  # transceiver, transmitter, receiver
    window_used: int  # requests that the gateway has not answered
    window_size: int


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway of this node, as one operator's listener sees it."""

    name: str
    listen: str  # host:port
    sessions: tuple[SessionStatus, ...] = ()


class IdRule(msgspec.Struct, frozen=True, kw_only=True):
    """How the operator's response ids and reported ids relate (`protocols.smpp.message_ids`)."""

    rule: str | None  # None: nothing is learned yet
    pinned: bool  # by the setting message_id
    evidence: Mapping[str, int] = {}  # reports that showed each rule
    contradictions: int = 0  # reports in a row that spoke against the rule in force


class OperatorStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    system_id: str
    binds: tuple[BindStatus, ...]
    gateways: tuple[GatewayStatus, ...]
    message_id: IdRule
    in_flight: int  # requests of either side that somebody waits for an answer to
    pace_per_s: float | None = None  # MT a second that may be sent now; None: as the window allows
    counters: Mapping[str, int]  # the fields of `dlrproxy.counters.Counters`, and what the node counts beside them


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    accepting: bool
    free_bytes: int | None  # on the file system of data_dir; None: not known
    min_free_bytes: int
    store_id: str  # in hex


class CustodyStatus(msgspec.Struct, frozen=True, kw_only=True):
    items: int  # with what is only owed a last word to another node
    max_items: int
    walking: int
    waiting: int
    parked: int
    max_parked: int
    # Route events since the start, by name; parked ones also as "parked.REASON". Of reports that another node has
    # claimed, "summary.right", "summary.wrong", "summary.none": what the summaries said of the first hop.
    events: Mapping[str, int]
    hops: Mapping[int, int] = {}  # reports that another node has claimed, by the links they travelled
    refused: Mapping[str, int]  # what was not taken into custody, by reason
    states: Mapping[str, int] = {}  # items by state (`ring/custody.py`), in lower case
    # By node: what waits for its word, by state. held: claimed here, its origin is to grant it; granted: that node has
    # claimed it, and has not finished; delivered: done here, and kept until that node, its origin, has forgotten it.
    awaiting: Mapping[str, Mapping[str, int]] = {}
    unreadable: int = 0  # rows that a later release has written, or that are damaged: they are kept, and not in `items`


class PeerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one other node and this one have told each other."""

    messages: int  # open messages of that node
    bytes_used: int
    current: bool  # this node knows all of them
    told: bool  # that node has been told all of this one's


class SummaryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """See docs/summaries.md."""

    own: int  # open messages of this node that the others are told of
    own_bytes: int
    left_out: int  # messages that found no room, since the start
    peers: Mapping[str, PeerSummary]


class JoinStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The join of this ring to another one, as this node sees it. See docs/ring.md."""

    cluster: str  # of the other ring
    gates: tuple[str, ...]  # those of the other ring that a report gets to from here now; empty: the join is down
    configured: int  # how many there are
    frames: Mapping[str, int]  # since the start: sent_across, received, no_way, refused


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    node: str
    version: str
    mode: str
    now: float
    uptime_s: float
    draining: Drain | None
    store: StoreStatus | None  # None, as custody: in this role the node has none open
    operators: tuple[OperatorStatus, ...]
    ring: tuple[PeerStatus, ...]
    turned_away: Mapping[str, int] = {}  # connections to the ring's listener that did not become links, by reason
    custody: CustodyStatus | None
    summaries: SummaryStatus | None = None  # None: off, or there is nobody to exchange them with
    join: JoinStatus | None = None  # None: this ring is joined to no other
    pair: PairStatus | None = None  # None: the mode is another one
    quorum: QuorumStatus | None = None  # likewise

    @property
    def binds_up(self) -> int:
        return sum(bind.up for operator in self.operators for bind in operator.binds)

    @property
    def in_flight(self) -> int:
        return sum(operator.in_flight for operator in self.operators)

    @property
    def why_not_serving(self) -> tuple[str, ...]:
        """Nothing, if a gateway that dials this node now can send; every reason why not otherwise."""
        reasons = []
        if self.draining is not None:
            reasons.append("the node drains")
        if self.pair is not None and self.pair.role != "active":
            return (*reasons, f"its role is {self.pair.role}: {self.pair.why}")
        if self.quorum is not None and self.quorum.role != "serving":
            return (*reasons, f"its role is {self.quorum.role}: {self.quorum.why}")
        if self.store is None:
            return (*reasons, "the term of service has not begun; the log says why")
        if not self.store.accepting:
            reasons.append("the store takes no writes")
        if not self.binds_up:
            reasons.append("no operator bind is up")
        return tuple(reasons)


class DrainState(msgspec.Struct, frozen=True):
    """How far a drain is. While a bind is up, reports may come, and what is empty need not stay so."""

    draining: Drain | None
    binds_up: int
    in_flight: int
    custody: int

    @classmethod
    def of(cls, status: NodeStatus) -> "DrainState":
        items = 0 if status.custody is None else status.custody.items
        return cls(status.draining, status.binds_up, status.in_flight, items)

    @property
    def empty(self) -> bool:
        return not (self.binds_up or self.in_flight or self.custody)

    def __str__(self) -> str:
        return f"in custody {self.custody:,}, in flight {self.in_flight:,}, operator binds up {self.binds_up:,}"


class CustodyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Something in custody here: its row, and where it is on its way."""

    row: CustodyRow
    state: str  # the name of its `ring.items.State`, in lower case
    lap: int = 0
    attempts: int = 0  # deliveries that were answered with a temporary error


class NodeView(Protocol):
    """The running node. Calls come from the node's own event loop."""

    def status(self) -> NodeStatus: ...

    def why_no_service(self) -> str:
        """Why nothing can be asked but the status, and nothing done to what is in the store; empty: all can."""

    def promote(self, *, force: bool) -> bool:
        """Of a pair: take over as soon as it is safe, with `force` at once. False: the node is of another mode."""

    def demote(self) -> bool:
        """Of a pair: hand over. False: the node is of another mode."""

    def look(self) -> bool:
        """Of a quorum: look at the database server at once. False: the node is of another mode."""

    async def open_messages(self, lookup: Lookup) -> Sequence[OpenMessage]:
        """As `Store.find` does for one lookup. Raises StoreError."""

    def custody_entries(self, operator: str, forms: Collection[bytes]) -> Sequence[CustodyEntry]:
        """What is in custody of this operator's whose reported id has one of these normal forms."""

    async def parked_rows(self, after: bytes, limit: int) -> Sequence[tuple[bytes, ParkedRow | None]]:
        """Up to `limit` rows with a key greater than `after`, in key order; None: unreadable. Raises StoreError."""

    async def parked_row(self, key: bytes) -> ParkedRow | None:
        """Raises StoreError, RowError."""

    async def replay(self, keys: Sequence[bytes], gateway: str, *, node: str = "") -> int:
        """Take parked rows back into custody, for that gateway of this node or (with "") for the ring.

        With `node`: for that gateway of that node or (with "") any that is bound there.

        How many: those that are not there any more are left out. Never called twice at one time. Raises
        StoreError.
        """

    def replaying(self) -> int:
        """How many that were replayed are on their way now."""

    async def drop(self, keys: Sequence[bytes]) -> int:
        """Give parked rows up for good; how many were still there. Raises StoreError."""

    def drain(self, mode: Drain) -> None:
        """Begin to; a second call with "stop" goes on from "custody", any other changes nothing."""

    def undrain(self) -> bool:
        """Go back into service. False when the node stops: that is not undone."""
