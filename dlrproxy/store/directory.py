"""The data directory: one process at a time, made once, never made again over something that is there.

data_dir/lock        held (flock) while a node runs; its text is that node's process id
data_dir/store       RocksDB
data_dir/store.new   a store that is being made; it gets its name when its id is on disk, so a store without
                     an id cannot be, and what a crash leaves here is nobody's
data_dir/journal     the same for the journal of a node whose store is in a database server (see `journal`)
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dlrproxy.store.database import Database, database_options
from dlrproxy.store.layout import FAMILIES, Changes
from dlrproxy.store.port import StoreBusyError, StoreError, Table

STORE_ID_KEY: Final = b"store_id"
STORE_ID_SIZE: Final = 8
FORMAT_KEY: Final = b"format"
FORMAT: Final = b"1"

Opener = Callable[[Path], Database]


class DataDirectory:
    """Held from the moment it is made until `release`."""

    def __init__(self, path: Path, name: str = "store") -> None:
        """Make the directory if it is not there, and take its lock. Raises StoreBusyError, StoreError.

        `name` is that of the RocksDB directory in it.
        """
        self.path = path
        self.store = path / name
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"the data directory {path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise StoreBusyError(
                f"the data directory {path} is in use by process {holder or 'unknown'}; "
                "every dlrproxy needs a data directory of its own"
            ) from error
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # a full disk
            os.close(self._lock)
            raise StoreError(f"the data directory {path} cannot be used: {error.strerror}") from error

    def release(self) -> None:
        os.close(self._lock)

    def open_store(self, opener: Opener) -> tuple[Database, bytes]:
        """The database and its store id; both are made if there is none. Blocks; raises StoreError."""
        if not self.store.exists():
            self._make_store()
        database = opener(self.store)
        try:
            return database, self._store_id(database)
        except StoreError:
            database.close()
            raise

    def _store_id(self, database: Database) -> bytes:
        store_id, written_as = database.get(Table.META.value, [STORE_ID_KEY, FORMAT_KEY])
        if store_id is None or len(store_id) != STORE_ID_SIZE:
            raise StoreError(f"{self.store} is a RocksDB directory, but not a store of dlrproxy: it has no store id")
        if written_as != FORMAT:
            found = (written_as or b"?").decode("ascii", "replace")
            raise StoreError(f"the store in {self.store} has format {found}; this version reads {FORMAT.decode()}")
        return store_id

    def _make_store(self) -> None:
        unfinished = self.store.with_name(f"{self.store.name}.new")
        try:
            if unfinished.exists():
                shutil.rmtree(unfinished)
            database = Database(unfinished, options=database_options(create=True))
            try:
                database.write(first_rows())
                database.sync()
                database.write_tables()
            finally:
                database.close()
            _sync_directory(unfinished)
            unfinished.rename(self.store)
            _sync_directory(self.path)
        except OSError as error:
            raise StoreError(f"the store in {self.store} cannot be made: {error}") from error


def first_rows() -> Changes:
    """What a new store holds: its id, its format, and a row under the empty key of each family, which no reader sees.

    Those rows, in tables, make every family known to RocksDB's repair, which finds families by their tables and
    drops what the log holds of others.
    """
    changes: Changes = {family: [(b"", b"")] for family in FAMILIES}
    changes[Table.META.value] += [(STORE_ID_KEY, secrets.token_bytes(STORE_ID_SIZE)), (FORMAT_KEY, FORMAT)]
    return changes


def _sync_directory(path: Path) -> None:
    """Make durable which names are in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write on the file system of `path`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
