"""What is in custody at this node, and the small services that the machines of custody share.

A `Shelf` holds the items, the line of each message, the alarms, and the commands that have not been handed to the
driver yet. It decides nothing.
"""

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import IntEnum, auto
from types import MappingProxyType
from typing import Final

import msgspec
from attrs import define

from protocols.peer.frames import Envelope, EnvelopeKey, Frame, Place
from protocols.smpp.message_ids import candidates, normal
from ring import commands
from ring.rows import CustodyRow, Kind, encode_key, encode_row

_LEAST_STALE = 1_000  # below this many a heap of stale alarms is not worth tidying

Outlet = tuple[str, str]  # operator and gateway: the sessions of one gateway for one operator
Nodes = Mapping[str, None]  # in order; never changed, but replaced

NOBODY: Final[Nodes] = MappingProxyType({})


class State(IntEnum):
    """Where an item is. `ring/custody.py` opens with the transitions."""

    STORING = auto()
    LINED_UP = auto()
    READY = auto()
    GATHERING = auto()
    WALKING = auto()
    WAITING = auto()
    HANDING = auto()
    SEEKING = auto()
    MOVING = auto()
    DECIDING = auto()
    RELEASING = auto()
    GRANTED = auto()
    FORGETTING = auto()
    CLAIMING = auto()
    HELD = auto()
    TO_PARK = auto()
    QUEUED = auto()
    MARKING = auto()
    DELIVERING = auto()
    DELIVERED = auto()

    __hash__ = int.__hash__  # an Enum's own is written in Python, and ten times as slow


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


@define(eq=False)
class Item:
    """One report or MO in custody. Mutable, and only the machines of custody touch it.

    There may be millions: what most of them never need takes no room of its own (`NOBODY`, `among`).
    """

    envelope: Envelope
    accepted_at: float
    _state: State
    claimed: bool  # taken from its origin; otherwise this node is its origin
    gateway: str = ""  # the owner, if it is a gateway of this node
    stored: bool = False
    looked: bool = False  # this node has just looked for the owner and found none
    # the walk, at its origin
    lap: int = 0
    lap_began: float = 0.0
    answered: Nodes = NOBODY  # nodes that have answered in this lap, in order
    busy: Nodes = NOBODY  # nodes that could not take it or look for it in this lap
    inexact: bool = False
    sent_to: str = ""
    across: bool = False  # the lap is one of another ring (`crossing.py`), and `answered` are nodes of that
    inexact_across: bool = False
    unanswered_across: int = 0  # laps of the other ring that timed out, or met a busy node
    missing: tuple[str, ...] = ()  # of the other ring, in the lap there
    named: str | None = None  # the node that its first hop went to as the likely owner; empty: nobody seemed to be
    unanswered: int = 0  # laps that timed out, since one was complete
    waits: int = 0
    conversation: Place | None = None  # where its sender is in conversation, if a lap has said so
    asked: Nodes = NOBODY  # coordinators that have been asked where its parts go, in order
    granted_to: str = ""
    # the claim, at the owner's node
    heir: bool = False  # to become this node's own
    claim: int = 0  # tells the answer to this claim from one to an earlier claim, or of an earlier run
    claim_hop: int = 0
    released: bool = False  # its origin has refused it: no key is kept
    # delivery
    attempts: int = 0
    replayed: bool = False  # it was parked here
    superseded: bool = False
    marked: bool = False  # its row says that it is being delivered
    # in a cluster (`sharing.py`)
    stays_until: float = 0.0  # it has just come here, and goes to no other node before
    checked: bool = False  # just now: no final report of its message has been delivered
    lost_since: float | None = None  # its gateway is bound nowhere, and the node that it was bound at is out of reach
    to_park: "tuple[commands.Reason, int] | None" = None  # why, and the gateway's status: there was no room to park it
    old: bool = False  # it has waited, or was found on disk: it gives way to what has just come
    among: "Items | None" = None  # which it is kept among

    @property
    def state(self) -> State:
        """Read-only: `enter` changes it, so that `Items` counts right."""
        return self._state

    def enter(self, state: State) -> None:
        """Be in another state from now on."""
        before, self._state = self._state, state
        if self.among is not None:
            self.among.moved(self, before)

    @property
    def key(self) -> EnvelopeKey:
        return self.envelope.key

    @property
    def ungathered(self) -> bool:
        """A part of a concatenated MO, and it is not known where its parts go."""
        return self.envelope.part is not None and not self.envelope.gateway

    @property
    def outlet(self) -> Outlet:
        return self.envelope.operator, self.gateway

    @property
    def kind(self) -> Kind:
        """Of its row, while it has its message."""
        if not self.claimed:
            return Kind.ORIGIN
        return Kind.HEIR if self.heir else Kind.CLAIM

    def row(self, kind: Kind) -> commands.Row:
        """This item as a durable row of that kind. A tombstone needs no message."""
        envelope = self.envelope
        if kind in (Kind.GRANTED, Kind.DELIVERED):
            envelope = without_message(envelope)
        value = CustodyRow(
            kind, envelope, self.accepted_at, self.gateway, self.granted_to, self.superseded, self.marked
        )
        return commands.Row(commands.Table.CUSTODY, encode_key(self.key), encode_row(value))

    def as_row(self) -> CustodyRow:
        """As it would be written now, for people to look at."""
        kinds = {State.GRANTED: Kind.GRANTED, State.FORGETTING: Kind.GRANTED, State.DELIVERED: Kind.DELIVERED}
        kind = kinds.get(self.state, self.kind)
        return CustodyRow(
            kind, self.envelope, self.accepted_at, self.gateway, self.granted_to, self.superseded, self.marked
        )

    def become_tombstone(self, state: State) -> None:
        """Only the key matters from now on."""
        self.envelope = without_message(self.envelope)
        self.enter(state)

    def no_row(self) -> commands.Row:
        return commands.Row(commands.Table.CUSTODY, encode_key(self.key), None)


