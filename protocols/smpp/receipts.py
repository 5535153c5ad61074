"""What a deliver_sm or data_sm from an operator reports, if it is a report at all.

A report (receipt or intermediate notification) is told by, in this order:

    esm_class type bit 0x04 or 0x20      a receipt, an intermediate notification (SMPP 3.4 5.2.12)
    TLV 0x001E with TLV 0x0427           an id and its state, whatever the type bits say; 0x001E alone makes no report
    type 0x08, 0x10, 0x18                acknowledgements: only where they name the message, by TLV 0x001E or in the
                                         shape of a receipt's text; else they are an MO
    type 0x00 with a receipt's text      only with `text_receipts`, the operator's setting `receipt_text`: any
                                         subscriber can write such a text

Everything else is an MO. The message's id is the TLV's where there is one, else the text's; the state is the text's
word where there is one, else the TLV's. Only id, state and error decide anything; the rest is carried, not
understood.

Any bytes give a value: what cannot be read is named in `Report.problem` and nothing is raised, for an unreadable
report still has to be routed.
"""

import re
import struct
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from protocols.smpp import constants as c
from protocols.smpp.message_ids import digits
from protocols.smpp.receipt_text import FINAL_WORDS, begins_with_key, fields_of, looks_like_receipt, values_of

REPORT_BITS: Final = c.ESM_RECEIPT | c.ESM_INTERMEDIATE

UCS2: Final = 8


class Sign(StrEnum):
    """By what a report shows that it is one."""

    TYPE = "its esm_class says so"
    TLVS = "it carries receipted_message_id and message_state"
    ACKNOWLEDGEMENT = "it is an acknowledgement that names its message"
    TEXT = "its text has a receipt's shape, and receipt_text is set"


class Report(msgspec.Struct, frozen=True, gc=False):
    """What a report says. `read` makes it; ids are bytes as they came, without padding blanks and NULs."""

    message_id: bytes | None  # TLV 0x001E, else the text's; None: it names no message
    text_id: bytes | None  # what the text says, also where the TLV decides
    state: str | None  # upper case; the text's stat word, else the name of TLV 0x0427
    error: str | None  # the text's err, as it stands; empty where the key has no value
    final: bool  # nothing follows it; never for an intermediate notification
    intermediate: bool  # esm_class says intermediate notification
    source: bytes  # digits of source_addr: the handset, the MT's destination
    destination: bytes  # digits of destination_addr: the MT's source
    problem: str | None = None  # what could not be read, and so may be missing above


# What can be read of a deliver_sm or data_sm: source_addr, destination_addr, esm_class, data_coding, the offsets of
# the text's first octet and of the first one after it (in the frame; a data_sm has no text there), and what was wrong.
Body = tuple[bytes, bytes, int, int, int, int, str | None]


# The fields up to short_message or the TLVs: service_type, ton, npi and address of source and destination, and so on.
_DELIVER_SM: Final = re.compile(
    rb"[^\0]*\0..([^\0]*)\0..([^\0]*)\0(.)..[^\0]*\0[^\0]*\0..(.).(.)",
    re.DOTALL,
)
_DATA_SM: Final = re.compile(rb"[^\0]*\0..([^\0]*)\0..([^\0]*)\0(.).(.)", re.DOTALL)
_CUT_SHORT: Final = re.compile(rb"[^\0]*\0..([^\0]*)\0..([^\0]*)\0(.)", re.DOTALL)

# A whole deliver_sm whose esm_class says receipt and nothing else, with a text in the layout of SMPP 3.4 appendix B: so
# most receipts are read by one match. Anchored at the body's start: a pattern searched at an offset would take
# sm_length for text. The empty alternatives are cheaper than optional groups. No value holds a colon:
# another key may be glued to it.
_USUAL: Final = re.compile(
    rb"[^\0]*\0..([^\0]*)\0..([^\0]*)\0\x04..[^\0]*\0[^\0]*\0....(.)"
    rb"id:([0-9A-Za-z_.\-]+) (?:sub:[^ :]* dlvrd:[^ :]* |)(?:submit date:[^ :]* done date:[^ :]* |)"
    rb"stat:([A-Za-z]+) err:([0-9A-Za-z_]*)",
    re.DOTALL,
)
_BEHIND_USUAL: Final = frozenset({b" text:", b" Text:"})

_STATE_WORDS: Final = MappingProxyType({name.encode(): name for name in c.MESSAGE_STATES.values()})

