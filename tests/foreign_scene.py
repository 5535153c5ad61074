"""Two nodes as processes, between gateways and an SMSC that none of us wrote, with a tap on every connection.

gateway gw1 --tap--> gw1 --tap--> SMSC
                      |             |   the account's second bind
gateway gw2 --tap--> gw2 --tap------+
"""

from contextlib import asynccontextmanager

import trio
from foreign_peer import ForeignPeer, Tap, npm_smsc, smpp34_smsc
from node_process import PASSWORD, SYSTEM_ID, Fleet, Settings, open_fleet

from dlrproxy.demo.ports import reserved
from protocols.smpp import constants as c

# The SMSC numbers its sessions as they bind, so the nodes start in this order; the one that dials the other comes last.
SESSIONS = {"gw2": 1, "gw1": 2}
FIRST_ID = "a0b1c2d3"
UNHURRIED = {"ring": {"lap_timeout_s": 30}, "mo": {"concat_wait_s": 30}}  # a busy machine is no node that is away


class Scene:
    """Who plays, and what stands between them."""

    def __init__(self, fleet: Fleet, smsc: ForeignPeer, gateways: dict[str, ForeignPeer], taps: dict[str, Tap]) -> None:
        self.fleet = fleet
        self.smsc = smsc
        self.gateways = gateways
        self.gateway, self.other_gateway = gateways["gw1"], gateways["gw2"]
        self.taps = taps

    def into(self, gateway: str, command: int) -> list[bytes]:
        """What that gateway sent."""
        return self.taps[f"{gateway}-gateway"].from_dialler(command)

    def out_of(self, gateway: str, command: int | None = None) -> list[bytes]:
        """What that gateway received, in order; of one command_id or of all."""
        return self.taps[f"{gateway}-gateway"].from_target(command)

    def at_smsc(self, gateway: str, command: int) -> list[bytes]:
        """What the SMSC received from that node."""
        return self.taps[f"{gateway}-operator"].from_dialler(command)

    def from_smsc(self, gateway: str, command: int) -> list[bytes]:
        """What the SMSC sent to that node."""
        return self.taps[f"{gateway}-operator"].from_target(command)

    async def submit(self, **messages) -> dict[str, str]:
        """Submit by tag, each with `fields` and `tlvs`; the ids that the SMSC gave them."""
        for tag, message in messages.items():
            await self.gateway.do("submit", tag=tag, **message)
        ids = {}
        for tag in messages:
            (response,) = await self.gateway.seen("response", tag=tag)
            assert response["status"] == c.ESME_ROK
            ids[tag] = response["id"]
        return ids


@asynccontextmanager
async def play(directory, make_smsc, make_esme, settings: Settings | None = None):
    """All are bound. At the end of the block gateways unbind first, then the nodes end in good order."""
    with reserved(1) as (smsc_port,):
        async with trio.open_nursery() as nursery:
            smsc = make_smsc(nursery, smsc_port)
            await smsc.start()
            (listening,) = await smsc.seen("listening")
            taps = {f"{name}-operator": Tap(listening["port"]) for name in ("gw1", "gw2")}
            for tap in taps.values():
                await nursery.start(tap.run)
            ports = {name: taps[f"{name}-operator"].port for name in ("gw1", "gw2")}
            unhurried = {table: {**keys, **(settings or {}).get(table, {})} for table, keys in UNHURRIED.items()}
            async with open_fleet(directory, ports, {**(settings or {}), **unhurried}) as fleet:
                gateways = {}
                for name, number in SESSIONS.items():
                    await fleet.start(name)
                    await smsc.seen("bound", session=number)
                    tap = taps[f"{name}-gateway"] = Tap(fleet.gateway_ports[name])
                    gateways[name] = make_esme(nursery, await nursery.start(tap.run), SYSTEM_ID, PASSWORD)
                    await gateways[name].start()
                    await gateways[name].seen("bound")
                yield Scene(fleet, smsc, gateways, taps)
                for gateway in gateways.values():
                    await gateway.stop()
                await fleet.stop()
            await smsc.stop()
            nursery.cancel_scope.cancel()


def npm(nursery, port):
    return npm_smsc(nursery, FIRST_ID)  # takes any port


def smpp34(nursery, port):
    return smpp34_smsc(nursery, FIRST_ID, port)


def without_sequence(frames: list[bytes]) -> list[bytes]:
    return [frame[:12] + frame[16:] for frame in frames]


async def send(scene: Scene, node: str, deliveries: dict[str, dict]) -> None:
    """From the SMSC, down that node's bind, by tag; each with `fields` and `tlvs`."""
    for tag, delivery in deliveries.items():
        await scene.smsc.do("deliver", session=SESSIONS[node], tag=tag, **delivery)


async def accepted(scene: Scene, *tags: str) -> None:
    """Wait until the node has answered ESME_ROK for each."""
    for tag in tags:
        (answer,) = await scene.smsc.seen("answered", tag=tag)
        assert (answer["command"], answer["status"]) == ("deliver_sm_resp", c.ESME_ROK)


async def deliver(scene: Scene, node: str, deliveries: dict[str, dict]) -> None:
    await send(scene, node, deliveries)
    await accepted(scene, *deliveries)
