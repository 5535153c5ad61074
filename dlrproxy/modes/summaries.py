"""Tells the other nodes what this one owns, and hears what they own: drives `ring.summaries` (docs/summaries.md)."""

from collections.abc import Callable
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger

from dlrproxy.store.port import Store, StoreError
from protocols.peer.frames import Frame
from ring.summaries import Summaries
from ring.summary_telling import TELL_S

# Messages of an earlier run are read at this pace, 25,000 a second: a tenth of a core while it lasts.
_READ_AT_ONCE: Final = 500
_READ_EVERY_S: Final = 0.02
_MOST_BEHIND: Final = 5_000  # changes that wait for the next tick: above it reading slows down to one page a tick
_READ_AGAIN_S: Final = 1.0  # after the store could not be read


class SummaryExchange:
    def __init__(
        self, machine: Summaries, store: Store, send: Callable[[str, Frame], bool], log: FilteringBoundLogger
    ) -> None:
        """The machine follows the store from now on: everything that is opened and closed."""
        self._machine = machine
        self._store = store
        self._send = send
        self._log = log
        store.follow(machine)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_store)
            while True:
                await trio.sleep(TELL_S)
                self.tick()

    def tick(self) -> None:
        """Say what is to be said. A frame that does not get through is missed by its receiver, and asked for."""
        for send in self._machine.tick(trio.current_time()):
            self._send(send.to, send.frame)

    async def _read_store(self) -> None:
        """What an earlier run has left open, while traffic goes on."""
        began, count, after = trio.current_time(), 0, b""
        while True:
            try:
                messages, after = await self._store.scan_open(after, _READ_AT_ONCE)
            except StoreError as error:  # the store decides itself when it is lost (`Store.run`)
                self._log.warning("summary.read_put_off", detail=str(error))
                await trio.sleep(_READ_AGAIN_S)
                continue
            for message in messages:
                self._machine.opened(message.operator, message.message_id)
            count += len(messages)
            if not after:
                break
            await trio.sleep(_READ_EVERY_S if self._machine.behind < _MOST_BEHIND else TELL_S)
        self._log.info("summary.read", messages=count, seconds=round(trio.current_time() - began, 1))
