"""One node of the demo: a real `dlrproxy run`, and the log that it writes."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

THIS_DLRPROXY = (sys.executable, "-m", "dlrproxy")
_TAIL_LINES = 12
_TAIL_BYTES = 64 * 1024


class NodeFailedError(Exception):
    """A node ended, or did not come up, though nobody asked it to. The message says which, and ends with its log."""


class NodeProcess:
    """Start it, kill it, start it again. Its standard output and error are appended to `log`."""

    def __init__(self, name: str, config: Path, log: Path, *, prefix: Sequence[str] = ()) -> None:
        """`prefix` is a command that runs the one which follows it, in its own place, such as nsenter."""
        self.name = name
        self.command: Sequence[str] = THIS_DLRPROXY  # of the next start
        self.log = log
        self.starts = 0
        self._config = config
        self._prefix = prefix
        self._process: trio.Process | None = None
        self._asked = ""  # what we did to end it

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ended(self) -> str:
        """`killed` or `stopped`, if we did that and it is no longer alive; else empty."""
        return "" if self.alive else self._asked

    async def run(self) -> None:
        """From start to end of the process; it does not outlive a cancellation.

        Raises NodeFailedError when it ends without `kill` or `stop`, OSError where it cannot be started.
        """
        self._asked = ""
        self.starts += 1
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C is for the demo, which ends the nodes itself.
            process = self._process = await trio.lowlevel.open_process(
                [*self._prefix, *self.command, "run", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                status = await process.wait()
        if not self._asked:
            raise NodeFailedError(self.failure(_ended(status)))

    def kill(self) -> None:
        """kill -9."""
        self._asked = "killed"
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """Ask it to end gracefully."""
        self._asked = "stopped"
        if self._process is not None:
            self._process.terminate()

    @property
    def pid(self) -> int | None:
        """While it is alive."""
        return self._process.pid if self._process is not None and self.alive else None

    def send(self, number: signal.Signals) -> None:
        """Any other signal, if it is alive."""
        if self._process is not None:
            self._process.send_signal(number)

    def failure(self, what: str) -> str:
        """What happened to this node, and the end of its log."""
        lines = _tail(self.log)
        if not lines:
            return f"Node {self.name} {what}; its log is empty."
        return "\n  ".join((f"Node {self.name} {what}. The end of its log:", *lines))


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended by itself, with exit status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"was ended by signal {-status}"


def _tail(log: Path) -> list[str]:
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]


class LogReader:
    """The lines that a growing file has had since it was last asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_lines(self) -> Iterator[bytes]:
        """Whole lines only; none while there is no file."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # the rest is still to be written
                    return
                self._offset += len(line)
                yield line
