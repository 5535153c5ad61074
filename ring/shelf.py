"""What is in custody at this node, and the small services that the machines of custody share.

A `Shelf` holds the items, the line of each message, the alarms, and the commands that have not been handed to the
driver yet. It decides nothing.
"""

import heapq
from collections.abc import Callable, Collection, Mapping
from enum import IntEnum, auto

from protocols.peer.frames import Envelope, EnvelopeKey, Frame
from protocols.smpp.message_ids import candidates, normal
from ring import commands
from ring.items import Item, Items, Outlet, State

_LEAST_STALE = 1_000  # below this many a heap of stale alarms is not worth tidying


class Alarm(IntEnum):
    """What an alarm is for. One of each kind an item; setting it again moves it."""

    LAP = auto()  # the lap has taken too long
    GATHER = auto()  # the coordinator has taken too long
    WAKE = auto()  # walk again
    RETRY = auto()  # deliver again
    REPEAT = auto()  # say Claimed or Finished again
    ABANDON = auto()  # the node whose word it waits for has been out of the table for long
    PUMP = auto()  # try an outlet's queue again

    __hash__ = int.__hash__


class Lines:
    """Reports of one message stand in line, in the order in which they came (promise 4).

    Nearly every line has one report, or two: a list takes a tenth of the room of a deque.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[str, bytes], list[Item]] = {}

    @staticmethod
    def name(item: Item) -> tuple[str, bytes] | None:
        envelope = item.envelope
        return (envelope.operator, envelope.message_id) if envelope.message_id else None

    def holds(self, operator: str, message_id: bytes) -> bool:
        return (operator, message_id) in self._lines

    def join(self, item: Item) -> None:
        if name := self.name(item):
            self._lines.setdefault(name, []).append(item)

    def replace(self, item: Item, successor: Item) -> None:
        """Another item of the same message takes its place."""
        if name := self.name(item):
            line = self._lines[name]
            line[line.index(item)] = successor

    def sort(self) -> None:
        """After a restart they stand in the order of their keys: bring those together that one origin has numbered,
        also if one of them has been inherited by another origin since, and the oldest origin first."""
        for line in self._lines.values():
            _sort(line, frozenset())

    def arrange(self, item: Item, under_way: Collection[State]) -> None:
        """It has come from another node, and stands last: bring it to its place, behind what is under way."""
        name = self.name(item)
        if name is not None:
            _sort(self._lines[name], under_way)

    def is_head(self, item: Item) -> bool:
        name = self.name(item)
        return name is None or self._lines[name][0] is item

    def leave(self, item: Item) -> Item | None:
        """Returns the item that is now first, if that has changed."""
        name = self.name(item)
        line = self._lines.get(name) if name else None
        if name is None or line is None or item not in line:
            return None
        was_head = line[0] is item
        line.remove(item)
        if not line:
            del self._lines[name]
            return None
        return line[0] if was_head else None

    def of(self, item: Item) -> list[Item]:
        """Its line, in order: itself alone, where it has no message."""
        name = self.name(item)
        return [item] if name is None else list(self._lines.get(name, ()))

    def behind(self, item: Item) -> list[Item]:
        return [other for other in self.of(item) if other is not item]


def _numbered(item: Item) -> EnvelopeKey:
    """What tells its place among others that have come by the same way."""
    return item.key if item.heir else item.envelope.former or item.key


def _sort(line: list[Item], first: Collection[State]) -> None:
    if len(line) < 2:
        return
    since: dict[bytes, float] = {}
    for item in line:
        store = _numbered(item).store
        since[store] = min(item.accepted_at, since.get(store, item.accepted_at))
    line.sort(key=lambda item: (item.state not in first, _rank(since, item)))


def _rank(since: Mapping[bytes, float], item: Item) -> tuple[float, EnvelopeKey]:
    numbered = _numbered(item)
    return since[numbered.store], numbered


class Watch:
    """Which envelopes would be matched by an open message that appears now: by operator and normal form of the id."""

    def __init__(self) -> None:
        # Nearly always one: a dict for each would be most of what a waiting report takes.
        self._keys: dict[tuple[str, bytes], tuple[EnvelopeKey, ...]] = {}
        self._names: dict[EnvelopeKey, tuple[str, bytes]] = {}  # operator and reported id

    def __len__(self) -> int:
        return len(self._names)

    def add(self, envelope: Envelope) -> None:
        if not envelope.message_id or not envelope.is_sought or envelope.key in self._names:
            return
        self._names[envelope.key] = envelope.operator, envelope.message_id
        for form in candidates(envelope.message_id):
            name = envelope.operator, form
            self._keys[name] = (*self._keys.get(name, ()), envelope.key)

    def discard(self, key: EnvelopeKey) -> None:
        operator, message_id = self._names.pop(key, ("", b""))
        for form in candidates(message_id):
            name = operator, form
            if left := tuple(other for other in self._keys[name] if other != key):
                self._keys[name] = left
            else:
                del self._keys[name]

    def matching(self, operator: str, response_id: bytes) -> tuple[EnvelopeKey, ...]:
        return self._keys.get((operator, normal(response_id)), ())


class Alarms:
    """What is due when, by (kind, name). Cancelled and moved alarms are passed over when they come up."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm, EnvelopeKey | Outlet]] = []
        self._current: dict[tuple[Alarm, EnvelopeKey | Outlet], int] = {}
        self._count = 0

    def set(self, due: float, alarm: Alarm, name: EnvelopeKey | Outlet) -> None:
        self._count += 1
        self._current[alarm, name] = self._count
        heapq.heappush(self._heap, (due, self._count, alarm, name))
        if len(self._heap) > _LEAST_STALE + 2 * len(self._current):
            self._compact()

    def _compact(self) -> None:
        """Alarms that are moved often would pile up until their first time comes."""
        self._heap = [entry for entry in self._heap if self._current.get((entry[2], entry[3])) == entry[1]]
        heapq.heapify(self._heap)

    def cancel(self, alarm: Alarm, name: EnvelopeKey | Outlet) -> None:
        self._current.pop((alarm, name), None)

    def is_set(self, alarm: Alarm, name: EnvelopeKey | Outlet) -> bool:
        return (alarm, name) in self._current

    def next_due(self) -> float | None:
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[tuple[Alarm, EnvelopeKey | Outlet]]:
        found: list[tuple[Alarm, EnvelopeKey | Outlet]] = []
        self._drop_stale()
        while self._heap and self._heap[0][0] <= now:
            _, _, alarm, name = heapq.heappop(self._heap)
            del self._current[alarm, name]
            found.append((alarm, name))
            self._drop_stale()
        return found

    def _drop_stale(self) -> None:
        heap, current = self._heap, self._current
        while heap and current.get((heap[0][2], heap[0][3])) != heap[0][1]:
            heapq.heappop(heap)


