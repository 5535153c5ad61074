"""A node of an active-passive pair: it looks at both database servers all the time, and serves while it is the active.

Its driver decides with the pure machine of `replication.py`. A term of service only while it is active: a standby
holds no bind and no listener. In a term the node is a ring of one: there is nobody else to ask for the owner of a
report.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from attrs import evolve

from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.config import Config, Join, Pair
from dlrproxy.config.accounts import admin, ordinary, peer_admin, peer_ordinary
from dlrproxy.config.changes import changes
from dlrproxy.config.database import Database
from dlrproxy.log_sink import Sink
from dlrproxy.modes.intermittent import IntermittentNode, Task, close_with
from dlrproxy.modes.pair import PairSettings, Role, Safety
from dlrproxy.modes.pair_driver import PairDriver
from dlrproxy.modes.pair_status import pair_status
from dlrproxy.modes.witness_link import witness_of
from dlrproxy.state_file import Service
from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.journal import Journal
from dlrproxy.store.sql.errors import SqlError
from dlrproxy.store.sql.homecoming import bring_home_elsewhere
from dlrproxy.store.sql.replication import Replication
from dlrproxy.store.sql.store import open_sql

if TYPE_CHECKING:
    from dlrproxy.store.sql.behind import LogPosition

MEASURE_S: Final = 2.0
HAND_OVER_S: Final = 10.0  # for the own server to become read-only, and to be seen so


class PairNode(IntermittentNode[PairDriver]):
    """Run it once. When it stops as the active, it hands over."""

    def __init__(self, config: Config, sink: Sink | None = None) -> None:
        """`sink` is where route events go; None: nowhere."""
        self._pair, database = _tables(config)
        super().__init__(config, sink, database, name="pair", heartbeat_s=self._pair.heartbeat_s)
        self._logs: tuple[LogPosition, ...] = ()  # of the server that the other one replicates from
        self._peer = config.other_peers[0].name
        self._handing_over = False  # by `demote`; from that call on
        self._wanted_after: bool | None = None  # promoted again once it has handed over; True: forced
        self._demote_asked = trio.Event()

    # What it is told

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

    def _taken_over(self, wanted: Config) -> tuple[Config, Sequence[str]]:
        """A pair is of two nodes for as long as it runs."""
        live, needs = super()._taken_over(wanted)
        if changes(self.config, wanted).peers:
            needs = (*needs, "peers")
        return evolve(live, peers=self.config.peers), needs

    # What it shows

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
            journal_rows=self._journal_rows,
            logs=self._logs,
            witness_lends=driver.lent,
            out_of_reach=driver.out_of_reach,
        )

    # What it does

    async def _begin(self, stack: AsyncExitStack, journal: Journal) -> tuple[PairDriver, Sequence[Task]]:
        own, peer = self._servers(stack)
        driver = self._make_driver(own, peer)
        return driver, (
            partial(self._watch, driver),
            partial(self._measure, driver, own, peer),
            partial(self._follow_demotions, driver),
            partial(self._bring_journal_to_peer, driver, journal),
        )

    def _servers(self, stack: AsyncExitStack) -> tuple[Replication, Replication]:
        make = partial(
            Replication,
            me=self.config.node.name,
            strict=self._pair.safety == "strict",
            timeout_s=self._database.statement_timeout_s,
        )
        own, peer = make(admin(self.config)), make(peer_admin(self.config))
        for each in (own, peer):
            close_with(stack, each.close)
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

    def _as_served(self, config: Config) -> Config:
        """It is alone."""
        own = config.own_peer
        return evolve(config, peers=() if own is None else (own,), join=Join())

    async def _open_store(self) -> GroupedStore:
        return await open_sql(ordinary(self.config), self.clock.now, self._opening())

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
        await self._wind_down()
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
        if driver.machine.role is not Role.ACTIVE:
            return
        if _has_standby(driver):
            await self._hand_over(driver)
        else:
            await self._wind_down()

    # What others are to see

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
