"""What a deliver_sm or data_sm from an operator reports, if it is a report at all.

A report (receipt or intermediate notification) is told by, in this order:

    esm_class type bit 0x04 or 0x20      a receipt, an intermediate notification (SMPP 3.4 5.2.12)
    TLV 0x001E with TLV 0x0427           an id and its state, whatever the type bits say; 0x001E alone makes no report
    type 0x08, 0x10, 0x18                acknowledgements: only where they name the message, by TLV 0x001E or in the
                                         shape of a receipt's text; else they are an MO
    type 0x00 with a receipt's text      only with `text_receipts`, the operator's setting `receipt_text`: any
                                         subscriber can write such a text

Everything else is an MO. The message's id is the TLV's where there is one, else the text's; the state is the text's
word where there is one, else the TLV's (smpp-facts, "Receipt text"). Only id, state and error decide anything; the
rest is carried, not understood.

Any bytes give a value: what cannot be read is named in `Report.problem` and nothing is raised, for an unreadable
report still has to be routed.
"""

import re
import struct
from types import MappingProxyType
from typing import Final

import msgspec

from protocols.smpp import constants as c
from protocols.smpp.message_ids import digits

REPORT_BITS: Final = c.ESM_RECEIPT | c.ESM_INTERMEDIATE

# Words seen in stat: besides those of the specification's states; that FAILED is final is its sender's own wording.
FINAL_WORDS: Final = c.FINAL_STATES | {"DELIVERED", "UNDELIVERED", "UNDELIVERABLE", "REJECTED", "FAILED"}

UCS2: Final = 8


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
# sm_length for text (perf-notes). The empty alternatives are cheaper than optional groups.
_USUAL: Final = re.compile(
    rb"[^\0]*\0..([^\0]*)\0..([^\0]*)\0\x04..[^\0]*\0[^\0]*\0....(.)"
    rb"id:([0-9A-Za-z_.\-]+) (?:sub:[^ ]* dlvrd:[^ ]* |)(?:submit date:[^ ]* done date:[^ ]* |)"
    rb"stat:([A-Za-z]+) err:([0-9A-Za-z_]*)",
    re.DOTALL,
)
_BEHIND_USUAL: Final = frozenset({b" text:", b" Text:"})

# A word and its colon. Whether it is a key depends on the word and on what stands before it (`_keys_of`).
_WORD_COLON: Final = re.compile(rb"(?<![A-Za-z_])([A-Za-z_]++(?:[ ]?+[Dd][Aa][Tt][Ee])?+)[ \t]*+:")
_KEYS: Final = MappingProxyType(
    {
        b"id": "id",
        b"message_id": "message_id",
        b"messageid": "message_id",
        b"msg_id": "message_id",
        b"msgid": "message_id",
        b"sub": "sub",
        b"dlvrd": "dlvrd",
        b"submit date": "submit date",
        b"submitdate": "submit date",
        b"submit_date": "submit date",
        b"done date": "done date",
        b"donedate": "done date",
        b"done_date": "done date",
        b"stat": "stat",
        b"err": "err",
        b"text": "text",
    }
)
# What ids are made of besides letters: a key behind one of these is the end of a value. So is "id:" behind a digit, but
# no other key, for some senders leave out the blank ("done date:1409131010stat:").
_INSIDE_VALUES: Final = frozenset(b"-./@+#")
_DIGITS: Final = frozenset(b"0123456789")

# A token behind a blank that is a key itself: the value before it was empty ("err: IMSI: MSC:").
_FOREIGN_KEY: Final = re.compile(rb"[A-Za-z_]+:")
_AROUND_VALUES: Final = b" \t\r\n\v\f\0,;|\"'"
_STATE_WORD: Final = re.compile(r"[A-Z0-9_\-]+")
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
    if not is_report(kind, tlv_id, tlv_state, text, text_receipts=text_receipts):
        return None
    text_id, word, error = fields_of(text)
    state_name = None if tlv_state is None else c.MESSAGE_STATES.get(tlv_state)
    intermediate = kind & REPORT_BITS == c.ESM_INTERMEDIATE
    return Report(
        tlv_id or text_id,
        text_id,
        word or state_name,
        error,
        not intermediate and (state_name or word) in FINAL_WORDS,
        intermediate,
        digits(source),
        digits(destination),
        problem,
    )


def is_report(kind: int, tlv_id: bytes | None, tlv_state: int | None, text: bytes, *, text_receipts: bool) -> bool:
    """The rules of the module's docstring, for a message with these type bits, TLVs and text."""
    if kind & REPORT_BITS or (tlv_id and tlv_state is not None):
        return True
    if kind:
        return bool(tlv_id) or looks_like_receipt(text)
    return text_receipts and looks_like_receipt(text)


