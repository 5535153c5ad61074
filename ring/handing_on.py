"""A node that leaves hands on what it is the origin of, and what nobody has claimed: this is its side of it.

    leaving node, the origin                heir (`inheritance.py`)
    nobody has claimed it  -- HandOver -->  HEIR rows durable
    GRANTED rows durable   <-- Claimed --
                           -- Settled -->   a new envelope of its own (ORIGIN) and the old one done (DELIVERED), in one
    row deleted            <-- Finished --  write
                           -- Forgotten --> row deleted

The heir claims as an owner's node does, and from there on it is the hand-over of `claims.py`, with its promise: one of
the two always has it on disk, and it is granted to one node alone. Until then it is this node's, which may let another
node have it: the owner, if that claims it meanwhile, or the next heir, if one declines, is lost or says nothing for
`repeat_s`. Where nobody takes it, it waits here, on disk, as it would without leaving.

An item walks first, if it has not: its owner may be there. What is handed on is a whole line, the reports of one
message in their order, in one frame; the heir writes them down together, and they are granted together. What comes to
that line later goes to the same heir or, until the next start, nowhere.
"""

from collections import deque
from collections.abc import Set as AbstractSet
from typing import Final

from attrs import define

from protocols.peer.frames import Declined, EnvelopeKey, HandOver
from ring.items import Item, State
from ring.settings import CustodySettings
from ring.shelf import Lines, Shelf
from ring.topology import Topology
from ring.walk import Walk

_MOST_IN_FRAME: Final = 32  # a message has a handful of reports; what is beyond follows when these are granted
_MOST_BYTES_IN_FRAME: Final = 256 * 1024  # as a link cuts its messages
_MOST_OFFERS: Final = 200  # unanswered; what is handed on shares the links and the heir's disk with reports under way

_MOST_AT_ONCE: Final = 200  # of what waits are asked for after one event
_ON_THEIR_WAY: Final = (State.STORING, State.READY, State.WALKING, State.GATHERING, State.HANDING)


@define(eq=False)
class _Offer:
    """What of one line has been offered and is not answered for."""

    items: list[Item]
    heir: str
    due: float

    def open(self) -> list[Item]:
        return [item for item in self.items if item.state is State.HANDING]


