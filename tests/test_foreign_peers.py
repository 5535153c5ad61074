"""Neither end is ours: two nodes between gateways and an SMSC of other people's make, compared byte by byte.

    gateway 1 --tap--> gw1 --tap--> SMSC
                        |             |   the account's second bind
    gateway 2 --tap--> gw2 --tap------+

Gateway 1 submits; the SMSC sends the reports down the bind of gw2, some down that of gw1. What a tap saw going into the
nodes must have come out of them, but for the sequence number.
"""

import pytest
from foreign_peer import smpp34_esme, smpplib_esme
from foreign_scene import SESSIONS, Scene, deliver, npm, play, smpp34, without_sequence

from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER

pytestmark = [pytest.mark.foreign, pytest.mark.processes]

VENDOR_COMMAND = 0x00010203
VENDOR_TLV = 0x1501  # vendors' tags are 0x1400 to 0x3FFF; nobody here knows this one
RESERVED_TLV = 0x4321  # nor is this anybody's

UCS2 = "Grüße, 你好, 🎉".encode("utf-16-be").hex()
LONG = ("0123456789" * 60).encode().hex()  # more than short_message holds
BINARY = bytes(range(256))[1:140].hex()
UDH_PART = "050003cc0201" + b"first part".hex()

MT = {
    "plain": {"short_message": b"hello".hex(), "registered_delivery": 1},
    "ucs-2": {"short_message": UCS2, "data_coding": 8, "registered_delivery": 1},
    "binary": {"short_message": BINARY, "data_coding": 4, "protocol_id": 0x7F, "registered_delivery": 1},
    "udh": {"short_message": UDH_PART, "esm_class": 0x40, "registered_delivery": 1},
    "empty": {"short_message": "", "registered_delivery": 1},
}
MT_TLVS = {
    "payload": [[c.TLV_MESSAGE_PAYLOAD, LONG]],
    "sar": [[c.TLV_SAR_MSG_REF_NUM, "0a0b"], [c.TLV_SAR_TOTAL_SEGMENTS, "02"], [c.TLV_SAR_SEGMENT_SEQNUM, "01"]],
}
UNKNOWN_TLVS = [[VENDOR_TLV, "00ff00"], [RESERVED_TLV, "c0ffee"], [VENDOR_TLV, "01"]]  # twice the same, with zeros


def heads(frames: list[bytes]) -> list[tuple[int, int]]:
    """Status and sequence number of each."""
    return [HEADER.unpack_from(frame)[2:] for frame in frames]


def submits(make_esme) -> dict[str, dict]:
    messages = {tag: {"fields": fields} for tag, fields in MT.items()}
    messages |= {tag: {"fields": {"registered_delivery": 1}, "tlvs": tlvs} for tag, tlvs in MT_TLVS.items()}
    if make_esme is smpp34_esme:  # smpplib can only send the TLVs that it knows
        messages["unknown"] = {"fields": MT["plain"], "tlvs": UNKNOWN_TLVS}
    address = {"source_addr": "12345", "destination_addr": "46701234567"}
    return {tag: {**message, "fields": {**address, **message["fields"]}} for tag, message in messages.items()}


def receipt_text(message_id: str, state: str) -> bytes:
    return (
        f"id:{message_id} sub:001 dlvrd:001 submit date:2401011200 done date:2401011201 stat:{state} err:000 text:hello"
    ).encode()


def receipts(ids: dict[str, str]) -> dict[str, dict]:
    """One for each message that everybody can send, no two in the same form."""
    forms = {
        "plain": {"text": receipt_text(ids["plain"], "DELIVRD")},
        "ucs-2": {"text": receipt_text(ids["ucs-2"], "DELIVRD").decode().encode("utf-16-be"), "data_coding": 8},
        "binary": {"text": receipt_text(ids["binary"], "UNDELIV") + b" \xff\xfe\x01"},  # no charset decodes it
        "udh": {
            "text": b"",
            "tlvs": [[c.TLV_RECEIPTED_MESSAGE_ID, ids["udh"].encode().hex() + "00"], [c.TLV_MESSAGE_STATE, "02"]],
        },
        "empty": {
            "text": receipt_text(ids["empty"], "DELIVRD"),
            "tlvs": [
                [VENDOR_TLV, "00ff00"],
                [c.TLV_RECEIPTED_MESSAGE_ID, ids["empty"].encode().hex() + "00"],
                [c.TLV_NETWORK_ERROR_CODE, "030001"],
                [RESERVED_TLV, "c0ffee"],
            ],
        },
        "payload": {"text": b"", "tlvs": [[c.TLV_MESSAGE_PAYLOAD, receipt_text(ids["payload"], "EXPIRED").hex()]]},
        "sar": {
            "text": receipt_text(ids["sar"], "REJECTD"),
            "tlvs": [[c.TLV_RECEIPTED_MESSAGE_ID, ids["sar"].encode().hex() + "00"]],
        },
    }
    return {
        tag: {
            "fields": {
                "source_addr": "46701234567",
                "destination_addr": "12345",
                "esm_class": 4,
                "data_coding": form.get("data_coding", 0),
                "short_message": form["text"].hex(),
            },
            "tlvs": form.get("tlvs", []),
        }
        for tag, form in forms.items()
    }


