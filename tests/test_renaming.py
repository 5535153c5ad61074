"""`receipt_id = "as-submitted"` through the relay: byte for byte what the gateway gets, on every way to it."""

import pytest
from relay_world import World, command_of, deliver_sm_resp, mo, receipt, sequence_of, submit_sm_resp

from dlrproxy.store.port import StoreError
from protocols.smpp import constants as c
from protocols.smpp.framing import resequence
from protocols.smpp.message_ids import Rule
from protocols.smpp.pdu import Message, pack

HEX, DECIMAL = b"0000001A", b"26"


def world_of(rule: Rule | None = Rule.HEX_DECIMAL, **settings):
    world = World(rule=rule, receipt_id="as-submitted", **settings)
    return world, world.bind(), world.session()


def report(message_id, text_id=None, text=b"Hello", **fields):
    """With the id in text and TLV, and with bytes that must not change."""
    short = b"id:%b sub:001 dlvrd:001 submit date:2401010000 done date:2401010001 stat:DELIVRD err:000 text:%b" % (
        text_id or message_id,
        text,
    )
    tlvs = ((0x1401, b"\0id:26"), (c.TLV_RECEIPTED_MESSAGE_ID, message_id + b"\0"), (c.TLV_MESSAGE_STATE, b"\2"))
    fields = {"short_message": short, "tlvs": tlvs, **fields}
    body = Message(source=b"447700900001", destination=b"SHOP", esm_class=c.ESM_RECEIPT, **fields)
    return pack(c.DELIVER_SM, 0, 9, body.encode())


async def test_a_matched_report_is_about_the_id_as_submitted():
    world, bind, session = world_of()
    world.open(session, bind, HEX)
    world.relay.from_operator(bind, [report(DECIMAL)])
    await world.look_up()
    assert session.connection.take() == [resequence(report(HEX), 1)]
    world.relay.from_gateway(session, [deliver_sm_resp(1)])
    assert bind.connection.take() == [deliver_sm_resp(9)]
    assert world.counters.id_as_received == 0


async def test_as_received_is_the_default():
    world = World(rule=Rule.HEX_DECIMAL)
    bind, session = world.bind(), world.session()
    world.open(session, bind, HEX)
    world.relay.from_operator(bind, [report(DECIMAL)])
    await world.look_up()
    assert session.connection.take() == [resequence(report(DECIMAL), 1)]


def test_an_id_that_is_right_in_the_tlv_is_put_right_in_the_text():
    world, bind, session = world_of()
    world.open(session, bind, HEX)
    world.relay.from_operator(bind, [report(HEX, text_id=DECIMAL), report(HEX)])
    assert session.connection.take() == [resequence(report(HEX), 1)]
    world.relay.from_gateway(session, [deliver_sm_resp(1)])
    assert session.connection.take() == [resequence(report(HEX), 2)]


def test_an_mo_is_never_touched():
    world, bind, session = world_of()
    world.open(session, bind, HEX)
    written_by_anybody = mo(3, text=b"id:26 stat:DELIVRD")
    world.relay.from_operator(bind, [written_by_anybody])
    assert session.connection.take() == [resequence(written_by_anybody, 1)]


async def test_a_report_that_came_before_its_response():
    world, bind, session = world_of()
    world.submit(session, 5)
    bind.connection.take()
    world.relay.from_operator(bind, [report(DECIMAL)])
    await world.look_up()
    assert world.counters.race_held == 1
    world.relay.from_operator(bind, [submit_sm_resp(1, HEX)])
    await world.look_up()
    assert session.connection.take() == [submit_sm_resp(5, HEX), resequence(report(HEX), 1)]


@pytest.mark.parametrize(("length", "fits"), [(255, True), (256, False)])
async def test_an_id_that_has_no_room_in_the_text_stays_as_received(length, fits):
    """sm_length is one octet. What can be replaced is: here the id in the TLV."""
    world, bind, session = world_of()
    world.open(session, bind, HEX)
    fixed = len(report(HEX, text=b"")) - len(report(HEX, text=b"", short_message=b""))
    text = bytes(length - fixed)
    world.relay.from_operator(bind, [report(DECIMAL, text=text)])
    await world.look_up()
    expected = report(HEX, text=text) if fits else report(HEX, text_id=DECIMAL, text=text)
    assert session.connection.take() == [resequence(expected, 1)]
    assert world.counters.id_as_received == (0 if fits else 1)


async def test_a_temporary_error_keeps_the_report_as_it_came_and_delivers_it_as_submitted():
    world, bind, session = world_of()
    world.open(session, bind, HEX)
    world.relay.from_operator(bind, [report(DECIMAL)])
    await world.look_up()
    session.connection.take()
    world.relay.from_gateway(session, [deliver_sm_resp(1, c.ESME_RX_T_APPN)])
    [accepted] = world.custody.accepted
    assert (accepted.message_id, accepted.pdu) == (DECIMAL, report(DECIMAL))
    heard = []
    assert world.deliver("gw1", accepted.message_id, accepted.pdu, heard.append)
    assert session.connection.take() == []  # its message is looked for
    await world.look_up()
    assert session.connection.take() == [resequence(report(HEX), 2)]
    world.relay.from_gateway(session, [deliver_sm_resp(2)])
    assert heard == [c.ESME_ROK]


