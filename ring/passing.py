"""Envelopes of other nodes: look, claim, or pass on.

What is only passed on leaves nothing on disk here: its origin has custody. It is remembered for `watch_s`, so that a
submit_sm_resp that comes just after it still claims it.
"""

from collections.abc import Set as AbstractSet

from protocols.peer.frames import EnvelopeKey, Forward, LapDone, Place
from ring.claims import Claims
from ring.commands import Ask, Finding, Note, Send
from ring.far import cluster_of, is_far
from ring.next_hop import Owners, next_hop
from ring.settings import CustodySettings
from ring.shelf import Shelf
from ring.topology import Topology


class Passing:
    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        topology: Topology,
        store_id: bytes,
        claims: Claims,
        owners: Owners | None,
    ) -> None:
        self._shelf = shelf
        self._settings = settings
        self._topology = topology
        self._store_id = store_id
        self._claims = claims
        self._owners = owners
        self._reachable: AbstractSet[str] = frozenset()
        self._answering: AbstractSet[str] = frozenset()  # those of them that can answer an origin in another ring
        self._asking: dict[EnvelopeKey, Forward] = {}  # what is to be answered
        self._looking_inexactly: set[EnvelopeKey] = set()  # those of them that are looked up by any relation of ids
        self._passed: dict[EnvelopeKey, tuple[float, Forward]] = {}  # when each is forgotten, the next one first

    def reachable(self, nodes: AbstractSet[str], answering: AbstractSet[str]) -> None:
        """`answering`: those that can answer an origin in another ring."""
        self._reachable = nodes
        self._answering = answering

    def retopologize(self, topology: Topology) -> None:
        self._topology = topology

    def forward(self, frame: Forward, now: float) -> None:
        key = frame.envelope.key
        if key.store == self._store_id:
            return  # our own, sent round by a node that does not know us: we have it
        if self._cannot_answer(frame):
            return
        if item := self._shelf.items.get(key):
            if item.claimed:
                self._claims.repeat(item, now)
            return
        if key in self._asking:
            self._asking[key] = frame  # the origin has begun another lap: answer that one
            return
        if frame.envelope.node not in ("", self._topology.me):
            self._pass_on(frame)
            return
        if len(self._asking) >= self._settings.max_passing:
            self._busy(frame)
            return
        self._ask(frame)

    def _ask(self, frame: Forward) -> None:
        key = frame.envelope.key
        self._asking[key] = frame
        (self._looking_inexactly.add if frame.inexact else self._looking_inexactly.discard)(key)
        self._shelf.command(Ask(frame.envelope, frame.inexact))

    def _cannot_answer(self, frame: Forward) -> bool:
        """From a ring that this one is not joined to, as far as this node knows; or what no ring sends across."""
        envelope = frame.envelope
        if not is_far(envelope.origin):
            return False
        return cluster_of(envelope.origin) != self._topology.joined or envelope.kind != "dlr"

    def is_asking(self, key: EnvelopeKey) -> bool:
        return key in self._asking

    def asked(self, key: EnvelopeKey, finding: Finding | None, now: float) -> None:
        frame = self._asking.pop(key)
        inexactly = key in self._looking_inexactly
        self._looking_inexactly.discard(key)
        if key in self._shelf.items:
            return  # its origin has handed it on to this node meanwhile
        if finding is None and frame.inexact and not inexactly:
            self._ask(frame)  # the look-up was for an earlier lap, for the exact id: that says nothing about this one
            return
        passed_on = self._last_passed(key) is frame  # then this was a second look, and the walk is elsewhere by now
        envelope = frame.envelope
        only_asks = self._settings.cluster is not None or (envelope.part is not None and not envelope.gateway)
        if finding is not None and only_asks:
            self._tell_conversation(frame, finding.gateway)
        elif finding is not None and self._claims.claim(frame, finding, now):
            self._passed.pop(key, None)
        elif finding is not None and not passed_on:
            self._busy(frame)
        elif not passed_on:
            self._remember(frame, now)
            self._pass_on(frame)

    def _pass_on(self, frame: Forward) -> None:
        me, origin = self._topology.me, frame.envelope.origin
        visited = (*frame.visited, me)
        reachable = self._answering if is_far(origin) else self._reachable
        target = next_hop(frame.envelope, visited, reachable, self._topology, self._owners)
        if target is None:
            missing = self._topology.missing(visited) if is_far(origin) else ()
            self._shelf.send(origin, LapDone(frame.envelope.key, frame.lap, visited, run=frame.run, missing=missing))
            return
        hop = frame.hop + 1
        by = (("by", "summary"),) if target.named else ()
        self._shelf.command(Note("forwarded", frame.envelope, frame.lap, hop, (("to", target.node), *by)))
        onward = Forward(frame.envelope, frame.lap, hop, visited, frame.inexact, frame.age_s, frame.run)
        self._shelf.command(Send(target.node, onward))

    def _tell_conversation(self, frame: Forward, gateway: str) -> None:
        """The origin only asks: where a part of an MO goes its coordinator says, and in a cluster the origin itself."""
        me, key = self._topology.me, frame.envelope.key
        done = LapDone(key, frame.lap, (*frame.visited, me), run=frame.run, conversation=Place(gateway, me))
        self._shelf.send(frame.envelope.origin, done)

    def _busy(self, frame: Forward) -> None:
        """We cannot take it or look for it now. The origin goes on with the others, and begins another lap later."""
        me = self._topology.me
        self._shelf.command(Note("busy", frame.envelope, frame.lap, frame.hop, (("nodes", me),)))
        self._shelf.send(
            frame.envelope.origin, LapDone(frame.envelope.key, frame.lap, frame.visited, busy=(me,), run=frame.run)
        )

    def _remember(self, frame: Forward, now: float) -> None:
        key = frame.envelope.key
        self._passed.pop(key, None)
        self._passed[key] = now + self._settings.watch_s, frame
        self._shelf.watch.add(frame.envelope)
        while len(self._passed) > self._settings.max_passing:
            self._forget(next(iter(self._passed)))

    def appeared(self, key: EnvelopeKey) -> bool:
        """An open message that may be its owner has just been recorded here: look again."""
        frame = self._last_passed(key)
        if frame is None or key in self._asking:
            return False
        self._ask(frame)
        return True

    def _last_passed(self, key: EnvelopeKey) -> Forward | None:
        return self._passed[key][1] if key in self._passed else None

    def next_due(self) -> float | None:
        return next((forget_at for forget_at, _ in self._passed.values()), None)

    def tick(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            self._forget(next(iter(self._passed)))

    def _forget(self, key: EnvelopeKey) -> None:
        if self._passed.pop(key, None) is not None and key not in self._shelf.items:
            self._shelf.watch.discard(key)
