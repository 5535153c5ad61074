"""What is to go to the sessions of one gateway: what has just come does not wait for all that has been waiting.

A gateway that was away for a day may have a million reports before it. So there are two queues, each in its order, and
they take turns: half of what is sent is what came while the gateway was there. What is old goes at a pace besides.
Order between reports of one message is kept by their line (`shelf.Lines`): only the first of a line is ever in here.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from ring.items import Item
from ring.pace import Pace


class OutletQueue:
    def __init__(self, pace: Pace) -> None:
        """`pace` is that of what is old, for all gateways of the node together."""
        self._pace = pace
        self._new: deque[Item] = deque()
        self._old: deque[Item] = deque()
        self._old_is_next = True

    def __bool__(self) -> bool:
        return bool(self._new or self._old)

    def __iter__(self) -> Iterator[Item]:
        yield from self._old
        yield from self._new

    def append(self, item: Item) -> None:
        (self._old if item.old else self._new).append(item)

    def take(self, now: float) -> Item | None:
        """The next one; None: what is here may not go yet."""
        self._old_is_next = not self._old_is_next
        if self._new and (self._old_is_next or not self._old):
            return self._new.popleft()
        if self._old and self._pace.take(now, self):
            return self._old.popleft()
        return self._new.popleft() if self._new else None

    def ready_at(self) -> float:
        """When what may not go yet may."""
        return self._pace.ready_at(self)

    def put_back(self, items: Iterable[Item]) -> None:
        """What was taken, in the order in which it was."""
        for item in reversed(list(items)):
            (self._old if item.old else self._new).appendleft(item)

    def close(self) -> None:
        """Nothing is taken from it any more."""
        self._pace.forget(self)

    def all_is_old(self) -> None:
        """What is here has waited for the gateway to bind."""
        for item in self._new:
            item.old = True
        self._old.extend(self._new)
        self._new.clear()
