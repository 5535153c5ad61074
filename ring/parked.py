"""Parked rows that come back into custody, are dropped, or come from another node: because a person says so, or since
another node of this store is gone. How they come to be parked is in `delivery.py`."""

from collections.abc import Callable

import msgspec

from protocols.peer.frames import Envelope, EnvelopeKey
from ring.claims import Claims
from ring.commands import Row, Table
from ring.delivery import Delivery
from ring.items import Item, State
from ring.rows import Kind, ParkedRow, encode_key, encode_row
from ring.settings import CustodySettings
from ring.shelf import Shelf


class Parked:
    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        me: str,
        store_id: bytes,
        delivery: Delivery,
        claims: Claims,
        next_key: Callable[[], EnvelopeKey],
        proceed: Callable[[Item, float], None],
    ) -> None:
        """`proceed` takes an item that is stored and may be first in its line."""
        self._shelf = shelf
        self._settings = settings
        self._me = me
        self._store_id = store_id
        self._delivery = delivery
        self._claims = claims
        self._next_key = next_key
        self._proceed = proceed

    def replay(self, parked: ParkedRow, gateway: str, node: str, now: float) -> EnvelopeKey | None:
        """None when a late claim is just taking it, or has: nothing was done.

        What this node took from an operator keeps its key, so that its owner recognises it; what it had claimed from
        another origin becomes an envelope of this node.
        """
        old = parked.envelope
        key = old.key if old.key.store == self._store_id else self._next_key()
        if self._claims.is_recalling(old.key) or key in self._shelf.items:
            return None
        envelope = _sent_to(msgspec.structs.replace(old, key=key, origin=self._me), gateway, node)
        gateway = "" if node else gateway
        item = Item(envelope, now, State.STORING, claimed=False, gateway=gateway, lap=parked.lap)
        item.replayed = item.old = True
        self._shelf.items.add(item)
        self._shelf.lines.join(item)
        if not gateway:
            self._shelf.watch.add(envelope)
        self._delivery.parked -= 1

        def stored(now: float) -> None:
            item.stored = True
            item.enter(State.LINED_UP)
            self._shelf.note("replayed", item, reason=parked.reason, **({"to": node} if node else {}))
            self._proceed(item, now)

        unparked = Row(Table.PARKED, encode_key(old.key), None)
        self._shelf.write(item.row(Kind.ORIGIN), unparked, then=stored)
        return key

    def drop(self, parked: ParkedRow) -> bool:
        """False when a late claim is just taking it, or has: nothing was done."""
        key = parked.envelope.key
        if self._claims.is_recalling(key) or key in self._shelf.items:
            return False
        self._delivery.parked -= 1
        item = Item(parked.envelope, parked.accepted_at, State.DELIVERED, claimed=False)
        self._shelf.note("dropped", item, reason="by_hand", parked=parked.reason)
        self._shelf.write(Row(Table.PARKED, encode_key(key), None))
        return True

    def adopt(self, parked: ParkedRow) -> bool:
        """Under a name that is not used here. False when the parked quota is full: nothing was done."""
        if self._delivery.parked >= self._settings.max_parked:
            return False
        self._delivery.parked += 1
        envelope = msgspec.structs.replace(parked.envelope, key=self._next_key(), origin=self._me)
        row = msgspec.structs.replace(parked, envelope=envelope)
        item = Item(envelope, parked.accepted_at, State.DELIVERED, claimed=False)
        self._shelf.note("parked", item, reason=parked.reason)
        self._shelf.write(Row(Table.PARKED, encode_key(envelope.key), encode_row(row)))
        return True


def _sent_to(envelope: Envelope, gateway: str, node: str) -> Envelope:
    """For that node, where a person says so; else for whom it was before a person did."""
    if node:
        return msgspec.structs.replace(envelope, gateway=gateway, node=node, part=None)
    if envelope.kind == "dlr":
        return msgspec.structs.replace(envelope, gateway="", node="")
    return envelope if envelope.part is not None else msgspec.structs.replace(envelope, node="")
