"""The store's contract without a disk, for tests, simulations and as the plainest statement of what a store does.

`crash()` gives the store that would be found after the process was killed: what was committed, and nothing else. So a
simulation can end a node at any point and start it again.
"""

import secrets
from collections.abc import Callable, Sequence

import trio

from dlrproxy.store.group import Group, Key, closed, with_id
from dlrproxy.store.layout import open_key
from dlrproxy.store.port import MANY, Expired, Follower, Lookup, OpenMessage, Table
from protocols.smpp.message_ids import normal


class Rows:
    """All that a store holds at one point of its history."""

    __slots__ = ("forms", "opens", "tables")

    def __init__(self) -> None:
        self.opens: dict[Key, OpenMessage] = {}
        self.forms: dict[Key, tuple[bytes, ...]] = {}  # by (operator, normal form)
        self.tables: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}

    def put_open(self, key: Key, message: OpenMessage) -> None:
        self.opens[key] = message
        operator, message_id = key
        form = operator, normal(message_id)
        self.forms[form] = with_id(self.forms.get(form, ()), message_id)

    def close_open(self, key: Key, final_at: float, expires_at: float) -> None:
        message = self.opens.get(key)
        if message is not None:
            self.opens[key] = closed(message, final_at, expires_at)

    def remove_open(self, key: Key) -> None:
        if self.opens.pop(key, None) is None:
            return
        operator, message_id = key
        form = operator, normal(message_id)
        left = tuple(other for other in self.forms.get(form, ()) if other != message_id)
        if left:
            self.forms[form] = left
        else:
            self.forms.pop(form, None)

    def set_row(self, table: Table, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.tables[table].pop(key, None)
        else:
            self.tables[table][key] = value

    def apply(self, group: Group) -> None:
        for key, message in group.opens.items():
            self.put_open(key, message)
        for key, change in group.closed.items():
            self.close_open(key, change.final_at, change.expires_at)
        for key in group.removed:
            self.remove_open(key)
        for table, rows in group.rows.items():
            for row_key, value in rows.items():
                self.set_row(table, row_key, value)


class MemoryStore:
    """A store whose disk is a second set of dicts.

    With `auto_commit` every write is durable at once and no task is needed. Without it a group is durable when
    `commit()` is called, by a test or by `run`. `accepting` may be set by a test.
    """

    def __init__(self, now: Callable[[], float], *, auto_commit: bool = True, store_id: bytes | None = None) -> None:
        self.store_id = secrets.token_bytes(8) if store_id is None else store_id
        self.accepting = True
        self.commits = 0
        self.group = 0
        self._now = now
        self._auto_commit = auto_commit
        self._visible = Rows()
        self._durable = Rows()
        self._collecting = Group()
        self._committing: Group | None = None
        self._work = trio.Event()
        self._follower: Follower | None = None

    def put_open(self, message: OpenMessage) -> None:
        self._visible.put_open(message.key, message)
        if self._follower is not None:
            self._follower.opened(*message.key)
        self._collecting.put_open(message.key, message, normal(message.message_id))
        self._written()

    def close_open(
        self,
        operator: str,
        message_id: bytes,
        final_at: float,
        expires_at: float,
        record: OpenMessage | None = None,
    ) -> None:
        key = operator, message_id
        before = self._visible.opens.get(key)
        self._collecting.close_open(key, final_at, expires_at, before)
        if self._follower is not None and (before is None or before.destination != MANY):
            self._follower.closed(operator, message_id)
        self._visible.close_open(key, final_at, expires_at)
        self._written()

    def recent(self, operator: str, message_id: bytes) -> OpenMessage | None:
        return self.remembered(operator, message_id)

    def remembered(self, operator: str, message_id: bytes) -> OpenMessage | None:
        message = self._visible.opens.get((operator, message_id))
        return message if message is not None and message.expires_at > self._now() else None

    async def unchanged(self, messages: Sequence[OpenMessage]) -> bool:
        await trio.lowlevel.checkpoint()
        return all(self._visible.opens.get(message.key) == message for message in messages)

    async def find(self, lookups: Sequence[Lookup]) -> list[list[OpenMessage]]:
        await trio.lowlevel.checkpoint()
        now = self._now()
        return [self._find(lookup, now) for lookup in lookups]

    def _find(self, lookup: Lookup, now: float) -> list[OpenMessage]:
        operator, exact, normals = lookup.operator, lookup.exact, lookup.normals
        same = (self._visible.forms.get((operator, form), ()) for form in normals)
        ids = dict.fromkeys((exact, *(message_id for group in same for message_id in group)))
        records = (self._visible.opens.get((operator, message_id)) for message_id in ids)
        return [record for record in records if record is not None and record.expires_at > now]

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._set_row(table, key, value)

    def delete(self, table: Table, key: bytes) -> None:
        self._set_row(table, key, None)

    def _set_row(self, table: Table, key: bytes, value: bytes | None) -> None:
        self._visible.set_row(table, key, value)
        self._collecting.set_row(table, key, value)
        self._written()

    async def get(self, table: Table, key: bytes) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self._visible.tables[table].get(key)

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        await trio.lowlevel.checkpoint()
        rows = self._visible.tables[table]
        return [rows.get(key) for key in keys]

    async def scan(self, table: Table, after: bytes = b"", limit: int = 1000) -> list[tuple[bytes, bytes]]:
        await trio.lowlevel.checkpoint()
        rows = self._visible.tables[table]
        return [(key, rows[key]) for key in sorted(key for key in rows if key > after)[:limit]]

    def after_durable(self, callback: Callable[[], None]) -> None:
        if self._collecting:
            self._collecting.callbacks.append(callback)
        elif self._committing is not None:
            self._committing.callbacks.append(callback)
        else:
            callback()

    def after_opened(self, callback: Callable[[], None]) -> None:
        self.after_durable(callback)

    async def expire(self, now: float, limit: int = 10_000) -> Expired:
        await trio.lowlevel.checkpoint()
        due = [record for record in self._visible.opens.values() if record.expires_at <= now][:limit]
        for record in due:
            self._visible.remove_open(record.key)
            self._collecting.remove_open(record.key)
            if self._follower is not None:
                self._follower.closed(*record.key)
        if due:
            self._written()
        return Expired(due, more=len(due) == limit)

    def follow(self, follower: Follower) -> None:
        self._follower = follower

    async def scan_open(self, after: bytes = b"", limit: int = 1000) -> tuple[list[OpenMessage], bytes]:
        await trio.lowlevel.checkpoint()
        now = self._now()
        opens = {open_key(*key): record for key, record in self._visible.opens.items()}
        keys = [key for key in sorted(opens) if key > after][:limit]
        found = [opens[key] for key in keys if opens[key].awaited and opens[key].expires_at > now]
        return found, keys[-1] if keys else b""

    def _written(self) -> None:
        if self._auto_commit:
            self.commit()
        else:
            self._work.set()

    def commit(self) -> None:
        """Make durable what was written so far, and call back."""
        if self.begin():
            self.finish()
            if self._auto_commit:
                self.commit()

    def begin(self) -> bool:
        """Close the group that collects: what is written from now on is in the next one. False: nothing to do yet."""
        if self._committing is not None or not self._collecting:
            return False  # a callback wrote: its group is the next one
        self._committing, self._collecting = self._collecting, Group()
        self.group += 1
        return True

    def finish(self) -> None:
        """The group that `begin` closed is durable: call back."""
        group = self._committing
        if group is None:
            raise RuntimeError("no group has begun")
        self._durable.apply(group)
        self.commits += 1
        group.finish()
        self._committing = None

    async def run(self) -> None:
        """Commit groups until cancelled: what one step of the program writes is one group."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            self.commit()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._collecting:
            self.commit()

    def crash(self) -> "MemoryStore":
        """The store that a restart after kill -9 opens; this one must not be used any more."""
        survivor = MemoryStore(self._now, auto_commit=self._auto_commit, store_id=self.store_id)
        survivor._durable.apply(self._everything_durable())
        survivor._visible.apply(self._everything_durable())
        return survivor

    def _everything_durable(self) -> Group:
        group = Group()
        group.opens.update(self._durable.opens)
        for table, rows in self._durable.tables.items():
            group.rows[table].update(rows)
        return group
