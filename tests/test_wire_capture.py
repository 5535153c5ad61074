"""What two nodes write, decoded by somebody else: tshark's SMPP dissector finds nothing malformed in it.

A tap stands in every connection and keeps what passes, in the pieces in which it came. The pieces become TCP segments
of a capture file, which tshark reads; what it sees must be what was sent, PDU by PDU.

    gateways, and a client that does everything wrong --tap--> gw1, gw2 --tap--> operator
"""

import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import trio
from node_process import PASSWORD, SYSTEM_ID, open_fleet
from smpp_peer import Peer, bind_request

from dlrproxy.demo.ports import LOOPBACK
from dlrproxy.simulator.gateway import Gateway, GatewaySummary
from dlrproxy.simulator.operator import Operator, OperatorSummary
from dlrproxy.simulator.options import BindType, GatewayOptions, MoOptions, OperatorOptions, Receipts, Spread
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER, split
from protocols.smpp.pdu import Message, pack

pytestmark = pytest.mark.processes

PORT = 2775  # of the side that was dialled, in every capture
MESSAGES = 40  # of each gateway
TIMEOUT_S = 200
Conversation = list[tuple[bool, bytes]]  # whether the dialling side sent it, and what: a receive at a time


class Tap:
    """Listens, dials `target` for whoever comes, and records each connection."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.conversations: list[Conversation] = []

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started with the port."""
        (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
        task_status.started(listener.socket.getsockname()[1])
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, dialler: trio.SocketStream) -> None:
        conversation: Conversation = []
        self.conversations.append(conversation)
        async with await trio.open_tcp_stream(LOOPBACK, self.target) as target, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, dialler, target, conversation, True, nursery.cancel_scope)
            nursery.start_soon(self._pump, target, dialler, conversation, False, nursery.cancel_scope)

    async def _pump(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        conversation: Conversation,
        from_dialler: bool,
        scope: trio.CancelScope,
    ) -> None:
        try:
            async for data in source:
                conversation.append((from_dialler, data))
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass  # one end has gone: so does the other
        scope.cancel()


# The capture


