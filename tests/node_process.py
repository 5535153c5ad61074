"""Whole dlrproxy processes: their TOML files, their start and end, and what they log.

    async with open_fleet(tmp_path, {"gw1": operator_port, "gw2": operator_port}) as fleet:
        await fleet.start()
        await fleet["gw1"].seen("operator.bound")
        fleet["gw1"].kill()

Nothing here sleeps: a node's output is read as it comes, and whoever waits for an event is told when it is there, or
that the process has ended, with the end of its log. Ports stay ours while a node is away.
"""

import json
import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from dlrproxy.demo.ports import LOOPBACK, reserved

OPERATOR = "acme"
SYSTEM_ID = "shop"
PASSWORD = "secret"
UP_S = 60.0  # a node comes up in one second when it has the machine to itself
TAIL = 25  # lines of a log in an error's text

THIS_DLRPROXY = (sys.executable, "-m", "dlrproxy")

# Waits that would only make a test long. Everything else is at its default.
SHORT = {
    "operators": {"reconnect_min_s": 0.1, "reconnect_max_s": 0.5},
    "ring": {"cluster": "test", "lap_timeout_s": 2, "retry_min_s": 0.5, "retry_max_s": 1},
    "custody": {"retry_min_s": 0.2, "retry_max_s": 1, "settle_retry_s": 0.5},
}

Event = dict[str, Any]
Settings = Mapping[str, Mapping[str, Any]]  # by table; the operator's under `operators`


class NodeEndedError(AssertionError):
    """A node ended, or did not do in time what was waited for. The text ends with its log."""


