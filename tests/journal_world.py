"""A grouped store over a backend and a journal in memory, which stand still, fail and die when a test says so."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import trio

from dlrproxy.store.backend import WriteError
from dlrproxy.store.commits import StoreOptions
from dlrproxy.store.database import DatabaseError
from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.journal import Journal, version
from dlrproxy.store.layout import OPEN, decode_open
from dlrproxy.store.memory import Rows
from dlrproxy.store.port import OpenMessage
from dlrproxy.store.space import Space

JOURNAL_AFTER_S = 0.25


def an_open(message_id, *, submitted_at=900.0, owner="gw1", final_at=0.0):
    return OpenMessage("acme", message_id, owner, b"47", b"20", 7, submitted_at, 5000.0, final_at)


class Gate:
    """Work passes it while it is open; `failures` of the next ones end in an error."""

    def __init__(self):
        self.failures = 0
        self._opened = trio.Event()
        self._opened.set()

    def close(self):
        if self._opened.is_set():
            self._opened = trio.Event()

    def open(self):
        self._opened.set()

    async def passed(self, failure):
        await self._opened.wait()
        await trio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise failure


class MemoryBackend:
    """See `dlrproxy.store.backend.Backend`; only what these tests ask of one. `durable` is what a crash leaves."""

    def __init__(self, happened):
        self.gate = Gate()
        self.durable = Rows()
        self.closed = False
        self._happened = happened

    async def write(self, group):
        await self.gate.passed(WriteError("the server is away", why="away"))
        self.durable.apply(group)
        self._happened()

    async def replace(self):
        await trio.lowlevel.checkpoint()

    def abandon(self):
        """What waits at the gate is cancelled with the store's `run`."""

    async def close(self):
        await trio.lowlevel.checkpoint()
        self.closed = True


class MemoryDisk:
    """The disk under a journal, in memory (`dlrproxy.store.disk.Disk`). `durable` is what a crash leaves at least."""

    def __init__(self, happened, rows=()):
        self.gate = Gate()
        self.rows = dict(rows)
        self.durable = dict(rows)
        self.replaced = 0
        self.writes = 0
        self.path = Path("journal")
        self.database = MemoryDatabase(self)
        self._happened = happened

    async def write(self, work):
        with trio.CancelScope(shield=True):  # as a thread does, to its end
            await self.gate.passed(DatabaseError(self.path, "IO error: no room"))
        self.writes += 1
        work(self.database)
        self._happened()

    async def replace(self):
        await trio.lowlevel.checkpoint()
        self.replaced += 1

    async def read(self, work, *arguments):
        await trio.lowlevel.checkpoint()
        return [(key, decode_open(value)) for key, value in sorted(self.rows.items())]


class MemoryDatabase:
    """What `Disk.write` gives to the work: see `dlrproxy.store.database.Database`."""

    def __init__(self, disk):
        self._disk = disk

    def write(self, changes):
        for key, value in changes[OPEN]:
            if value is None:
                self._disk.rows.pop(key, None)
            else:
                self._disk.rows[key] = value

    def sync(self):
        self._disk.durable = dict(self._disk.rows)


class World:
    """A store with a journal, and every state in which a crash might find both."""

    def __init__(self, max_rows=1000):
        self.backend = MemoryBackend(self.happened)
        self.disk = MemoryDisk(self.happened)
        self.journal = Journal(SimpleNamespace(store=self.disk.path), self.disk, {}, max_rows)
        self.store = GroupedStore(
            self.backend,
            b"8 octets",
            lambda: 1000.0,
            StoreOptions(
                name="a store",
                space=Space("/", 0, lambda _: 1 << 40),
                max_waiting_bytes=1 << 20,
                give_up_s=float("inf"),
                journal=self.journal,
                journal_after_s=JOURNAL_AFTER_S,
            ),
        )
        self.told = []  # what was acknowledged, in that order
        self.told_at = []
        self.durable = []  # names whose `after_durable` was called
        self.crashes = 0

    def put(self, message_id, **changes):
        """As the relay does: an open message, and its response once it is safe."""
        message = an_open(message_id, **changes)
        self.store.put_open(message)
        self.store.after_opened(lambda: self.tell(message))
        return message

    def tell(self, message):
        self.told.append(message)
        self.told_at.append(trio.current_time())
        self.happened()

    def note_durable(self, name):
        self.store.after_durable(lambda: self.durable.append(name))

    @property
    def ids_told(self):
        return [message.message_id for message in self.told]

    def happened(self):
        """The process may die here: whatever was acknowledged is in the database or on the journal's disk."""
        self.crashes += 1
        for rows in (self.disk.durable, self.disk.rows):  # an unsynced write may or may not survive
            found = {message.key: message for message in map(decode_open, rows.values())}
            for message in self.told:
                kept = [left for left in (found.get(message.key), self.backend.durable.opens.get(message.key)) if left]
                assert any(version(left) >= version(message) for left in kept), message.message_id

    @contextlib.asynccontextmanager
    async def running(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.store.run)
            yield self
            nursery.cancel_scope.cancel()