@pytest.mark.parametrize("make_esme", [smpplib_esme, smpp34_esme])
@pytest.mark.parametrize("make_smsc", [npm, smpp34])
async def test_every_byte_passes_and_every_report_reaches_its_gateway(tmp_path, make_smsc, make_esme):
    async with play(tmp_path, make_smsc, make_esme) as scene:
        messages = submits(make_esme)
        ids = await scene.submit(**messages)

        assert len(set(ids.values())) == len(messages)
        sent = scene.into("gw1", c.SUBMIT_SM)
        assert len(sent) == len(messages)
        assert without_sequence(scene.at_smsc("gw1", c.SUBMIT_SM)) == without_sequence(sent)
        assert without_sequence(scene.out_of("gw1", c.SUBMIT_SM_RESP)) == without_sequence(
            scene.from_smsc("gw1", c.SUBMIT_SM_RESP)
        )
        check_responses(scene, messages, ids)

        misrouted = receipts(ids)
        own = {"sar": misrouted.pop("sar")}
        await deliver(scene, "gw2", misrouted)
        await deliver(scene, "gw1", own)
        await scene.gateway.seen("deliver", count=len(misrouted) + 1)

        received = without_sequence(scene.out_of("gw1", c.DELIVER_SM))
        over_the_ring = without_sequence(scene.from_smsc("gw2", c.DELIVER_SM))
        assert sorted(received) == sorted(over_the_ring + without_sequence(scene.from_smsc("gw1", c.DELIVER_SM)))
        assert len(set(received)) == len(misrouted) + 1
        for tag in misrouted:
            await scene.fleet["gw2"].seen("dlr.settled", message_id=ids[tag], by="gw1")
        # The answer of a matched report is the gateway's own, that of the others is the node's.
        (answer,) = scene.at_smsc("gw1", c.DELIVER_SM_RESP)
        assert without_sequence([answer])[0] in without_sequence(scene.into("gw1", c.DELIVER_SM_RESP))
        assert sorted(heads(scene.at_smsc("gw2", c.DELIVER_SM_RESP))) == sorted(
            heads(scene.from_smsc("gw2", c.DELIVER_SM))
        )

        mo = {"source_addr": "46709999999", "destination_addr": "7000", "data_coding": 8, "short_message": UCS2}
        await deliver(scene, "gw2", {"mo": {"fields": mo, "tlvs": UNKNOWN_TLVS[:2]}})
        await scene.other_gateway.seen("deliver", source="46709999999", text=UCS2)
        assert without_sequence(scene.out_of("gw2", c.DELIVER_SM)) == without_sequence(
            scene.from_smsc("gw2", c.DELIVER_SM)[-1:]
        )
        assert scene.into("gw2", c.SUBMIT_SM) == []


def check_responses(scene: Scene, messages: dict[str, dict], ids: dict[str, str]) -> None:
    """Each gateway's submit was answered under its own number, with the id that the SMSC gave to that very message."""
    given = {}
    for request in scene.at_smsc("gw1", c.SUBMIT_SM):
        (_, sequence) = HEADER.unpack_from(request)[2:]
        (response,) = (r for r in scene.from_smsc("gw1", c.SUBMIT_SM_RESP) if HEADER.unpack_from(r)[3] == sequence)
        given[request[16:]] = response[16:]
    answers = {HEADER.unpack_from(r)[3]: r[16:] for r in scene.out_of("gw1", c.SUBMIT_SM_RESP)}
    for request in scene.into("gw1", c.SUBMIT_SM):
        assert answers[HEADER.unpack_from(request)[3]] == given[request[16:]]
    assert {body.rstrip(b"\0").decode() for body in given.values()} == set(ids.values())


async def test_commands_that_only_a_vendor_knows_pass_both_ways(tmp_path):
    async with play(tmp_path, npm, smpplib_esme) as scene:
        body = b"\x00\xff what only they know \x00"
        request = HEADER.pack(16 + len(body), VENDOR_COMMAND, 0, 0x7FFFFFF0) + body
        await scene.gateway.do("raw", bytes=request.hex())
        await scene.smsc.seen("vendor", session=SESSIONS["gw1"], body=body.hex())
        await scene.gateway.seen("unknown")  # its response; smpplib has no name for it

        assert without_sequence(scene.at_smsc("gw1", VENDOR_COMMAND)) == without_sequence([request])
        (response,) = scene.out_of("gw1", VENDOR_COMMAND | c.RESPONSE_BIT)
        assert response[12:] == request[12:16] + b"\xff" + body

        await scene.smsc.do("vendor", session=SESSIONS["gw2"], tag="v1", body="00aa00")
        await scene.other_gateway.seen("unknown")
        (pushed,) = scene.out_of("gw2", VENDOR_COMMAND)
        assert without_sequence([pushed]) == without_sequence(scene.from_smsc("gw2", VENDOR_COMMAND))
        answer = HEADER.pack(18, VENDOR_COMMAND | c.RESPONSE_BIT, 0x0400, HEADER.unpack_from(pushed)[3]) + b"\1\0"
        await scene.other_gateway.do("raw", bytes=answer.hex())
        (answered,) = await scene.smsc.seen("answered", tag="v1")
        assert answered["status"] == 0x0400
        assert without_sequence(scene.at_smsc("gw2", VENDOR_COMMAND | c.RESPONSE_BIT)) == without_sequence([answer])
