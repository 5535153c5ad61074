"""Three nodes of a ring go from the release before to this one, and one goes back and forth, under load.

This release is made newer than it is (later_dlrproxy.py). Nothing is lost, nothing is at the wrong gateway.
"""

from typing import Final

import pytest
from other_releases import LATER, LATER_RELEASE, RELEASE_BEFORE, before
from test_kill import play

pytestmark = pytest.mark.processes

MESSAGES: Final = 2400


async def replace(fleet, name, command):
    """In good order, on the same data directory; until it is linked to the others."""
    await fleet[name].stop()
    fleet[name].command = command
    await fleet.start(name)


async def test_a_rolling_upgrade_and_a_way_back_lose_nothing(tmp_path):
    old = before()
    async with play(tmp_path, nodes=3, messages=MESSAGES, command=old) as job:
        await job.under_way(0.05)
        for name in ("gw1", "gw2"):
            await replace(job.fleet, name, LATER)
        releases = {event["peer"]: event["release"] for event in job.fleet["gw2"].found("peer.up")}
        assert releases == {"gw1": LATER_RELEASE, "gw3": RELEASE_BEFORE}
        await replace(job.fleet, "gw3", LATER)
        for command in (old, LATER):
            await replace(job.fleet, "gw1", command)
        verdict = await job.done(MESSAGES)
        assert verdict.ownerless == 0