class NodeProcess:
    """One `dlrproxy run`, as often as it is started."""

    def __init__(self, name: str, config: Path, nursery: trio.Nursery, command: Sequence[str] = THIS_DLRPROXY) -> None:
        """It runs in the directory of its configuration."""
        self.name = name
        self.command = command
        self.config = config
        self.events: list[Event] = []  # of all starts
        self.said: list[str] = []  # lines that are no JSON: what a person reads
        self.starts = 0
        self._nursery = nursery
        self._process: trio.Process | None = None
        self._first = 0  # of this start, in `events`
        self._over = trio.Event()  # the process has ended, and all it wrote has been read
        self._over.set()
        self._news = trio.Event()
        self._asked_to_end = False
        self.was_killed = False

    @property
    def alive(self) -> bool:
        return not self._over.is_set()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Until it listens and dials."""
        await self.launch()
        await self.seen("node.running", within_s=UP_S)

    async def launch(self) -> None:
        """Start the process and wait for nothing."""
        assert not self.alive, f"{self.name} is running"
        self.starts += 1
        self._first = len(self.events)
        self._asked_to_end = False
        self._process = await trio.lowlevel.open_process(
            [*self.command, "run", str(self.config)],
            cwd=self.config.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._over = trio.Event()
        self._nursery.start_soon(self._follow, self._process, self._over)

    async def _follow(self, process: trio.Process, over: trio.Event) -> None:
        assert process.stdout is not None
        rest = b""
        try:
            async for data in process.stdout:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._add(line)
                self._tell()
            if rest:  # cut short by a kill
                self.said.append(rest.decode("utf-8", "replace"))
            await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            over.set()
            self._tell()

    def _add(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            self.events.append(event)
        else:
            self.said.append(line.decode("utf-8", "replace"))

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def mark(self) -> int:
        """For `seen(since=...)`: what has been logged so far does not count."""
        return len(self.events)

    def found(self, event: str, *, since: int | None = None, **fields: object) -> list[Event]:
        """The events of this start, or since a mark, that have this name and these fields."""
        first = self._first if since is None else since
        wanted = {"event": event, **fields}
        return [each for each in self.events[first:] if wanted.items() <= each.items()]

    async def seen(self, event: str, *, since: int | None = None, within_s: float = 100, **fields: object) -> Event:
        """Wait for such an event of this start, or since a mark; the first one. Raises NodeEndedError."""
        await self.until(lambda: bool(self.found(event, since=since, **fields)), f"{event} {fields or ''}", within_s)
        return self.found(event, since=since, **fields)[0]

    async def until(self, holds: Callable[[], bool], what: str, within_s: float = 100) -> None:
        """Wait until its log makes `holds` true. Raises NodeEndedError."""
        with trio.move_on_after(within_s):
            while not holds():
                if not self.alive:
                    raise NodeEndedError(self.story(f"ended ({self._status()}) before {what}"))
                await self._news.wait()
            return
        raise NodeEndedError(self.story(f"did not come to {what} within {within_s:.0f} s"))

    async def ended(self, within_s: float = 100) -> int:
        """Wait for its end: the exit status, negative for a signal."""
        with trio.move_on_after(within_s):
            await self._over.wait()
            self._asked_to_end = True  # the test knows
            assert self._process is not None
            assert self._process.returncode is not None
            return self._process.returncode
        raise NodeEndedError(self.story(f"did not end within {within_s:.0f} s"))

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._asked_to_end = True
        self.was_killed = True
        assert self._process is not None
        self._process.kill()
        assert await self.ended() == -signal.SIGKILL, self.story("ended before it was killed")

    def terminate(self) -> None:
        """SIGTERM."""
        self._asked_to_end = True
        assert self._process is not None
        self._process.terminate()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> None:
        """SIGTERM, and wait for an end in good order."""
        self.terminate()
        status = await self.ended()
        assert status == 0, self.story(f"ended ({status}) after SIGTERM")

    def check(self) -> None:
        """Raises NodeEndedError if it ended by itself, or met an error that nobody expected."""
        if self.starts and not self.alive and not self._asked_to_end:
            raise NodeEndedError(self.story(f"ended by itself ({self._status()})"))
        if any(line.startswith("Traceback") for line in self.said):
            raise NodeEndedError(self.story("said more than its log"))

    def story(self, what: str) -> str:
        lines = [json.dumps(event) for event in self.events[self._first :]][-TAIL:] + self.said[-TAIL:]
        return "\n  ".join((f"node {self.name} {what}; the end of its log:", *lines))

    def _status(self) -> str:
        return f"exit status {self._process.returncode}" if self._process is not None else "never started"


class Fleet:
    """The nodes of one cluster, on loopback."""

    def __init__(self, nodes: Mapping[str, NodeProcess], gateways: Mapping[str, int], links: Mapping[str, int]) -> None:
        self.nodes = nodes
        self.gateway_ports = gateways  # by node: where its gateway dials
        self.link_ports = links  # by node: where its peers dial

    def __getitem__(self, name: str) -> NodeProcess:
        return self.nodes[name]

    async def start(self, *names: str) -> None:
        """Start these nodes, or all; until they run and are linked to all that are alive then."""
        starting = [self.nodes[name] for name in names] or list(self.nodes.values())
        async with trio.open_nursery() as nursery:
            for node in starting:
                nursery.start_soon(node.start)
        for node in starting:
            for other in self.nodes.values():
                if other is not node and other.alive:
                    await node.seen("peer.up", peer=other.name, within_s=UP_S)

    async def stop(self) -> None:
        """SIGTERM to all that are alive, and wait for an end in good order."""
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                if node.alive:
                    nursery.start_soon(node.stop)


@asynccontextmanager
async def open_fleet(
    directory: Path,
    operators: Mapping[str, int],
    settings: Settings | None = None,
    command: Sequence[str] = THIS_DLRPROXY,
) -> AsyncIterator[Fleet]:
    """Nodes with their files below `directory`, none started; all are killed at the end.

    `operators`: by node, the port where it finds its operator. `settings` go over SHORT, by table. Besides tables:
    "only:gw1" holds tables for that node alone, "absent" the ports of peers that are in the table and not here.
    """
    names = list(operators)
    with reserved(2 * len(names)) as ports:
        gateways = dict(zip(names, ports[: len(names)], strict=True))
        links = dict(zip(names, ports[len(names) :], strict=True))
        async with trio.open_nursery() as nursery:
            nodes = {}
            for name in names:
                tables = tables_of(name, operators[name], gateways[name], links, settings or {})
                config = write_config(directory / f"{name}.toml", tables)
                nodes[name] = NodeProcess(name, config, nursery, command)
            yield Fleet(nodes, gateways, links)
            for node in nodes.values():
                node.check()
            nursery.cancel_scope.cancel()


def tables_of(
    name: str, operator_port: int, gateway_port: int, links: Mapping[str, int], settings: Settings
) -> dict[str, Any]:
    """A node's configuration, table by table, as TOML has it."""
    own = settings.get(f"only:{name}", {})

    def table(key: str, **fields: object) -> dict[str, Any]:
        return {**fields, **SHORT.get(key, {}), **settings.get(key, {}), **own.get(key, {})}

    operator = table(
        "operators",
        name=OPERATOR,
        host=LOOPBACK,
        port=operator_port,
        system_id=SYSTEM_ID,
        password=PASSWORD,
        system_type=name,
        listen=f"{LOOPBACK}:{gateway_port}",
    )
    peers = [{"name": peer, "url": f"ws://{LOOPBACK}:{port}"} for peer, port in links.items()]
    peers += [{"name": peer, "url": f"ws://{LOOPBACK}:{port}"} for peer, port in settings.get("absent", {}).items()]
    return {
        "node": table("node", name=name, data_dir=f"data-{name}", min_free_mb=16),
        "operators": [operator],
        "peers": peers,
        "ring": table("ring"),
        "join": table("join"),
        "custody": table("custody"),
        "mo": table("mo"),
    }


def write_config(path: Path, tables: Mapping[str, Any]) -> Path:
    """Write a TOML file; returns its path."""
    path.write_text("\n".join(_toml(tables)) + "\n")
    return path


def _toml(tables: Mapping[str, Any]) -> Iterable[str]:
    for name, value in tables.items():
        for table in value if isinstance(value, list) else [value]:
            yield f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
            yield from (f"{key} = {_toml_value(item)}" for key, item in table.items())


def _toml_value(value: object) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_toml_value, value)) + "]"
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return json.dumps(value)
