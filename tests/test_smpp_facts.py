"""What SMPP peers are known to do, row by row: each id says a fact, each test what this product makes of it.

The order is that of the facts: header and session, esm_class, TLVs, message states, receipt text, message ids,
temporary and permanent answers, the problem itself, gateways as seen from the operator's side. Most rows drive the
relay's core by hand (relay_world.py); some read bytes with the pure modules, and a few need a socket.
"""

import socket
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
import pytest
import structlog
import trio
import trio.testing
from relay_world import (
    World,
    command_of,
    deliver_sm_resp,
    heads,
    mo,
    receipt,
    sequence_of,
    status_of,
    submit_sm,
    submit_sm_resp,
)
from smpp_peer import Peer, bind_request

from dlrproxy.config.keys import Address
from dlrproxy.gateways import Gateways
from dlrproxy.operators import Operators
from dlrproxy.sessions.binding import REFUSALS
from dlrproxy.sessions.connection import PlainConnection
from protocols.smpp import constants as c
from protocols.smpp.concat import part_of
from protocols.smpp.framing import MAX_PDU_SIZE, resequence
from protocols.smpp.message_ids import Ambiguous, Match, NoMatch, Rule, candidates, judge, normal, relation
from protocols.smpp.pdu import Message, encode_tlvs, pack, parse_bind
from protocols.smpp.receipts import read

HANDSET = b"447700900001"
TEXT = b"id:0A1B sub:001 dlvrd:001 submit date:2401010000 done date:2401010001 stat:DELIVRD err:000 text:hi"


def deliver_sm(sequence: int = 1, **fields) -> bytes:
    fields = {"source": HANDSET, "destination": b"SHOP", "esm_class": c.ESM_RECEIPT, "short_message": TEXT, **fields}
    return pack(c.DELIVER_SM, 0, sequence, Message(**fields).encode())


def data_sm(sequence: int = 1, **fields) -> bytes:
    fields = {"source": HANDSET, "destination": b"SHOP", "esm_class": c.ESM_RECEIPT, **fields}
    return pack(c.DATA_SM, 0, sequence, Message(**fields).encode_data_sm())


def told(*rows):
    """Rows of a table whose first column is the fact."""
    return [pytest.param(*values, id=fact) for fact, *values in rows]


@asynccontextmanager
async def gateway_of(world: World):
    """A gateway's connection to this world's listener, not bound yet."""
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(Gateways(world.relay, structlog.get_logger()).run)
        stream = await trio.open_tcp_stream("127.0.0.1", addresses["gw1"].port)
        try:
            yield Peer(stream)
        finally:
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def smsc_of(**settings):
    """A world whose operator side dials us, and the connection that it made."""
    accepted, connections = trio.open_memory_channel(10)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(stream: trio.SocketStream) -> None:
            await accepted.send(Peer(stream))
            await trio.sleep_forever()

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        host = Address("127.0.0.1", listener.socket.getsockname()[1])
        world = World(hosts=(host,), reconnect_min_s=0.01, reconnect_max_s=0.05, **settings)
        nursery.start_soon(Operators(world.relay, structlog.get_logger()).run)
        with trio.fail_after(100):
            yield world, connections
        nursery.cancel_scope.cancel()


# Header and session


@pytest.mark.parametrize(
    "sequence",
    told(
        ("sequence number 0", 0),
        ("the lowest by the specification", 1),
        ("the highest by the specification", 0x7FFFFFFF),
        ("above what the specification allows", 0x80000000),
        ("all 32 bits", 0xFFFFFFFF),
    ),
)
def test_a_peers_sequence_number_is_echoed_whatever_it_is(sequence):
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, sequence)
    world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
    assert session.connection.take() == [submit_sm_resp(sequence, b"id1")]
    world.relay.from_operator(bind, [receipt(sequence, b"id1")])
    [frame] = session.connection.take()
    bind.connection.take()
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])
    assert bind.connection.take() == [deliver_sm_resp(sequence)]


def test_a_peer_may_reuse_a_sequence_number_that_is_still_in_use():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 7, 7)
    world.relay.from_operator(bind, [submit_sm_resp(1, b"a"), submit_sm_resp(2, b"b")])
    assert session.connection.take() == [submit_sm_resp(7, b"a"), submit_sm_resp(7, b"b")]
    bind.connection.take()
    world.relay.from_operator(bind, [receipt(9, b"a"), receipt(9, b"b")])
    answers = [deliver_sm_resp(sequence_of(frame)) for frame in session.connection.take()]
    world.relay.from_gateway(session, answers)
    assert bind.connection.take() == [deliver_sm_resp(9), deliver_sm_resp(9)]


def test_responses_out_of_order_find_their_requests():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 5, 6, 7)
    world.relay.from_operator(bind, [submit_sm_resp(n, b"id%d" % n) for n in (3, 1, 2)])
    assert session.connection.take() == [submit_sm_resp(4 + n, b"id%d" % n) for n in (3, 1, 2)]


