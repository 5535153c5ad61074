"""A whole quorum under load, with real servers and processes, and clocks that differ: everything breaks once.

`make chaos-quorum` breaks everything again and again, in any order.
"""

import galera_cluster
import pytest
import trio

from chaos.quorum import faults, schedule
from chaos.quorum.configuration import NODES
from chaos.quorum.excuses import LINGERING_BUSY_S
from chaos.quorum.scenario import ended
from chaos.quorum.stage import set_up

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]

KINDS = {
    "kill -9 of a database",
    "kill -9 of a node",
    "kill -9 of a node and its database",
    "a database cut off from the others",
    "kill -9 of two databases of three",
    "kill -9 of all databases",
    "a database stopped and continued",
    "a node stopped and continued",
    "a rolling restart",
}


async def test_every_fault_once_under_load_with_clocks_ten_seconds_apart_loses_nothing(tmp_path, record_property):
    cluster = await trio.to_thread.run_sync(galera_cluster.shared_cluster)
    async with set_up(tmp_path, rate=40.0, seed=1, cluster=cluster, skewed=True) as stage:
        await faults.kill_all_databases(stage)
        servers = {name: await stage.server_ahead_s(name) for name in NODES}
        nodes = stage.hearing.ahead_s
        for ahead_s in (servers, nodes):  # a line is read, and an answer had, within 2.5 s at least once
            assert ahead_s["gw1"] > 2.5, ahead_s
            assert -2.5 < ahead_s["gw2"] < 0.5, ahead_s
            assert ahead_s["gw3"] < -4.5, ahead_s
        await schedule.short(stage)
        taken = {gone.node for gone in stage.hearing.gone}
        outcome = await ended(stage, LINGERING_BUSY_S)
    judgement = outcome.judgement
    assert judgement.passed, "\n".join([*map(str, judgement.findings), *map(str, outcome.outages)])
    assert set(judgement.faults) == KINDS
    assert "gw3" in taken  # it was away for longer than takeover_after_s
    assert judgement.verdict.reports_sent > 0
    for outage in outcome.outages:
        record_property(outage.what, outage.seconds)
