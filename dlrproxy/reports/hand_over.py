"""What custody asks of the relay: reports and MO that are handed over to a gateway from there, and whose they are."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

from attrs import evolve
from msgspec.structs import replace

from dlrproxy.custody_port import Wanted
from dlrproxy.reports.arrivals import Arrivals
from dlrproxy.reports.finals import KEPT_S, Finals, close
from dlrproxy.reports.matching import Matching
from dlrproxy.reports.passing import Passing
from dlrproxy.reports.renaming import Renaming
from dlrproxy.store.port import OpenMessage
from dlrproxy.surroundings import Surroundings
from protocols.smpp.message_ids import Inexact, Match, Verdict


class HandOver:
    """Of one operator at one node. A `custody_port.Deliveries`."""

    def __init__(
        self,
        around: Surroundings,
        arrivals: Arrivals,
        passing: Passing,
        renaming: Renaming,
        matching: Matching,
        finals: Finals,
    ) -> None:
        self.closing = False  # nothing more is taken from custody
        self.wrap_up = around.wrap_up
        self._store = around.store
        self._operator = around.operator
        self._mo = around.mo
        self._now = around.now
        self._roaming = around.roaming
        self._arrivals = arrivals
        self._passing = passing
        self._renaming = renaming
        self._matching = matching
        self._finals = finals
        self._deliveries: dict[int, Callable[[int | None], None]] = {}  # that have not ended
        self._numbers = itertools.count()

    @property
    def outstanding(self) -> int:
        """Deliveries that have not ended."""
        return len(self._deliveries)

    def bound_gateways(self) -> list[str]:
        return self._passing.bound_gateways()

    def under_way(self, message_id: bytes) -> bool:
        return self._arrivals.under_way(message_id)

    def finished(self, message_id: bytes) -> bool:
        record = self._store.remembered(self._operator.name, message_id)
        if record is None or not self._finals.finished(message_id, record):
            return False
        # Where others know of it, too, custody has just asked them; what counts is what has ended here since then. Of
        # long ago memory may have a message whose id is another one's by now.
        return not self._roaming or self._finals.finished_at(message_id, record) > self._now() - KEPT_S

    def deliver(
        self, gateway: str, message_id: bytes, pdu: bytes, done: Callable[[int | None], None], *, age_s: float = 0.0
    ) -> bool:
        if self.closing:
            return False
        deliver = self._renaming.deliver if self._renaming.enabled and message_id else self._passing.deliver
        number = next(self._numbers)
        self._deliveries[number] = done
        taken = deliver(gateway, message_id, pdu, partial(self._delivered, number), self._now(), age_s=age_s)
        if not taken:
            del self._deliveries[number]
        return taken

    def _delivered(self, number: int, status: int | None) -> None:
        if done := self._deliveries.pop(number, None):
            done(status)

    def end(self) -> None:
        """The relay runs no more: what custody has in its hands goes back to custody, wherever it waits here.

        The sessions are gone by then, and with them what was written to one.
        """
        self.closing = True
        deliveries, self._deliveries = self._deliveries, {}
        for done in deliveries.values():
            done(None)

    def conversing(self, pdu: bytes) -> str | None:
        return self._mo.conversing(pdu, self._now())

    async def find_owners(self, wanted: Sequence[Wanted]) -> list[Verdict[OpenMessage]]:
        verdicts = await self._matching.judge(wanted, note=False)
        return [self._as_of_now(each, verdict) for each, verdict in zip(wanted, verdicts, strict=True)]

    def _as_of_now(self, wanted: Wanted, verdict: Verdict[OpenMessage]) -> Verdict[OpenMessage]:
        """Its final report may have been delivered while the store was read, or before that was written down."""
        if not self._finals.at or not isinstance(verdict, Match | Inexact):
            return verdict
        finished_at = self._finals.finished_at(wanted.message_id, verdict.record)
        return evolve(verdict, record=replace(verdict.record, final_at=finished_at))

    def close(self, message: OpenMessage) -> None:
        close(self._store, message, self._now(), self._operator.final_grace_s)
