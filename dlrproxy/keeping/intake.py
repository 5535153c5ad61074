"""What has come into this node's store from the other node of a pair, or from a journal, while nobody saw it.

`dlrproxy rejoin` puts custody and parked items of the old primary down as META rows (`modes/merging.py`). Each is taken
into custody under a name of this node's own and its row is deleted, in one commit: it is in one of the two, whatever
is interrupted. What is in the way of one, a full custody, is tried again.

Open messages come from journals (`store/sql/homecoming.py`), with META rows that say so. A report of one may have come
earlier, and be parked, for nobody owned it: it goes back into custody, and from there to its owner.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from dlrproxy.custody import Keeper
from dlrproxy.logs import logger
from dlrproxy.modes.merging import CAME_HOME, INTAKE, OF_CUSTODY, OF_OPENS, OF_PARKED, letter_of
from dlrproxy.store.port import Store, StoreError, Table
from ring.rows import RowError, decode_custody, decode_parked

LOOK_S: Final = 5.0
PAGE: Final = 100  # rows of up to 64 KiB


class Intake:
    """Of one term of service. `run` begins when custody has been restored and the relays are attached."""

    def __init__(self, store: Store, keeper: Keeper) -> None:
        self._store = store
        self._keeper = keeper
        self._unreadable: set[bytes] = set()  # names of rows of which it was said
        self._log = logger("custody")

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            await self._attempt(self.look_again)
            await self._attempt(self.take_in)
            await trio.sleep(LOOK_S)

    async def _attempt(self, step: Callable[[], Awaitable[int]]) -> None:
        """What fails is in the log, and keeps nothing else from being done."""
        try:
            await step()
        except StoreError as error:  # the store decides itself when it is lost (`Store.run`)
            self._log.warning("custody.merge_put_off", detail=str(error))

    async def look_again(self) -> int:
        """Look for the owners of what is parked, if open messages have come home; how many have one now.

        Raises StoreError.
        """
        notes = await self._notes()
        if not notes:
            return 0
        found = await self._keeper.parked.look_again()
        for name in notes:
            self._store.delete(Table.META, name)
        self._log.info("custody.looked_again", owned_now=found)
        return found

    async def _notes(self) -> list[bytes]:
        """More may be there: they are found the next time."""
        rows = await self._store.scan(Table.META, CAME_HOME, PAGE)
        return [name for name, _ in rows if name.startswith(CAME_HOME)]

    async def take_in(self) -> int:
        """Returns how many rows were taken in. One that cannot be read stays where it is. Raises StoreError."""
        count, after = 0, INTAKE
        while rows := await self._store.scan(Table.META, after, PAGE):
            for name, content in rows:
                if not name.startswith(INTAKE):
                    return count
                try:
                    taken = await self._take(name, content)
                except RowError as error:
                    self._say_unreadable(name, error)
                    continue
                if not taken:
                    self._log.warning("custody.merge_put_off", detail="custody, or the parked quota, is full")
                    return count
                count += 1
            after = rows[-1][0]
        return count

    def _say_unreadable(self, name: bytes, error: RowError) -> None:
        """Once, though it is looked at every few seconds."""
        if name not in self._unreadable:
            self._unreadable.add(name)
            self._log.error("custody.merge_unreadable", name=name.hex(), detail=str(error))

    async def _take(self, name: bytes, content: bytes) -> bool:
        """False: there is no room. Raises StoreError, RowError."""
        match letter_of(name):
            case letter if letter == OF_CUSTODY:
                taken = self._keeper.take_in(decode_custody(content))
            case letter if letter == OF_PARKED:
                taken = self._keeper.parked.take_in(decode_parked(content))
            case letter if letter == OF_OPENS:
                found = await self._keeper.parked.look_again()
                self._log.info("custody.merged", owned_now=found)
                taken = True
            case letter:
                raise RowError(f"a merged row of kind {letter!r}, of a later release")
        if taken:
            self._store.delete(Table.META, name)  # in the same commit: nothing was awaited since
        return taken
