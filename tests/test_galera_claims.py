"""Who may deliver a report is decided once, by a real Galera cluster, while nodes and its servers fail.

Three nodes, each with the custody and the store that ship and a server of its own, take reports for each other's
gateways. To claim one is to write down that it is being delivered; its gateway sees a delivery after that. The history
of all deliveries is checked: never do two nodes deliver the same report, whoever was taken over from meanwhile, and a
node delivers it twice only as it goes on after a restart of its own.
"""

import random
import time
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
from attrs import define, field
from galera_cluster import NAMES
from test_galera import a_cluster, in_thread

from dlrproxy.clock import NodeClock
from dlrproxy.custody import Keeper
from dlrproxy.custody_port import Accepted
from dlrproxy.housekeeping import next_run
from dlrproxy.logs import RouteLog
from dlrproxy.store.directory import free_bytes
from dlrproxy.store.port import StoreError
from dlrproxy.store.space import Space
from dlrproxy.store.sql import partition
from dlrproxy.store.sql.errors import FencedError, SqlError
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.store import Opening, open_shared
from protocols.peer.frames import VERSION
from protocols.smpp.constants import ESME_ROK
from protocols.smpp.message_ids import NoMatch
from ring.custody import Custody
from ring.rows import decode_parked
from ring.settings import ClusterSettings, CustodySettings, OperatorPolicy
from ring.topology import Topology

# So narrow that much is always being delivered, and more waits for that.
SETTINGS = CustodySettings(operators={"acme": OperatorPolicy()}, cluster=ClusterSettings(), delivery_window=4)
STATEMENT_TIMEOUT_S = 10.0
REPORTS = 240
AT_ONCE = 8
ANSWER_S = (0.05, 0.2)


@define
class History:
    """What can be seen from outside."""

    accepted: set[str] = field(factory=set)  # answered ESME_ROK
    deliveries: dict[str, list[tuple[str, int]]] = field(factory=lambda: defaultdict(list))  # node and epoch, by trace

    def check(self, parked: dict[str, str]) -> None:
        assert self.accepted
        for trace in self.accepted:
            deliveries = self.deliveries[trace]
            nodes = {node for node, _ in deliveries}
            assert len(nodes) < 2, f"{trace} was delivered by {deliveries}"
            assert len(deliveries) == len(set(deliveries)), f"{trace} was delivered twice in one term: {deliveries}"
            assert deliveries or parked.get(trace) == "maybe_delivered", f"{trace} was delivered by nobody"
            if trace in parked:
                assert parked[trace] == "maybe_delivered"


def gateways_of(node):
    following = NAMES[(NAMES.index(node) + 1) % len(NAMES)]
    return [f"gw-{node}", f"gw-{following}"]


class Relay:
    """Two gateways, each of which is bound at one more node, take everything. Implements `custody_port.Deliveries`."""

    def __init__(self, node, epoch, nursery, history):
        self._gateways = gateways_of(node)
        self._term = node, epoch
        self._nursery = nursery
        self._history = history

    def bound_gateways(self):
        return self._gateways

    def deliver(self, gateway, message_id, pdu, done, *, age_s=0.0):
        if gateway not in self._gateways:
            return False
        self._history.deliveries[pdu.decode()].append(self._term)
        self._nursery.start_soon(self._answer, done)
        return True

    async def _answer(self, done):
        await trio.sleep(random.uniform(*ANSWER_S))
        done(ESME_ROK)

    def wrap_up(self):
        pass

    def under_way(self, message_id):
        return False

    def finished(self, message_id):
        return False

    def conversing(self, pdu):
        return None

    async def find_owners(self, wanted):
        await trio.lowlevel.checkpoint()
        return [NoMatch()] * len(wanted)  # no open message is written here

    def close(self, message):
        pass


