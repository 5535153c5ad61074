"""One node decides where all parts of a concatenated MO go, whichever nodes they arrive at.

The coordinator is the first node in the order of a rendezvous hash, over the configured nodes, that the origin of a
part can reach and that answers (`gathering.py` asks). It decides once for each message:

    unknown     asked, and a rule may hang on the keyword in the first part   -> waits, at most `concat_wait_s`
                asked                                                         -> deciding
                another node's decision comes                                 -> known
    waits       asked for the first part; or the time is over                 -> deciding
    deciding    the decision is on disk                                       -> known, and every node is told
                no gateway is bound anywhere                                  -> unknown; who asked is told, and waits

in favour of the gateway of a rule; else of the one in conversation with the sender; else of a bound one at the node
that asked first; else of any. What was decided is kept for `decision_for_s`, also over a restart, and told to a node
that joins, so that another coordinator goes on with it.

Two nodes can decide about one message all the same, when neither reaches the other. They find out when they meet: if
the places differ, the parts have been split, and one of the two says so (`split`).
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from hashlib import blake2b

from attrs import define, field

from protocols.peer.frames import Decided, Envelope, EnvelopeKey, Gather, PartOf, Place
from ring.commands import Note, Row, Table
from ring.presence import Presence
from ring.rows import CustodyRow, Kind, encode_key, encode_row
from ring.settings import CustodySettings
from ring.shelf import Shelf

_NAME_BYTES = 16


def name_of(operator: str, part_key: bytes) -> bytes:
    """The name of a concatenated message in the ring, from what its parts have in common. It shows no phone number."""
    return blake2b(operator.encode() + b"\0" + part_key, digest_size=_NAME_BYTES).digest()


@define(eq=False)
class Decision:
    place: Place
    by: str
    made_at: float
    envelope: Envelope | None = None  # of its row, if it was made here
    split: bool = False  # another node decided otherwise, and that was said

    def contradicts(self, place: Place) -> bool:
        nodes = {self.place.node, place.node} - {""}
        return self.place.gateway != place.gateway or len(nodes) > 1


@define(eq=False)
class _Pending:
    """A message that has been asked for and is not decided."""

    operator: str
    trace: str
    rule: str
    certain: bool
    conversation: Place | None
    bound: Place | None
    askers: dict[str, None] = field(factory=dict)
    deciding: bool = False

    def learn(self, frame: Gather) -> None:
        if frame.part.certain and not self.certain:
            self.rule, self.certain = frame.part.rule, True
        self.conversation = self.conversation or frame.conversation
        self.bound = self.bound or frame.bound


class Coordinator:
    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        me: str,
        presence: Presence,
        next_key: Callable[[], EnvelopeKey],
        decided: Callable[[bytes, float], None],
    ) -> None:
        """`decided` is told of a message when this node comes to know its decision, or has asked itself in vain."""
        self._shelf = shelf
        self._settings = settings
        self._me = me
        self._presence = presence
        self._next_key = next_key
        self._decided = decided
        self._reachable: AbstractSet[str] = frozenset()
        self._known: dict[bytes, Decision] = {}
        self._forget_at: deque[tuple[float, bytes]] = deque()
        self._pending: dict[bytes, _Pending] = {}
        self._decide_at: deque[tuple[float, bytes, _Pending]] = deque()

    def known(self, message: bytes) -> Decision | None:
        return self._known.get(message)

    def asked(self, frame: Gather, asker: str, now: float) -> None:
        """A part is at the node `asker`, this one or another."""
        message = frame.part.message
        if (decision := self._known.get(message)) is not None:
            self._tell(asker, message, decision, now)
            return
        pending = self._pending.get(message)
        if pending is None:
            if len(self._pending) >= self._settings.max_decisions:
                self._tell_later(asker, message, now)
                return
            part = frame.part
            pending = self._pending[message] = _Pending(
                frame.operator, frame.trace, part.rule, part.certain, frame.conversation, frame.bound
            )
            self._decide_at.append((now + self._settings.concat_wait_s, message, pending))
        else:
            pending.learn(frame)
        pending.askers[asker] = None
        if pending.certain:
            self._decide(message, pending, now)

    def _decide(self, message: bytes, pending: _Pending, now: float) -> None:
        if pending.deciding:
            return
        place = Place(pending.rule) if pending.rule else pending.conversation or pending.bound
        place = place or self._presence.any_bound(pending.operator)
        if place is None:
            del self._pending[message]
            for asker in pending.askers:
                self._tell_later(asker, message, now)
            return
        if self._settings.cluster is not None:
            place = Place(place.gateway)  # wherever it is bound by then: a gateway of a cluster belongs to no node
        pending.deciding = True
        envelope = Envelope(
            self._next_key(), self._me, pending.operator, "mo", b"", b"", b"", pending.trace, False, place.gateway,
            place.node, PartOf(message),
        )  # fmt: skip
        row = CustodyRow(Kind.DECISION, envelope, now)

        def durable(now: float) -> None:
            del self._pending[message]
            if (other := self._known.get(message)) is not None:  # told meanwhile; nobody has been told of ours
                self._shelf.write(_no_row(envelope))
                for asker in pending.askers:
                    self._tell(asker, message, other, now)
                return
            self._remember(message, Decision(place, self._me, now, envelope))
            for node in sorted(self._reachable | pending.askers.keys()):
                self._tell(node, message, self._known[message], now)

        self._shelf.write(Row(Table.CUSTODY, encode_key(envelope.key), encode_row(row)), then=durable)

    def _tell(self, node: str, message: bytes, decision: Decision, now: float) -> None:
        if node == self._me:
            self._decided(message, now)
        else:
            self._shelf.send(node, Decided(message, decision.place, decision.by, now - decision.made_at))

    def _tell_later(self, node: str, message: bytes, now: float) -> None:
        """Nothing can be decided now: ask again."""
        if node == self._me:
            self._decided(message, now)
        else:
            self._shelf.send(node, Decided(message, None, self._me))

    def told(self, frame: Decided, now: float) -> None:
        """Another node's word: its decision, one that it knows of, or that there is none."""
        message, place = frame.message, frame.place
        if place is None:
            if message not in self._known:
                self._decided(message, now)
            return
        known = self._known.get(message)
        if known is None:
            self._remember(message, Decision(place, frame.by, now - frame.age_s))
            self._settle(message, now)
        elif known.contradicts(place):
            self._note_split(known, place, frame.by)

    def _settle(self, message: bytes, now: float) -> None:
        """It is known by another node's word: whoever asked this one may hear it, and this node goes by it too."""
        pending = self._pending.get(message)
        if pending is not None and not pending.deciding:
            del self._pending[message]
            for asker in pending.askers:
                if asker != self._me:
                    self._tell(asker, message, self._known[message], now)
        self._decided(message, now)

    def _note_split(self, mine: Decision, place: Place, by: str) -> None:
        """One of the two nodes that have decided says it, once: the one whose name sorts first."""
        if mine.envelope is None or mine.split or by <= self._me:
            return
        mine.split = True
        fields = (("gateway", mine.place.gateway), ("other", place.gateway), ("nodes", f"{self._me} {by}"))
        self._shelf.command(Note("split", mine.envelope, fields=fields))

    def _remember(self, message: bytes, decision: Decision) -> None:
        self._known[message] = decision
        self._forget_at.append((decision.made_at + self._settings.decision_for_s, message))
        while len(self._known) > self._settings.max_decisions:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, message = self._forget_at.popleft()
        decision = self._known.pop(message)
        if decision.envelope is not None:
            self._shelf.write(_no_row(decision.envelope))

    def restore(self, row: CustodyRow, now: float) -> None:
        """A decision of an earlier run."""
        envelope = row.envelope
        if envelope.part is not None:
            place = Place(envelope.gateway, envelope.node)
            self._remember(envelope.part.message, Decision(place, self._me, min(row.accepted_at, now), envelope))

    def inherit(self, row: CustodyRow, now: float) -> bool:
        """A decision of a node that is gone, which this one goes by from now on. False: there is one already."""
        envelope = row.envelope
        if envelope.part is None:
            return False
        message, place = envelope.part.message, Place(envelope.gateway, envelope.node)
        known = self._known.get(message)
        if known is not None:
            if known.contradicts(place) and not known.split:
                known.split = True  # nobody else can say so
                fields = (("gateway", known.place.gateway), ("other", place.gateway), ("nodes", self._me))
                self._shelf.command(Note("split", envelope, fields=fields))
            return False
        self.restore(row, now)
        self._settle(message, now)
        for node in sorted(self._reachable):
            self._tell(node, message, self._known[message], now)
        return True

    def reachable(self, nodes: AbstractSet[str], now: float) -> None:
        joined, self._reachable = nodes - self._reachable, nodes
        for node in sorted(joined):
            for message, decision in self._known.items():
                self._tell(node, message, decision, now)

    def next_due(self) -> float | None:
        dues = [self._forget_at[0][0]] if self._forget_at else []
        if self._decide_at:
            dues.append(self._decide_at[0][0])
        return min(dues, default=None)

    def tick(self, now: float) -> None:
        while self._decide_at and self._decide_at[0][0] <= now:
            _, message, pending = self._decide_at.popleft()
            if self._pending.get(message) is pending:
                self._decide(message, pending, now)
        while self._forget_at and self._forget_at[0][0] <= now:
            self._forget_oldest()


def _no_row(envelope: Envelope) -> Row:
    return Row(Table.CUSTODY, encode_key(envelope.key), None)
