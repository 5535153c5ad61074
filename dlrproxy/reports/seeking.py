r"""Finding the message of a report that memory does not know: on disk, or in a response that is still to come.

    look_for --> the store --> found
       ^                  \--> held while responses that were outstanding at its arrival are --> missed
       |                   \-> missed
    confirm --> the store --> found

A response that comes meanwhile may be the one: then the store is asked again. `confirm` is for a message that is
remembered, where others may have changed it: what is not as it is remembered is looked for.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol

import trio

from dlrproxy.custody_port import Wanted
from dlrproxy.mt.submissions import Submissions
from dlrproxy.reports.arrival import Arrival, Stage
from dlrproxy.reports.matching import Matching
from dlrproxy.store.port import OpenMessage, StoreError
from dlrproxy.surroundings import Surroundings
from protocols.smpp.message_ids import Match, NoMatch, Verdict, normal

MAX_LOOKUPS: Final = 1_000  # in one visit to the store, so that its first answers are not late


class Outcome(Protocol):
    """What becomes of a report when the search for its message has ended."""

    def found(self, arrival: Arrival, record: OpenMessage, now: float) -> None: ...

    def missed(self, arrival: Arrival, verdict: Verdict[OpenMessage], now: float) -> None: ...

    def unreadable(self, arrival: Arrival) -> None:
        """The store could not be read."""

    def abandon(self, arrival: Arrival) -> None:
        """Its bind is gone, and nobody has it yet."""


class Seeking:
    """One operator's reports without a known message. Bounded by what bounds the reports: `Arrivals`."""

    def __init__(self, around: Surroundings, submissions: Submissions, matching: Matching, outcome: Outcome) -> None:
        self._race_window_s = around.operator.race_window_s
        self._counters = around.counters
        self._now = around.now
        self._wrap_up = around.wrap_up
        self._store = around.store
        self._submissions = submissions
        self._matching = matching
        self._outcome = outcome
        self._unknown: deque[Arrival] = deque()
        self._remembered: list[tuple[Arrival, OpenMessage]] = []
        self._added = trio.Event()
        self._awaited: dict[bytes, list[Arrival]] = {}  # by normal form of a response id that would be its message's
        self._racing: list[tuple[int, int, Arrival]] = []  # by barrier
        self._count = itertools.count()

    def look_for(self, arrival: Arrival) -> None:
        """Ends in a call of `outcome`, later."""
        if not arrival.forms:
            arrival.barrier = self._submissions.last_ticket
            arrival.forms = self._matching.forms(arrival.message_id) or (normal(arrival.message_id),)
            for form in arrival.forms:
                self._awaited.setdefault(form, []).append(arrival)
        arrival.again = False
        arrival.stage = Stage.SEEKING
        self._unknown.append(arrival)
        self._added.set()

    def confirm(self, arrival: Arrival, remembered: OpenMessage) -> None:
        """Its message is remembered, without a final report. Ends like `look_for`."""
        arrival.stage = Stage.SEEKING
        self._remembered.append((arrival, remembered))
        self._added.set()

    def forget(self, arrival: Arrival) -> None:
        """Nothing more is wanted for it."""
        for form in arrival.forms:
            others = self._awaited[form]
            others.remove(arrival)
            if not others:
                del self._awaited[form]
        arrival.forms = ()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._added.wait()
            self._added = trio.Event()
            await self.look_up()

    async def look_up(self) -> None:
        """Confirm and look for everything that waits for it now: one visit to the store, or a few."""
        while self._remembered or self._unknown:
            if self._remembered:
                await self._confirm_remembered()
                self._wrap_up()
            if self._unknown:
                await self._look_up_unknown()
                self._wrap_up()

    async def _confirm_remembered(self) -> None:
        batch, self._remembered = self._remembered[:MAX_LOOKUPS], self._remembered[MAX_LOOKUPS:]
        try:
            unchanged = await self._store.unchanged([remembered for _, remembered in batch])
        except StoreError:
            self._unreadable(arrival for arrival, _ in batch)
            return
        now = self._now()
        for arrival, remembered in batch:
            if arrival.stage is not Stage.SEEKING:
                continue
            if not arrival.bind.alive:
                self._outcome.abandon(arrival)
            elif unchanged:
                self._matching.exact += 1
                self._outcome.found(arrival, remembered, now)
            else:
                self.look_for(arrival)

    async def _look_up_unknown(self) -> None:
        batch = [self._unknown.popleft() for _ in range(min(len(self._unknown), MAX_LOOKUPS))]
        wanted = [Wanted(arrival.message_id, arrival.subscriber) for arrival in batch]
        try:
            verdicts = await self._matching.judge(wanted)
        except StoreError:
            self._unreadable(batch)
            return
        now = self._now()
        for arrival, verdict in zip(batch, verdicts, strict=True):
            if arrival.stage is Stage.SEEKING:
                self._judged(arrival, verdict, now)

    def _unreadable(self, batch: Iterable[Arrival]) -> None:
        for arrival in batch:
            if arrival.stage is Stage.SEEKING:
                self._outcome.unreadable(arrival)

    def _judged(self, arrival: Arrival, verdict: Verdict[OpenMessage], now: float) -> None:
        if not arrival.bind.alive:
            self._outcome.abandon(arrival)
        elif isinstance(verdict, Match):
            if arrival.raced:
                self._counters.race_resolved += 1
            self.forget(arrival)
            self._outcome.found(arrival, verdict.record, now)
        elif arrival.again:
            self.look_for(arrival)
        elif now < self._race_end(arrival) and self._submissions.oldest_ticket() <= arrival.barrier:
            self._hold(arrival, verdict)
        else:
            self._miss(arrival, verdict, now)

    def _miss(self, arrival: Arrival, verdict: Verdict[OpenMessage], now: float) -> None:
        self.forget(arrival)
        self._outcome.missed(arrival, verdict, now)

    def _race_end(self, arrival: Arrival) -> float:
        return arrival.arrived_at + self._race_window_s

    def _hold(self, arrival: Arrival, verdict: Verdict[OpenMessage]) -> None:
        arrival.verdict = verdict
        if not arrival.raced:
            arrival.raced = True
            self._counters.race_held += 1
        arrival.stage = Stage.RACING
        heapq.heappush(self._racing, (arrival.barrier, next(self._count), arrival))

    def opened(self, messages: list[OpenMessage]) -> None:
        """New open messages: what may be theirs looks again."""
        if not self._awaited:
            return
        for message in messages:
            for arrival in self._awaited.get(normal(message.message_id), ()):
                if arrival.stage is Stage.RACING:
                    self.look_for(arrival)
                else:
                    arrival.again = True

    def settle(self, now: float) -> None:
        """The end of a batch: what waits for no outstanding response any more has waited for nothing."""
        if not self._racing:
            return
        oldest = self._submissions.oldest_ticket()
        while self._racing and (self._racing[0][0] < oldest or self._racing[0][2].stage is not Stage.RACING):
            _, _, arrival = heapq.heappop(self._racing)
            if arrival.stage is Stage.RACING:
                self._end_race(arrival, now)

    def tick(self, now: float) -> None:
        """The race window ends for what came long enough ago."""
        for _, _, arrival in self._racing[:]:
            if arrival.stage is Stage.RACING and now >= self._race_end(arrival):
                self._end_race(arrival, now)

    def _end_race(self, arrival: Arrival, now: float) -> None:
        """No response brought its message, or `opened` would have said so: nothing in the store is nothing still."""
        if not isinstance(arrival.verdict, NoMatch):
            self.look_for(arrival)  # under the rule that is in force by now
        elif arrival.bind.alive:
            self._miss(arrival, arrival.verdict, now)
        else:
            self._outcome.abandon(arrival)
