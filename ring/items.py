"""What is in custody at this node: an item for each report or MO, and all of them together.

There may be millions, so nothing here looks at all of them to answer a question that is asked often.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum, auto
from types import MappingProxyType
from typing import Final

import msgspec
from attrs import define

from protocols.peer.frames import Envelope, EnvelopeKey, Place
from ring import commands
from ring.rows import CustodyRow, Kind, encode_key, encode_row

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
    """What is in custody, by key; and by state, and by the node whose word it waits for."""

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