class Shelf:
    """Items, lines, alarms, and what is to be done next."""

    def __init__(self) -> None:
        self.items = Items()
        self.lines = Lines()
        self.alarms = Alarms()
        self.watch = Watch()
        self._out: list[commands.Command] = []
        self._after: dict[int, Callable[[float], None]] = {}
        self._ticket = 0

    def take(self) -> list[commands.Command]:
        """The commands since the last call, in order."""
        out, self._out = self._out, []
        return out

    def command(self, command: commands.Command) -> None:
        self._out.append(command)

    def send(self, to: str, frame: Frame) -> None:
        self._out.append(commands.Send(to, frame))

    def note(self, event: commands.EventName, item: Item, hop: int = 0, /, **fields: str | int | float | bool) -> None:
        self._out.append(commands.Note(event, item.envelope, item.lap, hop, tuple(fields.items())))

    def write(self, *rows: commands.Row, then: Callable[[float], None] | None = None) -> None:
        """Write rows; `then(now)` runs once they are durable."""
        self._ticket += 1
        if then is not None:
            self._after[self._ticket] = then
        self._out.append(commands.Write(rows, self._ticket))

    def durable(self, ticket: int, now: float) -> None:
        if then := self._after.pop(ticket, None):
            then(now)

    def remove(self, item: Item) -> None:
        """Forget the item and its alarms; its row is the caller's business."""
        self.items.remove(item.key)
        self.watch.discard(item.key)
        for alarm in (Alarm.LAP, Alarm.GATHER, Alarm.WAKE, Alarm.RETRY, Alarm.REPEAT, Alarm.ABANDON):
            self.alarms.cancel(alarm, item.key)


def backoff(attempt: int, least_s: float, most_s: float, salt: int) -> float:
    """Seconds before try number `attempt` (from 1): doubling, capped, spread over the upper half by `salt`.

    The spread keeps many items that failed together from coming back together; it is computed, not drawn, so that a
    run of the machine can be repeated.
    """
    ceiling = min(most_s, least_s * 2.0 ** min(attempt - 1, 30))
    spread = (salt * 2654435761 % 1024) / 1024  # Knuth's multiplicative hash
    return max(least_s, ceiling * (0.5 + spread / 2))
