"""Why does this receipt match, or not? What `dlrproxy explain` says, as values.

It asks the very functions that route traffic, so what it says is what the proxy does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from protocols.smpp import constants as c
from protocols.smpp import pdu
from protocols.smpp.message_ids import Rule, candidates, holds, normal, relation
from protocols.smpp.receipt_text import begins_with_key, values_of
from protocols.smpp.receipts import Reading, read_full

# TLVs whose value is written as text; message_state is a number, every other one is written in hex.
TEXT_TLVS = frozenset({c.TLV_RECEIPTED_MESSAGE_ID, c.TLV_MESSAGE_PAYLOAD, c.TLV_ADDITIONAL_STATUS_INFO_TEXT})
MAX_SHORT_MESSAGE = 254  # SMPP 3.4 5.2.21; a longer text goes into message_payload
MAX_TLV_LENGTH = 0xFFFF
_RULE_TEXTS = {
    Rule.EXACT: "they are the same",
    Rule.CASE: "they are the same hex digits in another case",
    Rule.ZEROS: "they are the same hex digits but for leading zeros",
    Rule.HEX_DECIMAL: "the reported id is the response id, which is in hex, in decimal",
    Rule.DECIMAL_HEX: "the reported id is the response id, which is in decimal, in hex",
}


class UnusableInputError(ValueError):
    """What was given to explain is no PDU and no description of one; the text says what is wrong."""


@frozen
class Match:
    """How the reported id relates to the id of a submit_sm_resp."""

    matches: bool
    rule: Rule | None  # by which they are one, in force or not
    why: str


@frozen
class Explanation:
    """What the proxy sees in one PDU, and what it makes of it."""

    frame: bytes
    reading: Reading
    why: str  # why it is a receipt, or is none
    problem: str | None
    match: Match | None  # None: no response id was given

    @property
    def keys(self) -> list[str]:
        """The ids under which the message is looked up: the reported one, then its other forms."""
        report = self.reading.report
        if report is None or report.message_id is None:
            return []
        return list(dict.fromkeys(shown(key) for key in (report.message_id, *candidates(report.message_id))))

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints; keys may be added, never taken away."""
        report = self.reading.report
        found: dict[str, Any] = {
            "is_receipt": report is not None,
            "id": _shown_or_none(report.message_id) if report else None,
            "state": report.state if report else None,
            "error": report.error if report else None,
            "keys": self.keys,
            "text_id": _shown_or_none(report.text_id) if report else None,
            "final": report.final if report else False,
            "intermediate": report.intermediate if report else False,
            "why": self.why,
        }
        if self.problem is not None:
            found["problem"] = self.problem
        if self.match is not None:
            found["matches_resp_id"] = self.match.matches
            found["rule"] = self.match.rule
            found["match_why"] = self.match.why
        return found


def explain_frame(
    frame: bytes, *, resp_id: bytes | None = None, rule: Rule | None = None, text_receipts: bool = False
) -> Explanation:
    """Explain a whole PDU. `rule` is the pinned one; None (auto) takes any rule that relates the two ids."""
    reading = read_full(frame, text_receipts=text_receipts)
    problem = reading.body[6] if reading.body is not None else None
    length = int.from_bytes(frame[:4], "big")
    if length != len(frame):
        problem = f"command_length says {length}, there are {len(frame)} octets"
    return Explanation(
        frame=frame,
        reading=reading,
        why=_why(frame, reading),
        problem=problem,
        match=None if resp_id is None else _match(reading, resp_id, rule),
    )


def shown(value: bytes) -> str:
    """An id or a text from the wire, one character an octet."""
    return value.decode("latin-1")


def _shown_or_none(value: bytes | None) -> str | None:
    return None if value is None else shown(value)


def _why(frame: bytes, reading: Reading) -> str:
    if reading.sign is not None:
        return f"a receipt: {reading.sign}"
    if reading.body is None:
        command = int.from_bytes(frame[4:8], "big")
        name = c.COMMAND_NAMES.get(command, f"command 0x{command:08X}")
        cut = command in (c.DELIVER_SM, c.DATA_SM)
        return f"no receipt: the {name} ends before its esm_class" if cut else f"no receipt: {name} carries none"
    if reading.tlv_id is not None:
        return "an MO: receipted_message_id without message_state only says which message it answers"
    if reading.looks_like_receipt:
        return (
            "an MO: its esm_class says ordinary message, and any subscriber can write this text;"
            " receipt_text = true takes it for a receipt"
        )
    return "an MO: neither its esm_class nor a TLV says receipt"


def _match(reading: Reading, resp_id: bytes, rule: Rule | None) -> Match:
    reported = reading.report.message_id if reading.report is not None else None
    if reported is None:
        return Match(matches=False, rule=None, why="no id is reported")
    found = relation(resp_id, reported)
    if found is None:
        return Match(matches=False, rule=None, why=_why_not(resp_id, reported))
    if rule is None or found is Rule.EXACT or holds(rule, resp_id, reported):
        return Match(matches=True, rule=found, why=_RULE_TEXTS[found])
    return Match(matches=False, rule=found, why=f'{_RULE_TEXTS[found]}, but message_id = "{rule}" does not allow that')


def _why_not(resp_id: bytes, reported: bytes) -> str:
    for name, value in (("response", resp_id), ("reported", reported)):
        if normal(value) == value and not _is_hex(value):
            return f"the {name} id is no number in hex or decimal, so only the same id would match"
    return "they are different numbers, read as hex or as decimal"


def _is_hex(value: bytes) -> bool:
    return value.isalnum() and not value.lower().strip(b"0123456789abcdef")


