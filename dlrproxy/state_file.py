"""data_dir/state: the node's role in one line, "ROLE EPOCH", for scripts that must not start an interpreter to ask.

It is replaced whenever the role or the epoch changes, touched all the time that the node lives, and removed when the
node ends in good order. So a reader judges by its content and by its age.
"""

import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

NAME: Final = "state"
MODE: Final = 0o644  # keepalived runs scripts as another user


class StateFile:
    """Its methods block for a moment, and raise OSError."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / NAME
        self._written = ""
        self._removed = False
        self._turn = Lock()  # a `show` that nobody waits for any more may be under way when the node ends

    def show(self, role: str, epoch: int) -> None:
        """It says so, and is as new as this moment; not once it was removed."""
        line = f"{role} {epoch}\n"
        with self._turn:
            if not self._removed and (line != self._written or not self._touch()):
                self._replace(line)
                self._written = line

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

    def remove(self) -> None:
        """For good."""
        with self._turn, suppress(FileNotFoundError):
            self._removed = True
            self._path.unlink()
