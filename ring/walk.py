"""The walk, as its origin sees it: laps round the ring until somebody claims the envelope.

A lap asks every node once: this node sends the envelope to the next reachable node, each one that does not own it
passes it on, and the last that can reach nobody new answers LapDone with the nodes that have answered. Where it could
not go on and this node can, this node sends it on itself. A lap is complete when every configured node has answered;
an answer that does not come ends it as incomplete after `lap_timeout_s`, and the next one begins at another node: one
that is heard and does nothing, for its disk hangs, must not keep a report from those behind it. A node that answers
that it cannot take it or look for it now is passed over in this lap, which is incomplete then. Where there is no room
for others that are ready to walk, a lap that has taken long ends early.

The first lap asks for the exact id. If it is complete and nobody claims, the next one starts at once and allows an
owner by a rule that is not learned yet. Two nodes might claim then; this node grants it to the first.

Of an MO that is for no certain gateway, the first lap asks for the gateway in conversation with its sender; the next
one, at once, for any that is bound, this node's own before the others. A part of a concatenated MO goes to the gateway
that its coordinator names (`gathering.py`): the lap before that only asks who is in conversation, and nobody claims it.

Where this ring is joined to another one, a report that nobody here claims walks that one next (`crossing.py`).

What has just come walks before the backlog (`backlog.py`), which may be millions of items.
"""

from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from protocols.peer.frames import EnvelopeKey, Forward, LapDone, Place
from ring.backlog import MOST_AT_ONCE, Backlog
from ring.commands import Ask, Finding, Reason
from ring.crossing import Crossing
from ring.delivery import Delivery
from ring.items import NOBODY, Item, Nodes, State
from ring.next_hop import Owners, next_hop
from ring.rows import Kind
from ring.settings import CustodySettings
from ring.shelf import Alarm, Shelf
from ring.topology import Topology
from ring.waiting import Waiting

# A look at this node's own store, whenever it is answered, still counts.
_FINDABLE = frozenset({State.WALKING, State.WAITING, State.READY, State.HANDING})
# A lap is a few network round trips. A node that holds one up for longer is too slow to hold up others besides.
_SLOW_LAP_S = 2.0


class Gatherer(Protocol):
    """Finds out where the parts of a concatenated MO go."""

    def looks_first(self, item: Item) -> bool: ...

    def ask(self, item: Item, conversation: Place | None, now: float) -> None: ...


