import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp import constants as c
from protocols.smpp import pdu
from protocols.smpp.text import GSM, LATIN_1, UCS2, alphabet_of, decode, text


def mo(short_message=b"", command=c.DELIVER_SM, **fields):
    message = pdu.Message(source=b"4477", destination=b"7000", short_message=short_message, **fields)
    body = message.encode_data_sm() if command == c.DATA_SM else message.encode()
    return pdu.pack(command, 0, 1, body)


CODINGS = [
    (0x00, b"WIN \x00\x02\x11\x7f", "WIN @$_à"),
    (0x00, b"\x1b\x65 \x1b(a\x1b)", "€ {a}"),
    (0x00, b"\x1bA\x90", "A\ufffd"),  # nothing behind that escape, and no character of 7 bits
    (0x01, b"WIN $", "WIN $"),
    (0x03, "café".encode("latin-1"), "café"),
    (0x08, "Жизнь".encode("utf-16-be"), "Жизнь"),
    (0x08, b"\x00W\x00", "W\ufffd"),
    (0x06, "привет".encode("iso8859-5"), "привет"),
    (0x04, b"\xe9", "é"),
    (0xF1, b"\x00", ""),  # padding, whatever the alphabet would say
    (0xF1, b"\x00a", "@a"),
    (0xF5, b"\xe9", "é"),
    (0x10, b"\x02a", "$a"),
    (0x18, b"\x00a", "a"),
    (0x02, b"a\0", "a"),
]


@pytest.mark.parametrize(("coding", "raw", "expected"), CODINGS)
def test_a_text_is_read_in_the_alphabet_that_data_coding_names(coding, raw, expected):
    assert decode(raw, coding) == expected
    assert text(mo(raw, data_coding=coding)) == expected


@pytest.mark.parametrize(
    ("coding", "alphabet"), [(0x14, LATIN_1), (0x1C, LATIN_1), (0xC8, GSM), (0xD0, GSM), (0xE0, UCS2), (0x0F, LATIN_1)]
)
def test_coding_groups(coding, alphabet):
    assert alphabet_of(coding) == alphabet


def test_the_user_data_header_is_no_text():
    assert text(mo(b"\x05\x00\x03\x07\x02\x01WIN a car", esm_class=c.ESM_UDHI)) == "WIN a car"


def test_a_header_that_cannot_be_one_is_text():
    assert text(mo(b"WIN", esm_class=c.ESM_UDHI)) == "WIN"


@pytest.mark.parametrize("command", [c.DELIVER_SM, c.DATA_SM])
def test_the_text_may_be_in_message_payload(command):
    payload = (c.TLV_MESSAGE_PAYLOAD, b"\x05\x00\x03\x07\x02\x01" + "Win".encode("utf-16-be"))
    frame = mo(command=command, esm_class=c.ESM_UDHI, data_coding=8, tlvs=(payload,))
    assert text(frame) == "Win"


def test_another_pdu_has_no_text():
    assert text(pdu.pack(c.ENQUIRE_LINK, 0, 1)) == ""


@given(st.binary(max_size=200), st.integers(0, 255))
def test_any_bytes_are_some_text(raw, coding):
    assert isinstance(decode(raw, coding), str)


@given(st.binary(max_size=100))
def test_any_body_is_some_text(body):
    for command in (c.DELIVER_SM, c.DATA_SM):
        assert isinstance(text(pdu.pack(command, 0, 1, body)), str)


@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N"]), max_size=50))
def test_letters_and_digits_are_the_same_in_every_alphabet(word):
    assert {decode(word.encode(), coding) for coding in (0, 1, 3, 4, 0xF0, 0xF4)} == {word}
