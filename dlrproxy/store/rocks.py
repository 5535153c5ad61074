"""The embedded store: RocksDB on the node's own disk, group commit, memory in front of it (promises: see `port`).

How a write becomes durable:

    put_open, put, delete      into the collecting group, and into `recent`: lookups see it at once
    run                        takes the group; one worker thread writes it and syncs the log; then its callbacks are
                               called. What is written meanwhile collects: the slower the disk, the larger the groups
    a write that takes long    `accepting` is False until it is done
    a failed write or sync     nobody is told anything. `accepting` is False, the database is closed and opened again,
                               the same group is written again, with back-off, until it is durable

No fsync is ever repeated on the same open file: after a failed one the kernel may have dropped the pages and call the
next one a success. Opening again makes RocksDB replay what really is in its log and write it into a new file.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from dlrproxy.store.database import Database, DatabaseError
from dlrproxy.store.directory import DataDirectory, Opener, free_bytes
from dlrproxy.store.disk import Disk
from dlrproxy.store.group import Callback, Group, Key, closed
from dlrproxy.store.layout import encode_keys
from dlrproxy.store.port import Expired, Lookup, OpenMessage, StoreError, Table
from dlrproxy.store.recent import Recent
from dlrproxy.store.visits import Records, read_due, read_opens, write_group
from protocols.smpp.message_ids import normal

MIB: Final = 1024 * 1024

REMEMBERED: Final = 200_000  # open messages in memory, some 100 MB; 200 s of reports at 1,000 messages a second
# What may wait for a disk that stands still. Above it nothing is accepted; what was accepted before still comes in,
# and that is bounded by the windows.
MAX_WAITING_BYTES: Final = 64 * MIB
# A write that takes longer stands still. Below the gateways' and the operator's patience, so that they hear of it.
STALLED_S: Final = 2.0
SPACE_CHECK_S: Final = 1.0
# Room comes back when a tenth more than the minimum is free, so that the border does not flap.
ROOM_AGAIN: Final = 1.1
REOPEN_MIN_S: Final = 0.1
REOPEN_MAX_S: Final = 5.0
# A disk with room that cannot be written for so long is lost; other nodes get the reports once this one has unbound.
GIVE_UP_S: Final = 60.0

_log = structlog.get_logger()


class RocksStore:
    """A `Store`. Made by `open`, inside trio; exactly one task runs `run`; `close` comes after it."""

    def __init__(
        self,
        directory: DataDirectory,
        disk: Disk,
        store_id: bytes,
        now: Callable[[], float],
        *,
        min_free_bytes: int,
        remembered: int,
        free: Callable[[Path], int],
    ) -> None:
        self.store_id = store_id
        self._directory = directory
        self._disk = disk
        self._now = now
        self._recent = Recent(remembered)
        self._collecting = Group()
        self.group = 0
        self._committing: Group | None = None
        self._began_at = 0.0  # its commit; trio's clock
        self._work = trio.Event()
        self._expiring = trio.Lock()
        self._min_free_bytes = min_free_bytes
        self._free = free
        self._running = False
        self._failing = False
        self._full = False
        self._check_space()

    @classmethod
    async def open(
        cls,
        data_dir: Path,
        now: Callable[[], float],
        *,
        min_free_mb: int = 256,
        remembered: int = REMEMBERED,
        opener: Opener = Database,
        free: Callable[[Path], int] = free_bytes,
    ) -> "RocksStore":
        """Open the store in `data_dir`, or make it. Raises StoreBusyError, StoreError. The last two are for tests."""

        def take() -> tuple[DataDirectory, Database, bytes]:
            directory = DataDirectory(data_dir)
            try:
                return directory, *directory.open_store(opener)
            except BaseException:
                directory.release()
                raise

        directory, database, store_id = await trio.to_thread.run_sync(take)
        return cls(
            directory,
            Disk(database, partial(opener, directory.store)),
            store_id,
            now,
            min_free_bytes=min_free_mb * MIB,
            remembered=remembered,
            free=free,
        )

    @property
    def accepting(self) -> bool:
        stalled = self._committing is not None and trio.current_time() > self._began_at + STALLED_S
        return not (stalled or self._failing or self._full or self._collecting.size > MAX_WAITING_BYTES)

    # --- open messages

    def put_open(self, message: OpenMessage) -> None:
        key = message.operator, message.message_id
        self._recent.put(key, message)
        self._collecting.put_open(key, message, normal(message.message_id))
        self._work.set()

    def close_open(self, operator: str, message_id: bytes, final_at: float, expires_at: float) -> None:
        key = operator, message_id
        before = self._recent.get(key)
        self._collecting.close_open(key, final_at, expires_at, before)
        if before is not None:
            self._recent.put(key, closed(before, final_at, expires_at))
        else:
            self._recent.distrust_readers()
        self._work.set()

    def recent(self, operator: str, message_id: bytes) -> OpenMessage | None:
        message = self._recent.get((operator, message_id))
        return message if message is not None and message.expires_at > self._now() else None

    def pending(self, operator: str, message_id: bytes) -> bool:
        key = operator, message_id
        return key in self._collecting.opens or (self._committing is not None and key in self._committing.opens)

    async def find(self, lookups: Sequence[Lookup]) -> list[list[OpenMessage]]:
        if not lookups:
            await trio.lowlevel.checkpoint()
            return []
        ids, before, stored, aliases = await self._ask(lookups)
        now = self._now()
        results = []
        for lookup, group in zip(lookups, ids, strict=True):
            operator = lookup.operator
            if aliases:
                for form in lookup.normals:
                    group.update(dict.fromkeys(aliases.get((operator, form), ())))
            records = [self._merged((operator, i), before, stored) for i in group]
            results.append([record for record in records if record is not None and record.expires_at > now])
        return results

    async def _ask(
        self, lookups: Sequence[Lookup]
    ) -> tuple[list[dict[bytes, None]], Records, Records, dict[Key, tuple[bytes, ...]]]:
        """The exact ids that each lookup may mean, what memory knew of them, and what the disk says of the others.

        The last are the further ids of each normal form. Again if memory changed too much meanwhile.
        """
        recent = self._recent
        forms = list({(lookup.operator, form): None for lookup in lookups for form in lookup.normals})
        while True:
            if self._committing is None and not self._collecting:
                recent.take_turns()  # nothing waits for a commit; with lookups alone there would never be a turn
            generation = recent.generation
            ids = [self._ids_in_memory(lookup) for lookup in lookups]
            before: Records = {}
            unknown: dict[Key, None] = {}
            for lookup, group in zip(lookups, ids, strict=True):
                for message_id in group:
                    key = lookup.operator, message_id
                    message = recent.get(key)
                    if message is not None:
                        before[key] = message
                    else:
                        unknown[key] = None
            stored, aliases = await self._disk.read(read_opens, list(unknown), forms)
            if recent.generation - generation < 2:
                return ids, before, stored, aliases

    def _ids_in_memory(self, lookup: Lookup) -> dict[bytes, None]:
        """The exact ids that the lookup may mean, as far as they need no disk, the exact one first."""
        ids = dict.fromkeys((lookup.exact, *lookup.normals))
        for group in (self._committing, self._collecting):
            if group is not None and group.forms:
                for form in lookup.normals:
                    ids.update(dict.fromkeys(group.forms.get((lookup.operator, form), ())))
        return ids

    def _merged(self, key: Key, before: Records, stored: Records) -> OpenMessage | None:
        """The record of `key` after a visit to the disk, remembered if only the disk knew it."""
        message = self._recent.get(key) or before.get(key)
        if message is not None:
            return message
        message = stored.get(key)
        if message is not None:
            message = self._over(key, message)
        if message is not None:
            self._recent.remember(key, message)
        return message

    def _over(self, key: Key, stored: OpenMessage | None) -> OpenMessage | None:
        """`stored` with the changes that wait for their commit."""
        if self._committing is not None:
            stored = self._committing.over(key, stored)
        return self._collecting.over(key, stored)

    async def expire(self, now: float, limit: int = 10_000) -> Expired:
        async with self._expiring:  # two at once would return the same records
            done = set(self._collecting.index)
            if self._committing is not None:
                done.update(self._committing.index)
            rows = await self._disk.read(read_due, now, limit, frozenset(done))
            gone: list[OpenMessage] = []
            for row_key, keys, left, stored in rows:
                self._collecting.index[row_key] = encode_keys(left) if left else None
                for key in keys:
                    message = self._recent.get(key) or self._over(key, stored.get(key))
                    if message is not None and message.expires_at <= now and not self._in_progress(key):
                        self._recent.discard(key)
                        self._collecting.remove_open(key)
                        gone.append(message)
            if rows:
                self._work.set()
        return Expired([message for message in gone if not message.final_at], more=bool(rows))

    def _in_progress(self, key: Key) -> bool:
        """A change of the record waits for its commit, and files it for a later expiry."""
        return any(
            key in group.opens or key in group.closed
            for group in (self._committing, self._collecting)
            if group is not None
        )

    # --- rows

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._collecting.set_row(table, key, value)
        self._work.set()

    def delete(self, table: Table, key: bytes) -> None:
        self._collecting.set_row(table, key, None)
        self._work.set()

    async def get(self, table: Table, key: bytes) -> bytes | None:
        for group in (self._collecting, self._committing):
            if group is not None and key in group.rows[table]:
                await trio.lowlevel.checkpoint()
                return group.rows[table][key]
        (value,) = await self._disk.read(Database.get, table.value, [key])
        return value

    async def scan(self, table: Table, after: bytes = b"", limit: int = 1000) -> list[tuple[bytes, bytes]]:
        fresh: dict[bytes, bytes | None] = {}
        for group in (self._committing, self._collecting):
            if group is not None:
                fresh.update((key, value) for key, value in group.rows[table].items() if key > after)
        # As many more as may be deleted: then the first `limit` of both together are the first `limit` of the table.
        deletions = sum(value is None for value in fresh.values())
        stored = await self._disk.read(Database.scan, table.value, after, limit + deletions)
        rows = {**dict(stored), **fresh}
        return [(key, value) for key in sorted(rows) if (value := rows[key]) is not None][:limit]

    # --- commit

    def after_durable(self, callback: Callback) -> None:
        if self._collecting:
            self._collecting.callbacks.append(callback)
        elif self._committing is not None:
            self._committing.callbacks.append(callback)
        else:
            callback()

    async def run(self) -> None:
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_space)
                while True:
                    await self._work.wait()
                    self._work = trio.Event()
                    await self._commit(give_up_s=GIVE_UP_S)
        finally:
            self._running = False

    async def _commit(self, *, give_up_s: float) -> None:
        """Make durable what is written, call back, and again until nothing is left."""
        while True:
            if self._committing is None:  # else: what a cancelled `run` left to `close`
                if not self._collecting:
                    return
                self._committing, self._collecting = self._collecting, Group()
                self._began_at = trio.current_time()
                self.group += 1
                self._recent.take_turns()
            await self._make_durable(self._committing, give_up_s)
            self._committing.finish()
            self._committing = None

    async def _make_durable(self, group: Group, give_up_s: float) -> None:
        """Write until it is durable. Raises StoreError when the store is lost."""
        delay = REOPEN_MIN_S
        failed_since = None
        while (why := await self._try(group)) is not None:
            self._check_space()
            now = trio.current_time()
            if failed_since is None or self._full:
                failed_since = now  # a full disk is waited for: only a disk with room can be lost
            _log.error("store.commit_failed", why=why, writes=len(group), waiting=len(self._collecting))
            if now - failed_since >= give_up_s:
                raise StoreError(
                    f"the store in {self._directory.store} cannot be written: {why}. Nothing that was acknowledged is "
                    "lost; look at the disk, then start again"
                )
            await trio.sleep(delay)
            delay = min(delay * 2, REOPEN_MAX_S)
        if self._failing:
            self._failing = False
            _log.warning("store.commit_resumed", writes=len(group))

    async def _try(self, group: Group) -> str | None:
        """Why it failed, or None: the group is durable. Raises StoreError for damaged files."""
        try:
            if self._failing:
                await self._disk.replace()
            await self._disk.write(partial(write_group, group))
        except DatabaseError as error:
            self._failing = True
            if error.damaged:
                raise
            return error.why
        return None

    async def _watch_space(self) -> None:
        while True:
            await trio.sleep(SPACE_CHECK_S)
            self._check_space()

    def _check_space(self) -> None:
        try:
            free = self._free(self._directory.path)
        except OSError as error:
            _log.error("store.space_unknown", why=error.strerror)
            return
        minimum = self._min_free_bytes
        if not self._full and free < minimum:
            self._full = True
            _log.error("store.space_low", free_mb=free // MIB, min_free_mb=minimum // MIB)
        elif self._full and free >= minimum * ROOM_AGAIN:
            self._full = False
            _log.warning("store.space_enough", free_mb=free // MIB, min_free_mb=minimum // MIB)

    async def close(self) -> None:
        if self._running:
            raise RuntimeError("cancel `run` and wait for its end before `close`: two writers would race")
        try:
            await self._commit(give_up_s=0.0)
        finally:
            try:
                await self._disk.close()
            finally:
                self._directory.release()