STRAY = told(
    ("a response to an unknown sequence number", submit_sm_resp(4711, b"x")),
    ("a response to sequence number 0", submit_sm_resp(0, b"x")),
    ("a late enquire_link_resp", pack(c.ENQUIRE_LINK_RESP, 0, 99)),
    ("an enquire_link_resp with a stray body byte", pack(c.ENQUIRE_LINK_RESP, 0, 99, b"\0")),
    ("a generic_nack to nothing", pack(c.GENERIC_NACK, c.ESME_RINVCMDID, 99)),
    ("a second bind_resp", pack(c.BIND_TRANSCEIVER_RESP, 0, 1, b"SMSC\0")),
    ("an unbind_resp that nobody asked for, with a status", pack(c.DELIVER_SM_RESP, c.ESME_RSYSERR, 5)),
    ("a response command that nobody knows", pack(0x8000FFFF, 0, 5, b"what")),
)


@pytest.mark.parametrize("frame", STRAY)
def test_a_stray_response_is_dropped_and_ends_nothing(frame):
    world = World()
    bind, session = world.bind(), world.session()
    world.relay.from_operator(bind, [frame])
    world.relay.from_gateway(session, [frame])
    assert bind.connection.take() == session.connection.take() == []
    assert bind.connection.ended is session.connection.ended is None


@pytest.mark.parametrize(
    "first",
    told(
        ('"GET " read as a length of 1.2 GB', b"GET / HTTP/1.1\r\n\r\n"),
        ('"HTTP" read as a length of 1.2 GB', b"HTTP/1.1 400 Bad Request\r\n"),
        ("a length above 64 KiB and a header", (MAX_PDU_SIZE + 1).to_bytes(4, "big") + bytes(12)),
        ("a length below the header's", b"\0\0\0\x0f" + bytes(12)),
    ),
)
async def test_a_bad_length_is_answered_generic_nack_and_closes(first):
    world = World()
    async with gateway_of(world) as gateway:
        await gateway.send(first)
        assert await gateway.receive_until_end() == [pack(c.GENERIC_NACK, c.ESME_RINVCMDLEN, 0)]


def test_the_cap_of_a_length_leaves_room_for_64_kib_of_payload_and_a_header():
    body = Message(tlvs=((c.TLV_MESSAGE_PAYLOAD, bytes(0xFFFF)),)).encode()
    assert c.HEADER_SIZE + len(body) <= MAX_PDU_SIZE < 2 * 0x10000


@pytest.mark.parametrize(
    "body",
    told(
        ("no body", b""),
        ("a body without a NUL", b"\xff" * 40),
        ("a body that ends inside an address", b"\0\1\x014477"),
        ("sm_length beyond the end", b"\0\1\x014477\0\0\0SHOP\0\x04\0\0\0\0\0\0\0\0\xffshort"),
        ("a TLV longer than the PDU", Message(source=HANDSET).encode() + b"\x00\x1e\xff\xffid1"),
    ),
)
def test_a_bad_body_ends_nothing(body):
    world = World(on_temporary_error="retry_status")
    bind, session = world.bind(), world.session()
    deliver, submit = pack(c.DELIVER_SM, 0, 3, body), pack(c.SUBMIT_SM, 0, 4, body)
    world.relay.from_operator(bind, [deliver, pack(c.ENQUIRE_LINK, 0, 8)])
    world.relay.from_gateway(session, [submit, pack(c.ENQUIRE_LINK, 0, 8)])
    assert session.connection.take() == [resequence(deliver, 1), pack(c.ENQUIRE_LINK_RESP, 0, 8)]
    assert bind.connection.take() == [pack(c.ENQUIRE_LINK_RESP, 0, 8), resequence(submit, 1)]
    assert bind.connection.ended is session.connection.ended is None


@pytest.mark.parametrize(
    ("version", "tlvs"),
    told(
        ("3.3 gets no TLVs", 0x33, b""),
        ("3.4", 0x34, b"\x02\x10\0\1\x34"),
        ("5.0", 0x50, b"\x02\x10\0\1\x34"),
        ("0x00 gets no TLVs", 0x00, b""),
    ),
)
async def test_every_interface_version_may_bind(version, tlvs):
    world = World()
    world.bind()
    async with gateway_of(world) as gateway:
        await gateway.send(bind_request(interface_version=version))
        assert await gateway.receive() == pack(c.BIND_TRANSCEIVER_RESP, 0, 1, b"dlrproxy\0" + tlvs)


@pytest.mark.parametrize(
    "message_id",
    told(
        ("8 hex characters of SMPP 3.3", b"0A1B2C3D"),
        ("64 octets of SMPP 3.4", b"x" * 64),
        ("longer than the specification allows", b"9" * 200),
    ),
)
def test_ids_of_any_length_find_their_reports(message_id):
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, message_id)
    report = deliver_sm(tlvs=((c.TLV_RECEIPTED_MESSAGE_ID, message_id + b"\0"),))
    world.relay.from_operator(bind, [report])
    assert session.connection.take() == [resequence(report, 1)]


def test_the_window_is_10_unless_told_otherwise():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, *range(1, 16))
    assert len(bind.connection.take()) == 10


def test_an_operators_window_of_25_reports_fits():
    world = World()
    bind, session = world.bind(), world.session()
    for number in range(25):
        world.open(session, bind, b"id%d" % number)
    world.relay.from_operator(bind, [receipt(n, b"id%d" % n) for n in range(25)])
    assert len(session.connection.take()) == 25


