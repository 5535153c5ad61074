"""This node's inbox, in a cluster: custody that other nodes have given to it, or that came from one that is gone."""

from typing import Final

import trio

from dlrproxy.clock import NodeClock
from dlrproxy.keeping.lookups import LOOK_AGAIN_S, Do
from dlrproxy.keeping.set_aside import SetAside
from dlrproxy.logs import logger
from dlrproxy.store.counting import count_rows
from dlrproxy.store.port import StoreError, Table
from dlrproxy.store.shared import SharedStore
from ring.custody import Custody as Machine

_COLLECT_EVERY_S: Final = 5.0  # as a rule another node says that it has put something there; its frame may be lost
_COLLECTED: Final = 100  # rows in one commit: as many as move at a time (`ring.sharing`)


class Inbox:
    """Of one term of service."""

    def __init__(self, machine: Machine, store: SharedStore, clock: NodeClock, do: Do) -> None:
        """`do` carries out what the machine wants done."""
        self._machine = machine
        self._store = store
        self._set_aside = SetAside(store)
        self._clock = clock
        self._do = do
        self._wanted = trio.Event()
        self._recount = False  # parked rows have come that the machine does not know of
        self._log = logger("custody")

    async def run(self) -> None:
        """Collect when something is said to be there, and now and then, until cancelled."""
        self.look()  # what came while this node did not serve: nobody says so again
        while True:
            with trio.move_on_after(_COLLECT_EVERY_S):
                await self._wanted.wait()
            if not await self.collect():
                await trio.sleep(LOOK_AGAIN_S)

    @property
    def wanted(self) -> bool:
        """Something is said to be there."""
        return self._wanted.is_set()

    @property
    def unreadable(self) -> int:
        """Rows that came out of it and cannot be read."""
        return self._set_aside.unreadable

    def look(self) -> None:
        """Something may have come there. Cheap."""
        self._wanted.set()

    def take_over(self) -> None:
        """Custody of a node that is gone has come into the inbox, and its parked items among those of this node."""
        self._recount = True
        self.look()

    async def collect(self) -> bool:
        """Take over what is there, as much as one commit carries; the rest once that is durable.

        What cannot be read is set aside. False: the store could not be read. `run` does this by itself.
        """
        self._wanted = trio.Event()
        try:
            rows = await self._store.inbox(_COLLECTED)
            if self._recount:
                self._recount = False
                self._machine.recount(await count_rows(self._store, Table.PARKED))
            page = await self._set_aside.next_page()
        except StoreError as error:
            self._log.warning("custody.collecting_failed", detail=str(error))
            self.take_over()
            return False
        # From here to the end without an await: a row leaves its place in the commit in which it comes to another.
        if arrived := self._set_aside.taken_back(page) + self._set_aside.readable(rows):
            self._do(self._machine.arrived(arrived, self._clock.now()))
        if page or rows:
            self._store.after_durable(self.look)
        return True
