"""SMPP peers that none of us wrote, each a process of its own, and a tap that records what passes on a connection.

The scripts are in tests/foreign; they take commands and tell events as JSON lines. A tap stands between such a peer and
a node and keeps every byte, so that what went in can be compared with what came out.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from protocols.smpp.framing import HEADER, split

HERE = Path(__file__).parent / "foreign"
NPM = Path(__file__).parents[1] / ".tools/npm/node_modules"
LOOPBACK = "127.0.0.1"

Event = dict[str, Any]


class PeerEndedError(AssertionError):
    """A foreign peer ended, or did not tell in time what was waited for. The text ends with what it said."""


class ForeignPeer:
    """One script; what it tells is in `events`."""

    def __init__(self, name: str, command: Sequence[str], nursery: trio.Nursery) -> None:
        self.name = name
        self.events: list[Event] = []
        self._command = command
        self._nursery = nursery
        self._said = bytearray()  # on standard error
        self._news = trio.Event()
        self._over = False
        self._process: trio.Process | None = None

    async def start(self) -> None:
        self._process = await trio.lowlevel.open_process(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._nursery.start_soon(self._follow, self._process)

    async def _follow(self, process: trio.Process) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_errors, process.stderr)
                rest = b""
                async for data in process.stdout:
                    *lines, rest = (rest + data).split(b"\n")
                    self.events += map(json.loads, lines)
                    self._tell()
            await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            self._over = True
            self._tell()

    async def _read_errors(self, stderr: trio.abc.ReceiveStream) -> None:
        async for data in stderr:
            self._said += data

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def do(self, what: str, **fields: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps({"do": what, **fields}).encode() + b"\n")

    async def seen(self, event: str, *, count: int = 1, within_s: float = 100, **fields: object) -> list[Event]:
        """Wait until it has told so many such events; all of them. Raises PeerEndedError."""
        wanted = {"event": event, **fields}
        with trio.move_on_after(within_s):
            while len(found := [each for each in self.events if wanted.items() <= each.items()]) < count:
                if self._over:
                    raise PeerEndedError(self._story(f"ended before {count} x {wanted}"))
                await self._news.wait()
            return found
        raise PeerEndedError(self._story(f"did not tell {count} x {wanted} within {within_s:.0f} s"))

    async def stop(self) -> None:
        """Ask it to end, and wait until it has, without an error."""
        await self.do("stop")
        with trio.fail_after(100):
            while not self._over:
                await self._news.wait()
        assert self._process is not None
        assert self._process.returncode == 0, self._story(f"ended with {self._process.returncode}")

    def _story(self, what: str) -> str:
        told = [json.dumps(event) for event in self.events[-10:]]
        return "\n  ".join((f"{self.name} {what}:", *told, self._said.decode("utf-8", "replace")[-2000:]))


def npm_command(script: str) -> list[str]:
    """What runs a script of tests/foreign that uses the npm packages; its first argument is where they are."""
    node = shutil.which("node")
    assert node, "node is missing: tests/system-packages.sh installs it"
    assert (NPM / "smpp").is_dir(), "the npm packages are missing: make .tools/npm/.ready"
    return [node, str(HERE / script), str(NPM)]


def npm_smsc(nursery: trio.Nursery, first_id: str) -> ForeignPeer:
    return ForeignPeer("npm smpp", [*npm_command("smsc.js"), first_id], nursery)


def smpp34_smsc(nursery: trio.Nursery, first_id: str, port: int) -> ForeignPeer:
    return ForeignPeer("smpp34's server", [sys.executable, str(HERE / "smsc_smpp34.py"), str(port), first_id], nursery)


def smpplib_esme(nursery: trio.Nursery, port: int, system_id: str, password: str) -> ForeignPeer:
    command = [sys.executable, str(HERE / "esme_smpplib.py"), str(port), system_id, password]
    return ForeignPeer("python-smpplib", command, nursery)


def smpp34_esme(nursery: trio.Nursery, port: int, system_id: str, password: str) -> ForeignPeer:
    command = [sys.executable, str(HERE / "esme_smpp34.py"), str(port), system_id, password]
    return ForeignPeer("smpp34's client", command, nursery)


class Tap:
    """Listens, dials `target` for whoever comes, and records both directions of all connections together."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._from_dialler = bytearray()
        self._from_target = bytearray()

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started with the port."""
        (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
        self.port = listener.socket.getsockname()[1]
        task_status.started(self.port)
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, dialler: trio.SocketStream) -> None:
        try:
            target = await trio.open_tcp_stream(LOOPBACK, self.target)
        except OSError:  # who dialled sees its connection end, as it would without us
            return
        async with target, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, dialler, target, self._from_dialler, nursery.cancel_scope)
            nursery.start_soon(self._pump, target, dialler, self._from_target, nursery.cancel_scope)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, record: bytearray, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                record += data
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass  # one end has gone: so does the other
        scope.cancel()

    def forget(self) -> None:
        """What has passed so far. Only while nothing is under way: a PDU may be half here."""
        for record in (self._from_dialler, self._from_target):
            record.clear()

    def from_dialler(self, command: int | None = None) -> list[bytes]:
        """The PDUs that the dialling side sent, in order; of one command_id or of all."""
        return _frames(self._from_dialler, command)

    def from_target(self, command: int | None = None) -> list[bytes]:
        """The PDUs that the listening side sent, in order; of one command_id or of all."""
        return _frames(self._from_target, command)


def _frames(record: bytearray, command: int | None) -> list[bytes]:
    frames, rest = split(bytes(record))
    assert not rest, "a PDU was cut short"
    return [frame for frame in frames if command is None or HEADER.unpack_from(frame)[1] == command]