def without_message(envelope: Envelope) -> Envelope:
    """All that is needed to recognise it: what a tombstone keeps."""
    return msgspec.structs.replace(envelope, pdu=b"") if envelope.pdu else envelope


class Items:
    """What is in custody, by key; and by state, so that nothing needs to look at all of it."""

    def __init__(self) -> None:
        self._by_key: dict[EnvelopeKey, Item] = {}
        self._by_state: dict[State, dict[Item, None]] = {state: {} for state in State}
        self._awaiting: dict[str, dict[State, dict[Item, None]]] = {}  # by the node whose word it waits for

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: EnvelopeKey) -> bool:
        return key in self._by_key

    def __iter__(self) -> Iterator[Item]:
        return iter(self._by_key.values())

    def get(self, key: EnvelopeKey) -> Item | None:
        return self._by_key.get(key)

    def add(self, item: Item) -> None:
        """In place of one with the same key."""
        self.remove(item.key)
        self._by_key[item.key] = item
        item.among = self
        self._enter(item)

    def remove(self, key: EnvelopeKey) -> None:
        item = self._by_key.pop(key, None)
        if item is not None:
            item.among = None
            self._leave(item, item.state)

    def moved(self, item: Item, before: State) -> None:
        """`Item.enter` says so."""
        self._leave(item, before)
        self._enter(item)

    def _enter(self, item: Item) -> None:
        self._by_state[item.state][item] = None
        if node := _awaited(item, item.state):
            self._awaiting.setdefault(node, {}).setdefault(item.state, {})[item] = None

    def _leave(self, item: Item, state: State) -> None:
        del self._by_state[state][item]
        if node := _awaited(item, state):
            by_state = self._awaiting[node]
            del by_state[state][item]
            if not any(by_state.values()):
                del self._awaiting[node]

    def count(self, state: State) -> int:
        return len(self._by_state[state])

    def in_state(self, *states: State) -> Iterator[Item]:
        """In the order in which they came to it. None may change its state meanwhile."""
        return (item for state in states for item in self._by_state[state])

    def awaited(self) -> dict[str, dict[State, int]]:
        """How many wait for a word of another node (HELD, GRANTED, DELIVERED), by that node."""
        return {
            node: {state: len(items) for state, items in by_state.items() if items}
            for node, by_state in sorted(self._awaiting.items())
        }

    def awaiting(self, node: str) -> list[Item]:
        """What waits for a word of that node."""
        return [item for items in self._awaiting.get(node, {}).values() for item in items]


def _awaited(item: Item, state: State) -> str:
    """The node whose word it waits for in that state, if any."""
    if state is State.GRANTED:
        return item.granted_to
    return item.envelope.origin if state in (State.HELD, State.DELIVERED) else ""


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