@pytest.mark.parametrize(
    "frame",
    told(
        ("alert_notification", pack(c.ALERT_NOTIFICATION, 0, 3, b"\0\0a\0\0\0b\0")),
        ("outbind on a connection that is bound", pack(c.OUTBIND, 0, 3, b"SMSC\0secret\0")),
    ),
)
@pytest.mark.parametrize("bound", [True, False], ids=["a gateway is bound", "none is"])
def test_what_has_no_response_gets_none(frame, bound):
    world = World()
    bind = world.bind()
    if bound:
        world.session()
    world.relay.from_operator(bind, [frame])
    assert bind.connection.take() == []
    assert bind.connection.ended is None


ERRORS = told(
    ("no body", pack(c.SUBMIT_SM_RESP, c.ESME_RTHROTTLED, 1)),
    ("an empty id", submit_sm_resp(1, b"", c.ESME_RTHROTTLED)),
    ("an id", submit_sm_resp(1, b"id1", c.ESME_RTHROTTLED)),
    ("a status that nobody knows, and an id", submit_sm_resp(1, b"id1", 0x00000499)),
)


@pytest.mark.parametrize("response", ERRORS)
async def test_an_error_response_passes_as_it_is_and_its_id_is_never_recorded(response):
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 9)
    world.relay.from_operator(bind, [response])
    assert session.connection.take() == [resequence(response, 9)]
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    await world.look_up()
    assert world.counters.missed == 1


@pytest.mark.parametrize(
    "body",
    told(
        ("16 bytes: no body", b""),
        ("17 bytes: a lone NUL", b"\0"),
        ("a byte-swapped TLV tag 0x1002", b"SMSC\0\x10\x02\0\1\x34"),
        ("as the specification says", b"SMSC\0\x02\x10\0\1\x34"),
    ),
)
async def test_every_bind_resp_of_the_field_binds(body):
    async with smsc_of() as (world, connections):
        smsc = await connections.receive()
        request = await smsc.receive()
        await smsc.send(pack(c.BIND_TRANSCEIVER_RESP, 0, sequence_of(request), body))
        await world.relay.bind_is_up()


@pytest.mark.parametrize("kept", [True, False], ids=["custody takes it", "the operator is to send it again"])
async def test_the_message_id_of_our_deliver_sm_resp_is_one_nul(kept):
    world = World()
    bind = world.bind()
    world.custody.at_once = kept
    world.relay.from_operator(bind, [receipt(3, b"nobody"), mo(4)])
    await world.look_up()
    frames = bind.connection.take()
    assert sorted(sequence_of(frame) for frame in frames) == [3, 4]
    assert {frame[c.HEADER_SIZE :] for frame in frames} == {b"\0"}


async def test_a_bind_beyond_the_operators_cap_is_not_tried_again_soon():
    assert c.ESME_RALYBND in REFUSALS
    async with smsc_of() as (_, connections):
        smsc = await connections.receive()
        request = await smsc.receive()
        with structlog.testing.capture_logs() as logs:
            await smsc.send(pack(c.BIND_TRANSCEIVER_RESP, c.ESME_RALYBND, sequence_of(request)))
            assert await smsc.receive() is None
            await trio.testing.wait_all_tasks_blocked(0.01)
        [refused] = [line for line in logs if line["event"] == "operator.bind_refused"]
        assert refused["wait_s"] >= 30


async def test_an_operator_that_wants_a_pause_between_unbind_and_bind_gets_it():
    async with smsc_of(rebind_wait_s=0.3) as (_, connections):
        smsc = await connections.receive()
        request = await smsc.receive()
        before_the_end = trio.current_time()
        await smsc.send(pack(c.BIND_TRANSCEIVER_RESP, 0, sequence_of(request)), pack(c.UNBIND, 0, 7))
        assert heads(await smsc.receive_until_end()) == [("unbind_resp", 0, 7)]
        await smsc.aclose()
        await connections.receive()
        assert trio.current_time() - before_the_end >= 0.3


# esm_class (SMSC to ESME)

ID_AND_STATE = ((c.TLV_RECEIPTED_MESSAGE_ID, b"0A1B\0"), (c.TLV_MESSAGE_STATE, b"\2"))
ENROUTE = TEXT.replace(b"DELIVRD", b"ENROUTE")
UDH = b"\5\0\3\7\2\1"


