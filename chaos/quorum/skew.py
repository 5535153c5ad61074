"""Processes whose wall clock is ahead of this machine's, or behind; their monotonic clock is left alone."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

_LIBRARIES: Final = "*/faketime/libfaketimeMT.so.1"
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - where the kernel has it
_LEFT: Final = re.compile(r"(?:sem\.faketime_sem|faketime_shm)_(\d+)")


class NoFaketimeError(Exception):
    """What moves the clocks of processes is not installed."""


def ahead(seconds: float) -> tuple[str, ...]:
    """A command that runs the one which follows it, in its own place, with another wall clock.

    Raises NoFaketimeError.
    """
    if not seconds:
        return ()
    library = next(Path("/usr/lib").glob(_LIBRARIES), None)
    if library is None:
        raise NoFaketimeError("libfaketime is missing: apt-get install libfaketime")
    return ("env", f"LD_PRELOAD={library}", f"FAKETIME={seconds:+g}s", "FAKETIME_DONT_FAKE_MONOTONIC=1")


def tidy() -> None:
    """Remove the shared memory of processes that are gone: the library leaves it behind whenever one is killed."""
    for path in _SHARED_MEMORY.glob("*faketime_*"):
        if (found := _LEFT.fullmatch(path.name)) and not _lives(int(found[1])):
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
