"""Who plays: three servers of one cluster, three nodes, an operator, and three gateways with their turnstiles."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import galera_cluster
import trio
from attrs import define, evolve, field, frozen

from chaos.disk import Disk, disks
from chaos.lines import Line
from chaos.nodes import Node
from chaos.plan import UNRULED
from chaos.quorum import configuration, skew
from chaos.quorum.configuration import (
    ACCOUNT,
    FENCE_AFTER_S,
    HEARTBEAT_S,
    NODES,
    PASSWORD,
    SYSTEM_ID,
    Ports,
    Settings,
)
from chaos.quorum.hearing import Hearing
from chaos.quorum.inboxes import Inboxes
from chaos.quorum.turnstile import Turnstile
from chaos.tireless import TIRELESS
from dlrproxy.admin.client import AdminError
from dlrproxy.admin.view import NodeStatus
from dlrproxy.demo.node_process import THIS_DLRPROXY
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.simulator import ledger as events
from dlrproxy.simulator.gateway import Gateway
from dlrproxy.simulator.ledger import Ledger
from dlrproxy.simulator.operator import Operator
from dlrproxy.simulator.options import GatewayOptions, MoOptions, OperatorOptions, Spread
from dlrproxy.store.sql import rights
from dlrproxy.store.sql.dialect import MARIADB
from dlrproxy.store.sql.rights import Need, Task
from protocols.smpp import constants as c

SERVER_OF: Final = dict(zip(NODES, galera_cluster.NAMES, strict=True))
# For anything; ten times what it takes on a machine that has nothing else to do.
LONG_S: Final = 150.0
_LOOK_S: Final = 0.1
_ASKED: Final = 5
_MO_SHARE: Final = 0.2  # MO for each message
_FLOWING: Final = 5  # messages of each gateway that are accepted
_STARVING_S: Final = 3 * HEARTBEAT_S
_SKEWS_S: Final = (5.0, 0.0, -5.0)  # of the nodes' and servers' clocks, where they are skewed


class NotInTimeError(Exception):
    """What was waited for has not come about. The text says how things stood."""


@define
class Episode:
    """A fault, in time.monotonic() seconds."""

    what: str
    touched: frozenset[str]  # nodes that were stopped, killed, or lost their server
    began: float
    ended: float = float("inf")
    restarted: frozenset[str] = frozenset()  # nodes that were stopped in good order


@frozen(eq=False, kw_only=True)
class Stage:
    """Everybody."""

    directory: Path
    cluster: galera_cluster.Cluster
    nodes: dict[str, Node]
    operator: Operator
    gateways: dict[str, Gateway]
    turnstiles: dict[str, Turnstile]
    hearing: Hearing
    inboxes: Inboxes
    lines: dict[str, Line]  # by node, to its server, if it does not use the socket
    disks: dict[str, Disk]  # by node, of its data directory
    skewed: bool
    episodes: list[Episode] = field(factory=list)

    @property
    def logs(self) -> list[Path]:
        return [node.log.path for node in self.nodes.values()]

    async def status(self, node: str) -> NodeStatus | None:
        """None: it cannot be asked."""
        with suppress(AdminError):
            return await self.nodes[node].status()
        return None

    async def on(self, node: str, what: str, *arguments: object) -> None:
        """Have something done to the server of a node: a method of `mariadb_server.Server`."""
        await trio.to_thread.run_sync(partial(getattr(self.cluster.servers[SERVER_OF[node]], what), *arguments))

    async def sql(self, node: str, statements: str) -> str:
        """Tell the server of a node, as its administrator. Raises RuntimeError."""
        return await trio.to_thread.run_sync(self.cluster.servers[SERVER_OF[node]].sql, statements)

    async def in_cluster(self, what: str, *arguments: object, **more: object) -> None:
        """Likewise a method of `galera_cluster.Cluster`."""
        await trio.to_thread.run_sync(partial(getattr(self.cluster, what), *arguments, **more))

    async def server_ahead_s(self, node: str) -> float:
        """The wall clock of a node's server, against this process's; never too much. Raises RuntimeError."""
        sql = self.cluster.servers[SERVER_OF[node]].sql
        found = []
        for _ in range(_ASKED):  # an answer that takes its time makes it too little
            said = float(await trio.to_thread.run_sync(sql, "SELECT UNIX_TIMESTAMP(NOW(6))"))
            found.append(said - time.time())
        return max(found)

    def skew_servers(self, *, on: bool) -> None:
        """As the function, of this stage's cluster."""
        skew_servers(self.cluster, on=on)

    # What is waited for; all raise NotInTimeError

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        with trio.move_on_after(LONG_S):
            while not await holds():
                await trio.sleep(_LOOK_S)
            return
        raise NotInTimeError("\n".join([f"not within {LONG_S:g} s: {what}", *await self._state()]))

    async def _state(self) -> list[str]:
        said = []
        for name in NODES:
            status = await self.status(name)
            said.append(f"{name}: {None if status is None else (status.quorum, status.custody)}")
        gateways = [str(gateway.summary()) for gateway in self.gateways.values()]
        return [*said, *gateways, str(self.operator.summary()), f"in inboxes: {self.inboxes.now()}"]

    async def serving(self, *names: str) -> None:
        """Until these, or all, serve, have their binds, and have written something just now."""

        async def serve() -> bool:
            return all([_serves(await self.status(name)) for name in names or NODES])

        await self.until(serve, f"{', '.join(names or NODES)} serve")

    async def silent(self, name: str) -> None:
        """Until it has let go of everything."""

        async def is_silent() -> bool:
            status = await self.status(name)
            return status is not None and status.quorum is not None and not status.quorum.serving

        await self.until(is_silent, f"{name} has let go of everything")

    async def says(self, name: str, role: str, words: str) -> None:
        """Until it has let go of everything and its status gives this role, and these words as a reason."""

        async def is_said() -> bool:
            status = await self.status(name)
            if status is None or status.quorum is None or status.quorum.serving or status.quorum.role != role:
                return False
            return words in f"{status.quorum.why}; {status.quorum.trouble}"

        await self.until(is_said, f'{name} says that it is {role}, "{words}"')

    async def starving(self, name: str) -> None:
        """Until its beats have not returned for a while."""

        async def starves() -> bool:
            status = await self.status(name)
            serves_for_s = None if status is None or status.quorum is None else status.quorum.serves_for_s
            return serves_for_s is None or serves_for_s < FENCE_AFTER_S - _STARVING_S

        await self.until(starves, f"{name} has not beaten for {_STARVING_S:g} s")

    async def flowing(self) -> None:
        """Until each gateway has had answers to messages that it sent after now."""
        since = {name: self.accepted(name) for name in NODES}

        async def flows() -> bool:
            return all(self.accepted(name) > since[name] + _FLOWING for name in NODES)

        await self.until(flows, "messages flow")

    def accepted(self, gateway: str) -> int:
        ledger = self.gateways[gateway].ledger.events
        return sum(isinstance(event, events.Responded) and event.status == c.ESME_ROK for event in ledger)


