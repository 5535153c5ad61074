"""Which part of a concatenated MO is this? All parts have to reach one gateway, or nobody can put them together.

The part is named by a user data header (3GPP TS 23.040 9.2.3.24.1 and 9.2.3.24.8: information element 0x00 with an
8-bit reference, 0x08 with a 16-bit one) or by the sar_ TLVs (SMPP 3.4 5.3.2.22 to 24). What cannot be one of several
parts is a whole message here.
"""

from typing import Final, NamedTuple

from protocols.smpp import constants as c
from protocols.smpp.pdu import parse_tlvs
from protocols.smpp.receipts import deciding_tlvs, read_body

_CONCATENATED_8_BIT: Final = 0x00
_CONCATENATED_16_BIT: Final = 0x08


class Part(NamedTuple):
    """One part of a concatenated message."""

    source: bytes
    destination: bytes
    reference: int
    total: int  # 2 to 255
    number: int  # counts from 1

    @property
    def key(self) -> bytes:
        """The same for every part of one message on every node. References are reused, so forget it after a while.

        How the parts are named is left out, for an operator may say it by header on one bind and by TLV on another.
        """
        return b"%b\0%b\0%d/%d" % (self.source, self.destination, self.reference, self.total)


def part_of(frame: bytes) -> Part | None:
    """The part that a deliver_sm or data_sm is; None for a whole message or any other PDU. Never raises."""
    body = read_body(frame)
    if body is None:
        return None
    source, destination, esm_class, _, start, end, _ = body
    named = None
    if esm_class & c.ESM_UDHI:
        _, _, payload = deciding_tlvs(frame, end)
        named = _by_header(frame[start:end] or payload or b"")
    if named is None and end + 4 <= len(frame):
        named = _by_tlvs(frame, end)
    if named is None:
        return None
    reference, total, number = named
    return Part(source, destination, reference, total, number) if 1 <= number <= total and total > 1 else None


def _by_header(text: bytes) -> tuple[int, int, int] | None:
    """Reference, total and number from the first concatenation element of the user data header."""
    header = text[1 : 1 + text[0]] if text else b""
    at = 0
    while at + 2 <= len(header):
        element, size = header[at], header[at + 1]
        value = header[at + 2 : at + 2 + size]
        if element == _CONCATENATED_8_BIT and len(value) == size == 3:
            return value[0], value[1], value[2]
        if element == _CONCATENATED_16_BIT and len(value) == size == 4:
            return value[0] << 8 | value[1], value[2], value[3]
        at += 2 + size
    return None


def _by_tlvs(frame: bytes, at: int) -> tuple[int, int, int] | None:
    tlvs, _ = parse_tlvs(frame, at)
    first: dict[int, bytes] = {}
    for tag, value in tlvs:
        first.setdefault(tag, value)
    values = [first.get(tag) for tag in (c.TLV_SAR_MSG_REF_NUM, c.TLV_SAR_TOTAL_SEGMENTS, c.TLV_SAR_SEGMENT_SEQNUM)]
    if not all(values):
        return None
    reference, total, number = (int.from_bytes(value or b"", "big") for value in values)
    return reference, total, number