def looks_like_receipt(text: bytes) -> bool:
    """Whether a text has a receipt's shape: it begins with one of the keys, and has an id and a state.

    A state word that the specification does not know needs one more of a receipt's keys beside it.
    """
    found = values_of(text) if begins_with_key(text) else {}
    if not found.get("id") or not (word := _state(found.get("stat", b""))):
        return False
    return word in FINAL_WORDS or word in c.MESSAGE_STATES.values() or len(found) > 2


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
    if b"\0" in raw:
        encoding = utf16_of(raw, coding)
        if encoding is not None:
            return raw.decode(encoding, "replace").lstrip("\ufeff").encode()
    return raw


def without_udh(raw: bytes) -> bytes:
    """What follows the user data header. A header that cannot be one is text: some receipts set UDHI by mistake."""
    if not raw or raw[0] + 1 > len(raw) or begins_with_key(raw):
        return raw
    return raw[raw[0] + 1 :]


def utf16_of(raw: bytes, coding: int) -> str | None:
    """The codec of a UCS-2 text (SMPP: big-endian), None for one octet a character, whatever data_coding claims.

    A receipt begins with ASCII, so its UCS-2 shows NULs; and some senders say data_coding 8 and send ASCII.
    """
    if raw[:2] == b"\xff\xfe" or (raw[1:2] == raw[3:4] == b"\0" and raw[:1] != b"\0"):
        return "utf-16-le"
    if raw[:2] == b"\xfe\xff" or (raw[:1] == raw[2:3] == b"\0" and raw[1:2] != b"\0"):
        return "utf-16-be"
    return "utf-16-be" if coding == UCS2 and b"\0" in raw[:-1] else None


def fields_of(text: bytes) -> tuple[bytes | None, str | None, str | None]:
    """Id, state and error of a receipt's text; None for what it does not have."""
    raw = _raw_values(text)
    error = raw.get("err")
    return (
        _value(raw.get("id") or raw.get("message_id") or b"") or None,
        _state(_value(raw.get("stat", b""))),
        None if error is None else _value(error).decode("ascii", "replace"),
    )


def values_of(text: bytes) -> dict[str, bytes]:
    """Every key that stands in a receipt's text, by its usual name, with its value; text's is all that follows it."""
    return {name: raw if name == "text" else _value(raw) for name, raw in _raw_values(text).items()}


def _raw_values(text: bytes) -> dict[str, bytes]:
    """Every key with all that stands between it and the next.

    The text of the message comes last, and may imitate any key; so what follows `text:` counts only where a key stands
    nowhere before it, and an id only where the state follows as well: then `text:` was not the last key.
    """
    keys = keys_of(text)
    ends = [*(start for _, start, _ in keys[1:]), len(text)]
    head: dict[str, bytes] = {}
    tail: dict[str, bytes] = {}
    for (name, _, at), end in zip(keys, ends, strict=False):  # without a key there is one end too many
        if "text" in head:
            tail[name] = text[at:end]  # the last one: those before it are the message's
        elif name == "text":
            head[name] = text[at:]
        else:
            head.setdefault(name, text[at:end])
    if "stat" in head:
        tail = {name: value for name, value in tail.items() if name == "err"}
    return tail | head


def keys_of(text: bytes) -> list[tuple[str, int, int]]:
    """Every key in the text: its name, where it starts, and where its value does."""
    found = []
    for match in _WORD_COLON.finditer(text):
        name = _KEYS.get(match[1].lower())
        start = match.start()
        if name is None:
            continue
        before = text[start - 1] if start else None
        if before in _INSIDE_VALUES or (before in _DIGITS and name in ("id", "message_id")):
            continue
        found.append((name, start, match.end()))
    return found


def begins_with_key(text: bytes) -> bool:
    """Whether a receipt's key stands at the very beginning, but for blanks and quotes."""
    keys = keys_of(text)
    return bool(keys) and not text[: keys[0][1]].strip(_AROUND_VALUES)


def _value(raw: bytes) -> bytes:
    """The first word of what stands between a key and the next; empty if that word is a key we do not know."""
    words = raw.split(None, 1)
    word = words[0].lstrip(_AROUND_VALUES).partition(b"\0")[0].rstrip(_AROUND_VALUES) if words else b""
    return b"" if raw[:1] in (b" ", b"\t") and _FOREIGN_KEY.match(word) else word


def _state(value: bytes) -> str | None:
    """A stat word in upper case; a state's number becomes its name."""
    match = _STATE_WORD.match(value.decode("ascii", "replace").upper())
    if match is None:
        return None
    word = match.group()
    return c.MESSAGE_STATES.get(int(word), word) if word.isdigit() and len(word) <= 3 else word
