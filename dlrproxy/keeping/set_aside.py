"""Rows of custody in an inbox that cannot be read: kept where they are in nobody's way.

Such a row is of a later release, or damaged. It becomes a META row in the commit that takes it out of the inbox: it is
in one of the two, and byte for byte what it was. Each term of service looks at those of earlier terms; what can be read
by then, as after an upgrade, is taken into custody. When the node is taken over from, they come into the inbox of its
heir, which sets them aside in turn, or can read them.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from dlrproxy.logs import logger
from dlrproxy.store.port import Table
from dlrproxy.store.shared import UNREADABLE, Rows, SharedStore
from ring.rows import CustodyRow, RowError, decode_custody, encode_key

PAGE: Final = 100
_NAME_BYTES: Final = 64  # of the row's own name; that of a row of custody has 16


class SetAside:
    """Of one term of service."""

    def __init__(self, store: SharedStore) -> None:
        self._unreadable: set[bytes] = set()  # names of what is set aside, as far as it was looked at
        self._store = store
        self._after: bytes | None = UNREADABLE  # what is up to here was looked at; None: all of it
        self._log = logger("custody")

    @property
    def unreadable(self) -> int:
        """How many rows are set aside, as far as they were looked at."""
        return len(self._unreadable)

    def readable(self, rows: Rows) -> list[CustodyRow]:
        """Of `rows`, which are in the inbox. The others are set aside, in the store's present group."""
        found = []
        for name, content in rows:
            try:
                row = decode_custody(content)
            except RowError as error:
                kept_as = _name_for(name, content)
                self._store.put(Table.META, kept_as, content)
                self._store.take_from_inbox(name)
                self._unreadable.add(kept_as)
                self._log.error("custody.unreadable_set_aside", name=name.hex(), bytes=len(content), detail=str(error))
            else:
                found.append(row)
                if name != encode_key(row.envelope.key):
                    # A node that is gone had set it aside. The machine takes out what is named as the row is.
                    self._store.take_from_inbox(name)
        return found

    async def next_page(self) -> Rows:
        """Some of what was set aside before; nothing once all of it was seen. Raises StoreError."""
        if self._after is None:
            return []
        found = await self._store.scan(Table.META, self._after, PAGE)
        rows = [row for row in found if row[0].startswith(UNREADABLE)]
        self._after = rows[-1][0] if rows else None
        return rows

    def taken_back(self, page: Sequence[tuple[bytes, bytes]]) -> list[CustodyRow]:
        """What of the page can be read now. The caller takes custody of it before it awaits anything: in one commit."""
        found = []
        for name, content in page:
            try:
                found.append(decode_custody(content))
            except RowError as error:
                if name in self._unreadable:
                    continue  # set aside in this term, behind what was looked at
                self._unreadable.add(name)
                self._log.error("custody.unreadable", name=name.hex(), bytes=len(content), detail=str(error))
            else:
                self._store.delete(Table.META, name)
                self._log.info("custody.readable_again", name=name.hex())
        return found


def _name_for(name: bytes, content: bytes) -> bytes:
    """Another one for any other row, and not too long for a row's name whatever stood in the inbox."""
    return UNREADABLE + name[:_NAME_BYTES] + b"/" + sha256(name + content).digest()
