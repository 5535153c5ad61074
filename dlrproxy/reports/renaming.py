"""Reports about the id that the gateway was given (`receipt_id = "as-submitted"`).

A gateway that looks a report up by the exact string of its submit_sm_resp then finds it, whichever way the operator
writes ids in reports. What is in custody, and what travels the ring, is the report as it came: the id is replaced when
it is written to the gateway's session, where the message is known. A report whose message is not known any more (its
time is up, a person sent it to another gateway), or may be another one (by a rule that is not in force, with another
subscriber), or in which the id has no room, passes as it was received.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from dlrproxy.custody_port import Wanted
from dlrproxy.reports.matching import Matching
from dlrproxy.reports.passing import Passing
from dlrproxy.store.port import OpenMessage, StoreError
from dlrproxy.surroundings import Surroundings
from protocols.smpp.message_ids import Inexact, Match, Verdict
from protocols.smpp.receipts import Report, read
from protocols.smpp.rewrite import with_id

MAX_LOOKUPS: Final = 1_000  # in one visit to the store; custody has far fewer with its gateways at a time


class _Delivery(NamedTuple):
    """What custody delivers, and whose message memory does not know."""

    gateway: str
    message_id: bytes
    pdu: bytes
    done: Callable[[int | None], None]
    age_s: float


class Renaming:
    """One operator's. Does nothing to a report unless `enabled`."""

    def __init__(self, around: Surroundings, passing: Passing, matching: Matching) -> None:
        self.enabled = around.operator.receipt_id == "as-submitted"
        self._operator = around.operator
        self._store = around.store
        self._counters = around.counters
        self._now = around.now
        self._wrap_up = around.wrap_up
        self._passing = passing
        self._matching = matching
        self._waiting: deque[_Delivery] = deque()
        self._added = trio.Event()

    def renamed(self, frame: bytes, report: Report | None, message_id: bytes) -> bytes:
        """The report about `message_id`, the id in its submit_sm_resp. What is no report passes as it is."""
        if report is None or (report.message_id == message_id and report.text_id in (None, message_id)):
            return frame
        rewritten = with_id(frame, message_id)
        if rewritten.problem is not None:
            self._counters.id_as_received += 1
        return rewritten.frame

    def deliver(
        self,
        gateway: str,
        message_id: bytes,
        pdu: bytes,
        done: Callable[[int | None], None],
        now: float,
        *,
        age_s: float = 0.0,
    ) -> bool:
        """`custody_port.Deliveries.deliver`, for a report that names a message."""
        record = self._store.recent(self._operator.name, message_id)
        delivery = _Delivery(gateway, message_id, pdu, done, age_s)
        if record is not None:
            return self._deliver(delivery, record, now)
        if self._passing.choose(gateway, 0) is None:
            return False
        self._waiting.append(delivery)
        self._added.set()
        return True

    def _deliver(self, delivery: _Delivery, record: OpenMessage | None, now: float) -> bool:
        gateway, message_id, pdu, done, age_s = delivery
        if record is not None and record.owner == gateway:
            pdu = self.renamed(pdu, self._read(pdu), record.message_id)
        else:
            self._counters.id_as_received += 1
        return self._passing.deliver(gateway, message_id, pdu, done, now, record, age_s=age_s)

    def _read(self, pdu: bytes) -> Report | None:
        return read(pdu, text_receipts=self._operator.receipt_text)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._added.wait()
            self._added = trio.Event()
            await self.look_up()

    async def look_up(self) -> None:
        """Deliver everything that waits for its message now."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_LOOKUPS))]
            records = await self._find(batch)
            now = self._now()
            for delivery, record in zip(batch, records, strict=True):
                if not self._deliver(delivery, record, now):
                    delivery.done(None)  # the session has ended, or is full by now: custody tries again
            self._wrap_up()

    async def _find(self, batch: list[_Delivery]) -> list[OpenMessage | None]:
        reports = [self._read(delivery.pdu) for delivery in batch]
        wanted = [
            Wanted(delivery.message_id, b"" if report is None else report.source)
            for delivery, report in zip(batch, reports, strict=True)
        ]
        try:
            verdicts = await self._matching.judge(wanted, note=False)
        except StoreError:  # what is known is delivered, not held back
            return [None] * len(batch)
        return [_sure(verdict) for verdict in verdicts]


def _sure(verdict: Verdict[OpenMessage]) -> OpenMessage | None:
    """The message whose id may be written into the report: by a rule in force, or one that went to its subscriber."""
    if isinstance(verdict, Match) or (isinstance(verdict, Inexact) and verdict.agrees):
        return verdict.record
    return None
