"""SQL text from values, and values from rows. Pure.

Text and bytes go in as hexadecimal literals, so nothing can be misread as SQL whatever the server's sql_mode, and a
statement costs a third of what the driver's own escaping does.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Final, cast

from msgspec.structs import astuple

from dlrproxy.store.group import Closed, Group, Key
from dlrproxy.store.port import OpenMessage, Table
from dlrproxy.store.sql.connection import Row
from protocols.smpp.message_ids import normal

# Rows of open messages in a statement. Larger ones gain nothing, and hold their locks longer.
ROWS: Final = 500
MAX_NAME: Final = 255  # items.name

_COLUMNS: Final = "operator,message_id,owner,destination,source,session,submitted_at,expires_at,final_at"
_INSERT_OPEN: Final = f"INSERT INTO open_messages (form,{_COLUMNS}) VALUES "
_OR_REPLACE_OPEN: Final = " ON DUPLICATE KEY UPDATE " + ",".join(
    f"{column}=VALUES({column})" for column in f"form,{_COLUMNS}".split(",")
)
# Assignments run from left to right: the columns that are compared come last, the first-compared one at the very end.
_NEWER: Final = "VALUES(submitted_at)>submitted_at OR (VALUES(submitted_at)=submitted_at AND VALUES(final_at)>final_at)"
_UNLESS_OLDER: Final = " ON DUPLICATE KEY UPDATE " + ",".join(
    f"{column}=IF({_NEWER},VALUES({column}),{column})"
    for column in ("form", "owner", "destination", "source", "session", "expires_at", "final_at", "submitted_at")
)
# A row with a final report replaces only what it was of the same message; one without, sent again, does not open what
# was closed in between. `final_at` is assigned first of the compared ones: where it is replaced, so are the others.
_TAKEN: Final = (
    "IF(VALUES(final_at)>0,VALUES(submitted_at)<>submitted_at,"
    "final_at>0 AND VALUES(submitted_at)=submitted_at AND VALUES(owner)=owner)"
)
_UNLESS_TAKEN: Final = " ON DUPLICATE KEY UPDATE " + ",".join(
    f"{column}=IF({_TAKEN},{column},VALUES({column}))"
    for column in ("form", "destination", "source", "session", "expires_at", "final_at", "owner", "submitted_at")
)
_SELECT_OPEN: Final = f"SELECT {_COLUMNS} FROM open_messages WHERE "
PUT_ITEMS: Final = "INSERT INTO items (node,kind,name,content) VALUES "
_OR_REPLACE_ITEM: Final = " ON DUPLICATE KEY UPDATE content=VALUES(content)"


def literal(value: bytes | str) -> str:
    data = value.encode() if isinstance(value, str) else value
    return f"x'{data.hex()}'" if data else "''"


# Few names there are, and what one receive brought has one time.
_name = lru_cache(maxsize=1000)(literal)


@lru_cache(maxsize=1000)
def number(value: float) -> str:
    """A DOUBLE literal that reads back as the same float."""
    shortest = repr(value)
    return shortest if "e" in shortest else f"{shortest}e0"


def text(value: object) -> str:
    return cast("bytes", value).decode()


# --- writing


def statements_of(group: Group) -> Iterator[str]:
    """What makes `group` durable, in this order. Each statement is whole or not at all, and may be repeated.

    Open messages come before the rows that may refer to them. All rows of custody and of parked items change in one
    statement: a row that moves is never in both or in neither. What that leaves behind is swept up by the last ones.
    """
    yield from statements_of_opens(group)
    yield from _change_items(group.rows)


def statements_of_opens(group: Group) -> Iterator[str]:
    """What of that is about open messages."""
    written = [*group.opens.values(), *(c.message for c in group.closed.values() if c.message is not None)]
    for start in range(0, len(written), ROWS):
        yield put_opens(written[start : start + ROWS])
    yield from _close_unknown(group.closed)
    yield from delete_expired(group.removed, group.due_by)


def statements_of_shared_opens(group: Group) -> Iterator[str]:
    """Likewise, where others write them as well: what is closed stays as it is once another message has its id."""
    put_and_closed = [message for message in group.opens.values() if message.final_at]
    for start in range(0, len(put_and_closed), ROWS):
        yield put_opens(put_and_closed[start : start + ROWS])
    written = [message for message in group.opens.values() if not message.final_at]
    written += [change.message for change in group.closed.values() if change.message is not None]
    for start in range(0, len(written), ROWS):
        yield put_opens_unless_taken(written[start : start + ROWS])
    yield from _close_unknown(group.closed)
    yield from delete_expired(group.removed, group.due_by)


def put_opens_unless_taken(messages: Iterable[OpenMessage]) -> str:
    """Like `put_opens`, but a message with a final report leaves another one alone that was put since.

    And one without leaves itself alone where it has one by now: it is sent again, and another node was faster.
    """
    return _INSERT_OPEN + ",".join(map(_open_values, messages)) + _UNLESS_TAKEN


def put_opens(messages: Iterable[OpenMessage]) -> str:
    return _INSERT_OPEN + ",".join(map(_open_values, messages)) + _OR_REPLACE_OPEN


def merge_opens(messages: Iterable[OpenMessage]) -> str:
    """Like `put_opens`, but a row that is as new or newer stays (`journal.version`).

    So the rows of two databases, or of a journal, come together in any order, and may be sent again at any time.
    """
    return _INSERT_OPEN + ",".join(map(_open_values, messages)) + _UNLESS_OLDER


def _open_values(message: OpenMessage) -> str:
    operator, message_id, owner, destination, source, session, submitted_at, expires_at, final_at = astuple(message)
    # `literal`, without its calls: two rows a message are written.
    return (
        f"(x'{normal(message_id).hex()}',{_name(operator)},x'{message_id.hex()}',{_name(owner)},"
        f"x'{destination.hex()}',x'{source.hex()}',{session},"
        f"{number(submitted_at)},{number(expires_at)},{number(final_at)})"
    )


def _close_unknown(changes: Mapping[Key, Closed]) -> Iterator[str]:
    """Records that only the server has; those closed at the same time in one statement."""
    times = {key: (change.final_at, change.expires_at) for key, change in changes.items() if change.message is None}
    for (final_at, expires_at), keys in groupby(sorted(times, key=times.__getitem__), key=times.__getitem__):
        for condition in _keyed(keys, "message_id"):
            yield (
                f"UPDATE open_messages SET final_at={number(final_at)},expires_at={number(expires_at)} "
                f"WHERE {condition}"
            )


def delete_expired(keys: Iterable[Key], due_by: float) -> Iterator[str]:
    """But what another node of a cluster has submitted since, with the same id."""
    for condition in _keyed(keys, "message_id"):
        yield f"DELETE FROM open_messages WHERE {condition} AND expires_at<={number(due_by)}"


def _change_items(rows: Mapping[Table, Mapping[bytes, bytes | None]]) -> Iterator[str]:
    gone = {table: [name for name, content in changed.items() if content is None] for table, changed in rows.items()}
    gone = {table: names for table, names in gone.items() if names}
    if any(content is not None for changed in rows.values() for content in changed.values()):
        yield put_items((table, name, content) for table, changed in rows.items() for name, content in changed.items())
    elif len(gone) > 1:
        yield put_items((table, name, None) for table, names in gone.items() for name in names)
    for table, names in gone.items():
        yield f"DELETE FROM items WHERE {_of_kind('', table.value)} AND name IN ({','.join(map(literal, names))})"


def put_items(items: Iterable[tuple[Table, bytes, bytes | None]], node: str = "") -> str:
    return insert_items(items, node) + _OR_REPLACE_ITEM


def insert_items(items: Iterable[tuple[Table, bytes, bytes | None]], node: str = "") -> str:
    """All of them, or none if any is there already."""
    return PUT_ITEMS + ",".join(item_values(node, table.value, name, content) for table, name, content in items)


def item_values(node: str, kind: str, name: bytes, content: bytes | None) -> str:
    written = literal(content) if content is not None else "NULL"
    return f"({literal(node)},{literal(kind)},{literal(name)},{written})"


def insert_item(table: Table, name: bytes, content: bytes, node: str = "") -> str:
    """If there is none of that name."""
    return "INSERT IGNORE INTO items (node,kind,name,content) VALUES " + item_values(node, table.value, name, content)


def put_item_for_members(table: Table, name: bytes, content: bytes) -> str:
    """In the partition of each node of a cluster, where there is none of that name."""
    return (
        "INSERT IGNORE INTO items (node,kind,name,content) "
        f"SELECT node,{literal(table.value)},{literal(name)},{literal(content)} FROM members"
    )


# --- reading


def items_of_members(table: Table, name: bytes, but: str) -> str:
    """Node and content of the rows of that name, of each node of a cluster that is not taken over from, but one."""
    return (
        "SELECT items.node,items.content FROM members JOIN items ON items.node=members.node "
        f"WHERE members.taken=0 AND members.node<>{literal(but)} AND items.kind={literal(table.value)} "
        f"AND items.name={literal(name)} AND items.content IS NOT NULL"
    )


def find_opens(keys: Sequence[Key], forms: Sequence[Key]) -> str | None:
    """Every record of `keys`, or with one of those normal forms. None: nothing is asked for."""
    parts = [
        *(_SELECT_OPEN + condition for condition in _keyed(keys, "message_id")),
        *(_SELECT_OPEN + condition for condition in _keyed(forms, "form")),
    ]
    return " UNION ".join(parts) or None


def count_unchanged(messages: Sequence[OpenMessage]) -> str:
    """How many of these are stored as they are here, and without a final report. Of one operator, at most ROWS.

    Another message with the same id has another owner or was submitted at another time. What one receive brought has
    one time, and few owners.
    """
    same: dict[tuple[str, float], list[bytes]] = defaultdict(list)
    for message in messages:
        same[message.owner, message.submitted_at].append(message.message_id)
    submitted = " OR ".join(
        f"submitted_at={number(at)} AND owner={_name(owner)} AND message_id IN ({','.join(map(literal, ids))})"
        for (owner, at), ids in same.items()
    )
    return (
        f"SELECT COUNT(*) FROM open_messages WHERE operator={literal(messages[0].operator)} AND final_at=0 "
        f"AND ({submitted})"
    )


def scan_opens(after: Key, limit: int, condition: str = "TRUE") -> str:
    operator, message_id = literal(after[0]), literal(after[1])
    return (
        f"{_SELECT_OPEN}(operator>{operator} OR (operator={operator} AND message_id>{message_id})) AND {condition} "
        f"ORDER BY operator,message_id LIMIT {limit}"
    )


def due_opens(now: float, limit: int) -> str:
    return f"{_SELECT_OPEN}expires_at<={number(now)} ORDER BY expires_at LIMIT {limit}"


def get_item(table: Table, name: bytes, node: str = "") -> str:
    named = f"{_of_kind(node, table.value)} AND name={literal(name)}"
    return f"SELECT content FROM items WHERE {named} AND content IS NOT NULL"


def get_items(table: Table, names: Sequence[bytes], node: str = "") -> str:
    """At most ROWS at a time, and one at least."""
    named = f"{_of_kind(node, table.value)} AND name IN ({','.join(map(literal, names))})"
    return f"SELECT name,content FROM items WHERE {named} AND content IS NOT NULL"


def scan_items(kind: str, after: bytes, limit: int, node: str = "") -> str:
    """`kind` is a table's name, or another one that a node's partition has (fence.py)."""
    return (
        f"SELECT name,content FROM items WHERE {_of_kind(node, kind)} AND name>{literal(after)} "
        f"AND content IS NOT NULL ORDER BY name LIMIT {limit}"
    )


def _of_kind(node: str, kind: str) -> str:
    return f"node={literal(node)} AND kind={literal(kind)}"


def newest_item(tables: Iterable[Table], prefix: bytes, node: str = "") -> str:
    """The highest name in these tables that begins with `prefix`; NULL: there is none. Reads one row of each."""
    end = prefix + b"\xff" * (MAX_NAME - len(prefix))
    each = (
        f"(SELECT name FROM items WHERE {_of_kind(node, table.value)} AND name BETWEEN {literal(prefix)} AND "
        f"{literal(end)} ORDER BY name DESC LIMIT 1)"
        for table in tables
    )
    return f"SELECT MAX(name) FROM ({' UNION ALL '.join(each)}) AS newest"


def delete_items(table: Table, after: bytes, before: bytes, node: str = "") -> str:
    """Those with a name between the two."""
    between = f"name>{literal(after)} AND name<{literal(before)}"
    return f"DELETE FROM items WHERE {_of_kind(node, table.value)} AND {between}"


def get_pair(schema: str) -> str:
    return f"SELECT epoch,holder FROM `{schema}`.pair WHERE id=1"


def _keyed(keys: Iterable[Key], column: str) -> Iterator[str]:
    """Conditions that together hold for exactly these keys."""
    by_operator: dict[str, list[bytes]] = defaultdict(list)
    for operator, name in keys:
        by_operator[operator].append(name)
    for operator, names in by_operator.items():
        for start in range(0, len(names), ROWS):
            some = ",".join(map(literal, names[start : start + ROWS]))
            yield f"operator={literal(operator)} AND {column} IN ({some})"


def open_of(row: Row) -> OpenMessage:
    """A row of `find_opens` or `due_opens`."""
    operator, message_id, owner, destination, source, session, submitted_at, expires_at, final_at = row
    return OpenMessage(
        text(operator),
        cast("bytes", message_id),
        text(owner),
        cast("bytes", destination),
        cast("bytes", source),
        cast("int", session),
        cast("float", submitted_at),
        cast("float", expires_at),
        cast("float", final_at),
    )