@pytest.mark.parametrize(
    ("esm_class", "fields", "expected"),
    told(
        ("0x00 is an MO", 0x00, {"short_message": b"hello"}, None),
        ("0x00 with a receipt's text is an MO unless the operator's setting says otherwise", 0x00, {}, None),
        ("0x04 is a receipt", 0x04, {}, (b"0A1B", "DELIVRD", True)),
        ("0x04 with ENROUTE is not final", 0x04, {"short_message": ENROUTE}, (b"0A1B", "ENROUTE", False)),
        ("0x08 is a delivery acknowledgement, here of an MO's kind", 0x08, {"short_message": b"ok"}, None),
        ("0x08 that names its message is a report", 0x08, {}, (b"0A1B", "DELIVRD", True)),
        ("0x10 is a manual acknowledgement", 0x10, {"short_message": b"1"}, None),
        ("0x18 is a conversation abort", 0x18, {"short_message": b""}, None),
        ("0x20 is an intermediate notification", 0x20, {"short_message": ENROUTE}, (b"0A1B", "ENROUTE", False)),
        ("0x20 is never final", 0x20, {}, (b"0A1B", "DELIVRD", False)),
        ("0x44: a receipt with a user data header", 0x44, {"short_message": UDH + TEXT}, (b"0A1B", "DELIVRD", True)),
        ("0x44: a receipt that has no header for all that", 0x44, {}, (b"0A1B", "DELIVRD", True)),
        ("0x84: with a reply path", 0x84, {}, (b"0A1B", "DELIVRD", True)),
        ("0x07: the low two bits are the mode", 0x07, {}, (b"0A1B", "DELIVRD", True)),
        ("0x40 is an MO with a header", 0x40, {"short_message": UDH + b"part"}, None),
        ("0x00 with 0x001E and no state is an MO", 0x00, {"tlvs": ID_AND_STATE[:1]}, None),
        ("0x00 with 0x001E and a state is a report", 0x00, {"tlvs": ID_AND_STATE}, (b"0A1B", "DELIVRD", True)),
    ),
)  # fmt: skip
def test_what_the_message_type_says(esm_class, fields, expected):
    report = read(deliver_sm(esm_class=esm_class, **fields))
    assert (report and (report.message_id, report.state, report.final)) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    told(
        ("with TLVs only", {"tlvs": ID_AND_STATE}, (b"0A1B", "DELIVRD")),
        ("with the text in message_payload", {"tlvs": ((c.TLV_MESSAGE_PAYLOAD, TEXT),)}, (b"0A1B", "DELIVRD")),
        ("without anything", {}, (None, None)),
    ),
)
def test_a_receipt_may_be_a_data_sm(fields, expected):
    report = read(data_sm(**fields))
    assert (report.message_id, report.state) == expected


@pytest.mark.parametrize(("opted_in", "is_report"), [(False, False), (True, True)], ids=["not opted in", "opted in"])
async def test_only_an_operator_that_opted_in_has_receipts_told_by_their_text(opted_in, is_report):
    world = World(receipt_text=opted_in)
    world.relay.from_operator(world.bind(), [deliver_sm(esm_class=0)])
    await world.look_up()
    assert (world.counters.reports, world.counters.mo) == ((1, 0) if is_report else (0, 1))


# TLVs

EVERY_TLV = told(
    ("0x001E receipted_message_id", 0x001E, b"0A1B\0"),
    ("0x0427 message_state", 0x0427, b"\2"),
    ("0x0423 network_error_code", 0x0423, b"\3\0\x21"),
    ("0x0423 network_error_code in ASCII", 0x0423, b"3,33"),
    ("0x0424 message_payload", 0x0424, TEXT),
    ("0x0425 delivery_failure_reason", 0x0425, b"\1"),
    ("0x020C sar_msg_ref_num", 0x020C, b"\0\7"),
    ("0x020E sar_total_segments", 0x020E, b"\2"),
    ("0x020F sar_segment_seqnum", 0x020F, b"\1"),
    ("0x0426 more_messages_to_send, inside a deliver_sm", 0x0426, b"\1"),
    ("0x0204 user_message_reference", 0x0204, b"\0\1"),
    ("0x0210 sc_interface_version, where it has no business", 0x0210, b"\x34"),
    ("0x001D additional_status_info_text", 0x001D, b"why\0"),
    ("0x1400, the first of the vendors'", 0x1400, b"\0\xff"),
    ("0x3FFF, the last of the vendors'", 0x3FFF, b""),
    ("a tag that nobody has defined", 0xBEEF, bytes(range(256))),
)


@pytest.mark.parametrize(("tag", "value"), EVERY_TLV)
def test_every_tlv_passes_byte_for_byte_both_ways(tag, value):
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"0A1B")
    tlvs = ((tag, value), (0x1401, b"behind"), (tag, value))
    submitted, reported = submit_sm(5, tlvs=tlvs), deliver_sm(tlvs=tlvs)
    response = pack(c.SUBMIT_SM_RESP, 0, 2, b"id2\0" + encode_tlvs(tlvs))
    world.relay.from_gateway(session, [submitted])
    assert bind.connection.take() == [resequence(submitted, 2)]
    world.relay.from_operator(bind, [response])
    assert session.connection.take() == [resequence(response, 5)]
    world.relay.from_operator(bind, [reported])
    assert session.connection.take() == [resequence(reported, 1)]


def test_the_id_of_the_tlv_is_preferred_to_the_texts():
    report = read(deliver_sm(tlvs=((c.TLV_RECEIPTED_MESSAGE_ID, b"2587\0"), (c.TLV_MESSAGE_STATE, b"\2"))))
    assert (report.message_id, report.text_id) == (b"2587", b"0A1B")


# Message states


@pytest.mark.parametrize(
    ("number", "word", "final"),
    told(
        ("0 SCHEDULED", 0, "SCHEDULED", False),
        ("1 ENROUTE", 1, "ENROUTE", False),
        ("2 DELIVERED is final", 2, "DELIVRD", True),
        ("3 EXPIRED is final", 3, "EXPIRED", True),
        ("4 DELETED is final", 4, "DELETED", True),
        ("5 UNDELIVERABLE is final", 5, "UNDELIV", True),
        ("6 ACCEPTED is not final", 6, "ACCEPTD", False),
        ("7 UNKNOWN", 7, "UNKNOWN", False),
        ("8 REJECTED is final", 8, "REJECTD", True),
        ("9 SKIPPED is final", 9, "SKIPPED", True),
    ),
)
def test_what_a_message_state_means(number, word, final):
    by_tlv = read(data_sm(tlvs=((c.TLV_RECEIPTED_MESSAGE_ID, b"0A1B\0"), (c.TLV_MESSAGE_STATE, bytes((number,))))))
    by_text = read(deliver_sm(short_message=TEXT.replace(b"DELIVRD", word.encode())))
    assert (by_tlv.state, by_tlv.final) == (by_text.state, by_text.final) == (word, final)


