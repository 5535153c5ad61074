"""Parts of concatenated MO at their origin: each asks the message's coordinator where to go, and goes there.

An origin keeps custody of a part while it asks. It asks the first node in the message's order that it can reach, which
may be itself; one that does not answer in time is passed over for the next. A decision that is known here already, from
another part or since it was told to everybody, is not asked for.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet

import msgspec

from protocols.peer.frames import Decided, EnvelopeKey, Gather, PartOf, Place
from ring.coordinator import Coordinator
from ring.items import NOBODY, Item, State
from ring.presence import Presence
from ring.rows import CustodyRow, Kind
from ring.settings import CustodySettings
from ring.shelf import Alarm, Shelf
from ring.topology import Topology


class Gathering:
    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        topology: Topology,
        presence: Presence,
        next_key: Callable[[], EnvelopeKey],
        placed: Callable[[Item, float], None],
        unplaced: Callable[[Item, float], None],
    ) -> None:
        """`placed` takes a part that is for one gateway now; `unplaced` one that no bound gateway was found for."""
        self._shelf = shelf
        self._settings = settings
        self._topology = topology
        self._presence = presence
        self._placed = placed
        self._unplaced = unplaced
        self._reachable: AbstractSet[str] = frozenset()
        self._asking: dict[bytes, dict[EnvelopeKey, Item]] = {}  # by message
        self._coordinator = Coordinator(shelf, settings, topology.me, presence, next_key, self._decided)

    def looks_first(self, item: Item) -> bool:
        """A lap should say whether anybody is in conversation with the sender, before the coordinator is asked."""
        part = _part(item)
        if self._coordinator.known(part.message) is not None or (part.certain and part.rule):
            return False
        return self._settings.conversations

    def ask(self, item: Item, conversation: Place | None, now: float) -> None:
        """Ask where it goes, first for this time."""
        message = _part(item).message
        item.enter(State.GATHERING)
        if (decision := self._coordinator.known(message)) is not None:
            self._place(item, decision.place, decision.by, now)
            return
        item.conversation = conversation
        item.asked = NOBODY
        self._asking.setdefault(message, {})[item.key] = item
        self._ask_next(item, now)

    def _ask_next(self, item: Item, now: float) -> None:
        part = _part(item)
        target = self._next(item)
        item.asked = {**item.asked, target: None}
        # A coordinator that waits for the first part is given that time once more to answer.
        patience_s = self._settings.concat_wait_s * (1 if part.certain else 2)
        self._shelf.alarms.set(now + patience_s, Alarm.GATHER, item.key)
        envelope = item.envelope
        bound = self._presence.any_bound(envelope.operator)
        frame = Gather(envelope.operator, envelope.trace, part, item.conversation, bound)
        if target == self._topology.me:
            self._coordinator.asked(frame, target, now)
        else:
            self._shelf.send(target, frame)

    def _next(self, item: Item) -> str:
        """The best coordinator that has not been asked; after the last, from the first again."""
        ranked = self._topology.ranked(_part(item).message)
        able = [node for node in ranked if node == self._topology.me or node in self._reachable]
        target = next((node for node in able if node not in item.asked), None)
        if target is None:
            item.asked = NOBODY
            target = able[0]
        return target

    def timed_out(self, item: Item, now: float) -> None:
        """The coordinator has not answered."""
        if item.state is State.GATHERING:
            self._ask_next(item, now)

    def _decided(self, message: bytes, now: float) -> None:
        """What the coordinator says, of itself or of another node."""
        decision = self._coordinator.known(message)
        for item in list(self._asking.get(message, {}).values()):
            if decision is not None:
                self._place(item, decision.place, decision.by, now)
            else:
                self._leave(item)
                self._unplaced(item, now)

    def _leave(self, item: Item) -> None:
        self._shelf.alarms.cancel(Alarm.GATHER, item.key)
        message = _part(item).message
        items = self._asking.get(message, {})
        items.pop(item.key, None)
        if not items:
            self._asking.pop(message, None)

    def _place(self, item: Item, place: Place, by: str, now: float) -> None:
        """Written down before it goes anywhere, so that after a restart it still goes there."""
        self._leave(item)
        item.envelope = msgspec.structs.replace(item.envelope, gateway=place.gateway, node=place.node)
        self._shelf.write(item.row(Kind.ORIGIN))
        self._shelf.note("gathered", item, gateway=place.gateway, by=by)
        self._placed(item, now)

    # The coordinator

    def asked(self, frame: Gather, sender: str, now: float) -> None:
        self._coordinator.asked(frame, sender, now)

    def told(self, frame: Decided, now: float) -> None:
        self._coordinator.told(frame, now)

    def restore(self, row: CustodyRow, now: float) -> None:
        """A row of kind DECISION."""
        self._coordinator.restore(row, now)

    def inherit(self, row: CustodyRow, now: float) -> bool:
        """A row of kind DECISION of a coordinator that is gone. False: there is one already."""
        return self._coordinator.inherit(row, now)

    def reachable(self, nodes: AbstractSet[str], now: float) -> None:
        lost, self._reachable = self._reachable - nodes, nodes
        self._coordinator.reachable(nodes, now)
        if lost:
            for item in [item for items in self._asking.values() for item in items.values()]:
                if item.state is State.GATHERING and [*item.asked][-1] in lost:
                    self._ask_next(item, now)

    def retopologize(self, topology: Topology) -> None:
        self._topology = topology

    def next_due(self) -> float | None:
        return self._coordinator.next_due()

    def tick(self, now: float) -> None:
        self._coordinator.tick(now)


def _part(item: Item) -> PartOf:
    part = item.envelope.part
    if part is None:
        raise AssertionError(f"{item.key} is no part of a concatenated MO")
    return part
