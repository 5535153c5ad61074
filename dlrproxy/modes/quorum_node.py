"""A node of a quorum: it serves as long as its database server is in the quorum and certifies what it writes.

Its driver decides with the pure machines of `quorum.py` and `lease.py`. Each term of service begins with a claim of the
node's part of custody, whose epoch fences whatever a former term has left under way.
"""

import secrets
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import trio
from attrs import evolve

from dlrproxy.admin.quorum_view import QuorumStatus
from dlrproxy.config import Config, Join
from dlrproxy.config.accounts import ordinary
from dlrproxy.config.database import Database, Quorum
from dlrproxy.log_sink import Sink
from dlrproxy.modes.agreement import Agreement, settings_of
from dlrproxy.modes.cluster import SETTLE_S, QuorumSettings, Role
from dlrproxy.modes.intermittent import IntermittentNode, Task, close_with
from dlrproxy.modes.quorum_driver import QuorumDriver
from dlrproxy.modes.quorum_status import quorum_status
from dlrproxy.state_file import Service
from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.journal import Journal
from dlrproxy.store.sql.errors import FencedError
from dlrproxy.store.sql.galera import Galera
from dlrproxy.store.sql.store import open_shared

HOME: Final = "home"  # the file in data_dir that holds its id
_HOME_BYTES: Final = 16


class QuorumNode(IntermittentNode[QuorumDriver]):
    """Run it once."""

    def __init__(self, config: Config, sink: Sink | None = None) -> None:
        """`sink` is where route events go; None: nowhere."""
        self._quorum, database = _tables(config)
        super().__init__(
            config, sink, database, name="quorum", heartbeat_s=self._quorum.heartbeat_s, expires=self._is_master
        )
        self._agreement = Agreement(config.node.name, settings_of(config))
        self._opened = 0  # the epoch under which the store was opened last

    # What it is told

    def look(self) -> bool:
        """Look at the database server at once: somebody says that its state has changed."""
        self._running_driver().look()
        return True

    async def reload(self, config: Config) -> None:
        """As any node's; the others are told."""
        await super().reload(config)
        self._agreement.own = settings_of(self.config)

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
        if term is not None and term.keeper.inbox is not None:
            term.keeper.inbox.take_over()

    def linked(self) -> AbstractSet[str]:
        term = self._terms.term
        return frozenset() if term is None else term.ring.linked()

    def set_apart(self, nodes: AbstractSet[str]) -> None:
        term = self._terms.term
        if term is not None:
            term.ring.set_apart(nodes)

    # What it shows

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
            journal_rows=self._journal_rows,
            inbox=driver.inbox.waiting(now),
            clocks={} if self.term is None or self.term.clocks is None else self.term.clocks.apart,
            trouble=driver.trouble,
            apart=driver.apart,
        )

    def _is_master(self) -> bool:
        return self._running_driver().is_master

    # What it does

    async def _begin(self, stack: AsyncExitStack, journal: Journal) -> tuple[QuorumDriver, Sequence[Task]]:
        home = await trio.to_thread.run_sync(home_of, self.config.node.data_dir)
        return self._make_driver(home, stack), ()

    def _make_driver(self, home: bytes, stack: AsyncExitStack) -> QuorumDriver:
        quorum, name = self._quorum, self.config.node.name
        own = Galera(
            ordinary(self.config),
            name,
            home,
            timeout_s=self._database.statement_timeout_s,
            beat_timeout_s=quorum.fence_after_s,
        )
        close_with(stack, own.close)
        settings = QuorumSettings(
            me=name,
            home=home,
            fence_after_s=quorum.fence_after_s,
            takeover_after_s=quorum.takeover_after_s,
            lease_s=quorum.lease_s,
        )
        reach_s = min(self._database.connect_timeout_s, quorum.fence_after_s / 2)
        return QuorumDriver(
            settings, own, self, heartbeat_s=quorum.heartbeat_s, reach_s=reach_s, agreement=self._agreement
        )

    def _as_served(self, config: Config) -> Config:
        """Nobody needs summaries of what everybody has."""
        return evolve(config, ring=evolve(config.ring, summary_mb=0), join=Join())

    async def _open_store(self) -> GroupedStore:
        """Once in a term: what opens it again has lost it, and needs a new claim. Raises StoreError."""
        driver = self._running_driver()
        epoch = driver.serving
        if epoch == self._opened:
            driver.refused(epoch)
            raise FencedError(f"the term under epoch {epoch} is over")
        try:
            store = await open_shared(
                ordinary(self.config), self.clock.now, self.config.node.name, epoch, self._opening()
            )
        except FencedError:
            driver.refused(epoch)
            raise
        self._opened = epoch
        return store

    async def _end(self, driver: QuorumDriver) -> None:
        await self._wind_down()

    def _shown(self, driver: QuorumDriver) -> tuple[str, int, Service]:
        machine = driver.machine
        service = Service.IDLE
        if machine.role is Role.SERVING:
            listens = self.term is not None and self.term.started.is_set()
            service = Service.SERVING if listens else Service.STARTING
        return machine.role.value, machine.epoch, service


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
