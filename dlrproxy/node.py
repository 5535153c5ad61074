"""A node of a ring: one term of service on the embedded store, for as long as the process lives."""

from functools import partial

import trio

from dlrproxy.admin.server import serve
from dlrproxy.admin.view import Drain
from dlrproxy.clock import NodeClock
from dlrproxy.config import Config
from dlrproxy.log_sink import Sink
from dlrproxy.logs import RouteLog, logger
from dlrproxy.mo.conversations import Conversations
from dlrproxy.node_view import View
from dlrproxy.release import RELEASE
from dlrproxy.store.rocks import open_rocks
from dlrproxy.term import Term


class Node:
    """Run it once."""

    def __init__(self, config: Config, sink: Sink | None = None) -> None:
        """`sink` is where route events go; None: nowhere."""
        self.clock = NodeClock()
        routes = RouteLog.of(config.log, config.node.name, sink)
        self.term = Term(config, self.clock, routes, Conversations(config.mo.conversation_s))
        self._log = logger("node")

    @property
    def config(self) -> Config:
        """What is in force."""
        return self.term.config

    @property
    def started(self) -> trio.Event:
        """It listens and dials."""
        return self.term.started

    @property
    def draining(self) -> Drain | None:
        return self.term.draining

    def pair(self) -> None:
        """It is of none."""

    def quorum(self) -> None:
        """Nor of a quorum."""

    def promote(self, *, force: bool) -> bool:
        return False

    def demote(self) -> bool:
        return False

    def look(self) -> bool:
        return False

    def stop(self) -> None:
        """Begin to end gracefully: `run` returns within about `drain_s`."""
        self.term.stop()

    def drain(self, mode: Drain) -> None:
        """Begin to take the node out of service. A second call changes nothing, but that "stop" follows "custody"."""
        self.term.drain(mode)

    def undrain(self) -> bool:
        """Put a node that drains, or has drained, back into service. False when it stops: that is not undone."""
        return self.term.undrain()

    async def reload(self, config: Config) -> None:
        """See `Term.reload`."""
        await self.term.reload(config)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until stopped. Raises StoreError, and OSError or ValueError for what makes a start impossible.

        They come in an ExceptionGroup. Started when the node listens and dials.
        """
        node = self.config.node
        store = await open_rocks(node.data_dir, self.clock.now, min_free_mb=node.min_free_mb)
        try:
            async with trio.open_nursery() as around:
                around.start_soon(store.run)
                show = partial(around.start, partial(serve, View(self), self.config, logger("admin")))
                async with trio.open_nursery() as nursery:
                    await nursery.start(partial(self.term.run, store, show))
                    self._say_that_it_runs()
                    task_status.started()
                self._log.info("node.stopped", custody=self.term.keeper.in_custody())
                around.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await store.close()

    def _say_that_it_runs(self) -> None:
        self._log.info(
            "node.running",
            release=RELEASE,
            mode=self.config.node.mode,
            operators=sorted(self.term.fronts),
            nodes=list(self.config.node_names),
            custody=self.term.keeper.in_custody(),
        )