def write_capture(path: Path, conversations: list[Conversation]) -> None:
    """A pcap file of raw IPv4 packets (link type 101): a TCP connection for each conversation, with its handshake."""
    packets = [packet for number, each in enumerate(conversations) for packet in packets_of(number, each)]
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0x40000, 101))
        for at, packet in enumerate(packets):
            file.write(struct.pack("<IIII", at // 1000, at % 1000 * 1000, len(packet), len(packet)) + packet)


def packets_of(number: int, conversation: Conversation) -> list[bytes]:
    dialler, target = (f"10.0.{number >> 8}.{number & 255}", 40_000 + number), ("10.1.0.1", PORT)
    sent = {True: 0, False: 0}  # sequence numbers: the octet that comes next
    packets = [segment(dialler, target, 0, 0, b"", flags=SYN), segment(target, dialler, 0, 1, b"", flags=SYN | ACK)]
    sent = {True: 1, False: 1}
    packets.append(segment(dialler, target, 1, 1, b"", flags=ACK))
    for from_dialler, data in conversation:
        ends = (dialler, target) if from_dialler else (target, dialler)
        for start in range(0, len(data), 1400):
            piece = data[start : start + 1400]
            packets.append(segment(*ends, sent[from_dialler], sent[not from_dialler], piece, flags=ACK | PSH))
            sent[from_dialler] += len(piece)
    return packets


SYN, PSH, ACK = 0x02, 0x08, 0x10


def segment(source: tuple[str, int], sink: tuple[str, int], sequence: int, ack: int, data: bytes, flags: int) -> bytes:
    """An IPv4 packet with one TCP segment. Checksums stay 0: nobody looks at them."""
    addresses = b"".join(bytes(map(int, host.split("."))) for host, _ in (source, sink))
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0x4000, 64, 6, 0) + addresses
    return ip + struct.pack(">HHIIBBHHH", source[1], sink[1], sequence, ack, 0x50, flags, 0xFFFF, 0, 0) + data


def tshark(capture: Path, *options: str) -> str:
    program = shutil.which("tshark")
    assert program, "tshark is missing: tests/system-packages.sh installs it"
    command = [program, "-r", str(capture), "-d", f"tcp.port=={PORT},smpp", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# What is sent


def client_requests() -> list[bytes]:
    """What a client may send besides: every request of SMPP 3.4 and one of 5.0, TLVs known and unknown."""
    source, handset = b"\0\0" + b"12345\0", b"\1\1" + b"46701234567\0"
    tlvs = ((c.TLV_USER_MESSAGE_REFERENCE, b"\0\7"), (c.TLV_MESSAGE_PAYLOAD, b"x" * 2000), (0x1501, b"\0\xff"))
    message = Message(source=b"12345", destination=b"46701234567", short_message=b"hello")
    with_tlvs = Message(source=b"12345", destination=b"46701234567", tlvs=tlvs)
    part = Message(source=b"12345", destination=b"46701234567", esm_class=c.ESM_UDHI, short_message=b"\5\0\3\7\2\1part")
    bodies = [
        (c.SUBMIT_SM, message.encode()),
        (c.SUBMIT_SM, with_tlvs.encode()),
        (c.SUBMIT_SM, part.encode()),
        (c.DATA_SM, with_tlvs.encode_data_sm()),
        (c.SUBMIT_MULTI, b"\0" + source + b"\2\1" + handset + b"\1" + handset + b"\0\0\0\0\0\0\0\0\0\2hi"),
        (c.QUERY_SM, b"id1\0" + source),
        (c.CANCEL_SM, b"\0id1\0" + source + handset),
        (c.REPLACE_SM, b"id1\0" + source + b"\0\0\0\0\2hi"),
        (c.ENQUIRE_LINK, b""),
        (c.BIND_TRANSCEIVER, bind_request()[c.HEADER_SIZE :]),  # once more
        (c.DELIVER_SM, message.encode()),  # the operator's to send
    ]
    return [pack(command, 0, 0x80000000 + at, body) for at, (command, body) in enumerate(bodies)]


async def send_requests(port: int) -> None:
    """Each way of binding, a pause in which we are asked whether we are there, and everything that may follow."""
    for command, version in ((c.BIND_TRANSMITTER, 0x33), (c.BIND_RECEIVER, 0x34), (c.BIND_TRANSCEIVER, 0x50)):
        client = Peer(await trio.open_tcp_stream(LOOPBACK, port))
        bind = bind_request(1, command, system_id=SYSTEM_ID.encode(), interface_version=version)
        await client.send(bind)
        await receive_until(client, (command | c.RESPONSE_BIT, 1))
        while (await receive(client))[0] != c.ENQUIRE_LINK:
            pass
        for frame in (*client_requests(), pack(c.UNBIND, 0, 99)):
            await client.send(frame)
            _, command, _, sequence = HEADER.unpack_from(frame)
            await receive_until(client, (command | c.RESPONSE_BIT, sequence))
        await client.aclose()


async def receive_until(client: Peer, wanted: tuple[int, int]) -> None:
    while await receive(client) != wanted:
        pass


async def receive(client: Peer) -> tuple[int, int]:
    """Take one PDU, and answer it if it is a request; its command and sequence number."""
    frame = await client.receive()
    assert frame is not None
    _, command, _, sequence = HEADER.unpack_from(frame)
    if not command & c.RESPONSE_BIT:
        body = b"" if command == c.ENQUIRE_LINK else b"\0"
        await client.send(pack(command | c.RESPONSE_BIT, 0, sequence, body))
    return command, sequence


RUDE = [
    bind_request(system_id=b"nobody"),
    bind_request(system_id=SYSTEM_ID.encode(), password=b"wrong"),
    pack(c.BIND_RECEIVER, 0, 5, b"shop\0sec"),
    b"GET / HTTP/1.1\r\n\r\n",
    b"".join((*client_requests()[:4], pack(0x00010203, 0, 9), b"\0\0\0\1")),
]


async def be_rude(port: int) -> None:
    for rude in RUDE:
        client = Peer(await trio.open_tcp_stream(LOOPBACK, port))
        await client.send(rude)
        await client.receive_until_end()
        await client.aclose()


async def play(directory: Path) -> tuple[dict[str, Tap], OperatorSummary, list[GatewaySummary]]:
    """What was recorded in front of whom, and what the simulators counted."""
    mo = MoOptions(rate=20, count=30, concatenated=0.5, parts=3)
    operator = Operator(
        OperatorOptions(
            port=0,
            accounts={SYSTEM_ID: PASSWORD},
            receipts=Receipts.REQUESTED,
            spread=Spread.OTHER,
            enroute=0.3,
            throttle=0.1,
            mo=mo,
            run="t",
        )
    )
    settings = {
        "operators": {"enquire_link_s": 0.2},
        "only:gw2": {"operators": {"bind_type": "transmitter+receiver", "interface_version": "5.0"}},
    }
    async with trio.open_nursery() as nursery:
        taps = {"operator": Tap(await nursery.start(operator.run))}
        port = await nursery.start(taps["operator"].run)
        async with open_fleet(directory, {"gw1": port, "gw2": port}, settings) as fleet:
            await fleet.start()
            await operator.wait_bound(2)
            for name in ("gw1", "gw2", "client", "rude"):
                taps[name] = Tap(fleet.gateway_ports["gw1" if name == "client" else "gw2" if name == "rude" else name])
            gateways = []
            for name, bind_type in (("gw1", BindType.TRANSCEIVER), ("gw2", BindType.PAIR)):
                options = GatewayOptions(
                    port=await nursery.start(taps[name].run),
                    name=name,
                    system_id=SYSTEM_ID,
                    password=PASSWORD,
                    bind_type=bind_type,
                    messages=MESSAGES,
                    resubmit_ms=50,
                    refuse_temporary=0.05,
                    linger_s=3600,
                )
                gateways.append(Gateway(options))
                nursery.start_soon(gateways[-1].run)
            await send_requests(await nursery.start(taps["client"].run))
            await be_rude(await nursery.start(taps["rude"].run))
            for gateway in gateways:
                await gateway.finished.wait()
            await operator.wait_idle()
            for gateway in gateways:
                gateway.stop()
            await fleet.stop()
        await operator.stop()
        nursery.cancel_scope.cancel()
    return taps, operator.summary(), [gateway.summary() for gateway in gateways]


# What tshark sees


def sent_in(conversation: Conversation, from_dialler: bool) -> list[tuple[int, int]]:
    """Command and sequence number of every PDU that one side sent."""
    frames, rest = split(b"".join(data for by_dialler, data in conversation if by_dialler is from_dialler))
    assert not rest
    return [HEADER.unpack_from(frame)[1::2] for frame in frames]


def seen_in(capture: Path) -> dict[tuple[int, bool], list[tuple[int, int]]]:
    """The same, as tshark sees it, by the conversation's number and whether the dialling side sent it."""
    fields = ("tcp.stream", "tcp.dstport", "smpp.command_id", "smpp.sequence_number")
    options = [option for field in fields for option in ("-e", field)]
    seen: dict[tuple[int, bool], list[tuple[int, int]]] = {}
    for line in tshark(capture, "-Y", "smpp", "-T", "fields", *options).splitlines():
        stream, sink, commands, sequences = line.split("\t")
        pdus = zip(commands.split(","), sequences.split(","), strict=True)
        found = seen.setdefault((int(stream), int(sink) == PORT), [])
        found += [(int(command, 16), int(sequence)) for command, sequence in pdus]
    return seen


def complaints(capture: Path) -> list[str]:
    """Everything that tshark warns of or calls malformed, and what has payload and is no SMPP."""
    warned = tshark(capture, "-Y", '_ws.malformed || _ws.expert.severity >= "Warning"', "-V")
    other = tshark(capture, "-Y", "tcp.len > 0 && !smpp && !tcp.segment_data")
    return [*warned.splitlines(), *other.splitlines()]


MUST_BE_SEEN = c.BINDS | {c.SUBMIT_SM, c.SUBMIT_MULTI, c.DATA_SM, c.QUERY_SM, c.CANCEL_SM, c.REPLACE_SM, c.DELIVER_SM}
MUST_BE_SEEN |= {c.ENQUIRE_LINK, c.UNBIND}


async def test_tshark_finds_nothing_malformed_in_what_two_nodes_write(tmp_path):
    with trio.fail_after(280):
        taps, operator, gateways = await play(tmp_path)
    # Of what the rude client sent little is SMPP: only what it was answered is looked at.
    taps["rude"].conversations = [[piece for piece in each if not piece[0]] for each in taps["rude"].conversations]
    conversations = [(name, conversation) for name, tap in taps.items() for conversation in tap.conversations]
    capture = tmp_path / "run.pcap"
    write_capture(capture, [conversation for _, conversation in conversations])

    assert complaints(capture) == []
    seen = seen_in(capture)
    assert seen == {
        (number, side): pdus
        for number, (_, conversation) in enumerate(conversations)
        for side in (True, False)
        if (pdus := sent_in(conversation, side))
    }
    by_nodes = {True: {"operator"}, False: {"gw1", "gw2", "client", "rude"}}  # where we dialled, and where others did
    counts: Counter[tuple[str, int, bool]] = Counter()
    for (number, side), pdus in seen.items():
        name = conversations[number][0]
        counts.update((name, command, name in by_nodes[side]) for command, _ in pdus)
    ours = {command for _, command, is_ours in counts if is_ours}
    assert ours >= MUST_BE_SEEN | {command | c.RESPONSE_BIT for command in MUST_BE_SEEN} | {c.GENERIC_NACK}
    submitted = (counts["operator", command, True] for command in (c.SUBMIT_SM, c.SUBMIT_MULTI, c.DATA_SM))
    assert sum(submitted) == operator.submitted
    assert counts["operator", c.DELIVER_SM, False] == operator.deliveries_accepted + operator.retries
    for gateway in gateways:
        assert counts[gateway.name, c.SUBMIT_SM, False] == gateway.submitted
        assert counts[gateway.name, c.SUBMIT_SM_RESP, True] == gateway.accepted + sum(gateway.errors.values())
        assert counts[gateway.name, c.DELIVER_SM, True] == counts[gateway.name, c.DELIVER_SM_RESP, False]


def test_tshark_would_have_found_it(tmp_path):
    """The other test means nothing if nothing is ever found."""
    broken = [(True, pack(c.SUBMIT_SM, 0, 1, b"\0\1")), (True, b"no SMPP at all, but long enough to be looked at")]
    for number, piece in enumerate(broken):
        capture = tmp_path / f"{number}.pcap"
        write_capture(capture, [[piece]])
        assert complaints(capture)