def skew_servers(cluster: galera_cluster.Cluster, *, on: bool) -> None:
    """From each one's next start. Raises NoFaketimeError."""
    for server, seconds in zip(cluster.servers.values(), _SKEWS_S, strict=True):
        server.prefix = skew.ahead(seconds) if on else ()


def _serves(status: NodeStatus | None) -> bool:
    if status is None or status.why_not_serving or status.quorum is None or status.quorum.serves_for_s is None:
        return False
    return status.quorum.serves_for_s > FENCE_AFTER_S - 4 * HEARTBEAT_S


@asynccontextmanager
async def set_up(
    directory: Path,
    *,
    rate: float,
    seed: int,
    cluster: galera_cluster.Cluster,
    skewed: bool = False,
    breakable: bool = False,
    settings: Settings | None = None,
    command: Sequence[str] = THIS_DLRPROXY,
) -> AsyncIterator[Stage]:
    """Everybody is up, and messages flow. No process outlives the block but the cluster's, which is given.

    `directory` is empty. With `skewed` the nodes' clocks differ from the start, the servers' from each one's next.
    With `breakable` nodes dial their servers over lines, and have small disks where something may be mounted.
    `settings` are more of [quorum]. `command` is the `dlrproxy` that makes the schema, and that the nodes run.
    Raises NotInTimeError, NoFaketimeError, OSError, in groups.
    """
    with ExitStack() as held:
        ports = Ports.of(held.enter_context(reserved(configuration.COUNT)))
        sockets = {} if breakable else {name: cluster.servers[SERVER_OF[name]].socket for name in NODES}
        configuration.write(directory, ports, sockets, settings or {})
        data_dirs = [configuration.data_dir(directory, name) for name in NODES]
        disk_of = dict(zip(NODES, held.enter_context(disks(data_dirs, mounts=breakable)), strict=True))
        ledgers = {name: Ledger(directory / f"{name}.jsonl") for name in ("operator", *NODES)}
        for ledger in ledgers.values():
            held.callback(ledger.close)
        if skewed:
            held.callback(skew.tidy)
        async with trio.open_nursery() as nursery:
            lines = {name: Line(ports.databases[name], cluster.servers[SERVER_OF[name]].port) for name in NODES}
            for line in lines.values():
                await nursery.start(line.run)
            await _new_schema(cluster, command, configuration.file(directory, NODES[0]))
            stage = _make(directory, ports, ledgers, nursery, rate, seed, cluster, lines, disk_of, skewed=skewed)
            for node in stage.nodes.values():
                node.becomes(command)
            await _rise(stage, nursery)
            try:
                yield stage
            finally:
                stage.skew_servers(on=False)
            nursery.cancel_scope.cancel()


