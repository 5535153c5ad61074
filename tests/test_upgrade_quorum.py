"""Three nodes of a real cluster go from the release before to this one, and one goes back and forth, under load.

This release is made newer than it is (later_dlrproxy.py): another schema, another version of the frames, rows of a kind
that the release before does not know. Nothing is lost, nothing is at the wrong gateway.
"""

from functools import partial
from typing import Final

import pytest
import trio
from other_releases import LATER, LATER_RELEASE, RELEASE_BEFORE, before
from quorum_scene import SERVER_OF, quorum_scene

SET_ASIDE: Final = "SELECT COUNT(*) FROM dlrproxy.items WHERE name LIKE 'unreadable/%' AND content IS NOT NULL"

pytestmark = pytest.mark.processes


async def until_it_says(scene, name, what):
    async def says():
        status = await scene.status(name)
        return status is not None and what in status.quorum.why

    await scene.until(says, f"{name} says {what}")


async def nothing_is_set_aside(server):
    found = await trio.to_thread.run_sync(server.sql, SET_ASIDE)
    return int(found) == 0


async def replaced(scene, name, command):
    """As docs/upgrading.md says, and its server restarted meanwhile; until it serves, linked to the others."""
    await scene.replace(name, command, and_server=True)
    await scene.serving(name)
    for other in scene.nodes.keys() - {name}:
        await scene.nodes[name].seen("peer.up", peer=other)


@pytest.mark.timeout(600)
async def test_a_rolling_upgrade_and_a_way_back_lose_nothing(tmp_path):
    old = before()
    async with quorum_scene(tmp_path, command=old) as scene:
        server = scene.cluster.servers[SERVER_OF["gw1"]]

        await scene.replace("gw1", LATER)  # too early
        await until_it_says(scene, "gw1", "run `dlrproxy db migrate`")
        await trio.run_process([*LATER, "db", "migrate", str(scene.nodes["gw1"].config)], capture_stdout=True)
        await scene.serving("gw1")
        await replaced(scene, "gw2", LATER)
        of_peers = {peer.name: peer.release for peer in (await scene.status("gw2")).ring}
        assert of_peers == {"gw1": LATER_RELEASE, "gw3": RELEASE_BEFORE}
        await replaced(scene, "gw1", old)  # back
        await replaced(scene, "gw3", LATER)  # its gateway dials gw1, so that reports go there
        await scene.nodes["gw1"].seen("custody.unreadable_set_aside")  # what only the later release can read
        async with scene._fault("a schema that does not fit"):
            server.sql("UPDATE dlrproxy.schema_version SET compatible_from=version")
            await until_it_says(scene, "gw1", "upgrade this node")
            await scene.silent("gw1")
            server.sql("UPDATE dlrproxy.schema_version SET compatible_from=1")
        await scene.replace("gw1", LATER)
        await scene.until(partial(nothing_is_set_aside, server), "all is readable")  # there, or at its heir

        await scene.rest()
        assert await scene.problems() == [], scene.outages()
        assert [(await scene.status(name)).custody.unreadable for name in scene.nodes] == [0, 0, 0]
