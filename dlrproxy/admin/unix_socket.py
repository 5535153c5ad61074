"""The unix sockets: who can enter the data directory and use the one there may do everything, and another one, where it
is configured, tells a node of a quorum to look.

A socket's address holds 107 bytes at most, and data directories may be deeper. On Linux a long path is shortened by
way of the directory's file descriptor.
"""

import errno
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NAME: Final = "admin.sock"
MODE: Final = 0o600
GROUP_MODE: Final = 0o660

_LONGEST: Final = 103  # bytes, without the NUL: 107 on Linux, 103 on macOS and the BSDs
_BACKLOG: Final = 16


def listener(path: Path, group: str | None = None) -> socket.socket:
    """A socket that listens at `path`, for this user alone, or for `group` too; one left by a process that died is
    replaced, and nothing else is.

    It has its mode before anybody can connect, and its name only then. Raises OSError.
    """
    _need_free(path)
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(unfinished) as address:
            listening.bind(address)
        unfinished.chmod(MODE)
        if group is not None:
            _give_to(unfinished, group)
        listening.listen(_BACKLOG)
        unfinished.replace(path)
    except BaseException:
        listening.close()
        unfinished.unlink(missing_ok=True)
        raise
    listening.setblocking(False)
    return listening


def _need_free(path: Path) -> None:
    """Raises OSError: FileExistsError when no socket is there, EADDRINUSE when somebody listens at it."""
    try:
        if not stat.S_ISSOCK(path.stat(follow_symlinks=False).st_mode):
            raise FileExistsError(errno.EEXIST, "something else is there, which is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, _address(path) as address:
            probe.setblocking(False)
            probe.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        return
    except BlockingIOError:
        pass  # so many wait there that there is no room for one more
    raise OSError(errno.EADDRINUSE, "another process listens there")


def _give_to(path: Path, group: str) -> None:
    """Raises OSError."""
    try:
        shutil.chown(path, group=group)
    except LookupError as error:
        raise OSError(errno.EINVAL, f"there is no group {group}") from error
    except PermissionError as error:
        raise OSError(error.errno, f"this user is not a member of the group {group}") from error
    path.chmod(GROUP_MODE)


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
