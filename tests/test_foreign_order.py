"""What a foreign SMSC does with order, forms of ids and parts of messages, and two nodes have to make good.

The SMSC and the gateways are other people's (`foreign_scene.py` draws them). Every report reaches the gateway that
submitted its message, once, byte for byte, and after the response; all parts of an MO reach one gateway.
"""

from functools import partial

import pytest
from foreign_peer import smpp34_esme, smpplib_esme
from foreign_scene import FIRST_ID, Scene, accepted, deliver, npm, play, send, without_sequence
from node_process import NodeProcess

from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from protocols.smpp.receipts import read

pytestmark = [pytest.mark.foreign, pytest.mark.processes]

OTHER = {"gw1": "gw2", "gw2": "gw1"}
SERVICE = "7000"
DECIMAL = "{:d}".format
HEXADECIMAL = "{:x}".format


def subscriber(number: int) -> str:
    return f"4670123{number:04}"


def submission(destination: str) -> dict:
    fields = {"source_addr": "12345", "destination_addr": destination, "short_message": b"hello".hex()}
    return {"fields": {**fields, "registered_delivery": 1}}


def receipt(message_id: str, source: str) -> dict:
    text = f"id:{message_id} sub:001 dlvrd:001 submit date:2401011200 done date:2401011201 stat:DELIVRD err:000 text:"
    fields = {"source_addr": source, "destination_addr": "12345", "esm_class": 4}
    return {"fields": {**fields, "short_message": text.encode().hex()}}


def part(source: str, reference: int, number: int) -> dict:
    """One of two parts of an MO, with an 8-bit reference."""
    text = bytes((5, 0, 3, reference, 2, number)) + b"part %d of %d" % (number, reference)
    fields = {"source_addr": source, "destination_addr": SERVICE, "esm_class": c.ESM_UDHI}
    return {"fields": {**fields, "short_message": text.hex()}}


def traces(node: NodeProcess, *steps: str) -> set[str]:
    return {event["trace"] for kind in ("dlr", "mo") for step in steps for event in node.found(f"{kind}.{step}")}


async def at_rest(scene: Scene) -> None:
    """Wait until all that the nodes took into custody has been delivered, or has gone to the other one."""
    for name in OTHER:
        node = scene.fleet[name]
        taken, ended = partial(traces, node, "received", "claimed"), partial(traces, node, "delivered", "settled")
        await node.until(lambda taken=taken, ended=ended: taken() <= ended(), "an end of all that it took")


def sent_by_smsc(scene: Scene) -> list[bytes]:
    """Everything that it delivered, whichever the bind, without the sequence numbers."""
    return without_sequence([frame for name in OTHER for frame in scene.from_smsc(name, c.DELIVER_SM)])


def received_by_gateways(scene: Scene) -> list[bytes]:
    return without_sequence([frame for name in OTHER for frame in scene.out_of(name, c.DELIVER_SM)])


# Reports before their responses


def check_order(received: list[bytes], reports: list[str]) -> None:
    """What one gateway received: exactly these reports, each after the response of its message."""
    responded, reported = set(), []
    for frame in received:
        _, command, status, _ = HEADER.unpack_from(frame)
        if command == c.SUBMIT_SM_RESP:
            assert status == c.ESME_ROK
            responded.add(frame[16:-1])
        elif command == c.DELIVER_SM:
            message_id = read(frame).message_id
            assert message_id in responded
            reported.append(message_id.decode())
    assert sorted(reported) == sorted(reports)


