"""Responses that wait for their open message to be safe, and what must not overtake them.

A submit_sm_resp goes to the gateway only after its open message is on disk (promise 2; `Store.after_opened`), and a
report of that message only after the response: on the same session it then follows in the stream, on another one
`receipt_delay_ms` later.
"""

from collections.abc import Callable, Container
from functools import partial
from typing import Final

from dlrproxy.sessions.links import GatewaySession
from dlrproxy.surroundings import Surroundings

Follower = Callable[[float], None]  # is given the time

# Responses of one operator that may wait for the disk. At this bound MT are refused, as with a full window.
MAX_WAITING: Final = 10_000

_Held = tuple[GatewaySession, bytes, bytes]  # session, frame, message id


class Responses:
    """The responses of one operator's binds."""

    __slots__ = (
        "_batch",
        "_before",
        "_counters",
        "_delay_s",
        "_following",
        "_group",
        "_grouped",
        "_last_written_at",
        "_now",
        "_recent",
        "_recent_since",
        "_store",
        "_unwritten",
        "_wrap_up",
        "tracks_writing",
        "waiting",
    )

    def __init__(self, around: Surroundings) -> None:
        self._store = around.store
        self._counters = around.counters
        self._delay_s = around.operator.receipt_delay_ms / 1000
        self._now = around.now
        self._wrap_up = around.wrap_up
        self._batch: list[_Held] = []
        self._group = -1  # the store's group that `_grouped` waits for
        self._grouped: list[_Held] = []
        self.waiting = 0  # responses that have not been written
        self._unwritten: dict[bytes, int] = {}  # how many of them, by message id, which operators repeat; last id last
        self._following: dict[bytes, list[Follower]] = {}  # by message id: what waits until none is unwritten
        # When a response was written, by message id: two generations, each of at least `delay_s`.
        self.tracks_writing = False  # with a single session there is no other that a report could go to
        self._recent: dict[bytes, float] = {}
        self._before: dict[bytes, float] = {}
        self._recent_since = 0.0
        self._last_written_at = 0.0

    def hold(self, session: GatewaySession, frame: bytes, message_id: bytes) -> None:
        """Its open message has just been put into the store. Released after the `settle` of this batch."""
        self._batch.append((session, frame, message_id))
        self.waiting += 1
        self._unwritten[message_id] = self._unwritten.pop(message_id, 0) + 1

    def settle(self) -> None:
        """The end of a batch: release what it held once all of it is safe, in order."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        if self._group == self._store.group:
            self._grouped += batch  # one callback a group: what a commit releases is written together
        else:
            self._group, self._grouped = self._store.group, batch
            self._store.after_opened(partial(self._release, batch))

    @property
    def unwritten(self) -> Container[bytes]:
        """The message ids of responses that have not been written yet. The same object for ever."""
        return self._unwritten

    def follow(self, message_id: bytes, follower: Follower) -> None:
        """Call when the response, which is unwritten, was put on its session; of several with that id, the last."""
        self._following.setdefault(message_id, []).append(follower)

    def last_unwritten(self) -> bytes | None:
        """The id of the response that is written after all others, if any is unwritten."""
        return next(reversed(self._unwritten), None)

    def ready_elsewhere_at(self, message_id: bytes | None) -> float:
        """From when on a report may go to another session than the response; 0 for long ago.

        None: it is not known which response; then all that have been written count.
        """
        if message_id is None:
            return self._last_written_at + self._delay_s
        written_at = self._recent.get(message_id) or self._before.get(message_id)
        return 0.0 if written_at is None else written_at + self._delay_s

    def _release(self, batch: list[_Held]) -> None:
        now = self._now()
        if batch is self._grouped:
            self._group = -1  # whatever the store does next, nothing is added to what has been released
        unwritten, following = self._unwritten, self._following
        followers: list[Follower] = []
        self.waiting -= len(batch)
        for session, frame, message_id in batch:
            if session.alive:
                session.put(frame)
            else:
                self._counters.response_session_gone += 1
            if unwritten[message_id] > 1:
                unwritten[message_id] -= 1
                continue
            del unwritten[message_id]
            if following and (behind := following.pop(message_id, None)):
                followers += behind
        if self.tracks_writing:
            self._note_writing(batch, now)
        for follower in followers:
            follower(now)
        self._wrap_up()

    def _note_writing(self, batch: list[_Held], now: float) -> None:
        self._last_written_at = now
        if now - self._recent_since > self._delay_s:
            self._before = self._recent if now - self._recent_since <= 2 * self._delay_s else {}
            self._recent = {}
            self._recent_since = now
        for _, _, message_id in batch:
            self._recent[message_id] = now