class Node:
    """Serves term after term, each under a new epoch."""

    def __init__(self, name, cluster, epochs, history, space):
        self.name = name
        self.keeper = None  # while it serves
        self.nodes = {}  # every node, this one included
        self.down = False
        self._cluster = cluster
        self._epochs = epochs
        self._history = history
        self._space = space
        self._scope = trio.CancelScope()
        self._clock = NodeClock(wall=time.time, monotonic=time.monotonic)

    async def run(self):
        while True:
            if not self.down:
                with suppress(SqlError):
                    await self._serve()
            await trio.sleep(0.05)

    async def _serve(self):
        self._epochs[self.name] += 1
        epoch = self._epochs[self.name]
        store = await open_shared(
            self._cluster.account(self.name), self._clock.now, self.name, epoch,
            Opening(space=self._space, connections=2, statement_timeout_s=STATEMENT_TIMEOUT_S))  # fmt: skip
        try:
            with trio.CancelScope() as self._scope:
                await self._term(store, epoch)
        except* StoreError:  # it was taken over from, or its server did not let it begin
            pass
        finally:
            self.keeper = None
            self._tell_reachable()
            with trio.CancelScope(shield=True):
                await store._backend.close()  # and not the store, which would write what it has left

    async def _term(self, store, epoch):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            machine = Custody(
                topology=Topology(NAMES, self.name), store_id=store.store_id, run=await next_run(store),
                settings=SETTINGS,
            )  # fmt: skip
            keeper = Keeper(machine, store, self._clock, RouteLog(self.name), store)
            keeper.attach({"acme": Relay(self.name, epoch, nursery, self._history)}, self._send)
            await keeper.restore()
            for gateway in gateways_of(self.name):
                keeper.gateway_bound("acme", gateway)
            nursery.start_soon(keeper.run)
            self.keeper = keeper
            self._tell_reachable()
            await trio.sleep_forever()

    def _send(self, to, frame):
        keeper = self.nodes[to].keeper
        if keeper is None:
            return False
        keeper.frames(self.name, [frame])
        return True

    def _tell_reachable(self):
        living = [name for name, node in self.nodes.items() if node.keeper is not None]
        for name in living:
            self.nodes[name].keeper.reachable({other: VERSION for other in living if other != name})

    def crash(self):
        """kill -9, and nobody starts it again before `down` is False."""
        self.down = True
        self._scope.cancel()


async def take_over(cluster, nodes, epochs, dead, heir):
    """As the master does it, until it is done or the dead node is back."""
    epochs[dead] += 1
    epoch = epochs[dead]
    pool = Pool(cluster.account(heir), 1, STATEMENT_TIMEOUT_S)
    while True:
        try:
            await partition.move(pool, dead, epoch, heir)
            break
        except FencedError:
            break
        except SqlError:
            await trio.sleep(0.1)
    await pool.close()
    if nodes[heir].keeper is not None:
        nodes[heir].keeper.inbox.look()


async def feed(nodes, history, choose, feeding):
    """The operator sends reports down any node that is there, each again under another name until it is answered."""
    while feeding[0] < REPORTS:
        feeding[0] += 1
        number, attempt, gateway = feeding[0], 0, f"gw-{choose.choice(NAMES)}"
        while not await offer(nodes, history, choose, gateway, f"r{number}.{attempt}"):
            attempt += 1


async def offer(nodes, history, choose, gateway, trace):
    living = [node for node in nodes.values() if node.keeper is not None]
    if not living:
        await trio.sleep(0.05)
        return False
    answered = trio.Event()
    taken = False

    def answer(durable):
        nonlocal taken
        taken = durable
        if durable:
            history.accepted.add(trace)
        answered.set()

    report = Accepted("acme", "dlr", trace.encode(), b"4479", trace.encode(), True, trace, designated=gateway)
    choose.choice(living).keeper.accept(report, answer)
    with trio.move_on_after(0.5):
        await answered.wait()
    return taken


