"""The nodes' processes: started again when they end by themselves, as a service manager does, and what they tell."""

import json
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from dlrproxy.admin.client import Client
from dlrproxy.admin.parked import Done, Page, ParkedItem
from dlrproxy.admin.reach import Directory
from dlrproxy.admin.view import DrainState, NodeStatus
from dlrproxy.demo.node_process import LogReader, NodeFailedError, NodeProcess

_RESTART_S: Final = 1.0  # a service manager's wait
_ANSWER_S: Final = 10.0  # for the API; a busy node on a busy machine takes a while

LogEvent = dict[str, Any]


class NodeLog:
    """What a node has logged over all its starts. Counts, and the little that the judgement needs by name."""

    def __init__(self, path: Path, heard: Callable[[LogEvent], None] | None = None) -> None:
        """`heard` gets each event, once."""
        self.path = path
        self.events: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()  # events at level error
        self.superseded: set[str] = set()  # message ids whose intermediate report was kept back
        self.unexpected: list[str] = []  # lines that are no events: a traceback, an assertion of a library
        self._reader = LogReader(path)
        self._heard = heard

    def read(self) -> None:
        """Take in what is new."""
        for line in self._reader.new_lines():
            self._add(line)

    def _add(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            self.unexpected.append(line.decode("utf-8", "replace").rstrip())
            return
        self.events[event["event"]] += 1
        if event["level"] in ("error", "critical"):
            self.errors[event["event"]] += 1
        if event["event"] == "dlr.superseded":
            self.superseded.add(event["message_id"])
        if self._heard is not None:
            self._heard(event)


class Node:
    """One node. Everything but `status` and its like is synchronous."""

    def __init__(
        self,
        name: str,
        config: Path,
        data_dir: Path,
        log: Path,
        nursery: trio.Nursery,
        *,
        prefix: Sequence[str] = (),
        heard: Callable[[str, LogEvent], None] | None = None,
    ) -> None:
        """`prefix` is a command that runs the node's in its own place; `heard` gets what it logs, with its name."""
        self.name = name
        self.log = NodeLog(log, None if heard is None else partial(heard, name))
        self.failures: list[str] = []  # how it ended, where nobody had asked it to
        self._process = NodeProcess(name, config, log, prefix=prefix)
        self._client = Client(Directory(data_dir), _ANSWER_S)
        self._nursery = nursery
        self._keeping = trio.CancelScope()
        self._ended = trio.Event()

    def becomes(self, command: Sequence[str]) -> None:
        """Another `dlrproxy`, from its next start."""
        self._process.command = command

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def running(self) -> bool:
        """It listens and dials, as far as its log has been read."""
        return self._process.alive and self.log.events["node.running"] >= self._process.starts

    @property
    def starts(self) -> int:
        return self._process.starts

    def start(self) -> None:
        """Have it run, until `kill` or `stop`; when it ends by itself it is started again."""
        self._keeping = trio.CancelScope()
        self._ended = trio.Event()
        self._nursery.start_soon(self._keep, self._keeping, self._ended)

    async def _keep(self, scope: trio.CancelScope, ended: trio.Event) -> None:
        with scope:
            while not await self._has_run():
                await trio.sleep(_RESTART_S)
        ended.set()

    async def _has_run(self) -> bool:
        """From its start to its end; False where it ended by itself."""
        try:
            await self._process.run()
        except NodeFailedError as error:
            self.failures.append(str(error))
            return False
        finally:
            self.log.read()
            self.log.events["node.running"] = self._process.starts  # it may have ended before it was up
        return True

    async def kill(self) -> None:
        """kill -9; until it is gone."""
        self._process.kill()
        self._keeping.cancel()
        await self._ended.wait()

    async def stop(self, patience_s: float) -> bool:
        """SIGTERM; False, and kill -9, where it has not ended by then."""
        if not self._process.alive:  # it has ended by itself, and waits for its next start
            await self.kill()
            return True
        self._process.stop()
        with trio.move_on_after(patience_s):
            await self._ended.wait()
            return True
        await self.kill()
        return False

    def pause(self) -> None:
        self._process.send(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send(signal.SIGCONT)

    def hang_up(self) -> None:
        """Have it read its configuration again."""
        self._process.send(signal.SIGHUP)

    # Its API. All raise AdminError where the node cannot be asked now.

    async def status(self) -> NodeStatus:
        return await trio.to_thread.run_sync(self._client.get, "/status", NodeStatus)

    async def drain(self) -> DrainState:
        """Begin to drain, or ask how far it is."""
        return await trio.to_thread.run_sync(self._client.post, "/drain", DrainState, {"mode": "custody"})

    async def undrain(self) -> DrainState:
        """Put it back into service."""
        return await trio.to_thread.run_sync(self._client.post, "/undrain", DrainState, {})

    async def parked(self) -> list[ParkedItem]:
        found: list[ParkedItem] = []
        after: str | None = ""
        while after is not None:
            query: dict[str, str | float] = {"after": after, "limit": 1000}
            page = await trio.to_thread.run_sync(self._client.get, "/parked", Page, query)
            found += page.items
            after = page.next
        return found

    async def replay(self, keys: list[str]) -> int:
        """To the ring; how many."""
        done = 0
        for first in range(0, len(keys), 500):
            body = {"keys": keys[first : first + 500], "to": "ring"}
            done += (await trio.to_thread.run_sync(self._client.post, "/parked/replay", Done, body)).done
        return done
