"""Load, faults, the way back to rest, and the judgement."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

import galera_cluster
import trio
from attrs import evolve, frozen

from chaos.judgement import Evidence, Finding, Judgement, Rest, judged
from chaos.quorum.configuration import NODES, NUMBERS
from chaos.quorum.excuses import LINGERING_S, QuorumExcuses
from chaos.quorum.faults import stop
from chaos.quorum.inboxes import Stay
from chaos.quorum.schedule import drawn
from chaos.quorum.stage import LONG_S, Stage, set_up
from chaos.told import Told
from dlrproxy.admin.parked import ParkedItem
from dlrproxy.simulator import ledger as events
from protocols.smpp import constants as c
from ring.commands import Reason

_QUIET_S: Final = 1.0  # at rest for so long
_LOOK_S: Final = 0.25

Say = Callable[[str], None]


@frozen
class Outage:
    """The longest time that a gateway waited from one accepted message to the next, about a fault."""

    what: str
    seconds: float


@frozen
class Outcome:
    judgement: Judgement
    outages: tuple[Outage, ...]
    stays: tuple[Stay, ...]  # of rows in inboxes


async def play(
    minutes: float,
    directory: Path,
    say: Say,
    *,
    seed: int,
    rate: float,
    cluster: galera_cluster.Cluster,
    skewed: bool = False,
) -> Outcome:
    """Raises NotInTimeError, NoFaketimeError and OSError, in groups. Leaves no process behind but the cluster's."""
    async with set_up(directory, rate=rate, seed=seed, cluster=cluster, skewed=skewed, breakable=True) as stage:
        say(f"everybody is up; messages flow. A full disk: {stage.disks[NODES[0]].what}")
        ends = time.monotonic() + 60 * minutes
        for fault in drawn(Random(seed)):
            if time.monotonic() >= ends:
                break
            await fault(stage)
            episode = stage.episodes[-1]
            say(f"{episode.ended - episode.began:6.1f} s  {episode.what} {', '.join(sorted(episode.touched))}")
        return await ended(stage)


async def ended(stage: Stage, lingering_s: float = LINGERING_S) -> Outcome:
    """No more messages and faults: until all is at rest and everybody has stopped, and what is to be said of it.

    `lingering_s`: how long a row may stay in an inbox for no reason.
    """
    for gateway in stage.gateways.values():
        gateway.make_no_more()
    stage.operator.make_no_more_mo()
    rest = await _come_to_rest(stage)
    await _fall(stage)
    evidence = _evidence(stage, rest)
    told = Told(evidence.operator, evidence.gateways)
    excuses = QuorumExcuses(told, stage.episodes, stage.turnstiles, stage.hearing)
    judgement = judged(evidence, told, excuses)
    lingered = [
        Finding("stayed in an inbox", f"{stay.seconds:.1f} s in that of {stay.node}, from {stay.began:.2f}")
        for stay in excuses.lingered(stage.inboxes.stays, lingering_s)
    ]
    judgement = evolve(judgement, findings=(*judgement.findings, *lingered))
    return Outcome(judgement, tuple(_outages(stage)), tuple(stage.inboxes.stays))


# Rest


async def _come_to_rest(stage: Stage) -> Rest:
    """Until nothing has moved for a while: in custody, in an inbox, at the operator, or at a gateway."""
    unrest = ""
    began = time.monotonic()
    quiet_since = began
    while (now := time.monotonic()) - quiet_since < _QUIET_S or stage.inboxes.looked < quiet_since:
        if unrest := await _unrest(stage):
            quiet_since = time.monotonic()
        if now - began > LONG_S:
            break
        await trio.sleep(_LOOK_S)
    return Rest(unrest=unrest, parked={name: await node.parked() for name, node in stage.nodes.items()}, replayed=[])


async def _unrest(stage: Stage) -> str:
    """What is still to be done."""
    found = []
    for name in stage.nodes:
        status = await stage.status(name)
        if status is None or status.custody is None:
            found.append(f"{name} does not serve")
        elif status.custody.items:
            found.append(f"{name} has {status.custody.items} in custody")
    if rows := stage.inboxes.now():
        found.append(f"in inboxes: {rows}")
    if undelivered := stage.operator.summary().open:
        found.append(f"the operator has {undelivered}")
    if submitting := sum(gateway.unanswered for gateway in stage.gateways.values()):
        found.append(f"{submitting} messages have no answer")
    return "; ".join(found)


async def _fall(stage: Stage) -> None:
    """Everybody goes in good order."""
    for gateway in stage.gateways.values():
        gateway.stop()
    async with trio.open_nursery() as nursery:
        for node in stage.nodes.values():
            nursery.start_soon(stop, node)
    await stage.operator.stop()
    for node in stage.nodes.values():
        node.log.read()


# What there is to say


def _evidence(stage: Stage, rest: Rest) -> Evidence:
    logs = {name: node.log for name, node in stage.nodes.items()}
    parked = [item for items in rest.parked.values() for item in items]
    return Evidence(
        operator=stage.operator.ledger.events,
        gateways={name: gateway.ledger.events for name, gateway in stage.gateways.items()},
        rules=NUMBERS,
        faults=Counter(episode.what for episode in stage.episodes),
        rest=rest,
        superseded=set[str]().union(*(log.superseded for log in logs.values())),
        unfinished=len(set(_unfinished(stage, parked))),
        failures=[failure for node in stage.nodes.values() for failure in node.failures],
        unexpected_lines={name: log.unexpected for name, log in logs.items() if log.unexpected},
        starts=sum(node.starts for node in stage.nodes.values()),
        errors=sum((log.errors for log in logs.values()), Counter[str]()),
    )


def _unfinished(stage: Stage, parked: list[ParkedItem]) -> Iterator[str]:
    """Messages whose gateway was told the id and has no final report, nor is that parked as maybe delivered."""
    set_aside = {item.message_id for item in parked if item.final and item.reason == Reason.MAYBE_DELIVERED.value}
    for gateway in stage.gateways.values():
        finished = {
            event.id
            for event in gateway.ledger.events
            if isinstance(event, events.Reported) and event.status == c.ESME_ROK and event.state in c.FINAL_STATES
        }
        yield from (
            event.id
            for event in gateway.ledger.events
            if isinstance(event, events.Responded)
            and event.status == c.ESME_ROK
            and event.id not in finished
            and event.id not in set_aside
        )


def _outages(stage: Stage) -> Iterator[Outage]:
    accepted = {
        name: [
            event.t
            for event in gateway.ledger.events
            if isinstance(event, events.Responded) and event.status == c.ESME_ROK
        ]
        for name, gateway in stage.gateways.items()
    }
    for episode in stage.episodes:
        gaps = (
            after - before
            for times in accepted.values()
            for before, after in pairwise(times)
            if after >= episode.began and before <= episode.ended
        )
        yield Outage(episode.what, max(gaps, default=0.0))
