"""A node of a quorum: it serves as long as its database server is in the quorum and certifies what it writes.

For its whole life: the journal, which is the lock of its data directory too, the admin API, the driver of the pure
machines (`quorum.py`, `lease.py`), the state file. A term of service only while it serves: each begins with a claim of
the node's part of custody, whose epoch fences whatever a former term has left under way.
"""

import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from attrs import evolve

from dlrproxy.admin.quorum_view import QuorumStatus
from dlrproxy.admin.server import serve
from dlrproxy.admin.view import Drain
from dlrproxy.clock import NodeClock
from dlrproxy.config import Config, Join
from dlrproxy.config.accounts import ordinary
from dlrproxy.config.changes import ReloadRefusedError, changes, check_identity, taken_over
from dlrproxy.config.database import Database, Quorum
from dlrproxy.log_sink import Sink
from dlrproxy.logs import RouteLog, logger
from dlrproxy.modes.cluster import SETTLE_S, QuorumSettings, Role
from dlrproxy.modes.quorum_driver import QuorumDriver
from dlrproxy.modes.quorum_status import quorum_status
from dlrproxy.modes.terms import Terms
from dlrproxy.node_view import View
from dlrproxy.state_file import Service, StateFile
from dlrproxy.store.directory import free_bytes
from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.journal import Journal, open_journal
from dlrproxy.store.space import Space
from dlrproxy.store.sql.errors import FencedError
from dlrproxy.store.sql.galera import Galera
from dlrproxy.store.sql.store import open_shared
from dlrproxy.term import Term

if TYPE_CHECKING:
    from dlrproxy.store.sql.pool import Doubt

HOME: Final = "home"  # the file in data_dir that holds its id
_HOME_BYTES: Final = 16
_RELEASES_S: Final = 25.0  # what a graceful end may take beyond drain_s: both sides are unbound one after the other