@pytest.mark.parametrize("word", ["FAILED", "DELIVERED", "BUFFERED", "lost", "DeliVrd"])
def test_other_words_are_seen_in_stat(word):
    assert read(deliver_sm(short_message=b"id:0A1B stat:%b err:000" % word.encode())).state == word.upper()


# Receipt text


class Read(NamedTuple):
    message_id: bytes | None = b"0A1B"
    state: str | None = "DELIVRD"
    error: str | None = "000"


@pytest.mark.parametrize(
    ("text", "expected"),
    told(
        ("as the specification's example", TEXT, Read()),
        ("no sub and dlvrd", b"id:0A1B submit date:2401010000 done date:2401010001 stat:DELIVRD err:000 text:", Read()),
        ("no dates", b"id:0A1B sub:001 dlvrd:001 stat:DELIVRD err:000 text:", Read()),
        ("no err", b"id:0A1B sub:001 dlvrd:001 stat:DELIVRD text:", Read(error=None)),
        ("no stat", b"id:0A1B sub:001 dlvrd:001 err:000 text:", Read(state=None)),
        ("no id", b"sub:001 dlvrd:001 stat:DELIVRD err:000 text:", Read(message_id=None)),
        ("no text", b"id:0A1B stat:DELIVRD err:000", Read()),
        ("in another order", b"stat:DELIVRD err:000 sub:001 id:0A1B done date:2401010001", Read()),
        ("in upper case", b"ID:0A1B SUB:001 DLVRD:001 SUBMIT DATE:2401010000 STAT:DELIVRD ERR:000 TEXT:", Read()),
        ("mixed case", b"Id:0A1B Submit Date:2401010000 Done Date:2401010001 Stat:delivrd Err:000 Text:", Read()),
        ("submitdate and donedate", TEXT.replace(b" date", b"date"), Read()),
        ("12-digit dates: YYYYMMDDhhmm", TEXT.replace(b"240101", b"20240101"), Read()),
        ("12-digit dates: YYMMDDhhmmss", TEXT.replace(b"0000", b"000059"), Read()),
        ("a NUL at the end", b"id:0A1B stat:DELIVRD err:000\0", Read()),
        ("bytes in text that no charset decodes", b"id:0A1B stat:DELIVRD err:000 text:\xff\xfe\x80\x1b", Read()),
        ("an imitation in its text", b"id:0A1B stat:DELIVRD err:000 text:id:9999 stat:UNDELIV err:111", Read()),
    ),
)  # fmt: skip
@pytest.mark.parametrize("where", ["short_message", "message_payload"])
def test_a_receipts_text_is_read_however_it_is_written(text, expected, where):
    payload = {"short_message": b"", "tlvs": ((c.TLV_MESSAGE_PAYLOAD, text),)}
    report = read(deliver_sm(**({"short_message": text} if where == "short_message" else payload)))
    assert (report.message_id, report.state, report.error) == expected


@pytest.mark.parametrize(
    ("encoding", "coding"),
    told(
        ("UCS-2, and data_coding says so", "utf-16-be", 8),
        ("UCS-2 in the other octet order", "utf-16-le", 8),
        ("UCS-2, and data_coding does not say so", "utf-16-be", 0),
        ("ASCII, and data_coding says UCS-2", "ascii", 8),
    ),
)
def test_a_receipts_text_in_another_alphabet(encoding, coding):
    text = "id:0A1B sub:001 dlvrd:001 stat:DELIVRD err:000 text:".encode(encoding)
    report = read(deliver_sm(short_message=text, data_coding=coding))
    assert (report.message_id, report.state, report.error) == Read()


def test_a_receipt_without_a_text():
    report = read(deliver_sm(short_message=b"", tlvs=ID_AND_STATE))
    assert (report.message_id, report.state, report.error) == (b"0A1B", "DELIVRD", None)


def test_two_receipts_for_one_message_are_normal():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    for sequence in (1, 2):
        world.relay.from_operator(bind, [receipt(sequence, b"id1")])
        [frame] = session.connection.take()
        world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])
        assert bind.connection.take() == [deliver_sm_resp(sequence)]


def test_what_decides_nothing_is_carried_byte_for_byte():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"0A1B")
    odd = deliver_sm(77, short_message=b" stat:DELIVRD\xff; id: 0A1B foo:bar \x00\x01")
    world.relay.from_operator(bind, [odd])
    assert session.connection.take() == [resequence(odd, 1)]


# Message ids that do not compare equal

UUID = b"577e505a-dbd7-46ab-a04c-5a927ffb85b1"