@pytest.mark.parametrize("rule", [Rule.HEX_DECIMAL, None])  # None: claimed in the second lap, by a rule not yet learned
async def test_what_was_claimed_from_the_ring_is_as_submitted(rule):
    world, bind, session = world_of(rule)
    other = world.session()
    world.open(other, bind, HEX)
    world.now += 1
    assert world.deliver("gw1", DECIMAL, report(DECIMAL), lambda status: None)
    await world.look_up()
    assert session.connection.take() == []
    assert other.connection.take() == [resequence(report(HEX), 1)]  # to the session that submitted


def test_an_exact_id_in_memory_is_delivered_at_once():
    world, bind, session = world_of()
    world.open(session, bind, HEX)
    assert world.deliver("gw1", HEX, report(HEX, text_id=DECIMAL), lambda status: None)
    assert session.connection.take() == [resequence(report(HEX), 1)]


async def test_a_claim_does_not_overtake_its_own_response_and_waits_for_no_other():
    world, bind, session = world_of(auto_commit=False)
    world.submit(session, 5)
    world.relay.from_operator(bind, [submit_sm_resp(1, HEX)])
    assert world.deliver("gw1", DECIMAL, report(DECIMAL), lambda status: None)
    await world.look_up()
    assert session.connection.take() == []
    world.store.commit()
    assert [command_of(frame) for frame in session.connection.take()] == [c.SUBMIT_SM_RESP, c.DELIVER_SM]
    world.submit(session, 6)
    world.relay.from_operator(bind, [submit_sm_resp(2, b"FF")])
    assert world.deliver("gw1", DECIMAL, report(DECIMAL), lambda status: None)
    await world.look_up()
    assert session.connection.take() == [resequence(report(HEX), 2)]


async def test_a_report_whose_message_is_not_known_any_more_is_as_received():
    world, bind, session = world_of(open_message_days=1)
    world.open(session, bind, HEX)
    world.now += 90_000
    assert world.deliver("gw1", DECIMAL, report(DECIMAL), lambda status: None)
    await world.look_up()
    assert session.connection.take() == [resequence(report(DECIMAL), 1)]
    assert world.counters.id_as_received == 1


async def test_a_report_that_may_be_of_another_message_is_as_received():
    """Without a rule in force 26 may be written 1A or not; the subscriber says that this is not it."""
    world, bind, session = world_of(None)
    world.open(session, bind, HEX, destination=b"447700900002")
    world.now += 1
    assert world.deliver("gw1", DECIMAL, report(DECIMAL), lambda status: None)
    await world.look_up()
    assert session.connection.take() == [resequence(report(DECIMAL), 1)]
    assert world.counters.id_as_received == 1


async def test_a_report_for_another_gateway_than_its_owner_is_as_received():
    """A person replays it, or the operator's policy is "local"."""
    world, bind, session = world_of()
    other = world.session("gw2")
    world.open(session, bind, HEX)
    world.now += 1
    assert world.deliver("gw2", DECIMAL, report(DECIMAL), lambda status: None)
    await world.look_up()
    assert other.connection.take() == [resequence(report(DECIMAL), 1)]


async def test_a_store_that_cannot_be_read_does_not_hold_a_report_back():
    world, bind, session = world_of()
    world.open(session, bind, HEX)

    async def broken(lookups):
        raise StoreError("gone")

    world.store.find = broken
    assert world.deliver("gw1", DECIMAL, report(DECIMAL), lambda status: None)
    await world.look_up()
    assert session.connection.take() == [resequence(report(DECIMAL), 1)]


async def test_custody_hears_of_a_session_that_ended_while_the_message_was_looked_for():
    world, bind, session = world_of()
    world.open(session, bind, HEX)
    heard = []
    assert world.deliver("gw1", DECIMAL, report(DECIMAL), heard.append)
    world.relay.lost(session)
    await world.look_up()
    assert heard == [None]
    assert not world.deliver("gw1", DECIMAL, report(DECIMAL), heard.append)


async def test_reports_without_an_id_and_mo_from_custody_are_delivered_as_they_are():
    world, _, session = world_of()
    assert world.deliver("gw1", b"", mo(1), lambda status: None)
    assert session.connection.take() == [resequence(mo(1), 1)]


async def test_a_usual_receipt_and_a_data_sm():
    world, bind, session = world_of()
    world.open(session, bind, HEX)
    world.relay.from_operator(bind, [receipt(1, DECIMAL)])
    await world.look_up()
    assert session.connection.take() == [resequence(receipt(1, HEX), 1)]
    world.relay.from_gateway(session, [deliver_sm_resp(1)])

    def data_sm(message_id):
        tlvs = ((c.TLV_RECEIPTED_MESSAGE_ID, message_id + b"\0"), (c.TLV_MESSAGE_STATE, b"\2"))
        body = Message(source=b"447700900001", destination=b"SHOP", esm_class=c.ESM_RECEIPT, tlvs=tlvs)
        return pack(c.DATA_SM, 0, 2, body.encode_data_sm())

    world.relay.from_operator(bind, [data_sm(DECIMAL)])
    await world.look_up()
    [frame] = session.connection.take()
    assert frame == resequence(data_sm(HEX), 2)
    assert sequence_of(frame) == 2


def test_a_relay_that_ends_gives_back_what_waits_for_its_message():
    world = World(receipt_id="as-submitted")
    world.session()
    heard = []
    assert world.deliver("gw1", b"unknown", receipt(77, b"unknown"), heard.append)
    world.relay.hand_over.end()
    assert heard == [None]
