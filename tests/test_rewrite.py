"""Byte for byte: what `receipt_id = "as-submitted"` changes in a report, and that it changes nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp import constants as c
from protocols.smpp import pdu
from protocols.smpp.framing import split
from protocols.smpp.receipts import read
from protocols.smpp.rewrite import with_id

TEXT = b"id:%b sub:001 dlvrd:001 submit date:1002101730 done date:1002101731 stat:DELIVRD err:000 text:id:5 hello\xff"
SUBMITTED = b"38601FA-long-as-submitted"
VENDOR = (0x1454, b"\0\0\0\1")
STATE = (c.TLV_MESSAGE_STATE, b"\x02")


def report(text=b"", tlvs=(), coding=0, esm_class=c.ESM_RECEIPT, command=c.DELIVER_SM):
    message = pdu.Message(
        b"CMT", 1, 1, b"491700000001", 5, 0, b"INFO", esm_class, 1, 2, b"", b"", 1, 0, coding, 3, text, tuple(tlvs)
    )
    return pdu.pack(command, 0, 77, message.encode_data_sm() if command == c.DATA_SM else message.encode())


def tlv_id(value):
    return (c.TLV_RECEIPTED_MESSAGE_ID, value)


def payload(text):
    return (c.TLV_MESSAGE_PAYLOAD, text)


@pytest.mark.parametrize("new", [b"7", b"0059113978", SUBMITTED])
def test_the_id_in_the_text_and_in_the_tlv(new):
    before = report(TEXT % b"0059113978", [VENDOR, tlv_id(b"38601fa\0"), STATE])
    after = report(TEXT % new, [VENDOR, tlv_id(new + b"\0"), STATE])
    assert with_id(before, new).frame == after
    assert with_id(before, new).problem is None


def test_an_odd_text():
    before = report(b"\0 Stat:DELIVRD  ID: '12' err:")
    assert with_id(before, SUBMITTED).frame == report(b"\0 Stat:DELIVRD  ID: '%b' err:" % SUBMITTED)


def test_the_tlv_keeps_its_blanks_and_its_missing_nul():
    before = report(tlvs=[tlv_id(b" 12 "), STATE])
    assert with_id(before, b"999").frame == report(tlvs=[tlv_id(b" 999 "), STATE])


def test_an_empty_tlv_stays_empty():
    before = report(b"id:12 stat:DELIVRD", [tlv_id(b"\0")])
    assert with_id(before, b"9").frame == report(b"id:9 stat:DELIVRD", [tlv_id(b"\0")])


def test_the_text_in_message_payload():
    before = report(tlvs=[payload(TEXT % b"12"), STATE, payload(TEXT % b"13")])
    after = report(tlvs=[payload(TEXT % SUBMITTED), STATE, payload(TEXT % b"13")])
    assert with_id(before, SUBMITTED).frame == after


def test_a_message_payload_beside_a_short_message_is_left_alone():
    before = report(b"id:12 stat:DELIVRD", [payload(TEXT % b"12")])
    assert with_id(before, b"9").frame == report(b"id:9 stat:DELIVRD", [payload(TEXT % b"12")])


def test_a_data_sm():
    before = report(tlvs=[tlv_id(b"12\0"), payload(TEXT % b"12"), STATE], command=c.DATA_SM)
    after = report(tlvs=[tlv_id(b"345\0"), payload(TEXT % b"345"), STATE], command=c.DATA_SM)
    assert with_id(before, b"345").frame == after


@pytest.mark.parametrize("codec", ["utf-16-be", "utf-16-le", "utf-16"])
def test_ucs2(codec):
    text = "id:%s stat:DELIVRD text:Привет \N{GRINNING FACE}"
    before = report((text % "12").encode(codec), coding=8)
    assert with_id(before, b"3456").frame == report((text % "3456").encode(codec), coding=8)


@pytest.mark.parametrize(("codec", "coding"), [("latin-1", 0), ("utf-16-be", 8)])
def test_a_user_data_header_stays(codec, coding):
    header = b"\x05\x00\x03\x84\x01\x01"
    flags = c.ESM_RECEIPT | c.ESM_UDHI
    before = report(header + "id:12 stat:DELIVRD".encode(codec), coding=coding, esm_class=flags)
    after = report(header + "id:3 stat:DELIVRD".encode(codec), coding=coding, esm_class=flags)
    assert with_id(before, b"3").frame == after


def test_bytes_behind_the_last_whole_tlv_stay():
    trailing = b"\x00\x1e\x00\x08abc"
    before = pdu.pack(c.DELIVER_SM, 0, 77, report(b"id:12 stat:DELIVRD", [STATE])[16:] + trailing)
    after = pdu.pack(c.DELIVER_SM, 0, 77, report(b"id:3 stat:DELIVRD", [STATE])[16:] + trailing)
    assert with_id(before, b"3").frame == after


def test_a_text_that_would_be_too_long_keeps_its_id_and_the_tlv_is_rewritten():
    text = (TEXT % b"12").ljust(254, b".")
    done = with_id(report(text, [tlv_id(b"12")]), b"1234")
    assert done.frame == report(text, [tlv_id(b"1234")])
    assert done.problem == "with the id as submitted sm_length would be 256, more than 255: its id is as received"


def test_a_text_that_just_fits():
    text = (TEXT % b"12").ljust(253, b".")
    assert with_id(report(text), b"1234").frame == report(text.replace(b"id:12", b"id:1234"))


def test_a_payload_that_would_be_too_long_keeps_its_id():
    text = (TEXT % b"12").ljust(0xFFFF, b".")
    done = with_id(report(tlvs=[payload(text)]), b"1234")
    assert done.frame == report(tlvs=[payload(text)])
    assert "message_payload" in done.problem


def test_a_report_that_names_no_message_is_unchanged():
    before = report(b"stat:DELIVRD", [STATE])
    assert with_id(before, b"12").frame == before
    assert with_id(before, b"12").problem is None


def test_an_unreadable_body_is_unchanged_and_said_to_be():
    cut = report(TEXT % b"12")[:-5]
    assert with_id(cut, b"9").frame == cut
    assert "sm_length" in with_id(cut, b"9").problem
    assert with_id(pdu.pack(c.DELIVER_SM, 0, 1, b"\0"), b"9").problem == "the body cannot be read"


IDS = st.text("0123456789abcdefABCDEF-_.", min_size=1, max_size=64).map(str.encode)


@given(
    IDS,
    IDS,
    st.sampled_from([b"id:%b stat:DELIVRD err:000 text:", TEXT, b" Stat:KO id:%b "]),
    st.sampled_from([0, 8]),
    st.booleans(),
    st.booleans(),
)
def test_what_is_rewritten_reads_as_rewritten_and_back_again(old, new, text, coding, in_payload, with_tlv):
    text = text % old
    if coding:
        text = text.decode("latin-1").encode("utf-16-be")
    tlvs = [tlv_id(old + b"\0")] if with_tlv else []
    before = report(tlvs=[*tlvs, payload(text)], coding=coding) if in_payload else report(text[:254], tlvs, coding)
    done = with_id(before, new)
    assert split(done.frame) == ([done.frame], b"")
    if done.problem is None:
        assert (read(done.frame).message_id, read(done.frame).text_id) == (new, new)
        assert with_id(done.frame, old).frame == before


@given(st.integers(0, 255), st.binary(max_size=120), st.binary(max_size=60), IDS)
def test_any_bytes_give_a_frame_that_can_be_framed(esm_class, text, tlvs, new):
    for body in (report(text, esm_class=esm_class)[16:] + tlvs, text + tlvs):
        frame = pdu.pack(c.DELIVER_SM, 0, 1, body)
        done = with_id(frame, new)
        assert split(done.frame) == ([done.frame], b"")
