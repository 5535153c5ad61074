"""The operator side: the binds that this node keeps at one operator, and those that the operator asks for by outbind.

`run` dials, binds, reads and dials again until it is cancelled, and then unbinds: so a node that must hold no binds
(promise 8) cancels it, and starts it again when it may.

    unreachable          the other hosts at once, then again after a wait that doubles, with jitter
    lost                 the same, but for a bind that lived for STABLE_S: the same host again, after the shortest wait
    refused              after refused_bind_s, with an error in the log: hammering gets accounts blocked
    refused, held        ESME_RALYBND: three times after half a minute, since it may be a dead session of ours
    ended                never before rebind_wait_s is over, whatever else; over restarts too (sessions/last_binds.py)
"""

import random
from collections.abc import Callable, Sequence
from typing import Final

import trio
from attrs import frozen
from structlog.typing import FilteringBoundLogger

from dlrproxy.config.keys import Address
from dlrproxy.config.operator import Operator
from dlrproxy.relay import Relay
from dlrproxy.sessions.binding import Attempt, Ending, Slot, refused_wait_s
from dlrproxy.sessions.connection import connection_over
from dlrproxy.sessions.dialling import UnreachableError, dial
from dlrproxy.sessions.last_binds import UP_EVERY_S, LastBinds
from dlrproxy.sessions.outbind import Outbinds
from dlrproxy.store.port import StoreError
from protocols.smpp import constants as c

STABLE_S: Final = 10.0  # a bind that lived so long makes the waits short again

_BIND_TYPES: Final = {
    "transceiver": ((c.BIND_TRANSCEIVER, ""),),
    "transmitter": ((c.BIND_TRANSMITTER, "tx"),),
    "receiver": ((c.BIND_RECEIVER, "rx"),),
    "transmitter+receiver": ((c.BIND_TRANSMITTER, "tx"), (c.BIND_RECEIVER, "rx")),
}


@frozen
class Waits:
    """How long to wait before the next attempt. Pure: `draw` gives the jitter."""

    operator: Operator
    draw: Callable[[float, float], float] = random.SystemRandom().uniform

    def after(self, ending: Ending, failures: int) -> float:
        """Seconds. `failures`: attempts in a row without a stable bind, this one included if it was none."""
        operator = self.operator
        if ending in (Ending.REFUSED, Ending.HELD):
            least = refused_wait_s(operator, ending)
            return self.draw(least, 1.1 * least)
        rounds, within = divmod(failures, len(operator.addresses))
        if within:
            return 0.0  # there is another host to try
        highest = min(operator.reconnect_max_s, operator.reconnect_min_s * 2.0 ** min(max(1, rounds), 30))
        return self.draw(min(operator.reconnect_min_s, highest), highest)


class Operators:
    """The binds at one operator."""

    def __init__(self, relay: Relay, log: FilteringBoundLogger) -> None:
        operator = relay.operator
        self._relay = relay
        self._operator = operator
        self._log = log.bind(operator=operator.name)
        self._waits = Waits(operator)
        self._last_binds = LastBinds(relay.store, operator, relay.now)
        listen = operator.outbind_listen
        self._dialling = True
        self._connections = 0  # to the operator, that this node has dialled
        self._all_gone = trio.Event()
        self._outbinds = Outbinds(relay, listen, self._log) if listen is not None else None
        self._dialled: Sequence[Slot] = [
            Slot(f"{number}{suffix}", command)
            for number in range(1, operator.binds + 1)
            for command, suffix in _BIND_TYPES[operator.bind_type]
        ]

    @property
    def slots(self) -> Sequence[Slot]:
        """The binds that are to be up, and those on connections that the operator made."""
        return [*self._dialled, *(self._outbinds.slots if self._outbinds is not None else ())]

    async def run(self, *, task_status: trio.TaskStatus[Address | None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the binds up until cancelled; then unbind, in a bounded time.

        Started when it listens for outbind, with the address, where it is told to. Raises OSError when it cannot, and
        TlsError for certificates.
        """
        async with trio.open_nursery() as nursery:
            task_status.started(await nursery.start(self._outbinds.run) if self._outbinds is not None else None)
            for slot in self._dialled:
                nursery.start_soon(self._keep, slot)
            if self._last_binds.wait_s:
                nursery.start_soon(self._note_binds)

    def renew_certificates(self) -> None:
        """What the operator is shown where it connects to us; for dialling they are read for every connection."""
        if self._outbinds is not None:
            self._outbinds.renew_certificates()

    def dial_no_more(self) -> None:
        """Let the connections that there are be the last ones."""
        self._dialling = False

    async def gone(self) -> None:
        """Wait until there is no connection any more that this node has dialled."""
        while self._connections:
            self._all_gone = trio.Event()
            await self._all_gone.wait()

    async def _note_binds(self) -> None:
        while True:
            await trio.sleep(UP_EVERY_S)
            self._last_binds.up(slot.name for slot in self._dialled if slot.bind is not None)

    async def _keep(self, slot: Slot) -> None:
        log = self._log.bind(bind=slot.name)
        await self._remember(slot, log)
        while True:
            await trio.sleep_until(slot.not_before)
            if not self._dialling:
                return
            address = self._operator.addresses[slot.host % len(self._operator.addresses)]
            began = trio.current_time()
            ending = await self._attempt(slot, address, log.bind(host=str(address)))
            if ending is Ending.LOST and trio.current_time() - began >= STABLE_S:
                slot.failures = 0  # the same host again
            else:
                slot.failures += 1
                slot.host += 1
            wait_s = self._waits.after(ending, slot.failures)
            log.info("operator.waiting", wait_s=round(wait_s, 1))
            await trio.sleep(wait_s)

    async def _remember(self, slot: Slot, log: FilteringBoundLogger) -> None:
        """Wait out what is left of the wait since an earlier run's bind; all of it where that is not known."""
        try:
            rest_s = await self._last_binds.rest_s(slot.name)
        except StoreError as error:
            rest_s = self._last_binds.wait_s
            self._log.error("operator.last_bind_unknown", bind=slot.name, detail=str(error), wait_s=rest_s)
        if rest_s:
            slot.not_before = max(slot.not_before, trio.current_time() + rest_s)
            slot.why = "waits for rebind_wait_s"
            log.info("operator.waiting", wait_s=round(rest_s, 1), why="rebind_wait_s")

    async def _attempt(self, slot: Slot, address: Address, log: FilteringBoundLogger) -> Ending:
        """From dialling to the end of the connection."""
        slot.address = str(address)
        self._connections += 1
        try:
            return await self._converse(slot, address, log)
        finally:
            self._connections -= 1
            if not self._connections:
                self._all_gone.set()

    async def _converse(self, slot: Slot, address: Address, log: FilteringBoundLogger) -> Ending:
        try:
            stream = await dial(self._operator, address)
        except UnreachableError as error:
            slot.why = f"{error.event.partition('.')[2]}: {error}"
            log.log(error.level, error.event, error=str(error))
            return Ending.UNREACHABLE
        try:
            connection = connection_over(stream, str(address), self._relay.licence)
            return await Attempt(self._relay, slot, connection, log, self._last_binds).run()
        finally:
            slot.not_before = trio.current_time() + self._operator.rebind_wait_s
