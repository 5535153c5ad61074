"""A node of an active-passive pair: it looks at both database servers all the time, and serves while it is the active.

For its whole life: the lock of its data directory, the admin API, the driver that decides with the pure machine of
`replication.py`, the state file. A term of service only while it is active: a standby holds no bind and no listener.
In a term the node is a ring of one: there is nobody else to ask for the owner of a report.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from attrs import evolve

from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.admin.server import serve
from dlrproxy.admin.view import Drain
from dlrproxy.clock import NodeClock
from dlrproxy.config import Config, Join, Pair
from dlrproxy.config.accounts import admin, ordinary, peer_admin, peer_ordinary
from dlrproxy.config.changes import ReloadRefusedError, changes, check_identity, taken_over
from dlrproxy.config.database import Database
from dlrproxy.log_sink import Sink
from dlrproxy.logs import RouteLog, logger
from dlrproxy.modes.pair import PairSettings, Role, Safety
from dlrproxy.modes.pair_driver import PairDriver
from dlrproxy.modes.pair_status import pair_status
from dlrproxy.modes.terms import Terms
from dlrproxy.modes.witness_link import witness_of
from dlrproxy.node_view import View
from dlrproxy.state_file import Service, StateFile
from dlrproxy.store.directory import free_bytes
from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.journal import Journal, open_journal
from dlrproxy.store.space import Space
from dlrproxy.store.sql.errors import SqlError
from dlrproxy.store.sql.homecoming import bring_home_elsewhere
from dlrproxy.store.sql.replication import Replication
from dlrproxy.store.sql.store import open_sql
from dlrproxy.term import Term

if TYPE_CHECKING:
    from dlrproxy.store.sql.behind import LogPosition
    from dlrproxy.store.sql.pool import Doubt

MEASURE_S: Final = 2.0
HAND_OVER_S: Final = 10.0  # for the own server to become read-only, and to be seen so
_RELEASES_S: Final = 25.0  # what a graceful end may take beyond drain_s: both sides are unbound one after the other


class PairNode:
    """Run it once."""

    def __init__(self, config: Config, sink: Sink | None = None) -> None:
        """`sink` is where route events go; None: nowhere."""
        self._pair, self._database = _tables(config)
        self.config = config
        self.clock = NodeClock()
        self.started = trio.Event()  # it looks at the servers, and can be asked
        self._terms = Terms(
            as_served(config),
            self._open_store,
            self.clock,
            RouteLog.of(config.log, config.node.name, sink),
            self._serve_until,
        )
        self._driver: PairDriver | None = None
        self._journal: Journal | None = None
        self._abandoned: list[Doubt] = []  # statements of terms that have ended: not to be done after what follows
        self._logs: tuple[LogPosition, ...] = ()  # of the server that the other one replicates from
        self._peer = config.other_peers[0].name
        self._state = StateFile(config.node.data_dir)
        self._stop = trio.Event()
        self._handing_over = False  # by `demote`; from that call on
        self._wanted_after: bool | None = None  # promoted again once it has handed over; True: forced
        self._demote_asked = trio.Event()
        self._log = logger("node")

    # What it is told

    def stop(self) -> None:
        """Begin to end gracefully: `run` returns within about `drain_s`. An active hands over."""
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
        """Take over as soon as that is safe; with `force` at once. Harmless where it is active already."""
        driver = self._running_driver()
        self._log.warning("pair.promote_asked", force=force, role=driver.machine.role.value)
        if self._handing_over:
            self._wanted_after = force or bool(self._wanted_after)
        else:
            driver.promote(force=force)
        return True

    def demote(self) -> bool:
        """Hand over: finish what is in flight, release, let the peer be promoted. Harmless where it is no active."""
        driver = self._running_driver()
        self._log.warning("pair.demote_asked", role=driver.machine.role.value)
        self._wanted_after = None
        if self._handing_over:
            return True
        if driver.machine.role is Role.ACTIVE:
            self._handing_over = True
            self._demote_asked.set()
        else:
            driver.demote()
        return True

    def look(self) -> bool:
        return False

    async def reload(self, config: Config) -> None:
        """As `Term.reload`; without a term it counts for the next one."""
        check_identity(self.config, config)
        await self.started.wait()
        if self._stop.is_set():
            raise ReloadRefusedError(["the node is stopping"])
        # What a term cannot take over while it runs the next one must not either: it would be half a restart.
        wanted = evolve(taken_over(self.config, config), operators=config.operators, peers=self.config.peers)
        found = changes(self.config, config)
        needs = (*found.needs_restart, "peers") if found.peers else found.needs_restart
        if not await self._terms.reload(as_served(wanted)):
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

    def quorum(self) -> None:
        """It is of none."""

    def pair(self) -> PairStatus:
        driver = self._running_driver()
        return pair_status(
            driver.machine,
            driver.own,
            driver.peer,
            trio.current_time(),
            pair=self._pair,
            peer=self._peer,
            serving=self.term is not None and self.term.started.is_set(),
            journal_rows=0 if self._journal is None else self._journal.size,
            logs=self._logs,
            witness_lends=driver.lent,
            out_of_reach=driver.out_of_reach,
        )

    def _running_driver(self) -> PairDriver:
        if self._driver is None:
            raise AssertionError("asked before it runs")
        return self._driver

    # What it does

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until stopped. Raises StoreError, and OSError or ValueError for what makes a start impossible.

        Started when it looks at the servers and can be asked, whatever its role.
        """
        async with AsyncExitStack() as stack:
            self._journal = journal = await open_journal(self.config.node.data_dir)
            stack.push_async_callback(_shielded, journal.close)
            own, peer = self._servers(stack)
            self._driver = driver = self._make_driver(own, peer)
            async with trio.open_nursery() as nursery:
                await nursery.start(self._terms.run)
                await nursery.start(partial(serve, View(self), self.config, logger("admin")))
                nursery.start_soon(driver.run)
                nursery.start_soon(self._keep_state, driver)
                nursery.start_soon(self._watch, driver)
                nursery.start_soon(self._measure, driver, own, peer)
                nursery.start_soon(self._follow_demotions, driver)
                nursery.start_soon(self._bring_journal_to_peer, driver, journal)
                self._log.info("node.running", mode=self.config.node.mode, nodes=list(self.config.node_names))
                self.started.set()
                task_status.started()
                await self._stop.wait()
                await self._end(driver)
                nursery.cancel_scope.cancel()
            await trio.to_thread.run_sync(self._state.remove)
        self._log.info("node.stopped")

    def _servers(self, stack: AsyncExitStack) -> tuple[Replication, Replication]:
        make = partial(
            Replication,
            me=self.config.node.name,
            strict=self._pair.safety == "strict",
            timeout_s=self._database.statement_timeout_s,
        )
        own, peer = make(admin(self.config)), make(peer_admin(self.config))
        for each in (own, peer):
            stack.push_async_callback(_shielded, each.close)
        return own, peer

    def _make_driver(self, own: Replication, peer: Replication) -> PairDriver:
        config, pair = self.config, self._pair
        settings = PairSettings(
            me=config.node.name,
            safety=Safety(pair.safety),
            fence_after_s=pair.fence_after_s,
            promote_after_s=pair.promote_after_s,
            manage_database=pair.manage_database,
            witness=pair.witness is not None,
        )
        # Twice before the active would be fenced for not having seen its own server.
        reach_s = min(self._database.connect_timeout_s, pair.fence_after_s / 2)
        return PairDriver(
            settings,
            own,
            peer,
            self._terms,
            heartbeat_s=pair.heartbeat_s,
            reach_s=reach_s,
            witness=witness_of(config),
        )

    def _serve_until(self) -> float:
        return self._running_driver().machine.serve_until

    async def _open_store(self) -> GroupedStore:
        node, database = self.config.node, self._database
        return await open_sql(
            ordinary(self.config),
            self.clock.now,
            space=Space(node.data_dir, node.min_free_mb, free_bytes),
            connections=database.connections,
            statement_timeout_s=database.statement_timeout_s,
            journal=self._journal,
            journal_after_s=database.journal_after_s,
            doubts=self._abandoned,
        )

    async def _bring_journal_to_peer(self, driver: PairDriver, journal: Journal) -> None:
        """What this node, once active, told gateways of and its server does not have goes to the active of now."""
        await bring_home_elsewhere(
            journal,
            peer_ordinary(self.config),
            partial(self._peer_serves, driver),
            statement_timeout_s=self._database.statement_timeout_s,
        )

    def _peer_serves(self, driver: PairDriver) -> bool:
        """And this node does not, nor is about to."""
        if driver.serving or driver.machine.role in {Role.ACTIVE, Role.CATCHING_UP} or driver.peer is None:
            return False
        server = driver.peer.server
        at_least = max(driver.machine.epoch, 0 if driver.own is None else driver.own.server.epoch)
        return server.writable and server.replica is None and server.holder == self._peer and server.epoch >= at_least

    # Handing over

    async def _follow_demotions(self, driver: PairDriver) -> None:
        while True:
            await self._demote_asked.wait()
            self._demote_asked = trio.Event()
            await self._hand_over(driver)
            self._handing_over = False
            if self._wanted_after is not None:
                driver.promote(force=self._wanted_after)
                self._wanted_after = None

    async def _hand_over(self, driver: PairDriver) -> None:
        """Gracefully; returns when the peer may be promoted, or HAND_OVER_S after the end of service."""
        self._log.info("pair.handing_over", drain_s=self.config.node.drain_s)
        with trio.move_on_after(self.config.node.drain_s + _RELEASES_S):
            await self._terms.wind_down()
        driver.demote()
        with trio.move_on_after(HAND_OVER_S):
            await driver.looked()
            while driver.machine.role is Role.ACTIVE or (self._pair.manage_database and driver.machine.handing_over):
                await driver.looked()
            self._log.info("pair.handed_over", to=self._peer)
            return
        self._log.warning("pair.not_handed_over", waited_s=HAND_OVER_S, role=driver.machine.role.value)

    async def _end(self, driver: PairDriver) -> None:
        """Gracefully. Nothing is handed over where no peer could take it: then the next start goes on."""
        self._log.info("node.stopping", drain_s=self.config.node.drain_s, role=driver.machine.role.value)
        if driver.machine.role is not Role.ACTIVE:
            return
        if _has_standby(driver):
            await self._hand_over(driver)
        else:
            with trio.move_on_after(self.config.node.drain_s + _RELEASES_S):
                await self._terms.wind_down()

    # What others are to see

    async def _keep_state(self, driver: PairDriver) -> None:
        """In a thread: a disk that hangs must not keep the loop from fencing."""
        while True:
            shown = self._shown(driver)
            try:
                await trio.to_thread.run_sync(self._state.show, *shown, abandon_on_cancel=True)
            except OSError as error:
                self._log.error("pair.state_not_written", detail=str(error))
            with trio.move_on_after(self._pair.heartbeat_s):
                while self._shown(driver) == shown:
                    await driver.looked()

    def _shown(self, driver: PairDriver) -> tuple[str, int, Service]:
        status = self.pair()
        return status.role, status.epoch, _service(driver, serving=status.serving)

    async def _measure(self, driver: PairDriver, own: Replication, peer: Replication) -> None:
        """How long the primary's log is: for people, and apart from everything that must not wait."""
        while True:
            await trio.sleep(MEASURE_S)
            seen = driver.own
            source = peer if seen is not None and seen.server.replica is not None else own
            try:
                self._logs = await source.logs()
            except SqlError as error:
                self._logs = ()
                self._log.debug("pair.not_measured", error=str(error))

    async def _watch(self, driver: PairDriver) -> None:
        """Say when the active is without protection, and when it has it again."""
        degraded = False
        while True:
            await driver.looked()
            status = self.pair()
            if status.degraded and not degraded:
                self._log.warning("pair.unprotected", peer=self._peer, safety=status.safety)
            elif degraded and not status.degraded and status.role == "active":
                self._log.info("pair.protected", peer=self._peer)
            degraded = status.degraded


def as_served(config: Config) -> Config:
    """What a term of this node's is told: it is alone."""
    own = config.own_peer
    return evolve(config, peers=() if own is None else (own,), join=Join())


def _service(driver: PairDriver, *, serving: bool) -> Service:
    if driver.machine.role is not Role.ACTIVE:
        return Service.IDLE
    if serving:
        return Service.SERVING
    return Service.STARTING if _has_standby(driver) else Service.STARTING_ALONE


def _has_standby(driver: PairDriver) -> bool:
    """The other node's server receives what this one's commits: service can be handed over."""
    peer = driver.peer
    return peer is not None and peer.server.replica is not None and peer.server.replica.receiving


def _tables(config: Config) -> tuple[Pair, Database]:
    if config.pair is None or config.database is None:
        raise ValueError("a pair needs [pair] and [database]")
    return config.pair, config.database


async def _shielded(close: Callable[[], Awaitable[None]]) -> None:
    with trio.CancelScope(shield=True):
        await close()
