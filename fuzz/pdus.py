"""PDUs as operators send them, for seeds: the receipts of tests/data, and MO of every shape that is looked at."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from protocols.smpp import constants as c
from protocols.smpp.pdu import Message, pack

SAMPLES: Final = Path(__file__).parent.parent / "tests" / "data" / "receipts-sample.jsonl"


def frame(command: int, body: bytes, sequence: int = 1) -> bytes:
    return pack(command, c.ESME_ROK, sequence, body)


def receipts() -> Iterator[tuple[bytes, bytes]]:
    """Every sample: the deliver_sm, and the id of its submit_sm_resp, empty where the sample names none."""
    for line in SAMPLES.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        response_id = sample.get("resp_id") or ""
        yield _delivery(sample), response_id.encode()


def _delivery(sample: dict) -> bytes:
    coding = sample.get("data_coding") or 0
    text = sample["text"] or ""
    encoded = text.encode("utf-16-be") if coding == 8 else text.encode("latin-1", "replace")
    tlvs = tuple((int(tag, 16), _value(int(tag, 16), value)) for tag, value in (sample.get("tlv") or {}).items())
    if len(encoded) > 255:
        tlvs, encoded = (*tlvs, (c.TLV_MESSAGE_PAYLOAD, encoded)), b""
    esm_class = c.ESM_RECEIPT if sample.get("esm_class") is None else sample["esm_class"]
    body = Message(
        source=b"447700900001",
        destination=b"SHOP",
        esm_class=esm_class,
        data_coding=coding,
        short_message=encoded,
        tlvs=tlvs,
    )
    return frame(c.DELIVER_SM, body.encode())


def _value(tag: int, value: str | int) -> bytes:
    if isinstance(value, int):
        return bytes((value,))
    if tag == c.TLV_RECEIPTED_MESSAGE_ID:
        return value.encode() + b"\0"
    try:
        return bytes.fromhex(value)
    except ValueError:
        return value.encode()


def deliveries() -> Iterator[bytes]:
    """Receipts, and MO: whole, in parts named in three ways, in another alphabet, as data_sm."""
    for receipt, _ in receipts():
        yield receipt
    text = b"id:0A1B sub:001 dlvrd:001 submit date:2401010000 done date:2401010001 stat:DELIVRD err:000 text:hi"
    for fields in (
        {"short_message": b"WIN a prize"},
        {"esm_class": c.ESM_UDHI, "short_message": b"\x05\0\x03\x2a\x02\x01part one"},
        {"esm_class": c.ESM_UDHI, "short_message": b"\x06\x08\x04\x12\x34\x03\x02part two"},
        {"short_message": b"part", "tlvs": ((0x020C, b"\0\7"), (0x020E, b"\2"), (0x020F, b"\1"))},
        {"esm_class": c.ESM_RECEIPT | c.ESM_UDHI, "short_message": b"\x05\0\x03\x2a\x02\x01" + text},
        {"esm_class": c.ESM_RECEIPT, "data_coding": 8, "short_message": text.decode().encode("utf-16-be")},
        {"esm_class": c.ESM_RECEIPT, "data_coding": 8, "short_message": text.decode().encode("utf-16-le")},
        {"esm_class": c.ESM_RECEIPT, "tlvs": ((c.TLV_MESSAGE_PAYLOAD, text + b"\0"),)},
        {"esm_class": c.ESM_INTERMEDIATE, "short_message": text.replace(b"DELIVRD", b"ENROUTE")},
        {"tlvs": ((c.TLV_RECEIPTED_MESSAGE_ID, b"0A1B\0"), (c.TLV_MESSAGE_STATE, b"\2"))},
        {"esm_class": 0x08, "short_message": text, "tlvs": ((c.TLV_NETWORK_ERROR_CODE, b"\3\0\0"), (0x1400, b"x"))},
    ):
        message = Message(source=b"4477", destination=b"7000", **fields)
        yield frame(c.DELIVER_SM, message.encode())
        yield frame(c.DATA_SM, message.encode_data_sm())
    padded = Message(short_message=text, esm_class=c.ESM_RECEIPT).encode() + b"\0\x1e\0"
    yield frame(c.DELIVER_SM, padded)
