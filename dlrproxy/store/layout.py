"""How a store's rows lie in RocksDB: column families, keys, values.

    family    key                                     value
    open      operator NUL exact id                   OpenMessage
    alias     operator NUL normal form                the exact ids with that normal form, newest last; only ids that
                                                      differ from it
    expiry    minute (8), sequence (8), part (4)      keys of `open` whose time is up by the end of that minute
    custody, parked, meta                             as their owner wrote them

Numbers are big-endian, so that key order is their order. Values are MessagePack. There is no expiry row for each
message but one for each minute and commit, written with the records: it says where to look, and the record itself
says whether its time is up. Every change of `expires_at` writes such a row, so one that is out of date needs no repair.
"""

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from dlrproxy.store.group import Group, Key, closed, with_id
from dlrproxy.store.port import OpenMessage, StoreError, Table
from protocols.peer.frames import UNDECODABLE
from protocols.smpp.message_ids import normal

OPEN: Final = "open"
ALIAS: Final = "alias"
EXPIRY: Final = "expiry"
FAMILIES: Final = (OPEN, ALIAS, EXPIRY, *(table.value for table in Table))

Changes = dict[str, list[tuple[bytes, bytes | None]]]  # by family; None deletes
Read = Callable[[str, Sequence[bytes]], Sequence[bytes | None]]

EXPIRY_KEY: Final = struct.Struct(">QQI")
MINUTE: Final = struct.Struct(">Q")
MINUTE_S: Final = 60.0
MAX_EXPIRY_ROW: Final = 1000  # keys in one row: some 40 KB

_encoder = msgspec.msgpack.Encoder()
_open_message = msgspec.msgpack.Decoder(OpenMessage)
_keys = msgspec.msgpack.Decoder(tuple[bytes, ...])


def open_key(operator: str, message_id: bytes) -> bytes:
    """The key in `open`, and in `alias` for a normal form. Neither part can hold a NUL (SMPP 3.4: a C-octet string)."""
    return operator.encode() + b"\0" + message_id


def parted(key: bytes) -> Key:
    """The operator and the id of a key in `open`."""
    operator, _, message_id = key.partition(b"\0")
    return operator.decode(), message_id


def encode_keys(keys: Sequence[bytes]) -> bytes:
    return _encoder.encode(keys)


def decode_keys(value: bytes) -> tuple[bytes, ...]:
    """Raises StoreError."""
    try:
        return _keys.decode(value)
    except UNDECODABLE as error:
        raise StoreError(
            f"a row of the store is no list of keys ({error}); it was written by something else"
        ) from error


def encode_open(message: OpenMessage) -> bytes:
    return _encoder.encode(message)


def decode_open(value: bytes) -> OpenMessage:
    """Raises StoreError."""
    try:
        return _open_message.decode(value)
    except UNDECODABLE as error:
        raise StoreError(
            f"a row of the store is no open message ({error}); it was written by something else"
        ) from error


def due_before(now: float) -> bytes:
    """Expiry rows with keys below this are of minutes that are over."""
    return MINUTE.pack(max(int(now // MINUTE_S), 0))


def changes_of(group: Group, read: Read, sequence: int) -> Changes:
    """The rows that make `group` durable. Writing them twice does no harm.

    `sequence` is the database's sequence number: it rises with every write, across restarts, so no expiry row is
    written over. `read` is asked for records that this group closes without knowing them, and for aliases.
    """
    changes: Changes = {family: [] for family in FAMILIES}
    due: dict[int, list[bytes]] = defaultdict(list)
    opens = changes[OPEN]
    for message in _written(group, read):
        key = open_key(message.operator, message.message_id)
        opens.append((key, encode_open(message)))
        due[max(int(message.expires_at // MINUTE_S), 0)].append(key)
    opens.extend((open_key(*key), None) for key in group.removed)
    changes[ALIAS].extend(_aliases(group, read))
    changes[EXPIRY].extend(_expiry_rows(due, sequence))
    changes[EXPIRY].extend(group.index.items())
    for table, rows in group.rows.items():
        changes[table.value].extend(rows.items())
    return changes


def _written(group: Group, read: Read) -> Iterator[OpenMessage]:
    yield from group.opens.values()
    unknown = [key for key, change in group.closed.items() if change.message is None]
    stored = read(OPEN, [open_key(*key) for key in unknown]) if unknown else ()
    for key, value in zip(unknown, stored, strict=True):
        if value is not None:
            change = group.closed[key]
            yield closed(decode_open(value), change.final_at, change.expires_at)
    for change in group.closed.values():
        if change.message is not None:
            yield change.message


def _aliases(group: Group, read: Read) -> Iterator[tuple[bytes, bytes | None]]:
    """Alias rows that change: read, then written whole. The committer is the only one that writes them."""
    gone: dict[Key, set[bytes]] = defaultdict(set)
    for operator, message_id in group.removed:
        normal_form = normal(message_id)
        if normal_form != message_id:
            gone[operator, normal_form].add(message_id)
    touched = list(group.forms.keys() | gone.keys())
    if not touched:
        return
    keys = [open_key(*form) for form in touched]
    for form, key, value in zip(touched, keys, read(ALIAS, keys), strict=True):
        before = decode_keys(value) if value is not None else ()
        after = tuple(message_id for message_id in before if message_id not in gone.get(form, ()))
        for message_id in group.forms.get(form, ()):
            if (form[0], message_id) in group.opens:
                after = with_id(after, message_id)
        if after != before:
            yield key, _encoder.encode(after) if after else None


def _expiry_rows(due: dict[int, list[bytes]], sequence: int) -> Iterator[tuple[bytes, bytes]]:
    for minute, keys in due.items():
        for part, start in enumerate(range(0, len(keys), MAX_EXPIRY_ROW)):
            yield EXPIRY_KEY.pack(minute, sequence, part), _encoder.encode(keys[start : start + MAX_EXPIRY_ROW])
