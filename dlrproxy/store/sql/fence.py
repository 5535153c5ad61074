"""Who may write a node's partition of `items` in a cluster: one process at a time, and none that was taken over from.

The partition has a row of kind "fence" with a number, its epoch. Whoever begins to work on the partition has a higher
one (`modes.lease`), and writes it there first (`partition.fence`): the node itself at each start, or the one that takes
over from it. Every later statement that writes the partition compares the epoch and rewrites the row, so it fails as a
whole once somebody else has begun:

    INSERT INTO items (node,kind,name,content) VALUES (the fence row, rows ...)
    ON DUPLICATE KEY UPDATE node=IF(this is the fence row, and of another epoch, NULL, node), content=VALUES(content)

`node` may not be NULL: error 1048, and nothing is written. One statement is one transaction, and all of them write the
fence row, so Galera certifies any two of them against each other, on whichever servers they run: of a write and of a
takeover at the same moment one comes first, and the other one sees it.
"""

import itertools
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from dlrproxy.store.group import Group
from dlrproxy.store.port import Table
from dlrproxy.store.shared import UNREADABLE
from dlrproxy.store.sql.statements import PUT_ITEMS, item_values, literal, statements_of_shared_opens

FENCE: Final = "fence"
INBOX: Final = "inbox"  # rows of custody that another node has put there; its own node makes them its custody

_STAMP: Final = struct.Struct(">QQ")  # the epoch, and a count that makes each writing of the row another one
_EPOCH_BYTES: Final = 8
_NONE: Final = _STAMP.pack(0, 0)

_IS_FENCE: Final = f"kind={literal(FENCE)}"
_OR_REPLACE: Final = (
    f" ON DUPLICATE KEY UPDATE node=IF({_IS_FENCE} AND "
    f"LEFT(content,{_EPOCH_BYTES})<>LEFT(VALUES(content),{_EPOCH_BYTES}),NULL,node),content=VALUES(content)"
)


Place = tuple[bytes, bytes]  # of a row in a partition: its kind and name


class Fence:
    """One working period on the partition of `node`."""

    def __init__(self, node: str, epoch: int) -> None:
        self.node = node
        self.epoch = epoch
        self._count = itertools.count(1)

    def _stamp(self) -> bytes:
        return _STAMP.pack(self.epoch, next(self._count))

    def raised(self, found: bytes) -> str:
        """Begin this period, or go on with it, if `found` is still what the fence row holds."""
        return (
            f"UPDATE items SET content={literal(self._stamp())} WHERE {_fence_row(self.node)} "
            f"AND content={literal(found)}"
        )

    def statements_of(self, group: Group) -> Iterator[str]:
        """As `statements.statements_of`, for the partition of this node; and what it puts into inboxes of others.

        What has no content any more is only deleted while it has none.
        """
        yield from statements_of_shared_opens(group)
        rows = [(kind.value, name, content) for kind, found in group.rows.items() for name, content in found.items()]
        values = [item_values(self.node, *row) for row in rows]
        values += [item_values(node, INBOX, name, content) for (node, name), content in group.inboxes.items()]
        if not values:
            return
        yield PUT_ITEMS + ",".join((item_values(self.node, FENCE, b"", self._stamp()), *values)) + _OR_REPLACE
        gone: dict[str, list[bytes]] = defaultdict(list)
        for kind, name, content in rows:
            if content is None:
                gone[kind].append(name)
        for (node, name), content in group.inboxes.items():
            if node == self.node and content is None:
                gone[INBOX].append(name)
        for kind, names in gone.items():
            yield swept(self.node, kind, names)

    def moved(self, heir: str, kind: str, names: Sequence[bytes]) -> str:
        """These rows that `to_move` names become the heir's: parked ones are so there, all others are in its inbox."""
        to = Table.PARKED.value if kind == Table.PARKED.value else INBOX
        epoch = literal(_STAMP.pack(self.epoch, 0)[:_EPOCH_BYTES])
        # Assignments are made from left to right: `kind`, which the others ask, is the last one.
        return (
            f"UPDATE items SET node=IF({_IS_FENCE},IF(LEFT(content,{_EPOCH_BYTES})={epoch},node,NULL),{literal(heir)}),"
            f"content=IF({_IS_FENCE},{literal(self._stamp())},content),kind=IF({_IS_FENCE},kind,{literal(to)}) "
            f"WHERE node={literal(self.node)} AND ({_IS_FENCE} OR (kind={literal(kind)} "
            f"AND name IN ({','.join(map(literal, names))})))"
        )


