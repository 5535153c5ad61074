"""`dlrproxy parked replay --to NODE`, over two real nodes: what one has parked, to the other one's gateway."""

import pytest
import trio
from click.testing import CliRunner
from node_process import open_fleet
from one_node import part, receive
from relay_world import heads, receipt
from smpp_peer import Peer, bind_request

from dlrproxy.cli import main
from dlrproxy.demo.ports import LOOPBACK
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from protocols.smpp.pdu import pack

pytestmark = pytest.mark.processes

NO_ID = receipt(8, b"")  # a report of that is parked at once, where no gateway is bound


async def bind_of(operator: trio.SocketListener) -> Peer:
    """The operator's end of a node's bind, accepted."""
    with trio.fail_after(60):
        peer = Peer(await operator.accept())
    _, command, _, sequence = HEADER.unpack_from(await receive(peer))
    assert command == c.BIND_TRANSCEIVER
    await peer.send(pack(c.BIND_TRANSCEIVER_RESP, c.ESME_ROK, sequence, b"smsc\0"))
    return peer


async def gateway_at(port: int) -> Peer:
    peer = Peer(await trio.open_tcp_stream(LOOPBACK, port))
    await peer.send(bind_request())
    assert heads([await receive(peer)]) == [("bind_transceiver_resp", c.ESME_ROK, 1)]
    return peer


async def test_what_is_parked_at_one_node_is_delivered_at_the_gateway_of_another(tmp_path):
    [operator1] = await trio.open_tcp_listeners(0, host=LOOPBACK)
    [operator2] = await trio.open_tcp_listeners(0, host=LOOPBACK)
    ports = {"gw1": operator1.socket.getsockname()[1], "gw2": operator2.socket.getsockname()[1]}
    async with operator1, operator2, open_fleet(tmp_path, ports) as fleet:

        async def parked(*words):
            command = ["parked", *words, str(tmp_path / "gw1.toml")]
            return await trio.to_thread.run_sync(CliRunner().invoke, main, command)

        binds = {}

        async def bind(name, operator):
            binds[name] = await bind_of(operator)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bind, "gw1", operator1)
            nursery.start_soon(bind, "gw2", operator2)
            await fleet.start()
        await binds["gw1"].send(NO_ID)
        assert heads([await receive(binds["gw1"])]) == [("deliver_sm_resp", c.ESME_ROK, 8)]
        await fleet["gw1"].seen("dlr.parked", reason="no_message_id")

        refused = await parked("replay", "--all", "--to", "gw9")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "gw9 no other node" in refused.stderr

        replayed = await parked("replay", "--reason", "no_message_id", "--to", "gw2")
        assert replayed.stdout == "1 replayed\n"
        await fleet["gw1"].seen("dlr.replayed", to="gw2", reason="no_message_id")
        gateway = await gateway_at(fleet.gateway_ports["gw2"])
        frame = await receive(gateway)
        sequence = HEADER.unpack_from(frame)[3]
        assert frame == receipt(sequence, b"")
        await gateway.send(pack(c.DELIVER_SM_RESP, c.ESME_ROK, sequence, b"\0"))
        await fleet["gw1"].seen("dlr.settled", by="gw2")
        await fleet["gw2"].seen("dlr.delivered")
        assert (await parked("list")).stdout == "nothing\n"

        async with trio.open_nursery() as nursery:
            for peer in (gateway, *binds.values()):
                nursery.start_soon(part, peer)
            await fleet.stop()
            nursery.cancel_scope.cancel()
        for peer in (gateway, *binds.values()):
            await trio.aclose_forcefully(peer.stream)
