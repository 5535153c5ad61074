"""A whole quorum: three real servers of one Galera cluster, three node processes, an operator and three gateways.

    gateway gw1 --any--- node gw1 --- operator        a gateway dials the first node that listens for it,
                            |   \\                     its own first
                        server a -- server b ...

Only ledgers are believed. A fault is a method: it happens, is over when the method returns, and `episodes` says when.
"""

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import Final

import galera_cluster
import trio
from attrs import define, field
from node_process import OPERATOR, PASSWORD, SHORT, SYSTEM_ID, THIS_DLRPROXY, NodeProcess, write_config

from dlrproxy.admin.client import AdminError, Client
from dlrproxy.admin.parked import Page
from dlrproxy.admin.reach import Directory
from dlrproxy.admin.view import NodeStatus
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.simulator import ledger as events
from dlrproxy.simulator.gateway import Gateway
from dlrproxy.simulator.judge import examine
from dlrproxy.simulator.ledger import Ledger
from dlrproxy.simulator.operator import Operator
from dlrproxy.simulator.options import MOST_MESSAGES, GatewayOptions, OperatorOptions, Spread
from protocols.smpp import constants as c

NODES: Final = ("gw1", "gw2", "gw3")
SERVER_OF: Final = dict(zip(NODES, galera_cluster.NAMES, strict=True))
LONG_S: Final = 100.0  # for anything; a busy machine takes several times as long as an idle one
LOOK_S: Final = 0.1
# An answer is on its way for so long at most, and a fault may detain it for as long as it lasts.
ON_ITS_WAY_S: Final = 15.0

# Short, so that a schedule is; in the proportions of the defaults.
QUORUM: Final = {"heartbeat_s": 0.5, "fence_after_s": 5.0, "takeover_after_s": 8.0, "lease_s": 3.0}


class Turnstile:
    """Where a gateway dials: it is put through to the first node that listens."""

    def __init__(self, port: int, targets: list[int]) -> None:
        self._port = port
        self._targets = targets

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await trio.serve_tcp(self._put_through, self._port, host=LOOPBACK, task_status=task_status)

    async def _put_through(self, gateway: trio.SocketStream) -> None:
        async with gateway:
            for port in self._targets:
                with suppress(OSError):
                    node = await trio.open_tcp_stream(LOOPBACK, port)
                    async with node, trio.open_nursery() as nursery:
                        nursery.start_soon(_pass_on, gateway, node, nursery.cancel_scope)
                        nursery.start_soon(_pass_on, node, gateway, nursery.cancel_scope)
                    return


