"""A store in front of something durable: group commit, and memory over what is not durable yet (promises: see `port`).

How a write becomes durable:

    put_open, put, delete      into the collecting group, and into `recent`: lookups see it at once
    run                        takes the group; the backend makes it durable; then its callbacks are called. What is
                               written meanwhile collects: the slower the backend, the larger the groups
    a write that takes long    `accepting` is False until it is done. With a journal: what waits for open messages alone
                               is called when they are in that (`journalling`)
    a failed write             nobody is told anything. `accepting` is False, the backend is replaced, the same group is
                               written again, with back-off, until it is durable

Which rows there are where, and what "durable" takes, is the backend's (`backend.py`).
"""

from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio
from attrs import frozen

from dlrproxy.store.backend import Backend, Records, WriteError
from dlrproxy.store.group import Callback, Group, Key, closed
from dlrproxy.store.journal import Journal
from dlrproxy.store.journalling import Journalling
from dlrproxy.store.layout import encode_keys
from dlrproxy.store.port import MANY, Expired, Follower, Lookup, OpenMessage, StoreError, Table
from dlrproxy.store.recent import Recent
from dlrproxy.store.space import Space
from protocols.smpp.message_ids import normal

REMEMBERED: Final = 200_000  # open messages in memory, some 100 MB; 200 s of reports at 1,000 messages a second
# A write that takes longer stands still. Below the gateways' and the operator's patience, so that they hear of it.
STALLED_S: Final = 2.0
REOPEN_MIN_S: Final = 0.1
REOPEN_MAX_S: Final = 5.0

_log = structlog.get_logger()


@frozen(kw_only=True)
class StoreOptions:
    """What a store on a disk and one in a database server differ in, beside their backends."""

    name: str  # how errors call it
    space: Space
    remembered: int = REMEMBERED
    max_waiting_bytes: int  # above it nothing is accepted
    give_up_s: float  # see `GroupedStore.run`
    journal: Journal | None = None  # its maker's to close
    journal_after_s: float = 0.0  # it is used once a commit takes longer


