"""A pair goes from the release before to this one, made newer than it is (later_dlrproxy.py): nothing is lost."""

import pytest
import trio
from one_node import receive, report, submit, take
from other_releases import LATER, before
from pair_processes import pair_processes
from relay_world import heads, receipt

from protocols.smpp import constants as c

pytestmark = pytest.mark.processes

FIRST, SECOND = b"0a1b2c", b"0a1b2d"


async def test_a_message_of_the_release_before_has_its_report_from_the_later_one(tmp_path):
    old = before()
    async with pair_processes(tmp_path, pair={"fence_after_s": 20.0, "promote_after_s": 40.0}) as (scene, nodes):
        a, b = nodes["a"], nodes["b"]
        a.command = b.command = old
        scene.servers.servers["a"].sql("DROP DATABASE dlrproxy; CREATE DATABASE dlrproxy")
        await trio.run_process([*old, "db", "init", str(a.config)], capture_stdout=True)
        await a.start()
        bind = await scene.bound()
        await b.start()
        gateway = await scene.bound_gateway("a")
        await submit(gateway, bind, FIRST)

        await trio.run_process([*LATER, "db", "migrate", str(a.config)], capture_stdout=True)
        await submit(gateway, bind, SECOND)  # the active of the release before goes on
        await b.stop()
        b.command = LATER
        await b.start()
        await b.until_pair(lambda pair: pair.role == "standby")
        await a.until_pair(lambda pair: not pair.degraded)

        async with scene.parting(bind, gateway):
            await a.stop()  # it hands over
        await b.promote()
        bind = await scene.bound()
        await b.seen("pair.serving")
        await bind.send(receipt(7, FIRST))
        assert heads([await receive(bind)]) == [("deliver_sm_resp", c.ESME_ROK, 7)]  # its gateway is not here yet
        gateway = await scene.bound_gateway("b")
        await take(gateway, FIRST)
        await report(gateway, bind, SECOND)