class HandingOn:
    def __init__(self, shelf: Shelf, settings: CustodySettings, topology: Topology, walk: Walk) -> None:
        self._shelf = shelf
        self._settings = settings
        self._topology = topology
        self._walk = walk
        self.leaving = False
        self._able: AbstractSet[str] = frozenset()  # reachable nodes that know the frame
        self._declined: dict[str, float] = {}  # until when an heir is not asked again
        self._unasked: deque[Item] = deque()  # what waited when this node began to leave
        self._queue: deque[Item] = deque()
        self._offers: dict[EnvelopeKey, _Offer] = {}
        self._sent: deque[tuple[float, _Offer]] = deque()
        self._open_offers = 0
        self._handed_on: deque[Item] = deque()  # to heirs; those that are done with are left out in time
        self._held: dict[EnvelopeKey, Item] = {}  # the heir of its line cannot be asked now
        self._heirs: dict[tuple[str, bytes], str] = {}  # by line, while this node leaves

    def leave(self) -> None:
        """Begin to hand on: what waits goes as there is room, and what walks when its lap is over."""
        self.leaving = True
        self._unasked.extend(self._walk.all_waiting())

    def stay(self, now: float) -> None:
        """This node goes on after all: what no heir has got walks on from here; one that was asked may claim it yet."""
        self.leaving = False
        self._heirs.clear()
        self._unasked.clear()
        self._queue.clear()
        self._held.clear()
        self._sent.clear()
        self._offers.clear()
        self._open_offers = 0
        for item in list(self._shelf.items.in_state(State.HANDING)):
            item.enter(State.LINED_UP)
            if self._shelf.lines.is_head(item):
                self._walk.put_to_wait(item, now)

    def take(self, item: Item, now: float) -> bool:
        """Hand on an item that nobody has claimed and that is first in its line. False: it stays."""
        if not self.leaving or not self._may_go(item):
            return False
        if self._heir(item, now) is None and not self.follows(item):
            return False
        self._walk.leave(item)
        item.enter(State.HANDING)
        self._queue.append(item)
        return True

    def follows(self, item: Item) -> bool:
        """Reports of its message have gone to an heir before it: it must not overtake them on another way."""
        return Lines.name(item) in self._heirs

    def _may_go(self, item: Item) -> bool:
        here_only = item.envelope.node == self._topology.me
        return item.stored and not (item.claimed or item.gateway or item.superseded or here_only)

    def _heir(self, item: Item, now: float) -> str | None:
        line = Lines.name(item)
        bound = None if line is None else self._heirs.get(line)
        wanted = self._topology.others if bound is None else (bound,)
        return next((node for node in wanted if node in self._able and self._declined.get(node, now) <= now), None)

    def start_more(self, now: float) -> None:
        """Make offers while there is room. Called after every event, so that a place that fell free is used."""
        for _ in range(_MOST_AT_ONCE):
            if not self._unasked or len(self._queue) >= _MOST_OFFERS:
                break
            item = self._unasked.popleft()
            if item.state is State.WAITING:
                self.take(item, now)
        while self._queue and self._open_offers < _MOST_OFFERS:
            item = self._queue.popleft()
            if item.state is not State.HANDING or item.key in self._offers:
                continue  # its owner has claimed it
            offer = _Offer(self._line(item), heir="", due=now)
            self._offers |= dict.fromkeys((each.key for each in offer.items), offer)
            self._open_offers += 1
            self._make(offer, now)

    def _line(self, head: Item) -> list[Item]:
        """As much of its line as may go, and fits into a frame, in order."""
        items, size = [head], len(head.envelope.pdu)
        for item in self._shelf.lines.behind(head):
            size += len(item.envelope.pdu)
            fits = len(items) < _MOST_IN_FRAME and size <= _MOST_BYTES_IN_FRAME
            if item.state is not State.LINED_UP or not self._may_go(item) or not fits:
                break
            item.enter(State.HANDING)
            items.append(item)
        return items

    def _make(self, offer: _Offer, now: float) -> None:
        """To the next heir; without one it stays here, and where it follows others to one, it waits for that."""
        items = offer.open()
        heir = self._heir(items[0], now) if items else None
        if heir is None:
            self._withdraw(offer, now)
            return
        offer.heir = heir
        offer.due = now + self._settings.repeat_s
        self._sent.append((offer.due, offer))
        envelopes = tuple(item.envelope for item in items)
        self._shelf.send(heir, HandOver(envelopes, tuple(now - item.accepted_at for item in items)))

    def _withdraw(self, offer: _Offer, now: float) -> None:
        self._close(offer)
        items = offer.open()
        for item in items:
            item.enter(State.LINED_UP)
        if not items or not self._shelf.lines.is_head(items[0]):
            return
        if self.follows(items[0]):
            items[0].enter(State.HANDING)
            self._held[items[0].key] = items[0]
        else:
            self._walk.put_to_wait(items[0], now)

    def _close(self, offer: _Offer) -> None:
        for item in offer.items:
            self._offers.pop(item.key, None)
        offer.heir = ""
        self._open_offers -= 1

    # Answers

    def taken(self, item: Item) -> None:
        """An heir gets it."""
        self._handed_on.append(item)
        self._held.pop(item.key, None)
        self._declined.pop(item.granted_to, None)
        if self.leaving and (line := Lines.name(item)):
            self._heirs[line] = item.granted_to
        offer = self._offers.get(item.key)
        if offer is not None and not offer.open():
            self._close(offer)

    def declined(self, frame: Declined, sender: str, now: float) -> None:
        self._pass_over(sender, now)
        for offer in {id(offer): offer for key in frame.keys if (offer := self._offers.get(key))}.values():
            if offer.heir == sender:
                self._shelf.note("busy", offer.items[0], nodes=sender)
                self._make(offer, now)

    def _pass_over(self, heir: str, now: float) -> None:
        self._declined[heir] = now + self._settings.walk_retry_min_s

    def reachable(self, able: AbstractSet[str], now: float) -> None:
        """The nodes that may be heirs."""
        lost, self._able = self._able - able, able
        for node in lost:
            self._declined.pop(node, None)
        for offer in list({id(offer): offer for offer in self._offers.values() if offer.heir in lost}.values()):
            self._make(offer, now)
        self._ask_again(now)

    def _ask_again(self, now: float) -> None:
        """Heirs of lines that may have come back, or may take more."""
        for item in [item for item in self._held.values() if self._heir(item, now) is not None]:
            del self._held[item.key]
            self._queue.append(item)

    def retopologize(self, topology: Topology) -> None:
        self._topology = topology

    def next_due(self) -> float | None:
        if self._unasked and len(self._queue) < _MOST_OFFERS:
            return 0.0
        dues = [self._sent[0][0]] if self._sent else []
        return min((*dues, *self._declined.values()), default=None)

    def tick(self, now: float) -> None:
        """Offers that have not been answered for go to another heir."""
        while self._handed_on and self._handed_on[0].among is None:
            self._handed_on.popleft()
        while self._sent and self._sent[0][0] <= now:
            due, offer = self._sent.popleft()
            if offer.heir and offer.due == due:
                if offer.open():
                    self._pass_over(offer.heir, now)
                self._make(offer, now)
        if any(until <= now for until in self._declined.values()):
            self._declined = {node: until for node, until in self._declined.items() if until > now}
            self._ask_again(now)

    def under_way(self) -> bool:
        """Something may yet be handed on, or is with an heir that has not confirmed that it is its own now."""
        if not self._able:
            return False
        return (
            bool(self._unasked)
            or any(item.among is not None and item.granted_to in self._able for item in self._handed_on)
            or any(self._may_go_once_stored(item) for item in self._shelf.items.in_state(*_ON_THEIR_WAY))
        )

    def _may_go_once_stored(self, item: Item) -> bool:
        stays = item.claimed or item.gateway or item.envelope.node == self._topology.me
        return not stays and item.key not in self._held
