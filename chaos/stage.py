"""Who plays: an operator, nodes, a gateway beside each, and a line wherever one of them dials another.

    gateway gw1 --line-- node gw1 --line-- operator
                             |
                            line    (one between any two nodes)
                             |
    gateway gw2 --line-- node gw2 --line-- operator

The nodes are processes; the operator, the gateways and the lines play in this one.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import trio
from attrs import evolve, frozen

from chaos.configuration import OPERATOR_ANSWER_S, SYSTEM_ID, Configuration, Ports
from chaos.disk import Disk, disks
from chaos.lines import Line
from chaos.nodes import Node
from chaos.plan import UNRULED, Plan, Target
from chaos.tireless import TIRELESS
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.simulator.gateway import Gateway
from dlrproxy.simulator.ledger import Ledger
from dlrproxy.simulator.operator import Operator
from dlrproxy.simulator.options import GatewayOptions, MoOptions, OperatorOptions, Spread

_LOOK_S: Final = 0.1  # between looks at the logs
_MO_SHARE: Final = 0.2  # MO for each message


@frozen
class Stage:
    """Everybody, and what stands between them."""

    plan: Plan
    directory: Path
    configuration: Configuration
    operator: Operator
    disks: dict[str, Disk]
    nodes: dict[str, Node]
    gateways: dict[str, Gateway]
    uplinks: dict[str, Line]
    downlinks: dict[str, Line]
    links: dict[Target, Line]

    @property
    def logs(self) -> list[Path]:
        return [node.log.path for node in self.nodes.values()]

    async def until(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Look until it holds; False when it does not in time."""
        with trio.move_on_after(within_s):
            while not holds():
                await trio.sleep(_LOOK_S)
            return True
        return False

    def retable(self, nodes: Iterable[str], *, told: Iterable[str]) -> None:
        """Write the files of the nodes in `told`, for a ring of `nodes`. Raises OSError."""
        for name in told:
            self.configuration.write(name, list(nodes))


@asynccontextmanager
async def set_up(plan: Plan, directory: Path, *, mounts: bool) -> AsyncIterator[Stage]:
    """Everybody in place: the operator and the lines run, nodes and gateways are not started. Raises OSError.

    Everything is written below `directory`, which is empty. No process and no mount outlives the block.
    """
    with ExitStack() as held:
        ports = Ports.of(plan, held.enter_context(reserved(Ports.count(plan))))
        configuration = Configuration(directory, plan, ports)
        data_dirs = [configuration.data_dir(name) for name in plan.names]
        disk_of = dict(zip(plan.names, held.enter_context(disks(data_dirs, mounts=mounts)), strict=True))
        ledgers = _Ledgers(directory / "ledgers", held)
        async with trio.open_nursery() as nursery:
            stage = Stage(
                plan=plan,
                directory=directory,
                configuration=configuration,
                operator=Operator(_operator_options(plan, ports, configuration.password), ledgers.open("operator")),
                disks=disk_of,
                nodes={
                    name: Node(
                        name,
                        configuration.file(name),
                        configuration.data_dir(name),
                        directory / f"{name}.log",
                        nursery,
                    )
                    for name in plan.names
                },
                gateways={
                    name: Gateway(
                        _gateway_options(plan, name, ports.downlinks[name], configuration.password), ledgers.open(name)
                    )
                    for name in plan.names
                },
                uplinks={name: Line(port, ports.operator) for name, port in ports.uplinks.items()},
                downlinks={name: Line(port, ports.gateways[name]) for name, port in ports.downlinks.items()},
                links={pair: Line(port, ports.peers[pair[1]]) for pair, port in ports.links.items()},
            )
            await nursery.start(stage.operator.run)
            for line in (*stage.uplinks.values(), *stage.downlinks.values(), *stage.links.values()):
                await nursery.start(line.run)
            nursery.start_soon(_read_logs, stage)
            yield stage
            nursery.cancel_scope.cancel()


async def _read_logs(stage: Stage) -> None:
    while True:
        for node in stage.nodes.values():
            node.log.read()
        await trio.sleep(_LOOK_S)


class _Ledgers:
    def __init__(self, directory: Path, held: ExitStack) -> None:
        directory.mkdir()
        self._directory = directory
        self._held = held

    def open(self, name: str) -> Ledger:
        ledger = Ledger(self._directory / f"{name}.jsonl")
        self._held.callback(ledger.close)
        return ledger


def _operator_options(plan: Plan, ports: Ports, password: str) -> OperatorOptions:
    return OperatorOptions(
        host=LOOPBACK,
        port=ports.operator,
        accounts={SYSTEM_ID: password},
        spread=Spread.OTHER,
        misroute=0.7,
        enroute=0.2,
        delay_ms=(10.0, 3000.0),  # so that there is something in flight at any moment
        window=100,
        answer_timeout_s=OPERATOR_ANSWER_S + 2,
        retry_ms=300.0,
        max_retry_ms=3000.0,
        mo=MoOptions(
            rate=_MO_SHARE * plan.rate,
            after_binds=plan.nodes,
            destinations=(*plan.numbers, UNRULED),
            answers=0.3,
            concatenated=0.2,
        ),
        seed=plan.seed,
    )


def _gateway_options(plan: Plan, name: str, port: int, password: str) -> GatewayOptions:
    return evolve(
        TIRELESS,
        host=LOOPBACK,
        port=port,
        name=name,
        system_id=SYSTEM_ID,
        password=password,
        rate=plan.rate / plan.nodes,
        reconnect_ms=(100.0, 1000.0),
        seed=plan.seed,
    )
