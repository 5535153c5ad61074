"""A message that only the journal of the old active has, and its report, which comes to the new one before that."""

import pytest
import trio
from one_node import receive, submit, take
from pair_scene import pair_scene
from relay_world import heads, receipt, submit_sm, submit_sm_resp

from dlrproxy.keeping import intake
from dlrproxy.modes.merging import CAME_HOME
from dlrproxy.store.port import Table
from dlrproxy.store.sql import homecoming
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER

pytestmark = pytest.mark.processes

OTHER = b"0a1b2c"
JOURNALLED = b"0a1b2d"


async def notes(store):
    return [name for name, _ in await store.scan(Table.META, CAME_HOME) if name.startswith(CAME_HOME)]


async def test_a_report_that_came_before_its_message_was_brought_home_is_delivered_once(tmp_path, monkeypatch):
    for module, name in ((intake, "LOOK_S"), (homecoming, "TRY_AGAIN_S")):  # which would only make it long
        monkeypatch.setattr(module, name, 0.3)
    async with pair_scene(tmp_path, pair={"fence_after_s": 60.0, "promote_after_s": 90.0}) as scene:
        await scene.start("a", "b")
        bind = await scene.bound()
        await scene.active("a")
        gateway = await scene.bound_gateway("a")
        await submit(gateway, bind, OTHER)
        scene.servers.servers["a"].pause()
        await gateway.send(submit_sm(7))
        sequence = HEADER.unpack_from(await receive(bind))[3]
        await bind.send(submit_sm_resp(sequence, JOURNALLED))
        assert await receive(gateway) == submit_sm_resp(7, JOURNALLED)  # its database does not have it
        await trio.to_thread.run_sync(scene.servers.servers["a"].kill)
        scene.kill("a")
        await scene.ended("a")

        scene["b"].promote(force=True)  # a person has seen that a is down
        bind = await scene.bound()
        await scene.active("b")
        await bind.send(receipt(8, JOURNALLED), receipt(9, b"unknown"))
        assert {heads([await receive(bind)])[0] for _ in range(2)} == {
            ("deliver_sm_resp", c.ESME_ROK, 8),
            ("deliver_sm_resp", c.ESME_ROK, 9),
        }
        keeper, store = scene["b"].term.keeper, scene["b"].term.store
        await scene.until(lambda: keeper.counts["parked.unclaimed"] == 2)
        gateway = await scene.bound_gateway("b")

        await scene.start("a")  # without its server
        await take(gateway, JOURNALLED)
        await scene.until(lambda: not keeper.in_custody())
        assert keeper.machine.count().parked == 1
        with trio.fail_after(100):
            while await notes(store):  # noqa: ASYNC110 - what is behind it is a database
                await trio.sleep(0.02)
        await scene.until(lambda: scene["a"].pair().journal_rows == 0)
        # The first thing that the gateway hears after it is the other one's report.
        await bind.send(receipt(10, OTHER))
        await take(gateway, OTHER)
        assert keeper.counts["replayed"] == 1
