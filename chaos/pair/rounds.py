"""Load; the active is killed with its database, the other one takes over, the first rejoins, and service moves back."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import trio
from attrs import evolve, frozen

from chaos.pair.address import Address, ByHand, ByKeepalived
from chaos.pair.machine import GATEWAY, PASSWORD, SYSTEM_ID, Machine
from chaos.pair.places import HUB, in_namespaces, on_loopback
from chaos.tireless import TIRELESS
from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.simulator import ledger as events
from dlrproxy.simulator.gateway import Gateway
from dlrproxy.simulator.judge import Verdict, judge
from dlrproxy.simulator.ledger import Ledger
from dlrproxy.simulator.operator import Operator
from dlrproxy.simulator.options import GatewayOptions, OperatorOptions
from protocols.smpp import constants as c

NAMES: Final = ("gw1", "gw2")
_LONG_S: Final = 150.0  # for anything; ten times what it takes on a machine that has nothing else to do
_LOOK_S: Final = 0.1
_UNDER_WAY: Final = 50  # reports that have come back before the next kill

Say = Callable[[str], None]


class NotInTimeError(Exception):
    """What was waited for has not come about. The text says how things stood."""


@frozen
class Round:
    """Seconds without service, as the gateway saw it: to the first message that was accepted on a new bind."""

    killed_s: float
    switched_s: float


@frozen(kw_only=True)
class Outcome:
    rounds: tuple[Round, ...]
    messages: int
    unfinished: int  # the gateway was told an id, and has no final report
    verdict: Verdict

    @property
    def passed(self) -> bool:
        return self.verdict.passed and not self.unfinished


@frozen
class Stage:
    """Everybody."""

    machines: dict[str, Machine]
    operator: Operator
    gateway: Gateway
    address: Address
    ledgers: dict[str, Ledger]
    nursery: trio.Nursery

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Raises NotInTimeError."""
        with trio.move_on_after(_LONG_S):
            while not holds():
                await trio.sleep(_LOOK_S)
            return
        raise NotInTimeError("\n".join([f"not within {_LONG_S:g} s: {what}", *await self._state()]))

    async def until_pair(self, machine: Machine, holds: Callable[[PairStatus], bool], what: str) -> None:
        """Raises NotInTimeError."""
        with trio.move_on_after(_LONG_S):
            while (pair := await machine.pair()) is None or not holds(pair):
                await trio.sleep(_LOOK_S)
            return
        raise NotInTimeError("\n".join([f"not within {_LONG_S:g} s: {machine.name} {what}", *await self._state()]))

    async def _state(self) -> list[str]:
        said = [f"{machine.name}: {await machine.pair()}" for machine in self.machines.values()]
        return [*said, str(self.gateway.summary()), str(self.operator.summary())]

    def reports(self) -> int:
        return self.gateway.summary().reports

    def served_since(self, began: float) -> float | None:
        """When the gateway was first told an id by a node that had bound to the operator after `began`."""
        bound = _first(event.t for event in self._since("operator", began) if isinstance(event, events.Bound))
        if bound is None:
            return None
        accepted = (
            event.t
            for event in self._since(GATEWAY, bound)
            if isinstance(event, events.Responded) and event.status == c.ESME_ROK
        )
        return _first(accepted)

    def _since(self, name: str, began: float) -> list[events.Event]:
        found = []
        for event in reversed(self.ledgers[name].events):
            if event.t <= began:
                break
            found.append(event)
        return found[::-1]


def _first(times: Iterator[float]) -> float | None:
    return next(times, None)


async def play(
    rounds: int, rate: float, directory: Path, say: Say, *, keepalived: bool, fence_after_s: float
) -> Outcome:
    """Raises NotInTimeError, CommandError, NodeFailedError, OSError, in groups. Leaves no process behind."""
    async with set_up(rate, directory, say, keepalived=keepalived, fence_after_s=fence_after_s) as stage:
        played = []
        for number in range(1, rounds + 1):
            played.append(await _round(stage, *stage.machines.values()))
            say(
                f"round {number}: killed, and served again after {played[-1].killed_s:.1f} s; moved back by plan in "
                f"{played[-1].switched_s:.1f} s"
            )
        stage.gateway.make_no_more()
        await stage.until(lambda: not stage.gateway.open and not stage.operator.summary().open, "all is delivered")
        return Outcome(
            rounds=tuple(played),
            messages=stage.gateway.summary().messages,
            unfinished=stage.gateway.open,
            verdict=judge(stage.ledgers["operator"].events, {GATEWAY: stage.ledgers[GATEWAY].events}),
        )


async def _round(stage: Stage, first: Machine, second: Machine) -> Round:
    before = stage.reports()
    await stage.until(lambda: stage.reports() >= before + _UNDER_WAY, "messages flow")
    killed_at = time.monotonic()
    await first.kill()
    await stage.address.lost(first, second)
    killed_s = await _served_again(stage, killed_at)
    await stage.until_pair(second, lambda pair: pair.role == "active", "is active")

    await first.start_server(as_replica=True)
    stage.nursery.start_soon(first.node.run)
    await stage.address.back(first)
    await _rejoin(stage, first, second)

    before = stage.reports()
    await stage.until(lambda: stage.reports() >= before + _UNDER_WAY, "messages flow again")
    switched_at = time.monotonic()
    await stage.address.switch(second, first)
    switched_s = await _served_again(stage, switched_at)
    await stage.address.back(second)
    await _rejoin(stage, second, first)
    return Round(killed_s, switched_s)


