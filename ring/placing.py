"""Where an item of this node's goes once it is first in its line: the parts of custody that find it a place.

In a ring it walks (`walk.py`), and is handed on if this node leaves (`handing_on.py`). In a cluster it goes to the node
that has its gateway (`sharing.py`), and of that only an MO without a rule walks. In both the parts of a concatenated MO
ask first where they go together (`gathering.py`), and a gateway of this node gets what is for it (`delivery.py`).
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from protocols.peer.frames import Bound, EnvelopeKey
from ring.commands import Finding, Reason
from ring.delivery import Delivery
from ring.gathering import Gathering
from ring.handing_on import HandingOn
from ring.items import Item, State
from ring.next_hop import Owners
from ring.presence import Presence
from ring.rows import CustodyRow
from ring.settings import CustodySettings
from ring.sharing import Sharing
from ring.shelf import Shelf
from ring.topology import Topology
from ring.walk import Walk


class Placing:
    """The parts themselves are for `Custody` to hand events to. What it asks of this instead depends on whether this
    is a node of a cluster."""

    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        topology: Topology,
        run: int,
        owners: Owners | None,
        next_key: Callable[[], EnvelopeKey],
        finished: Callable[[Item, float], None],
    ) -> None:
        """`finished` takes a claim that is delivered or parked, durably."""
        self._shelf = shelf
        self.delivery = Delivery(shelf, settings, self.proceed, finished, self._go_elsewhere)
        self.presence = Presence(shelf, settings, topology)
        self.gathering = Gathering(
            shelf, settings, topology, self.presence, next_key, self._placed, self._unplaced
        )  # fmt: skip
        self.walk = Walk(
            shelf, settings, topology, run, self.delivery, self.gathering, owners, self._hand_on, self._placed_at
        )
        self._sharing: Sharing | None = None
        if settings.cluster is not None:
            self._sharing = Sharing(
                shelf, settings, settings.cluster, topology, self.presence, self.delivery, self.walk,
                self.gathering, next_key, self.proceed,
            )  # fmt: skip
        self.handing_on = HandingOn(shelf, settings, topology, self.walk)

    @property
    def waiting(self) -> int:
        return self.walk.waiting + (0 if self._sharing is None else self._sharing.waiting)

    def proceed(self, item: Item, now: float) -> None:
        """If it is stored and first in its line, begin what it is here for."""
        if item.state is not State.LINED_UP or not self._shelf.lines.is_head(item):
            return
        if item.gateway:
            self.delivery.start(item, now)
        elif item.envelope.is_sought and not item.envelope.message_id:
            self.delivery.park(item, Reason.NO_MESSAGE_ID, now)
        elif self._sharing is not None:
            self._sharing.ready(item, now)
        elif not (self.handing_on.follows(item) and self.handing_on.take(item, now)):
            self.walk.ready(item)

    def _placed(self, item: Item, now: float) -> None:
        if self._sharing is not None:
            self._sharing.ready(item, now)
        else:
            self.walk.ready(item)

    def _placed_at(self, item: Item, gateway: str, now: float) -> None:
        if self._sharing is not None:
            self._sharing.placed(item, gateway, now)

    def _go_elsewhere(self, item: Item, now: float) -> bool:
        return self._sharing is not None and self._sharing.go_elsewhere(item, now)

    def _unplaced(self, item: Item, now: float) -> None:
        self.walk.unplaced(item, now)

    def _hand_on(self, item: Item, now: float) -> bool:
        return self.handing_on.take(item, now)

    def start_more(self, now: float) -> None:
        """Called after every event, so that room that fell free is used."""
        self.walk.start_more(now)
        self.handing_on.start_more(now)

    def asked(self, item: Item, finding: Finding | None, now: float) -> None:
        """What this node's own store says of an item of its own."""
        if not (self._sharing and self._sharing.asked(item, finding, now)):
            self.walk.asked(item, finding, now)

    def look_again(self, item: Item) -> None:
        """An open message that may own it has just been recorded at this node."""
        if self._sharing is None:
            self.walk.look_again(item)
        else:
            self._sharing.look_again(item)

    def wake(self, item: Item, now: float) -> None:
        """It has waited for long enough."""
        if self._sharing is None or not self._sharing.wake(item, now):
            self.walk.wake(item)

    def arrived(self, rows: Sequence[CustodyRow], now: float) -> None:
        """Found in this node's inbox."""
        if self._sharing is None:
            raise TypeError("only a node of a cluster has an inbox")
        self._sharing.arrived(rows, now)

    def reachable(
        self, everywhere: AbstractSet[str], here: AbstractSet[str], able: AbstractSet[str], now: float
    ) -> None:
        """The nodes that can be reached have changed: `here` are those of this ring, `able` those of them that take
        what is handed on. Presence and gathering have been told."""
        self.handing_on.reachable(able, now)
        self.walk.reachable(everywhere, now)
        if self._sharing is not None:
            self._sharing.reachable(here, now)

    def retopologize(self, topology: Topology) -> None:
        """The configured nodes have changed."""
        self.presence.retopologize(topology)
        self.gathering.retopologize(topology)
        self.walk.retopologize(topology)
        self.handing_on.retopologize(topology)
        if self._sharing is not None:
            self._sharing.retopologize(topology)

    def tick(self, now: float) -> None:
        """Do what is due, alarms apart."""
        self.gathering.tick(now)
        self.presence.tick(now)
        self.handing_on.tick(now)

    def next_due(self) -> float | None:
        """When it is, or room falls free."""
        dues = [part.next_due() for part in (self.gathering, self.handing_on, self.walk)]
        return min((due for due in dues if due is not None), default=None)

    def gateway_bound(self, operator: str, gateway: str, now: float) -> None:
        """A receiver session of a gateway of this node is there."""
        self.delivery.bound((operator, gateway), now)
        self.presence.bound(operator, gateway)
        self._bound(operator, gateway, now)

    def gateway_heard(self, sender: str, frame: Bound, now: float) -> None:
        """What another node says of the gateways that are bound there."""
        for gateway in self.presence.heard(sender, frame):
            self._bound(frame.operator, gateway, now)

    def _bound(self, operator: str, gateway: str, now: float) -> None:
        """Here or at another node."""
        self.walk.gateway_bound(operator, gateway)
        if self._sharing is not None:
            self._sharing.gateway_bound(operator, gateway, now)

    def gateway_gone(self, operator: str, gateway: str, now: float) -> None:
        """The last receiver session of a gateway of this node has ended."""
        self.presence.gone(operator, gateway)
        if self._sharing is not None:
            self._sharing.gone((operator, gateway), now)

    def leave(self, now: float) -> None:
        """This node is going to stop."""
        if self._sharing is None:
            self.handing_on.leave()
        else:
            self._sharing.leave(now)

    def stay(self, now: float) -> None:
        """It is not going to, after all."""
        if self._sharing is None:
            self.handing_on.stay(now)
        else:
            self._sharing.stay()

    def is_handing_on(self) -> bool:
        """After `leave`: something may yet be handed on, or an heir has not confirmed that it is its own."""
        return self.handing_on.under_way() if self._sharing is None else self._sharing.under_way()
