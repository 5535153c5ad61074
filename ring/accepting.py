"""Taking custody of what an operator sent, at its origin: it is answered ESME_ROK once it is durable here."""

from collections.abc import Callable
from typing import Literal

from attrs import frozen

from protocols.peer.frames import Envelope, EnvelopeKey, PartOf
from ring.commands import Accepted
from ring.delivery import Delivery
from ring.items import Item, State
from ring.rows import Kind
from ring.settings import CustodySettings
from ring.shelf import Shelf


@frozen
class Offer:
    """A report or MO that the driver wants to answer ESME_ROK."""

    operator: str
    kind: Literal["dlr", "mo"]
    message_id: bytes
    destination: bytes
    pdu: bytes
    final: bool
    trace: str
    gateway: str = ""  # the owner, if it is a gateway of this node; or where an MO goes, wherever that is bound
    local: bool = False  # deliver to `gateway` from here, rather than looking for it in the ring
    sent: bool = False  # it is with a session already: `answered` will follow
    part: PartOf | None = None  # one part of a concatenated MO, without `gateway`: it goes where all its parts go
    more: bytes = b""  # `Envelope.more`, of one that comes from elsewhere


class Accepting:
    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        me: str,
        delivery: Delivery,
        next_key: Callable[[], EnvelopeKey],
        proceed: Callable[[Item, float], None],
    ) -> None:
        """`proceed` takes an item that is stored and may be first in its line."""
        self._shelf = shelf
        self._settings = settings
        self._me = me
        self._delivery = delivery
        self._next_key = next_key
        self._proceed = proceed

    def accept(self, offer: Offer, now: float) -> EnvelopeKey | None:
        """None when custody is full. `Accepted` follows once it is durable."""
        if len(self._shelf.items) >= self._settings.max_messages:
            return None
        envelope = self._envelope(offer)
        gateway = offer.gateway if offer.local else ""
        item = Item(envelope, now, State.STORING, claimed=False, gateway=gateway, looked=offer.kind == "dlr")
        self._shelf.items.add(item)
        self._shelf.lines.join(item)
        if gateway:
            if offer.sent:
                item.marked = self._settings.cluster is not None
                self._delivery.with_session(item)
        else:
            self._shelf.watch.add(envelope)

        def stored(now: float) -> None:
            item.stored = True
            self._shelf.command(Accepted(item.key))
            if item.state is State.STORING:
                item.enter(State.LINED_UP)
                self._proceed(item, now)

        self._shelf.note("received", item, **({"gateway": gateway} if gateway else {}))
        self._shelf.write(item.row(Kind.ORIGIN), then=stored)
        return item.key

    def _envelope(self, offer: Offer) -> Envelope:
        return Envelope(
            self._next_key(), self._me, offer.operator, offer.kind, offer.message_id, offer.destination, offer.pdu,
            offer.trace, offer.final, "" if offer.local else offer.gateway, part=offer.part, more=offer.more,
        )  # fmt: skip
