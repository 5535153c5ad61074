"""The hand-over from an origin to the node of the owner, both sides of it.

    owner's node                            origin
    CLAIM row durable      -- Claimed -->   GRANTED row durable
    deliver                <-- Settled --
    DELIVERED row durable  -- Finished -->  row deleted, durable
    row deleted            <-- Forgotten --

Two rules make it safe whatever crashes, and however often an envelope has been sent round:

- The owner's node has a durable copy before the origin lets go, so one of the two always holds it.
- The owner's node delivers only with the origin's word, which the origin gives to one node alone, and it keeps the
  envelope's key until the origin has forgotten the envelope. A copy that comes late (of an earlier lap, through a node
  that was stuck) is therefore either recognised by its key here, or refused by its origin as gone.

The owner's node repeats Claimed and Finished until they are answered; the origin only answers. But to a node that joins
it says again what it has granted to it: a node that came back without its data directory knows nothing of that, and
says Finished, so that the origin does not wait for ever. Until that comes, it asks every `walk_retry_max_s`. A node of
another ring (`far.py`) joins unseen: that one is told when a gate of its ring can be reached again, and as often.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from protocols.peer.frames import Claimed, EnvelopeKey, Finished, Forgotten, Forward, Settled
from ring.commands import Finding, Reason, Recall, Row, Table
from ring.delivery import Delivery
from ring.far import cluster_of, is_far
from ring.items import Item, State
from ring.rows import Kind, ParkedRow, encode_key
from ring.settings import CustodySettings
from ring.shelf import Alarm, Shelf
from ring.topology import Topology
from ring.walk import Walk

_UNSAID = 0  # the claim that an answer is to, where the origin is of a version that does not say it
_STILL_THERE = -1  # no answer to a claim: do you still have what was granted to you?
_UNDECIDED = frozenset({State.STORING, State.GATHERING, State.RELEASING})
_RELEASABLE = frozenset({State.LINED_UP, State.READY, State.WALKING, State.WAITING, State.HANDING, State.TO_PARK})


class Claims:
    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        me: str,
        store_id: bytes,
        delivery: Delivery,
        walk: Walk,
        proceed: Callable[[Item, float], None],
        inherit: Callable[[Item], None],
        handed_on: Callable[[Item], None],
        next_number: Callable[[], int],
    ) -> None:
        """`inherit` makes what was granted to this node as an heir its own; `handed_on` is told what goes to one.

        `next_number` gives numbers that this node never uses again.
        """
        self._shelf = shelf
        self._settings = settings
        self._me = me
        self._store_id = store_id
        self._delivery = delivery
        self._walk = walk
        self._proceed = proceed
        self._inherit = inherit
        self._handed_on = handed_on
        self._next_number = next_number
        self._reachable: AbstractSet[str] = frozenset()
        self._nodes: AbstractSet[str] = frozenset()  # the configured ones, when `retopologize` was last called
        self._joined = ""  # the cluster of the other ring, likewise
        self._far_nodes: AbstractSet[str] = frozenset()  # the nodes of that, as `joined` was told; empty: unknown
        self._recalling: dict[EnvelopeKey, Claimed] = {}

    # At the owner's node

    def claim(self, forward: Forward, finding: Finding, now: float) -> bool:
        """Take it. False when custody is full or nothing can be written: the origin keeps it and tries again."""
        if not finding.taking or len(self._shelf.items) >= self._settings.max_messages:
            return False
        item = Item(
            envelope=forward.envelope,
            accepted_at=now - forward.age_s,
            state=State.CLAIMING,
            claimed=True,
            gateway=finding.gateway,
            lap=forward.lap,
            claim_hop=forward.hop,
            superseded=finding.finished and not forward.envelope.final,
        )
        self._shelf.items.add(item)
        self._shelf.watch.discard(item.key)
        self._let_go_of_former(item, now)
        self._shelf.lines.join(item)

        def claimed(now: float) -> None:
            item.enter(State.HELD)
            self._shelf.note("claimed", item, item.claim_hop, gateway=item.gateway, origin=item.envelope.origin)
            self.repeat(item, now)

        self._shelf.write(item.row(Kind.CLAIM), then=claimed)
        return True

    def _let_go_of_former(self, item: Item, now: float) -> None:
        """Its last origin granted it to the present one: so a claim under the name that it had there was in vain."""
        key = item.envelope.former
        former = self._shelf.items.get(key) if key is not None else None
        if former is not None and former.state is State.HELD:
            self._refused(former, "handed_on", now)

    def repeat(self, item: Item, now: float) -> None:
        """Tell the origin what it has not answered, now and again. An origin out of reach is told when it is back."""
        origin = item.envelope.origin
        if item.state is State.HELD:
            item.claim = item.claim or self._next_number()
            line = self._inherited_line(item)
            self._shelf.send(origin, Claimed(item.key, self._me, item.lap, item.claim_hop, line, item.claim))
        elif item.state is State.DELIVERED and item.stored:
            self._shelf.send(origin, Finished(item.key, self._me))
        elif item.state is State.GRANTED:
            self._ask_whether_still_there(item, now)
            return
        else:
            return
        if self._can_reach(origin):
            self._shelf.alarms.set(now + self._settings.repeat_s, Alarm.REPEAT, item.key)

    def _can_reach(self, node: str) -> bool:
        """A node of another ring: as far as this one can know."""
        return node in self._reachable or (is_far(node) and any(map(is_far, self._reachable)))

    def _ask_whether_still_there(self, item: Item, now: float) -> None:
        self._shelf.send(item.granted_to, Settled(item.key, granted=True, claim=_STILL_THERE))
        self._watch_claimer(item, now)

    def _watch_claimer(self, item: Item, now: float) -> None:
        """Ask later: nothing but its answer ends this, and a node that has lost its data directory repeats none."""
        if self._can_reach(item.granted_to):
            self._shelf.alarms.set(now + self._settings.walk_retry_max_s, Alarm.REPEAT, item.key)

    def _inherited_line(self, item: Item) -> tuple[EnvelopeKey, ...]:
        """What an heir holds of the item's line, in order, and its origin has not granted yet."""
        if not item.heir:
            return ()
        origin = item.envelope.origin
        line = self._shelf.lines.of(item)
        return tuple(
            each.key for each in line if each.heir and each.state is State.HELD and each.envelope.origin == origin
        )

    def settled(self, frame: Settled, sender: str, now: float) -> None:
        """The origin's word on a claim. Only the first one counts, and only on this claim.

        A word on an earlier claim of the same envelope, delayed or doubled on its way, would deliver what is another's
        by now, or drop what is ours.
        """
        item = self._shelf.items.get(frame.key)
        if item is None and frame.claim == _STILL_THERE:
            self._shelf.send(sender, Finished(frame.key, self._me))
        if item is None or item.state is not State.HELD or frame.claim not in (item.claim, _UNSAID):
            return
        self._shelf.alarms.cancel(Alarm.REPEAT, item.key)
        if frame.granted and item.heir:
            self._inherit(item)
        elif frame.granted:
            item.enter(State.LINED_UP)
            item.stored = True
            self._proceed(item, now)
        elif frame.reason == "unknown_store":
            item.released = True
            self._delivery.park(item, Reason.ORIGIN_LOST, now)
        else:
            self._refused(item, frame.reason, now)

    def _refused(self, item: Item, reason: str, now: float) -> None:
        self._shelf.alarms.cancel(Alarm.REPEAT, item.key)
        item.released = True
        self._shelf.note("claim_refused", item, item.claim_hop, reason=reason)
        self._delivery.finish(item, now)

    def forgotten(self, frame: Forgotten) -> None:
        """The origin knows the envelope no more, so no copy of it can be granted to anybody."""
        item = self._shelf.items.get(frame.key)
        if item is not None and item.claimed and item.state is State.DELIVERED:
            self._shelf.write(item.no_row())
            self._shelf.remove(item)

    def reachable(self, nodes: AbstractSet[str], now: float) -> None:
        joined, self._reachable = nodes - self._reachable, nodes
        if not joined:
            return
        crossable = any(map(is_far, joined))
        for node in self._shelf.items.awaited():
            if node in joined or (crossable and is_far(node)):
                for item in self._shelf.items.awaiting(node):
                    if item.claimed:
                        self.repeat(item, now)
                    else:
                        self._ask_whether_still_there(item, now)

    def retopologize(self, topology: Topology, now: float) -> None:
        """What waits for the word of a node that is configured no more waits for `claim_for_s`, then no longer.

        The node may be put back with all that it has on disk: claims whose grants only we remember, and what it has
        granted us.
        """
        self._nodes = frozenset(topology.nodes)
        self._joined = topology.joined
        self._wait_for_strangers(now)

    def joined(self, nodes: AbstractSet[str], now: float) -> None:
        """The nodes that the other ring's table has, "cluster/node". What waits for another waits likewise."""
        if nodes != self._far_nodes:
            self._far_nodes = nodes
            self._wait_for_strangers(now)

    def _wait_for_strangers(self, now: float) -> None:
        for item in self._shelf.items:
            if not self._waits_for_stranger(item):
                self._shelf.alarms.cancel(Alarm.ABANDON, item.key)
            elif not self._shelf.alarms.is_set(Alarm.ABANDON, item.key):
                self._shelf.alarms.set(now + self._settings.claim_for_s, Alarm.ABANDON, item.key)

    def _waits_for_stranger(self, item: Item) -> bool:
        other = item.envelope.origin if item.claimed else item.granted_to
        if is_far(other):
            return cluster_of(other) != self._joined or (bool(self._far_nodes) and other not in self._far_nodes)
        return bool(other) and other not in self._nodes

    def abandon(self, item: Item, now: float) -> None:
        """The other node has been configured no more for `claim_for_s`."""
        if item.state is State.HELD:
            item.released = True
            self._delivery.park(item, Reason.ORIGIN_REMOVED, now)
        elif item.state is State.GRANTED or (item.state is State.DELIVERED and item.stored):
            self._shelf.write(item.no_row())
            self._shelf.remove(item)
        else:  # with the gateway, or being written: what it comes to waits for that node as well
            self._shelf.alarms.set(now + self._settings.claim_for_s, Alarm.ABANDON, item.key)

    # At the origin

    def claimed(self, frame: Claimed, now: float) -> None:
        """Give the envelope to the first node that claims it, and to that one again if it asks again."""
        item = self._shelf.items.get(frame.key)
        if frame.key.store != self._store_id:
            self._answer(frame, granted=False, reason="unknown_store")
        elif item is None:
            self._recalling[frame.key] = frame
            self._shelf.command(Recall(frame.key))
        elif item.state is State.GRANTED and item.granted_to == frame.node:
            self._answer(frame, granted=True)
        elif _is_releasable(item):
            self._release(self._together(item, frame), frame, now)
        elif item.state not in _UNDECIDED:
            self._answer(frame, granted=False, reason="gone")
        # else: the claimer hears of it, or asks again. A refusal is for good: another of its claims may be on its way,
        # and when that comes, it has dropped what it had.

    def _together(self, item: Item, frame: Claimed) -> list[Item]:
        """What is granted with it: the reports that the claimer has on disk of the same line, if it is an heir."""
        line = [self._shelf.items.get(key) for key in frame.line]
        found = [other for other in line if other is not None and _is_releasable(other)]
        return found if item in found else [item]

    def _answer(self, frame: Claimed, granted: bool, reason: str = "") -> None:
        self._shelf.send(frame.node, Settled(frame.key, granted, reason, frame.claim))

    def _release(self, items: list[Item], frame: Claimed, now: float, *also: Row, **fields: str) -> None:
        """Let go of them, all in one write: none of them is to be had by two nodes, nor by none."""
        for item in items:
            self._walk.leave(item)
            item.enter(State.RELEASING)
            item.granted_to = frame.node
            item.lap = frame.lap
            if frame.line:
                self._handed_on(item)

        def released(now: float) -> None:
            for item in items:
                item.become_tombstone(State.GRANTED)
                if is_far(item.granted_to):
                    self._watch_claimer(item, now)
                self._shelf.watch.discard(item.key)
                self._note_release(item, frame, now, fields)
                claim = frame.claim if item.key == frame.key else _UNSAID
                self._shelf.send(frame.node, Settled(item.key, granted=True, claim=claim))
            for item in items:
                if following := self._shelf.lines.leave(item):
                    self._proceed(following, now)

        self._shelf.write(*(item.row(Kind.GRANTED) for item in items), *also, then=released)

    def _note_release(self, item: Item, frame: Claimed, now: float, fields: Mapping[str, str]) -> None:
        age_s = round(now - item.accepted_at, 3)
        if frame.line:
            self._shelf.note("handed_on", item, to=frame.node, age_s=age_s, **fields)
        else:
            if item.named is not None:
                named = "right" if item.named == frame.node else "wrong" if item.named else "none"
                fields = {**fields, "summary": named}
            self._shelf.note("settled", item, frame.hop, by=frame.node, age_s=age_s, **fields)

    def is_recalling(self, key: EnvelopeKey) -> bool:
        return key in self._recalling

    def recalled(self, key: EnvelopeKey, row: ParkedRow | None, now: float) -> None:
        """The claim came for something that is not in custody any more: parked, or gone for good."""
        frame = self._recalling.pop(key, None)
        if frame is None:
            return
        if row is None or row.gateway:
            self._answer(frame, granted=False, reason="gone")
            return
        item = Item(row.envelope, row.accepted_at, State.RELEASING, claimed=False, stored=True)
        self._shelf.items.add(item)
        self._delivery.parked -= 1
        unparked = Row(Table.PARKED, encode_key(key), None)
        self._release([item], frame, now, unparked, parked=row.reason)

    def finished(self, frame: Finished, sender: str) -> None:
        """The claimer owes its gateway nothing more, and will not ask again."""
        item = self._shelf.items.get(frame.key)
        if item is None:
            self._shelf.send(sender, Forgotten(frame.key))
        elif item.state is State.GRANTED and item.granted_to == frame.node:
            item.enter(State.FORGETTING)

            def forgotten(now: float) -> None:
                self._shelf.remove(item)
                self._shelf.send(sender, Forgotten(frame.key))

            self._shelf.write(item.no_row(), then=forgotten)


def _is_releasable(item: Item) -> bool:
    """It is this node's to give, and nobody has it yet."""
    return item.state in _RELEASABLE and not item.claimed and not item.gateway
