"""What each fault does. A fault is an async context manager: it begins, lasts as long as its block, and ends.

What takes time of its own (a process that ends, a drain) is done before the block begins; whoever is gone is back, or
on the way back, when the manager ends.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import MappingProxyType
from typing import Final

import trio

from chaos.lines import Line, Way
from chaos.nodes import Node
from chaos.plan import SLOW_S, Fault, Kind
from chaos.stage import Stage
from dlrproxy.admin.client import AdminError
from dlrproxy.simulator.gateway import Gateway

Course = AbstractAsyncContextManager[None]

# drain_s, twice _RELEASE_S of the node, and what a busy machine adds: after that a stop counts as failed.
STOP_S: Final = 120.0
_DRAIN_S: Final = 5.0  # how long a drain may take before the node is stopped anyway
_UP_S: Final = 60.0


def course(stage: Stage, fault: Fault) -> Course:
    return _COURSES[fault.kind](stage, fault)


# Nodes


@asynccontextmanager
async def _kill(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    node = _node(stage, fault)
    await node.kill()
    yield
    node.start()


@asynccontextmanager
async def _power_cut(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for node in stage.nodes.values():
            nursery.start_soon(node.kill)
    yield
    for node in stage.nodes.values():
        node.start()


@asynccontextmanager
async def _stop(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    node = _node(stage, fault)
    await _stopped(node)
    yield
    node.start()


async def _stopped(node: Node) -> None:
    if not await node.stop(STOP_S):
        node.failures.append(f"Node {node.name} did not end within {STOP_S:.0f} s of SIGTERM.")


@asynccontextmanager
async def _pause(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    node = _node(stage, fault)
    node.pause()
    yield
    node.resume()


@asynccontextmanager
async def _disk_full(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    node = _node(stage, fault)
    await stage.until(lambda: node.running, _UP_S)  # it could not start without room for its log
    pid = node.pid
    if pid is None:  # it has just ended by itself; that is told elsewhere
        yield
        return
    await trio.to_thread.run_sync(stage.disks[node.name].fill, pid)
    yield
    stage.disks[node.name].free(node.pid if node.pid == pid else None)


@asynccontextmanager
async def _drain(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    """Let custody become empty for a while, then think better of it."""
    node = _node(stage, fault)
    with suppress(AdminError):  # it is starting, or busy: then it goes on as it is
        await node.drain()
    yield
    with trio.move_on_after(_UP_S):
        while not await _put_back(node):
            await trio.sleep(0.2)


async def _put_back(node: Node) -> bool:
    """False when it cannot be asked now. One that has been started again since is in service anyway."""
    try:
        await node.undrain()
    except AdminError:
        return False
    return True


@asynccontextmanager
async def _removal(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    """As docs/operations.md has it: drained, stopped, taken out of the others' table; then put in again."""
    node = _node(stage, fault)
    with trio.move_on_after(_DRAIN_S), suppress(AdminError):
        while not (await node.drain()).empty:
            await trio.sleep(0.2)
    await _stopped(node)
    others = [name for name in stage.plan.names if name != node.name]
    await _retable(stage, others, told=others)
    yield
    await _retable(stage, stage.plan.names, told=others)
    node.start()


async def _retable(stage: Stage, nodes: "list[str] | tuple[str, ...]", *, told: list[str]) -> None:
    """Have these nodes take over another table. One that is starting is told when it can hear it."""
    stage.retable(nodes, told=told)
    async with trio.open_nursery() as nursery:
        for name in told:
            nursery.start_soon(_hang_up, stage, stage.nodes[name])


async def _hang_up(stage: Stage, node: Node) -> None:
    """A node that is not there reads the file when it starts."""
    if node.pid is not None and await stage.until(lambda: node.running or node.pid is None, _UP_S):
        node.hang_up()


# Lines


@asynccontextmanager
async def _cut(line: Line, fault: Fault) -> AsyncIterator[None]:
    line.cut()
    yield
    line.mend()


@asynccontextmanager
async def _half_open(line: Line, fault: Fault) -> AsyncIterator[None]:
    """Whoever stands between the two has forgotten them, or finds what was sent once more."""
    line.hold_up()
    yield
    if fault.choice < 0.5:
        line.reset()
    line.resume()


@asynccontextmanager
async def _one_way(line: Line, fault: Fault) -> AsyncIterator[None]:
    line.hold_up([Way.THERE if fault.choice < 0.5 else Way.BACK])
    yield
    line.resume()


@asynccontextmanager
async def _slow(line: Line, fault: Fault) -> AsyncIterator[None]:
    line.slow_down(0.05 + fault.choice)
    yield
    line.slow_down(0)


# The operator and the gateways


@asynccontextmanager
async def _operator_restart(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    stage.operator.shut()
    yield
    stage.operator.reopen()


@asynccontextmanager
async def _gateway_restart(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    gateway = _gateway(stage, fault)
    gateway.leave()
    yield
    gateway.come_back()


@asynccontextmanager
async def _gateway_stuck(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    gateway = _gateway(stage, fault)
    gateway.freeze()
    yield
    gateway.thaw()


@asynccontextmanager
async def _gateway_slow(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    """Some answers come within gateway_answer_s, some long after."""
    gateway = _gateway(stage, fault)
    gateway.answer_reports(delay_ms=(0.0, 1000 * SLOW_S))
    yield
    gateway.answer_reports()


@asynccontextmanager
async def _gateway_refuses(stage: Stage, fault: Fault) -> AsyncIterator[None]:
    gateway = _gateway(stage, fault)
    gateway.answer_reports(refuse_temporary=0.7)
    yield
    gateway.answer_reports()


def _node(stage: Stage, fault: Fault) -> Node:
    return stage.nodes[fault.target[0]]


def _gateway(stage: Stage, fault: Fault) -> Gateway:
    return stage.gateways[fault.target[0]]


def _link(how: Callable[[Line, Fault], Course]) -> Callable[[Stage, Fault], Course]:
    return lambda stage, fault: how(stage.links[fault.target], fault)


def _uplink(how: Callable[[Line, Fault], Course]) -> Callable[[Stage, Fault], Course]:
    return lambda stage, fault: how(stage.uplinks[fault.target[0]], fault)


def _downlink(how: Callable[[Line, Fault], Course]) -> Callable[[Stage, Fault], Course]:
    return lambda stage, fault: how(stage.downlinks[fault.target[0]], fault)


_COURSES: Final[Mapping[Kind, Callable[[Stage, Fault], Course]]] = MappingProxyType(
    {
        Kind.KILL: _kill,
        Kind.POWER_CUT: _power_cut,
        Kind.STOP: _stop,
        Kind.PAUSE: _pause,
        Kind.LONG_PAUSE: _pause,
        Kind.DISK_FULL: _disk_full,
        Kind.DRAIN: _drain,
        Kind.REMOVAL: _removal,
        Kind.LINK_CUT: _link(_cut),
        Kind.LINK_HALF_OPEN: _link(_half_open),
        Kind.LINK_ONE_WAY: _link(_one_way),
        Kind.LINK_SLOW: _link(_slow),
        Kind.OPERATOR_RESTART: _operator_restart,
        Kind.UPLINK_CUT: _uplink(_cut),
        Kind.UPLINK_HALF_OPEN: _uplink(_half_open),
        Kind.GATEWAY_RESTART: _gateway_restart,
        Kind.GATEWAY_STUCK: _gateway_stuck,
        Kind.GATEWAY_SLOW: _gateway_slow,
        Kind.GATEWAY_REFUSES: _gateway_refuses,
        Kind.GATEWAY_HALF_OPEN: _downlink(_half_open),
    }
)
