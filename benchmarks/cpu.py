"""CPU time of other processes, and what a flush to disk takes."""

import ctypes
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

QUIET_S: Final = 0.05
QUIET_CPU_NS: Final = 3_000_000  # an idle node uses less than this in QUIET_S
SETTLE_S: Final = 3.0

_libc = ctypes.CDLL(None, use_errno=True)


def cpu_ns(pids: Sequence[int]) -> int:
    """Nanoseconds of CPU that the processes have used since they began, all threads, user and system.

    By the process's CPU clock (clock_getcpuclockid, POSIX.1-2008): the time that /proc/PID/stat shows as utime plus
    stime, without rounding to ticks of 10 ms. Raises ProcessLookupError when one of them has ended.
    """
    total = 0
    for pid in pids:
        clock = ctypes.c_int()
        if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)) != 0:
            raise ProcessLookupError(f"process {pid} has ended")
        total += time.clock_gettime_ns(clock.value)
    return total


def settled_cpu_ns(pids: Sequence[int]) -> int:
    """The same, once the processes are quiet: what follows the last receipt belongs to the messages too."""
    used = cpu_ns(pids)
    until = time.monotonic() + SETTLE_S
    while pids and time.monotonic() < until:
        time.sleep(QUIET_S)
        before, used = used, cpu_ns(pids)
        if used - before < QUIET_CPU_NS:
            break
    return used


def fsync_ms(directory: Path, times: int = 200) -> float:
    """The median of appending 4 KiB and fdatasync, in the directory's file system."""
    path = directory / "fsync"
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(bytes(4096))
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - begin) * 1000)
    path.unlink()
    return median(taken)
