"""Save what can be read of a damaged store: `python -m dlrproxy.store.repair DATA_DIR`.

The store is copied first, byte for byte, and the copy is left alone. Then, in this order, each only if needed:

1. opened with every tolerance that RocksDB has: records of the log that fail their checksum are skipped, the ones after
   them are read, and all are written into tables;
2. rebuilt from its tables (RocksDB's repair): a damaged table is put aside whole.

Either may bring back rows that were deleted shortly before the damage: a report may be delivered twice, which is
what dlrproxy promises at worst. The store keeps its id, unless the id itself was lost: then it gets a new one, for the
old one's numbers can no longer be told from used ones.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Final

from attrs import frozen
from rocksdict import DBRecoveryMode, Options, Rdict

from dlrproxy.store.database import Database, database_options, named
from dlrproxy.store.directory import STORE_ID_KEY, DataDirectory, first_rows
from dlrproxy.store.layout import FAMILIES
from dlrproxy.store.port import StoreError, Table

PAGE: Final = 1000


@frozen
class Repaired:
    """What a repair found and left."""

    copy: Path
    how: str  # "intact", "log" or "tables": the step after which everything could be read
    rows: dict[str, int]  # by column family
    new_store_id: bool


def repair(data_dir: Path) -> Repaired:
    """Raises StoreBusyError while a node runs, StoreError when nothing could be saved; the copy is there even then."""
    if not (data_dir / "store").exists():
        raise StoreError(f"there is no store in {data_dir}")
    directory = DataDirectory(data_dir)
    try:
        copy = _copy(directory.store)
        how = _make_readable(directory.store)
        database = Database(directory.store)
        try:
            return Repaired(copy, how, _count(database), new_store_id=_ensure_id(database))
        finally:
            database.close()
    finally:
        directory.release()


def _copy(store: Path) -> Path:
    number = 1
    while (copy := store.with_name(f"store.lost-{number}")).exists():
        number += 1
    try:
        shutil.copytree(store, copy)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(copy, ignore_errors=True)
        raise StoreError(f"{store} cannot be copied to {copy}: {error}. Nothing was changed") from error
    return copy


def _make_readable(store: Path) -> str:
    if _readable(store, database_options(create=False)):
        return "intact"
    if _readable(store, _tolerant()) and _readable(store, database_options(create=False)):
        return "log"
    with named(store):
        Rdict.repair(str(store), database_options(create=False))
    return "tables"


def _tolerant() -> Options:
    options = database_options(create=False)
    options.set_wal_recovery_mode(DBRecoveryMode.skip_any_corrupted_record())
    options.set_paranoid_checks(False)
    return options


def _readable(store: Path, options: Options) -> bool:
    """Whether every row can be read, when opened so."""
    try:
        database = Database(store, options=options)
    except StoreError:
        return False
    try:
        _count(database)
    except StoreError:
        return False
    finally:
        database.close()
    return True


def _count(database: Database) -> dict[str, int]:
    return {family: _count_family(database, family) for family in FAMILIES}


def _count_family(database: Database, family: str) -> int:
    count, after = 0, b""
    while rows := database.scan(family, after, PAGE):
        count += len(rows)
        after = rows[-1][0]
    return count


def _ensure_id(database: Database) -> bool:
    """Whether the store got a new id."""
    (store_id,) = database.get(Table.META.value, [STORE_ID_KEY])
    if store_id is not None:
        return False
    database.write(first_rows())
    database.sync()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dlrproxy.store.repair", description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path, help="as in the config: [node] data_dir")
    data_dir = parser.parse_args().data_dir
    try:
        done = repair(data_dir)
    except StoreError as error:
        sys.exit(f"not repaired: {error}")
    rows = ", ".join(f"{count} {family}" for family, count in done.rows.items())
    found = {"intact": "nothing was damaged", "log": "the log was damaged", "tables": "tables were damaged"}[done.how]
    sys.stdout.write(f"{found}; the store now holds these rows: {rows}\nas it was: {done.copy}\n")
    if done.new_store_id:
        sys.stdout.write("its id was lost, and it has a new one\n")


if __name__ == "__main__":
    main()