_DELIVER_SM_BYTES: Final = struct.pack(">I", c.DELIVER_SM)
_DATA_SM_BYTES: Final = struct.pack(">I", c.DATA_SM)
# Names of this module, for they are looked up for every TLV.
_TLV_ID: Final = c.TLV_RECEIPTED_MESSAGE_ID
_TLV_STATE: Final = c.TLV_MESSAGE_STATE
_TLV_PAYLOAD: Final = c.TLV_MESSAGE_PAYLOAD
_tlv_head = struct.Struct(">HH").unpack_from


def read(frame: bytes, *, text_receipts: bool = False) -> Report | None:
    """What a whole deliver_sm or data_sm PDU reports; None for an MO. Never raises, whatever the bytes."""
    usual = _USUAL.match(frame, c.HEADER_SIZE) if frame[4:8] == _DELIVER_SM_BYTES else None
    if usual is None:
        return _read_unusual(frame, text_receipts=text_receipts)
    source, destination, length, text_id, word, error = usual.groups()
    end = usual.end()
    text_end = usual.start(4) - len(b"id:") + length[0]
    size = len(frame)
    # Anything else behind err, or a wrong sm_length, and what matched may not be what it seems.
    if text_end > size or end > text_end or (end != text_end and frame[end : end + 6] not in _BEHIND_USUAL):
        return _read_unusual(frame, text_receipts=text_receipts)
    tlv_id, tlv_state, _ = deciding_tlvs(frame, text_end) if text_end < size else (None, None, None)
    state = _STATE_WORDS.get(word) or word.decode("ascii").upper()
    return Report(
        tlv_id or text_id,
        text_id,
        state,
        error.decode("ascii"),
        (c.MESSAGE_STATES.get(tlv_state, state) if tlv_state is not None else state) in FINAL_WORDS,
        False,
        digits(source),
        digits(destination),
    )


def _read_unusual(frame: bytes, *, text_receipts: bool) -> Report | None:
    """`read` for everything that is not in the usual layout."""
    body = read_body(frame)
    if body is None:
        return None
    source, destination, esm_class, _, _, text_end, problem = body
    kind = esm_class & c.ESM_TYPE_MASK
    if not kind and not text_receipts and text_end + 4 > len(frame):
        return None  # an ordinary message without TLVs: the commonest MO
    tlv_id, tlv_state, payload = deciding_tlvs(frame, text_end)
    text = text_of(frame, body, payload)
    if sign_of(kind, tlv_id, tlv_state, text, text_receipts=text_receipts) is None:
        return None
    text_id, word, error = fields_of(text)
    state_name = None if tlv_state is None else c.MESSAGE_STATES.get(tlv_state)
    intermediate = kind & REPORT_BITS == c.ESM_INTERMEDIATE
    return Report(
        tlv_id or text_id,
        text_id,
        word or state_name or word,
        error,
        not intermediate and (state_name or word) in FINAL_WORDS,
        intermediate,
        digits(source),
        digits(destination),
        problem,
    )


def sign_of(kind: int, tlv_id: bytes | None, tlv_state: int | None, text: bytes, *, text_receipts: bool) -> Sign | None:
    """By what a message with these type bits, TLVs and text shows that it is a report; None for an MO."""
    if kind & REPORT_BITS:
        return Sign.TYPE
    if tlv_id and tlv_state is not None:
        return Sign.TLVS
    if kind:
        return Sign.ACKNOWLEDGEMENT if tlv_id or looks_like_receipt(text) else None
    return Sign.TEXT if text_receipts and looks_like_receipt(text) else None


def read_body(frame: bytes) -> Body | None:
    """The deciding fields of a deliver_sm or data_sm; None for another PDU, or one cut before its esm_class."""
    command = frame[4:8]
    if command == _DELIVER_SM_BYTES:
        match = _DELIVER_SM.match(frame, c.HEADER_SIZE)
        if match is not None:
            source, destination, esm_class, coding, length = match.groups()
            at = match.end()
            end = at + length[0]
            if end <= len(frame):
                return source, destination, esm_class[0], coding[0], at, end, None
            problem = f"sm_length {length[0]}, {len(frame) - at} octets left"
            return source, destination, esm_class[0], coding[0], at, len(frame), problem
    elif command == _DATA_SM_BYTES:
        match = _DATA_SM.match(frame, c.HEADER_SIZE)
        if match is not None:
            source, destination, esm_class, coding = match.groups()
            return source, destination, esm_class[0], coding[0], match.end(), match.end(), None
    else:
        return None
    match = _CUT_SHORT.match(frame, c.HEADER_SIZE)
    if match is None:
        return None
    source, destination, esm_class = match.groups()
    return source, destination, esm_class[0], 0, len(frame), len(frame), "the body ends before its text"


