"""A store whose open messages every node of a cluster has, and in which custody goes from one node to another.

Each node has a partition for its custody, parked items and what it remembers; `Store` says what may be done with that.
A row of custody is in one partition at any time. To give it away a node puts it into the inbox of another one, in the
group in which it deletes its own row; that node finds it there and, in one group again, makes it its own. Nothing is
asked and nothing answered: the database has one or the other.

Every node writes the open messages: an id may be used again, or its message closed, at another one. So memory counts
for what waits for its commit here, and for nothing else: whose a report is, and whether it comes too late, the database
says, each time.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from dlrproxy.store.backend import Backend, Records
from dlrproxy.store.commits import StoreOptions
from dlrproxy.store.group import Key
from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.port import Expired, Lookup, OpenMessage, Store

Rows = list[tuple[bytes, bytes]]

# What the names of META rows begin with that are rows of custody which could not be read
# (`dlrproxy.keeping.set_aside`). They go where custody goes.
UNREADABLE: Final = b"unreadable/"


class SharedStore(Store, Protocol):
    """See the module's docstring. Writes are as those of `Store`: they join the present group."""

    def put_into_inbox(self, node: str, key: bytes, value: bytes) -> None:
        """Give a row of custody to another node."""

    def take_from_inbox(self, key: bytes) -> None:
        """Delete it from the inbox of this node."""

    async def inbox(self, limit: int = 1000) -> Rows:
        """What other nodes have given to this one and it has not taken, the lowest keys first. Raises StoreError."""

    async def finished(self, keys: Sequence[Key]) -> set[Key]:
        """Of which of these messages a final report has been delivered, by any node. Raises StoreError.

        Memory knows of what this node has delivered only, and `find` may go by memory.
        """


class ClockedStore(Protocol):
    """One that does not go by this node's clock alone to say what is over (`dlrproxy.clocks`)."""

    ahead_s: float  # by so much this node's clock is ahead of the slowest clock of the cluster; 0.0 until it is set

    async def of_others(self, name: bytes) -> dict[str, bytes]:
        """The META row of that name of each other node that is there, not taken over from. Raises StoreError."""


class SharedBackend(Backend, Protocol):
    """What stands behind it."""

    async def scan_inbox(self, limit: int) -> Rows:
        """The first rows of this node's inbox."""

    async def of_others(self, name: bytes) -> dict[str, bytes]:
        """The META row of that name of each other node that is not taken over from."""

    async def unchanged(self, messages: Sequence[OpenMessage]) -> bool:
        """Whether each of these, none of which has a final report, is stored just so."""

    async def catch_up(self) -> None:
        """Wait until what other nodes had committed at the time of the call can be read."""


class GroupedSharedStore(GroupedStore):
    """A `SharedStore`. Made by `store.sql.store.open_shared`."""

    def __init__(
        self,
        backend: SharedBackend,
        node: str,
        store_id: bytes,
        now: Callable[[], float],
        options: StoreOptions,
    ) -> None:
        """`node` is the one whose partition it is; the rest is as for `GroupedStore`."""
        super().__init__(backend, store_id, self._now_by_all, options)
        self.ahead_s = 0.0
        self._now_here = now
        self._shared = backend
        self._node = node

    def put_into_inbox(self, node: str, key: bytes, value: bytes) -> None:
        self._commits.collecting.set_inbox(node, key, value)
        self._commits.changed()

    def take_from_inbox(self, key: bytes) -> None:
        self._commits.collecting.set_inbox(self._node, key, None)
        self._commits.changed()

    async def inbox(self, limit: int = 1000) -> Rows:
        # What is taken out in groups that are not committed when the backend is asked may still be seen there.
        taken = {key for group in self._commits.waiting for (_, key), value in group.inboxes.items() if value is None}
        await self._shared.catch_up()
        rows = await self._shared.scan_inbox(limit + len(taken))
        return [(key, value) for key, value in rows if key not in taken][:limit]

    async def of_others(self, name: bytes) -> dict[str, bytes]:
        return await self._shared.of_others(name)

    async def finished(self, keys: Sequence[Key]) -> set[Key]:
        await self._shared.catch_up()
        records, _ = await self._shared.read_opens(keys, [])
        return {key for key, record in records.items() if record.finished}

    # What counts of memory

    def recent(self, operator: str, message_id: bytes) -> OpenMessage | None:
        message = self._over((operator, message_id), None)
        return message if message is not None and message.expires_at > self._now() else None

    def close_open(
        self,
        operator: str,
        message_id: bytes,
        final_at: float,
        expires_at: float,
        record: OpenMessage | None = None,
    ) -> None:
        key = operator, message_id
        waiting = self._over(key, None)
        if record is None or waiting is None or waiting.submitted_at == record.submitted_at:
            self._close(key, final_at, expires_at, waiting or record)

    async def unchanged(self, messages: Sequence[OpenMessage]) -> bool:
        keys = {message.key for message in messages}
        with self._commits.reading() as written:
            if not await self._shared.unchanged(messages):
                return False
            changes = (changed for group in written for changed in (group.opens, group.closed, group.removed))
            return all(keys.isdisjoint(changed) for changed in changes)

    def _newest(self, key: Key, stored: OpenMessage | None) -> OpenMessage | None:
        return self._over(key, stored)

    async def _ask(
        self, lookups: Sequence[Lookup]
    ) -> tuple[list[dict[bytes, None]], Records, Records, dict[Key, tuple[bytes, ...]]]:
        """As `GroupedStore._ask`; of every id it is what the database says, with what this node has yet to write."""
        forms = list({(lookup.operator, form): None for lookup in lookups for form in lookup.normals})
        ids = [self._ids_in_memory(lookup) for lookup in lookups]
        keys = [
            (lookup.operator, message_id) for lookup, group in zip(lookups, ids, strict=True) for message_id in group
        ]
        with self._commits.reading() as written:
            stored, aliases = await self._shared.read_opens(list(dict.fromkeys(keys)), forms)
            records: Records = {}
            for key in dict.fromkeys((*keys, *stored)):
                record = stored.get(key)
                for group in written:
                    record = group.over(key, record)
                if record is not None:
                    records[key] = record
        return ids, {}, records, aliases

    def _merged(self, key: Key, before: Records, stored: Records) -> OpenMessage | None:
        message = stored.get(key)
        if message is not None:
            self._recent.remember(key, message)
        return message

    # What is over

    def _now_by_all(self) -> float:
        """By the slowest clock. Of each message another node may have written when it is over."""
        return self._now_here() - self.ahead_s

    async def expire(self, now: float, limit: int = 10_000) -> Expired:
        return await super().expire(now - self.ahead_s, limit)

    async def find(self, lookups: Sequence[Lookup]) -> list[list[OpenMessage]]:
        """As `Store.find`; where nothing is found it is asked again once this node has caught up with the others."""
        found = await super().find(lookups)
        missed = [place for place, records in enumerate(found) if not records]
        if missed:
            await self._shared.catch_up()
            for place, records in zip(missed, await super().find([lookups[place] for place in missed]), strict=True):
                found[place] = records
        return found
