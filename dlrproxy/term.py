"""One term of service: everything that only a node which serves has, from an open store to the fronts.

    store          first up, last down: nothing is acknowledged without it; whoever begins the term opens and runs it
    custody, ring  what was on disk is restored before anything new comes
    fronts         the operators' binds and the gateways' listeners, last up and first down

On `stop` the other nodes are told, and get what is in custody and can be delivered from there as well; MT are refused;
what is in flight is finished; the binds are released; the gateways are unbound (`leaving.py`); what is left in custody
stays in the store for the next term.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import trio
from attrs import evolve

from dlrproxy import leaving
from dlrproxy.admin.view import Drain
from dlrproxy.clock import NodeClock
from dlrproxy.clocks import Clocks
from dlrproxy.collector import at_rest
from dlrproxy.config import Config
from dlrproxy.config.changes import Changes, ReloadRefusedError, changes, check_identity, taken_over
from dlrproxy.config.operator import Operator
from dlrproxy.custody import Keeper
from dlrproxy.failures import leaves
from dlrproxy.front import Front
from dlrproxy.housekeeping import Housekeeping, always, learned_rules, next_run, read_clock, write_rule
from dlrproxy.keeping.intake import Intake
from dlrproxy.logs import RouteLog, logger
from dlrproxy.mo.conversations import Conversations
from dlrproxy.mo.routing import MoRouting
from dlrproxy.modes import ring
from dlrproxy.relay import Relay
from dlrproxy.sessions.licence import Licence
from dlrproxy.store.counting import count_rows
from dlrproxy.store.port import Store, Table
from dlrproxy.store.shared import GroupedSharedStore
from protocols.smpp.message_ids import Change, Learner, Rule
from ring.custody import Custody as Machine
from ring.tls import TlsError


class Term:
    """Run it once."""

    def __init__(
        self,
        config: Config,
        clock: NodeClock,
        routes: RouteLog,
        conversations: Conversations,
        licence: Licence | None = None,
        *,
        expires: Callable[[], bool] = always,
    ) -> None:
        """Clock, routes and conversations may be those of an earlier term of the same process. Without a `licence` it
        may always serve. `expires`: whether it deletes open messages whose time is up."""
        self._expires = expires
        self._licence = licence
        self.config = config
        self.clock = clock
        self.fronts: dict[str, Front] = {}
        self.draining: Drain | None = None
        self.started = trio.Event()  # it listens and dials
        self.clocks: Clocks | None = None  # of a cluster
        self._routes = routes
        self._conversations = conversations
        self._drain_asked = trio.Event()
        self._out_of_service: trio.CancelScope | None = None  # cancelled to put the node back
        self._one_reload = trio.Lock()
        self._reload_scope: trio.CancelScope | None = None
        self._log = logger("node")
        self._stop = trio.Event()
        self._nodes = config.serving_nodes
        self._alone = not config.other_peers
        self._policies = ring.policies(config)
        self._settings = ring.custody_settings(config, self._policies)

    def stop(self) -> None:
        """Begin to end gracefully: `run` returns within about `drain_s`."""
        self.draining = "stop"
        self._stop.set()
        if self._reload_scope is not None:
            self._reload_scope.cancel()

    def drain(self, mode: Drain) -> None:
        """Begin to take the node out of service. A second call changes nothing, but that "stop" follows "custody"."""
        if mode == "stop":
            self.stop()
        elif self.draining is None:
            self.draining = mode
            self._drain_asked.set()

    def undrain(self) -> bool:
        """Put a node that drains, or has drained, back into service. False when it stops: that is not undone."""
        if self.draining == "stop":
            return False
        self.draining = None
        if self._out_of_service is not None:
            self._out_of_service.cancel()
        return True

    async def run(
        self,
        store: Store,
        beside: Callable[[], Awaitable[object]] | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Until stopped. Raises StoreError, and OSError or ValueError for what makes a start impossible.

        They come in an ExceptionGroup. Started when it listens and dials. `Store.run` must be running. `beside` is
        called when custody and the ring are there, and the fronts are not.
        """
        self.clock.not_before(await read_clock(store))
        self.store = store
        if isinstance(store, GroupedSharedStore):
            self.clocks = Clocks(store, self.clock)
            await self.clocks.compare()
        self.housekeeping = Housekeeping(store, self.clock, self._routes, self._with_expired_events, self._expires)
        self.summaries = ring.summaries(self.config)
        self.keeper = await self._keeper(store)
        self.learners = await self._learners(store)
        for operator in self.config.operators:
            self.fronts[operator.name] = self._front(operator)
        self.ring = ring.RingMode(
            self.config,
            store,
            self.keeper,
            self.summaries,
            partial(_learned, self.learners),
            self._adopt,
            logger("ring"),
        )
        self._attach()
        async with trio.open_nursery() as inner:
            inner.start_soon(self.housekeeping.run)
            if self.clocks is not None:
                inner.start_soon(self.clocks.run)
            with at_rest():
                await self.keeper.restore()
            self._warn_of_custody_without_operator()
            inner.start_soon(self.keeper.run)
            if self.config.node.mode != "ring":
                inner.start_soon(Intake(store, self.keeper).run)
            await inner.start(self.ring.run)
            if beside is not None:
                await beside()
            async with trio.open_nursery() as outer:
                self._outer = outer
                for front in self.fronts.values():
                    await outer.start(front.run)
                outer.start_soon(self._follow_drains)
                self.started.set()
                task_status.started()
                await self._stop.wait()
                await leaving.wind_down(self.fronts, self.keeper, self.ring, self.config.node.drain_s)
                outer.cancel_scope.cancel()
            await self.ring.leave()
            inner.cancel_scope.cancel()

    async def _keeper(self, store: Store) -> Keeper:
        machine = Machine(
            topology=ring.topology(self.config),
            store_id=store.store_id,
            run=await next_run(store),
            settings=self._settings,
            parked=await count_rows(store, Table.PARKED),
            owners=self.summaries,
        )
        shared = store if isinstance(store, GroupedSharedStore) else None
        return Keeper(machine, store, self.clock, self._routes, shared)

    def _with_expired_events(self) -> frozenset[str]:
        return frozenset(operator.name for operator in self.config.operators if operator.expired_events)

    def _front(self, operator: Operator) -> Front:
        learner = self.learners[operator.name]
        relay = Relay(
            operator,
            self.store,
            self.keeper,
            learner,
            routes=self._routes,
            log=logger("relay", operator=operator.name),
            now=self.clock.now,
            learned=partial(self._rule_changed, operator.name, learner),
            mo=MoRouting(operator, self.config.mo, self._conversations, alone=self._alone),
            nodes=self._nodes,
            roaming=self._settings.cluster is not None,
            licence=self._licence,
        )
        return Front(relay, logger("smpp"))

    # What is learned of message ids

    async def _learners(self, store: Store) -> dict[str, Learner]:
        learners = {operator.name: _learner(operator) for operator in self.config.operators}
        for name, rule, evidence in await learned_rules(store):
            if name in learners:
                learners[name].adopt(rule, evidence)
        return learners

    def _rule_changed(self, operator: str, learner: Learner, change: Change) -> None:
        """This node has learned from its own traffic; the relay has logged it."""
        learned = learner.export()
        write_rule(self.store, operator, learned)
        if learned is not None:
            self.ring.learned(operator, *learned)

    def _adopt(self, operator: str, rule: Rule, evidence: int) -> None:
        """Another node has learned a rule."""
        learner = self.learners.get(operator)
        if learner is not None and (change := learner.adopt(rule, evidence)):
            self._log.info("message_id.rule_adopted", operator=operator, before=change.before, after=change.after)
            write_rule(self.store, operator, learner.export())

    # Reload

    async def reload(self, config: Config) -> None:
        """Take over other operators and peers; sessions of operators that stay as they are go on untouched.

        What cannot be taken over while running is named in the log, and counts from the next start. Waits until the
        node has started and an earlier reload is done; `stop` cuts it short. Raises ReloadRefusedError, TlsError,
        ValueError, and then nothing has changed.
        """
        async with self._one_reload:
            if self.draining == "stop":
                raise ReloadRefusedError(["the node is stopping"])
            with trio.CancelScope() as self._reload_scope:
                await self.started.wait()
                await self._reload(config)
            if self._reload_scope.cancelled_caught:
                self._log.warning("config.reload_cut_short", detail="the node is stopping")

    async def _reload(self, config: Config) -> None:
        check_identity(self.config, config)
        found = changes(self.config, config)
        await self.ring.reload(config)
        self._say_what_waits(config, found)
        self._policies.update(ring.policies(config))
        self._nodes = config.serving_nodes
        self._alone = not config.other_peers
        for front in self.fronts.values():
            front.renew_certificates()
            front.relay.share_among(self._nodes)
            front.relay.mo.reload(config.mo, alone=self._alone)
        await self._end_fronts((*found.removed, *(operator.name for operator in found.changed)))
        self._forget_policies(config)
        self.config = taken_over(self.config, config)
        self._note_operators(config)
        for operator in (*found.changed, *found.added):
            await self._begin_front(operator)
            self._note_operators(config)
        self._log.info(
            "config.reloaded",
            added=[operator.name for operator in found.added],
            changed=[operator.name for operator in found.changed],
            removed=list(found.removed),
            peers=found.peers,
            mo_rules=found.mo_rules,
        )

    def _say_what_waits(self, config: Config, found: Changes) -> None:
        needs = list(found.needs_restart)
        summaries_wait = self.summaries is None and config.other_peers and config.ring.summary_mb
        if summaries_wait and "ring.summary_mb" not in needs:
            needs.append("ring.summary_mb")  # of a node that was alone
        if ring.custody_settings(config, {}).watch_s > self._settings.watch_s:
            needs.append("operators.race_window_s")  # as forwarders of the others' reports use it: the longest
        if needs:
            self._log.warning("config.needs_restart", keys=needs)

    def _note_operators(self, config: Config) -> None:
        """Those that run; one that could not be started is tried again by the next reload."""
        operators = tuple(operator for operator in config.operators if operator.name in self.fronts)
        self.config = evolve(self.config, operators=operators)

    def _forget_policies(self, config: Config) -> None:
        """Of operators that are configured no more, but for those of which something is in custody: that waits."""
        wanted = {operator.name for operator in config.operators}
        in_custody = self.keeper.machine.by_operator()
        for name in self._policies.keys() - wanted:
            if count := in_custody[name]:
                self._log.warning("config.operator_still_in_custody", operator=name, count=count)
            else:
                del self._policies[name]

    def _warn_of_custody_without_operator(self) -> None:
        counts = self.keeper.machine.by_operator()
        if strays := {name: count for name, count in sorted(counts.items()) if name not in self._policies}:
            self._log.warning("node.custody_without_operator", operators=strays)

    async def _end_fronts(self, names: Iterable[str]) -> None:
        """Together, for they share one `drain_s`. They stay in `fronts` until all have ended: a stop ends them, too."""
        ending = [self.fronts[name] for name in names]
        deadline = trio.current_time() + self.config.node.drain_s
        async with trio.open_nursery() as nursery:
            for front in ending:
                nursery.start_soon(front.close, deadline)
        for front in ending:
            del self.fronts[front.name]
        self._attach()

    async def _begin_front(self, operator: Operator) -> None:
        known = self.learners.get(operator.name)
        learner = _learner(operator)
        if known is not None and (learned := known.export()) is not None:
            learner.adopt(*learned)
        self.learners[operator.name] = learner
        front = self._front(operator)
        if self.draining is not None:
            front.without_binds()
        problems: list[str] = []
        try:
            await self._outer.start(front.run)
        except* (OSError, TlsError) as group:
            problems = [str(error) for error in leaves(group)]
        if problems:
            self._log.error("config.operator_not_started", operator=operator.name, detail="; ".join(problems))
            return
        self.fronts[operator.name] = front
        self._attach()
        if self.draining is not None:  # since it was made
            front.relay.draining = True
            await front.release_binds()

    def _attach(self) -> None:
        self.keeper.attach({name: front.relay.hand_over for name, front in self.fronts.items()}, self.ring.send)

    # The end

    async def settle(self) -> None:
        """Refuse MT, and wait until everything that is in flight is answered; to be cancelled when that takes long."""
        await leaving.quiet(self.fronts, math.inf)

    async def release(self, why: str) -> None:
        """At once nothing more is sent or answered on any connection but unbind, and nobody is listened to.

        Returns within about GOODBYE_S, when the other ends have closed; `run` is to be cancelled then. Waits for no
        store. `why` is the reason that the connections' ends are logged with.
        """
        await leaving.release(self.fronts, why)

    async def _follow_drains(self) -> None:
        """Take the node out of service when it is asked to, and put it back when that is undone."""
        while True:
            await self._drain_asked.wait()
            self._drain_asked = trio.Event()
            if self.draining is None:
                continue  # undone before it began
            with trio.CancelScope() as self._out_of_service:
                await leaving.empty_custody(self.fronts, self.keeper, self.ring)
                await trio.sleep_forever()
            async with self._one_reload:  # which closes and opens fronts
                await leaving.serve_again(self.fronts, self.keeper, self.ring, self._stop.is_set)


def _learner(operator: Operator) -> Learner:
    return Learner(None if operator.message_id == "auto" else Rule(operator.message_id))


def _learned(learners: Mapping[str, Learner]) -> dict[str, tuple[Rule, int]]:
    exported = {operator: learner.export() for operator, learner in learners.items()}
    return {operator: learned for operator, learned in exported.items() if learned is not None}
