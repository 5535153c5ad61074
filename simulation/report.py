"""Runs seeds, and says what became of them: how fast, and the first that failed, with its trace."""

import logging
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import trio
from attrs import frozen

from simulation.history import Event
from simulation.world import Outcome, World
from simulation.wrong import FoundError, Wrong

_SHOWN: Final = 400  # events of a trace, the last ones


@frozen
class Failure:
    seed: int
    profile: str
    wrong: Wrong
    what: str
    trace: str  # of the report or MO, if one is to blame


def run_seed(seed: int, profile: str | None = None) -> Outcome | Failure:
    """Must run inside trio (`simulation/tasks.py` says why); `run_seeds` sees to it."""
    return _run(World(seed, profile))


def _run(world: World) -> Outcome | Failure:
    try:
        return world.run()
    except FoundError as error:
        return Failure(world.seed, world.profile_name, error.wrong, str(error), error.trace)
    except Exception:  # noqa: BLE001 - whatever the code under test raises is what was looked for
        return Failure(world.seed, world.profile_name, Wrong.BROKEN, traceback.format_exc(), "")
    finally:
        world.close()


def run_seeds(seeds: Iterable[int], profile: str | None = None) -> list[Outcome | Failure]:
    """All of them, also after one that failed."""

    async def run_all() -> list[Outcome | Failure]:
        await trio.lowlevel.checkpoint()
        return [run_seed(seed, profile) for seed in seeds]

    with _quietly():
        return trio.run(run_all)


@contextmanager
def _quietly() -> Iterator[None]:
    """What the nodes log is of no interest; their route events are in the history."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def run_batch(batch: tuple[Iterable[int], str | None]) -> list[Outcome | Failure]:
    """What a worker process does; it must find this by name, which is why it is not in __main__."""
    return run_seeds(*batch)


def story(failure: Failure, *, whole: bool = False) -> str:
    """The same seed again, with every frame: what happened to the report that is to blame, or `whole`: to all."""

    async def again() -> list[Event]:
        await trio.lowlevel.checkpoint()
        world = World(failure.seed, failure.profile, frames=True)
        _run(world)
        return world.history.events

    with _quietly():
        events = trio.run(again)
    about = failure.trace.partition("#")[0]
    shown = [event for event in events if whole or _is_about(event, about)]
    lines = [str(event) for event in shown[-_SHOWN:]]
    return "\n".join([f"seed {failure.seed}, profile {failure.profile}: {failure.what}", *lines])


def _is_about(event: Event, trace: str) -> bool:
    """Of frames only those of that report or MO; of anything else also what concerns all."""
    if event.trace:
        return not trace or event.trace.partition("#")[0] == trace
    return event.what != "frame"
