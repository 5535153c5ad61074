"""`receipt_id = "as-submitted"` between peers that none of us wrote: a report comes in at the node that never sent its
message, goes round the ring as it came, and has the id of the submit_sm_resp when it reaches its gateway.

`foreign_scene.py` draws them. The ids are compared byte by byte on the wires, and by the foreign gateways' own readers.
"""

import re
import struct

import pytest
from foreign_peer import smpp34_esme, smpplib_esme
from foreign_scene import Scene, accepted, npm, play, send

from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER

pytestmark = [pytest.mark.foreign, pytest.mark.processes]

IDS = ["f", "1a2b3c4d5e", "ffffffffffffffffff"]  # in the response, in hex: shorter and longer in decimal, above 64 bits
SETTINGS = {"operators": {"receipt_id": "as-submitted", "message_id": "hex-decimal"}}


def text_of(message_id: str) -> bytes:
    return b"id:%s sub:001 dlvrd:001 submit date:2401011200 done date:2401011201 stat:DELIVRD err:000 text:hi" % (
        message_id.encode()
    )


def payload(value: bytes) -> bytes:
    return struct.pack(">HH", c.TLV_MESSAGE_PAYLOAD, len(value)) + value


def receipted(message_id: str) -> bytes:
    value = message_id.encode() + b"\0"
    return struct.pack(">HH", c.TLV_RECEIPTED_MESSAGE_ID, len(value)) + value


def counted(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def reports(message_id: str) -> dict[str, dict]:
    """Every place that an id may be in, by tag, as the SMSC says it: in decimal."""
    decimal = str(int(message_id, 16))
    fields = {"source_addr": "46701234567", "destination_addr": "12345", "esm_class": 4}
    state = {"message_state": 2}  # a number to the package
    tlvs = [[c.TLV_RECEIPTED_MESSAGE_ID, decimal.encode().hex()]]
    vendor = [[0x1401, "0a0b0c"]]
    text = text_of(decimal).hex()
    return {
        "text": {"fields": {**fields, "short_message": text}, "tlvs": vendor},
        "TLV": {"fields": {**fields, **state, "short_message": b"delivered".hex()}, "tlvs": tlvs + vendor},
        "both": {"fields": {**fields, "short_message": text}, "tlvs": tlvs + vendor},
        "payload": {"fields": {**fields, "message_payload": text}, "tlvs": tlvs + vendor},
    }


def rewritten(frame: bytes, message_id: str) -> bytes:
    """What `frame` is with the id in hex, made by replacing whole length-prefixed values; without its header."""
    decimal = str(int(message_id, 16))
    body = frame[16:]
    before, after = text_of(decimal), text_of(message_id)
    for old, new in (
        (counted(before), counted(after)),
        (payload(before), payload(after)),
        (receipted(decimal), receipted(message_id)),
    ):
        body = body.replace(old, new)
    assert body != frame[16:]
    return body


async def check(scene: Scene, tag: str, message_id: str, at: str, before: int) -> None:
    await scene.gateway.seen("deliver", count=before + 1)
    received = scene.out_of("gw1", c.DELIVER_SM)
    (sent,) = scene.from_smsc(at, c.DELIVER_SM)[-1:]
    assert len(received) == before + 1
    assert received[-1][16:] == rewritten(sent, message_id), (tag, message_id)
    assert HEADER.unpack_from(received[-1])[0] == len(received[-1])
    told = bytes.fromhex((await scene.gateway.seen("deliver"))[-1]["text"])  # as the foreign gateway reads it
    if tag != "TLV":
        assert re.search(rb"id:(\w+)", told)[1] == message_id.encode()


@pytest.mark.parametrize("make_esme", [smpplib_esme, smpp34_esme])
async def test_the_gateway_finds_the_id_of_its_response_wherever_the_report_comes_in(tmp_path, make_esme):
    async with play(tmp_path, npm, make_esme, SETTINGS) as scene:
        await scene.smsc.do("ids", ids=IDS)
        submission = {"source_addr": "12345", "destination_addr": "46701234567", "registered_delivery": 1}
        given = await scene.submit(**{message_id: {"fields": submission} for message_id in ("a", "b", "c")})
        assert sorted(given.values()) == sorted(IDS)
        done = 0
        for message_id in IDS:
            for tag, report in reports(message_id).items():
                at = ("gw2", "gw1")[done % 2]  # the wrong node, and the right one
                await send(scene, at, {f"{message_id} {tag}": report})
                await accepted(scene, f"{message_id} {tag}")
                await check(scene, tag, message_id, at, done)
                done += 1
    assert scene.out_of("gw2", c.DELIVER_SM) == []