@asynccontextmanager
async def three_nodes(tmp_path, history):
    async with a_cluster() as (cluster, _):
        epochs = dict.fromkeys(NAMES, 0)
        space = Space(tmp_path, 0, free_bytes)
        nodes = {name: Node(name, cluster, epochs, history, space) for name in NAMES}
        async with trio.open_nursery() as nursery:
            for node in nodes.values():
                node.nodes = nodes
                nursery.start_soon(node.run)
            await all_serve(nodes)
            yield cluster, nodes, epochs
            nursery.cancel_scope.cancel()


async def all_serve(nodes):
    with trio.fail_after(200):
        while any(node.keeper is None for node in nodes.values()):  # noqa: ASYNC110 - what real servers lead to
            await trio.sleep(0.05)


async def passed(feeding, share):
    """So much of the reports has been taken."""
    with trio.fail_after(200):
        while feeding[0] < share * REPORTS:  # noqa: ASYNC110 - likewise
            await trio.sleep(0.02)


async def at_rest(cluster, nodes):
    """Nothing is in custody any more; what is parked, by trace: why."""
    pool = Pool(cluster.account("a"), 1, STATEMENT_TIMEOUT_S)
    try:
        with trio.fail_after(200):
            while True:
                for node in nodes.values():
                    if node.keeper is not None:
                        node.keeper.inbox.look()
                held = await pool.run("SELECT 1 FROM items WHERE kind IN ('custody','inbox') AND content IS NOT NULL")
                if not held.rows:
                    break
                await trio.sleep(0.2)
        rows = (await pool.run("SELECT content FROM items WHERE kind='parked' AND content IS NOT NULL")).rows
        return {row.envelope.trace: row.reason for row in (decode_parked(content) for (content,) in rows)}
    finally:
        await pool.close()


@pytest.mark.parametrize(
    ("deliveries", "parked"),
    [
        ([], {}),
        ([], {"t": "refused"}),
        ([("a", 1), ("b", 1)], {}),
        ([("a", 1), ("a", 1)], {}),
        ([("a", 1)], {"t": "unclaimed"}),
    ],
)
def test_a_history_that_must_not_be_is_found(deliveries, parked):
    history = History(accepted={"t"})
    history.deliveries["t"] += deliveries
    with pytest.raises(AssertionError):
        history.check(parked)


@pytest.mark.timeout(400)
async def test_nodes_that_are_taken_over_from_dead_or_alive_deliver_each_report_from_one_node(tmp_path):
    history, choose, feeding = History(), random.Random(1), [0]
    async with three_nodes(tmp_path, history) as (cluster, nodes, epochs):
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(feed, nodes, history, choose, feeding)
            for number, (dead, heir) in enumerate((("a", "b"), ("b", "c"), ("c", "a"), ("a", "c"), ("b", "a"))):
                await passed(feeding, 0.15 * (number + 1))
                if number % 2:
                    nodes[dead].crash()
                await take_over(cluster, nodes, epochs, dead, heir)
                nodes[dead].down = False
        await all_serve(nodes)
        history.check(await at_rest(cluster, nodes))


@pytest.mark.timeout(400)
async def test_a_killed_and_an_isolated_server_change_nothing_of_that(tmp_path):
    history, choose, feeding = History(), random.Random(2), [0]
    async with three_nodes(tmp_path, history) as (cluster, nodes, epochs):
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(feed, nodes, history, choose, feeding)
            await passed(feeding, 0.2)
            await in_thread(cluster.servers["c"].kill)
            nodes["c"].crash()
            await take_over(cluster, nodes, epochs, "c", "a")
            await in_thread(cluster.restart, "c")
            await in_thread(cluster.wait_synced, "c", size=len(NAMES))
            nodes["c"].down = False
            await passed(feeding, 0.5)
            await in_thread(cluster.isolate, "b")
            await take_over(cluster, nodes, epochs, "b", "c")  # which goes on, and finds out
            await passed(feeding, 0.7)
            await in_thread(partial(cluster.isolate, "b", isolated=False))
            await in_thread(cluster.wait_synced, size=len(NAMES))
        await all_serve(nodes)
        history.check(await at_rest(cluster, nodes))
