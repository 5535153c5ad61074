"""A database server's data directory, and the clone that takes its place: files and commands, nothing decided.

The clone is made in a directory beside the data directory, on the same file system, so that a rename puts it in its
place. Two marks in it say how far it is, each written when the step before has wholly succeeded. All of this blocks,
and belongs in a thread.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from dlrproxy.modes.rejoin import Copy

_FETCHED: Final = "dlrproxy-fetched"
_PREPARED: Final = "dlrproxy-clone"  # holds the GTID position of the clone
# Where mariadb-backup writes the position of the backup; the second is the name since MariaDB 11.1.
_INFO: Final = ("xtrabackup_binlog_info", "mariadb_backup_binlog_info")
_SHOWN_LINES: Final = 5  # of what a command that failed has said


class CloneError(Exception):
    """A step of a clone failed; the text says what did, and what it said."""


class CloneSite:
    """Where the data of one server is, and the commands that stop and start it."""

    def __init__(
        self,
        data: Path,
        *,
        clone_command: Sequence[str],
        stop_command: Sequence[str],
        start_command: Sequence[str],
    ) -> None:
        self._data = data
        self._copy = data.with_name(f"{data.name}.rejoin")
        self._clone_command = clone_command
        self._stop_command = stop_command
        self._start_command = start_command

    # What is there

    @property
    def has_data(self) -> bool:
        return self._data.is_dir()

    @property
    def copy(self) -> Copy:
        if not self._copy.exists():
            return Copy.NONE
        if (self._copy / _PREPARED).exists():
            return Copy.PREPARED
        return Copy.FETCHED if (self._copy / _FETCHED).exists() else Copy.PARTIAL

    @property
    def is_cloned(self) -> bool:
        """The data directory is a clone that has not begun to replicate."""
        return (self._data / _PREPARED).exists()

    def position(self) -> str:
        """Of the clone in the data directory. Raises CloneError."""
        with _named("the clone's position"):
            return (self._data / _PREPARED).read_text().strip()

    # What is done

    def fetch(self) -> None:
        """Raises CloneError."""
        with _named(f"making {self._copy}"):
            if self._copy.exists():
                shutil.rmtree(self._copy)
            self._copy.mkdir(mode=0o700)
        with tempfile.TemporaryFile() as said:
            self._receive(said)
        self._read_position()
        self._mark(_FETCHED, "")

    def _receive(self, said: IO[bytes]) -> None:
        unpack = ["mbstream", "-x", "-C", os.fspath(self._copy)]
        with _named(f"clone_command ({self._clone_command[0]})"):
            source = subprocess.Popen(
                self._clone_command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
            )
        with source:
            try:
                with _named("mbstream"):
                    unpacked = subprocess.run(unpack, stdin=source.stdout, stderr=said, check=False)
            finally:
                if source.stdout is not None:
                    source.stdout.close()  # it is told, if nobody reads on
            status = source.wait()
        if status != 0 or unpacked.returncode != 0:
            raise CloneError(f"the clone did not come over (clone_command ended with {status}): {_end_of(said)}")

    def prepare(self) -> None:
        """Raises CloneError."""
        _run(["mariadb-backup", "--prepare", f"--target-dir={self._copy}"])
        self._mark(_PREPARED, self._read_position())

    def _read_position(self) -> str:
        for name in _INFO:
            path = self._copy / name
            if path.exists():
                fields = path.read_text().split()
                if len(fields) >= 3:
                    return fields[2]
        raise CloneError(f"the clone in {self._copy} does not say its GTID position: has its server a binary log?")

    def _mark(self, name: str, content: str) -> None:
        with _named(f"writing {self._copy / name}"):
            with (self._copy / name).open("w") as file:
                file.write(content + "\n")
                file.flush()
                os.fsync(file.fileno())
            _sync_directory(self._copy)

    def stop(self) -> None:
        """Raises CloneError."""
        _run(self._stop_command)

    def start(self) -> None:
        """Raises CloneError."""
        _run(self._start_command)

    def swap_in(self) -> Path | None:
        """The server is stopped. Returns where the old data is now; None: an earlier call has moved it already.

        Raises CloneError.
        """
        with _named(f"putting {self._copy} in the place of {self._data}"):
            old = None
            if self._data.exists():
                before = self._data.stat()
                self._give_to(before.st_uid, before.st_gid)
                self._copy.chmod(before.st_mode & 0o7777)
                old = self._data.with_name(f"{self._data.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
                self._data.rename(old)
            self._copy.rename(self._data)
            _sync_directory(self._data.parent)
        return old

    def _give_to(self, uid: int, gid: int) -> None:
        for path in (self._copy, *self._copy.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)

    def forget_mark(self) -> None:
        """Raises CloneError."""
        with _named("removing the clone's mark"):
            (self._data / _PREPARED).unlink(missing_ok=True)
            (self._data / _FETCHED).unlink(missing_ok=True)
            _sync_directory(self._data)


def _run(command: Sequence[str]) -> None:
    """Raises CloneError. What the command leaves running may keep its output open: it goes to a file."""
    with tempfile.TemporaryFile() as said:
        with _named(command[0]):
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise CloneError(f"{command[0]} ended with {done.returncode}: {_end_of(said)}")


def _end_of(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return " | ".join(lines[-_SHOWN_LINES:]) or "it said nothing"


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CloneError(f"{what}: {error}") from error
