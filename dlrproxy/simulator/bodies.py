"""The PDUs of the simulators, from and to bytes, by patterns and templates: they are on the path of every message.

Layouts are SMPP 3.4 4.4.1 (submit_sm), 4.5.1 (submit_multi), 4.6.1 (deliver_sm) and 4.7.1 (data_sm); receipt text
is appendix B.
"""

import re
import struct
from typing import NamedTuple

from protocols.smpp import constants as c
from protocols.smpp.constants import HEADER_SIZE
from protocols.smpp.pdu import BodyError, Message, parse_data_sm, parse_tlvs

TAG_SIZE = 20  # appendix B: a receipt carries the first 20 characters of the message

# service_type, source and destination (ton, npi and digits together), esm_class, protocol_id, priority_flag,
# schedule_delivery_time, validity_period, registered_delivery, replace_if_present_flag, data_coding,
# sm_default_msg_id, sm_length
_MESSAGE = re.compile(
    rb"[^\0]*\0(..[^\0]*)\0(..[^\0]*)\0(.)..[^\0]*\0[^\0]*\0(.).(.).(.)",
    re.DOTALL,
)
_MULTI_HEAD = re.compile(rb"[^\0]*\0(..[^\0]*)\0(.)", re.DOTALL)
_MULTI_DESTINATION = re.compile(rb"\x01(..[^\0]*)\0|\x02([^\0]*)\0", re.DOTALL)
_MULTI_TAIL = re.compile(rb"(.)..[^\0]*\0[^\0]*\0(.).(.).(.)", re.DOTALL)
_RECEIPT_TEXT = re.compile(rb"id:(\S*).*?stat:(\S*)(?:.*?text:(.{0,20}))?", re.IGNORECASE | re.DOTALL)


class Submit(NamedTuple):
    """What the operator needs of a submitted message. Addresses keep ton and npi in front of the digits."""

    source: bytes
    destinations: tuple[bytes, ...]
    registered_delivery: int
    head: bytes  # the first TAG_SIZE characters of the text

    @property
    def tag(self) -> str:
        """The first word of the text: by it the simulators know a message again."""
        return self.head.partition(b" ")[0].decode("latin-1")


class Delivered(NamedTuple):
    """What the gateway needs of a deliver_sm or data_sm. Addresses without ton and npi.

    `tag` is the first word of a receipt's `text:`, and the last word of an MO.
    """

    report: bool
    source: bytes
    destination: bytes
    message_id: str
    state: str
    tag: str


def read_submit(frame: bytes) -> Submit:
    """A whole submit_sm. Raises BodyError."""
    found = _MESSAGE.match(frame, HEADER_SIZE)
    if found is None:
        raise BodyError("not a submit_sm body")
    source, destination, esm_class, registered, coding, length = found.groups()
    text = _text(frame, found.end(), length[0])
    return Submit(source, (destination,), registered[0], _head(text, esm_class[0], coding[0]))


def read_submit_multi(frame: bytes) -> Submit:
    """A whole submit_multi. Destinations that are distribution lists are left out. Raises BodyError."""
    head = _MULTI_HEAD.match(frame, HEADER_SIZE)
    if head is None:
        raise BodyError("not a submit_multi body")
    at = head.end()
    destinations = []
    for _ in range(head[2][0]):
        found = _MULTI_DESTINATION.match(frame, at)
        if found is None:
            raise BodyError("submit_multi: a destination does not parse")
        if found[1] is not None:
            destinations.append(found[1])
        at = found.end()
    tail = _MULTI_TAIL.match(frame, at)
    if tail is None:
        raise BodyError("submit_multi: the body ends after its destinations")
    esm_class, registered, coding, length = tail.groups()
    text = _text(frame, tail.end(), length[0])
    return Submit(head[1], tuple(destinations), registered[0], _head(text, esm_class[0], coding[0]))


def read_data_sm(frame: bytes) -> Submit:
    """A whole data_sm that submits. Raises BodyError."""
    message = parse_data_sm(frame[HEADER_SIZE:])
    text = message.tlv(c.TLV_MESSAGE_PAYLOAD) or b""
    return Submit(
        bytes((message.source_ton, message.source_npi)) + message.source,
        (bytes((message.dest_ton, message.dest_npi)) + message.destination,),
        message.registered_delivery,
        _head(text, message.esm_class, message.data_coding),
    )


def _text(frame: bytes, start: int, length: int) -> bytes:
    if length:
        return frame[start : start + length]
    return dict(parse_tlvs(frame, start)[0]).get(c.TLV_MESSAGE_PAYLOAD, b"")


def _head(text: bytes, esm_class: int, coding: int) -> bytes:
    if esm_class & c.ESM_UDHI and text:
        text = text[text[0] + 1 :]
    if coding == 8:  # UCS-2; receipts are ASCII
        text = text[: 2 * TAG_SIZE].decode("utf-16-be", "replace").encode("ascii", "replace")
    return text[:TAG_SIZE]


