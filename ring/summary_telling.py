"""What this node owns, told to the others that asked: one stream of numbered frames to each.

    a node asks                       begin anew: the whole, range by range of the ledger, with what changes meanwhile
    changes, ten times a second       to every stream, at once
    the whole has been sent           changes only
    the pages suit the count no more  begin anew
    nothing has changed for a while   an empty frame, so that one that was lost is missed

Nothing here waits for an answer: the receiving node notices by the numbers that a frame is missing, and asks again.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from attrs import define, field

from protocols.peer.frames import SummaryPart
from protocols.smpp.message_ids import normal
from ring.commands import Send
from ring.ledger import END, Ledger
from ring.summary import fits, hash_of, pack, pages_for

TELL_S: Final = 0.1  # between two frames: a tenth of the second after which reports may come, one way of a long link
STILL_THERE_S: Final = 5.0  # then a frame is sent though nothing has changed
BEGIN_S: Final = (
    1.0  # between two beginnings of one stream, whoever asks; growth that fits into one frame need not wait
)
WHOLE_PER_S: Final = 200_000  # hashes a second, of all streams; taking one in costs the receiver some 2 us
MOST_AT_ONCE: Final = 50_000  # changes taken up at one time: 100 ms of work, and 200 KB in a frame


@define
class _Stream:
    to: str
    id: int
    pages: int
    begun_at: float
    number: int = 0  # of the next frame
    read_to: int = 0  # of the ledger; what is below has been sent
    early: set[int] = field(factory=set)  # above, and sent nevertheless
    again: bool = False  # the other node has asked for a new beginning
    said_at: float = 0.0

    @property
    def complete(self) -> bool:
        return self.read_to == END


class Telling:
    def __init__(self, nodes: int, most: int) -> None:
        """`nodes`: how many others there are. Of more than `most` open messages the latest are left out."""
        self._nodes = nodes
        self._most = most
        self._ledger = Ledger()
        self._changes: list[tuple[str, bytes, bool]] = []
        self._streams: dict[str, _Stream] = {}
        self._last_id = 0
        self.left_out = 0

    @property
    def count(self) -> int:
        return len(self._ledger)

    @property
    def bytes_used(self) -> int:
        return self._ledger.bytes_used

    def set_nodes(self, nodes: int) -> None:
        self._nodes = nodes

    def opened(self, operator: str, message_id: bytes) -> None:
        """This node owns a message. Cheap: the work is done by `tick`."""
        self._changes.append((operator, message_id, True))

    def closed(self, operator: str, message_id: bytes) -> None:
        """It owns it no more."""
        self._changes.append((operator, message_id, False))

    @property
    def behind(self) -> int:
        """Changes that no `tick` has taken up: who has many more to report should wait."""
        return len(self._changes)

    def wanted(self, node: str, now: float) -> None:
        """The node asks for all of it."""
        stream = self._streams.get(node)
        if stream is None:
            self._begin(node, now)
        else:
            stream.again = True

    def lost(self, nodes: Iterable[str]) -> None:
        """They cannot be reached; they will ask again."""
        for node in nodes:
            self._streams.pop(node, None)

    def in_step(self) -> AbstractSet[str]:
        """The nodes that have been sent all of it."""
        return {node for node, stream in self._streams.items() if stream.complete}

    def tick(self, now: float) -> list[Send]:
        """Called every `TELL_S`."""
        opened, closed = self._take_up()
        packed = pack(opened), pack(closed)
        out: list[Send] = []
        for stream in list(self._streams.values()):
            if self._is_to_begin(stream, now):
                stream = self._begin(stream.to, now)
            elif stream.complete:
                if any(packed) or now - stream.said_at >= STILL_THERE_S:
                    out.append(_say(stream, *packed, now))
                continue
            out.append(self._say_more(stream, opened, closed, now))
        return out

    def _take_up(self) -> tuple[list[int], list[int]]:
        """Bring the ledger up to date: the hashes that came in, those that went out. The last word on each counts."""
        if not self._changes:
            return [], []
        changes = self._changes[:MOST_AT_ONCE]
        del self._changes[:MOST_AT_ONCE]
        last = {hash_of(operator, normal(message_id)): owned for operator, message_id, owned in changes}
        ledger = self._ledger
        closed = [hashed for hashed, owned in last.items() if not owned and ledger.remove(hashed)]
        opened = []
        for hashed, owned in last.items():
            if owned and len(ledger) >= self._most:
                self.left_out += hashed not in ledger
            elif owned and ledger.add(hashed):
                opened.append(hashed)
        return opened, closed

    def _is_to_begin(self, stream: _Stream, now: float) -> bool:
        count = len(self._ledger)
        unfit = stream.complete and not fits(count, stream.pages)
        if unfit and count <= self._budget():
            return True  # one frame: a node that has just started grows fast
        return (stream.again or unfit) and now - stream.begun_at >= BEGIN_S

    def _budget(self) -> int:
        """How much of the whole goes into one frame."""
        return max(1, int(WHOLE_PER_S * TELL_S) // max(1, self._nodes))

    def _begin(self, node: str, now: float) -> _Stream:
        self._last_id += 1
        stream = _Stream(node, self._last_id, pages_for(len(self._ledger)), now)
        self._streams[node] = stream
        return stream

    def _say_more(self, stream: _Stream, opened: list[int], closed: list[int], now: float) -> Send:
        """The changes, and the next range of the ledger."""
        closed = [hashed for hashed in closed if hashed < stream.read_to or hashed in stream.early]
        stream.early.difference_update(closed)
        stream.early.update(hashed for hashed in opened if hashed >= stream.read_to)
        hashes, stream.read_to = self._ledger.read(stream.read_to, self._budget())
        if stream.early:
            early = stream.early.intersection(hashes)
            stream.early -= early
            hashes = [hashed for hashed in hashes if hashed not in early]
        return _say(stream, pack(opened + hashes), pack(closed), now)


def _say(stream: _Stream, opened: bytes, closed: bytes, now: float) -> Send:
    frame = SummaryPart(stream.id, stream.number, stream.pages, stream.complete, opened, closed)
    stream.number += 1
    stream.said_at = now
    return Send(stream.to, frame)