async def _pass_on(source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await target.send_all(data)
    scope.cancel()


@define
class Episode:
    """A fault, in seconds of the ledgers' clock."""

    what: str
    began: float
    ended: float = float("inf")


@define(eq=False)
class Scene:
    cluster: galera_cluster.Cluster
    nodes: dict[str, NodeProcess]
    data_dirs: dict[str, object]
    operator: Operator
    gateways: dict[str, Gateway]
    ledgers: dict[str, Ledger]
    operator_ledger: Ledger
    episodes: list[Episode] = field(factory=list)

    # What there is to see

    async def status(self, node: str) -> NodeStatus | None:
        """None: it cannot be asked."""
        client = Client(Directory(self.data_dirs[node]), 10.0)
        with suppress(AdminError):
            return await trio.to_thread.run_sync(client.get, "/status", NodeStatus)
        return None

    async def parked(self) -> dict[tuple[str, bool], list[str]]:
        """Message id and whether it is final: at which nodes, and why."""
        found: dict[tuple[str, bool], list[str]] = {}
        for name in NODES:
            client = Client(Directory(self.data_dirs[name]), 10.0)
            page = await trio.to_thread.run_sync(client.get, "/parked", Page, {"limit": 1000})
            for item in page.items:
                found.setdefault((item.message_id, item.final), []).append(f"{name} ({item.reason})")
        return found

    async def until(self, holds, what: str) -> None:
        with trio.move_on_after(LONG_S):
            while not await holds():  # noqa: ASYNC110 - what real processes lead to
                await trio.sleep(LOOK_S)
            return
        roles = {name: (status.quorum if (status := await self.status(name)) else None) for name in NODES}
        raise AssertionError(f"not {what} within {LONG_S:.0f} s: {roles}")

    async def serving(self, *names: str) -> None:
        """Until these, or all, serve and have their binds."""

        async def serve() -> bool:
            found = [await self.status(name) for name in names or NODES]
            return all(status is not None and not status.why_not_serving for status in found)

        await self.until(serve, f"serving: {names or NODES}")

    async def silent(self, name: str) -> None:
        """Until this one has let go of everything."""

        async def is_silent() -> bool:
            status = await self.status(name)
            return status is not None and status.quorum is not None and not status.quorum.serving

        await self.until(is_silent, f"silent: {name}")

    async def flowing(self) -> None:
        """Until each gateway has had an answer to a message that it sent after now."""
        since = {name: self._accepted(name) for name in NODES}

        async def flows() -> bool:
            return all(self._accepted(name) > since[name] + 5 for name in NODES)

        await self.until(flows, "messages flow")

    def _accepted(self, name: str) -> int:
        return sum(isinstance(event, events.Responded) and event.status == 0 for event in self.ledgers[name].events)

    # Faults

    @asynccontextmanager
    async def _fault(self, what: str) -> AsyncIterator[None]:
        episode = Episode(what, time.monotonic())
        self.episodes.append(episode)
        yield
        await self.serving()
        await self.flowing()
        episode.ended = time.monotonic()

    async def kill_database(self, name: str, away_s: float = 3.0) -> None:
        async with self._fault("kill -9 of a database"):
            await _in_thread(self.cluster.servers[SERVER_OF[name]].kill)
            await trio.sleep(away_s)
            await _in_thread(self.cluster.restart, SERVER_OF[name])

    async def kill_node(self, name: str, away_s: float = 3.0) -> None:
        async with self._fault("kill -9 of a node"):
            await self.nodes[name].kill()
            await trio.sleep(away_s)
            await self.nodes[name].start()

    async def kill_both(self, name: str, away_s: float = 12.0) -> None:
        """A machine; away for longer than takeover_after_s."""
        async with self._fault("kill -9 of a node and its database"):
            await self.nodes[name].kill()
            await _in_thread(self.cluster.servers[SERVER_OF[name]].kill)
            await trio.sleep(away_s)
            await _in_thread(self.cluster.restart, SERVER_OF[name])
            await self.nodes[name].start()

    async def isolate(self, name: str) -> None:
        async with self._fault("a database cut off from the others"):
            await _in_thread(self.cluster.isolate, SERVER_OF[name])
            await self.silent(name)
            await _in_thread(partial(self.cluster.isolate, SERVER_OF[name], isolated=False))

    async def kill_two(self, first: str, second: str) -> None:
        """The survivor lets go of everything, and all come back."""
        (survivor,) = set(NODES) - {first, second}
        async with self._fault("kill -9 of two databases of three"):
            for name in (first, second):
                await _in_thread(self.cluster.servers[SERVER_OF[name]].kill)
            await self.silent(survivor)
            await _in_thread(self.cluster.restart_dead)

    async def pause_database(self, name: str, for_s: float = 4.0) -> None:
        async with self._fault("a database stopped and continued"):
            server = self.cluster.servers[SERVER_OF[name]]
            server.pause()
            await trio.sleep(for_s)
            server.go_on()

    async def pause_node(self, name: str, for_s: float = 10.0) -> None:
        """For longer than takeover_after_s: it wakes up, and is no longer itself."""
        async with self._fault("a node stopped and continued"):
            self.nodes[name].send(signal.SIGSTOP)
            await trio.sleep(for_s)
            self.nodes[name].send(signal.SIGCONT)

    async def kill_all_databases(self) -> None:
        async with self._fault("kill -9 of all databases"):
            for server in self.cluster.servers.values():
                await _in_thread(server.kill)
            await _in_thread(self.cluster.restart_dead)

    async def restart_rolling(self) -> None:
        """One node at a time, in good order, as for an upgrade."""
        async with self._fault("a rolling restart"):
            for name in NODES:
                await self.nodes[name].stop()
                await self.nodes[name].start()
                await self.serving(name)

    async def replace(self, name: str, command: tuple[str, ...], *, and_server: bool = False) -> None:
        """Another release comes in a node's place, in good order; until it runs. It need not serve.

        With `and_server` its server is stopped and started meanwhile, in good order as well.
        """
        episode = Episode("a node replaced by one of another release", time.monotonic())
        self.episodes.append(episode)
        await self.nodes[name].stop()
        if and_server:
            await _in_thread(self._restart_server, SERVER_OF[name])
        self.nodes[name].command = command
        await self.nodes[name].start()
        episode.ended = time.monotonic()

    def _restart_server(self, name: str) -> None:
        self.cluster.servers[name].stop()
        self.cluster.servers[name].start()
        self.cluster.wait_synced(name, size=len(NODES))

    # The end

    async def rest(self) -> None:
        """No new messages; until everything is delivered or parked."""
        for gateway in self.gateways.values():
            gateway.make_no_more()

        async def rested() -> bool:
            found = [await self.status(name) for name in NODES]
            if any(status is None or status.custody is None or status.custody.items for status in found):
                return False
            if self.operator.summary().open or any(g.unanswered for g in self.gateways.values()):
                return False
            return not await _in_thread(self._on_the_way)

        await self.until(rested, "at rest")

    def _on_the_way(self) -> int:
        """Rows of custody in the inbox of a node that has not taken them yet: in no node's status."""
        server = self.cluster.servers[SERVER_OF[NODES[0]]]
        return int(server.sql("SELECT COUNT(*) FROM dlrproxy.items WHERE kind='inbox' AND content IS NOT NULL"))

    async def problems(self) -> list[str]:
        """Everything that must not be. Empty as it should be."""
        verdict, cases = examine(
            self.operator_ledger.events, {name: ledger.events for name, ledger in self.ledgers.items()}
        )
        parked = await self.parked()
        found = []
        missing = (*cases.lost, *cases.ownerless)
        overtaken = {
            event["message_id"]
            for node in self.nodes.values()
            for event in node.events
            if event["event"] == "dlr.superseded"
        }
        found += [
            f"lost: {case}"
            for case in missing
            if (case.message_id, case.final) not in parked and (case.final or case.message_id not in overtaken)
        ]
        found += [f"elsewhere: {case}" for case in cases.elsewhere]
        for case in cases.repeated:
            if not all(self._excused(first.t, second.t) for first, second in pairwise(case.received)):
                found.append(f"repeated: {case}")
        told = {(case.message_id, case.final) for case in missing if case.told}
        found += [f"parked twice: {key} {places}" for key, places in parked.items() if len(places) > 1]
        found += [
            f"parked, with an owner: {key} {places}"
            for key, places in parked.items()
            if key in told and not all("maybe_delivered" in place for place in places)
        ]
        if verdict.unexpected:
            found.append(f"{verdict.unexpected} that the operator never made")
        return found

    def _excused(self, first: float, second: float) -> bool:
        """A fault may have met the answer on its way."""
        return any(
            first <= episode.ended and episode.began <= first + ON_ITS_WAY_S and second >= first
            for episode in self.episodes
        )

    async def counted(self) -> str:
        """What the ledgers count."""
        parked = await self.parked()
        verdict, _ = examine(
            self.operator_ledger.events, {name: ledger.events for name, ledger in self.ledgers.items()}
        )
        return ", ".join(
            (
                f"{verdict.submitted:,} messages",
                f"{verdict.reports_sent:,} reports answered ESME_ROK",
                f"at no gateway {verdict.lost + verdict.ownerless}, of which parked {len(parked)}",
                f"elsewhere {verdict.delivered_elsewhere}",
                f"duplicates {verdict.duplicates} ({verdict.resent} of them sent again by the operator)",
            )
        )

    def outages(self) -> list[tuple[str, float]]:
        """Of each fault: the longest time that a gateway waited from one accepted message to the next, in seconds."""
        found = []
        for episode in self.episodes:
            worst = 0.0
            for ledger in self.ledgers.values():
                times = [
                    event.t
                    for event in ledger.events
                    if isinstance(event, events.Responded) and event.status == c.ESME_ROK
                ]
                for before, after in pairwise(times):
                    if after >= episode.began and before <= episode.ended:
                        worst = max(worst, after - before)
            found.append((episode.what, worst))
        return found


async def _in_thread(function, *args):
    return await trio.to_thread.run_sync(partial(function, *args))


@asynccontextmanager
async def quorum_scene(
    directory, *, rate: float = 60.0, seed: int = 1, cluster=None, quorum=None, command=THIS_DLRPROXY
) -> AsyncIterator[Scene]:
    """Everybody is up, and messages flow. No process outlives the block, but for a cluster that is given.

    `command` is the `dlrproxy` that makes the schema, and that the nodes run.
    """
    cluster = cluster or await trio.to_thread.run_sync(galera_cluster.shared_cluster)
    await _no_schema(cluster)
    with reserved(10 + 4 * len(NODES)) as ports:
        free = iter(ports)
        operator_port = next(free)
        listen = {node: {gateway: next(free) for gateway in NODES} for node in NODES}
        dialled = {gateway: next(free) for gateway in NODES}
        links = {node: next(free) for node in NODES}
        ledgers, operator_ledger = {name: Ledger() for name in NODES}, Ledger()
        async with trio.open_nursery() as nursery:
            nodes = {}
            for name in NODES:
                tables = _tables(name, cluster, operator_port, listen[name], links, quorum or {})
                nodes[name] = NodeProcess(name, write_config(directory / f"{name}.toml", tables), nursery, command)
            operator = Operator(_operator_options(operator_port, seed), operator_ledger)
            gateways = {
                name: Gateway(_gateway_options(name, dialled[name], rate / len(NODES), seed), ledgers[name])
                for name in NODES
            }
            scene = Scene(
                cluster, nodes, {name: directory / f"data-{name}" for name in NODES}, operator, gateways, ledgers,
                operator_ledger,
            )  # fmt: skip
            await nursery.start(operator.run)
            for name in NODES:
                order = sorted(NODES, key=lambda node, name=name: node != name)
                await nursery.start(Turnstile(dialled[name], [listen[node][name] for node in order]).run)
            await trio.run_process([*command, "db", "init", str(nodes[NODES[0]].config)], capture_stdout=True)
            async with trio.open_nursery() as starting:
                for node in nodes.values():
                    starting.start_soon(node.start)
            await scene.serving()
            for gateway in gateways.values():
                nursery.start_soon(gateway.run)
                await gateway.wait_bound()
            await scene.flowing()
            try:
                yield scene
            finally:
                for node in nodes.values():
                    if node.alive:
                        node.send(signal.SIGCONT)
                nursery.cancel_scope.cancel()


async def _no_schema(cluster) -> None:
    await trio.to_thread.run_sync(cluster.wait_synced)
    cluster.servers[cluster.names[0]].sql("DROP DATABASE IF EXISTS dlrproxy; CREATE DATABASE dlrproxy")


def _tables(name, cluster, operator_port, listen, links, quorum):
    return {
        "node": {"name": name, "mode": "quorum", "data_dir": f"data-{name}", "min_free_mb": 16, "drain_s": 5},
        "operators": [
            {
                "name": OPERATOR,
                "host": LOOPBACK,
                "port": operator_port,
                "system_id": SYSTEM_ID,
                "password": PASSWORD,
                "system_type": name,
                "listen": {gateway: f"{LOOPBACK}:{port}" for gateway, port in listen.items()},
                **SHORT["operators"],
            }
        ],
        "peers": [{"name": peer, "url": f"ws://{LOOPBACK}:{port}"} for peer, port in links.items()],
        "ring": SHORT["ring"],
        "custody": SHORT["custody"],
        "database": {
            "socket": cluster.servers[SERVER_OF[name]].socket,
            "user": "app",
            "password": "secret",
            "connect_timeout_s": 2.0,
        },
        "quorum": {**QUORUM, **quorum},
    }


def _operator_options(port, seed):
    return OperatorOptions(
        port=port,
        accounts={SYSTEM_ID: PASSWORD},
        spread=Spread.OTHER,
        misroute=0.7,
        enroute=0.2,
        delay_ms=(10.0, 2000.0),  # so that there is something in flight at any moment
        window=100,
        answer_timeout_s=10.0,
        retry_ms=300.0,
        max_retry_ms=2000.0,
        seed=seed,
    )


def _gateway_options(name, port, rate, seed):
    return GatewayOptions(
        port=port,
        name=name,
        system_id=SYSTEM_ID,
        password=PASSWORD,
        messages=MOST_MESSAGES,  # until it is told that there are enough
        rate=rate,
        resubmit_ms=300.0,
        response_timeout_s=15.0,
        enquire_link_s=3.0,
        reconnect_ms=(100.0, 500.0),
        give_up_s=float("inf"),
        linger_s=float("inf"),
        seed=seed,
    )
