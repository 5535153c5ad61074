"""What stands behind a `GroupedStore`: where the rows are (`rocks.py`, `sql/backend.py`)."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from dlrproxy.store.group import Group, Key
from dlrproxy.store.port import OpenMessage, StoreError, Table

Records = dict[Key, OpenMessage]


class WriteError(StoreError):
    """A group was not made durable, or nobody knows. `lost`: trying again is of no use."""

    def __init__(self, text: str, *, why: str, lost: bool = False) -> None:
        self.why = why  # without what the caller knows anyway
        self.lost = lost
        super().__init__(text)


class Due(NamedTuple):
    """A row of the expiry index, or what stands for one."""

    row_key: bytes
    keys: list[Key]  # to look at
    left: tuple[bytes, ...]  # for a later call
    records: Records  # the stored ones of `keys`


class Backend(Protocol):
    """Where the rows are. Reads may run at the same time as the one write. Everything raises StoreError."""

    async def read_opens(
        self, keys: Sequence[Key], forms: Sequence[Key]
    ) -> tuple[Records, dict[Key, tuple[bytes, ...]]]:
        """The records of `keys`, the further exact ids of each normal form, and the records of those ids as well."""

    async def read_due(self, now: float, limit: int, done: frozenset[bytes]) -> list[Due]:
        """Expiry rows of at most `limit` keys in all, without those in `done`."""

    async def scan_opens(self, after: bytes, limit: int) -> list[tuple[bytes, OpenMessage]]:
        """Stored messages with a key greater than `after`, in the order of keys that are the backend's own."""

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]: ...

    async def scan(self, table: Table, after: bytes, limit: int) -> list[tuple[bytes, bytes]]: ...

    async def write(self, group: Group) -> None:
        """Returns when it is durable. Writing the same group twice does no harm. Raises WriteError."""

    async def replace(self) -> None:
        """After a failed write, before the next one: start afresh. Raises WriteError."""

    def abandon(self) -> None:
        """Let what is under way fail now, and everything after it; what it did nobody knows."""

    async def close(self) -> None:
        """Let go of everything, also where that raises StoreError."""