def frame_of_hex(digits: str) -> bytes:
    """A PDU from hex digits (blanks and colons between them are allowed), or from a deliver_sm's body alone."""
    try:
        data = bytes.fromhex(digits.replace(":", " "))
    except ValueError as error:
        raise UnusableInputError(f"no hex digits: {error}") from None
    if len(data) >= c.HEADER_SIZE and int.from_bytes(data[4:8], "big") in c.COMMAND_NAMES:
        return data
    return pdu.pack(c.DELIVER_SM, 0, 0, data)


def frame_of_line(line: Mapping[str, Any]) -> bytes:
    """The deliver_sm that a JSON object describes by `text`, `esm_class`, `data_coding` and `tlv`, or by `pdu` in hex.

    Without `esm_class` it is a receipt if its text or TLVs are a receipt's, else an MO. Raises UnusableInputError.
    """
    if (digits := line.get("pdu")) is not None:
        return frame_of_hex(_string(digits, "pdu"))
    tlvs = _tlvs(line.get("tlv") or {})
    coding = _octet(line.get("data_coding"), "data_coding")
    text, coding = _encoded(_string(line.get("text") or "", "text"), coding)
    esm_class = _octet(line.get("esm_class"), "esm_class")
    if esm_class is None:
        esm_class = _assumed_esm_class(text, tlvs)
    return frame_of(text, esm_class, coding, tlvs)


def frame_of(text: bytes, esm_class: int, data_coding: int, tlvs: Sequence[tuple[int, bytes]]) -> bytes:
    """A deliver_sm with this text, in message_payload where a TLV has it already or where it is too long.

    Raises UnusableInputError where it is too long for that as well.
    """
    if len(text) > MAX_TLV_LENGTH:
        raise UnusableInputError(f"text: longer than {MAX_TLV_LENGTH} octets")
    payload = dict(tlvs).get(c.TLV_MESSAGE_PAYLOAD)
    if payload is None and len(text) > MAX_SHORT_MESSAGE:
        tlvs = [*tlvs, (c.TLV_MESSAGE_PAYLOAD, text)]
        text = b""
    elif payload is not None and (text == payload or len(text) > MAX_SHORT_MESSAGE):
        text = b""
    message = pdu.Message(esm_class=esm_class, data_coding=data_coding, short_message=text, tlvs=tuple(tlvs))
    return pdu.pack(c.DELIVER_SM, 0, 1, message.encode())


def _encoded(text: str, coding: int | None) -> tuple[bytes, int]:
    """A text as an operator sends it, and its data_coding: UCS-2 where that says so or nothing else can hold it."""
    if coding != 8:
        try:
            return text.encode("latin-1"), coding or 0
        except UnicodeEncodeError:
            pass  # characters of two octets: UCS-2, whatever data_coding says
    return text.encode("utf-16-be", "surrogatepass"), 8 if coding is None else coding


def _assumed_esm_class(text: bytes, tlvs: Sequence[tuple[int, bytes]]) -> int:
    """What a message without an esm_class most likely had: receipts are collected without it.

    One of a receipt's TLVs makes a receipt. So does a text that begins with a receipt's key and has one that people do
    not write (an id with nothing behind it counts), or that has three of them anywhere.
    """
    plain = text.replace(b"\0", b"")
    keys = values_of(plain).keys()
    telling = keys - {"id", "message_id", "text"} or ("id" in keys and len(plain.split()) == 1)
    by_text = len(keys) > 2 or (telling and begins_with_key(plain))
    by_tlv = any(tag in (c.TLV_RECEIPTED_MESSAGE_ID, c.TLV_MESSAGE_STATE) for tag, _ in tlvs)
    return c.ESM_RECEIPT if by_text or by_tlv else c.ESM_MO


def _tlvs(given: Any) -> list[tuple[int, bytes]]:
    if not isinstance(given, Mapping):
        raise UnusableInputError("tlv: not an object of tags and values")
    return [tlv_of(str(tag), value) for tag, value in given.items()]


def tlv_of(name: str, value: Any) -> tuple[int, bytes]:
    """A TLV from its tag ("0x001E") and its value: a text, a number or hex digits, as the tag wants it.

    Hex digits that are none are taken as text. Raises UnusableInputError.
    """
    try:
        tag = int(name, 0)
    except ValueError:
        raise UnusableInputError(f"tlv {name}: not a number; write a tag as 0x001E") from None
    if not 0 <= tag <= 0xFFFF:
        raise UnusableInputError(f"tlv {name}: a tag has two octets")
    if isinstance(value, int) and value >= 0:
        return tag, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
    if not isinstance(value, str):
        raise UnusableInputError(f"tlv {name}: neither a string nor a number")
    encoded = _tlv_value(tag, value)
    if len(encoded) > MAX_TLV_LENGTH:
        raise UnusableInputError(f"tlv {name}: longer than {MAX_TLV_LENGTH} octets")
    return tag, encoded


def _tlv_value(tag: int, value: str) -> bytes:
    if tag == c.TLV_MESSAGE_STATE and value.isdecimal() and len(value) < 4:
        return bytes((int(value) & 0xFF,))
    if tag not in TEXT_TLVS:
        try:
            return bytes.fromhex(value.removeprefix("0x"))
        except ValueError:
            pass  # some operators send text where octets are meant (network_error_code)
    return _encoded(value, None)[0]


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise UnusableInputError(f"{name}: not a string")
    return value


def _octet(value: Any, name: str) -> int | None:
    """A number from 0 to 255, or such a number as text ("0x04")."""
    if isinstance(value, str):
        try:
            value = int(value, 0)
        except ValueError:
            raise UnusableInputError(f"{name}: not a number") from None
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value <= 0xFF:
        raise UnusableInputError(f"{name}: not a number from 0 to 255")
    return value
