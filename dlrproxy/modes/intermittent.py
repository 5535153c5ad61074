"""A node that serves at times: what the nodes of a pair and of a quorum are, whatever decides when they serve.

For its whole life: the journal, which is the lock of its data directory too, the admin API, the driver of its mode's
machines, the state file. A term of service only while it may serve: without one it holds no bind and no listener.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import trio
from attrs import evolve

from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.admin.quorum_view import QuorumStatus
from dlrproxy.admin.server import serve
from dlrproxy.admin.view import Drain
from dlrproxy.clock import NodeClock
from dlrproxy.config import Config
from dlrproxy.config.changes import ReloadRefusedError, changes, check_identity, taken_over
from dlrproxy.config.database import Database
from dlrproxy.housekeeping import always
from dlrproxy.log_sink import Sink
from dlrproxy.logs import RouteLog, logger
from dlrproxy.modes.terms import Terms
from dlrproxy.node_view import View
from dlrproxy.release import RELEASE
from dlrproxy.state_file import Service, StateFile
from dlrproxy.store.directory import free_bytes
from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.journal import Journal, open_journal
from dlrproxy.store.space import Space
from dlrproxy.store.sql.store import Opening
from dlrproxy.term import Term

if TYPE_CHECKING:
    from dlrproxy.store.sql.pool import Doubt

_RELEASES_S: Final = 25.0  # what a graceful end may take beyond drain_s: both sides are unbound one after the other

Task = Callable[[], Awaitable[None]]


class Machine(Protocol):
    """What decides the node's role."""

    @property
    def role(self) -> StrEnum: ...

    @property
    def serve_until(self) -> float:
        """A time of trio's clock."""


class Driver(Protocol):
    """What runs it: `PairDriver`, `QuorumDriver`."""

    @property
    def machine(self) -> Machine: ...

    async def run(self) -> None: ...

    async def looked(self) -> None: ...


D = TypeVar("D", bound=Driver)


