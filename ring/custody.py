"""Custody: what was answered ESME_ROK and is not delivered yet. One machine a node, without I/O.

The driver calls a method for everything that happens and carries out the commands that it returns, in order
(`ring/commands.py`). The same code runs in the product and in simulation. Times are seconds on the node's clock.

An item moves through these states; what is not listed cannot happen, and a late or repeated event changes nothing.

    at its origin
    STORING     row written            -> LINED_UP
    LINED_UP    first in its line      -> READY (no owner known) or QUEUED (owner is a gateway of this node)
    READY       room to walk           -> WALKING
                a part of an MO        -> GATHERING
    WALKING     claimed                -> RELEASING
                owner found here       -> DECIDING
                lap over, nobody       -> READY (again, inexact; or across to another ring), WAITING, or by policy:
                                          DECIDING, parked, dropped
                a part of an MO        -> GATHERING
    GATHERING   its parts go there     -> READY
                no gateway is bound    -> WAITING, or by policy
                this node leaves       -> HANDING, as from WALKING where it would wait, and the line behind it
    WAITING     time, or a node joins, or (an MO) a gateway has bound -> READY
    HANDING     claimed, by an heir    -> RELEASING
                owner found here       -> DECIDING
                nobody takes it        -> WAITING; what is behind it LINED_UP
    DECIDING    row written            -> QUEUED
    RELEASING   row written            -> GRANTED
    GRANTED     claimer has finished   -> FORGETTING
                claimer long removed   -> gone
    FORGETTING  row deleted            -> gone

    at the owner's node
    CLAIMING    row written            -> HELD
    HELD        granted by its origin  -> LINED_UP, then QUEUED; an heir: DELIVERED, and a new one STORING
                refused by its origin  -> gone, or parked if its origin has lost its data directory
                origin long removed    -> parked
    DELIVERED   origin has forgotten   -> gone
                origin long removed    -> gone

    in a cluster (`sharing.py`), instead of all that
    LINED_UP    first in its line      -> SEEKING, or as a gateway is found for it: QUEUED, MOVING, WAITING
                an MO without a rule   -> READY
    SEEKING     its owner is found     -> QUEUED, MOVING, WAITING
                nobody                 -> WAITING, or by policy
    WAITING     time, or a gateway has bound -> as LINED_UP
    MOVING      row written            -> gone: another node has it

    at both
    QUEUED      sent to a session      -> DELIVERING; in a cluster MARKING, and with its row written DELIVERING
                not bound, in a cluster -> MOVING, WAITING
    DELIVERING  answered               -> gone (a claim: DELIVERED), QUEUED again, or parked
                session ended          -> QUEUED
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet

from attrs import frozen

from protocols.peer.frames import (
    SINCE,
    Bound,
    Brought,
    Claimed,
    Decided,
    Declined,
    EnvelopeKey,
    Finished,
    Forgotten,
    Forward,
    Frame,
    Gather,
    HandOver,
    LapDone,
    Relayed,
    Settled,
)
from protocols.smpp.message_ids import normal
from ring.accepting import Accepting, Offer
from ring.claims import Claims
from ring.commands import Collect, Command, Finding
from ring.far import is_far
from ring.inheritance import Inheritance
from ring.items import Item, State
from ring.next_hop import Owners
from ring.parked import Parked
from ring.passing import Passing
from ring.placing import Placing
from ring.restoring import restored
from ring.rows import CustodyRow, Kind, ParkedRow
from ring.settings import CustodySettings
from ring.shelf import Alarm, Shelf
from ring.topology import Topology
from ring.unread import Unread

_RUN_BITS = 32  # an envelope's number is the run in the upper half and a count in the lower: never reused

_AT_REST = frozenset({State.WAITING, State.GRANTED, State.FORGETTING, State.HELD, State.TO_PARK, State.DELIVERED})


@frozen
class Count:
    """How much is in custody."""

    items: int
    walking: int
    waiting: int
    parked: int


class Custody:
    def __init__(
        self,
        *,
        topology: Topology,
        store_id: bytes,
        run: int,
        settings: CustodySettings | None = None,
        parked: int = 0,
        owners: Owners | None = None,
    ) -> None:
        """`run` counts the starts of this data directory, from 1; `parked` is the number of rows in that table.

        `owners` names the node to ask first; without it reports walk in the order of the ring.
        """
        settings = settings or CustodySettings()
        me = topology.me
        self._topology = topology
        self._store_id = store_id
        self._run = run
        self._count = 0
        self._versions: Mapping[str, int] = {}
        self._shelf = Shelf()
        self._unread = Unread()
        self._placing = Placing(self._shelf, settings, topology, run, owners, self._next_key, self._finished)
        self._delivery = self._placing.delivery
        self._delivery.parked = parked
        self._gathering = self._placing.gathering
        self._walk = self._placing.walk
        self._handing_on = self._placing.handing_on
        proceed = self._placing.proceed
        self._claims = Claims(
            self._shelf, settings, me, store_id, self._delivery, self._walk, proceed,
            self._granted_as_heir, self._handing_on.taken, self._next_number,
        )  # fmt: skip
        self._inheritance = Inheritance(self._shelf, settings, me, self._claims, self._next_key, proceed)
        self._passing = Passing(self._shelf, settings, topology, store_id, self._claims, owners)
        self._accepting = Accepting(self._shelf, settings, me, self._delivery, self._next_key, proceed)
        self._parked = Parked(
            self._shelf, settings, me, store_id, self._delivery, self._claims, self._next_key, proceed
        )

    # What is asked of it

    def holds(self, operator: str, message_id: bytes) -> bool:
        """A report of this message is in custody here, so a later one must queue behind it."""
        return self._shelf.lines.holds(operator, message_id)

    @property
    def watching(self) -> bool:
        """Some envelope might be claimed by an open message that appears now (`appeared`)."""
        return len(self._shelf.watch) > 0

    def count(self) -> Count:
        return Count(len(self._shelf.items), self._walk.walking, self._placing.waiting, self._delivery.parked)

    def is_on_its_way(self, key: EnvelopeKey) -> bool:
        """Of this node's custody, and not waiting, to be parked, or let go of."""
        item = self._shelf.items.get(key)
        return item is not None and item.state not in _AT_REST

    def by_operator(self) -> Counter[str]:
        """How many items of each operator still want something of it. For people: slow."""
        over = (State.DELIVERED, State.FORGETTING)
        return Counter(item.envelope.operator for item in self._shelf.items if item.state not in over)

    def by_state(self) -> Counter[State]:
        items = self._shelf.items
        return Counter({state: count for state in State if (count := items.count(state))})

    def awaiting(self) -> dict[str, dict[State, int]]:
        """What waits for a word from another node, by that node.

        HELD: the origin's grant. GRANTED: the claimer has it, and has not finished. DELIVERED: the origin keeps it yet.
        """
        return self._shelf.items.awaited()

    def speaking(self, version: int) -> frozenset[str]:
        """The reachable nodes that speak at least this version of the frames, to choose from for what needs it."""
        return frozenset(node for node, spoken in self._versions.items() if spoken >= version)

    def of_message(self, operator: str, forms: Collection[bytes]) -> list[Item]:
        """Everything of this operator's whose reported id has one of these normal forms. For people: slow."""
        return [
            item
            for item in self._shelf.items
            if item.envelope.operator == operator and normal(item.envelope.message_id) in forms
        ]

    def next_due(self) -> float | None:
        """When `tick` has something to do."""
        parts = (self._shelf.alarms, self._passing, self._placing)
        dues = [part.next_due() for part in parts]
        return min((due for due in dues if due is not None), default=None)

    # Events

    def accept(self, offer: Offer, now: float) -> tuple[EnvelopeKey | None, list[Command]]:
        """Take custody of what the operator sent. None when custody is full: the operator keeps it.

        `Accepted` follows once it is durable. A report without an id and without a gateway parks at once.
        """
        key = self._accepting.accept(offer, now)
        return key, [] if key is None else self._done(now)

    def _next_key(self) -> EnvelopeKey:
        return EnvelopeKey(self._store_id, self._next_number())

    def _next_number(self) -> int:
        self._count += 1
        return self._run << _RUN_BITS | self._count

    def _finished(self, item: Item, now: float) -> None:
        self._claims.repeat(item, now)

    def _granted_as_heir(self, item: Item) -> None:
        self._inheritance.granted(item)

    def durable(self, ticket: int, now: float) -> list[Command]:
        self._shelf.durable(ticket, now)
        return self._done(now)

    def frame(self, sender: str, frame: Frame, now: float, *, taking: bool = True) -> list[Command]:
        """A frame from the node `sender`. Frames that are not about custody are not for this machine.

        `taking` False: the store takes no writes for others now.
        """
        if self._unread.is_meant(frame):
            return []
        match frame:
            case Forward():
                self._passing.forward(frame, now)
            case LapDone():
                self._walk.lap_done(frame, now)
            case Claimed():
                self._claims.claimed(frame, now)
            case Settled():
                self._claims.settled(frame, sender, now)
            case Finished():
                self._claims.finished(frame, sender)
            case Forgotten():
                self._claims.forgotten(frame)
            case Gather():
                self._gathering.asked(frame, sender, now)
            case Decided():
                self._gathering.told(frame, now)
            case Bound():
                self._placing.gateway_heard(sender, frame, now)
            case HandOver():
                self._inheritance.offered(frame, sender, now, taking=taking, leaving=self._handing_on.leaving)
            case Declined():
                self._handing_on.declined(frame, sender, now)
            case Brought():
                self._shelf.command(Collect())
            case _:
                raise TypeError(f"{type(frame).__name__} is no frame of custody")
        return self._done(now)

    def asked(self, key: EnvelopeKey, finding: Finding | None, now: float) -> list[Command]:
        """The answer to `Ask`."""
        if self._passing.is_asking(key):
            self._passing.asked(key, finding, now)
        elif item := self._shelf.items.get(key):
            self._placing.asked(item, finding, now)
        return self._done(now)

    def arrived(self, rows: Sequence[CustodyRow], now: float) -> list[Command]:
        """The answer to `Collect`, and whatever else is found in this node's inbox: in key order, each row once."""
        self._placing.arrived(rows, now)
        return self._done(now)

    def recalled(self, key: EnvelopeKey, row: ParkedRow | None, now: float) -> list[Command]:
        """The answer to `Recall`."""
        self._claims.recalled(key, row, now)
        return self._done(now)

    def unsent(self, key: EnvelopeKey, now: float) -> list[Command]:
        """The answer to `Deliver` when no session of the gateway could take it."""
        self._delivery.unsent(key, now)
        return self._done(now)

    def put_off(self, key: EnvelopeKey, now: float) -> list[Command]:
        """The answer to `Deliver` while another report of its message is with the gateway: try it again soon."""
        self._delivery.put_off(key, now)
        return self._done(now)

    def superseded(self, key: EnvelopeKey, now: float) -> list[Command]:
        """The answer to `Deliver` of an intermediate report when a final one has been delivered past custody."""
        self._delivery.supersede(key, now)
        return self._done(now)

    def answered(self, key: EnvelopeKey, status: int | None, now: float) -> list[Command]:
        """The gateway's command_status for what was delivered; None when its session ended without an answer."""
        self._delivery.answered(key, status, now)
        return self._done(now)

    def reachable(self, versions: Mapping[str, int], now: float) -> list[Command]:
        """The nodes that can be reached have changed, or the version of the frames that one of them speaks.

        Gates of another ring are named "cluster/node"; they may be a hop away.
        """
        self._versions = {node: version for node, version in versions.items() if not is_far(node)}
        nodes = self._versions.keys()
        self._passing.reachable(nodes, self.speaking(SINCE[Relayed]))
        self._placing.presence.reachable(nodes)
        self._gathering.reachable(nodes, now)
        self._claims.reachable(versions.keys(), now)
        self._placing.reachable(versions.keys(), nodes, self.speaking(SINCE[HandOver]), now)
        return self._done(now)

    def retopologize(self, topology: Topology, now: float) -> list[Command]:
        """The configured nodes have changed."""
        self._passing.retopologize(topology)
        self._placing.retopologize(topology)
        self._topology = topology
        self._claims.retopologize(topology, now)
        return self._done(now)

    def joined(self, nodes: AbstractSet[str], now: float) -> list[Command]:
        """The nodes that the other ring's table has, "cluster/node", are known, or have changed."""
        self._claims.joined(nodes, now)
        return self._done(now)

    def leave(self, now: float) -> list[Command]:
        """This node is going to stop: hand on what others can deliver as well, and take over nothing from them."""
        self._placing.leave(now)
        return self._done(now)

    def stay(self, now: float) -> list[Command]:
        """It is not going to, after all."""
        self._placing.stay(now)
        return self._done(now)

    @property
    def handing_on(self) -> bool:
        """After `leave`: something may yet be handed on, or an heir has not confirmed that it is its own."""
        return self._placing.is_handing_on()

    def gateway_bound(self, operator: str, gateway: str, now: float) -> list[Command]:
        """A receiver session of a gateway of this node is there."""
        self._placing.gateway_bound(operator, gateway, now)
        return self._done(now)

    def gateway_gone(self, operator: str, gateway: str, now: float) -> list[Command]:
        """The last receiver session of a gateway of this node has ended."""
        self._placing.gateway_gone(operator, gateway, now)
        return self._done(now)

    def appeared(self, operator: str, response_id: bytes, now: float) -> list[Command]:
        """An open message with this id has just been recorded here."""
        for key in self._shelf.watch.matching(operator, response_id):
            if not self._passing.appeared(key) and (item := self._shelf.items.get(key)):
                self._placing.look_again(item)
        return self._done(now)

    def replay(
        self, parked: ParkedRow, gateway: str, now: float, *, node: str = ""
    ) -> tuple[EnvelopeKey | None, list[Command]]:
        """Take a parked row back into custody: to a gateway of this node, or (with "") round the ring.

        With `node` it goes to that node and no other: to its gateway of that name, or (with "") to any that is bound.
        None when a late claim is just taking it, or has.
        """
        key = self._parked.replay(parked, gateway, node, now)
        return key, [] if key is None else self._done(now)

    def drop_parked(self, parked: ParkedRow, now: float) -> list[Command]:
        """A person drops a parked row. Nothing is done when a late claim is just taking it, or has."""
        return self._done(now) if self._parked.drop(parked) else []

    def recount(self, parked: int) -> None:
        """So many rows are parked: those of a node that is gone have come to this one."""
        self._delivery.parked = parked

    def adopt_parked(self, parked: ParkedRow, now: float) -> tuple[bool, list[Command]]:
        """Set aside what another node of this store has set aside, under a name that is not used here.

        False when the parked quota is full: nothing was done.
        """
        adopted = self._parked.adopt(parked)
        return adopted, self._done(now) if adopted else []

    def restore(self, row: CustodyRow, now: float) -> None:
        """A row found on disk at start, in key order; `resume` follows after the last one."""
        if row.kind is Kind.DECISION:
            self._gathering.restore(row, now)
            return
        item = restored(row, now)
        self._shelf.items.add(item)
        if item.state in (State.LINED_UP, State.HELD):
            self._shelf.lines.join(item)
        if row.kind is Kind.ORIGIN and not row.gateway:
            self._shelf.watch.add(row.envelope)

    def leave_unread(self, name: bytes) -> None:
        """Instead of `restore`, of a row that cannot be read: it is there, and other nodes may speak of it."""
        self._unread.add(name)

    def resume(self, now: float) -> list[Command]:
        """Go on with everything that `restore` brought back.

        What other nodes must hear again is said when they join.
        """
        self._shelf.lines.sort()
        self._claims.retopologize(self._topology, now)
        for item in list(self._shelf.items):
            self._placing.proceed(item, now)
        return self._done(now)

    def tick(self, now: float) -> list[Command]:
        """Do what is due."""
        for alarm, name in self._shelf.alarms.due(now):
            if isinstance(name, tuple):
                self._delivery.reopen(name, now)
            elif item := self._shelf.items.get(name):
                self._ring_alarm(alarm, item, now)
        self._passing.tick(now)
        self._placing.tick(now)
        return self._done(now)

    def _ring_alarm(self, alarm: Alarm, item: Item, now: float) -> None:
        match alarm:
            case Alarm.LAP:
                self._walk.lap_timed_out(item, now)
            case Alarm.GATHER:
                self._gathering.timed_out(item, now)
            case Alarm.WAKE:
                self._placing.wake(item, now)
            case Alarm.RETRY:
                self._delivery.retry(item.key, now)
            case Alarm.REPEAT:
                self._claims.repeat(item, now)
            case Alarm.ABANDON:
                self._claims.abandon(item, now)
            case Alarm.PUMP:
                raise AssertionError("a pump alarm is named by its outlet")

    def _done(self, now: float) -> list[Command]:
        self._placing.start_more(now)
        return self._shelf.take()
