"""The database of a simulated cluster: open messages of all nodes, a part of custody for each, and who may write that.

Every node has a disk that is its part (`Part`), so what is done to disks is done to it; what is shared stands beside.
The promises are those of `dlrproxy/store/shared.py`, kept as `dlrproxy/store/sql/fence.py` keeps them: a group is
written whole or not at all, and not at all once somebody else works on the part under a later epoch.
"""

from collections.abc import Callable, Sequence
from typing import Final

from dlrproxy.store.group import Group, Key
from dlrproxy.store.memory import Rows
from dlrproxy.store.port import Lookup, OpenMessage, Table
from simulation.disk import Change, Disk, DiskStore, Later, Platter

_INBOX: Final = b"inbox/"  # before the key, as the checker is told of it


class Database:
    def __init__(self) -> None:
        self.opens = Rows()
        self.parts: dict[str, Part] = {}
        self.epochs: dict[str, int] = {}

    def begin(self, node: str) -> int:
        """Nobody who began before writes the part of that node any more."""
        self.epochs[node] = self.epochs.get(node, 0) + 1
        return self.epochs[node]

    def move(self, dead: str, heir: str, most: int) -> bool:
        """One statement of a takeover. True when there is nothing left to be moved."""
        part, to = self.parts[dead], self.parts[heir]
        custody = sorted({**part.tables[Table.CUSTODY], **part.inbox}.items())[:most]
        parked = sorted(part.tables[Table.PARKED].items())[: most - len(custody)]
        to.take(custody, parked)
        part.drop([key for key, _ in custody], [key for key, _ in parked])
        return not (part.tables[Table.CUSTODY] or part.tables[Table.PARKED] or part.inbox)


class Part(Platter):
    """What the database has of one node."""

    __slots__ = ("database", "inbox")

    def __init__(self, changed: Callable[[list[Change]], None], database: Database) -> None:
        super().__init__(changed)
        self.database = database
        self.inbox: dict[bytes, bytes] = {}

    def apply(self, group: Group) -> None:
        """What goes to another node is there before it is gone here, for whoever looks on."""
        for (node, key), value in group.inboxes.items():
            if value is not None:
                self.database.parts[node].take([(key, value)], [])
        shared = self.database.opens
        for of_message, message in group.opens.items():
            shared.put_open(of_message, message)
        for of_message, change in group.closed.items():
            shared.close_open(of_message, change.final_at, change.expires_at)
        for of_message in group.removed:
            shared.remove_open(of_message)
        changes: list[Change] = []
        for table, rows in group.rows.items():
            for key, value in rows.items():
                Rows.set_row(self, table, key, value)
                changes.append((table, key, value))
        for (_, key), value in group.inboxes.items():
            if value is None:
                self.inbox.pop(key, None)
                changes.append((Table.CUSTODY, _INBOX + key, None))
        self.changed(changes)

    def take(self, custody: Sequence[tuple[bytes, bytes]], parked: Sequence[tuple[bytes, bytes]]) -> None:
        self.inbox.update(custody)
        self.tables[Table.PARKED].update(parked)
        changes: list[Change] = [(Table.CUSTODY, _INBOX + key, value) for key, value in custody]
        changes.extend((Table.PARKED, key, value) for key, value in parked)
        self.changed(changes)

    def drop(self, custody: Sequence[bytes], parked: Sequence[bytes]) -> None:
        for key in custody:
            self.tables[Table.CUSTODY].pop(key, None)
            self.inbox.pop(key, None)
        for key in parked:
            del self.tables[Table.PARKED][key]
        changes: list[Change] = [(Table.CUSTODY, prefix + key, None) for key in custody for prefix in (b"", _INBOX)]
        self.changed(changes + [(Table.PARKED, key, None) for key in parked])


class ClusterStore(DiskStore):
    """A `SharedStore`: the store of one run of a node of a cluster."""

    def __init__(
        self,
        node: str,
        part: Part,
        disk: Disk,
        clock: Callable[[], float],
        now: Callable[[], float],
        later: Later,
        lost: Callable[[], None],
    ) -> None:
        super().__init__(disk, clock, now, later, lost)
        self._node = node
        self._part = part
        self._epoch = part.database.begin(node)

    @property
    def _fenced(self) -> bool:
        return self._part.database.epochs[self._node] != self._epoch

    @property
    def under_way(self) -> Group | None:
        return None if self._fenced else super().under_way

    def finish(self) -> None:
        if self._fenced:
            self._later(0.0, self._lost)  # it is being written by what ends with the process
        else:
            super().finish()

    async def find(self, lookups: Sequence[Lookup]) -> list[list[OpenMessage]]:
        await self._read()
        return [self._found(lookup) for lookup in lookups]

    def _found(self, lookup: Lookup) -> list[OpenMessage]:
        """The record with the exact id first."""
        places = [self._part.database.opens.forms, *(group.forms for group in self._uncommitted)]
        same = (place.get((lookup.operator, form), ()) for place in places for form in lookup.normals)
        ids = dict.fromkeys((lookup.exact, *(message_id for ids in same for message_id in ids)))
        records = (self.recent(lookup.operator, message_id) for message_id in ids)
        return [record for record in records if record is not None]

    def recent(self, operator: str, message_id: bytes) -> OpenMessage | None:
        """What the database says, and this node has yet to write. Without the moment that the product waits for it."""
        key = operator, message_id
        record = self._part.database.opens.opens.get(key)
        for group in self._uncommitted:
            record = group.over(key, record)
        return record if record is not None and record.expires_at > self._now() else None

    @property
    def _uncommitted(self) -> list[Group]:
        return [group for group in (self._committing, self._collecting) if group is not None]

    async def finished(self, keys: Sequence[Key]) -> set[Key]:
        await self._read()
        records = ((key, self._part.database.opens.opens.get(key)) for key in keys)
        return {key for key, record in records if record is not None and record.finished}

    def put_into_inbox(self, node: str, key: bytes, value: bytes) -> None:
        self._collecting.set_inbox(node, key, value)
        self._written()

    def take_from_inbox(self, key: bytes) -> None:
        self._collecting.set_inbox(self._node, key, None)
        self._written()

    async def inbox(self, limit: int = 1000) -> list[tuple[bytes, bytes]]:
        groups = [group for group in (self._collecting, self._committing) if group is not None]
        taken = {key for group in groups for (_, key), value in group.inboxes.items() if value is None}
        await self._read()
        return [row for row in sorted(self._part.inbox.items()) if row[0] not in taken][:limit]
