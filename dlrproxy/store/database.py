"""One open RocksDB: calls that block, for worker threads, and errors that say what happened to which directory.

How it writes was measured (rocksdict 0.3): `write` with sync=True holds the interpreter's lock through the fsync;
`write` without it and then `flush_wal(True)` gives the same durability (RocksDB syncs every live log file) and lets
go of the lock while the disk works. So `write` puts a group into the operating system's hands, whole or not at all,
and `sync` makes it durable.

**Recovery mode.** At start RocksDB replays its log. "Tolerate corrupted tail records" accepts one thing: that the last
record of a log ends early, as it does when the process or the machine dies while writing it, before anything in it was
acknowledged. Any other damage fails the open. The default, "point in time", would open at damage in the middle as
well, and silently forget every acknowledged record after it.
"""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    WriteBatch,
)

from dlrproxy.store.backend import WriteError
from dlrproxy.store.layout import ALIAS, FAMILIES, OPEN, Changes
from dlrproxy.store.port import StoreBusyError, StoreError

MIB: Final = 1024 * 1024

CACHE_BYTES: Final = 64 * MIB  # blocks of all families; measured with 1e6 and 1e7 records
BLOOM_BITS: Final = 10  # a key: about 1 % of the lookups of unknown ids read a block in vain
BUFFER_BLOOM_RATIO: Final = 0.02  # of a write buffer: an unknown id costs 0.8 us there instead of 3
OPEN_BUFFER_BYTES: Final = 64 * MIB  # most open messages die in here
OTHER_BUFFER_BYTES: Final = 16 * MIB
# Log files that only a quiet family still needs; above this RocksDB writes that family out. It bounds both the disk
# that logs take and the time to replay them (some 0.2 s).
LOG_BYTES: Final = 128 * MIB
OWN_LOGS_KEPT: Final = 4  # RocksDB's own LOG files, of at most OWN_LOG_BYTES
OWN_LOG_BYTES: Final = 4 * MIB

_MADE: Final = "CURRENT"  # a file that every database of RocksDB has
_DEFAULT: Final = "default"  # a family that RocksDB makes in any case

# How RocksDB's text begins when files are damaged or missing, in contrast to a disk that cannot be used just now.
_DAMAGED: Final = ("Corruption:", "Invalid argument:", "Not implemented:", "IO error: No such file or directory")


class DatabaseError(WriteError):
    """RocksDB failed. `lost`: its files are damaged, and opening them again is of no use."""

    def __init__(self, path: Path, why: str) -> None:
        damaged = why.startswith(_DAMAGED)
        super().__init__(_damaged_text(path, why) if damaged else _unusable_text(path, why), why=why, lost=damaged)


def _damaged_text(path: Path, why: str) -> str:
    return (
        f"the store in {path} is damaged: {why}. Nothing in it was changed. With dlrproxy stopped, either save what "
        f"can be read with `python -m dlrproxy.store.repair {path.parent}` (it keeps a copy), or move {path} away to "
        "start with an empty one; the messages and reports in it are then forgotten"
    )


def _unusable_text(path: Path, why: str) -> str:
    return f"the store in {path} cannot be used: {why}; look at the disk, its space and its permissions"