class Unanswered:
    """Messages of both gateways that the SMSC has and does not answer yet, with reports that are to come before."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.via: dict[str, list[str]] = {}  # by id: the binds that its reports go down
        self.of: dict[str, list[str]] = {name: [] for name in OTHER}  # by gateway: the ids that its reports have
        self._subscribers: dict[str, str] = {}

    async def submit(self, gateway: str, via: list[str]) -> None:
        number = len(self.via) + 1
        await self.scene.gateways[gateway].do("submit", tag=f"m{number}", **submission(subscriber(number)))
        message_id = (await self.scene.smsc.seen("submit", count=number))[-1]["id"]
        self.via[message_id] = via
        self.of[gateway] += [message_id] * len(via)
        self._subscribers[message_id] = subscriber(number)

    async def report(self, message_id: str) -> None:
        for name in self.via[message_id]:
            report = receipt(message_id, self._subscribers[message_id])
            await send(self.scene, name, {f"{message_id} {name}": report})

    async def respond(self, message_id: str) -> None:
        await self.scene.smsc.do("respond", id=message_id)

    async def reports_accepted(self) -> None:
        await accepted(
            self.scene, *(f"{message_id} {name}" for message_id in self.via for name in self.via[message_id])
        )


@pytest.mark.parametrize("make_esme", [smpplib_esme, smpp34_esme])
@pytest.mark.parametrize("late", [False, True], ids=["response at once", "response when nobody knew"])
async def test_a_report_before_its_response_reaches_the_gateway_after_it(tmp_path, late, make_esme):
    async with play(tmp_path, npm, make_esme) as scene:
        await scene.smsc.do("hold")
        messages = Unanswered(scene)
        for gateway, other in OTHER.items():
            for via in ([gateway], [other], [gateway], [other], [gateway, other]):
                await messages.submit(gateway, via)

        for message_id in messages.via:
            await messages.report(message_id)
            if not late:
                await messages.respond(message_id)
        await messages.reports_accepted()
        if late:
            for message_id, via in messages.via.items():
                for name in via:  # it has been round the ring, and nobody has claimed it
                    await scene.fleet[name].seen("dlr.waiting", message_id=message_id)
            assert received_by_gateways(scene) == []
            for message_id in messages.via:
                await messages.respond(message_id)
        for gateway, reports in messages.of.items():
            await scene.gateways[gateway].seen("deliver", count=len(reports))
        await at_rest(scene)

    assert len(sent_by_smsc(scene)) == 12
    assert sorted(received_by_gateways(scene)) == sorted(sent_by_smsc(scene))
    for gateway, reports in messages.of.items():
        check_order(scene.out_of(gateway), reports)


# Ids that have another form in the receipt


@pytest.mark.parametrize(
    ("rule", "in_response", "in_receipt"),
    [("hex-decimal", HEXADECIMAL, DECIMAL), ("decimal-hex", DECIMAL, HEXADECIMAL)],
    ids=["hex-decimal", "decimal-hex"],
)
async def test_the_form_of_ids_in_receipts_is_learned_and_shared(tmp_path, rule, in_response, in_receipt):
    numbers = range(int(FIRST_ID, 16), int(FIRST_ID, 16) + 6)
    reported = [in_receipt(number) for number in numbers]

    async def report(index, via):
        await deliver(scene, via, {f"r{index}": receipt(reported[index], subscriber(index))})
        await scene.gateway.seen("deliver", source=subscriber(index))

    async with play(tmp_path, npm, smpplib_esme) as scene:
        gw1, gw2 = scene.fleet["gw1"], scene.fleet["gw2"]
        await scene.smsc.do("ids", ids=[in_response(number) for number in numbers])
        ids = await scene.submit(**{f"m{index}": submission(subscriber(index)) for index in range(6)})
        assert list(ids.values()) == [in_response(number) for number in numbers]

        # Nobody knows the rule: first an owner of the exact id is asked for.
        await report(0, via="gw2")
        assert (await gw1.seen("dlr.claimed", message_id=reported[0]))["lap"] == 2
        for index in (1, 2, 3):
            assert not gw1.found("message_id.rule")
            await report(index, via="gw1")
            assert (await gw1.seen("dlr.delivered", message_id=reported[index]))["lap"] == 2
        assert (await gw1.seen("message_id.rule"))["after"] == rule
        assert (await gw2.seen("message_id.rule_adopted"))["after"] == rule

        await report(4, via="gw1")
        assert not gw1.found("dlr.missed", message_id=reported[4])  # the gateway's own answer went back
        await report(5, via="gw2")
        assert (await gw1.seen("dlr.claimed", message_id=reported[5]))["lap"] == 1
        await at_rest(scene)

    assert len(sent_by_smsc(scene)) == len(numbers)
    assert sorted(without_sequence(scene.out_of("gw1", c.DELIVER_SM))) == sorted(sent_by_smsc(scene))
    assert scene.out_of("gw2", c.DELIVER_SM) == []


async def test_the_subscriber_decides_between_ids_that_may_both_be_meant(tmp_path):
    number = int(FIRST_ID, 16)
    reported, padded, hexadecimal = f"{number:d}", f"00{number:d}", f"{number:x}"
    async with play(tmp_path, npm, smpplib_esme) as scene:
        await scene.smsc.do("ids", ids=[hexadecimal, padded])
        await scene.submit(m1=submission(subscriber(1)), m2=submission(subscriber(2)))
        for index in (1, 2):
            mark = scene.fleet["gw1"].mark()
            await deliver(scene, "gw2", {f"r{index}": receipt(reported, subscriber(index))})
            await scene.gateway.seen("deliver", source=subscriber(index))
            await scene.fleet["gw1"].seen("dlr.claimed", since=mark, message_id=reported, lap=2)
            await at_rest(scene)

        mark = scene.fleet["gw2"].mark()
        await deliver(scene, "gw2", {"r3": receipt(reported, subscriber(3))})
        await scene.fleet["gw2"].seen("dlr.waiting", since=mark, message_id=reported, lap=2, complete=True)

    assert len(scene.out_of("gw1", c.DELIVER_SM)) == 2
    assert scene.out_of("gw2", c.DELIVER_SM) == []


# MO


def parts_by_gateway(scene: Scene) -> dict[int, list[tuple[str, int]]]:
    """By reference: which gateway received which part."""
    received: dict[int, list[tuple[str, int]]] = {}
    for name in OTHER:
        for frame in scene.out_of(name, c.DELIVER_SM):
            header = frame[frame.index(b"\x05\x00\x03") :]
            received.setdefault(header[3], []).append((name, header[5]))
    return received


@pytest.mark.parametrize("make_esme", [smpplib_esme, smpp34_esme])
async def test_parts_that_go_down_two_nodes_at_once_reach_one_gateway(tmp_path, make_esme):
    references = range(1, 17)
    async with play(tmp_path, npm, make_esme) as scene:
        for reference in references:
            first = "gw1" if reference % 2 else "gw2"
            for number, name in ((1, first), (2, OTHER[first])):
                await send(scene, name, {f"{reference}/{number}": part(subscriber(reference), reference, number)})
        await accepted(scene, *(f"{reference}/{number}" for reference in references for number in (1, 2)))
        for name in OTHER:
            node = scene.fleet[name]
            await node.until(lambda node=node: len(node.found("mo.gathered")) == len(references), "all parts gathered")
        await at_rest(scene)
        assert not any(scene.fleet[name].found("mo.split") for name in OTHER)

    received = parts_by_gateway(scene)
    assert sorted(received) == list(references)
    for parts in received.values():
        gateways, numbers = zip(*sorted(parts), strict=True)
        assert numbers == (1, 2)
        assert len(set(gateways)) == 1
    assert sorted(received_by_gateways(scene)) == sorted(sent_by_smsc(scene))


async def test_an_mo_goes_to_the_gateway_of_its_rule_whichever_the_bind(tmp_path):
    settings = {"mo": {"rules": [{"destination": SERVICE, "keyword": "WIN", "gateway": "gw2"}]}}
    async with play(tmp_path, npm, smpplib_esme, settings) as scene:
        for index, (via, text) in enumerate([("gw1", b"Win a car"), ("gw2", b"WIN"), ("gw1", b"winner")]):
            fields = {"source_addr": subscriber(index), "destination_addr": SERVICE, "short_message": text.hex()}
            await deliver(scene, via, {f"mo{index}": {"fields": fields}})
        for number, via in ((2, "gw2"), (1, "gw1")):  # the keyword is in the first, which comes last
            mo = part(subscriber(9), 9, number)
            text = bytes.fromhex(mo["fields"]["short_message"])
            mo["fields"]["short_message"] = (text[:6] + b"win " + text[6:]).hex()
            await send(scene, via, {f"part {number}": mo})
        await accepted(scene, "part 1", "part 2")
        await scene.other_gateway.seen("deliver", count=4)
        await scene.gateway.seen("deliver", source=subscriber(2))
        await at_rest(scene)

    assert len(scene.out_of("gw2", c.DELIVER_SM)) == 4
    assert len(scene.out_of("gw1", c.DELIVER_SM)) == 1
    assert sorted(received_by_gateways(scene)) == sorted(sent_by_smsc(scene))
