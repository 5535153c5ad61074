"""A ring grows by entries in `[[peers]]` and SIGHUP: with real processes, under load."""

import signal

import pytest
import trio
from node_process import open_fleet, tables_of, write_config
from test_kill import SETTINGS, Job

from dlrproxy.demo.ports import reserved

pytestmark = pytest.mark.processes

NAMES = ("gw1", "gw2", "gw3")
SHARE = 150  # messages at each gateway


async def test_a_node_alone_becomes_a_ring_of_two_and_of_three_without_a_restart(tmp_path):
    with reserved(1) as (operator_port,):
        async with (
            open_fleet(tmp_path, dict.fromkeys(NAMES, operator_port), SETTINGS) as fleet,
            trio.open_nursery() as nursery,
        ):
            job = Job(fleet, nursery, operator_port)

            def write_tables(*names):
                """The same table at each of them; a node alone has none."""
                links = {name: fleet.link_ports[name] for name in names} if len(names) > 1 else {}
                for name in names:
                    tables = tables_of(name, operator_port, fleet.gateway_ports[name], links, SETTINGS)
                    write_config(fleet[name].config, tables)

            async def join(name, *others):
                """Written everywhere, reloaded by the others, and then started."""
                write_tables(*others, name)
                for other in others:
                    before = fleet[other].mark()
                    fleet[other].send(signal.SIGHUP)
                    await fleet[other].seen("config.reloaded", since=before, peers=True)
                await fleet.start(name)
                for other in others:
                    await fleet[other].seen("peer.state", peer=name, new="alive")
                await job.start_gateway(name, SHARE)

            await job.start_operator()
            write_tables("gw1")
            await fleet["gw1"].start()
            await job.start_gateway("gw1", SHARE)
            await job.until(lambda: job.reported > 0, "gw1 alone delivers")
            await join("gw2", "gw1")
            await job.until(lambda: bool(fleet["gw1"].found("dlr.settled", by="gw2")), "gw2 gets what came to gw1")
            await join("gw3", "gw1", "gw2")
            await job.done(len(NAMES) * SHARE)
            assert {name: fleet[name].starts for name in NAMES} == dict.fromkeys(NAMES, 1)
            for name in NAMES:  # each took reports of the others', and they have got them
                assert {event["by"] for event in fleet[name].found("dlr.settled")} <= set(NAMES) - {name}
            assert fleet["gw1"].found("dlr.settled", by="gw3")
            nursery.cancel_scope.cancel()
