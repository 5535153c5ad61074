"""What a whole node makes of input that is wrong: its exit status, its message, its answer, and that it goes on.

The parts have their own tests; here a real process stands between sockets, files and disks that are not as they should
be, and nothing that it acknowledged is lost.
"""

import os
import shutil
import socket
import subprocess
import sys

import pytest
import trio
from node_process import OPERATOR, NodeProcess, tables_of, write_config
from one_node import GOES_ON, Scene, one_node, receive, report, submit
from relay_world import heads, receipt, submit_sm
from smpp_peer import Peer, bind_request
from trio_websocket import ConnectionClosed, wrap_client_stream

from dlrproxy.demo.ports import LOOPBACK, reserved
from protocols.peer import hello
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER, MAX_PDU_SIZE
from protocols.smpp.pdu import pack
from ring.handshake import Channel, DiallerHandshake, Terms

pytestmark = pytest.mark.processes


# --- strangers -------------------------------------------------------------------------------------------------------

HTTP = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"
NACK = pack(c.GENERIC_NACK, c.ESME_RINVCMDLEN, 0)
VENDOR = 0x00010203

STRANGERS = {  # what they send; what they get before the connection is closed; what the log says
    "HTTP": (HTTP, [NACK], ("gateway.unreadable_stream", {})),
    "a length below the header's": (bytes.fromhex("0000000f") + bytes(12), [NACK], ("gateway.unreadable_stream", {})),
    "a length above all bounds": (
        (MAX_PDU_SIZE + 1).to_bytes(4, "big") + bytes(12),
        [NACK],
        ("gateway.unreadable_stream", {}),
    ),
    "an unknown command instead of a bind": (
        pack(VENDOR, 0, 5),
        [pack(VENDOR | c.RESPONSE_BIT, c.ESME_RINVBNDSTS, 5)],
        ("gateway.gone", {"reason": "session_init_expired"}),
    ),
    "no bind at all": (b"", [], ("gateway.gone", {"reason": "session_init_expired"})),
    "a bind cut short": (
        pack(c.BIND_TRANSCEIVER, 0, 3, b"sh"),
        [pack(c.BIND_TRANSCEIVER_RESP, c.ESME_RINVMSGLEN, 3)],
        ("gateway.bind_refused", {"status": "ESME_RINVMSGLEN"}),
    ),
    "another system_id": (
        bind_request(system_id=b"nobody"),
        [pack(c.BIND_TRANSCEIVER_RESP, c.ESME_RINVSYSID, 1)],
        ("gateway.bind_refused", {"status": "ESME_RINVSYSID"}),
    ),
    "a wrong password": (
        bind_request(password=b"guess"),
        [pack(c.BIND_TRANSCEIVER_RESP, c.ESME_RINVPASWD, 1)],
        ("gateway.bind_refused", {"status": "ESME_RINVPASWD"}),
    ),
}


async def test_strangers_at_the_gateways_port_are_answered_and_closed(tmp_path):
    async with one_node(tmp_path, {"operators": {"session_init_s": 1}}) as scene:
        await scene.node.start()
        bind = await scene.bound()
        for case, (sent, wanted, (event, fields)) in STRANGERS.items():
            mark = scene.node.mark()
            stranger = await scene.dial()
            await stranger.send(sent)
            with trio.fail_after(100):
                assert await stranger.receive_until_end() == wanted, case
            await stranger.aclose()
            logged = await scene.node.seen(event, since=mark, **fields)
            assert logged["peer"].startswith(LOOPBACK), case
            assert "guess" not in str(scene.node.events), case

        gateway = await scene.bound_gateway()
        await submit(gateway, bind, GOES_ON)
        await report(gateway, bind, GOES_ON)
        await scene.stop()


async def test_a_body_that_is_cut_short_passes_and_breaks_nothing(tmp_path):
    async with one_node(tmp_path) as scene:
        await scene.node.start()
        bind = await scene.bound()
        gateway = await scene.bound_gateway()

        await gateway.send(pack(c.SUBMIT_SM, 0, 5, b"\0\1"))
        request = await receive(bind)
        assert request[16:] == b"\0\1"
        sequence = HEADER.unpack_from(request)[3]
        await bind.send(pack(c.SUBMIT_SM_RESP, c.ESME_RINVMSGLEN, sequence))
        assert await receive(gateway) == pack(c.SUBMIT_SM_RESP, c.ESME_RINVMSGLEN, 5)

        await bind.send(pack(c.DELIVER_SM, 0, 6, b"\0\1"))
        request = await receive(gateway)
        assert request[16:] == b"\0\1"
        sequence = HEADER.unpack_from(request)[3]
        await gateway.send(pack(c.DELIVER_SM_RESP, c.ESME_RINVMSGLEN, sequence))
        assert await receive(bind) == pack(c.DELIVER_SM_RESP, c.ESME_RINVMSGLEN, 6)

        await submit(gateway, bind, GOES_ON)
        await report(gateway, bind, GOES_ON)
        await scene.stop()


