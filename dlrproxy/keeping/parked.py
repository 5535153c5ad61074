"""Parked items, as people and other nodes' news deal with them: taken back into custody, or dropped.

The machine knows how many there are, not what they are: they are read from the store, and what was read is decided
about before anything else can have changed it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import trio

from dlrproxy.clock import NodeClock
from dlrproxy.keeping.lookups import Do, Lookups
from dlrproxy.store.port import Store, Table
from ring.commands import Reason
from ring.custody import Custody as Machine
from ring.rows import ParkedRow, read_parked

if TYPE_CHECKING:
    from protocols.peer.frames import EnvelopeKey

_PAGE: Final = 1000  # rows read at a time
_AT_ONCE: Final = 50  # rows replayed in one turn of the loop: some 3 ms

_NOT_OWNED: Final = frozenset({Reason.UNCLAIMED.value, Reason.OWNER_UNREACHABLE.value})


class Parked:
    """Of one term of service."""

    def __init__(self, machine: Machine, store: Store, clock: NodeClock, lookups: Lookups, do: Do) -> None:
        self._machine = machine
        self._store = store
        self._clock = clock
        self._lookups = lookups
        self._do = do
        self._replayed: dict[EnvelopeKey, None] = {}  # what may still be on its way
        self._deciding = trio.Lock()  # reading a parked row and deciding about it are one step

    async def replay(self, keys: Sequence[bytes], gateway: str, *, node: str = "") -> int:
        """Take parked rows back into custody, for a gateway of this node or (with "") for the ring; how many.

        With `node`: for that gateway of that node or (with "") any that is bound there.

        Left out are those that are not there, and those that a late claim has just taken. One visit to the disk and one
        commit are for all of them, and so is one turn of the loop. Raises StoreError.
        """
        count = 0
        async with self._deciding:
            for row in await self._read(keys):
                taken, out = self._machine.replay(row, gateway, self._clock.now(), node=node)
                self._do(out)
                if taken is not None:
                    self._replayed[taken] = None
                    count += 1
        return count

    async def _read(self, keys: Sequence[bytes]) -> list[ParkedRow]:
        values = await self._store.get_many(Table.PARKED, keys)
        return [row for value in values if value is not None and (row := read_parked(value)) is not None]

    def replaying(self) -> int:
        """How many that were replayed are on their way now: not those that wait, nor those that a gateway has."""
        self._replayed = {key: None for key in self._replayed if self._machine.is_on_its_way(key)}
        return len(self._replayed)

    async def drop(self, keys: Sequence[bytes]) -> int:
        """A person drops parked rows. As for `replay`. Raises StoreError."""
        count = 0
        async with self._deciding:
            for row in await self._read(keys):
                out = self._machine.drop_parked(row, self._clock.now())
                self._do(out)
                count += bool(out)
        return count

    def take_in(self, row: ParkedRow) -> bool:
        """As `Keeper.take_in`, of an item that another node has parked."""
        taken, out = self._machine.adopt_parked(row, self._clock.now())
        self._do(out)
        return taken

    async def look_again(self) -> int:
        """Take back into custody what nobody owned, and whose open message is known now; returns how many.

        Raises StoreError.
        """
        await self._lookups.idle()  # what was looked up before that message came is parked by now, and seen below
        count, after = 0, b""
        while rows := await self._store.scan(Table.PARKED, after, _PAGE):
            parked = {name: read_parked(value) for name, value in rows}
            owned = await self._lookups.owned(
                {name: row for name, row in parked.items() if row and row.reason in _NOT_OWNED}
            )
            for begin in range(0, len(owned), _AT_ONCE):
                count += await self.replay(owned[begin : begin + _AT_ONCE], "")
            after = rows[-1][0]
        return count
