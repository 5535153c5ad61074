"""What waits and came more than a minute ago, or was found on disk at the start: it may be millions of items.

It does not hold up what has just come: it has a small part of the room to walk at most, only some of its laps begin
after one event, and they begin at a rate (`pace.py` says which), also after a node has joined, which wakes all of it.
Nor does what comes hold it up for good: one lap in nine is for it.
"""

from collections import deque
from collections.abc import Collection, Mapping
from typing import Final

from protocols.peer.frames import EnvelopeKey
from ring.items import Item, State
from ring.pace import Pace

# Of the room to walk, the backlog has one in so many: with the default max_walking 250 laps, which is what its pace
# comes to where a hop and its disks take 150 ms. What is answered together is worked through together, 0.1 ms each.
_SHARE: Final = 8
MOST_AT_ONCE: Final = 50  # laps of the backlog that begin after one event


class Backlog:
    def __init__(self, max_walking: int, waiting: Collection[Item]) -> None:
        """Of `max_walking` laps in all it has its share; `waiting` is what waits now, of the backlog or not."""
        self._room = max(1, max_walking // _SHARE)
        self._waiting = waiting
        self._queue: deque[Item] = deque()  # READY, or WAITING and woken by a node that joined
        self._walking: dict[EnvelopeKey, Item] = {}
        self._pace = Pace()
        self._fresh_laps = 0  # since one of the backlog

    def __bool__(self) -> bool:
        """Something is in line, which may no longer want to walk."""
        return bool(self._queue)

    @property
    def walking(self) -> Mapping[EnvelopeKey, Item]:
        """In the order in which their laps began."""
        return self._walking

    @property
    def is_full(self) -> bool:
        return len(self._walking) >= self._room

    @property
    def is_next(self) -> bool:
        """Enough laps of what has just come have begun since one of the backlog."""
        return self._fresh_laps >= _SHARE

    def line_up(self, item: Item, *, at_once: bool) -> None:
        """It is READY; `at_once`: before others."""
        if at_once:
            self._queue.appendleft(item)
        else:
            self._queue.append(item)

    def line_up_all(self) -> None:
        """A node has joined: all that waits tries again as soon as there is room, what has just come before the rest.

        Until then it goes on waiting, and an earlier call counts no more: so this is quick, also for millions.
        """
        ready = [item for item in self._queue if item.state is State.READY]
        fresh = [item for item in self._waiting if not item.old]
        self._queue = deque(ready)
        self._queue.extendleft(reversed(fresh))
        self._queue.extend(item for item in self._waiting if item.old)

    def wants_to_walk(self) -> bool:
        """Somebody does; who has gone another way meanwhile leaves the line."""
        while self._queue and not self._still_wants_to_walk(self._queue[0]):
            self._queue.popleft()
        return bool(self._queue)

    def _still_wants_to_walk(self, item: Item) -> bool:
        return item in self._waiting or (item.state is State.READY and not item.across)

    def take(self, now: float) -> Item | None:
        """The first in line, if it is time for one."""
        if not self._pace.take(now):
            return None
        self._fresh_laps = 0
        return self._queue.popleft()

    def ready_at(self) -> float:
        """When it is time for one."""
        return self._pace.ready_at()

    def fresh_lap_began(self) -> None:
        """One of what has just come."""
        self._fresh_laps += 1

    def lap_began(self, item: Item) -> None:
        """One of the backlog."""
        self._walking[item.key] = item

    def lap_ended(self, key: EnvelopeKey) -> None:
        """Or there was none."""
        self._walking.pop(key, None)
