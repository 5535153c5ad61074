"""The embedded store: RocksDB on the node's own disk (promises: see `port`; group commit: see `grouped`).

One worker thread writes a group and syncs the log. No fsync is ever repeated on the same open file: after a failed one
the kernel may have dropped the pages and call the next one a success. So after a failed write or sync the database is
closed and opened again: that makes RocksDB replay what really is in its log and write it into a new file.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from dlrproxy.store.backend import Due, Records
from dlrproxy.store.commits import REMEMBERED, StoreOptions
from dlrproxy.store.database import Database
from dlrproxy.store.directory import DataDirectory, Opener, free_bytes
from dlrproxy.store.disk import Disk
from dlrproxy.store.group import Group, Key
from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.port import OpenMessage, Table
from dlrproxy.store.space import MIB, Space
from dlrproxy.store.visits import read_due, read_opens, scan_opens, write_group

# What may wait for a disk that stands still. Above it nothing is accepted; what was accepted before still comes in,
# and that is bounded by the windows.
MAX_WAITING_BYTES: Final = 64 * MIB
# A disk with room that cannot be written for so long is lost; other nodes get the reports once this one has unbound.
GIVE_UP_S: Final = 60.0


class RocksBackend:
    """See `grouped.Backend`."""

    def __init__(self, directory: DataDirectory, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk

    async def read_opens(
        self, keys: Sequence[Key], forms: Sequence[Key]
    ) -> tuple[Records, dict[Key, tuple[bytes, ...]]]:
        return await self._disk.read(read_opens, keys, forms)

    async def read_due(self, now: float, limit: int, done: frozenset[bytes]) -> list[Due]:
        return await self._disk.read(read_due, now, limit, done)

    async def scan_opens(self, after: bytes, limit: int) -> list[tuple[bytes, OpenMessage]]:
        return await self._disk.read(scan_opens, after, limit)

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        return await self._disk.read(Database.get, table.value, keys)

    async def scan(self, table: Table, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return await self._disk.read(Database.scan, table.value, after, limit)

    async def write(self, group: Group) -> None:
        await self._disk.write(partial(write_group, group))

    async def replace(self) -> None:
        await self._disk.replace()

    def abandon(self) -> None:
        """Nothing to do: a thread that writes is not waited for by whoever is cancelled."""

    async def close(self) -> None:
        try:
            await self._disk.close()
        finally:
            self._directory.release()


async def open_rocks(
    data_dir: Path,
    now: Callable[[], float],
    *,
    min_free_mb: int = 256,
    remembered: int = REMEMBERED,
    opener: Opener = Database,
    free: Callable[[Path], int] = free_bytes,
) -> GroupedStore:
    """Open the store in `data_dir`, or make it. Raises StoreBusyError, StoreError. The last two are for tests."""

    def take() -> tuple[DataDirectory, Database, bytes]:
        directory = DataDirectory(data_dir)
        try:
            return directory, *directory.open_store(opener)
        except BaseException:
            directory.release()
            raise

    directory, database, store_id = await trio.to_thread.run_sync(take)
    return GroupedStore(
        RocksBackend(directory, Disk(database, partial(opener, directory.store))),
        store_id,
        now,
        StoreOptions(
            name=f"the store in {directory.store}",
            space=Space(directory.path, min_free_mb, free),
            remembered=remembered,
            max_waiting_bytes=MAX_WAITING_BYTES,
            give_up_s=GIVE_UP_S,
        ),
    )
