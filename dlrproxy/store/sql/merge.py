"""Writes to the new primary what only the old one has. What is merged is decided in `modes/merging.py`.

Custody and parked items are not written where they stand in the old server: the active node has its own in memory, and
may use the same names. They are put down as META rows under `modes.merging.INTAKE`, and
`dlrproxy/keeping/intake.py` takes them in: the active node gives each a name of its own and takes the row away, in
one commit.

A batch is written in one statement with a mark (`MERGED`), which cannot be written twice: a merge that is interrupted
goes on, and brings nothing twice, also when the active node has taken in and delivered the first rows long ago. The
mark names the old server's epoch and position: another parting is another merge. Open messages need none of that: each
is written only over an older record.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Final, cast

from dlrproxy.modes.merging import MARGIN_S, MERGE_NAME_SIZE, OF_OPENS, Known, decode_known, encode_known, intake_name
from dlrproxy.modes.rejoin import OwnServer
from dlrproxy.store.directory import STORE_ID_KEY
from dlrproxy.store.group import Key
from dlrproxy.store.port import OpenMessage, Table
from dlrproxy.store.sql import statements
from dlrproxy.store.sql.errors import DuplicateKeyError
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import number

KNOWN: Final = b"known/"  # and the epoch, eight bytes
MERGED: Final = b"merged/"  # the merge; while it is under way also the number of a batch

_CLOCK: Final = b"clock"  # as `housekeeping` writes it
PAGE: Final = 500
_ITEMS_PAGE: Final = 100  # a row may hold 64 KiB
_HERE: Final = b"1"


# --- what a node that is promoted knows


async def note_known(pool: Pool, epoch: int, holder: str) -> None:
    """Write down what this server knows, before its node serves under `epoch`. Nobody writes to it meanwhile.

    Raises SqlError.
    """
    found = (await pool.run(statements.get_item(Table.META, STORE_ID_KEY))).rows
    store_id = cast("bytes", found[0][0]) if found else b""
    newest = (await pool.run(statements.newest_item((Table.CUSTODY, Table.PARKED), store_id))).rows[0][0]
    clock = (await pool.run(statements.get_item(Table.META, _CLOCK))).rows
    known = Known(holder, cast("bytes | None", newest) or b"", float(cast("bytes", clock[0][0])) if clock else 0.0)
    await pool.run(statements.put_items([(Table.META, KNOWN + epoch.to_bytes(8), encode_known(known))]))


async def read_known(pool: Pool) -> dict[int, Known]:
    """By epoch. Raises SqlError, KnownError."""
    rows = await _meta_rows(pool, KNOWN)
    return {int.from_bytes(name.removeprefix(KNOWN)): decode_known(content) for name, content in rows}


async def _meta_rows(pool: Pool, prefix: bytes) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    after = prefix
    while rows := (await pool.run(statements.scan_items(Table.META.value, after, PAGE))).rows:
        mine = [(cast("bytes", name), cast("bytes", content)) for name, content in rows]
        found += [(name, content) for name, content in mine if name.startswith(prefix)]
        after = mine[-1][0]
        if not after.startswith(prefix):
            break
    return found


# --- reading the old server


async def opens_since(pool: Pool, clock: float) -> AsyncIterator[list[OpenMessage]]:
    """Pages of the open messages that were submitted or finished since then, less a margin. Raises SqlError."""
    since = number(clock - MARGIN_S)
    after: Key = ("", b"")
    while True:
        statement = statements.scan_opens(after, PAGE, f"(submitted_at>{since} OR final_at>{since})")
        page = [statements.open_of(row) for row in (await pool.run(statement)).rows]
        if not page:
            return
        yield page
        after = page[-1].key


async def items(pool: Pool, table: Table) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """Pages of the rows of one table. Raises SqlError."""
    after = b""
    while rows := (await pool.run(statements.scan_items(table.value, after, _ITEMS_PAGE))).rows:
        page = [(cast("bytes", name), cast("bytes", content)) for name, content in rows]
        yield page
        after = page[-1][0]


async def opens_at(pool: Pool, keys: Sequence[Key]) -> dict[Key, OpenMessage]:
    """Raises SqlError."""
    statement = statements.find_opens(keys, ())
    if statement is None:
        return {}
    return {message.key: message for message in map(statements.open_of, (await pool.run(statement)).rows)}


# --- writing to the new primary


def merge_of(own: OwnServer) -> bytes:
    """The name of the merge of what this server has: another one when it has written anything since."""
    return hashlib.sha256(f"{own.epoch} {own.position}".encode()).hexdigest()[:MERGE_NAME_SIZE].encode()


async def is_merged(pool: Pool, merge: bytes) -> bool:
    """Raises SqlError."""
    return bool((await pool.run(statements.get_item(Table.META, MERGED + merge))).rows)


async def merge_opens(pool: Pool, messages: Sequence[OpenMessage]) -> None:
    """Raises SqlError."""
    for start in range(0, len(messages), statements.ROWS):
        await pool.run(statements.merge_opens(messages[start : start + statements.ROWS]))


async def merge_items(pool: Pool, merge: bytes, batch: bytes, rows: Iterable[tuple[bytes, bytes, bytes]]) -> None:
    """Put `rows` (a letter, a name, the content) into the intake, unless this batch of the merge is there already.

    Raises SqlError.
    """
    mark = (Table.META, MERGED + merge + b"/" + batch, _HERE)
    put = [(Table.META, intake_name(merge, letter, name), content) for letter, name, content in rows]
    try:
        await pool.run(statements.insert_items([mark, *put]))
    except DuplicateKeyError:
        return  # it was written before the last interruption


async def finish(pool: Pool, merge: bytes) -> None:
    """Everything is there: say so, and have the active node look again at what nobody owned. Raises SqlError."""
    with suppress(DuplicateKeyError):
        await pool.run(
            statements.insert_items(
                [(Table.META, MERGED + merge, _HERE), (Table.META, intake_name(merge, OF_OPENS), _HERE)]
            )
        )
    marks = MERGED + merge + b"/"
    await pool.run(statements.delete_items(Table.META, marks, marks + b"~"))