@pytest.mark.parametrize(
    ("response", "reported", "rule"),
    told(
        ("hex in the response, decimal in the receipt", b"38601fa", b"59113978", Rule.HEX_DECIMAL),
        ("decimal in the response, hex in the receipt", b"59113978", b"38601fa", Rule.DECIMAL_HEX),
        ("the decimal padded to 10 digits", b"38601fa", b"0059113978", Rule.HEX_DECIMAL),
        ("the hex in upper case", b"38601FA", b"59113978", Rule.HEX_DECIMAL),
        ("64 bits, unsigned", b"FFFFFFFFFFFFFFFF", b"18446744073709551615", Rule.HEX_DECIMAL),
        ("above 64 bits", b"1" + b"0" * 20, b"%d" % 16**20, Rule.HEX_DECIMAL),
        ("leading zeros dropped", b"0000436949", b"436949", Rule.ZEROS),
        ("leading zeros added", b"436949", b"0000436949", Rule.ZEROS),
        ("upper and lower case", b"6aad5", b"6AAD5", Rule.CASE),
        ("a UUID, exactly", UUID, UUID, Rule.EXACT),
    ),
)  # fmt: skip
async def test_ids_that_are_one(response, reported, rule):
    assert relation(response, reported) is rule
    assert normal(response) in candidates(reported)
    world = World(rule=rule)
    bind, session = world.bind(), world.session()
    world.open(session, bind, response)
    world.relay.from_operator(bind, [receipt(1, reported)])
    await world.look_up()
    assert len(session.connection.take()) == 1


@pytest.mark.parametrize(
    ("response", "reported"),
    told(
        ("a digit more at the end", b"4062581461565934000241", b"40625814615659340002410"),
        ("one digit apart: parts of one message", b"04062581461644996000241", b"04062581461644996000141"),
        ("a UUID in other case", UUID, UUID.upper()),
        ("a UUID without its zeros", b"00e999f2-81ef-4974-a414-3de98174e3c7", b"e999f2-81ef-4974-a414-3de98174e3c7"),
        ("letters beyond f", b"00xyz", b"xyz"),
        ("a dash", b"0-1", b"-1"),
    ),
)
@pytest.mark.parametrize("rule", list(Rule))
async def test_near_misses_do_not_match(response, reported, rule):
    assert relation(response, reported) is None
    world = World(rule=rule)
    bind, session = world.bind(), world.session()
    world.open(session, bind, response)
    world.relay.from_operator(bind, [receipt(1, reported)])
    await world.look_up()
    assert session.connection.take() == []
    assert world.counters.missed == 1


def test_a_decimal_reading_of_an_id_that_is_another_messages_hex_does_not_confuse_them():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"10")
    world.open(session, bind, b"16")
    found = [world.store.recent("acme", message_id) for message_id in (b"10", b"16")]
    assert judge(b"16", HANDSET, found, Rule.HEX_DECIMAL) == Match(found[1], Rule.EXACT)
    assert isinstance(judge(b"16", HANDSET, found[:1], Rule.DECIMAL_HEX), NoMatch)
    padded = [found[0], msgspec.structs.replace(found[0], message_id=b"0010", owner="gw2")]
    assert judge(b"16", HANDSET, padded, Rule.HEX_DECIMAL) == Ambiguous(2)


def test_of_a_reused_id_the_newest_submission_wins():
    world = World()
    bind, first, second = world.bind(), world.session("gw1"), world.session("gw2")
    world.open(first, bind, b"id1")
    world.now += 86_400
    world.open(second, bind, b"id1")
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    assert (len(first.connection.take()), len(second.connection.take())) == (0, 1)


async def test_an_expired_record_never_wins():
    world = World(open_message_days=7)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.now += 7 * 86_400
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    await world.look_up()
    assert session.connection.take() == []
    assert world.counters.missed == 1


# Temporary and permanent answers to a deliver_sm

TEMPORARY = told(
    ("0x58 ESME_RTHROTTLED", 0x58),
    ("0x14 ESME_RMSGQFUL", 0x14),
    ("0x08 ESME_RSYSERR", 0x08),
    ("0x64 ESME_RX_T_APPN", 0x64),
)


def passed_and_answered(status: int, **settings) -> World:
    world = World(**settings)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(5, b"id1")])
    world.relay.from_gateway(session, [deliver_sm_resp(1, status)])
    world.bind_there, world.session_there = bind, session
    return world


@pytest.mark.parametrize("status", TEMPORARY)
def test_a_temporary_error_of_the_gateway_is_custodys_and_the_operator_hears_rok(status):
    world = passed_and_answered(status)
    assert world.bind_there.connection.take() == []
    world.custody.answer()
    assert world.bind_there.connection.take() == [deliver_sm_resp(5)]


@pytest.mark.parametrize("status", TEMPORARY)
@pytest.mark.parametrize(
    "retry", [c.ESME_RTHROTTLED, c.ESME_RX_T_APPN], ids=["the default, 0x58", "the operator's own"]
)
def test_what_makes_an_operator_retry_is_a_setting(status, retry):
    world = passed_and_answered(status, on_temporary_error="retry_status", retry_status=retry)
    assert world.bind_there.connection.take() == [deliver_sm_resp(5, retry)]
    assert World().operator.retry_status == 0x58


@pytest.mark.parametrize(
    "status", told(("0x65 ESME_RX_P_APPN", 0x65), ("0x66 ESME_RX_R_APPN", 0x66), ("a vendor's", 0x400))
)
def test_a_permanent_error_goes_back_to_the_operator(status):
    world = passed_and_answered(status)
    assert world.bind_there.connection.take() == [deliver_sm_resp(5, status)]
    assert world.custody.accepted == []


def test_the_operator_is_answered_well_within_15_s():
    operator = World().operator
    assert operator.race_window_s + operator.gateway_answer_s < operator.operator_answer_s < 15


# Facts about the problem itself