async def _served_again(stage: Stage, began: float) -> float:
    await stage.until(lambda: stage.served_since(began) is not None, "somebody serves again")
    served_at = stage.served_since(began)
    if served_at is None:
        raise AssertionError("a ledger forgets nothing")
    return served_at - began


async def _rejoin(stage: Stage, standby: Machine, active: Machine) -> None:
    """Until the standby may be promoted again."""
    await stage.until_pair(standby, lambda pair: pair.role in {"standby", "fenced"}, "is there, and does not serve")
    await standby.dlrproxy("rejoin", "--yes")
    await stage.until_pair(active, lambda pair: pair.role == "active" and not pair.degraded, "is acknowledged")
    await stage.until_pair(standby, _can_be_promoted, "has what it needs to be promoted")


def _can_be_promoted(pair: PairStatus) -> bool:
    """As soon as the active is silent: it has applied the row that forbids the active to serve alone."""
    own, other = pair.own, pair.other
    if pair.role != "standby" or own is None or other is None:
        return False
    return own.receiving and own.epoch == other.epoch and own.alone == other.alone == "no"


@asynccontextmanager
async def set_up(
    rate: float, directory: Path, say: Say, *, keepalived: bool, fence_after_s: float
) -> AsyncIterator[Stage]:
    """A pair by the commands of docs/active-passive.md, an operator and a gateway; messages flow."""
    with ExitStack() as held:
        places = held.enter_context(in_namespaces(NAMES)) if keepalived else on_loopback(NAMES)
        host = HUB if keepalived else LOOPBACK
        gateways, databases, (operator_port, line_port) = _ports(held)
        machines = []
        for number, place in enumerate(places):
            port = gateways[0] if keepalived else gateways[number]  # one address has one port
            machines.append(Machine(place, directory, number + 1, port, databases[number]))
            held.callback(machines[-1].end_server)
        ledgers = {name: Ledger(directory / f"{name}.jsonl") for name in ("operator", GATEWAY)}
        for ledger in ledgers.values():
            held.callback(ledger.close)
        async with trio.open_nursery() as nursery:
            operator = Operator(_operator_options(host, operator_port), ledgers["operator"])
            await nursery.start(operator.run)
            for machine, peer in zip(machines, reversed(machines), strict=True):
                machine.write((host, operator_port), peer, fence_after_s)
            await _make_pair(machines)
            address: Address = (
                ByKeepalived(machines, directory) if keepalived else ByHand(line_port, machines[0], nursery)
            )
            gateway = Gateway(_gateway_options(address, rate), ledgers[GATEWAY])
            stage = Stage(
                machines={machine.name: machine for machine in machines},
                operator=operator,
                gateway=gateway,
                address=address,
                ledgers=ledgers,
                nursery=nursery,
            )
            for machine in machines:
                nursery.start_soon(machine.node.run)
            say("a pair is made: accounts, schema, replica")
            await stage.until_pair(machines[0], lambda pair: pair.role == "active" and pair.serving, "serves")
            await nursery.start(address.run)
            await nursery.start(gateway.run)
            await stage.until(lambda: stage.reports() > 0, "the first report")
            say("both nodes run; messages flow")
            yield stage
            nursery.cancel_scope.cancel()


def _ports(held: ExitStack) -> tuple[list[int], list[int], list[int]]:
    """Of gateways, of database servers, of the operator and the line; they stay ours while a machine is away."""
    ports = held.enter_context(reserved(6))
    return ports[:2], ports[2:4], ports[4:]


async def _make_pair(machines: list[Machine]) -> None:
    """As the document says: the servers, the accounts, the schema, the replica."""
    first, second = machines
    async with trio.open_nursery() as nursery:
        for machine in machines:
            nursery.start_soon(machine.start_server)
    async with trio.open_nursery() as nursery:
        for machine in machines:
            nursery.start_soon(machine.make_accounts, {machine.place.address for machine in machines})
    await first.dlrproxy("db", "init")
    await second.dlrproxy("rejoin")


def _operator_options(host: str, port: int) -> OperatorOptions:
    return OperatorOptions(
        host=host,
        port=port,
        accounts={SYSTEM_ID: PASSWORD},
        delay_ms=(10.0, 3000.0),  # so that many messages are open when the active dies
        window=100,
        retry_ms=300.0,
        max_retry_ms=3000.0,
    )


def _gateway_options(address: Address, rate: float) -> GatewayOptions:
    return evolve(
        TIRELESS,
        host=address.host,
        port=address.port,
        name=GATEWAY,
        system_id=SYSTEM_ID,
        password=PASSWORD,
        rate=rate,
    )
