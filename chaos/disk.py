"""A disk that can be filled up: a file system of its own where we may mount one, else a limit on the size of files.

On a mounted tmpfs the node gets ENOSPC, as from any full disk. Without the right to mount, the kernel's limit on the
size of files (RLIMIT_FSIZE, set on the running process) fails its writes with EFBIG: another error in the same places.
"""

import errno
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol

SIZE_MB: Final = 128  # min_free_mb, and several times what a node keeps in a long run
_CHUNK: Final = bytes(256 * 1024)
_LAST_BYTES: Final = bytes(512)  # a file system may still have room for less than a chunk
_UNLIMITED: Final = resource.RLIM_INFINITY


class Disk(Protocol):
    """One node's."""

    @property
    def what(self) -> str:
        """What a full one is, in words."""

    def fill(self, pid: int) -> None:
        """From now on the process cannot write. Raises OSError."""

    def free(self, pid: int | None) -> None:
        """There is room again; None where the process has ended meanwhile. Raises OSError."""


class SmallDisk:
    """A small file system, filled with a file of ours."""

    what = f"ENOSPC, on a tmpfs of {SIZE_MB} MB"

    def __init__(self, directory: Path) -> None:
        self._filler = directory / "filler"

    def fill(self, pid: int) -> None:
        with self._filler.open("wb", buffering=0) as filler:
            for piece in (_CHUNK, _LAST_BYTES):
                try:
                    while filler.write(piece):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self, pid: int | None) -> None:
        self._filler.unlink()


class FileLimit:
    """No file of the process grows, and no new one gets a byte. Its disk has room, which it can see."""

    what = "EFBIG, by a limit on the size of files"

    def fill(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, _UNLIMITED))

    def free(self, pid: int | None) -> None:
        if pid is not None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (_UNLIMITED, _UNLIMITED))


@contextmanager
def disks(directories: Sequence[Path], *, mounts: bool) -> Iterator[list[Disk]]:
    """One for each directory, which exists and is empty; without `mounts` nothing is mounted."""
    with ExitStack() as mounted:
        found: list[Disk] = []
        for directory in directories:
            if mounts and _mount(directory):
                mounted.callback(_unmount, directory)
                found.append(SmallDisk(directory))
            else:
                found.append(FileLimit())
        yield found


def _mount(directory: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=0700", "dlrproxy-chaos", str(directory)]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:  # no mount command
        return False


def _unmount(directory: Path) -> None:
    # Lazily: who still looks at it must not keep it mounted.
    subprocess.run(["umount", "--lazy", str(directory)], check=True)
