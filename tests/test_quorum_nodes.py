"""A whole quorum under load, with real servers and processes: what breaks most is broken once, and nothing is lost.

`make chaos-quorum` breaks everything, again and again.
"""

import pytest
from quorum_scene import quorum_scene

pytestmark = pytest.mark.processes


@pytest.mark.timeout(600)
async def test_machines_and_the_quorum_are_lost_under_load_and_nothing_else_is(tmp_path):
    async with quorum_scene(tmp_path) as scene:
        await scene.kill_both("gw1", away_s=9.0)
        status = await scene.status("gw2")
        assert status.quorum.members["gw1"].epoch == 3  # claimed, taken, claimed again
        await scene.kill_two("gw2", "gw3")
        await scene.kill_all_databases()
        await scene.rest()
        assert await scene.problems() == [], scene.outages()
