"""Each fault in which a process is gone or stands still: it happens, and is over when all serve and messages flow."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from chaos.nodes import Node
from chaos.quorum.configuration import NODES
from chaos.quorum.stage import SERVER_OF, Episode, Stage

# drain_s, twice what a release of the node may take, and what a busy machine adds: after that a stop counts as failed.
STOP_S: Final = 120.0


@asynccontextmanager
async def fault(stage: Stage, what: str, *touched: str) -> AsyncIterator[None]:
    """Until all serve and messages flow, once the block has ended. `touched`: nodes that it stops, or cuts off."""
    episode = Episode(what, frozenset(touched), time.monotonic())
    stage.episodes.append(episode)
    yield
    await stage.serving()
    await stage.flowing()
    episode.ended = time.monotonic()


async def kill_database(stage: Stage, name: str, away_s: float = 3.0) -> None:
    async with fault(stage, "kill -9 of a database", name):
        await stage.on(name, "kill")
        await trio.sleep(away_s)
        await stage.in_cluster("restart", SERVER_OF[name])


async def kill_node(stage: Stage, name: str, away_s: float = 3.0) -> None:
    async with fault(stage, "kill -9 of a node", name):
        await stage.nodes[name].kill()
        await trio.sleep(away_s)
        stage.nodes[name].start()


async def kill_both(stage: Stage, name: str, away_s: float) -> None:
    """A machine."""
    async with fault(stage, "kill -9 of a node and its database", name):
        await stage.nodes[name].kill()
        await stage.on(name, "kill")
        await trio.sleep(away_s)
        await stage.in_cluster("restart", SERVER_OF[name])
        stage.nodes[name].start()


async def isolate(stage: Stage, name: str) -> None:
    """Until its node has let go of everything; then it is healed."""
    async with fault(stage, "a database cut off from the others", name):
        await stage.in_cluster("isolate", SERVER_OF[name])
        await stage.silent(name)
        await stage.in_cluster("isolate", SERVER_OF[name], isolated=False)


async def kill_two(stage: Stage, first: str, second: str) -> None:
    """The survivor lets go of everything; then all come back."""
    (survivor,) = set(NODES) - {first, second}
    async with fault(stage, "kill -9 of two databases of three", *NODES):
        for name in (first, second):
            await stage.on(name, "kill")
        await stage.silent(survivor)
        await stage.in_cluster("restart_dead")


async def kill_all_databases(stage: Stage) -> None:
    async with fault(stage, "kill -9 of all databases", *NODES):
        for name in NODES:
            await stage.on(name, "kill")
        await stage.in_cluster("restart_dead")


async def pause_database(stage: Stage, name: str, for_s: float) -> None:
    async with fault(stage, "a database stopped and continued", name):
        await stage.on(name, "pause")
        await trio.sleep(for_s)
        await stage.on(name, "go_on")


async def pause_node(stage: Stage, name: str, for_s: float) -> None:
    """For longer than takeover_after_s, it wakes up and is no longer itself."""
    async with fault(stage, "a node stopped and continued", name):
        stage.nodes[name].pause()
        try:
            await trio.sleep(for_s)
        finally:
            stage.nodes[name].resume()


async def restart_rolling(stage: Stage, names: Sequence[str] = NODES) -> None:
    """One node at a time, in good order, as for an upgrade: nothing fails, so nothing may come twice."""
    async with fault(stage, "a rolling restart"):
        stage.episodes[-1].restarted = frozenset(names)
        for name in names:
            await stop(stage.nodes[name])
            stage.nodes[name].start()
            await stage.serving()


async def stop(node: Node) -> None:
    """In good order; that it did not is a failure of the node's."""
    if node.pid is not None and not await node.stop(STOP_S):
        node.failures.append(f"Node {node.name} did not end within {STOP_S:.0f} s of SIGTERM.")


async def replace(stage: Stage, name: str, command: Sequence[str], *, and_server: bool = False) -> None:
    """Another release comes in a node's place, in good order; it need not serve.

    With `and_server` its server is stopped and started meanwhile, in good order as well.
    """
    restarted = frozenset({name})
    episode = Episode("a node replaced by one of another release", frozenset(), time.monotonic(), restarted=restarted)
    stage.episodes.append(episode)
    await stop(stage.nodes[name])
    if and_server:
        await stage.on(name, "stop")
        await stage.on(name, "start")
        await stage.in_cluster("wait_synced", SERVER_OF[name], size=len(NODES))
    stage.nodes[name].becomes(command)
    stage.nodes[name].start()
    episode.ended = time.monotonic()