class GroupedStore:
    """A `Store` over a backend. Made inside trio; exactly one task runs `run`; `close` comes after it."""

    def __init__(self, backend: Backend, store_id: bytes, now: Callable[[], float], options: StoreOptions) -> None:
        self.store_id = store_id
        self.group = 0
        self._backend = backend
        self._name = options.name
        self._now = now
        self._space = options.space
        self._max_waiting_bytes = options.max_waiting_bytes
        self._give_up_s = options.give_up_s
        self._recent = Recent(options.remembered)
        self._collecting = Group()
        self._committing: Group | None = None
        self._began_at = 0.0  # its commit; trio's clock
        self._work = trio.Event()
        self._expiring = trio.Lock()
        self._running = False
        self._failing = False
        self._abandoned = False
        self._follower: Follower | None = None
        # Of each reader that is away at the backend, all groups that were not durable at any time since it left.
        self._readers: dict[object, list[Group]] = {}
        self._journalling = (
            None
            if options.journal is None
            else Journalling(options.journal, options.journal_after_s, self._uncommitted)
        )

    @property
    def accepting(self) -> bool:
        stalled = self._committing is not None and trio.current_time() > self._began_at + STALLED_S
        return not (stalled or self._failing or self._space.low or self._collecting.size > self._max_waiting_bytes)

    # --- open messages

    def put_open(self, message: OpenMessage) -> None:
        key = message.operator, message.message_id
        self._recent.put(key, message)
        self._collecting.put_open(key, message, normal(message.message_id))
        self._work.set()
        if self._follower is not None:
            self._follower.opened(*key)

    def close_open(
        self,
        operator: str,
        message_id: bytes,
        final_at: float,
        expires_at: float,
        record: OpenMessage | None = None,
    ) -> None:
        key = operator, message_id
        before = self._before_closing(key, record)
        self._collecting.close_open(key, final_at, expires_at, before)
        if before is not None:
            self._recent.put(key, closed(before, final_at, expires_at))
        else:
            self._recent.distrust_readers()
        self._work.set()
        if self._follower is not None and (before is None or before.destination != MANY):
            self._follower.closed(operator, message_id)

    def _before_closing(self, key: Key, record: OpenMessage | None) -> OpenMessage | None:
        """The message that is closed, where no visit to the disk is needed to know it."""
        return self._recent.get(key)

    def recent(self, operator: str, message_id: bytes) -> OpenMessage | None:
        return self.remembered(operator, message_id)

    def remembered(self, operator: str, message_id: bytes) -> OpenMessage | None:
        message = self._recent.get((operator, message_id))
        return message if message is not None and message.expires_at > self._now() else None

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
            stored, aliases = await self._backend.read_opens(list(unknown), forms)
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
            rows = await self._backend.read_due(now, limit, frozenset(done))
            gone: list[OpenMessage] = []
            for row_key, keys, left, stored in rows:
                self._collecting.index[row_key] = encode_keys(left) if left else None
                for key in keys:
                    message = self._newest(key, stored.get(key))
                    if message is not None and message.expires_at <= now and not self._in_progress(key):
                        self._recent.discard(key)
                        self._collecting.remove_open(key)
                        self._collecting.due_by = now
                        gone.append(message)
            if rows:
                self._work.set()
        if self._follower is not None:
            for message in gone:
                self._follower.closed(*message.key)
        return Expired(gone, more=bool(rows))

    def _newest(self, key: Key, stored: OpenMessage | None) -> OpenMessage | None:
        """What has been written last, `stored` being what the backend has just said."""
        return self._recent.get(key) or self._over(key, stored)

    def _in_progress(self, key: Key) -> bool:
        """A change of the record waits for its commit, and files it for a later expiry."""
        return any(
            key in group.opens or key in group.closed
            for group in (self._committing, self._collecting)
            if group is not None
        )

    def follow(self, follower: Follower) -> None:
        self._follower = follower

    async def scan_open(self, after: bytes = b"", limit: int = 1000) -> tuple[list[OpenMessage], bytes]:
        while True:
            generation = self._recent.generation
            rows = await self._backend.scan_opens(after, limit)
            if self._recent.generation - generation < 2:
                break
        now = self._now()
        found = []
        for _, stored in rows:
            message = self._newest(stored.key, stored)
            if message is not None and message.awaited and message.expires_at > now:
                found.append(message)
        return found, rows[-1][0] if rows else b""

    # --- rows

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._collecting.set_row(table, key, value)
        self._work.set()

    def delete(self, table: Table, key: bytes) -> None:
        self._collecting.set_row(table, key, None)
        self._work.set()

    async def get(self, table: Table, key: bytes) -> bytes | None:
        (value,) = await self.get_many(table, [key])
        return value

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        fresh: dict[bytes, bytes | None] = {}
        for group in (self._committing, self._collecting):
            if group is not None:
                rows = group.rows[table]
                fresh.update((key, rows[key]) for key in keys if key in rows)
        unknown = [key for key in keys if key not in fresh]
        if unknown:
            fresh.update(zip(unknown, await self._backend.get_many(table, unknown), strict=True))
        else:
            await trio.lowlevel.checkpoint()
        return [fresh[key] for key in keys]

    async def scan(self, table: Table, after: bytes = b"", limit: int = 1000) -> list[tuple[bytes, bytes]]:
        fresh: dict[bytes, bytes | None] = {}
        for group in (self._committing, self._collecting):
            if group is not None:
                fresh.update((key, value) for key, value in group.rows[table].items() if key > after)
        # As many more as may be deleted: then the first `limit` of both together are the first `limit` of the table.
        deletions = sum(value is None for value in fresh.values())
        stored = await self._backend.scan(table, after, limit + deletions)
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

    def after_opened(self, callback: Callback) -> None:
        if self._journalling is None:
            self.after_durable(callback)
        elif self._collecting:
            self._collecting.openers.append(callback)
        elif self._committing is not None:
            self._committing.openers.append(callback)
        else:
            callback()
        if self._journalling is not None:
            self._journalling.changed()

    def _uncommitted(self) -> list[Group]:
        """The groups that are not durable, in their order. Nobody may count as theirs what is put from now on."""
        self.group += 1
        return [self._collecting] if self._committing is None else [self._committing, self._collecting]

    async def run(self) -> None:
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._space.watch)
                if self._journalling is not None:
                    nursery.start_soon(self._journalling.run)
                while True:
                    await self._work.wait()
                    self._work = trio.Event()
                    await self._commit(self._give_up_s)
        finally:
            self._running = False

    async def _commit(self, give_up_s: float) -> None:
        """Make durable what is written, call back, and again until nothing is left."""
        while True:
            if self._committing is None:  # else: what a cancelled `run` left to `close`
                if not self._collecting:
                    return
                await trio.lowlevel.checkpoint()  # what is ready in this turn of the loop joins
                self._committing, self._collecting = self._collecting, Group()
                for seen in self._readers.values():
                    seen.append(self._collecting)
                self._began_at = trio.current_time()
                if self._journalling is not None:
                    self._journalling.began(self._began_at)
                self.group += 1
                self._recent.take_turns()
            await self._make_durable(self._committing, give_up_s)
            if self._journalling is not None:
                self._journalling.durable(self._committing)
            self._committing.finish()
            self._committing = None

    async def _make_durable(self, group: Group, give_up_s: float) -> None:
        """Write until it is durable. Raises StoreError when the store is lost."""
        delay = REOPEN_MIN_S
        failed_since = None
        while (why := await self._try(group)) is not None:
            self._space.check()
            now = trio.current_time()
            if failed_since is None or self._space.low:
                failed_since = now  # a full disk is waited for: only a disk with room can be lost
            _log.error("store.commit_failed", why=why, writes=len(group), waiting=len(self._collecting))
            if now - failed_since >= give_up_s:
                raise StoreError(
                    f"{self._name} cannot be written: {why}. Nothing that was acknowledged is lost; look at it, "
                    "then start again"
                )
            await trio.sleep(delay)
            delay = min(delay * 2, REOPEN_MAX_S)
        if self._failing:
            self._failing = False
            _log.warning("store.commit_resumed", writes=len(group))

    async def _try(self, group: Group) -> str | None:
        """Why it failed, or None: the group is durable. Raises WriteError where trying again is of no use."""
        try:
            if self._failing:
                await self._backend.replace()
            await self._backend.write(group)
        except WriteError as error:
            self._failing = True
            if error.lost:
                raise
            return error.why
        return None

    def abandon(self) -> None:
        """Wait for the backend no more, neither in `run`, which is to be cancelled, nor in `close`.

        Nobody is told that anything is durable. `close` saves open messages in the journal, if there is one; what else
        was not durable is lost, as nothing of it was acknowledged.
        """
        self._abandoned = True
        self._backend.abandon()

    async def close(self) -> None:
        self._check_ended()
        try:
            if self._journalling is not None:
                await self._close_journalling(self._journalling)
            elif not self._abandoned:
                await self._commit(give_up_s=0.0)
        finally:
            await self._backend.close()

    async def _close_journalling(self, journalling: Journalling) -> None:
        if self._abandoned:
            await journalling.save()
            return
        failure: StoreError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journalling.run)  # whoever waits for this may lose patience
            try:
                await self._commit(give_up_s=0.0)
            except StoreError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            await journalling.save()
            raise failure
        await journalling.forget()

    def _check_ended(self) -> None:
        if self._running:
            raise RuntimeError("cancel `run` and wait for its end before closing: two writers would race")