async def test_an_operator_that_is_not_smpp_is_left_and_dialled_again(tmp_path):
    async with one_node(tmp_path) as scene:
        await scene.node.start()
        web_server = await scene.dialled()
        await web_server.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await scene.node.seen("operator.unreadable_stream")
        bind = await scene.bound()
        gateway = await scene.bound_gateway()
        await submit(gateway, bind, GOES_ON)
        await report(gateway, bind, GOES_ON)
        await scene.stop()


async def shake_hands(port, **terms):
    """Dial a node as its peer gw0 would, with terms of our own, until it closes the connection."""
    machine = DiallerHandshake(
        Terms(**{"node": "gw0", "store_id": b"gw0.....", "boot": b"1", "peers": {"gw1": frozenset()}, **terms}),
        Channel(),
        b"n" * hello.NONCE_BYTES,
        peer="gw1",
        dial=1,
    )
    with trio.fail_after(100):
        async with await trio.open_tcp_stream(LOOPBACK, port) as stream, trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(nursery, stream, "gw1", "/")
            try:
                while True:
                    step = machine.receive(await websocket.get_message())
                    if step.send:
                        await websocket.send_message(step.send)
            except ConnectionClosed:
                return


async def test_strangers_at_the_peers_port_are_refused_and_the_log_says_why(tmp_path):
    async with one_node(tmp_path, {"absent": {"gw0": 1}}) as scene:
        await scene.node.start()
        bind = await scene.bound()

        for words in (HTTP, bind_request()):
            stranger = await scene.dial(scene.link_port)
            await stranger.send(words)
            with trio.fail_after(100):
                while await stranger.stream.receive_some():
                    pass
        await scene.node.seen("peer.refused", reason="not_a_websocket")

        for reason, terms in {
            "no_common_version": {"cluster": "test", "oldest": 800, "newest": 900},
            "other_cluster": {"cluster": "another"},
        }.items():
            await shake_hands(scene.link_port, **terms)
            await scene.node.seen("peer.refused", reason=reason)

        gateway = await scene.bound_gateway()
        await submit(gateway, bind, GOES_ON)
        await report(gateway, bind, GOES_ON)
        await scene.stop()


# --- the configuration and the machine -------------------------------------------------------------------------------


async def refused_start(node: NodeProcess, status: int = 1) -> str:
    """It does not start: what it says to a person."""
    await node.launch()
    assert await node.ended() == status, node.story("ended otherwise")
    assert not node.found("node.running")
    return "\n".join(node.said)


async def test_a_bad_configuration_is_told_in_full_and_touches_nothing(tmp_path):
    wrong = {"operators": {"enquire_lnk_s": 5, "window": 0}, "node": {"data_dir": "never-made"}}
    async with one_node(tmp_path, wrong) as scene:
        said = await refused_start(scene.node, status=2)
        assert "operators[0].enquire_lnk_s" in said
        assert "did you mean enquire_link_s?" in said
        assert "operators[0].window" in said
        assert "Traceback" not in said
    assert not (tmp_path / "never-made").exists()


@pytest.mark.parametrize("which", ["gateway", "peer"])
async def test_a_port_that_is_taken_is_named(tmp_path, which):
    async with one_node(tmp_path, {"absent": {"gw0": 1}}) as scene:
        port = scene.gateway_port if which == "gateway" else scene.link_port
        with socket.create_server((LOOPBACK, port)):
            said = await refused_start(scene.node)
        assert str(port) in said
        assert "Traceback" not in said
        if which == "gateway":
            assert OPERATOR in said
        await scene.node.start()  # free again
        await scene.stop()


async def test_a_second_process_on_the_same_data_directory_is_refused(tmp_path):
    async with one_node(tmp_path) as scene, trio.open_nursery() as nursery:
        await scene.node.start()
        bind = await scene.bound()
        with reserved(2) as (gateway_port, link_port):
            tables = tables_of("gw1", scene.operator_port, gateway_port, {"gw1": link_port}, {})
            second = NodeProcess("second", write_config(tmp_path / "second.toml", tables), nursery)
            said = await refused_start(second)
        assert f"{tmp_path / 'data-gw1'} is in use by process {scene.node.pid}" in said

        gateway = await scene.bound_gateway()
        await submit(gateway, bind, GOES_ON)
        await report(gateway, bind, GOES_ON)
        await scene.stop()