class Walk:
    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        topology: Topology,
        run: int,
        delivery: Delivery,
        gatherer: Gatherer,
        owners: Owners | None,
        hand_on: Callable[[Item, float], bool],
        placed: Callable[[Item, str, float], None],
    ) -> None:
        """`hand_on` takes an item that would wait, if this node leaves and another one can have it; `placed`, in a
        cluster, one for which a lap has found a gateway."""
        self._shelf = shelf
        self._settings = settings
        self._topology = topology
        self._run = run
        self._delivery = delivery
        self._gatherer = gatherer
        self._owners = owners
        self._hand_on = hand_on
        self._placed = placed
        self._reachable: AbstractSet[str] = frozenset()
        self._crossing = Crossing(topology)
        self._ready: deque[Item] = deque()
        self._waiting = Waiting(shelf, settings)
        self._backlog = Backlog(settings.max_walking, self._waiting)
        self._ready_to_cross: deque[Item] = deque()
        self._walking: dict[EnvelopeKey, Item] = {}
        self._abroad: set[EnvelopeKey] = set()  # those of the walking that walk the other ring
        self._last_answered: Nodes = NOBODY  # of what was last put to wait

    @property
    def walking(self) -> int:
        return len(self._walking)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + self._shelf.items.count(State.READY)

    def ready(self, item: Item, *, at_once: bool = False) -> None:
        """It has no owner here and is first in its line: walk as soon as there is room; `at_once`: before others."""
        self._waiting.discard(item)
        item.enter(State.READY)
        item.across = False
        if item.old:
            self._backlog.line_up(item, at_once=at_once)
        elif at_once:
            self._ready.appendleft(item)
        else:
            self._ready.append(item)

    def _cross(self, item: Item) -> None:
        """Nobody of this ring claims it: walk the other one as soon as there is room."""
        item.enter(State.READY)
        item.across = True
        item.named = None  # no summary speaks of the other ring
        self._ready_to_cross.append(item)

    def start_more(self, now: float) -> None:
        """Begin laps while there is room. Called after every event, so that a place that fell free is used."""
        most = self._settings.max_walking
        while self._ready:
            if self._is_full and not self._end_slow_lap(self._walking, now):
                return
            if self._backlog.is_next and self._start_one_of_backlog(now):
                continue
            item = self._ready.popleft()
            if item.state is State.READY and not item.across:
                self._backlog.fresh_lap_began()
                self._start_lap(item, now)
        for _ in range(MOST_AT_ONCE):
            if not self._start_one_of_backlog(now):
                break
        # Answers from the other ring may be slow to come: half of the room stays with this one.
        while self._ready_to_cross and len(self._abroad) < (most + 1) // 2 and len(self._walking) < most:
            item = self._ready_to_cross.popleft()
            if item.state is State.READY and item.across:
                self._start_lap_across(item, now)

    def _start_one_of_backlog(self, now: float) -> bool:
        """If there is one, and room and time for it."""
        if not self._backlog.wants_to_walk():
            return False
        if self._backlog.is_full and not self._end_slow_lap(self._backlog.walking, now):
            return False
        item = None if self._is_full else self._backlog.take(now)
        if item is None:
            return False
        if item in self._waiting:
            self._prepare_again(item)
        self._start_lap(item, now)
        return True

    @property
    def _is_full(self) -> bool:
        return len(self._walking) >= self._settings.max_walking

    def _end_slow_lap(self, walking: Mapping[EnvelopeKey, Item], now: float) -> bool:
        """While others are ready, a lap that a slow node holds up gives its place to one that may never go there.

        Whoever claims it later still gets it.
        """
        oldest = next(iter(walking.values()))
        if now < oldest.lap_began + _SLOW_LAP_S:
            return False
        self.lap_timed_out(oldest, now)
        return True

    def next_due(self) -> float | None:
        """When a lap gives its place to one that is ready, or one of the backlog may begin."""
        if self._ready and self._is_full:
            return next(iter(self._walking.values())).lap_began + _SLOW_LAP_S
        if self._backlog and self._backlog.is_full:
            return next(iter(self._backlog.walking.values())).lap_began + _SLOW_LAP_S
        return self._backlog.ready_at() if self._backlog and not self._is_full else None

    def _start_lap(self, item: Item, now: float) -> None:
        if item.ungathered and not self._gatherer.looks_first(item):
            self._gatherer.ask(item, None, now)
            return
        envelope = item.envelope
        if envelope.node or (envelope.kind == "mo" and (envelope.gateway or not self._settings.conversations)):
            item.inexact = True
        item.answered = {self._topology.me: None}
        self._begin_lap(item, now)
        if item.looked or envelope.node not in ("", self._topology.me):
            item.looked = False
            self._step(item, now)
        else:
            self._shelf.command(Ask(envelope, item.inexact))

    def _start_lap_across(self, item: Item, now: float) -> None:
        self._crossing.begin(item)
        self._begin_lap(item, now)
        self._abroad.add(item.key)
        self._step(item, now)

    def _begin_lap(self, item: Item, now: float) -> None:
        item.enter(State.WALKING)
        item.lap += 1
        item.lap_began = now
        item.busy = NOBODY
        item.sent_to = ""
        self._walking[item.key] = item
        if item.old:
            self._backlog.lap_began(item)
        self._shelf.alarms.set(now + self._settings.lap_timeout_s, Alarm.LAP, item.key)

    def asked(self, item: Item, finding: Finding | None, now: float) -> None:
        """What this node's own store says of an envelope of its own."""
        if item.state not in _FINDABLE:
            return
        if finding is not None and item.ungathered:
            self._gather(item, Place(finding.gateway, self._topology.me), now)
        elif finding is not None:
            self.decide(item, finding.gateway, now, superseded=finding.finished and not item.envelope.final)
        elif item.state is State.WALKING and not item.sent_to:
            self._step(item, now)

    def _step(self, item: Item, now: float) -> None:
        """Send it to the next node that has not answered, or end the lap."""
        if item.across:
            self._step_across(item, now)
            return
        passed_over = item.unanswered if len(item.answered) == 1 else 0
        visited = tuple({**item.busy, **item.answered})
        target = next_hop(item.envelope, visited, self._reachable, self._topology, self._owners, passed_over)
        if target is None:
            self._end_lap(item, not self._topology.missing(item.answered), now)
            return
        item.sent_to = target.node
        hop = len(item.answered)
        if self._owners is not None and hop == 1 and item.envelope.is_sought:
            item.named = target.node if target.named else ""
        age_s = now - item.accepted_at
        self._shelf.note("forwarded", item, hop, to=target.node, **({"by": "summary"} if target.named else {}))
        self._shelf.send(target.node, Forward(item.envelope, item.lap, hop, visited, item.inexact, age_s, self._run))

    def _step_across(self, item: Item, now: float) -> None:
        gate = self._crossing.next_gate(item)
        if gate is None:
            self._end_lap(item, not item.missing, now)
            return
        item.sent_to = gate
        visited = tuple(item.answered)
        hop = len(visited) + 1
        age_s = now - item.accepted_at
        self._shelf.note("crossed", item, hop, to=gate)
        self._shelf.send(gate, Forward(item.envelope, item.lap, hop, visited, item.inexact_across, age_s, self._run))

    def lap_done(self, frame: LapDone, now: float) -> None:
        item = self._walking.get(frame.key)
        if item is None or frame.lap != item.lap or frame.run != self._run:
            return  # of a lap that timed out, or of this node's earlier run
        if item.across:
            self._lap_done_across(item, frame, now)
            return
        item.answered = {**item.answered, **dict.fromkeys(self._asked(frame.visited))}
        if frame.busy:
            self._shelf.note("busy", item, nodes=" ".join(frame.busy))
            item.busy = {**item.busy, **dict.fromkeys(frame.busy)}
            self._step(item, now)
        elif frame.conversation is not None and item.ungathered:
            self._gather(item, frame.conversation, now)
        elif frame.conversation is not None and self._settings.cluster is not None:
            self.leave(item)
            self._placed(item, frame.conversation.gateway, now)
        else:
            self._step(item, now)

    def _lap_done_across(self, item: Item, frame: LapDone, now: float) -> None:
        item.answered = {**item.answered, **dict.fromkeys(frame.visited)}
        if frame.busy:
            self._shelf.note("busy", item, nodes=" ".join(frame.busy))
            item.unanswered_across += 1
            self._end_lap(item, complete=False, now=now)
        else:
            item.missing = frame.missing
            self._step(item, now)

    def _asked(self, visited: tuple[str, ...]) -> tuple[str, ...]:
        """Which of them have said that it is not theirs: those in front of this node were busy in this lap."""
        me = self._topology.me
        return visited[visited.index(me) :] if me in visited else ()

    def lap_timed_out(self, item: Item, now: float) -> None:
        if item.state is State.WALKING:
            if item.across:
                item.unanswered_across += 1
            else:
                item.unanswered += 1
            self._end_lap(item, complete=False, now=now)

    def _end_lap(self, item: Item, complete: bool, now: float) -> None:
        self.leave(item)
        if item.across:
            self._end_lap_across(item, complete, now)
            return
        if complete:
            item.unanswered = 0
        if item.ungathered:
            self._gather(item, None, now)
        elif not item.inexact and (complete or item.envelope.kind == "mo"):
            item.inexact = True
            self.ready(item, at_once=True)
        elif complete and self._crossing.possible(item):
            self._cross(item)
        else:
            self._wait(item, complete and not self._crossing.wanted(item), now)

    def _end_lap_across(self, item: Item, complete: bool, now: float) -> None:
        if complete and not item.inexact_across:
            item.inexact_across = True
            self._cross(item)
        else:
            self._wait(item, complete, now)

    def _gather(self, item: Item, conversation: Place | None, now: float) -> None:
        """The lap is over; the coordinator is asked."""
        self.leave(item)
        self._gatherer.ask(item, conversation, now)

    def unplaced(self, item: Item, now: float) -> None:
        """A part of an MO, and its coordinator knows of no bound gateway."""
        item.answered = dict.fromkeys((self._topology.me, *sorted(self._reachable)))
        self._wait(item, not self._topology.missing(item.answered), now)

    def _wait(self, item: Item, complete: bool, now: float) -> None:
        """Nobody has claimed it: again later, until it is given up."""
        if self._waiting.left_s(item, now) <= 0:
            self.give_up(item, complete, now)
        elif not self._hand_on(item, now):
            self.put_to_wait(item, now)

    def put_to_wait(self, item: Item, now: float) -> None:
        """Until time, or a node that joins, wakes it."""
        wait = self._waiting.add(item, now)
        missing = self._missing(item)
        hop = max(0, len(item.answered) - (not item.across))
        self._shelf.note("waiting", item, hop, complete=not missing, wait_s=round(wait, 1), nodes=" ".join(missing))
        item.busy = NOBODY
        if item.answered == self._last_answered:
            item.answered = self._last_answered  # one for all of them
        self._last_answered = item.answered

    def _missing(self, item: Item) -> tuple[str, ...]:
        """Nodes that have not answered, here or, after a complete lap here, in the other ring."""
        here = () if item.across else self._topology.missing(item.answered)
        return here or self._crossing.missing(item)

    def give_up(self, item: Item, complete: bool, now: float) -> None:
        policy = self._settings.policy(item.envelope.operator)
        if not complete:
            self._delivery.park(item, Reason.OWNER_UNREACHABLE, now)
        elif item.envelope.gateway or item.envelope.node:  # for that gateway, or that node, and no other
            self._delivery.park(item, Reason.UNCLAIMED, now)
        elif policy.unclaimed == "local" and policy.local_gateway:
            self.decide(item, policy.local_gateway, now)
        elif policy.unclaimed == "drop":
            self._shelf.note("dropped", item, reason="unclaimed")
            self._delivery.finish(item, now)
        else:
            self._delivery.park(item, Reason.UNCLAIMED, now)

    def decide(self, item: Item, gateway: str, now: float, superseded: bool = False) -> None:
        """It goes to a gateway of this node: written down first, so that no claim is granted after a restart either."""
        self.leave(item)
        item.enter(State.DECIDING)
        item.gateway = gateway
        item.superseded = item.superseded or superseded

        def decided(now: float) -> None:
            if item.state is State.DECIDING:
                self._delivery.start(item, now)

        self._shelf.write(item.row(Kind.ORIGIN), then=decided)

    def leave(self, item: Item) -> None:
        """It walks and waits no more, whatever comes next."""
        self._waiting.discard(item)
        self._walking.pop(item.key, None)
        self._backlog.lap_ended(item.key)
        self._abroad.discard(item.key)
        self._shelf.alarms.cancel(Alarm.LAP, item.key)
        self._shelf.alarms.cancel(Alarm.WAKE, item.key)

    def wake(self, item: Item) -> None:
        if item in self._waiting:
            self._prepare_again(item)
            self.ready(item)

    def _prepare_again(self, item: Item) -> None:
        self._waiting.discard(item)
        self._shelf.alarms.cancel(Alarm.WAKE, item.key)
        item.across = False
        if item.envelope.kind == "mo":
            item.inexact = False  # the gateway in conversation with its sender may be bound again

    def all_waiting(self) -> list[Item]:
        return list(self._waiting)

    def gateway_bound(self, operator: str, gateway: str) -> None:
        """A gateway has bound, here or at another node: what waits for it, or for any."""
        for item in self._waiting.for_gateway(operator, gateway):
            self.wake(item)

    def reachable(self, nodes: AbstractSet[str], now: float) -> None:
        """The nodes that can be reached have changed; gates of the other ring are among them."""
        joined, lost = nodes - self._reachable, self._reachable - nodes
        self._reachable = nodes
        self._crossing.reachable(nodes)
        if lost:
            # What is on its way may be lost with a lost node, to which it was sent from here or passed on by another:
            # ask those who have not answered now, not after the time-out. Who gets it twice recognises it.
            for item in [item for item in self._walking.values() if self._may_be_with(lost, item)]:
                self._step(item, now)
        if joined:
            self._backlog.line_up_all()

    def _may_be_with(self, nodes: AbstractSet[str], item: Item) -> bool:
        """In another ring only gates are known of."""
        if item.across or item.sent_to in nodes:
            return item.sent_to in nodes
        return bool(item.sent_to) and any(node in self._topology.others and node not in item.answered for node in nodes)

    def look_again(self, item: Item) -> None:
        """An open message that may own it has just been recorded at this node."""
        if item.state in _FINDABLE:
            self._shelf.command(Ask(item.envelope, item.inexact))

    def retopologize(self, topology: Topology) -> None:
        """The configured nodes have changed: laps are counted over the new ones from their next step on."""
        self._topology = topology
        self._crossing.retopologize(topology)
        self._backlog.line_up_all()
