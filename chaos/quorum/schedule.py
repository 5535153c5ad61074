"""Which faults a run has."""

from collections.abc import Awaitable, Callable, Iterator
from random import Random

import trio

from chaos.quorum import faults, unfit
from chaos.quorum.configuration import NODES, TAKEOVER_AFTER_S
from chaos.quorum.stage import Stage

Fault = Callable[[Stage], Awaitable[None]]


def drawn(random: Random) -> Iterator[Fault]:
    """One of each kind at any node, in any order; then again, without end."""
    while True:
        yield from _each_once(random)


def _each_once(random: Random) -> list[Fault]:
    one, two, three = random.sample(NODES, len(NODES))
    short, long, away, paused = (random.uniform(*span) for span in ((0.5, 8), (1, 15), (0.1, 6), (0.5, 8)))
    asleep, locked = random.uniform(1, 15), random.uniform(2, 8)
    unfit_s = [random.uniform(0.5, 8) for _ in range(6)]  # that is for less than takeover_after_s, and for more
    resets = random.random() < 0.5
    every: list[Fault] = [
        lambda stage: faults.kill_database(stage, one, away_s=short),
        lambda stage: faults.kill_node(stage, two, away_s=away),
        lambda stage: faults.kill_both(stage, three, away_s=long),
        lambda stage: faults.isolate(stage, one),
        lambda stage: faults.kill_two(stage, two, three),
        lambda stage: faults.pause_database(stage, two, for_s=paused),
        lambda stage: faults.pause_node(stage, three, for_s=asleep),
        faults.kill_all_databases,
        faults.restart_rolling,
        lambda stage: unfit.read_only(stage, one, for_s=unfit_s[0]),
        lambda stage: unfit.no_rights(stage, two, for_s=unfit_s[1]),
        lambda stage: unfit.no_account(stage, three, for_s=unfit_s[2]),
        lambda stage: unfit.no_connections(stage, one, for_s=unfit_s[3]),
        lambda stage: unfit.black_hole(stage, two, for_s=unfit_s[4], reset=resets),
        lambda stage: unfit.full_disk(stage, three, for_s=unfit_s[5]),
        lambda stage: unfit.locked(stage, one, for_s=locked),
    ]
    return random.sample(every, len(every))


async def short(stage: Stage) -> None:
    """Every kind of fault once but for the death of all servers, for `make test`.

    What happens at two nodes at a time leaves the third one alone. Two servers are killed last, those whose clocks were
    skewed: they come back with right ones, without a start more.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(faults.kill_database, stage, "gw1", 1.0)
        nursery.start_soon(faults.kill_node, stage, "gw2", 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(faults.kill_both, stage, "gw3", TAKEOVER_AFTER_S + 1)
        nursery.start_soon(faults.pause_node, stage, "gw1", 4.0)
    await faults.pause_database(stage, "gw2", 3.0)
    await faults.isolate(stage, "gw1")
    await faults.restart_rolling(stage, ("gw2",))
    stage.skew_servers(on=False)
    await faults.kill_two(stage, "gw1", "gw3")
