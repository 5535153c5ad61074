"""What the rest of the program may ask of a store, whichever holds the rows (memory, RocksDB, SQL).

Writes are synchronous and cheap: they change what lookups in this process see at once, and join the current group.
One task (`run`) makes groups durable, one fsync a group, and then calls what was registered with `after_durable`, in
the order of registration. Nothing is acknowledged to anybody before that call, but for one thing: the id of a message
that the operator has taken is acknowledged to its gateway after `after_opened`, which a store with a journal on the
node's own disk calls without its database, where that takes too long. A group is durable as a whole or not
at all, and what is written without an await in between is in one group: a row moved from one table to another is
never in both or in neither.

A group that could not be made durable is never reported as done. The store reopens its files and writes the group
again; meanwhile `accepting` is False, and the callers refuse work (a temporary status) instead of piling it up. If
the files cannot be opened any more, `run` raises StoreError and the node stops: what was acknowledged is on disk.

Times are seconds on the node's own clock (`dlrproxy.clock`), which neither goes back nor jumps while it runs.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

import msgspec

MANY: Final = b"*"  # instead of a destination: one id for many of them, and a report for each


class StoreError(Exception):
    """The store cannot be opened or read; the text names the directory and what to do."""


class StoreBusyError(StoreError):
    """Another process holds this data directory."""


class Table(StrEnum):
    """Row tables whose values only their owner reads; the store keeps them in key order."""

    CUSTODY = "custody"  # accepted or claimed and not yet delivered, and the dedupe keys of claims
    PARKED = "parked"
    META = "meta"  # learned rules, the clock's high-water mark; the keys "store_id" and "format" are the store's own


class OpenMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An MT with an id and no final report yet (or, for a grace period, with one: `final_at`)."""

    operator: str
    message_id: bytes  # the very bytes of submit_sm_resp.message_id
    owner: str  # the gateway's name
    destination: bytes  # digits of destination_addr, to break ties between candidates; or MANY
    source: bytes
    session: int  # token of the gateway session that submitted it; 0 when unknown
    submitted_at: float
    expires_at: float
    final_at: float = 0.0  # when a final report was delivered; 0 while there is none

    @property
    def key(self) -> tuple[str, bytes]:
        return self.operator, self.message_id

    @property
    def finished(self) -> bool:
        """Nothing intermediate may follow: its final report was delivered. Never so for one with many destinations."""
        return self.final_at > 0 and self.destination != MANY

    @property
    def awaited(self) -> bool:
        """A report of it may still come that is not a duplicate: no final one has, or it has many destinations."""
        return not self.final_at or self.destination == MANY


class Lookup(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What to look for: the id exactly as reported, and its normal forms (`protocols.smpp.message_ids`)."""

    operator: str
    exact: bytes
    normals: tuple[bytes, ...]


class Expired(NamedTuple):
    """What one call of `Store.expire` did."""

    deleted: list[OpenMessage]
    more: bool  # there may be more to delete: call again

    @property
    def unreported(self) -> list[OpenMessage]:
        """Those of the deleted that never got a final report."""
        return [message for message in self.deleted if not message.final_at]


class Follower(Protocol):
    """Is told which open messages a store holds for which a report may still come. Every call is cheap."""

    def opened(self, operator: str, message_id: bytes) -> None: ...

    def closed(self, operator: str, message_id: bytes) -> None:
        """It is finished, or has expired. May be said twice."""


class Store(Protocol):
    """See the module's docstring for the promises."""

    @property
    def store_id(self) -> bytes:
        """8 random bytes, made with the data directory and never again (promise 3)."""

    @property
    def accepting(self) -> bool:
        """False while a commit fails or stands still, or free space is below `min_free_mb`."""

    def put_open(self, message: OpenMessage) -> None:
        """Insert or replace; the newest submission with an id wins."""

    def close_open(
        self,
        operator: str,
        message_id: bytes,
        final_at: float,
        expires_at: float,
        record: OpenMessage | None = None,
    ) -> None:
        """Note that a final report was delivered; the record stays until `expires_at` (a grace period).

        `record` is the message that the report was about. A store that others write as well leaves another message
        alone that has taken its id since.
        """

    def recent(self, operator: str, message_id: bytes) -> OpenMessage | None:
        """What memory knows of this exact id, without touching the disk; None says nothing about the disk.

        Never older than what the disk says: where others write the same open messages, what they may have changed is
        not among it.
        """

    def remembered(self, operator: str, message_id: bytes) -> OpenMessage | None:
        """Likewise, though others may have changed it since: a hint, which decides nothing before `unchanged`."""

    async def unchanged(self, messages: Sequence[OpenMessage]) -> bool:
        """Whether each of these, which are remembered and have no final report, is certain to be so still.

        False: look for them. Much cheaper than `find`. Raises StoreError.
        """

    async def find(self, lookups: Sequence[Lookup]) -> list[list[OpenMessage]]:
        """For each lookup every live record whose id is `exact`, or whose normal form is among `normals`.

        The record with the exact id comes first. Records past `expires_at` are not returned. One call may hold
        many lookups and costs one visit to the disk. Raises StoreError.
        """

    def follow(self, follower: Follower) -> None:
        """Tell it, from now on, of every message that is put, closed or expires, as it is written. One at most."""

    async def scan_open(self, after: bytes = b"", limit: int = 1000) -> tuple[list[OpenMessage], bytes]:
        """Of the next `limit` stored messages those that are awaited, and where to go on; empty: that was all.

        `after` is empty, or what the last call returned. A message that is put after the first call may be left out.
        Raises StoreError.
        """

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Insert or replace a row. The key is not empty."""

    def delete(self, table: Table, key: bytes) -> None: ...

    async def get(self, table: Table, key: bytes) -> bytes | None:
        """Raises StoreError."""

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        """The same for many, with one visit to the disk. Raises StoreError."""

    async def scan(self, table: Table, after: bytes = b"", limit: int = 1000) -> list[tuple[bytes, bytes]]:
        """Rows with a key greater than `after`, in key order; written rows are seen before they are durable.

        Raises StoreError, also when only some of the rows can be read.
        """

    @property
    def group(self) -> int:
        """Counts the groups: what is written while it stays the same becomes durable together."""

    def after_durable(self, callback: Callable[[], None]) -> None:
        """Call back once everything written so far is durable; at once if it all is."""

    def after_opened(self, callback: Callable[[], None]) -> None:
        """Call back once the open messages put so far are safe: durable, or in the store's journal.

        In the order of registration among its kind, and never after what is registered later with `after_durable`.
        A store without a journal makes no difference between the two.
        """

    async def expire(self, now: float, limit: int = 10_000) -> "Expired":
        """Delete about `limit` open messages whose time is up.

        A store may leave those of the current minute for the next one; no lookup returns them. Raises StoreError.
        """

    async def run(self) -> None:
        """Commit groups until cancelled. Raises StoreError when the store is lost for good."""

    async def close(self) -> None:
        """Make durable what was written, call back, then release the files. `run` must have ended.

        Raises StoreError when that was not possible; the files are released all the same.
        """
