"""What one commit writes, collected in memory, and who waits for it.

A store has at most two groups: the one that collects, and the one that is being made durable. A group that failed stays
the second until it is on disk. `put_open`, `put` and the like change the collecting group and nothing else, so the
two groups over what the disk holds are what lookups must see.

Within a group the last change to a record or row wins; across groups the order is the order of commits.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from dlrproxy.store.port import OpenMessage, Table

Key = tuple[str, bytes]  # operator, exact message id
Callback = Callable[[], None]

# Exact ids kept under one normal form ("7", "07", "007"). Two are seen in the field, when an operator's counter changes
# its padding; above this the oldest is no longer found by its normal form, and still by its exact id.
MAX_SAME_FORM: Final = 16

# What a write costs in memory besides its own bytes: dict slots, tuples, the headers of small objects.
OVERHEAD_BYTES: Final = 400


def with_id(ids: tuple[bytes, ...], message_id: bytes) -> tuple[bytes, ...]:
    """The exact ids of one normal form, newest last, with `message_id` among them."""
    if message_id in ids:
        return ids
    return (*ids[-(MAX_SAME_FORM - 1) :], message_id)


class Closed(NamedTuple):
    """A final report was delivered. `message` is the record after it, or None: the disk has the rest of the record."""

    final_at: float
    expires_at: float
    message: OpenMessage | None


class Group:
    """The changes of one commit, and the callbacks that its end releases."""

    __slots__ = (
        "callbacks",
        "closed",
        "due_by",
        "forms",
        "fresh",
        "inboxes",
        "index",
        "openers",
        "opens",
        "removed",
        "rows",
        "size",
    )

    def __init__(self) -> None:
        self.opens: dict[Key, OpenMessage] = {}
        self.fresh: dict[Key, OpenMessage] = {}  # those of `opens` that are new or changed since `take_fresh`
        # The exact ids among `opens` that differ from their normal form, by (operator, normal form).
        self.forms: dict[Key, tuple[bytes, ...]] = {}
        self.closed: dict[Key, Closed] = {}  # records that this group closes and does not itself put
        self.removed: set[Key] = set()  # have expired
        self.due_by = 0.0  # by then at the latest
        self.rows: dict[Table, dict[bytes, bytes | None]] = {table: {} for table in Table}
        self.inboxes: dict[tuple[str, bytes], bytes | None] = {}  # by node and key: rows of custody on their way to it
        self.index: dict[bytes, bytes | None] = {}  # rows of the expiry index that are done with, or shortened
        self.callbacks: deque[Callback] = deque()
        self.openers: deque[Callback] = deque()  # wait for the open messages alone: a journal may have them earlier
        self.size = 0  # bytes, roughly; replaced values count until the commit

    def __len__(self) -> int:
        """How many writes wait."""
        rows = len(self.inboxes) + sum(map(len, self.rows.values()))
        return len(self.opens) + len(self.closed) + len(self.removed) + rows

    def __bool__(self) -> bool:
        return bool(self.opens or self.closed or self.removed or self.index or self.inboxes or any(self.rows.values()))

    def put_open(self, key: Key, message: OpenMessage, form: bytes) -> None:
        """`form` is the normal form of the exact id."""
        self.opens[key] = self.fresh[key] = message
        self.size += OVERHEAD_BYTES
        operator, message_id = key
        if form != message_id:
            self.forms[operator, form] = with_id(self.forms.get((operator, form), ()), message_id)
        if self.closed:
            self.closed.pop(key, None)
        if self.removed:
            self.removed.discard(key)

    def close_open(self, key: Key, final_at: float, expires_at: float, message: OpenMessage | None) -> None:
        """`message` is the record before the final report, where it is known."""
        if key in self.removed:
            return
        put_here = self.opens.get(key)
        if put_here is not None:
            self.opens[key] = self.fresh[key] = closed(put_here, final_at, expires_at)
        else:
            after = closed(message, final_at, expires_at) if message is not None else None
            self.closed[key] = Closed(final_at, expires_at, after)
            self.size += OVERHEAD_BYTES

    def remove_open(self, key: Key) -> None:
        self.opens.pop(key, None)
        self.fresh.pop(key, None)
        self.closed.pop(key, None)
        self.removed.add(key)
        self.size += OVERHEAD_BYTES

    def take_fresh(self) -> dict[Key, OpenMessage]:
        """What is new of `opens`, once: for a journal, which so looks at each record once."""
        taken, self.fresh = self.fresh, {}
        return taken

    def put_back(self, taken: dict[Key, OpenMessage]) -> None:
        """The journal does not have them: they are new again, but where they have changed or gone since."""
        fresh = {key: message for key, message in taken.items() if self.opens.get(key) is message}
        self.fresh = {**fresh, **self.fresh}

    def over(self, key: Key, stored: OpenMessage | None) -> OpenMessage | None:
        """What the record is once this group is written over `stored`."""
        message = self.opens.get(key)
        if message is not None:
            return message
        if key in self.removed:
            return None
        change = self.closed.get(key)
        if change is None:
            return stored
        if change.message is not None:
            return change.message
        return closed(stored, change.final_at, change.expires_at) if stored is not None else None

    def set_row(self, table: Table, key: bytes, value: bytes | None) -> None:
        """`value` None: the row is deleted."""
        self.rows[table][key] = value
        self.size += OVERHEAD_BYTES + len(key) + (len(value) if value is not None else 0)

    def set_inbox(self, node: str, key: bytes, value: bytes | None) -> None:
        """A row of custody for another node, or (`value` None) one of this node's that it has taken out."""
        self.inboxes[node, key] = value
        self.size += OVERHEAD_BYTES + len(key) + (len(value) if value is not None else 0)

    def finish(self) -> None:
        """All of it is durable: call back in the order of registration, each once, `openers` before the others.

        A callback may register another, which then comes last.
        """
        while self.openers or self.callbacks:
            self.release(len(self.openers))
            if self.callbacks:
                self.callbacks.popleft()()

    def release(self, count: int) -> None:
        """Call the first `count` of `openers`, or those that are left of them."""
        for _ in range(min(count, len(self.openers))):
            self.openers.popleft()()


def closed(message: OpenMessage, final_at: float, expires_at: float) -> OpenMessage:
    """The record after a final report was delivered. (msgspec.structs.replace takes 8 times as long.)"""
    return OpenMessage(
        message.operator,
        message.message_id,
        message.owner,
        message.destination,
        message.source,
        message.session,
        message.submitted_at,
        expires_at,
        final_at,
    )
