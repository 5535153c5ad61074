"""A node's disk, and the store on it. The disk outlives the process; it is slow, full, failing, or torn at a crash.

The store's promises are those of `dlrproxy/store/port.py`, in the way the real one keeps them (`store/commits.py`): one
group at a time, whole or not at all, called back only when the disk says so; after a failed write or sync the same
group is written again to files opened anew, and meanwhile nothing new is accepted. A group that was being written at a
crash is found whole, or torn and therefore not at all: its record carries a checksum, as those of RocksDB's log do.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from dlrproxy.store.group import Closed, Group, Key
from dlrproxy.store.memory import MemoryStore, Rows
from dlrproxy.store.port import Lookup, OpenMessage, StoreError, Table
from simulation.tasks import pause

_STALLED_S: Final = 2.0  # store/commits.py: a write that takes longer stands still
_REOPEN_S: Final = (0.1, 5.0)  # least and most between two tries of a group that failed
_GIVE_UP_S: Final = 60.0  # a disk with room that cannot be written for so long is lost: the node stops
_CHECKSUM_BYTES: Final = 4

Change = tuple[Table, bytes, bytes | None]  # a row as it is on the disk from now on
Later = Callable[[float, Callable[[], None]], None]


class Platter(Rows):
    """What is on the disk. `changed` is told of each group that has come there, row by row."""

    __slots__ = ("_changes", "changed")

    def __init__(self, changed: Callable[[list[Change]], None]) -> None:
        super().__init__()
        self.changed = changed
        self._changes: list[Change] = []

    def set_row(self, table: Table, key: bytes, value: bytes | None) -> None:
        super().set_row(table, key, value)
        self._changes.append((table, key, value))

    def apply(self, group: Group) -> None:
        self._changes = []
        super().apply(group)
        self.changed(self._changes)

    def copy_to(self, rows: Rows) -> None:
        rows.opens.update(self.opens)
        rows.forms.update(self.forms)
        for table, kept in self.tables.items():
            rows.tables[table].update(kept)


class Disk:
    """Times are those of the world. What is wrong with it is wrong until a time that `faults.py` sets."""

    def __init__(
        self, choose: random.Random, store_id: bytes, now: Callable[[], float], changed: Callable[[list[Change]], None]
    ) -> None:
        self.store_id = store_id
        self.rows = Platter(changed)
        self.slow_until = self.full_until = self.failing_until = 0.0
        self.at_next_write: Callable[[float], None] | None = None  # is told how long that takes; one of custody
        self._choose = choose
        self._now = now

    def replace(self, store_id: bytes) -> None:
        """An empty one takes its place."""
        self.rows = Platter(self.rows.changed)
        self.store_id = store_id

    def write_s(self) -> float:
        """How long the next write and sync take."""
        if self._now() < self.slow_until:
            return self._choose.uniform(0.2, 4.0)
        return self._choose.uniform(0.0005, 0.02)

    def read_s(self) -> float:
        return self._choose.uniform(0.05, 1.0) if self._now() < self.slow_until else self._choose.uniform(0.0, 0.003)

    @property
    def full(self) -> bool:
        return self._now() < self.full_until

    @property
    def failing(self) -> bool:
        return self._now() < self.failing_until

    def crash(self, group: Group | None) -> None:
        """The power goes, or the process, while `group` is being written: some first part of its record is there."""
        if group is None or not group:
            return
        record = encode(group)
        kept = self._choose.choice((0, len(record), self._choose.randrange(len(record))))
        found = decode(record[:kept])
        if found is not None:
            self.rows.apply(found)

    def half_failed(self, group: Group) -> None:
        """A sync failed: nobody knows, and the next opening may find the group there all the same."""
        if self._choose.random() < 0.5:
            self.rows.apply(decode(encode(group)) or Group())


class DiskStore(MemoryStore):
    """The store of one run of a node. `later` plans for as long as that process lives; `lost` ends it."""

    def __init__(
        self, disk: Disk, clock: Callable[[], float], now: Callable[[], float], later: Later, lost: Callable[[], None]
    ) -> None:
        super().__init__(clock, auto_commit=False, store_id=disk.store_id)
        self.disk = disk
        self._world_now = now
        self._later = later
        self._lost = lost
        self._durable = disk.rows
        disk.rows.copy_to(self._visible)
        self.starting = True  # nothing else happens meanwhile: what is written is durable at once
        self._writing = False
        self._failing_since: float | None = None
        self._tries = 0
        self._began_at = 0.0

    @property
    def under_way(self) -> Group | None:
        """What a crash tears."""
        return self._committing

    def open_messages(self) -> list[OpenMessage]:
        """Those that still wait for a final report."""
        return [message for message in self._visible.opens.values() if not message.final_at]

    def judge(self) -> None:
        """`accepting` as of now."""
        stalled = self._committing is not None and self._world_now() >= self._began_at + _STALLED_S
        self.accepting = not (stalled or self._failing_since is not None or self.disk.full)

    def _written(self) -> None:
        if self.starting:
            self.commit()
        elif not self._writing:
            self._writing = True
            self._later(0.0, self._begin)

    def _begin(self) -> None:
        if not self.begin():
            self._writing = False
            return
        self._began_at = self._world_now()
        self._tries = 0
        takes_s = self.disk.write_s()
        self._later(takes_s, self._end)
        if (
            self.disk.at_next_write is not None
            and self._committing is not None
            and self._committing.rows[Table.CUSTODY]
        ):
            self.disk.at_next_write(takes_s)
        self._later(_STALLED_S, self.judge)

    def _end(self) -> None:
        if self.disk.full or self.disk.failing:
            self._failed()
            return
        self._failing_since = None
        self.finish()
        self.judge()
        self._begin()

    def _failed(self) -> None:
        now = self._world_now()
        if self._failing_since is None or self.disk.full:
            self._failing_since = now
        self.judge()
        if self.disk.failing and self._committing is not None:
            self.disk.half_failed(self._committing)
        if now - self._failing_since >= _GIVE_UP_S:
            self._lost()
            return
        self._tries += 1
        least_s, most_s = _REOPEN_S
        self._later(min(most_s, least_s * 2.0**self._tries) + self.disk.write_s(), self._end)

    async def find(self, lookups: Sequence[Lookup]) -> list[list[OpenMessage]]:
        await self._read()
        return await super().find(lookups)

    async def get(self, table: Table, key: bytes) -> bytes | None:
        await self._read()
        return await super().get(table, key)

    async def _read(self) -> None:
        await pause(self.disk.read_s())
        if self.disk.failing:
            raise StoreError("the simulated disk cannot be read")


# A group as one record of a log


class _Record(msgspec.Struct, array_like=True):
    opens: list[OpenMessage]
    closed: list[tuple[Key, float, float, OpenMessage | None]]
    removed: list[Key]
    rows: dict[Table, list[tuple[bytes, bytes | None]]]
    inboxes: list[tuple[str, bytes, bytes | None]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Record)


def encode(group: Group) -> bytes:
    """With a checksum in front."""
    record = _Record(
        list(group.opens.values()),
        [(key, change.final_at, change.expires_at, change.message) for key, change in group.closed.items()],
        sorted(group.removed),
        {table: list(rows.items()) for table, rows in group.rows.items()},
        [(node, key, value) for (node, key), value in group.inboxes.items()],
    )
    data = _encoder.encode(record)
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big") + data


def decode(record: bytes) -> Group | None:
    """None for a record that is torn."""
    checksum, data = record[:_CHECKSUM_BYTES], record[_CHECKSUM_BYTES:]
    if zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big") != checksum or not data:
        return None
    found = _decoder.decode(data)
    group = Group()
    group.opens.update({message.key: message for message in found.opens})
    group.closed.update({key: Closed(final_at, until, message) for key, final_at, until, message in found.closed})
    group.removed.update(found.removed)
    for table, rows in found.rows.items():
        group.rows[table].update(rows)
    group.inboxes.update({(node, key): value for node, key, value in found.inboxes})
    return group
