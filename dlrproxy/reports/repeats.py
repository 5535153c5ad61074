"""The same report again: an operator that was not answered, since its bind was lost, sends it on another bind.

The first copy may be with the gateway, in custody, or delivered by then. Byte for byte the same report (all of it but
the sequence number) is not delivered a second time while the first one is looked after: it takes the first one's place
with the operator, or is answered ESME_ROK if the gateway or the disk has the first one. What was given up with its bind
is not remembered, so nothing is lost.

Or because it was told so (`retry_status`) while custody was still writing the first copy, or while that was unanswered
on a session of the gateway: then, too, the first copy is the one that counts.

Of a lost bind only reports that name their message: two of them with equal bytes say nothing that one does not. Two MO
may. And only for a bounded time: on a bind that lives, an operator that repeats itself unasked means it.
"""

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Final

from dlrproxy.reports.arrival import Arrival, Stage
from dlrproxy.sessions.links import Bind

KEPT_S: Final = 300.0  # from the loss of the bind or the answer; operators and we are back within a minute or so
ANSWERED_S: Final = 30.0  # how long before the loss an answer may have been lost with it: TCP had it, the peer did not
MAX_ANSWERED: Final = 250  # the last ones; operators' windows, which one loss can take along, are 10 to 25 a bind
MAX_KEPT: Final = 10_000  # as many as may be unanswered


class Repeats:
    """What one operator may send again: `firsts`, by their bytes. Empty as long as binds live and all goes well."""

    __slots__ = ("_taken", "firsts")

    def __init__(self) -> None:
        self.firsts: dict[bytes, tuple[Arrival, float]] = {}  # the oldest first; always the same object
        self._taken: deque[Arrival] = deque(maxlen=MAX_ANSWERED)

    def taken(self, arrival: Arrival) -> None:
        """The operator is answered ESME_ROK for it: the gateway or the disk has it."""
        arrival.taken = True
        if arrival.message_id:
            self._taken.append(arrival)

    def bind_lost(self, bind: Bind, unanswered: Iterable[Arrival], now: float) -> None:
        """A bind is gone, and with it perhaps its last answers. `unanswered`: of all binds."""
        answered = (arrival for arrival in self._taken if arrival.arrived_at > now - ANSWERED_S)
        for arrival in itertools.chain(answered, unanswered):
            if arrival.bind is bind and arrival.message_id:
                self.firsts[_bytes_of(arrival.frame)] = arrival, now
        self._shorten()

    def asked_again(self, arrival: Arrival, now: float) -> None:
        """The operator was told to send it again, and the first copy is still looked after."""
        key = _bytes_of(arrival.frame)
        self.firsts.pop(key, None)  # so that the oldest stay first
        self.firsts[key] = arrival, now
        self._shorten()

    def _shorten(self) -> None:
        while len(self.firsts) > MAX_KEPT:
            del self.firsts[next(iter(self.firsts))]

    def first_of(self, frame: bytes, now: float) -> Arrival | None:
        """The report that `frame` repeats, if that is still under way or well done. Asked once for each."""
        while self.firsts and self._oldest() < now - KEPT_S:
            del self.firsts[next(iter(self.firsts))]
        first, _ = self.firsts.pop(_bytes_of(frame), (None, now))
        return None if first is None or (first.stage is Stage.DONE and not first.taken) else first

    def _oldest(self) -> float:
        return next(iter(self.firsts.values()))[1]


def _bytes_of(frame: bytes) -> bytes:
    """All that makes two reports the same: the command and the whole body."""
    return frame[4:8] + frame[16:]
