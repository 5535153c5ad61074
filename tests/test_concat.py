import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp import constants as c
from protocols.smpp import pdu
from protocols.smpp.concat import Part, part_of


def mo(text=b"hello", esm_class=0, tlvs=(), command=c.DELIVER_SM):
    message = pdu.Message(
        source=b"491700000001", destination=b"7000", esm_class=esm_class, short_message=text, tlvs=tuple(tlvs)
    )
    body = message.encode_data_sm() if command == c.DATA_SM else message.encode()
    return pdu.pack(command, 0, 1, body)


def with_header(header, text=b"hello", **more):
    return mo(bytes((len(header),)) + header + text, c.ESM_UDHI, **more)


def sar(reference=b"\x01\x02", total=b"\x03", number=b"\x02"):
    return ((c.TLV_SAR_MSG_REF_NUM, reference), (c.TLV_SAR_TOTAL_SEGMENTS, total), (c.TLV_SAR_SEGMENT_SEQNUM, number))


def part(reference, total, number):
    return Part(b"491700000001", b"7000", reference, total, number)


def test_an_8_bit_reference():
    assert part_of(with_header(b"\x00\x03\x84\x03\x01")) == part(0x84, 3, 1)


def test_a_16_bit_reference():
    assert part_of(with_header(b"\x08\x04\x01\x84\x03\x03")) == part(0x184, 3, 3)


def test_another_element_may_stand_before_it():
    assert part_of(with_header(b"\x05\x04\x15\x8a\x00\x00\x00\x03\x84\x02\x02")) == part(0x84, 2, 2)


def test_the_sar_tlvs():
    assert part_of(mo(tlvs=sar())) == part(0x102, 3, 2)
    assert part_of(mo(b"", tlvs=((c.TLV_MESSAGE_PAYLOAD, b"hello"), *sar()), command=c.DATA_SM)) == part(0x102, 3, 2)


def test_a_header_in_message_payload():
    payload = (c.TLV_MESSAGE_PAYLOAD, b"\x05\x00\x03\x84\x03\x01hello")
    assert part_of(mo(b"", c.ESM_UDHI, [payload])) == part(0x84, 3, 1)
    assert part_of(mo(b"", c.ESM_UDHI, [payload], command=c.DATA_SM)) == part(0x84, 3, 1)


@pytest.mark.parametrize(
    "frame",
    [
        mo(),
        mo(b"\x05\x00\x03\x84\x03\x01hello"),  # no UDHI
        mo(b"", c.ESM_UDHI),
        with_header(b"\x05\x04\x15\x8a\x00\x00"),  # ports only
        with_header(b"\x00\x03\x84\x01\x01"),  # one part is a whole message
        with_header(b"\x00\x03\x84\x03\x00"),  # numbers count from 1
        with_header(b"\x00\x03\x84\x03\x04"),
        with_header(b"\x00\x02\x84\x03"),
        with_header(b"\x00\x09\x84\x03\x01"),  # an element longer than the header
        mo(tlvs=sar()[:2]),
        mo(tlvs=sar(total=b"")),
        pdu.pack(c.SUBMIT_SM, 0, 1, b"\0" * 30),
        pdu.pack(c.DELIVER_SM, 0, 1, b"\0\0"),
    ],
)
def test_what_is_no_part(frame):
    assert part_of(frame) is None


def test_all_parts_of_one_message_have_one_key_however_they_are_named():
    keys = {
        part_of(with_header(b"\x00\x03\x84\x03\x01")).key,
        part_of(with_header(b"\x08\x04\x00\x84\x03\x02")).key,
        part_of(mo(tlvs=sar(reference=b"\x00\x84", number=b"\x03"))).key,
    }
    assert len(keys) == 1


def test_another_reference_total_or_address_is_another_message():
    parts = [part(1, 2, 1), part(2, 2, 1), part(1, 3, 1), Part(b"1", b"7000", 1, 2, 1), Part(b"1", b"", 1, 2, 1)]
    assert len({part.key for part in parts}) == len(parts)


@given(st.integers(0, 255), st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_give_a_part_or_none(esm_class, text, tlvs):
    found = part_of(mo(text, esm_class) + tlvs)
    assert found is None or 1 <= found.number <= found.total
