"""A store in front of something durable: memory over what is not durable yet (promises: see `port`).

    put_open, put, delete      into the collecting group (`commits.py`), and into `recent`: lookups see it at once
    find, get, scan            memory first; of the rest what the backend has, with what waits for its commit over it

Which rows there are where is the backend's (`backend.py`).
"""

from collections.abc import Callable, Sequence

import trio

from dlrproxy.store.backend import Backend, Records
from dlrproxy.store.commits import Commits, StoreOptions
from dlrproxy.store.group import Callback, Key, closed
from dlrproxy.store.layout import encode_keys
from dlrproxy.store.port import MANY, Expired, Follower, Lookup, OpenMessage, Table
from dlrproxy.store.recent import Recent
from protocols.smpp.message_ids import normal


class GroupedStore:
    """A `Store` over a backend. Made inside trio; exactly one task runs `run`; `close` comes after it."""

    def __init__(self, backend: Backend, store_id: bytes, now: Callable[[], float], options: StoreOptions) -> None:
        self.store_id = store_id
        self._backend = backend
        self._now = now
        self._recent = Recent(options.remembered)
        self._commits = Commits(backend, options, began=self._recent.take_turns)
        self._expiring = trio.Lock()
        self._follower: Follower | None = None

    # --- open messages

    def put_open(self, message: OpenMessage) -> None:
        key = message.operator, message.message_id
        self._recent.put(key, message)
        self._commits.collecting.put_open(key, message, normal(message.message_id))
        self._commits.changed()
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
        self._close(key, final_at, expires_at, self._recent.get(key))

    def _close(self, key: Key, final_at: float, expires_at: float, before: OpenMessage | None) -> None:
        """`before` is the message, where no visit to the disk is needed to know it."""
        self._commits.collecting.close_open(key, final_at, expires_at, before)
        if before is not None:
            self._recent.put(key, closed(before, final_at, expires_at))
        else:
            self._recent.distrust_readers()
        self._commits.changed()
        if self._follower is not None and (before is None or before.destination != MANY):
            self._follower.closed(*key)

    def recent(self, operator: str, message_id: bytes) -> OpenMessage | None:
        return self.remembered(operator, message_id)

    def remembered(self, operator: str, message_id: bytes) -> OpenMessage | None:
        message = self._recent.get((operator, message_id))
        return message if message is not None and message.expires_at > self._now() else None

    async def unchanged(self, messages: Sequence[OpenMessage]) -> bool:
        await trio.lowlevel.checkpoint()
        return all(self._recent.get(message.key) == message for message in messages)

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
            if self._commits.idle:
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
        for group in self._commits.waiting:
            if group.forms:
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
        for group in self._commits.waiting:
            stored = group.over(key, stored)
        return stored

    async def expire(self, now: float, limit: int = 10_000) -> Expired:
        async with self._expiring:  # two at once would return the same records
            done = frozenset(row for group in self._commits.waiting for row in group.index)
            rows = await self._backend.read_due(now, limit, done)
            gone: list[OpenMessage] = []
            for row_key, keys, left, stored in rows:
                self._commits.collecting.index[row_key] = encode_keys(left) if left else None
                for key in keys:
                    message = self._newest(key, stored.get(key))
                    if message is not None and message.expires_at <= now and not self._in_progress(key):
                        self._recent.discard(key)
                        self._commits.collecting.remove_open(key)
                        self._commits.collecting.due_by = now
                        gone.append(message)
            if rows:
                self._commits.changed()
        if self._follower is not None:
            for message in gone:
                self._follower.closed(*message.key)
        return Expired(gone, more=bool(rows))

    def _newest(self, key: Key, stored: OpenMessage | None) -> OpenMessage | None:
        """What has been written last, `stored` being what the backend has just said."""
        return self._recent.get(key) or self._over(key, stored)

    def _in_progress(self, key: Key) -> bool:
        """A change of the record waits for its commit, and files it for a later expiry."""
        return any(key in group.opens or key in group.closed for group in self._commits.waiting)

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
        self._commits.collecting.set_row(table, key, value)
        self._commits.changed()

    def delete(self, table: Table, key: bytes) -> None:
        self._commits.collecting.set_row(table, key, None)
        self._commits.changed()

    async def get(self, table: Table, key: bytes) -> bytes | None:
        (value,) = await self.get_many(table, [key])
        return value

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        fresh: dict[bytes, bytes | None] = {}
        for group in self._commits.waiting:
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
        for group in self._commits.waiting:
            fresh.update((key, value) for key, value in group.rows[table].items() if key > after)
        # As many more as may be deleted: then the first `limit` of both together are the first `limit` of the table.
        deletions = sum(value is None for value in fresh.values())
        stored = await self._backend.scan(table, after, limit + deletions)
        rows = {**dict(stored), **fresh}
        return [(key, value) for key in sorted(rows) if (value := rows[key]) is not None][:limit]

    # --- commit

    @property
    def group(self) -> int:
        return self._commits.number

    @property
    def accepting(self) -> bool:
        return self._commits.accepting

    def after_durable(self, callback: Callback) -> None:
        self._commits.after_durable(callback)

    def after_opened(self, callback: Callback) -> None:
        self._commits.after_opened(callback)

    async def run(self) -> None:
        await self._commits.run()

    def abandon(self) -> None:
        """Wait for the backend no more, neither in `run`, which is to be cancelled, nor in `close`.

        Nobody is told that anything is durable. `close` saves open messages in the journal, if there is one; what else
        was not durable is lost, as nothing of it was acknowledged.
        """
        self._commits.abandon()

    async def close(self) -> None:
        await self._commits.close()