def first_fence(node: str) -> str:
    """Make the row of a partition that has none."""
    return (
        "INSERT IGNORE INTO items (node,kind,name,content) VALUES "
        f"({literal(node)},{literal(FENCE)},'',{literal(_NONE)})"
    )


def find_fence(node: str) -> str:
    return f"SELECT content FROM items WHERE {_fence_row(node)}"


def epoch_of(content: bytes) -> int:
    """Of a fence row."""
    epoch: int = _STAMP.unpack(content)[0]
    return epoch


def to_move(node: str, limit: int) -> str:
    """Kind and name of rows that a takeover moves: custody, the inbox, what is parked, and what could not be read."""
    return f"SELECT kind,name FROM items WHERE {_moves(node)} ORDER BY kind,name LIMIT {limit}"


def counted_to_move(node: str) -> str:
    """How many of those there are."""
    return f"SELECT COUNT(*) FROM items WHERE {_moves(node)}"


def _moves(node: str) -> str:
    kinds = ",".join(map(literal, (Table.CUSTODY.value, Table.PARKED.value, INBOX)))
    set_aside = f"kind={literal(Table.META.value)} AND LEFT(name,{len(UNREADABLE)})={literal(UNREADABLE)}"
    return f"node={literal(node)} AND (kind IN ({kinds}) OR ({set_aside})) AND content IS NOT NULL"


def removed(node: str, epoch: int, kinds: Sequence[str]) -> str:
    """Delete the row in `members` of a node that was taken over from, under `epoch`, and its rows of these kinds.

    What has no content goes as well. All else stays: the fence, and what this release does not know.
    """
    named = ",".join(map(literal, kinds))
    return (
        f"DELETE m,i FROM members m LEFT JOIN items i ON i.node=m.node AND (i.kind IN ({named}) OR i.content IS NULL) "
        f"WHERE m.node={literal(node)} AND m.epoch={epoch} AND m.taken=1"
    )


def names_in_inbox(node: str, limit: int) -> str:
    """Of the rows that the node has yet to take. By the primary key, and no content is read."""
    return f"SELECT name FROM items WHERE {_of_kind(node, INBOX)} AND content IS NOT NULL ORDER BY name LIMIT {limit}"


def last_of_page(node: str, after: Place, size: int) -> str:
    """Kind and name of the row that is so many behind that one; no row: there are fewer."""
    return f"SELECT kind,name FROM items WHERE {_behind(node, after)} ORDER BY kind,name LIMIT 1 OFFSET {size - 1}"


def left_behind(node: str, after: Place, last: Place | None) -> str:
    """Kind and name of the rows that count as deleted, of those behind the one and up to the other; None: of all."""
    end = ""
    if last is not None:
        kind, name = map(literal, last)
        end = f" AND (kind<{kind} OR (kind={kind} AND name<={name}))"
    return f"SELECT kind,name FROM items WHERE {_behind(node, after)}{end} AND content IS NULL"


def _behind(node: str, place: Place) -> str:
    kind, name = map(literal, place)
    return f"node={literal(node)} AND (kind>{kind} OR (kind={kind} AND name>{name}))"


def swept(node: str, kind: str, names: Sequence[bytes]) -> str:
    """Delete these rows while they have no content."""
    return (
        f"DELETE FROM items WHERE {_of_kind(node, kind)} AND name IN ({','.join(map(literal, names))}) "
        "AND content IS NULL"
    )


def _of_kind(node: str, kind: str) -> str:
    return f"node={literal(node)} AND kind={literal(kind)}"


def _fence_row(node: str) -> str:
    return f"{_of_kind(node, FENCE)} AND name=''"
