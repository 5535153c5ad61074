"""How what serves lets go of operators, custody and gateways, and takes them back.

release        at once: nothing more is sent or answered, whatever is in flight
wind_down      for good, within a bounded time: what is in flight is finished, and what is left stays in the store
empty_custody  for as long as it is wanted: no binds and no MT, but the gateways get what is in custody for them
serve_again    undoes that

`fronts` is the term's own mapping of them: a reload changes it meanwhile.
"""

from collections.abc import Callable, Mapping
from typing import Final

import trio

from dlrproxy.custody import Keeper
from dlrproxy.failures import leaves
from dlrproxy.front import Front
from dlrproxy.logs import logger
from dlrproxy.modes.ring import RingMode
from dlrproxy.sessions.connection import GOODBYE_S
from ring.tls import TlsError

_RELEASE_S: Final = 10.0  # unbinding from the operators, and again from the gateways; each is bounded on its own

Fronts = Mapping[str, Front]


async def release(fronts: Fronts, why: str) -> None:
    """See `Term.release`."""
    ending = list(fronts.values())
    for front in ending:
        front.cut(why)
    with trio.move_on_after(GOODBYE_S):
        for front in ending:
            await front.parted()


async def wind_down(fronts: Fronts, keeper: Keeper, ring: RingMode, drain_s: float) -> None:
    """Finish what is in flight, let go of operators, hand custody on, let go of gateways."""
    log = logger("node")
    log.info("node.stopping", drain_s=drain_s, custody=keeper.in_custody())
    ring.set_draining(draining=True)
    keeper.leave()
    deadline = trio.current_time() + drain_s
    await quiet(fronts, deadline)
    unfinished = {name: front.relay.in_flight for name, front in fronts.items() if front.relay.in_flight}
    if unfinished and trio.current_time() >= deadline:  # else the operators have sent more meanwhile
        log.warning("node.drain_time_over", in_flight=unfinished)
    with trio.move_on_after(_RELEASE_S):
        await _release_binds(fronts)
    await quiet(fronts, deadline)  # for what the operators have sent while they were let go of
    with trio.move_on_at(deadline):
        await keeper.handed_on()
    left = {state.name.lower(): number for state, number in keeper.machine.by_state().items()}
    log.info("node.custody_handed_on", count=keeper.counts["handed_on"], left=left)
    with trio.move_on_after(_RELEASE_S):
        async with trio.open_nursery() as nursery:
            for front in fronts.values():
                nursery.start_soon(front.unbind_gateways)


async def quiet(fronts: Fronts, deadline: float) -> None:
    """Refuse MT, and wait until everything that is in flight is answered: at most until `deadline`."""
    async with trio.open_nursery() as nursery:
        for front in fronts.values():
            nursery.start_soon(front.quiet, deadline)


async def _release_binds(fronts: Fronts) -> None:
    async with trio.open_nursery() as nursery:
        for front in fronts.values():
            nursery.start_soon(front.release_binds)


async def empty_custody(fronts: Fronts, keeper: Keeper, ring: RingMode) -> None:
    """For taking the node out of the fleet: hold no operator binds, take no MT, and see custody become empty.

    What others can deliver as well is handed on to them. The gateways stay bound, for what is delivered here.
    """
    log = logger("node")
    log.info("node.emptying_custody", custody=keeper.in_custody())
    ring.set_draining(draining=True)
    keeper.leave()
    for front in fronts.values():
        front.relay.draining = True
    await _release_binds(fronts)
    await keeper.empty()
    log.info("node.custody_empty")


async def serve_again(fronts: Fronts, keeper: Keeper, ring: RingMode, stopping: Callable[[], bool]) -> None:
    """`stopping` says that it was told to stop meanwhile, and leaves already."""
    if stopping():
        return
    log = logger("node")
    ring.set_draining(draining=False)
    keeper.stay()
    for front in list(fronts.values()):
        if stopping():
            return
        problems: list[str] = []
        try:
            await front.resume()
        except* (OSError, TlsError) as group:
            problems = [str(error) for error in leaves(group)]
        if problems:
            log.error("node.operator_without_binds", operator=front.name, detail="; ".join(problems))
    log.info("node.back_in_service", custody=keeper.in_custody())
