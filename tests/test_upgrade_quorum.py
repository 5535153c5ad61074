"""Three nodes of a real cluster go from the release before to this one, and one goes back and forth, under load.

This release is made newer than it is (later_dlrproxy.py): another schema, another version of the frames, rows of a kind
that the release before does not know. Nothing is lost, nothing is at the wrong gateway.
"""

from functools import partial
from typing import Final

import galera_cluster
import pytest
import trio
from other_releases import LATER, LATER_RELEASE, RELEASE_BEFORE, before

from chaos.quorum import faults
from chaos.quorum.excuses import LINGERING_BUSY_S
from chaos.quorum.scenario import ended
from chaos.quorum.stage import SERVER_OF, set_up

SET_ASIDE: Final = "SELECT COUNT(*) FROM dlrproxy.items WHERE name LIKE 'unreadable/%' AND content IS NOT NULL"

pytestmark = pytest.mark.processes


async def until_it_says(stage, name, what):
    async def says():
        status = await stage.status(name)
        return status is not None and what in status.quorum.why

    await stage.until(says, f"{name} says {what}")


async def nothing_is_set_aside(server):
    found = await trio.to_thread.run_sync(server.sql, SET_ASIDE)
    return int(found) == 0


async def peers(stage, name):
    """As it knows them while it serves."""
    status = await stage.status(name)
    return () if status is None else status.ring


async def reads_all(stage, name):
    status = await stage.status(name)
    return status is not None and status.custody is not None and status.custody.unreadable == 0


async def replaced(stage, name, command):
    """As docs/upgrading.md says, and its server restarted meanwhile; until it serves, linked to the others."""
    await faults.replace(stage, name, command, and_server=True)
    await stage.serving(name)

    async def is_linked():
        return {peer.state for peer in await peers(stage, name)} == {"alive"}

    await stage.until(is_linked, f"{name} is linked to the others")


@pytest.mark.timeout(600)
async def test_a_rolling_upgrade_and_a_way_back_lose_nothing(tmp_path):
    old = before()
    cluster = await trio.to_thread.run_sync(galera_cluster.shared_cluster)
    async with set_up(tmp_path, rate=30.0, seed=1, cluster=cluster, command=old) as stage:
        server = cluster.servers[SERVER_OF["gw1"]]

        await faults.replace(stage, "gw1", LATER)  # too early
        await until_it_says(stage, "gw1", "run `dlrproxy db migrate`")
        await trio.run_process([*LATER, "db", "migrate", str(tmp_path / "gw1.toml")], capture_stdout=True)
        await stage.serving("gw1")
        await replaced(stage, "gw2", LATER)

        async def knows_them():
            releases = {peer.name: peer.release for peer in await peers(stage, "gw2")}
            return releases == {"gw1": LATER_RELEASE, "gw3": RELEASE_BEFORE}

        await stage.until(knows_them, "gw2 knows which release is where")
        await replaced(stage, "gw1", old)  # back
        await replaced(stage, "gw3", LATER)  # its gateway dials gw1, so that reports go there

        async def has_set_aside():  # what only the later release can read
            return stage.nodes["gw1"].log.events["custody.unreadable_set_aside"] > 0

        await stage.until(has_set_aside, "gw1 sets something aside")
        async with faults.fault(stage, "a schema that does not fit", "gw1"):
            server.sql("UPDATE dlrproxy.schema_version SET compatible_from=version")
            await until_it_says(stage, "gw1", "upgrade this node")
            await stage.silent("gw1")
            server.sql("UPDATE dlrproxy.schema_version SET compatible_from=1")
        await faults.replace(stage, "gw1", LATER)
        await stage.until(partial(nothing_is_set_aside, server), "all is readable")  # there, or at its heir
        for name in stage.nodes:
            await stage.until(partial(reads_all, stage, name), f"{name} can read all that it has")

        judgement = (await ended(stage, LINGERING_BUSY_S)).judgement
    assert judgement.passed, "\n".join(map(str, judgement.findings))
