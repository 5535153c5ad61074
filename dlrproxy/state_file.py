"""data_dir/state: what the node is and does in one line, for scripts that must not start an interpreter to ask.

    ROLE EPOCH SERVICE SINCE        active 7 serving 1763802000

SINCE is when that began, by the machine's clock in Unix seconds. The line is replaced whenever one of the words before
it changes, touched all the time that the node lives, and removed when the node ends in good order. So a reader judges
by its content and by its age.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Final

NAME: Final = "state"
MODE: Final = 0o644  # keepalived runs scripts as another user


class Service(StrEnum):
    """What the active node of a pair does, or one of a quorum that may serve; any other one is idle."""

    IDLE = "idle"
    SERVING = "serving"  # it listens
    STARTING = "starting"  # it does not listen yet, or cannot; the other node could take over
    STARTING_ALONE = "starting-alone"  # likewise, and no other node could


class StateFile:
    """Its methods block for a moment, and raise OSError."""

    def __init__(self, data_dir: Path, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells Unix seconds."""
        self._path = data_dir / NAME
        self._clock = clock
        self._written = ""
        self._removed = False
        self._turn = Lock()  # a `show` that nobody waits for any more may be under way when the node ends

    def show(self, role: str, epoch: int, service: Service) -> None:
        """It says so, and is as new as this moment; not once it was removed."""
        words = f"{role} {epoch} {service.value}"
        with self._turn:
            if self._removed:
                return
            if not self._written.startswith(f"{words} "):
                self._replace(f"{words} {int(self._clock())}\n")
            elif not self._touch():
                self._replace(self._written)

    def _touch(self) -> bool:
        """False when somebody has removed it."""
        try:
            os.utime(self._path)
        except FileNotFoundError:
            return False
        return True

    def _replace(self, line: str) -> None:
        unfinished = self._path.with_name(f"{NAME}.new")
        unfinished.write_text(line, "ascii")
        unfinished.chmod(MODE)
        unfinished.replace(self._path)
        self._written = line

    def remove(self) -> None:
        """For good."""
        with self._turn, suppress(FileNotFoundError):
            self._removed = True
            self._path.unlink()
