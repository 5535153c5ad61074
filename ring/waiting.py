"""What nobody has claimed, until time, a node that joins or a gateway that binds wakes it: for how long, and who."""

from collections.abc import Iterator
from typing import Final

from ring.items import Item, State
from ring.settings import CustodySettings
from ring.shelf import Alarm, Shelf, backoff

_FRESH_S: Final = 60.0  # so long what has just come tries again as it would without a backlog
# Of what waits, so many a second try again at most: a lap that leads nowhere costs some 150 us, most of it the look at
# the own store and the log line.
_RETRIES_PER_S: Final = 200


class Waiting:
    """In the order in which they were put to wait."""

    def __init__(self, shelf: Shelf, settings: CustodySettings) -> None:
        self._shelf = shelf
        self._settings = settings
        self._items: dict[Item, None] = {}
        self._for_gateways: dict[Item, None] = {}  # what waits for a gateway, or any, to bind

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def add(self, item: Item, now: float) -> float:
        """Seconds until it tries again, unless it is to be given up before; the alarm is set. One of the backlog tries
        again at a rate, however long a round of all that waits takes then."""
        left_s = max(0.0, self.left_s(item, now))
        item.enter(State.WAITING)
        item.waits += 1
        item.old = item.old or now >= item.accepted_at + _FRESH_S
        self._items[item] = None
        if not item.envelope.is_sought:
            self._for_gateways[item] = None
        settings = self._settings
        wait = backoff(item.waits, settings.walk_retry_min_s, settings.walk_retry_max_s, item.key.number)
        if item.old:
            wait = max(wait, len(self._items) / _RETRIES_PER_S)
        self._shelf.alarms.set(now + min(wait, left_s), Alarm.WAKE, item.key)
        return wait

    def left_s(self, item: Item, now: float) -> float:
        """Until it is given up."""
        settings = self._settings
        for_s = min(settings.claim_for_s, settings.sought_for_s) if item.envelope.is_sought else settings.claim_for_s
        return item.accepted_at + for_s - now

    def discard(self, item: Item) -> None:
        """It waits no more, or did not."""
        self._items.pop(item, None)
        self._for_gateways.pop(item, None)

    def for_gateway(self, operator: str, gateway: str) -> list[Item]:
        """What waits for that one, or for any."""
        return [
            item
            for item in self._for_gateways
            if item.envelope.operator == operator and item.envelope.gateway in ("", gateway)
        ]
