"""Custody in a cluster, whose database gives every node the open messages of all, and custody of a node that is gone.

Each node has a part of custody. A row goes from one to another in one statement, which takes it from the first and
puts it into the inbox of the second; so it is in one part at any time, and nobody claims and nobody grants:

    sought       a report whose message is not known: looked for in the database (SEEKING), again and again for
                 `unmatched_for_s`, then by the operator's policy. No node is asked: each would look at the same rows
    designated   it is for a gateway, wherever that is bound: a report whose message was found, an MO of a rule
                   bound here             -> QUEUED
                   bound at another node  -> MOVING: one hop, to that node
                   bound nowhere          -> WAITING, until it binds anywhere, or as long as `claim_for_s`
    anything else (an MO without a rule, a part of one) first asks round the ring as anywhere (`walk.py`), but nobody
    claims it: the node whose gateway is to have it says so, and it is designated

A gateway may leave a node and bind at another: what is queued for it here is designated again. All of a line that is
for the same gateway moves together, in its order.

What arrives gets a key of this node's, and names the one that it came by, which tells its order among others from
there; the same write takes it from the inbox. A row of a node that was taken over from may say that it was being
delivered: it is parked as `maybe_delivered`, or delivered once more, as `maybe_delivered` says. Where a gateway was
lost with its node, `stand_in` may name another one that gets its reports.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from protocols.peer.frames import Brought, EnvelopeKey
from ring.commands import Ask, Finding, Note, Reason, Row, Table
from ring.delivery import Delivery
from ring.gathering import Gathering
from ring.items import Item, Outlet, State
from ring.presence import Presence
from ring.rows import CustodyRow, Kind, encode_key, encode_row
from ring.settings import ClusterSettings, CustodySettings
from ring.shelf import Alarm, Shelf, backoff
from ring.topology import Topology
from ring.walk import Walk

# What has just come here and cannot be delivered here goes on after this: two nodes that have not heard of each other's
# gateways yet must not throw it to and fro.
_STAYS_S: Final = 1.0
_IN_HAND: Final = frozenset({State.SEEKING, State.MOVING, State.QUEUED, State.MARKING, State.DELIVERING})
_UNDER_WAY: Final = frozenset({State.QUEUED, State.MARKING, State.DELIVERING, State.DECIDING, State.MOVING})
# What moves at one moment goes to the database in one statement, which has a longest size: 16 MiB by default, and 100
# rows of 64 KiB are 13 MiB in hexadecimal. An hour's reports, for a gateway that binds at last, move so many at a time.
MOVING_AT_ONCE: Final = 100
# What was taken from the inbox is known so long. A node whose statement got no answer sends it again within seconds, or
# not at all: its term ends.
TAKEN_REMEMBERED: Final = 10_000


class Sharing:
    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        cluster: ClusterSettings,
        topology: Topology,
        presence: Presence,
        delivery: Delivery,
        walk: Walk,
        gathering: Gathering,
        next_key: Callable[[], EnvelopeKey],
        proceed: Callable[[Item, float], None],
    ) -> None:
        """`proceed` takes an item that is stored and may be first in its line."""
        self._shelf = shelf
        self._settings = settings
        self._cluster = cluster
        self._topology = topology
        self._presence = presence
        self._delivery = delivery
        self._walk = walk
        self._gathering = gathering
        self._next_key = next_key
        self._proceed = proceed
        self._reachable: AbstractSet[str] = frozenset()
        self._waiting: dict[EnvelopeKey, Item] = {}
        self._moving = 0  # items that are on their way to another node, and not durably there
        self._turns: dict[EnvelopeKey, None] = {}  # those of `_waiting` that move once others have, in this order
        self._taken: dict[EnvelopeKey, None] = {}  # names of rows that were in the inbox, the last one last
        self.leaving = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def ready(self, item: Item, now: float) -> None:
        """It was first in its line, and no gateway has been found for it here."""
        self._waiting.pop(item.key, None)
        if not self._shelf.lines.is_head(item):
            item.enter(State.LINED_UP)  # an older one has come back from a node that is gone
            return
        envelope = item.envelope
        if envelope.is_sought:
            self._seek(item, now)
        elif envelope.gateway or envelope.node:
            self._send(item, now)
        else:
            self._walk.ready(item)

    # Whose it is

    def _seek(self, item: Item, now: float) -> None:
        looked, item.looked = item.looked, False  # just before it came into custody
        if looked and self._left_s(item, now) > 0:  # else it has stood in its line for all that time since
            self._wait_for_owner(item, now)
            return
        item.enter(State.SEEKING)
        # By a rule that is not learned only once the message with the exact id had its time to be written.
        self._shelf.command(Ask(item.envelope, inexact=item.waits > 0))

    def look_again(self, item: Item) -> None:
        """An open message that may own it has just been recorded at this node."""
        if item.key in self._waiting or item.state is State.SEEKING:
            self._shelf.command(Ask(item.envelope, inexact=False))

    def asked(self, item: Item, finding: Finding | None, now: float) -> bool:
        """What the database says of an item of this node. False: this is not about custody in a cluster."""
        if not item.envelope.is_sought:
            if item.state is State.SEEKING:  # whether it comes too late
                item.superseded = item.superseded or (finding is not None and finding.finished)
                item.checked = True
                self._send(item, now)
                item.checked = False
            return item.state in _IN_HAND or item.key in self._waiting
        if item.state is not State.SEEKING and item.key not in self._waiting:
            return True  # it was found, or given up, by an earlier answer
        if finding is not None:
            item.superseded = item.superseded or (finding.finished and not item.envelope.final)
            self._designate(item, finding.gateway)
            self.ready(item, now)
        elif item.state is State.SEEKING:
            self._wait_for_owner(item, now)
        return True

    def placed(self, item: Item, gateway: str, now: float) -> None:
        """The lap of an MO has found who is to have it."""
        self._designate(item, gateway)
        self.ready(item, now)

    def _designate(self, item: Item, gateway: str) -> None:
        item.envelope = msgspec.structs.replace(item.envelope, gateway=gateway)
        self._shelf.watch.discard(item.key)

    def _wait_for_owner(self, item: Item, now: float) -> None:
        left_s = self._left_s(item, now)
        if left_s <= 0:
            # A node that is out of reach may know of a message that it could not write yet.
            self._walk.give_up(item, not self._missing(), now)
        elif not self._leave_to_heir(item, now):
            self._wait(item, self._backoff(item), left_s, now)

    def _left_s(self, item: Item, now: float) -> float:
        """For how long it is looked for yet."""
        # By the clock of the node that took it before, it may be older or younger than by this one's.
        here_since = max(item.accepted_at, item.stays_until - _STAYS_S)
        return here_since + self._cluster.unmatched_for_s - now

    def _backoff(self, item: Item) -> float:
        settings = self._settings
        return backoff(item.waits + 1, settings.walk_retry_min_s, settings.walk_retry_max_s, item.key.number)

    def _missing(self) -> tuple[str, ...]:
        return self._topology.missing({self._topology.me, *self._reachable})

    # Where it goes

    def _send(self, item: Item, now: float) -> None:
        if item.superseded:
            self._delivery.start(item, now)  # which ends it
            return
        self._stand_in(item, now)
        node = self._node_for(item)
        if node is None:
            self._wait_for_gateway(item, now)
        elif node != self._topology.me:
            self._move_in_time(item, node, now)
        elif self._may_be_late(item):
            item.enter(State.SEEKING)
            self._shelf.command(Ask(item.envelope, inexact=True, only_finished=True))
        else:
            envelope = item.envelope
            item.gateway = envelope.gateway or self._presence.here(envelope.operator)[0]
            self._delivery.start(item, now)

    def _may_be_late(self, item: Item) -> bool:
        """An intermediate report, and the final one may have been delivered by another node meanwhile."""
        envelope = item.envelope
        return envelope.kind == "dlr" and not envelope.final and not envelope.node and not item.checked

    def _node_for(self, item: Item) -> str | None:
        envelope = item.envelope
        if not envelope.node:
            return self._presence.where(envelope.operator, envelope.gateway)
        if envelope.node != self._topology.me:
            return envelope.node if envelope.node in self._reachable else None
        here = self._presence.here(envelope.operator)
        return self._topology.me if here and envelope.gateway in ("", *here) else None

    def go_elsewhere(self, item: Item, now: float) -> bool:
        """Its gateway is to get it at this node. False if that is bound here, else it is designated again."""
        if item.gateway in self._presence.here(item.envelope.operator):
            return False
        self._designate(item, item.gateway)
        item.gateway = ""
        self._send(item, now)
        return True

    def gone(self, outlet: Outlet, now: float) -> None:
        """The last session of a gateway of this node has ended."""
        self._delivery.gone(outlet, now)

    # Waiting

    def _wait_for_gateway(self, item: Item, now: float) -> None:
        left_s = item.accepted_at + self._settings.claim_for_s - now
        if left_s <= 0:
            nobody_else = item.envelope.kind == "mo" and not self._missing()
            self._delivery.park(item, Reason.UNCLAIMED if nobody_else else Reason.OWNER_UNREACHABLE, now)
            return
        if self._leave_to_heir(item, now):
            return
        wait_s = left_s
        if item.lost_since is not None:
            wait_s = item.lost_since + self._cluster.stand_in_after_s - now
        self._wait(item, wait_s, left_s, now)

    def _wait(self, item: Item, wait_s: float, left_s: float, now: float) -> None:
        item.enter(State.WAITING)
        item.waits += 1
        self._waiting[item.key] = item
        wait_s = max(0.0, min(wait_s, left_s))
        missing = " ".join(self._missing())
        gateway = {"gateway": item.envelope.gateway} if item.envelope.gateway else {}
        self._shelf.note("waiting", item, wait_s=round(wait_s, 1), nodes=missing, **gateway)
        self._shelf.alarms.set(now + wait_s, Alarm.WAKE, item.key)

    def wake(self, item: Item, now: float) -> bool:
        """False: it does not wait here."""
        if item.key not in self._waiting:
            return False
        self._shelf.alarms.cancel(Alarm.WAKE, item.key)
        self.ready(item, now)
        return True

    def gateway_bound(self, operator: str, gateway: str, now: float) -> None:
        """Here or at another node: what waits for it, or for any, goes on."""
        for item in list(self._waiting.values()):
            envelope = item.envelope
            if not envelope.is_sought and envelope.operator == operator and envelope.gateway in ("", gateway):
                self.wake(item, now)

    def reachable(self, nodes: AbstractSet[str], now: float) -> None:
        """The nodes that can be reached have changed: gateways may be lost with them, or found again."""
        self._reachable = nodes
        for item in list(self._waiting.values()):
            if not item.envelope.is_sought:
                self.wake(item, now)

    def retopologize(self, topology: Topology) -> None:
        self._topology = topology

    def _stand_in(self, item: Item, now: float) -> None:
        """Once its gateway is lost for long, a report is for the gateway that stands in for it, if there is one."""
        envelope = item.envelope
        other = self._cluster.stand_in.get(envelope.gateway, "")
        if envelope.kind != "dlr" or not other or not self._presence.is_lost(envelope.operator, envelope.gateway):
            item.lost_since = None
        elif item.lost_since is None:
            item.lost_since = now
        elif now >= item.lost_since + self._cluster.stand_in_after_s:
            self._shelf.note("stood_in", item, gateway=other, instead_of=envelope.gateway)
            item.lost_since = None
            self._designate(item, other)

    # From one node to another

    def _move_in_time(self, item: Item, node: str, now: float) -> None:
        if now < item.stays_until:
            self._wait(item, item.stays_until - now, item.stays_until - now, now)
        elif not self._may_move(item):
            return
        else:
            self._move(self._together(item), node)

    def _may_move(self, item: Item) -> bool:
        """False: as many move as may at a time, and it waits for its turn."""
        if self._moving < MOVING_AT_ONCE:
            return True
        item.enter(State.WAITING)
        self._waiting[item.key] = item
        self._turns[item.key] = None
        return False

    def _take_turns(self, now: float) -> None:
        while self._turns and self._moving < MOVING_AT_ONCE:
            key = next(iter(self._turns))
            del self._turns[key]
            if key in self._waiting:
                self.wake(self._waiting[key], now)

    def _together(self, head: Item) -> list[Item]:
        """Those behind it that are for the same gateway, in order."""
        items = [head]
        for item in self._shelf.lines.behind(head):
            same = (item.envelope.gateway, item.envelope.node) == (head.envelope.gateway, head.envelope.node)
            if item.state is not State.LINED_UP or item.gateway or item.superseded or not same:
                break
            items.append(item)
        return items

    def _move(self, items: Sequence[Item], node: str) -> None:
        rows: list[Row] = []
        self._moving += len(items)
        for item in items:
            item.enter(State.MOVING)
            rows.append(item.no_row())
            rows.append(self._row_for(item, node))

        def moved(now: float) -> None:
            self._moving -= len(items)
            for item in items:
                self._shelf.note("moved", item, to=node, age_s=round(now - item.accepted_at, 3))
                self._shelf.remove(item)
            self._shelf.send(node, Brought())
            for item in items:
                if following := self._shelf.lines.leave(item):
                    self._proceed(following, now)
            self._take_turns(now)

        self._shelf.write(*rows, then=moved)

    def _row_for(self, item: Item, node: str) -> Row:
        """Under a new key, so that they stand in the inbox in the order in which they leave."""
        envelope = msgspec.structs.replace(item.envelope, key=self._next_key(), former=None)
        row = CustodyRow(Kind.ORIGIN, envelope, item.accepted_at, superseded=item.superseded)
        return Row(Table.CUSTODY, encode_key(envelope.key), encode_row(row), inbox=node)

    def arrived(self, rows: Sequence[CustodyRow], now: float) -> None:
        """What is in the inbox, in key order. What was there before is not taken again: a node that gives something
        away, and hears no answer of its database, gives it once more."""
        rows = [row for row in rows if not self._taken_before(row)]
        taken = [(self._take(row, now), row.delivering) for row in rows if row.envelope.pdu]
        for item, delivering in taken:
            if self._is_in_doubt(delivering):
                self._delivery.park(item, Reason.MAYBE_DELIVERED, now)
            else:
                self._proceed(item, now)
        for row in rows:
            if not row.envelope.pdu:
                self._take_decision(row, now)

    def _taken_before(self, row: CustodyRow) -> bool:
        key = row.envelope.key
        if key not in self._taken:
            self._taken[key] = None
            if len(self._taken) > TAKEN_REMEMBERED:
                del self._taken[next(iter(self._taken))]
            return False
        self._shelf.command(Note("arrived_again", row.envelope, fields=(("origin", row.envelope.origin),)))
        self._shelf.write(self._taken_out(row))
        return True

    def _is_in_doubt(self, delivering: bool) -> bool:
        """A gateway may have got it from the node that is gone, and a person is to say what becomes of it."""
        return delivering and self._cluster.maybe_delivered == "park"

    def _take_decision(self, row: CustodyRow, now: float) -> None:
        """The coordinator of parts is gone: this node answers for it."""
        if self._gathering.inherit(row, now):
            own = Row(Table.CUSTODY, encode_key(row.envelope.key), encode_row(row))
            self._shelf.write(own, self._taken_out(row))
        else:
            self._shelf.write(self._taken_out(row))

    def _taken_out(self, row: CustodyRow) -> Row:
        return Row(Table.CUSTODY, encode_key(row.envelope.key), None, inbox=self._topology.me)

    def _take(self, row: CustodyRow, now: float) -> Item:
        former = row.envelope
        envelope = msgspec.structs.replace(
            former,
            key=self._next_key(),
            origin=self._topology.me,
            former=former.former or former.key,
            gateway=row.gateway or former.gateway,
        )
        item = Item(
            envelope,
            min(row.accepted_at, now),
            State.LINED_UP,
            claimed=False,
            stored=True,
            superseded=row.superseded,
            marked=self._is_in_doubt(row.delivering),  # until it is parked, for which there may be no room yet
            stays_until=now + _STAYS_S,
        )
        self._shelf.items.add(item)
        self._shelf.lines.join(item)
        self._shelf.lines.arrange(item, _UNDER_WAY)
        self._shelf.watch.add(envelope)
        self._shelf.note("arrived", item, origin=former.origin)
        self._shelf.write(item.row(Kind.ORIGIN), self._taken_out(row))
        return item

    # A node that stops

    def leave(self, now: float) -> None:
        """This node is going to stop: what waits here waits at another one."""
        self.leaving = True
        for item in self._walk.all_waiting():
            if self._moving < MOVING_AT_ONCE and self._leave_to_heir(item, now):
                self._walk.leave(item)
        for item in list(self._waiting.values()):
            self.wake(item, now)

    def stay(self) -> None:
        """It is not going to, after all."""
        self.leaving = False

    def _leave_to_heir(self, item: Item, now: float) -> bool:
        heir = next((node for node in self._topology.others if node in self._reachable), None)
        here_only = item.envelope.node == self._topology.me
        if not self.leaving or heir is None or here_only or now < item.stays_until:
            return False
        if self._may_move(item):
            self._move([item], heir)
        return True

    def under_way(self) -> bool:
        """Something moves, or is going to."""
        if not self.leaving or not self._reachable:
            return False
        going = (State.STORING, State.SEEKING, State.MOVING)
        return any(self._shelf.items.count(state) for state in going)
