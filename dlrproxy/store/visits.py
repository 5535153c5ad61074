"""What worker threads do with an open database: write a group, read records, read what is due."""

from collections.abc import Sequence
from typing import Final

from dlrproxy.store.backend import Due, Records
from dlrproxy.store.database import Database
from dlrproxy.store.group import Group, Key
from dlrproxy.store.layout import (
    ALIAS,
    EXPIRY,
    OPEN,
    changes_of,
    decode_keys,
    decode_open,
    due_before,
    open_key,
    parted,
)
from dlrproxy.store.port import OpenMessage

EXPIRY_PAGE: Final = 16  # rows read at a time, of up to 40 KB each


def write_group(group: Group, database: Database) -> None:
    database.write(changes_of(group, database.get, database.sequence))
    database.sync()


def read_opens(
    database: Database, keys: Sequence[Key], forms: Sequence[Key]
) -> tuple[Records, dict[Key, tuple[bytes, ...]]]:
    """The records of `keys`, the exact ids of each normal form, and the records of those ids as well."""
    records = _get_opens(database, keys)
    aliases: dict[Key, tuple[bytes, ...]] = {}
    for form, value in zip(forms, database.get(ALIAS, [open_key(*form) for form in forms]), strict=True):
        if value is not None:
            aliases[form] = decode_keys(value)
    asked = set(keys)
    more = {(operator, i) for (operator, _), ids in aliases.items() for i in ids} - asked
    if more:
        records |= _get_opens(database, list(more))
    return records, aliases


def _get_opens(database: Database, keys: Sequence[Key]) -> Records:
    values = database.get(OPEN, [open_key(*key) for key in keys])
    return {key: decode_open(value) for key, value in zip(keys, values, strict=True) if value is not None}


def scan_opens(database: Database, after: bytes, limit: int) -> list[tuple[bytes, OpenMessage]]:
    return [(key, decode_open(value)) for key, value in database.scan(OPEN, after, limit)]


def read_due(database: Database, now: float, limit: int, done: frozenset[bytes]) -> list[Due]:
    """Expiry rows of at most `limit` keys in all: the row's key, keys to look at, keys left for later, records."""
    rows: list[Due] = []
    after = b""
    while limit > 0 and (page := database.scan(EXPIRY, after, EXPIRY_PAGE, before=due_before(now))):
        for row_key, value in page:
            if row_key in done:
                continue  # a commit that is under way deletes or shortens it
            raw = decode_keys(value)
            keys = [parted(key) for key in raw[:limit]]
            if keys:
                rows.append(Due(row_key, keys, raw[limit:], _get_opens(database, keys)))
                limit -= len(keys)
        after = page[-1][0]
    return rows
