"""Load, faults by the schedule, and the way back to rest."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from chaos.excuses import Episode, RingExcuses
from chaos.faults import STOP_S, course
from chaos.judgement import Evidence, Judgement, Rest, judged
from chaos.nodes import Node
from chaos.plan import SPACE_S, Fault, Kind, Plan, Scope, Target, held, schedule
from chaos.stage import Stage, set_up
from chaos.told import Told
from dlrproxy.admin.client import AdminError
from dlrproxy.admin.parked import ParkedItem

_UP_S: Final = 180.0  # for everybody to be there; on an idle machine it takes two seconds
_WARM_UP_S: Final = 1.0  # of load before the first fault
# For everything to be delivered or parked once the faults are over. Several times CLAIM_FOR_S; what is not at rest by
# then is a finding.
_REST_S: Final = 240.0
_QUIET_S: Final = 1.0  # at rest for so long
_LOOK_S: Final = 0.25

Say = Callable[[str], None]


class NoStartError(Exception):
    """The stage did not come up, before any fault."""


async def play(plan: Plan, directory: Path, say: Say, *, mounts: bool = True) -> Judgement:
    """One run. Raises NoStartError and OSError, in a group. Leaves no process behind."""
    async with set_up(plan, directory, mounts=mounts) as stage:
        say(f"a full disk is {next(iter(stage.disks.values())).what}")
        async with trio.open_nursery() as nursery:
            await _rise(stage, nursery)
            say("everybody is up; messages flow")
            await trio.sleep(_WARM_UP_S)
            episodes = await _inflict(stage, schedule(plan), say)
            say("the faults are over")
            for gateway in stage.gateways.values():
                gateway.make_no_more()
            stage.operator.make_no_more_mo()
            rest = await _come_to_rest(stage, say)
            await _fall(stage)
            nursery.cancel_scope.cancel()
        for node in stage.nodes.values():
            node.log.read()
        evidence = _evidence(stage, episodes, rest)
        told = Told(evidence.operator, evidence.gateways)
        return judged(evidence, told, RingExcuses(told, episodes))


async def _rise(stage: Stage, nursery: trio.Nursery) -> None:
    for node in stage.nodes.values():
        node.start()
    with trio.move_on_after(_UP_S):
        await _until_linked(stage)
        for gateway in stage.gateways.values():
            nursery.start_soon(gateway.run)
        await stage.operator.wait_bound(stage.plan.nodes)
        for gateway in stage.gateways.values():
            await gateway.wait_bound()
        return
    failures = [failure for node in stage.nodes.values() for failure in node.failures]
    raise NoStartError("\n".join((f"not everybody was up within {_UP_S:.0f} s", *failures)))


# Faults


async def _inflict(stage: Stage, faults: list[Fault], say: Say) -> list[Episode]:
    """All of them, each at its time, or when its place is free: a busy machine may take longer than planned."""
    began = time.monotonic()
    places: defaultdict[tuple[Scope, Target], trio.Lock] = defaultdict(trio.Lock)
    episodes: list[Episode] = []

    async def run(fault: Fault) -> None:
        await trio.sleep(fault.at_s - (time.monotonic() - began))
        async with AsyncExitStack() as holding:
            for place in sorted(held(stage.plan, fault.kind, fault.target), key=_order):
                await holding.enter_async_context(places[place])
            first = time.monotonic()
            say(f"+{first - began:6.1f} s  {fault}")
            async with course(stage, fault):
                await trio.sleep(fault.lasts_s)
            episodes.append(Episode(fault, first, time.monotonic()))
            await trio.sleep(SPACE_S)

    async with trio.open_nursery() as nursery:
        for fault in faults:
            nursery.start_soon(run, fault)
        left = faults[-1].ends_s if faults else 0.0
        await trio.sleep(max(left, stage.plan.seconds))
    return episodes


def _order(place: tuple[Scope, Target]) -> tuple[str, Target]:
    """Everybody takes places in this order, so that no two wait for each other."""
    return place[0].value, place[1]


# Rest


async def _until_linked(stage: Stage) -> None:
    """Until every node says that it reaches every other."""
    while not all([await _reaches_all(node) for node in stage.nodes.values()]):
        await trio.sleep(_LOOK_S)


async def _reaches_all(node: Node) -> bool:
    try:
        status = await node.status()
    except AdminError:
        return False
    return all(peer.state == "alive" for peer in status.ring)


@frozen
class _Unrest:
    """What is still to be done."""

    unlinked: tuple[str, ...]
    submitting: int
    undelivered: int  # by the operator
    custody: dict[str, int]

    @classmethod
    async def of(cls, stage: Stage) -> "_Unrest":
        custody, unlinked = {}, []
        for name, node in stage.nodes.items():
            try:
                status = await node.status()
            except AdminError:
                unlinked.append(name)
                continue
            if status.custody is not None:
                custody[name] = status.custody.items
            if any(peer.state != "alive" for peer in status.ring) or not status.binds_up:
                unlinked.append(name)
        return cls(
            tuple(unlinked),
            sum(gateway.unanswered for gateway in stage.gateways.values()),
            stage.operator.summary().open,
            custody,
        )

    @property
    def none(self) -> bool:
        return not (self.unlinked or self.submitting or self.undelivered or any(self.custody.values()))

    def __str__(self) -> str:
        custody = ", ".join(f"{name} {count}" for name, count in self.custody.items() if count)
        return "; ".join(
            (
                f"not linked or bound: {', '.join(self.unlinked) or 'none'}",
                f"messages without an answer: {self.submitting}",
                f"reports and MO that the operator still has: {self.undelivered}",
                f"in custody: {custody or 'none'}",
            )
        )


async def _come_to_rest(stage: Stage, say: Say) -> Rest:
    """Until nothing moves any more; then what is parked and has an owner is replayed, as a person would."""
    began = time.monotonic()
    unrest = await _rested(stage)
    parked = await _parked(stage)
    say(f"at rest after {time.monotonic() - began:.1f} s, {sum(map(len, parked.values())):,} parked")
    replayed: list[ParkedItem] = []
    if unrest is None:
        replayed = await _replay(stage, parked)
    if replayed:
        say(f"{len(replayed):,} that have an owner are replayed to the ring")
        unrest = await _rested(stage)
        parked = await _parked(stage)
    return Rest(unrest="" if unrest is None else str(unrest), parked=parked, replayed=replayed)


async def _rested(stage: Stage) -> _Unrest | None:
    """None when it came to that in time."""
    deadline = trio.current_time() + _REST_S
    quiet_since: float | None = None
    while True:
        unrest = await _Unrest.of(stage)
        now = trio.current_time()
        if not unrest.none:
            quiet_since = None
            if now > deadline:
                return unrest
        elif quiet_since is None:
            quiet_since = now
        elif now - quiet_since > _QUIET_S:
            return None
        await trio.sleep(_LOOK_S)


async def _parked(stage: Stage) -> dict[str, list[ParkedItem]]:
    found = {}
    for name, node in stage.nodes.items():
        try:
            found[name] = await node.parked()
        except AdminError:
            found[name] = []  # its silence is a finding already
    return found


async def _replay(stage: Stage, parked: dict[str, list[ParkedItem]]) -> list[ParkedItem]:
    """What was parked for want of an owner that could answer, though a gateway was told the id of its message.

    And every MO, which is always for somebody.
    """
    told = {message_id for gateway in stage.gateways.values() for message_id in gateway.message_ids}
    replayed: list[ParkedItem] = []
    for name, items in parked.items():
        owned = [item for item in items if item.kind == "mo" or item.message_id in told]
        if owned:
            await stage.nodes[name].replay([item.key for item in owned])
            replayed += owned
    return replayed


async def _fall(stage: Stage) -> None:
    """Everybody goes in good order."""
    for gateway in stage.gateways.values():
        gateway.stop()
    async with trio.open_nursery() as nursery:
        for node in stage.nodes.values():
            nursery.start_soon(_stop, node)
    await stage.operator.stop()


def _evidence(stage: Stage, episodes: list[Episode], rest: Rest) -> Evidence:
    logs = {name: node.log for name, node in stage.nodes.items()}
    kinds = Counter(episode.fault.kind for episode in episodes)
    return Evidence(
        operator=stage.operator.ledger.events,
        gateways={name: gateway.ledger.events for name, gateway in stage.gateways.items()},
        rules=stage.plan.numbers,
        faults={kind.value: kinds[kind] for kind in Kind if kinds[kind]},
        removed={name for each in episodes if each.fault.kind is Kind.REMOVAL for name in each.fault.target},
        rest=rest,
        superseded=set[str]().union(*(log.superseded for log in logs.values())),
        lines_lost={name for name, log in logs.items() if log.events["log.lines_lost"]},
        unfinished=sum(gateway.open for gateway in stage.gateways.values()),
        failures=[failure for node in stage.nodes.values() for failure in node.failures],
        unexpected_lines={name: log.unexpected for name, log in logs.items() if log.unexpected},
        starts=sum(node.starts for node in stage.nodes.values()),
        errors=sum((log.errors for log in logs.values()), Counter[str]()),
    )


async def _stop(node: Node) -> None:
    if node.pid is not None and not await node.stop(STOP_S):
        node.failures.append(f"Node {node.name} did not end within {STOP_S:.0f} s of SIGTERM.")
