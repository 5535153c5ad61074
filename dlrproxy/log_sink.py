"""Where log lines go: a file or stderr, one write a line, and nothing that happens to it stops the node."""

import os
import sys
from pathlib import Path

import orjson


class Sink:
    """Appends lines to a file or to stderr.

    A line that cannot be written (disk full, the reader of the pipe is gone) is given up and counted in `lost`; once
    writing works again, a line `log.lines_lost` says how many. Nothing is buffered, so a crash loses no line.
    """

    def __init__(self, file: Path | None) -> None:
        """None: stderr. Raises OSError when the file cannot be opened."""
        self.lost = 0
        self._unsaid = 0  # lost since it was last said
        self._torn = False  # the last write ended inside a line
        self._file = file
        self._descriptor = _opened(file)

    def msg(self, line: bytes) -> None:
        """structlog's name for it. `line` ends with a newline."""
        if self._unsaid:
            notice = orjson.dumps({"level": "warning", "event": "log.lines_lost", "count": self._unsaid}) + b"\n"
            if not self._written(notice):
                self._give_up()
                return
            self._unsaid = 0
        if not self._written(line):
            self._give_up()

    debug = info = warning = error = critical = exception = fatal = msg

    def reopen(self) -> None:
        """After the file was moved away. Raises OSError, and then goes on with the old one."""
        if self._file is not None:
            replaced, self._descriptor = self._descriptor, _opened(self._file)
            os.close(replaced)

    def close(self) -> None:
        os.close(self._descriptor)

    def _give_up(self) -> None:
        self.lost += 1
        self._unsaid += 1

    def _written(self, line: bytes) -> bool:
        rest = memoryview(b"\n" + line if self._torn else line)
        try:
            while rest:
                written = os.write(self._descriptor, rest)
                self._torn = written < len(rest)
                rest = rest[written:]
        except OSError:
            return False
        return True


def _opened(file: Path | None) -> int:
    if file is not None:
        return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    if sys.__stderr__ is None:  # closed before we started: its number may be a socket or a table by now
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    return os.dup(2)  # our own, so that nobody else's close makes its number mean another file