async def acknowledged_and_killed(scene: Scene) -> None:
    """An open message and an MO in custody, both acknowledged; then kill -9."""
    await scene.node.start()
    bind = await scene.bound()
    gateway = await scene.bound_gateway()
    await submit(gateway, bind, GOES_ON)
    await gateway.aclose()
    await scene.node.seen("gateway.gone")
    await bind.send(receipt(3, b"unknown"))
    assert heads([await receive(bind)]) == [("deliver_sm_resp", c.ESME_ROK, 3)]
    await scene.node.kill()


async def everything_is_there(scene: Scene) -> None:
    """After that: custody holds the report that nobody owned, and the message is still known."""
    await scene.node.start()
    (running,) = scene.node.found("node.running")
    assert running["custody"] == 1
    bind = await scene.bound()
    gateway = await scene.bound_gateway()
    await report(gateway, bind, GOES_ON)
    await scene.stop()


async def test_a_damaged_store_is_refused_and_what_the_message_says_saves_it(tmp_path):
    async with one_node(tmp_path) as scene:
        await acknowledged_and_killed(scene)
        store = tmp_path / "data-gw1" / "store"
        (store / "CURRENT").write_bytes(b"\0\xff garbage")
        before = sorted(path.name for path in store.iterdir())
        for _ in range(2):
            said = await refused_start(scene.node)
            assert f"the store in {store} is damaged" in said
            assert f"python -m dlrproxy.store.repair {store.parent}" in said
        assert set(before) <= {path.name for path in store.iterdir()}

        repair = [sys.executable, "-m", "dlrproxy.store.repair", str(store.parent)]
        with trio.fail_after(100):
            await trio.run_process(repair, capture_stdout=True)
        await everything_is_there(scene)


# --- a full disk -----------------------------------------------------------------------------------------------------


async def test_below_min_free_mb_nothing_is_accepted_on_either_side(tmp_path):
    async with one_node(tmp_path) as scene:
        await acknowledged_and_killed(scene)
    wanted = {"node": {"min_free_mb": 2**40}, "operators": {"retry_status": "ESME_RMSGQFUL"}}
    async with one_node(tmp_path, wanted) as scene:
        await scene.node.start()
        await scene.node.seen("store.space_low")
        bind = await scene.bound()
        gateway = await scene.bound_gateway()
        await refuses(scene, gateway, bind, c.ESME_RMSGQFUL)
        await report(gateway, bind, GOES_ON)  # needs no room, and makes some
        await scene.stop()


async def refuses(scene: Scene, gateway: Peer, bind: Peer, retry_status: int) -> None:
    """An MT comes back before the operator has seen it, and a report that would need room is left to the operator."""
    await gateway.send(submit_sm(21))
    assert await receive(gateway) == pack(c.SUBMIT_SM_RESP, c.ESME_RMSGQFUL, 21)
    await bind.send(receipt(22, b"nobody knows"))
    assert await receive(bind) == pack(c.DELIVER_SM_RESP, retry_status, 22, b"\0")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MiB; unmounted whatever happens, since what is left would outlive pytest's clean-up."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("may not mount a file system here")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=64m", "tmpfs", directory], capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


async def test_a_full_file_system_loses_nothing_and_is_left_behind(tmp_path, small_disk):
    async with one_node(tmp_path, {"node": {"data_dir": str(small_disk / "data"), "min_free_mb": 16}}) as scene:
        await scene.node.start()
        bind = await scene.bound()
        gateway = await scene.bound_gateway()
        await submit(gateway, bind, GOES_ON)

        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1 << 16)):
                    pass
            except OSError:
                pass  # to the last byte
        await scene.node.seen("store.space_low")
        await refuses(scene, gateway, bind, c.ESME_RTHROTTLED)

        ballast.unlink()
        await scene.node.seen("store.space_enough")
        await submit(gateway, bind, b"0a1b2d")
        await report(gateway, bind, GOES_ON)
        await report(gateway, bind, b"0a1b2d")
        await scene.stop()


async def test_a_start_on_a_full_file_system_is_refused(tmp_path, small_disk):
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(65 << 20))
    async with one_node(tmp_path, {"node": {"data_dir": str(small_disk / "data"), "min_free_mb": 16}}) as scene:
        said = await refused_start(scene.node)
        assert str(small_disk / "data") in said
        assert "Traceback" not in said
        ballast.unlink()
        await scene.node.start()
        await scene.stop()
