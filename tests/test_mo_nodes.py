"""Long MO over real processes: parts come in on the binds of three nodes at once, and one node leaves meanwhile."""

from typing import Final

import pytest
import trio
from node_process import PASSWORD, SYSTEM_ID, open_fleet

from dlrproxy.demo.ports import reserved
from dlrproxy.simulator.gateway import Gateway
from dlrproxy.simulator.judge import judge
from dlrproxy.simulator.ledger import Ledger
from dlrproxy.simulator.operator import Operator
from dlrproxy.simulator.options import GatewayOptions, MoOptions, OperatorOptions

pytestmark = pytest.mark.processes

NAMES: Final = ("gw1", "gw2", "gw3")
SETTLE_S: Final = 60.0
LOOK_S: Final = 0.05


async def test_all_parts_reach_one_gateway_while_a_node_leaves_and_comes_back(tmp_path):
    messages, parts = 60, 3
    ledgers = {name: Ledger() for name in NAMES}
    told = Ledger()

    def verdict():
        return judge(told.events, {name: ledger.events for name, ledger in ledgers.items()})

    async def until(holds, what):
        with trio.move_on_after(SETTLE_S):
            while not holds():
                for node in fleet.nodes.values():
                    node.check()
                await trio.sleep(LOOK_S)
            return
        raise AssertionError(f"not {what} within {SETTLE_S:.0f} s: {verdict()}")

    with reserved(1) as (port,):
        async with open_fleet(tmp_path, dict.fromkeys(NAMES, port)) as fleet, trio.open_nursery() as nursery:
            await fleet.start()
            for name in NAMES:
                gateway = Gateway(
                    GatewayOptions(
                        port=fleet.gateway_ports[name],
                        name=name,
                        system_id=SYSTEM_ID,
                        password=PASSWORD,
                        give_up_s=SETTLE_S,
                        reconnect_ms=(100, 500),
                    ),
                    ledgers[name],
                )
                nursery.start_soon(gateway.run)
            mo = MoOptions(rate=100.0, count=messages, after_binds=len(NAMES), concatenated=1.0, parts=parts)
            options = OperatorOptions(port=port, accounts={SYSTEM_ID: PASSWORD}, retry_ms=200, mo=mo)
            await nursery.start(Operator(options, told).run)
            await until(lambda: verdict().mo_delivered >= messages * parts / 4, "under way")
            await fleet["gw2"].stop()
            await until(lambda: verdict().mo_delivered >= messages * parts / 2, "half of it delivered without gw2")
            await fleet.start("gw2")
            done = messages * parts
            await until(lambda: verdict().mo_delivered == done and not verdict().mo_lost, "all delivered")
            said = {event["trace"] for node in fleet.nodes.values() for event in node.found("mo.split", since=0)}
            await fleet.stop()
            nursery.cancel_scope.cancel()
    end = verdict()
    assert end.mo_sent == done
    # What was on its way when gw2 let go of its links may have come again, to the same gateway.
    assert end.mo_split <= len(said)