def test_a_report_may_come_on_another_bind_than_the_one_that_submitted():
    world = World()
    submitted, other, session = world.bind("1"), world.bind("2"), world.session()
    world.open(session, submitted, b"id1")
    world.relay.from_operator(other, [receipt(5, b"id1")])
    [frame] = session.connection.take()
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])
    assert other.connection.take() == [deliver_sm_resp(5)]
    assert submitted.connection.take() == []


async def test_a_report_may_come_on_another_node_than_the_one_that_submitted():
    world = World()
    bind = world.bind()
    world.session()
    world.relay.from_operator(bind, [receipt(5, b"elsewhere")])
    await world.look_up()
    [accepted] = world.custody.accepted
    assert accepted.owner is None  # the ring finds it
    world.custody.answer()
    assert bind.connection.take() == [deliver_sm_resp(5)]


@pytest.mark.parametrize("same_bind", [True, False], ids=["on the same bind", "on another bind"])
async def test_a_report_before_its_submit_sm_resp_follows_it(same_bind):
    world = World()
    bind, session = world.bind("1"), world.session()
    world.submit(session, 7)
    world.relay.from_operator(bind if same_bind else world.bind("2"), [receipt(5, b"id1")])
    await world.look_up()
    assert session.connection.take() == []
    world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
    await world.look_up()
    assert [command_of(frame) for frame in session.connection.take()] == [c.SUBMIT_SM_RESP, c.DELIVER_SM]


async def test_the_report_of_a_submit_whose_response_was_lost_with_the_link_ends_in_custody():
    world = World()
    bind, session = world.bind("1"), world.session()
    world.submit(session, 7)
    world.relay.lost(bind)
    assert heads(session.connection.take()) == [("submit_sm_resp", c.ESME_RSYSERR, 7)]
    world.relay.from_operator(world.bind("2"), [receipt(5, b"id1")])
    await world.look_up()
    assert [accepted.message_id for accepted in world.custody.accepted] == [b"id1"]


def by_header(header: bytes) -> dict[str, object]:
    return {"esm_class": c.ESM_UDHI, "short_message": header + b"text"}


def by_tlvs(number: bytes) -> dict[str, object]:
    tlvs = (c.TLV_SAR_MSG_REF_NUM, b"\0\7"), (c.TLV_SAR_TOTAL_SEGMENTS, b"\2"), (c.TLV_SAR_SEGMENT_SEQNUM, number)
    return {"esm_class": 0, "tlvs": tlvs}


@pytest.mark.parametrize(
    ("one", "two"),
    told(
        ("an 8-bit reference", by_header(b"\5\0\3\7\2\1"), by_header(b"\5\0\3\7\2\2")),
        ("a 16-bit reference", by_header(b"\6\x08\4\1\7\2\1"), by_header(b"\6\x08\4\1\7\2\2")),
        ("SAR TLVs", by_tlvs(b"\1"), by_tlvs(b"\2")),
        ("a header on one bind and TLVs on another", by_header(b"\5\0\3\7\2\1"), by_tlvs(b"\2")),
    ),
)
def test_parts_of_one_mo_have_one_name_wherever_they_arrive(one, two):
    first, second = (part_of(deliver_sm(**fields)) for fields in (one, two))
    assert (first.number, second.number, first.total) == (1, 2, 2)
    assert first.key == second.key


# What other software gets wrong


def test_every_id_of_a_multipart_message_is_tracked():
    world = World()
    bind, session = world.bind(), world.session()
    for part in (1, 2, 3):
        world.open(session, bind, b"part%d" % part, sequence=part)
    world.relay.from_operator(bind, [receipt(n, b"part%d" % n) for n in (1, 2, 3)])
    assert len(session.connection.take()) == 3


def test_a_throttled_report_keeps_its_mapping():
    world = passed_and_answered(c.ESME_RTHROTTLED, on_temporary_error="retry_status")
    world.bind_there.connection.take()
    world.relay.from_operator(world.bind_there, [receipt(6, b"id1")])
    assert len(world.session_there.connection.take()) == 2


def test_reports_unanswered_when_the_client_drops_are_kept():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(5, b"id1")])
    world.relay.lost(session)
    assert [accepted.owner for accepted in world.custody.accepted] == ["gw1"]


@pytest.mark.parametrize(
    "frame",
    told(
        ("an odd TLV", deliver_sm(9, tlvs=((0x1501, b""), (0xFFFF, b"\0" * 300)))),
        ("an odd status in a request", pack(c.DELIVER_SM, 0xDEADBEEF, 9, Message(esm_class=4).encode())),
        ("an odd status in a response", pack(c.SUBMIT_SM_RESP, 0xDEADBEEF, 1, b"\xff\xff")),
        ("a command of SMPP 5.0", pack(c.BROADCAST_SM, 0, 9, b"\0")),
        ("a vendor's command", pack(0x00010203, 0, 9)),
    ),
)
def test_nothing_odd_drops_the_link(frame):
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 1)
    world.relay.from_operator(bind, [frame, pack(c.ENQUIRE_LINK, 0, 10)])
    assert pack(c.ENQUIRE_LINK_RESP, 0, 10) in bind.connection.take()
    assert bind.connection.ended is session.connection.ended is None


# Gateways, as seen from the SMSC side


