"""A processor of its own for each process, on a machine that has fewer: a part of one, and no more.

Where a proxy and its database servers share two cores, their messages a second are those of all of them together. With
a fifth of a core for the proxy and two fifths for each server none takes anything from another, as on machines of their
own with processors of a fifth of this one's speed. What does not become slower with them is the disk and the network.

By the cpu controller of Linux (cgroups, version 1 or 2), in groups of our own, which are removed at the end. They come
before whatever else wants the machine.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

# Short against a commit, and so against what a message waits. The kernel takes parts of 1 ms and more.
PERIOD_US: Final = 5_000
LEAST_SHARE: Final = 1_000 / PERIOD_US
_CONTROLLER: Final = Path("/sys/fs/cgroup")
_EMPTY_S: Final = 5.0  # a group can be removed once the kernel has let go of its last process


class NoControlError(Exception):
    """The cpu controller cannot be used here, and why."""


class Processors:
    """Made by `processors`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._groups: dict[int, Path] = {}

    def give(self, pid: int, share: float) -> None:
        """From now on all threads of the process together have so much of a processor. Raises NoControlError."""
        group = self._home / str(pid)
        try:
            group.mkdir()
            self._groups[pid] = group
            _come_first(group)
            _limit(group, share)
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise NoControlError(f"{group}: {error.strerror}") from error

    def periods(self, pid: int) -> tuple[int, int]:
        """In how many the process ran so far, and in how many of them it wanted more than it has."""
        said = dict(line.split() for line in (self._groups[pid] / "cpu.stat").read_text().splitlines())
        return int(said["nr_periods"]), int(said["nr_throttled"])

    def remove(self) -> None:
        for group in (*self._groups.values(), self._home):
            until = time.monotonic() + _EMPTY_S
            while group.exists() and time.monotonic() < until:
                with suppress(OSError):  # busy
                    group.rmdir()
                time.sleep(0.01)


@contextmanager
def processors(controller: Path = _CONTROLLER) -> Iterator[Processors]:
    """For as long as the block runs; every process in it must have ended by then. Raises NoControlError."""
    first_version = (controller / "cpu").is_dir()
    parent = controller / "cpu" if first_version else controller
    if not (parent / "cgroup.procs").exists():
        raise NoControlError(f"{parent} is no control group with a cpu controller")
    home = parent / f"dlrproxy-bench-{os.getpid()}"
    try:
        home.mkdir()
        if not first_version:
            (home / "cgroup.subtree_control").write_text("+cpu")
        _come_first(home)
    except OSError as error:
        with suppress(OSError):
            home.rmdir()
        raise NoControlError(f"{home} cannot be used: {error.strerror}; it takes root") from error
    given = Processors(home)
    try:
        yield given
    finally:
        given.remove()


def _come_first(group: Path) -> None:
    if (group / "cpu.weight").exists():
        (group / "cpu.weight").write_text("10000")
    else:
        (group / "cpu.shares").write_text("262144")


def _limit(group: Path, share: float) -> None:
    quota = round(share * PERIOD_US)
    if (group / "cpu.max").exists():
        (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
