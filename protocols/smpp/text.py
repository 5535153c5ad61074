"""The text of a short message as characters. For what decides by words; nothing that is passed on is decoded."""

from types import MappingProxyType
from typing import Final

from protocols.smpp import constants as c
from protocols.smpp.receipts import Body, deciding_tlvs, read_body

# 3GPP TS 23.038 6.2.1: the default alphabet, one octet a character as SMPP carries it, and the table behind ESC.
_DEFAULT_ALPHABET: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_ESC: Final = 0x1B
_EXTENSION: Final = MappingProxyType(
    {0x0A: "\f", 0x14: "^", 0x28: "{", 0x29: "}", 0x2F: "\\", 0x3C: "[", 0x3D: "~", 0x3E: "]", 0x40: "|", 0x65: "€"}
)

GSM: Final = "gsm"
LATIN_1: Final = "latin-1"
UCS2: Final = "utf-16-be"

# SMPP 3.4 5.2.19; what is not listed here is read octet by octet, as Latin 1.
_ALPHABETS: Final = MappingProxyType(
    {0: GSM, 1: LATIN_1, 3: LATIN_1, 5: "shift_jis", 6: "iso8859-5", 7: "iso8859-8", 8: UCS2, 14: "euc-kr"}
)


def text(frame: bytes) -> str:
    """The text of a deliver_sm or data_sm, without its user data header; empty for any other PDU. Never raises."""
    body = read_body(frame)
    return "" if body is None else text_in(frame, body)


def text_in(frame: bytes, body: Body) -> str:
    """The same, where the body has been read already."""
    _, _, esm_class, coding, start, end, _ = body
    raw = frame[start:end] or deciding_tlvs(frame, end)[2] or b""
    if esm_class & c.ESM_UDHI and raw and raw[0] < len(raw):
        raw = raw[raw[0] + 1 :]
    return decode(raw, coding)


def decode(raw: bytes, coding: int) -> str:
    """`coding` is data_coding. What an alphabet does not know becomes U+FFFD; NULs at the end are padding."""
    alphabet = alphabet_of(coding)
    if alphabet == UCS2:
        return raw.decode(alphabet, "replace").rstrip("\0")
    raw = raw.rstrip(b"\0")
    return _decode_gsm(raw) if alphabet == GSM else raw.decode(alphabet, "replace")


def alphabet_of(coding: int) -> str:
    """GSM, or the name of a codec."""
    if coding < 0x10:
        return _ALPHABETS.get(coding, LATIN_1)
    group = coding >> 4
    if group == 0xF:  # 3GPP TS 23.038 4: message class; bit 2 tells 8-bit data from the default alphabet
        return LATIN_1 if coding & 0x04 else GSM
    if group == 0xE:  # message waiting, in UCS-2; 0xC and 0xD are the same in the default alphabet
        return UCS2
    if group >= 0xC:
        return GSM
    return (GSM, LATIN_1, UCS2, LATIN_1)[coding >> 2 & 3]


def _decode_gsm(raw: bytes) -> str:
    characters = []
    escaped = False
    for octet in raw:
        if escaped:
            escaped = False
            characters.append(_EXTENSION.get(octet) or _in_default_alphabet(octet))
        elif octet == _ESC:
            escaped = True
        else:
            characters.append(_in_default_alphabet(octet))
    return "".join(characters)


def _in_default_alphabet(octet: int) -> str:
    return _DEFAULT_ALPHABET[octet] if octet < len(_DEFAULT_ALPHABET) else "\ufffd"
