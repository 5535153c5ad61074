"""The unix socket in the data directory: who can enter the directory and use the socket may do everything.

A socket's address holds 107 bytes at most, and data directories may be deeper. On Linux a long path is shortened by
way of the directory's file descriptor.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NAME: Final = "admin.sock"
MODE: Final = 0o600

_LONGEST: Final = 103  # bytes, without the NUL: 107 on Linux, 103 on macOS and the BSDs
_BACKLOG: Final = 16


def listener(data_dir: Path) -> socket.socket:
    """A socket that listens at `data_dir/admin.sock`, for this user alone; one left by a process that died is replaced.

    It has its mode before anybody can connect, and its name only then. The caller holds the data directory's lock.
    Raises OSError.
    """
    path, unfinished = data_dir / NAME, data_dir / f"{NAME}.new"
    unfinished.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(unfinished) as address:
            listening.bind(address)
        unfinished.chmod(MODE)
        listening.listen(_BACKLOG)
        unfinished.replace(path)
    except BaseException:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def connect(data_dir: Path, timeout_s: float) -> socket.socket:
    """A blocking connection to the node of this data directory. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with _address(data_dir / NAME) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _address(path: Path) -> Iterator[str]:
    address = str(path)
    if len(os.fsencode(address)) <= _LONGEST:
        yield address
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
