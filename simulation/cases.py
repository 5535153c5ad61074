"""What the checker keeps of what was sent."""

from attrs import define, field

from dlrproxy.store.port import Table
from protocols.smpp.constants import ESME_ROK, TEMPORARY
from simulation.operator import Sent


@define
class Delivery:
    node: str
    gateway: str
    at: float
    status: int | None = None
    mark_lost: bool = False  # of a final report: the node has crashed before its disk knew of it
    excused: bool = False  # the answer was cut off, or a person asked for another delivery

    @property
    def settled(self) -> bool:
        return self.status is not None and self.status not in TEMPORARY


@define(eq=False)
class Case:
    """One sending of a report or MO."""

    trace: str
    number: int  # in the order of sending
    sent: Sent
    origin: str
    at: float
    acknowledged: bool = False
    over: bool = False  # refused, or the bind was lost: no promise was made
    deliveries: list[Delivery] = field(factory=list)
    places: dict[tuple[str, Table, bytes], None] = field(factory=dict)
    parked: dict[str, float] = field(factory=dict)  # reasons, and when first
    replayed: bool = False
    replayed_to: set[str] = field(factory=set)
    dropped: bool = False
    dropped_by_policy: bool = False
    gone_with_directory: bool = False
    inherited: bool = False  # it was at a node that was taken over from
    handed_on: bool = False  # an heir had it from a node that left
    claimed_at: float = 0.0  # the last time

    @property
    def delivered(self) -> bool:
        return any(delivery.status == ESME_ROK for delivery in self.deliveries)

    @property
    def is_report(self) -> bool:
        return self.sent.arrival.kind == "dlr"


@define
class Message:
    """An MT."""

    gateway_node: str
    responded_at: float | None = None  # None also when its node has lost its data directory since
