"""Whole processes of an active-passive pair, over the servers and between the ends of `pair_scene`.

async with pair_processes(tmp_path) as (scene, nodes):
    await nodes["a"].start()
    bind = await scene.bound()
    await nodes["a"].seen("pair.serving")
"""

import contextlib
from functools import partial

import trio
from admin_world import asking
from node_process import NodeProcess
from pair_scene import LONG_S, pair_scene

from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.admin.view import NodeStatus


class PairProcess(NodeProcess):
    """One node, as a process."""

    def __init__(self, name, directory, text, nursery):
        config = directory / f"{name}.toml"
        config.write_text(text)
        super().__init__(name, config, nursery)
        self._ask = partial(asking, directory / name)

    async def promote(self):
        await self._ask("post", "/promote", PairStatus, {})

    async def pair(self):
        return (await self._ask("get", "/status", NodeStatus)).pair

    async def until_pair(self, holds):
        """Wait until what it says of the pair makes `holds` true."""
        with trio.move_on_after(LONG_S):
            while not holds(await self.pair()):  # noqa: ASYNC110 - what real servers lead to
                await trio.sleep(0.1)
            return
        raise AssertionError(self.story(f"says {await self.pair()}"))


@contextlib.asynccontextmanager
async def pair_processes(directory, **tables):
    """None is started; all are killed at the end. `tables` as for `pair_scene`."""
    async with pair_scene(directory, **tables) as scene, trio.open_nursery() as nursery:
        nodes = {name: PairProcess(name, directory, text, nursery) for name, text in scene.texts.items()}
        yield scene, nodes
        for node in nodes.values():
            node.check()
        nursery.cancel_scope.cancel()
