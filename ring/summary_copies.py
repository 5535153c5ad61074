"""What the other nodes own, as they have told this one (`summary_telling.py`), and which of them to ask first.

a node is reached, or a frame of it is missing  ask for the whole, again and again until it begins
a stream begins                                 the copy of before is asked as well, until the new one is complete
a node is lost                                  its copy stays: it is nearly right when the node is back
"""

from collections.abc import Collection, Iterable
from typing import Final

from attrs import define

from protocols.peer.frames import SummaryPart, SummaryWanted
from protocols.smpp.message_ids import candidates
from ring.commands import Send
from ring.summary import BEST_LOAD, PAGE_BUCKETS, Summary, hash_of, unpack
from ring.summary_telling import STILL_THERE_S

ASK_AGAIN_S: Final = 5.0  # doubling
ASK_AGAIN_MOST_S: Final = 60.0  # a node whose summaries are off never answers
SILENT_S: Final = 3 * STILL_THERE_S  # then a stream has ended without a word


@define(eq=False)
class Copy:
    """What one node owns."""

    summary: Summary | None = None
    earlier: Summary | None = None
    complete: bool = False  # of `summary`
    in_step: bool = False  # every frame of the stream has come so far
    stream: int = 0
    number: int = 0  # of the next frame
    heard_at: float = 0.0
    ask_at: float | None = None
    patience_s: float = ASK_AGAIN_S

    @property
    def current(self) -> bool:
        """All that the node owns is in it, but for what it said in the last moment."""
        return self.in_step and self.complete

    @property
    def count(self) -> int:
        return sum(summary.count for summary in (self.summary, self.earlier) if summary is not None)

    @property
    def bytes_used(self) -> int:
        return sum(summary.bytes_used for summary in (self.summary, self.earlier) if summary is not None)

    def may_have(self, hashed: int) -> bool:
        return (self.summary is not None and hashed in self.summary) or (
            self.earlier is not None and hashed in self.earlier
        )


class Copies:
    def __init__(self, nodes: Iterable[str], most: int) -> None:
        """Of more than `most` open messages at one node the latest are left out."""
        self._most = most
        self._copies = {node: Copy() for node in nodes}
        self.left_out = 0

    def set_nodes(self, nodes: Iterable[str], most: int) -> None:
        self._most = most
        self._copies = {node: self._copies.get(node) or Copy() for node in nodes}

    def of(self, node: str) -> Copy | None:
        return self._copies.get(node)

    def likely(self, operator: str, message_id: bytes, nodes: Collection[str]) -> str | None:
        """The first of `nodes` that seems to own a message with this reported id; None if none does.

        The forms that the id may have come one after the other, the likeliest first.
        """
        for form in candidates(message_id):
            hashed = hash_of(operator, form)
            for node in nodes:
                copy = self._copies.get(node)
                if copy is not None and copy.may_have(hashed):
                    return node
        return None

    def joined(self, nodes: Iterable[str], now: float) -> None:
        for node in nodes:
            if copy := self._copies.get(node):
                self._ask(copy, now)

    def lost(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            if copy := self._copies.get(node):
                copy.in_step, copy.ask_at = False, None

    @staticmethod
    def _ask(copy: Copy, now: float) -> None:
        copy.in_step = False
        copy.ask_at = now
        copy.patience_s = ASK_AGAIN_S

    def told(self, sender: str, frame: SummaryPart, now: float) -> None:
        copy = self._copies.get(sender)
        if copy is None:
            return
        if frame.number == 0:
            self._begin(copy, frame)
        elif not copy.in_step or (frame.stream, frame.number) != (copy.stream, copy.number):
            if copy.ask_at is None:
                self._ask(copy, now)
            return
        copy.heard_at = now
        copy.number += 1
        self._take_in(copy, frame, now)

    def _begin(self, copy: Copy, frame: SummaryPart) -> None:
        if copy.complete:
            copy.earlier = copy.summary
        most_pages = max(1, int(self._most / (PAGE_BUCKETS * BEST_LOAD)))
        copy.summary = Summary(min(max(1, frame.pages), most_pages))
        copy.stream, copy.number = frame.stream, 0
        copy.in_step, copy.complete = True, False
        copy.ask_at = None

    def _take_in(self, copy: Copy, frame: SummaryPart, now: float) -> None:
        summary = copy.summary
        if summary is None:
            raise AssertionError("in step, and no stream has begun")
        try:
            opened, closed = unpack(frame.opened), unpack(frame.closed)
        except ValueError:  # the other node's fault: what it says from here on cannot be relied on
            self._ask(copy, now)
            return
        summary.remove(closed)
        room = max(0, self._most - summary.count)
        self.left_out += max(0, len(opened) - room) + summary.add(opened[:room])
        if frame.complete and not copy.complete:
            copy.complete = True
            copy.earlier = None

    def tick(self, now: float) -> list[Send]:
        out = []
        for node, copy in self._copies.items():
            if copy.in_step and now - copy.heard_at >= SILENT_S:
                self._ask(copy, now)
            if copy.ask_at is not None and copy.ask_at <= now:
                copy.ask_at = now + copy.patience_s
                copy.patience_s = min(ASK_AGAIN_MOST_S, 2 * copy.patience_s)
                out.append(Send(node, SummaryWanted()))
        return out