def _make(
    directory: Path,
    ports: Ports,
    ledgers: Mapping[str, Ledger],
    nursery: trio.Nursery,
    rate: float,
    seed: int,
    cluster: galera_cluster.Cluster,
    lines: dict[str, Line],
    disk_of: dict[str, Disk],
    *,
    skewed: bool,
) -> Stage:
    hearing = Hearing()
    stage = Stage(
        directory=directory,
        cluster=cluster,
        nodes={
            name: Node(
                name,
                configuration.file(directory, name),
                configuration.data_dir(directory, name),
                directory / f"{name}.log",
                nursery,
                prefix=skew.ahead(seconds if skewed else 0.0),
                heard=hearing.hear,
            )
            for name, seconds in zip(NODES, _SKEWS_S, strict=True)
        },
        operator=Operator(_operator_options(ports.operator, rate, seed), ledgers["operator"]),
        gateways={
            name: Gateway(_gateway_options(name, port, rate / len(NODES), seed), ledgers[name])
            for name, port in ports.turnstiles.items()
        },
        turnstiles={
            gateway: Turnstile(port, {node: ports.listen[node][gateway] for node in sorted(NODES, key=gateway.__ne__)})
            for gateway, port in ports.turnstiles.items()
        },
        hearing=hearing,
        inboxes=Inboxes([cluster.account(name) for name in cluster.names]),
        lines=lines,
        disks=disk_of,
        skewed=skewed,
    )
    stage.skew_servers(on=skewed)
    return stage


async def _rise(stage: Stage, nursery: trio.Nursery) -> None:
    await nursery.start(stage.operator.run)
    for turnstile in stage.turnstiles.values():
        await nursery.start(turnstile.run)
    for node in stage.nodes.values():
        node.start()
    nursery.start_soon(_read_logs, stage)
    nursery.start_soon(stage.inboxes.run)
    await stage.serving()
    for gateway in stage.gateways.values():
        nursery.start_soon(gateway.run)
    await stage.flowing()


async def _read_logs(stage: Stage) -> None:
    while True:
        for node in stage.nodes.values():
            node.log.read()
        await trio.sleep(_LOOK_S)


async def _new_schema(cluster: galera_cluster.Cluster, command: Sequence[str], config: Path) -> None:
    await trio.to_thread.run_sync(cluster.wait_synced)
    need = Need(user=ACCOUNT, password=PASSWORD, tasks=(Task.ROWS,))
    made = rights.statements([need], "dlrproxy", ["%"], MARIADB, unlogged=False)  # as `db grants` prints them
    make = "\n".join(["DROP DATABASE IF EXISTS dlrproxy;", *made])
    await trio.to_thread.run_sync(cluster.servers[cluster.names[0]].sql, make)
    await trio.run_process([*command, "db", "init", str(config)], capture_stdout=True)


def _operator_options(port: int, rate: float, seed: int) -> OperatorOptions:
    return OperatorOptions(
        host=LOOPBACK,
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
        mo=MoOptions(
            rate=_MO_SHARE * rate,
            after_binds=len(NODES),
            destinations=(*configuration.NUMBERS, UNRULED),
            answers=0.3,
            concatenated=0.2,
        ),
        seed=seed,
    )


def _gateway_options(name: str, port: int, rate: float, seed: int) -> GatewayOptions:
    return evolve(
        TIRELESS,
        host=LOOPBACK,
        port=port,
        name=name,
        system_id=SYSTEM_ID,
        password=PASSWORD,
        rate=rate,
        seed=seed,
    )