def test_on_one_session_a_report_never_overtakes_its_response():
    world = World(auto_commit=False)
    bind, session = world.bind(), world.session()
    world.submit(session, 7)
    world.relay.from_operator(bind, [submit_sm_resp(1, b"id1"), receipt(5, b"id1")])
    assert session.connection.take() == []
    world.store.commit()
    assert [command_of(frame) for frame in session.connection.take()] == [c.SUBMIT_SM_RESP, c.DELIVER_SM]


def test_transmitter_and_receiver_are_two_connections_that_belong_together():
    world = World(receipt_delay_ms=50)
    bind = world.bind()
    transmitter, receiver = world.session(command=c.BIND_TRANSMITTER_RESP), world.session(command=c.BIND_RECEIVER_RESP)
    world.open(transmitter, bind, b"id1")
    world.relay.from_operator(bind, [receipt(5, b"id1")])
    assert receiver.connection.take() == []  # it must not overtake its response on the other connection
    world.tick(0.06)
    assert [command_of(frame) for frame in receiver.connection.take()] == [c.DELIVER_SM]


@pytest.mark.parametrize(
    ("fields", "status"),
    told(
        ("0x0F only for a wrong system_id", {"system_id": b"other"}, c.ESME_RINVSYSID),
        ("0x0E only for a wrong password", {"password": b"other"}, c.ESME_RINVPASWD),
        ("no operator bind: 0x0D, for Kannel tries that again", {}, c.ESME_RBINDFAIL),
        ("a system_type that nobody checks, never 0x53", {"system_type": b"VMA"}, c.ESME_RBINDFAIL),
    ),
)
async def test_a_bind_is_refused_only_by_what_is_true(fields, status):
    async with gateway_of(World(session_init_s=0.1)) as gateway:
        await gateway.send(bind_request(**fields))
        assert await gateway.receive() == pack(c.BIND_TRANSCEIVER_RESP, status, 1)


async def test_a_bind_is_answered_only_when_an_operator_bind_is_up():
    world = World()
    async with gateway_of(world) as gateway:
        await gateway.send(bind_request())
        with trio.move_on_after(0.05) as waiting:
            await gateway.receive()
        assert waiting.cancelled_caught
        world.bind()
        assert status_of(await gateway.receive()) == c.ESME_ROK


def refused(prepare, **settings) -> int:
    world = World(**settings)
    session = world.session()
    prepare(world)
    world.submit(session, 3)
    world.tick(6)
    return status_of(session.connection.take()[0])


@pytest.mark.parametrize(
    ("prepare", "settings", "status"),
    told(
        ("no bind up: 0x08", lambda world: None, {}, 0x08),
        ("draining: 0x58", lambda world: (world.bind(), setattr(world.relay, "draining", True)), {}, 0x58),
        ("window full for too long: 0x58", lambda world: setattr(world.bind().connection, "congested", True), {}, 0x58),
        ("the disk is full: 0x14", lambda world: (world.bind(), setattr(world.store, "accepting", False)), {}, 0x14),
    ),
)
def test_our_own_refusals_of_an_mt_are_such_as_gateways_retry(prepare, settings, status):
    assert refused(prepare, **settings) == status
    assert status in {0x08, 0x14, 0x58, 0x64}


def test_enquire_link_under_load_is_answered():
    world = World(window=1)
    world.bind()
    session = world.session()
    world.relay.from_gateway(session, [submit_sm(1), submit_sm(2), pack(c.ENQUIRE_LINK, 0, 3), submit_sm(4)])
    assert session.connection.take() == [pack(c.ENQUIRE_LINK_RESP, 0, 3)]


def test_before_we_close_we_answer_what_we_can_and_unbind():
    world = World(no_bind="close", window=1)
    bind, session = world.bind(), world.session()
    world.submit(session, 1, 2)
    world.relay.lost(bind)
    frames = session.connection.take()
    assert [command_of(frame) for frame in frames] == [c.SUBMIT_SM_RESP, c.SUBMIT_SM_RESP, c.UNBIND]
    assert [status_of(frame) for frame in frames] == [0x08, 0x08, 0]


def test_after_a_reconnect_a_gateway_counts_on_and_submits_again():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 41)
    world.relay.lost(session)
    again = world.session()
    world.submit(again, 41)  # a duplicate is its choice
    world.relay.from_operator(bind, [submit_sm_resp(1, b"a"), submit_sm_resp(2, b"b")])
    assert again.connection.take() == [submit_sm_resp(41, b"b")]
    world.relay.from_operator(bind, [receipt(1, b"a"), receipt(2, b"b")])
    assert len(again.connection.take()) == 2


def test_an_isolated_kannel_answers_0x64_and_loses_nothing():
    world = passed_and_answered(c.ESME_RX_T_APPN)
    assert [accepted.owner for accepted in world.custody.accepted] == ["gw1"]


async def test_nothing_waits_for_a_delayed_ack():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery, listener:
        dialled = await trio.open_tcp_stream(*listener.socket.getsockname())
        accepted = await listener.accept()
        connection = PlainConnection(accepted, "peer")
        nursery.start_soon(dialled.send_all, b"x")
        assert await connection.receive() == b"x"
        assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)
        await connection.aclose(linger=False)
        await dialled.aclose()


async def test_our_own_bind_states_the_version_of_the_configuration():
    async with smsc_of(interface_version="3.3") as (_, connections):
        smsc = await connections.receive()
        assert parse_bind((await smsc.receive())[c.HEADER_SIZE :]).interface_version == 0x33
