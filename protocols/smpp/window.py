"""Requests that wait for their response, by sequence number (SMPP 3.4 2.9 and 3.2.4).

A window gives out the sequence numbers of one connection's requests: 1 to 0x7FFFFFFF, then 1 again, leaving out those
that are still in use. What waits is kept in the order of sending, so the oldest is found at once.
"""

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

HIGHEST_SEQUENCE: Final = 0x7FFFFFFF

Entry = TypeVar("Entry")


class Window(Generic[Entry]):
    """At most `size` requests are meant to wait; it is the caller who asks for `room` before `open`.

    What is written anyway (custody's, or a request that has no window by custom) is kept all the same, so that no
    response is ever taken for another's. `waiting` is to be read only, where `full` would cost a call too many.
    """

    __slots__ = ("_last", "size", "waiting")

    def __init__(self, size: int, last_sequence: int = 0) -> None:
        self.size = size
        self._last = last_sequence
        self.waiting: dict[int, tuple[float, Entry]] = {}

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def room(self) -> int:
        """How many more requests may be sent; 0 when full."""
        return max(0, self.size - len(self.waiting))

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self.size

    def next_sequence(self) -> int:
        """A number for a request that nothing waits for."""
        waiting = self.waiting
        sequence = self._last
        while True:
            sequence = sequence + 1 if sequence < HIGHEST_SEQUENCE else 1
            if sequence not in waiting:
                self._last = sequence
                return sequence

    def open(self, entry: Entry, now: float) -> int:
        """`entry` waits from now on for the response to the sequence number that is returned."""
        waiting = self.waiting
        sequence = self._last + 1
        if sequence > HIGHEST_SEQUENCE or sequence in waiting:
            sequence = self.next_sequence()
        self._last = sequence
        waiting[sequence] = (now, entry)
        return sequence

    def take(self, sequence: int) -> Entry | None:
        """What waited for this response; None if nothing did (a late response, or one to nothing)."""
        found = self.waiting.pop(sequence, None)
        return None if found is None else found[1]

    def oldest(self) -> Entry | None:
        for _, entry in self.waiting.values():
            return entry
        return None

    def sent_until(self, moment: float) -> Iterator[tuple[int, Entry]]:
        """Sequence number and entry of what was sent at `moment` or before, oldest first. Take none while iterating."""
        for sequence, (sent_at, entry) in self.waiting.items():
            if sent_at > moment:
                return
            yield sequence, entry

    def take_sent_until(self, moment: float) -> list[Entry]:
        """Remove and return what was sent at `moment` or before, oldest first: its response is overdue."""
        overdue = list(self.sent_until(moment))
        for sequence, _ in overdue:
            del self.waiting[sequence]
        return [entry for _, entry in overdue]

    def take_all(self) -> list[Entry]:
        """Remove and return everything, oldest first: the connection is gone."""
        entries = [entry for _, entry in self.waiting.values()]
        self.waiting.clear()
        return entries
