"""The PDUs of the benchmark, built once: only sequence numbers, ids, six digits and a time are patched in.

170 to 200 bytes each, as a text message of usual length and its receipt are.
"""

import struct
from typing import Final

from protocols.smpp import constants as c
from protocols.smpp.constants import HEADER_SIZE
from protocols.smpp.framing import HEADER
from protocols.smpp.pdu import Bind, Message, pack

PASSWORD: Final = b"bench"
MARK_DIGITS: Final = 6  # the end of the subscriber's number: every message has another
STAMP_DIGITS: Final = 19  # nanoseconds of the monotonic clock, which all processes of a machine share
ID_DIGITS: Final = 12

_SUBSCRIBER = b"47901"
_SHORT_CODE = b"2000"
_SEQUENCE = struct.Struct(">I")
_MARK, _STAMP, _ID = b"\1" * MARK_DIGITS, b"\2" * STAMP_DIGITS, b"\3" * ID_DIGITS


def _submit() -> bytes:
    text = (
        b"Your parcel is on its way. Follow it with the code that we sent you on Monday morning. "
        b"Thank you for your patience, and see you soon!"
    )
    body = Message(
        source_ton=5, source=_SHORT_CODE, dest_ton=1, dest_npi=1, destination=_SUBSCRIBER + _MARK,
        registered_delivery=1, short_message=text,
    )  # fmt: skip
    return pack(c.SUBMIT_SM, 0, 0, body.encode())


def _receipt() -> bytes:
    text = b"id:%b sub:001 dlvrd:001 submit date:2601010000 done date:2601010001 stat:DELIVRD err:000 text:%b"
    body = Message(
        source_ton=1, source_npi=1, source=_SUBSCRIBER + _MARK, dest_ton=5, destination=_SHORT_CODE,
        esm_class=c.ESM_RECEIPT, short_message=text % (_ID, _STAMP),
        tlvs=((c.TLV_RECEIPTED_MESSAGE_ID, _ID + b"\0"), (c.TLV_MESSAGE_STATE, b"\2")),
    )  # fmt: skip
    return pack(c.DELIVER_SM, 0, 0, body.encode())


def _template(frame: bytes, *holes: bytes) -> bytes:
    """A format for bytes % (sequence, value of each hole in the order in which the holes stand)."""
    template = frame[:12].replace(b"%", b"%%") + b"%b" + frame[16:].replace(b"%", b"%%")
    for hole in holes:
        template = template.replace(hole, b"%b")
    return template


_PLAIN_SUBMIT = _submit()
_PLAIN_RECEIPT = _receipt()

SUBMIT_SIZE: Final = len(_PLAIN_SUBMIT)
RECEIPT_SIZE: Final = len(_PLAIN_RECEIPT)
MARK_AT: Final = _PLAIN_SUBMIT.index(_MARK)
STAMP_AT: Final = _PLAIN_RECEIPT.index(_STAMP)
ID_AT: Final = _PLAIN_RECEIPT.index(_ID)

_SUBMIT = _template(_PLAIN_SUBMIT, _MARK)
_RECEIPT = _template(_PLAIN_RECEIPT, _MARK, _ID, _STAMP)
_RESPONSE = _template(pack(c.SUBMIT_SM_RESP, 0, 0, _ID + b"\0"), _ID)


def submit(sequence: int) -> bytes:
    return _SUBMIT % (_SEQUENCE.pack(sequence), b"%06d" % (sequence % 1_000_000))


def submit_response(sequence: int, message_id: bytes) -> bytes:
    return _RESPONSE % (_SEQUENCE.pack(sequence), message_id)


def receipt(sequence: int, mark: bytes, stamp: bytes, message_id: bytes) -> bytes:
    return _RECEIPT % (_SEQUENCE.pack(sequence), mark, message_id, stamp, message_id)


def receipt_response(sequence: int) -> bytes:
    return HEADER.pack(HEADER_SIZE + 1, c.DELIVER_SM_RESP, 0, sequence) + b"\0"


def header(command: int, sequence: int) -> bytes:
    """A PDU without a body: enquire_link, unbind and their responses."""
    return HEADER.pack(HEADER_SIZE, command, 0, sequence)


def bind(system_id: str) -> bytes:
    return pack(c.BIND_TRANSCEIVER, 0, 1, Bind(system_id.encode(), PASSWORD).encode())


def bind_response(sequence: int) -> bytes:
    return pack(c.BIND_TRANSCEIVER_RESP, 0, sequence, b"bench\0")
