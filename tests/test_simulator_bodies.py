"""The simulators' templates and patterns, checked against the field-by-field parser."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlrproxy.simulator import bodies
from protocols.smpp import constants as c
from protocols.smpp.pdu import BodyError, Message, pack, parse

MT = Message(
    service_type=b"cmt",
    source_ton=5,
    source=b"Shop",
    dest_ton=1,
    dest_npi=1,
    destination=b"46701234567",
    validity_period=b"000001000000000R",
    registered_delivery=1,
    short_message=b"gw1-abcd-17 hello to all of you",
)


def submit(message, command=c.SUBMIT_SM):
    return pack(command, 0, 7, message.encode_data_sm() if command == c.DATA_SM else message.encode())


def test_read_submit():
    read = bodies.read_submit(submit(MT))
    assert read == (b"\x05\0Shop", (b"\x01\x0146701234567",), 1, b"gw1-abcd-17 hello to")
    assert read.tag == "gw1-abcd-17"


@pytest.mark.parametrize(
    ("changes", "head"),
    [
        ({"short_message": b"", "tlvs": ((c.TLV_MESSAGE_PAYLOAD, b"payload text"),)}, b"payload text"),
        ({"short_message": b"\x05\0\x03\x01\x02\x01part one", "esm_class": c.ESM_UDHI}, b"part one"),
        ({"short_message": "tåg ett".encode("utf-16-be"), "data_coding": 8}, b"t?g ett"),
        ({"short_message": b""}, b""),
        ({"short_message": b"\0\xff\n"}, b"\0\xff\n"),
    ],
)
def test_head_of_the_text(changes, head):
    fields = {"source": b"1", "destination": b"2", **changes}
    assert bodies.read_submit(submit(Message(**fields))).head == head


def test_read_data_sm():
    message = Message(
        source=b"1", dest_ton=1, destination=b"2", registered_delivery=1, tlvs=((c.TLV_MESSAGE_PAYLOAD, b"tag text"),)
    )
    assert bodies.read_data_sm(submit(message, c.DATA_SM)) == (b"\0\x001", (b"\x01\x002",), 1, b"tag text")


def test_read_submit_multi_leaves_distribution_lists_out():
    body = b"\0\0\x01123\0\x03\x01\x01\x01461\0\x02friends\0\x01\x01\x01462\0\0\0\0\0\0\x01\0\0\0\x05hello"
    read = bodies.read_submit_multi(pack(c.SUBMIT_MULTI, 0, 1, body))
    assert read == (b"\0\x01123", (b"\x01\x01461", b"\x01\x01462"), 1, b"hello")


@pytest.mark.parametrize("read", [bodies.read_submit, bodies.read_submit_multi, bodies.read_data_sm])
def test_a_truncated_body_is_an_error(read):
    with pytest.raises(BodyError):
        read(submit(MT)[:25])


def test_submit_body_parses():
    before, between = bodies.submit_body("12345", 1)
    parsed = parse(pack(c.SUBMIT_SM, 0, 1, before + b"46701234567\0" + between + b"\x05hello"))
    assert parsed == Message(
        source_npi=1, source=b"12345", dest_ton=1, dest_npi=1, destination=b"46701234567", registered_delivery=1,
        short_message=b"hello",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "number", "final", "esm_class"),
    [("DELIVRD", 2, True, c.ESM_RECEIPT), ("ENROUTE", 1, False, c.ESM_INTERMEDIATE)],
)
def test_receipt_parses_and_reads_back(state, number, final, esm_class):
    asked = bodies.read_submit(submit(MT))
    tlvs = bodies.receipt_tlvs(b"1a2b", number)
    body = bodies.receipt_body(asked, asked.destinations[0], b"6699", state.encode(), b"2501311200", tlvs, final=final)
    frame = pack(c.DELIVER_SM, 0, 1, body)
    parsed = parse(frame)
    assert (parsed.source, parsed.source_ton, parsed.destination, parsed.dest_ton) == (b"46701234567", 1, b"Shop", 5)
    assert parsed.esm_class == esm_class
    assert parsed.tlvs == ((c.TLV_RECEIPTED_MESSAGE_ID, b"1a2b\0"), (c.TLV_MESSAGE_STATE, bytes((number,))))
    assert parsed.trailing == b""
    assert parsed.short_message.startswith(b"id:6699 sub:001 dlvrd:")
    assert bodies.read_delivered(frame) == (True, b"46701234567", b"Shop", "1a2b", state, "gw1-abcd-17")


def test_receipt_without_tlvs_is_read_by_its_text():
    asked = bodies.read_submit(submit(MT))
    body = bodies.receipt_body(asked, asked.destinations[0], b"6699", b"UNDELIV", b"2501311200", b"", final=True)
    assert bodies.read_delivered(pack(c.DELIVER_SM, 0, 1, body))[3:] == ("6699", "UNDELIV", "gw1-abcd-17")


def test_receipt_of_tlvs_only_in_a_data_sm():
    message = Message(
        source=b"46", destination=b"12", esm_class=c.ESM_RECEIPT,
        tlvs=((c.TLV_RECEIPTED_MESSAGE_ID, b"77\0"), (c.TLV_MESSAGE_STATE, b"\x05")),
    )  # fmt: skip
    assert bodies.read_delivered_data(submit(message, c.DATA_SM)) == (True, b"46", b"12", "77", "UNDELIV", "")


def test_an_empty_message_state_is_no_state():
    message = Message(esm_class=c.ESM_RECEIPT, tlvs=((c.TLV_RECEIPTED_MESSAGE_ID, b"77"), (c.TLV_MESSAGE_STATE, b"")))
    assert bodies.read_delivered(pack(c.DELIVER_SM, 0, 1, message.encode())).message_id == "77"


def test_mo_part_parses_and_reads_back():
    frame = pack(c.DELIVER_SM, 0, 1, bodies.mo_body("467", "7000", b"WIN ab-1.2", bodies.concatenation_udh(300, 2, 2)))
    parsed = parse(frame)
    assert parsed.esm_class == c.ESM_UDHI
    assert parsed.short_message == b"\x05\0\x03\x2c\x02\x02WIN ab-1.2"
    assert bodies.read_delivered(frame) == (False, b"467", b"7000", "", "", "ab-1.2")


READERS = [
    bodies.read_submit, bodies.read_submit_multi, bodies.read_data_sm, bodies.read_delivered,
    bodies.read_delivered_data,
]  # fmt: skip


@given(st.sampled_from(READERS), st.binary(max_size=80) | st.lists(st.integers(0, 6), max_size=80).map(bytes))
def test_any_body_is_read_or_is_a_body_error(read, body):
    with contextlib.suppress(BodyError):
        read(pack(c.SUBMIT_SM, 0, 1, body))


@given(st.binary(max_size=200), st.integers(0, 255), st.sampled_from([0, 3, 8]))
def test_any_text_is_read(text, esm_class, coding):
    message = Message(source=b"1", destination=b"2", esm_class=esm_class, data_coding=coding, short_message=text)
    frame = pack(c.DELIVER_SM, 0, 1, message.encode())
    assert len(bodies.read_submit(frame).head) <= bodies.TAG_SIZE
    assert bodies.read_delivered(frame).report == bool(esm_class & c.ESM_TYPE_MASK)
