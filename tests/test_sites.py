"""Two sites, the prime one with more than half of the weight: each is lost under load, with real servers and processes.

What `check-config` and `status` say beforehand is what happens. The prime site, lost for good, is ended by one command.
"""

import json

import pytest
import trio
from click.testing import CliRunner
from galera_cluster import Cluster

from chaos.quorum import faults
from chaos.quorum.configuration import ACCOUNT, NODES, data_dir, file
from chaos.quorum.excuses import LINGERING_BUSY_S
from chaos.quorum.scenario import ended
from chaos.quorum.stage import SERVER_OF, set_up
from dlrproxy.cli import main

pytestmark = pytest.mark.processes

PRIME, *OTHERS = NODES
SETTINGS = {"weights": {PRIME: 3}, "sites": {PRIME: "north"} | dict.fromkeys(OTHERS, "south")}


async def in_thread(function, *args):
    return await trio.to_thread.run_sync(function, *args)


async def command(*arguments):
    return await in_thread(CliRunner().invoke, main, [str(argument) for argument in arguments])


async def predicted(stage):
    """What `check-config` says of each site, and what `status` says."""
    said = (await command("check-config", file(stage.directory, PRIME))).output
    sites = ("site north", "site south")
    of_file = {site: f"  survives the loss of {site}" in said for site in sites}
    assert all(f"the loss of {site}" in said for site in sites)
    losses = (await stage.status(PRIME)).quorum.losses
    assert of_file == {loss.of: loss.survived for loss in losses if loss.of in sites}
    return of_file


async def flows_through(stage, *names):
    """Until every gateway is served, by these nodes alone."""
    await stage.serving(*names)
    await stage.flowing()


def with_admin(file):
    """The same configuration with the account that `db bootstrap` needs."""
    user = f'user = "{ACCOUNT}"'
    made = file.with_name(f"admin-{file.name}")
    made.write_text(file.read_text().replace(user, f'{user}\nadmin_user = "root"'))
    return made


async def has_taken(stage, node, lost):
    """Until `node` knows that the lost one is fenced, and has an heir."""

    async def taken():
        status = await stage.status(node)
        member = None if status is None else status.quorum.members.get(lost)  # a server may be silent for a moment
        return member is not None and member.taken and not status.quorum.apart

    await stage.until(taken, f"{lost} is taken over from")


@pytest.mark.timeout(600)
async def test_each_site_is_lost_under_load_and_nothing_else_is(tmp_path):
    cluster = Cluster(weights={SERVER_OF[PRIME]: 3})
    try:
        await in_thread(cluster.start)
        async with set_up(tmp_path, rate=30.0, seed=1, cluster=cluster, settings=SETTINGS) as stage:
            assert await predicted(stage) == {"site north": False, "site south": True}
            bootstrap = ("db", "bootstrap", with_admin(file(stage.directory, OTHERS[0])))
            refused = await command(*bootstrap, "--yes")
            assert (refused.exit_code, "there is nothing to do" in refused.output) == (1, True)

            async with faults.fault(stage, "the other site is lost", *OTHERS):
                for name in OTHERS:
                    cluster.servers[SERVER_OF[name]].kill()
                for name in OTHERS:
                    await stage.silent(name)
                await flows_through(stage, PRIME)
                await in_thread(cluster.restart_dead)

            async with faults.fault(stage, "the prime site is lost", *NODES):
                await stage.nodes[PRIME].kill()
                cluster.servers[SERVER_OF[PRIME]].kill()
                for name in OTHERS:
                    await stage.silent(name)
                made = await command(*bootstrap, "--yes")
                assert made.exit_code == 0, made.output
                assert "the cluster goes on, with 2 servers of weight 2" in made.output
                await flows_through(stage, *OTHERS)
                await has_taken(stage, OTHERS[0], PRIME)
                await in_thread(cluster.restart_dead)
                stage.nodes[PRIME].start()

            shown = await command("status", "--data-dir", data_dir(stage.directory, PRIME), "--json")
            server = json.loads(shown.output)["quorum"]["server"]
            assert (server["primary"], server["size"], server["weight"]) == (True, 3, 5)
            judgement = (await ended(stage, LINGERING_BUSY_S)).judgement
        assert judgement.passed, "\n".join(map(str, judgement.findings))
    finally:
        await in_thread(cluster.close)
