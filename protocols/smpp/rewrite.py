"""The id inside a report, replaced by the id that the gateway was given (setting `receipt_id = "as-submitted"`).

Gateways that look a receipt up by the exact string, as Kannel does, then find it, whichever form the operator reports
it in. The text's id and TLV 0x001E are replaced; every other byte stays, and sm_length, the TLV's length and
command_length are made right.
"""

import struct
from typing import Final

from attrs import frozen

from protocols.smpp import constants as c
from protocols.smpp.framing import LENGTH
from protocols.smpp.receipt_text import id_span_of
from protocols.smpp.receipts import Body, clean_id, narrow, read_body, utf16_order_of, without_udh

MAX_SM_LENGTH: Final = 255  # 254 by the specification; the octet allows one more, and peers use it
MAX_TLV_LENGTH: Final = 0xFFFF
_TLV: Final = struct.Struct(">HH")


@frozen
class Rewritten:
    """The report with another id in it.

    `problem` says why an id that is in it was left as it was: it would not fit, or the body cannot be read. What
    could be replaced has been; the frame is a valid PDU in any case, if it was one.
    """

    frame: bytes
    problem: str | None = None


def with_id(frame: bytes, message_id: bytes) -> Rewritten:
    """The report `frame` (a whole deliver_sm or data_sm) about `message_id`. Unchanged if it names no message."""
    body = read_body(frame)
    if body is None or body[6] is not None:
        return Rewritten(frame, "the body cannot be read" if body is None else body[6])
    _, _, _, _, start, end, _ = body
    text, problem = frame[start:end], None
    if text:
        text, problem = _fitting(text, _text_with_id(text, body, message_id), MAX_SM_LENGTH, "sm_length")
    tlvs, tlv_problem = _tlvs_with_id(frame[end:], body, message_id, text_in_payload=not text)
    head = frame[: start - 1] + bytes((len(text),)) if _has_short_message(frame) else frame[:start]
    rewritten = b"".join((head, text, tlvs))
    return Rewritten(LENGTH.pack(len(rewritten)) + rewritten[4:], problem or tlv_problem)


def _has_short_message(frame: bytes) -> bool:
    return LENGTH.unpack_from(frame, 4) == (c.DELIVER_SM,)


def _fitting(old: bytes, new: bytes, limit: int, field: str) -> tuple[bytes, str | None]:
    if len(new) <= limit:
        return new, None
    return old, f"with the id as submitted {field} would be {len(new)}, more than {limit}: its id is as received"


def _text_with_id(raw: bytes, body: Body, message_id: bytes) -> bytes:
    """A text, with its user data header if it has one, about another id."""
    text = without_udh(raw) if body[2] & c.ESM_UDHI else raw
    header = raw[: len(raw) - len(text)]
    order = utf16_order_of(text, body[3]) if b"\0" in text else None
    span = id_span_of(narrow(text, body[3]) if order else text)
    if span is None:
        return raw
    start, end = span
    if order is None:
        return b"".join((header, text[:start], message_id, text[end:]))
    encoded = message_id.decode("latin-1").encode("utf-16-be" if order == "big" else "utf-16-le")
    return b"".join((header, text[: 2 * start], encoded, text[2 * end :]))


def _tlvs_with_id(data: bytes, body: Body, message_id: bytes, *, text_in_payload: bool) -> tuple[bytes, str | None]:
    """TLVs about another id; what stands behind the last whole one stays."""
    done: list[bytes] = []
    problem = None
    at = 0
    while at + _TLV.size <= len(data):
        tag, length = _TLV.unpack_from(data, at)
        value = data[at + _TLV.size : at + _TLV.size + length]
        if len(value) < length:
            break
        if tag == c.TLV_RECEIPTED_MESSAGE_ID:
            value = _value_with_id(value, message_id)
        elif tag == c.TLV_MESSAGE_PAYLOAD and text_in_payload:
            text_in_payload = False  # of several the first is the text
            value, problem = _fitting(value, _text_with_id(value, body, message_id), MAX_TLV_LENGTH, "message_payload")
        done += (_TLV.pack(tag, len(value)), value)
        at += _TLV.size + length
    return b"".join((*done, data[at:])), problem


def _value_with_id(value: bytes, message_id: bytes) -> bytes:
    """The id replaced, with its NUL and whatever else is around it; an empty one stays empty."""
    old = clean_id(value)
    return value if old is None else value.replace(old, message_id, 1)