def deciding_tlvs(frame: bytes, at: int) -> tuple[bytes | None, int | None, bytes | None]:
    """receipted_message_id (None if empty), message_state and message_payload; of repeated ones the first.

    Reading stops without complaint at the first TLV that does not fit: peers pad.
    """
    tlv_id = payload = None
    state: int | None = None
    size = len(frame)
    while at + 4 <= size:
        tag, length = _tlv_head(frame, at)
        start = at + 4
        at = start + length
        if at > size:
            break
        if tag == _TLV_ID:
            tlv_id = tlv_id or clean_id(frame[start:at])
        elif tag == _TLV_STATE:
            if length and state is None:
                state = frame[start] if length == 1 else int.from_bytes(frame[start:at], "big")
        elif tag == _TLV_PAYLOAD and payload is None:
            payload = frame[start:at]
    if state is not None and 0x30 <= state <= 0x39:  # an ASCII digit
        state -= 0x30
    return tlv_id, state, payload


def clean_id(value: bytes) -> bytes | None:
    """A TLV's id without its NUL, what stands behind that, and blanks around it; None if nothing is left."""
    return value.partition(b"\0")[0].strip() or None


def text_of(frame: bytes, body: Body, payload: bytes | None) -> bytes:
    """The text without its user data header, as ASCII where it was UCS-2; from message_payload if there is no other."""
    _, _, esm_class, coding, start, end, _ = body
    raw = frame[start:end] or payload or b""
    if esm_class & c.ESM_UDHI:
        raw = without_udh(raw)
    return narrow(raw, coding) if b"\0" in raw else raw


def without_udh(raw: bytes) -> bytes:
    """What follows the user data header. A header that cannot be one is text: some receipts set UDHI by mistake."""
    if not raw or not 0 < raw[0] < len(raw) or begins_with_key(raw):
        return raw
    return raw[raw[0] + 1 :]


def narrow(raw: bytes, coding: int) -> bytes:
    """A UCS-2 text with one octet a character, a blank for what needs two; any other text as it is.

    So the octets at 2n and 2n + 1 of the one are the octet at n of the other.
    """
    order = utf16_order_of(raw, coding)
    if order is None:
        return raw
    high, low = (raw[0::2], raw[1::2]) if order == "big" else (raw[1::2], raw[0::2])
    return bytes(0x20 if page else octet for page, octet in zip(high, low, strict=False))  # an odd octet is dropped


def utf16_order_of(raw: bytes, coding: int) -> Literal["big", "little"] | None:
    """The octet order of a UCS-2 text (SMPP: big), None for one octet a character, whatever data_coding claims.

    A receipt begins with ASCII, so its UCS-2 shows NULs; and some senders say data_coding 8 and send ASCII.
    """
    if raw[:2] == b"\xff\xfe" or (raw[1:2] == raw[3:4] == b"\0" and raw[:1] != b"\0"):
        return "little"
    if raw[:2] == b"\xfe\xff" or (raw[:1] == raw[2:3] == b"\0" and raw[1:2] != b"\0"):
        return "big"
    return "big" if coding == UCS2 and b"\0" in raw[:-1] else None


class Reading(msgspec.Struct, frozen=True):
    """Everything that can be seen in a PDU, for people: what `read` decided, and from what."""

    report: Report | None
    sign: Sign | None  # why it is a report
    body: Body | None  # None: no deliver_sm or data_sm, or cut before its esm_class
    text: bytes  # as `text_of` gives it
    text_in: str  # the field that it came from; empty if there is no text
    values: dict[str, bytes]  # the text's keys
    tlv_id: bytes | None
    tlv_state: int | None
    looks_like_receipt: bool  # the text alone would do, were `receipt_text` set


def read_full(frame: bytes, *, text_receipts: bool = False) -> Reading:
    """All of what `read` looks at. Never raises."""
    body = read_body(frame)
    if body is None:
        return Reading(None, None, None, b"", "", {}, None, None, looks_like_receipt=False)
    tlv_id, tlv_state, payload = deciding_tlvs(frame, body[5])
    text = text_of(frame, body, payload)
    in_short_message = body[5] > body[4]
    return Reading(
        report=read(frame, text_receipts=text_receipts),
        sign=sign_of(body[2] & c.ESM_TYPE_MASK, tlv_id, tlv_state, text, text_receipts=text_receipts),
        body=body,
        text=text,
        text_in="short_message" if in_short_message else "message_payload" if payload else "",
        values=values_of(text),
        tlv_id=tlv_id,
        tlv_state=tlv_state,
        looks_like_receipt=looks_like_receipt(text),
    )