@contextmanager
def named(path: Path) -> Iterator[None]:
    """rocksdict raises bare Exception with RocksDB's text; give it a type and the directory."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        why = str(error).rstrip(".")
        if "LOCK: Resource temporarily unavailable" in why:
            raise StoreBusyError(f"another process has the store in {path} open ({why})") from error
        raise DatabaseError(path, why) from error


def database_options(*, create: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_error_if_exists(create)
    options.create_missing_column_families(True)  # a later version may add one
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_max_total_wal_size(LOG_BYTES)
    options.set_keep_log_file_num(OWN_LOGS_KEPT)
    options.set_max_log_file_size(OWN_LOG_BYTES)
    return options


def family_options(later: Iterable[str] = ()) -> dict[str, Options]:
    """Of all that are used here, and of those of a later release: RocksDB opens all families or none."""
    cache = Cache(CACHE_BYTES)
    return {family: _family_options(family, cache) for family in (*FAMILIES, *later)}


def _later_families(path: Path, options: Options) -> list[str]:
    """Those that this release does not use; it leaves them as they are. Raises what RocksDB does."""
    return [family for family in Rdict.list_cf(str(path), options) if family not in (*FAMILIES, _DEFAULT)]


def _family_options(family: str, cache: Cache) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    if family in {OPEN, ALIAS}:
        table.set_bloom_filter(BLOOM_BITS, False)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    if family in {OPEN, ALIAS}:
        options.set_memtable_whole_key_filtering(True)
        options.set_memtable_prefix_bloom_ratio(BUFFER_BLOOM_RATIO)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(OPEN_BUFFER_BYTES if family == OPEN else OTHER_BUFFER_BYTES)
    return options


class Database:
    """Every method blocks and raises DatabaseError, but for `sequence`. Reads may run at the same time as one write.

    `close` needs every other call to have returned.
    """

    def __init__(self, path: Path, *, options: Options | None = None) -> None:
        """Open what is there, or what `options` say. StoreBusyError: another process has it open."""
        self.path = path
        if options is None:
            options = database_options(create=False)
        with named(path):
            later = _later_families(path, options) if (path / _MADE).exists() else ()
            self._db = Rdict(str(path), options, family_options(later))
            self._families = {family: self._db.get_column_family(family) for family in FAMILIES}
            self._handles = {family: self._db.get_column_family_handle(family) for family in FAMILIES}

    @property
    def sequence(self) -> int:
        """Rises with every write, across restarts."""
        return self._db.latest_sequence_number()

    def write(self, changes: Changes) -> None:
        """All of it or nothing, and not yet durable."""
        batch = WriteBatch(raw_mode=True)
        for family, rows in changes.items():
            if not rows:
                continue
            batch.set_default_column_family(self._handles[family])
            for key, value in rows:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
        with named(self.path):
            self._db.write(batch)

    def sync(self) -> None:
        """What was written is durable when this returns. After an error nobody knows: close, open, write again."""
        with named(self.path):
            self._db.flush_wal(True)

    def write_tables(self) -> None:
        """Write what the log holds into tables; each family with a row then has one."""
        with named(self.path):
            for family in self._families.values():
                family.flush()

    def get(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        with named(self.path):
            return cast("list[bytes | None]", self._families[family].get(list(keys))) if keys else []

    def scan(self, family: str, after: bytes, limit: int, before: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """At most `limit` rows with `after` < key (< `before`), in key order. The empty key is nobody's."""
        rows: list[tuple[bytes, bytes]] = []
        with named(self.path):
            cursor = self._families[family].iter()
            cursor.seek(after)
            while cursor.valid() and len(rows) < limit:
                key = cursor.key()
                if before is not None and key >= before:
                    break
                if key != after:
                    rows.append((key, cursor.value()))
                cursor.next()
            cursor.status()  # a damaged block ends the rows like the table's end does, but for this
        return rows

    def close(self) -> None:
        """Write out what is in memory, and let go of the files even if that fails. The object is of no use afterwards.

        RocksDB holds its lock until the last handle is gone, and after a failed write `Rdict.close` raises before it
        lets go: so every reference is dropped here. Raises DatabaseError.
        """
        rdicts = [*self._families.values(), self._db]
        del self._db, self._families, self._handles
        failures = [why for rdict in rdicts if (why := _close(rdict, self.path)) is not None]
        rdicts.clear()
        gc.collect()  # tracebacks of failed calls may hold handles in cycles
        if failures:
            raise DatabaseError(self.path, failures[0])


def _close(rdict: Rdict, path: Path) -> str | None:
    """Why it failed, or None. A text and not the exception, whose traceback would keep the database open."""
    try:
        with named(path):
            rdict.close()
    except DatabaseError as error:
        return error.why
    return None