class QuorumNode:
    """Run it once."""

    def __init__(self, config: Config, sink: Sink | None = None) -> None:
        """`sink` is where route events go; None: nowhere."""
        self._quorum, self._database = _tables(config)
        self.config = config
        self.clock = NodeClock()
        self.started = trio.Event()  # it looks at its server, and can be asked
        self._terms = Terms(
            as_served(config),
            self._open_store,
            self.clock,
            RouteLog.of(config.log, config.node.name, sink),
            self._serve_until,
            name="quorum",
            expires=self._is_master,
        )
        self._driver: QuorumDriver | None = None
        self._journal: Journal | None = None
        self._abandoned: list[Doubt] = []  # statements of terms that have ended: not to be done after what follows
        self._opened = 0  # the epoch under which the store was opened last
        self._state = StateFile(config.node.data_dir)
        self._stop = trio.Event()
        self._log = logger("node")

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
        """Look at the database server at once: somebody says that its state has changed."""
        self._running_driver().look()
        return True

    def pair(self) -> None:
        """It is of none."""

    async def reload(self, config: Config) -> None:
        """As `Term.reload`; without a term it counts for the next one."""
        check_identity(self.config, config)
        await self.started.wait()
        if self._stop.is_set():
            raise ReloadRefusedError(["the node is stopping"])
        # What a term cannot take over while it runs the next one must not either: it would be half a restart.
        wanted = evolve(taken_over(self.config, config), operators=config.operators)
        needs = changes(self.config, config).needs_restart
        if not await self._terms.reload(as_served(wanted)):
            self._log.info("config.reloaded", role=self._running_driver().machine.role.value)
        if needs:
            self._log.warning("config.needs_restart", keys=list(needs))
        self.config = wanted

    # `Service`, for its driver

    async def serve(self, epoch: int) -> None:
        await self._terms.serve(epoch)

    async def release(self, why: str) -> None:
        """Answer for what operators have accepted, as long as the lease allows, then let go."""
        term = self._terms.term
        if term is not None:
            with trio.move_on_at(min(trio.current_time() + SETTLE_S, self._serve_until())):
                await term.settle()
        await self._terms.release(why)

    async def adopt(self) -> None:
        term = self._terms.term
        if term is not None:
            term.keeper.take_over()

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

    def quorum(self) -> QuorumStatus:
        driver, now = self._running_driver(), trio.current_time()
        return quorum_status(
            driver.machine,
            driver.master,
            driver.seen,
            now,
            me=self.config.node.name,
            nodes=self.config.node_names,
            quorum=self._quorum,
            serving=self.term is not None,
            is_master=driver.is_master,
            journal_rows=0 if self._journal is None else self._journal.size,
            inbox=driver.inbox.waiting(now),
            trouble=driver.trouble,
        )

    def _running_driver(self) -> QuorumDriver:
        if self._driver is None:
            raise AssertionError("asked before it runs")
        return self._driver

    def _is_master(self) -> bool:
        return self._running_driver().is_master

    def _serve_until(self) -> float:
        return self._running_driver().machine.serve_until

    # What it does

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until stopped. Raises StoreError, and OSError or ValueError for what makes a start impossible.

        Started when it looks at its server and can be asked, whatever its role.
        """
        async with AsyncExitStack() as stack:
            self._journal = journal = await open_journal(self.config.node.data_dir)
            stack.push_async_callback(_shielded, journal.close)
            home = await trio.to_thread.run_sync(home_of, self.config.node.data_dir)
            self._driver = driver = self._make_driver(home, stack)
            async with trio.open_nursery() as nursery:
                await nursery.start(self._terms.run)
                await nursery.start(partial(serve, View(self), self.config, logger("admin")))
                nursery.start_soon(driver.run)
                nursery.start_soon(self._keep_state, driver)
                self._log.info("node.running", mode=self.config.node.mode, nodes=list(self.config.node_names))
                self.started.set()
                task_status.started()
                await self._stop.wait()
                self._log.info("node.stopping", drain_s=self.config.node.drain_s, role=driver.machine.role.value)
                with trio.move_on_after(self.config.node.drain_s + _RELEASES_S):
                    await self._terms.wind_down()
                nursery.cancel_scope.cancel()
            await trio.to_thread.run_sync(self._state.remove)
        self._log.info("node.stopped")

    def _make_driver(self, home: bytes, stack: AsyncExitStack) -> QuorumDriver:
        quorum, name = self._quorum, self.config.node.name
        own = Galera(
            ordinary(self.config),
            name,
            home,
            timeout_s=self._database.statement_timeout_s,
            beat_timeout_s=quorum.fence_after_s,
        )
        stack.push_async_callback(_shielded, own.close)
        settings = QuorumSettings(
            me=name,
            home=home,
            fence_after_s=quorum.fence_after_s,
            takeover_after_s=quorum.takeover_after_s,
            lease_s=quorum.lease_s,
        )
        reach_s = min(self._database.connect_timeout_s, quorum.fence_after_s / 2)
        return QuorumDriver(settings, own, self, heartbeat_s=quorum.heartbeat_s, reach_s=reach_s)

    async def _open_store(self) -> GroupedStore:
        """Once in a term: what opens it again has lost it, and needs a new claim. Raises StoreError."""
        driver, node, database = self._running_driver(), self.config.node, self._database
        epoch = driver.serving
        if epoch == self._opened:
            driver.refused(epoch)
            raise FencedError(f"the term under epoch {epoch} is over")
        try:
            store = await open_shared(
                ordinary(self.config),
                self.clock.now,
                node.name,
                epoch,
                space=Space(node.data_dir, node.min_free_mb, free_bytes),
                connections=database.connections,
                statement_timeout_s=database.statement_timeout_s,
                journal=self._journal,
                journal_after_s=database.journal_after_s,
                doubts=self._abandoned,
            )
        except FencedError:
            driver.refused(epoch)
            raise
        self._opened = epoch
        return store

    async def _keep_state(self, driver: QuorumDriver) -> None:
        """In a thread: a disk that hangs must not keep the loop from fencing."""
        while True:
            shown = self._shown(driver)
            try:
                await trio.to_thread.run_sync(self._state.show, *shown, abandon_on_cancel=True)
            except OSError as error:
                self._log.error("quorum.state_not_written", detail=str(error))
            with trio.move_on_after(self._quorum.heartbeat_s):
                while self._shown(driver) == shown:
                    await driver.looked()

    def _shown(self, driver: QuorumDriver) -> tuple[str, int, Service]:
        machine = driver.machine
        service = Service.IDLE
        if machine.role is Role.SERVING:
            listens = self.term is not None and self.term.started.is_set()
            service = Service.SERVING if listens else Service.STARTING
        return machine.role.value, machine.epoch, service


def as_served(config: Config) -> Config:
    """What a term of this node's is told: nobody needs summaries of what everybody has."""
    return evolve(config, ring=evolve(config.ring, summary_mb=0), join=Join())


def home_of(data_dir: Path) -> bytes:
    """The id of a data directory, which is locked. Raises OSError."""
    path = data_dir / HOME
    try:
        found = bytes.fromhex(path.read_text("ascii"))
        if len(found) == _HOME_BYTES:
            return found
    except (FileNotFoundError, ValueError):
        pass
    made = secrets.token_bytes(_HOME_BYTES)
    unfinished = path.with_name(f"{HOME}.new")
    unfinished.write_text(made.hex(), "ascii")
    unfinished.replace(path)
    return made


def _tables(config: Config) -> tuple[Quorum, Database]:
    if config.database is None:
        raise ValueError("a quorum needs [database]")
    return config.quorum or Quorum(), config.database


async def _shielded(close: Callable[[], Awaitable[None]]) -> None:
    with trio.CancelScope(shield=True):
        await close()
