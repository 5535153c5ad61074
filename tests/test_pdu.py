import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp import constants as c
from protocols.smpp.pdu import (
    Bind,
    BodyError,
    Message,
    encode_tlvs,
    pack,
    parse,
    parse_bind,
    parse_data_sm,
    parse_message,
    parse_tlvs,
    response_id,
)

OCTETS = st.integers(0, 255)
CSTRINGS = st.binary(max_size=30).map(lambda value: value.replace(b"\0", b"."))
TLVS = st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=6).map(tuple)
MESSAGES = st.builds(
    Message,
    service_type=CSTRINGS,
    source_ton=OCTETS,
    source_npi=OCTETS,
    source=CSTRINGS,
    dest_ton=OCTETS,
    dest_npi=OCTETS,
    destination=CSTRINGS,
    esm_class=OCTETS,
    protocol_id=OCTETS,
    priority=OCTETS,
    schedule_time=CSTRINGS,
    validity_period=CSTRINGS,
    registered_delivery=OCTETS,
    replace_if_present=OCTETS,
    data_coding=OCTETS,
    default_msg_id=OCTETS,
    short_message=st.binary(max_size=255),
    tlvs=TLVS,
)
ONLY_IN_DELIVER_SM = ("protocol_id", "priority", "replace_if_present", "default_msg_id")


@given(MESSAGES)
def test_a_message_parses_to_what_was_encoded(message):
    assert parse_message(message.encode()) == message
    for command in (c.SUBMIT_SM, c.DELIVER_SM):
        assert parse(pack(command, 0, 1, message.encode())) == message


@given(MESSAGES)
def test_a_data_sm_parses_to_what_was_encoded(message):
    parsed = parse_data_sm(message.encode_data_sm())
    assert parsed.encode_data_sm() == message.encode_data_sm()
    assert parse(pack(c.DATA_SM, 0, 1, message.encode_data_sm())) == parsed
    assert (parsed.source, parsed.destination, parsed.tlvs) == (message.source, message.destination, message.tlvs)
    assert all(getattr(parsed, name) == 0 for name in ONLY_IN_DELIVER_SM)


@given(st.binary(max_size=300))
def test_any_body_parses_or_is_a_body_error(body):
    for parser in (parse_message, parse_data_sm, parse_bind):
        with contextlib.suppress(BodyError):
            parser(body)


@given(MESSAGES, st.data())
def test_a_body_cut_before_its_tlvs_names_the_field(message, data):
    body = Message.encode(message)
    end = len(body) - len(encode_tlvs(message.tlvs))
    with pytest.raises(BodyError, match=r"body|octets"):
        parse_message(body[: data.draw(st.integers(0, end - 1))])


@given(TLVS, st.binary(max_size=3))
def test_tlvs_keep_order_repeats_and_what_follows_them(tlvs, trailing):
    assert parse_tlvs(encode_tlvs(tlvs) + trailing, 0) == (tlvs, trailing)


def test_a_tlv_that_does_not_fit_is_kept_as_trailing():
    assert parse_tlvs(b"\x04\x27\x00\x01\x02\x00\x1e\x00\x08abc", 0) == (((0x0427, b"\x02"),), b"\x00\x1e\x00\x08abc")


def test_the_first_of_repeated_tlvs_is_found():
    message = Message(tlvs=((0x1E, b"a"), (0x1E, b"b")))
    assert message.tlv(0x1E) == b"a"
    assert message.tlv(0x1F) is None


def test_a_short_message_beyond_its_length_octet_is_refused():
    with pytest.raises(BodyError, match="message_payload"):
        Message(short_message=bytes(256)).encode()


@given(st.builds(Bind, CSTRINGS, CSTRINGS, CSTRINGS, OCTETS, OCTETS, OCTETS, CSTRINGS))
def test_a_bind_parses_to_what_was_encoded(bind):
    assert parse_bind(bind.encode()) == bind


def test_a_bind_cut_behind_interface_version_is_accepted():
    whole = Bind(b"shop", b"secret", b"", 0x34).encode()
    assert parse_bind(whole[: whole.index(b"\x34") + 1]) == Bind(b"shop", b"secret", b"", 0x34)


def test_a_bind_does_not_show_its_password():
    assert "secret" not in repr(Bind(b"shop", b"secret"))


@pytest.mark.parametrize(("body", "expected"), [(b"4af\0", b"4af"), (b"4af", b"4af"), (b"\0", b""), (b"", b"")])
def test_response_id_with_or_without_its_nul_or_a_body(body, expected):
    assert response_id(pack(c.SUBMIT_SM_RESP, 0, 1, body)) == expected
    assert response_id(pack(c.SUBMIT_SM_RESP, 0, 1, body)[:16] + body) == expected


def test_pack_counts_the_header():
    assert pack(c.ENQUIRE_LINK, 0, 0x7FFFFFFF) == bytes.fromhex("00000010 00000015 00000000 7fffffff")
