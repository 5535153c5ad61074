"""Looks up for the custody machine whose message a report is for: in the store, through the relays, in batches.

It is what custody waits for; the machine goes on meanwhile, and is told what was found.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio
from msgspec import structs

from dlrproxy.clock import NodeClock
from dlrproxy.custody_port import Deliveries, Wanted
from dlrproxy.logs import logger
from dlrproxy.store.port import OpenMessage, Store, StoreError, Table
from dlrproxy.store.shared import SharedStore
from protocols.peer.frames import EnvelopeKey
from protocols.smpp.message_ids import Inexact, Match, Verdict, digits
from ring import commands
from ring.commands import Ask, Closed, Finding, Recall
from ring.custody import Custody as Machine
from ring.rows import ParkedRow, encode_key, read_parked

LOOK_AGAIN_S: Final = 0.5  # after the store could not be read
# A report that came so long before a message was submitted is of another one, which had its id before. Reports come in
# moments before their response does; the rest is for the clocks of two nodes.
_BEFORE_MESSAGE_S: Final = 3600.0

Lookup = Ask | Recall | Closed
Do = Callable[[list[commands.Command]], None]


class Lookups:
    """Of one term of service."""

    def __init__(self, machine: Machine, store: Store, clock: NodeClock, shared: SharedStore | None, do: Do) -> None:
        """`shared` is `store`, in a cluster. `do` carries out what the machine wants done."""
        self._machine = machine
        self._store = store
        self._shared = shared
        self._clock = clock
        self._do = do
        self._relays: Mapping[str, Deliveries] = {}
        self._waiting: list[Lookup] = []
        self._asked = trio.Event()
        self._under_way = trio.Lock()
        self._log = logger("custody")

    def attach(self, relays: Mapping[str, Deliveries]) -> None:
        """The relays, by operator. Called before anything else."""
        self._relays = relays

    def ask(self, lookup: Lookup) -> None:
        self._waiting.append(lookup)
        self._asked.set()

    @property
    def waiting(self) -> bool:
        """The machine has asked for something that `look_up` has not found yet."""
        return bool(self._waiting)

    async def idle(self) -> None:
        """Wait until what is looked up at this moment was told to the machine."""
        async with self._under_way:
            pass

    async def run(self) -> None:
        """Look up what is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            if not await self.look_up():
                await trio.sleep(LOOK_AGAIN_S)
                self._asked.set()

    async def look_up(self) -> bool:
        """Look up what the machine has asked for. False: the store could not be read, and the rest still waits.

        `run` does this by itself.
        """
        async with self._under_way:
            wanted, self._waiting = self._waiting, []
            try:
                await self._look_up_all(wanted)
            except StoreError as error:
                # The store itself decides when it is lost (`Store.run`); until then it is asked again.
                self._log.warning("custody.lookup_failed", waiting=len(wanted), detail=str(error))
                self._waiting = wanted + self._waiting
                return False
        return True

    async def _look_up_all(self, wanted: list[Lookup]) -> None:
        """What is done is taken out of `wanted`. Raises StoreError."""
        by_operator: dict[str, list[Ask | Closed]] = {}
        for lookup in wanted[:]:
            if isinstance(lookup, Recall):
                await self._recall(lookup)
                wanted.remove(lookup)
            else:
                by_operator.setdefault(lookup.envelope.operator, []).append(lookup)
        for operator, lookups in by_operator.items():
            await self._find_owners(operator, lookups)
            wanted[:] = [
                lookup for lookup in wanted if isinstance(lookup, Recall) or lookup.envelope.operator != operator
            ]

    async def _recall(self, recall: Recall) -> None:
        value = await self._store.get(Table.PARKED, encode_key(recall.key))
        row = None if value is None else read_parked(value)
        self._do(self._machine.recalled(recall.key, row, self._clock.now()))

    async def _find_owners(self, operator: str, lookups: list[Ask | Closed]) -> None:
        relay = self._relays.get(operator)
        verdicts: Sequence[Verdict[OpenMessage] | None] = [None] * len(lookups)
        if relay is not None:
            wanted = [Wanted(lookup.envelope.message_id, lookup.envelope.destination) for lookup in lookups]
            verdicts = await relay.find_owners(wanted)
        finished = await self._finished_elsewhere(lookups, verdicts)
        out: list[commands.Command] = []
        for lookup, verdict in zip(lookups, verdicts, strict=True):
            if isinstance(lookup, Ask):
                finding = _finding(verdict, lookup, taking=self._store.accepting)
                if finding is not None and lookup.envelope.key in finished:
                    finding = structs.replace(finding, finished=True)
                out += self._machine.asked(lookup.envelope.key, finding, self._clock.now())
            elif (
                relay is not None
                and isinstance(verdict, Match | Inexact)
                and _may_be_of(verdict.record, lookup.reported_at)
            ):
                relay.close(verdict.record)
        self._do(out)

    async def _finished_elsewhere(
        self, lookups: list[Ask | Closed], verdicts: Sequence[Verdict[OpenMessage] | None]
    ) -> set[EnvelopeKey]:
        """Whose message's final report another node has delivered, which memory does not know of. Raises StoreError."""
        if self._shared is None:
            return set()
        asked = {
            lookup.envelope.key: verdict.record.key
            for lookup, verdict in zip(lookups, verdicts, strict=True)
            if isinstance(lookup, Ask) and lookup.only_finished and isinstance(verdict, Match | Inexact)
        }
        finished = await self._shared.finished(list(asked.values())) if asked else set()
        return {key for key, message in asked.items() if message in finished}

    async def owned(self, parked: Mapping[bytes, ParkedRow]) -> list[bytes]:
        """The names of those whose open message is here, not another one that has its id since. Raises StoreError."""
        found = []
        for operator, relay in self._relays.items():
            sought = {
                name: row
                for name, row in parked.items()
                if row.envelope.operator == operator and row.envelope.is_sought
            }
            wanted = [Wanted(row.envelope.message_id, row.envelope.destination) for row in sought.values()]
            verdicts = await relay.find_owners(wanted)
            found += [
                name
                for (name, row), verdict in zip(sought.items(), verdicts, strict=True)
                if isinstance(verdict, Match) and _may_be_of(verdict.record, row.accepted_at)
            ]
        return found

    def bound_gateway(self, ask: Ask) -> Finding | None:
        """Of this node, for what no open message is sought of: an MO."""
        relay = self._relays.get(ask.envelope.operator)
        if relay is None:
            return None
        bound, envelope = relay.bound_gateways(), ask.envelope
        if envelope.gateway:
            gateway: str | None = envelope.gateway
        elif ask.inexact:
            gateway = next(iter(bound), None)
        else:
            gateway = relay.conversing(envelope.pdu)
        if gateway is None or gateway not in bound:
            return None
        return Finding(gateway, exact=True, taking=self._store.accepting)


def _may_be_of(record: OpenMessage, reported_at: float) -> bool:
    """Whether a report that came then may be of this message, and not of one that had its id before."""
    return record.submitted_at < reported_at + _BEFORE_MESSAGE_S


def _finding(verdict: Verdict[OpenMessage] | None, ask: Ask, *, taking: bool) -> Finding | None:
    """By a rule that is not in force a message counts only if its subscriber is the report's, as far as both are known.

    Two ids are soon related by chance, and a report at the wrong gateway is worse than one that is parked.
    """
    match verdict:
        case Match(record=record):
            return Finding(record.owner, exact=True, finished=record.finished, taking=taking)
        case Inexact(record=record, agrees=agrees) if ask.inexact and (
            agrees or not ask.envelope.destination or not digits(record.destination)
        ):
            return Finding(record.owner, exact=False, finished=record.finished, taking=taking)
        case _:
            return None