def submit_body(source: str, registered_delivery: int) -> tuple[bytes, bytes]:
    """What stands before the destination's digits, and between them and sm_length, in a plain submit_sm.

    National numbers for senders, international ones for subscribers.
    """
    before = b"\0\0\x01%b\0\x01\x01" % source.encode("ascii")
    return before, b"\0\0\0\0\0%c\0\0\0" % registered_delivery


def receipt_body(
    submit: Submit, destination: bytes, receipt_id: bytes, state: bytes, date: bytes, tlvs: bytes, *, final: bool
) -> bytes:
    """A deliver_sm body: the report on `submit` to `destination`. `date` is YYMMDDhhmm, `tlvs` are encoded."""
    delivered = b"001" if state == b"DELIVRD" else b"000"
    error = b"000" if state in (b"DELIVRD", b"ENROUTE") else b"001"
    text = b"id:%b sub:001 dlvrd:%b submit date:%b done date:%b stat:%b err:%b text:%b" % (
        receipt_id, delivered, date, date, state, error, submit.head
    )  # fmt: skip
    esm_class = c.ESM_RECEIPT if final else c.ESM_INTERMEDIATE
    return b"\0%b\0%b\0%c\0\0\0\0\0\0\0\0%c%b%b" % (destination, submit.source, esm_class, len(text), text, tlvs)


def receipt_tlvs(message_id: bytes, state: int) -> bytes:
    """receipted_message_id and message_state, encoded."""
    return struct.pack(">HH", c.TLV_RECEIPTED_MESSAGE_ID, len(message_id) + 1) + b"%b\0%b%c" % (
        message_id,
        _STATE_HEAD,
        state,
    )


_STATE_HEAD = struct.pack(">HH", c.TLV_MESSAGE_STATE, 1)


def mo_body(source: str, destination: str, text: bytes, udh: bytes = b"") -> bytes:
    """A deliver_sm body that carries a message from a subscriber."""
    return Message(
        source_ton=1,
        source_npi=1,
        source=source.encode("ascii"),
        dest_npi=1,
        destination=destination.encode("ascii"),
        esm_class=c.ESM_UDHI if udh else c.ESM_MO,
        short_message=udh + text,
    ).encode()


def concatenation_udh(reference: int, parts: int, part: int) -> bytes:
    """The user data header of one part: an 8-bit reference (3GPP TS 23.040 9.2.3.24.1)."""
    return bytes((5, 0, 3, reference & 0xFF, parts, part))


def read_delivered(frame: bytes) -> Delivered:
    """A whole deliver_sm. Raises BodyError."""
    found = _MESSAGE.match(frame, HEADER_SIZE)
    if found is None:
        raise BodyError("not a deliver_sm body")
    source, destination, esm_class, _, coding, length = found.groups()
    end = found.end() + length[0]
    text = frame[found.end() : end]
    tlvs = dict(parse_tlvs(frame, end)[0]) if end < len(frame) else {}
    return _delivered(source[2:], destination[2:], esm_class[0], coding[0], text, tlvs)


def read_delivered_data(frame: bytes) -> Delivered:
    """A whole data_sm that delivers. Raises BodyError."""
    message = parse_data_sm(frame[HEADER_SIZE:])
    tlvs = dict(message.tlvs)
    return _delivered(message.source, message.destination, message.esm_class, message.data_coding, b"", tlvs)


def _delivered(
    source: bytes, destination: bytes, esm_class: int, coding: int, text: bytes, tlvs: dict[int, bytes]
) -> Delivered:
    text = text or tlvs.get(c.TLV_MESSAGE_PAYLOAD, b"")
    if esm_class & c.ESM_UDHI and text:
        text = text[text[0] + 1 :]
    if coding == 8:
        text = text.decode("utf-16-be", "replace").encode("latin-1", "replace")
    if not esm_class & c.ESM_TYPE_MASK:
        words = text.split()
        return Delivered(False, source, destination, "", "", words[-1].decode("latin-1") if words else "")
    found = _RECEIPT_TEXT.search(text)
    text_id, state, tag = found.groups(b"") if found is not None else (b"", b"", b"")
    message_id = tlvs.get(c.TLV_RECEIPTED_MESSAGE_ID, b"").rstrip(b"\0") or text_id
    if not state:
        state = c.MESSAGE_STATES.get(int.from_bytes(tlvs.get(c.TLV_MESSAGE_STATE, b"\xff")), "").encode()
    return Delivered(
        True,
        source,
        destination,
        message_id.decode("latin-1"),
        state.decode("latin-1"),
        tag.partition(b" ")[0].decode("latin-1"),
    )
