"""Two joined rings of real processes under load: a report that arrives in the wrong one reaches its gateway."""

from contextlib import asynccontextmanager
from typing import Final

import pytest
import trio
from node_process import Fleet, open_fleet
from test_kill import Job

from dlrproxy.demo.ports import LOOPBACK, reserved

pytestmark = pytest.mark.processes

SETTINGS: Final = {"node": {"drain_s": 40}}
RINGS: Final = {"north": ("gw1", "gw2"), "south": ("gw3", "gw4")}


class BothRings(Fleet):
    """The fleets of two clusters, as one."""

    def __init__(self, fleets: dict[str, Fleet]) -> None:
        self.fleets = fleets
        super().__init__(
            {name: node for fleet in fleets.values() for name, node in fleet.nodes.items()},
            {name: port for fleet in fleets.values() for name, port in fleet.gateway_ports.items()},
            {name: port for fleet in fleets.values() for name, port in fleet.link_ports.items()},
        )

    async def start(self, *names: str) -> None:
        async with trio.open_nursery() as nursery:
            for fleet in self.fleets.values():
                if mine := [name for name in names or fleet.nodes if name in fleet.nodes]:
                    nursery.start_soon(fleet.start, *mine)


@asynccontextmanager
async def play(directory, gates: tuple[str, ...], messages: int, secret: str = ""):
    """A job over both rings: one operator sends every report to any node of either. `gates`: "cluster/node".

    With a `secret` the join is encrypted.
    """
    scheme, secured = "ws", {}
    if secret:
        scheme, secured = "wss", {"secret_file": "join.secret"}
        (directory / "join.secret").write_text(secret)
        (directory / "join.secret").chmod(0o600)
    with reserved(1 + len(gates)) as (operator_port, *ports):
        urls = [{"name": gate, "url": f"{scheme}://{LOOPBACK}:{port}"} for gate, port in zip(gates, ports, strict=True)]
        north, south = ({**SETTINGS, "ring": {"cluster": ring}, "join": {**secured, "gates": urls}} for ring in RINGS)
        async with (
            open_fleet(directory, dict.fromkeys(RINGS["north"], operator_port), north) as first,
            open_fleet(directory, dict.fromkeys(RINGS["south"], operator_port), south) as second,
            trio.open_nursery() as nursery,
        ):
            fleet = BothRings({"north": first, "south": second})
            job = Job(fleet, nursery, operator_port)
            await job.start_operator()
            await fleet.start()
            for name in fleet.nodes:
                await job.start_gateway(name, messages // len(fleet.nodes))
            yield job
            nursery.cancel_scope.cancel()


def crossed(job: Job) -> int:
    """Reports that a node has let go of in favour of one in the other ring."""
    return sum("/" in event["by"] for node in job.fleet.nodes.values() for event in node.found("dlr.settled", since=0))


async def test_every_report_reaches_its_gateway_in_whichever_ring_it_arrives(tmp_path):
    async with play(
        tmp_path, ("north/gw1", "north/gw2", "south/gw3", "south/gw4"), 400, secret="a secret of both rings"
    ) as job:
        verdict = await job.done(400)
        assert verdict.ownerless == 0
        assert not job.repeated
        assert crossed(job) > 0


async def test_the_only_gate_of_a_ring_is_killed_and_comes_back(tmp_path):
    async with play(tmp_path, ("north/gw1", "south/gw3"), 400) as job:
        await job.under_way()
        await job.until(lambda: crossed(job) > 0, "something has crossed")
        await job.fleet["gw3"].kill()
        await job.fleet.start("gw3")
        verdict = await job.done(400)
        assert verdict.ownerless <= 2 * job.gateways["gw3"].resubmitted
