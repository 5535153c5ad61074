"""What another node hands on as it leaves becomes this node's own: the heir's side of `handing_on.py`.

    offered     row of kind HEIR written          -> claimed from the leaving node, as an owner would
    granted     ORIGIN row under a key of its own, and DELIVERED row under the old one, in one write
                                                  -> it is this node's: it walks from here
    refused     its owner or another heir has it  -> row deleted

The old key is kept until the old origin has forgotten it, like that of a claim which was delivered: so the offer,
however often it is repeated, and whichever of the two is restarted in between, is taken once. The new envelope names
the old key (`former`), so that a node which has claimed a stale copy under that one knows what became of it.
"""

from collections.abc import Callable

import msgspec

from protocols.peer.frames import Declined, Envelope, EnvelopeKey, HandOver
from ring.claims import Claims
from ring.items import Item, State
from ring.rows import Kind
from ring.settings import CustodySettings
from ring.shelf import Shelf


class Inheritance:
    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        me: str,
        claims: Claims,
        next_key: Callable[[], EnvelopeKey],
        proceed: Callable[[Item, float], None],
    ) -> None:
        self._shelf = shelf
        self._settings = settings
        self._me = me
        self._claims = claims
        self._next_key = next_key
        self._proceed = proceed

    def offered(self, frame: HandOver, sender: str, now: float, *, taking: bool, leaving: bool) -> None:
        """All of it or nothing is taken; what is here already is said again."""
        offers = list(zip(frame.envelopes, frame.ages_s, strict=False))
        new = []
        for envelope, age_s in offers:
            item = self._shelf.items.get(envelope.key)
            if item is None:
                new.append((envelope, age_s))
            elif item.claimed:
                self._claims.repeat(item, now)
        if reason := self._why_not([envelope for envelope, _ in new], sender, taking=taking, leaving=leaving):
            self._shelf.send(sender, Declined(tuple(envelope.key for envelope, _ in new), reason))
        elif new:
            self._take([self._item(envelope, now - age_s) for envelope, age_s in new])

    def _why_not(self, new: list[Envelope], sender: str, *, taking: bool, leaving: bool) -> str:
        room = self._settings.max_inherited - len(self._shelf.items)
        if leaving:
            return "draining"
        if not taking or len(new) > room:
            return "full"
        if any(envelope.origin != sender for envelope in new):
            return "origin"
        if any(envelope.operator not in self._settings.operators for envelope in new):
            return "operator"
        return ""

    @staticmethod
    def _item(envelope: Envelope, accepted_at: float) -> Item:
        return Item(envelope, accepted_at, State.CLAIMING, claimed=True, heir=True)

    def _take(self, items: list[Item]) -> None:
        for item in items:
            self._shelf.items.add(item)
            self._shelf.watch.discard(item.key)
            self._shelf.lines.join(item)

        def claimed(now: float) -> None:
            for item in items:
                item.enter(State.HELD)
            for item in items:
                self._claims.repeat(item, now)

        self._shelf.write(*(item.row(Kind.HEIR) for item in items), then=claimed)

    def granted(self, item: Item) -> None:
        """The leaving node has let go of it, durably."""
        former = item.envelope
        envelope = msgspec.structs.replace(former, key=self._next_key(), origin=self._me, former=former.key)
        own = Item(envelope, item.accepted_at, State.STORING, claimed=False, superseded=item.superseded)
        self._shelf.items.add(own)
        self._shelf.lines.replace(item, own)
        self._shelf.watch.add(envelope)
        item.become_tombstone(State.DELIVERED)

        def inherited(now: float) -> None:
            self._shelf.note("inherited", own, origin=former.origin)
            item.stored = True
            self._claims.repeat(item, now)
            own.stored = True
            own.enter(State.LINED_UP)
            self._proceed(own, now)

        self._shelf.write(own.row(Kind.ORIGIN), item.row(Kind.DELIVERED), then=inherited)
