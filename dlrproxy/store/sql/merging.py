"""Brings what only the old primary has into a file and to the new one, page by page: first the file, then the other."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

import attrs

from dlrproxy.modes.merging import OF_CUSTODY, OF_PARKED, Known, is_new, merged
from dlrproxy.store.port import OpenMessage, Table
from dlrproxy.store.sql import merge, schema
from dlrproxy.store.sql.pool import Pool
from ring.rows import CustodyRow, Kind, ParkedRow, RowError, decode_custody, decode_parked

# What becomes of a row of the old primary, as the file says it.
MERGED: Final = "merged"
SUPERSEDED: Final = "superseded"  # a final report of its message was delivered: it was not to be any more
OF_A_RING: Final = "of_a_ring"  # what nodes of a ring owe each other: a pair has none
UNREADABLE: Final = "unreadable"


@attrs.frozen(kw_only=True)
class Merged:
    """How much was merged, and where the copies are."""

    audit: Path
    opens: int = 0
    custody: int = 0
    parked: int = 0
    left: int = 0  # rows that are in the file only, and should have been merged


@attrs.define
class _Counts:
    opens: int = 0
    custody: int = 0
    parked: int = 0
    left: int = 0


class Merger:
    def __init__(self, data_dir: Path) -> None:
        """The file is made in `data_dir`."""
        self._data_dir = data_dir

    async def run(self, own: Pool, primary: Pool, name: bytes, known: Known | None) -> Merged:
        """`known` is what the primary knew when the two parted; None: the old server never served on its own.

        May be interrupted and done again, with the same name while the old server has not changed. Raises SqlError,
        SchemaError, OSError.
        """
        audit, file = _new_file(self._data_dir)
        counts = _Counts()
        with file:
            if known is not None:
                store_id = await schema.ready(own)
                await self._opens(own, primary, known, file, counts)
                for table in (Table.CUSTODY, Table.PARKED):
                    await self._items(own, primary, table, name, store_id, known, file, counts)
        await merge.finish(primary, name)
        return Merged(audit=audit, **attrs.asdict(counts))

    async def _opens(self, own: Pool, primary: Pool, known: Known, file: TextIO, counts: _Counts) -> None:
        async for page in merge.opens_since(own, known.clock):
            theirs = await merge.opens_at(primary, [message.key for message in page])
            wanted = [message for message in page if merged(message, theirs.get(message.key)) is not None]
            _keep(file, [_open_line(message) for message in wanted])
            await merge.merge_opens(primary, wanted)
            counts.opens += len(wanted)

    async def _items(
        self, own: Pool, primary: Pool, table: Table, name: bytes, store_id: bytes, known: Known, file: TextIO,
        counts: _Counts,
    ) -> None:  # fmt: skip
        number = 0
        async for page in merge.items(own, table):
            new = [(key, content) for key, content in page if is_new(key, store_id, known)]
            judged = [(key, content, _judge(table, content)) for key, content in new]
            _keep(file, [_item_line(table, *each) for each in judged])
            letter = OF_CUSTODY if table is Table.CUSTODY else OF_PARKED
            rows = [(letter, key, content) for key, content, what in judged if what == MERGED]
            if rows:
                batch = letter + b"%d" % number
                await merge.merge_items(primary, name, batch, rows)
            number += 1
            counts.left += sum(what in {OF_A_RING, UNREADABLE} for *_, what in judged)
            if table is Table.CUSTODY:
                counts.custody += len(rows)
            else:
                counts.parked += len(rows)


def _judge(table: Table, content: bytes) -> str:
    """What becomes of a row that the primary never had."""
    try:
        row: CustodyRow | ParkedRow = decode_custody(content) if table is Table.CUSTODY else decode_parked(content)
    except RowError:
        return UNREADABLE
    if isinstance(row, ParkedRow):
        return MERGED
    if row.superseded:
        return SUPERSEDED
    return MERGED if row.kind is Kind.ORIGIN else OF_A_RING


def _new_file(data_dir: Path) -> tuple[Path, TextIO]:
    """It holds messages: for its owner's eyes only. Raises OSError."""
    stem = f"rejoin-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    number = 1
    while True:
        path = data_dir / (f"{stem}.jsonl" if number == 1 else f"{stem}-{number}.jsonl")
        try:
            return path, os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
        except FileExistsError:
            number += 1


def _keep(file: TextIO, lines: Sequence[Mapping[str, object]]) -> None:
    """On disk before anything is done on the strength of it."""
    if lines:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def _open_line(message: OpenMessage) -> dict[str, object]:
    return {
        "table": "open_messages",
        "what": MERGED,
        "operator": message.operator,
        "message_id": _text(message.message_id),
        "owner": message.owner,
        "destination": _text(message.destination),
        "source": _text(message.source),
        "session": message.session,
        "submitted_at": message.submitted_at,
        "expires_at": message.expires_at,
        "final_at": message.final_at,
    }


def _item_line(table: Table, name: bytes, content: bytes, what: str) -> dict[str, object]:
    """The row as it stands in the table, in hexadecimal: nothing of it is lost."""
    return {"table": table.value, "what": what, "name": name.hex(), "content": content.hex()}


def _text(value: bytes) -> str:
    return value.decode("latin-1")
