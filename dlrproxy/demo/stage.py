"""The scenario: nodes up, traffic, perhaps a node killed and back again, everything settled, everything down.

The nodes are processes; the operator and the gateways play in this one, with their ledgers in memory and on disk.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from dlrproxy.demo import files
from dlrproxy.demo.files import Addresses
from dlrproxy.demo.node_process import LogReader, NodeFailedError, NodeProcess
from dlrproxy.demo.plan import Plan
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.demo.routes import Routes
from dlrproxy.demo.summary import Balance, Summary, sum_up
from dlrproxy.simulator.gateway import Gateway
from dlrproxy.simulator.judge import judge
from dlrproxy.simulator.ledger import Ledger
from dlrproxy.simulator.operator import Operator
from dlrproxy.simulator.options import GatewayOptions, OperatorOptions, Spread

_LOOK_S: Final = 0.05  # between looks at logs and ledgers
_UP_S: Final = 60.0  # for a node to come up; on an idle machine it takes one second
_DOWN_S: Final = 10.0  # for all nodes to end gracefully
_AWAY_S: Final = 2.0  # how long the killed node is away
_SETTLE_S: Final = (
    files.KILL_CLAIM_FOR_S + 25.0
)  # for what is on its way when the last message is done; what is not there then is lost
_LINGER_S: Final = 0.5  # for what should not come: duplicates
_REPORT_DELAY_MS: Final = (20.0, 800.0)  # so that there is something in flight at any moment
_RECONNECT_MS: Final = (200.0, 1000.0)


@frozen
class NodeView:
    name: str
    state: str  # starting, up, killed, stopped
    submitted: int  # messages of its gateway that were accepted
    reports: int  # at its gateway
    claimed: int  # of these, over the ring


@frozen
class View:
    """One moment of a run, to be shown."""

    phase: str
    messages: int
    submitted: int
    delivered: int
    nodes: tuple[NodeView, ...]


class Stage:
    """Play it once. Everything is written below `directory`, which exists and is empty."""

    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        """`say` is told what happens, a line at a time."""
        self.plan = plan
        self.routes = Routes()
        self._directory = directory
        self._say = say
        self._phase = "starting"
        self._looked = trio.Event()
        self._killed_with: int | None = None
        self._ended: set[str] = set()  # gateways that have given up
        self._nodes: dict[str, NodeProcess] = {}
        self._logs: list[LogReader] = []
        self._gateways: dict[str, Gateway] = {}

    def view(self) -> View:
        """Once `run` has begun."""
        summaries = {name: gateway.summary() for name, gateway in self._gateways.items()}
        return View(
            phase=self._phase,
            messages=self.plan.messages,
            submitted=sum(summary.accepted for summary in summaries.values()),
            delivered=sum(summary.final for summary in summaries.values()),
            nodes=tuple(
                NodeView(name, self._state(name), summary.accepted, summary.reports, self.routes.claimed_by[name])
                for name, summary in summaries.items()
            ),
        )

    async def run(self) -> Summary:
        """The whole run. Raises, in an ExceptionGroup, NodeFailedError and OSError. Leaves no process behind."""
        with reserved(Addresses.count(self.plan)) as ports, ExitStack() as closing:
            self._set(Addresses.of(self.plan, ports), closing)
            async with trio.open_nursery() as nursery:
                await nursery.start(self._operator.run)
                nursery.start_soon(self._look)
                for node in self._nodes.values():
                    nursery.start_soon(node.run)
                await self._rise(nursery)
                await self._play(nursery)
                await self._settle()
                await self._fall()
                nursery.cancel_scope.cancel()
        self._look_now()
        return self._judged()

    def _set(self, addresses: Addresses, closing: ExitStack) -> None:
        """Put everything in its place, and start nothing. Raises OSError."""
        plan = self.plan
        configs, password = files.write(self._directory, plan, addresses)
        ledgers = self._directory / "ledgers"
        ledgers.mkdir()
        options = OperatorOptions(
            host=LOOPBACK,
            port=addresses.operator,
            accounts={files.SYSTEM_ID: password},
            spread=Spread.OTHER,
            misroute=plan.misroute,
            delay_ms=_REPORT_DELAY_MS,
            seed=plan.seed,
        )

        def ledger(name: str) -> Ledger:
            opened = Ledger(ledgers / f"{name}.jsonl")
            closing.callback(opened.close)
            return opened

        self._operator = Operator(options, ledger("operator"))
        for name, config in configs.items():
            log = self._directory / f"{name}.log"
            self._nodes[name] = NodeProcess(name, config, log)
            self._logs.append(LogReader(log))
            gateway = GatewayOptions(
                host=LOOPBACK,
                port=addresses.gateways[name],
                name=name,
                system_id=files.SYSTEM_ID,
                password=password,
                messages=plan.share(name),
                rate=plan.rate,
                reconnect_ms=_RECONNECT_MS,
                linger_s=float("inf"),  # until told to stop: others may not be done yet
                seed=plan.seed,
            )
            self._gateways[name] = Gateway(gateway, ledger(name))
        self._balance = Balance(self._operator.ledger, [gateway.ledger for gateway in self._gateways.values()])

    # What is watched

    async def _look(self) -> None:
        while True:
            self._look_now()
            await trio.sleep(_LOOK_S)

    def _look_now(self) -> None:
        for log in self._logs:
            for line in log.new_lines():
                self.routes.add(line)
        self._balance.update()
        self._looked.set()
        self._looked = trio.Event()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._looked.wait()

    def _state(self, name: str) -> str:
        node = self._nodes[name]
        if node.ended:
            return node.ended
        return "up" if node.alive and self.routes.starts[name] == node.starts else "starting"

    def _is_up(self, name: str, starts: int = 1) -> bool:
        """Running for that many times, with links to all others that are alive, as seen from both ends."""
        alive = {other for other in self._nodes if other != name and self._nodes[other].alive}
        return (
            self.routes.starts[name] >= starts
            and alive <= self.routes.peers[name]
            and all(name in self.routes.peers[other] for other in alive)
        )

    async def _wait_up(self, names: tuple[str, ...], starts: int = 1) -> None:
        with trio.move_on_after(_UP_S):
            await self._until(lambda: all(self._is_up(name, starts) for name in names))
            return
        late = next(name for name in names if not self._is_up(name, starts))
        raise NodeFailedError(self._nodes[late].failure(f"did not come up within {_UP_S:.0f} s"))

    # The acts

    async def _rise(self, nursery: trio.Nursery) -> None:
        began = time.monotonic()
        await self._wait_up(self.plan.names)
        for gateway in self._gateways.values():
            nursery.start_soon(self._run_gateway, gateway)
        await self._wait_bound()
        self._say(
            f"{self.plan.nodes} nodes are up and linked, every gateway and every operator bind is bound: "
            f"{time.monotonic() - began:.1f} s"
        )

    async def _wait_bound(self) -> None:
        with trio.move_on_after(_UP_S):
            await self._operator.wait_bound(self.plan.nodes)
            for gateway in self._gateways.values():
                await gateway.wait_bound()
            return
        bound = {where.partition("@")[0] for where in self._operator.binds.values()}
        late = next((name for name in self.plan.names if name not in bound), self.plan.names[0])
        raise NodeFailedError(self._nodes[late].failure(f"did not bind within {_UP_S:.0f} s"))

    async def _run_gateway(self, gateway: Gateway) -> None:
        await gateway.run()
        self._ended.add(gateway.options.name)

    async def _play(self, nursery: trio.Nursery) -> None:
        """Until every gateway has all its reports, or has given up."""
        self._phase = "submitting, and reports come in"
        async with trio.open_nursery() as acts:
            if self.plan.kill is not None:
                acts.start_soon(self._kill_and_restart, self._nodes[self.plan.kill], nursery)
            await self._until(self._all_done)

    def _all_done(self) -> bool:
        return all(name in self._ended or not gateway.summary().unfinished for name, gateway in self._gateways.items())

    async def _kill_and_restart(self, node: NodeProcess, nursery: trio.Nursery) -> None:
        """At the first moment from half way on with something in flight; a handful of messages may not have one."""
        half = self.plan.messages / 2
        await self._until(lambda: (self._made() >= half and self._operator.summary().open > 0) or self._all_done())
        self._killed_with = self._operator.summary().open
        node.kill()
        self._say(f"{node.name} is killed (kill -9) with {self._killed_with} messages in flight")
        await self._until(lambda: not node.alive)
        self.routes.gone(node.name)
        await trio.sleep(_AWAY_S)
        nursery.start_soon(node.run)
        await self._wait_up((node.name,), starts=2)
        self._say(f"{node.name} is up and linked again")

    def _made(self) -> int:
        return sum(gateway.summary().messages for gateway in self._gateways.values())

    async def _settle(self) -> None:
        self._phase = "settling"
        if self._missing() and self.plan.kill is not None:
            self._phase = f"waiting until what nobody owns is parked, after {files.KILL_CLAIM_FOR_S} s"
        with trio.move_on_after(_SETTLE_S):
            await self._until(lambda: not self._operator.summary().open and not self._missing())
        await trio.sleep(_LINGER_S)

    def _missing(self) -> set[str]:
        return self._balance.undelivered - self.routes.parked

    async def _fall(self) -> None:
        """Everybody goes in good order, in a bounded time."""
        self._phase = "stopping"
        for gateway in self._gateways.values():
            gateway.stop()
        await self._until(lambda: len(self._ended) == len(self._gateways))
        for node in self._nodes.values():
            node.stop()
        with trio.move_on_after(_DOWN_S):
            await self._until(lambda: not any(node.alive for node in self._nodes.values()))
        await self._operator.stop()

    def _judged(self) -> Summary:
        ledgers = {name: gateway.ledger.events for name, gateway in self._gateways.items()}
        verdict = judge(self._operator.ledger.events, ledgers)
        return sum_up(
            self.plan,
            verdict,
            self.routes,
            self._balance,
            unfinished=sum(gateway.summary().unfinished for gateway in self._gateways.values()),
            in_flight_at_kill=self._killed_with,
        )