class IntermittentNode(ABC, Generic[D]):
    """Run it once. A mode's own node says how to begin and to end, and what is to be seen of it."""

    def __init__(
        self,
        config: Config,
        sink: Sink | None,
        database: Database,
        *,
        name: str,
        heartbeat_s: float,
        expires: Callable[[], bool] = always,
    ) -> None:
        """`sink` is where route events go; None: nowhere. `name` is what the mode's log events begin with.

        What others are to see is as old as `heartbeat_s` at the most. `expires`: see `Terms`.
        """
        self.config = config
        self.clock = NodeClock()
        self.started = trio.Event()  # it looks at its database, and can be asked
        self._database = database
        self._name = name
        self._heartbeat_s = heartbeat_s
        self._terms = Terms(
            self._as_served(config),
            self._open_store,
            self.clock,
            RouteLog.of(config.log, config.node.name, sink),
            self._serve_until,
            name=name,
            expires=expires,
        )
        self._driver: D | None = None
        self._journal: Journal | None = None
        self._abandoned: list[Doubt] = []  # statements of terms that have ended: not to be done after what follows
        self._state = StateFile(config.node.data_dir)
        self._stop = trio.Event()
        self._log = logger("node")

    # What a mode's own node says

    @abstractmethod
    def _as_served(self, config: Config) -> Config:
        """What a term of this node's is told."""

    def _taken_over(self, wanted: Config) -> tuple[Config, Sequence[str]]:
        """What of a new configuration counts while it runs, and the paths of what needs a restart."""
        return taken_over(self.config, wanted), changes(self.config, wanted).needs_restart

    @abstractmethod
    async def _begin(self, stack: AsyncExitStack, journal: Journal) -> tuple[D, Sequence[Task]]:
        """Its driver, and what is to run beside that. What must be closed at the end goes onto `stack`.

        Raises OSError, ValueError.
        """

    @abstractmethod
    async def _open_store(self) -> GroupedStore:
        """For a term. Raises StoreError."""

    @abstractmethod
    async def _end(self, driver: D) -> None:
        """Gracefully: return when nothing is served any more."""

    @abstractmethod
    def _shown(self, driver: D) -> tuple[str, int, Service]:
        """For the state file: role, epoch, service."""

    # What it is told

    def stop(self) -> None:
        """Begin to end gracefully: `run` returns within about `drain_s`."""
        self._stop.set()

    def drain(self, mode: Drain) -> None:
        """See `Term.drain`; "stop" in any role."""
        if mode == "stop":
            self.stop()
        elif self.term is not None:
            self.term.drain(mode)

    def undrain(self) -> bool:
        """Put a node that drains, or has drained, back into service. False when it stops: that is not undone."""
        return not self._stop.is_set() and (self.term is None or self.term.undrain())

    def promote(self, *, force: bool) -> bool:
        return False

    def demote(self) -> bool:
        return False

    def look(self) -> bool:
        return False

    async def reload(self, config: Config) -> None:
        """As `Term.reload`; without a term it counts for the next one."""
        check_identity(self.config, config)
        await self.started.wait()
        if self._stop.is_set():
            raise ReloadRefusedError(["the node is stopping"])
        # What a term cannot take over while it runs the next one must not either: it would be half a restart.
        live, needs = self._taken_over(config)
        wanted = evolve(live, operators=config.operators)
        if not await self._terms.reload(self._as_served(wanted)):
            self._log.info("config.reloaded", role=self._running_driver().machine.role.value)
        if needs:
            self._log.warning("config.needs_restart", keys=list(needs))
        self.config = wanted

    # What it shows

    @property
    def term(self) -> Term | None:
        """None while it does not serve."""
        return self._terms.term

    @property
    def draining(self) -> Drain | None:
        if self._stop.is_set():
            return "stop"
        return None if self.term is None else self.term.draining

    def pair(self) -> PairStatus | None:
        return None

    def quorum(self) -> QuorumStatus | None:
        return None

    @property
    def _journal_rows(self) -> int:
        return 0 if self._journal is None else self._journal.size

    def _running_driver(self) -> D:
        if self._driver is None:
            raise AssertionError("asked before it runs")
        return self._driver

    def _serve_until(self) -> float:
        return self._running_driver().machine.serve_until

    # What it does

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until stopped. Raises StoreError, and OSError or ValueError for what makes a start impossible.

        Started when it looks at its database and can be asked, whatever its role.
        """
        async with AsyncExitStack() as stack:
            self._journal = journal = await open_journal(self.config.node.data_dir)
            close_with(stack, journal.close)
            self._driver, beside = await self._begin(stack, journal)
            async with trio.open_nursery() as nursery:
                await nursery.start(self._terms.run)
                await nursery.start(partial(serve, View(self), self.config, logger("admin")))
                nursery.start_soon(self._driver.run)
                nursery.start_soon(self._keep_state, self._driver)
                for task in beside:
                    nursery.start_soon(task)
                node = self.config.node
                self._log.info("node.running", release=RELEASE, mode=node.mode, nodes=list(self.config.node_names))
                self.started.set()
                task_status.started()
                await self._stop.wait()
                role = self._driver.machine.role.value
                self._log.info("node.stopping", drain_s=self.config.node.drain_s, role=role)
                await self._end(self._driver)
                nursery.cancel_scope.cancel()
            await trio.to_thread.run_sync(self._state.remove)
        self._log.info("node.stopped")

    def _opening(self) -> Opening:
        """How a term's store is opened."""
        node, database = self.config.node, self._database
        return Opening(
            space=Space(node.data_dir, node.min_free_mb, free_bytes),
            connections=database.connections,
            statement_timeout_s=database.statement_timeout_s,
            journal=self._journal,
            journal_after_s=database.journal_after_s,
            doubts=self._abandoned,
        )

    async def _wind_down(self) -> None:
        """End the term gracefully; not that much longer than `drain_s`."""
        with trio.move_on_after(self.config.node.drain_s + _RELEASES_S):
            await self._terms.wind_down()

    async def _keep_state(self, driver: D) -> None:
        """In a thread: a disk that hangs must not keep the loop from fencing."""
        while True:
            shown = self._shown(driver)
            try:
                await trio.to_thread.run_sync(self._state.show, *shown, abandon_on_cancel=True)
            except OSError as error:
                self._log.error(f"{self._name}.state_not_written", detail=str(error))
            with trio.move_on_after(self._heartbeat_s):
                while self._shown(driver) == shown:
                    await driver.looked()


def close_with(stack: AsyncExitStack, close: Task) -> None:
    """At the end of `stack`, whether that is cancelled or not."""
    stack.push_async_callback(_shielded, close)


async def _shielded(close: Task) -> None:
    with trio.CancelScope(shield=True):
        await close()
