"""Every other PDU, of SMPP 3.3 to 5.0 and of vendors, passes untouched and is answered by the right side."""

import pytest
from gateway_world import gateway_side
from relay_world import World, command_of, deliver_sm_resp, receipt, sequence_of, submit_sm, submit_sm_resp
from smpp_peer import bind_request

from protocols.smpp import constants as c
from protocols.smpp.framing import resequence
from protocols.smpp.message_ids import Rule
from protocols.smpp.pdu import Message, encode_tlvs, pack

VENDOR, UNKNOWN = 0x00010200, 0x00000777
NO_ADDRESS = b"\0\0\0"
HANDSET = b"\1\x01447700900001\0"
TLVS = encode_tlvs(((0x1400, b"vendor"), (c.TLV_USER_MESSAGE_REFERENCE, b"\0\7")))
DAY = 86_400

# Whole bodies as the specifications lay them out (3.4 chapter 4, 5.0 chapter 4), with TLVs behind them.
FROM_A_GATEWAY = {
    "submit_multi": (
        c.SUBMIT_MULTI,
        b"\0\5\0SHOP\0\2\1%b\2list\0\0\0\0\0\0\1\0\0\0\2hi" % HANDSET + TLVS,
        b"m1\0\1\1\x01447700900002\0\0\0\0\x0b",  # one destination that failed
    ),
    "data_sm": (c.DATA_SM, b"\0\5\0SHOP\0" + HANDSET + b"\0\1\0" + TLVS, b"d1\0" + TLVS),
    "query_sm": (c.QUERY_SM, b"id1\0\5\0SHOP\0", b"id1\x00240101000000000+\0\2\0"),
    "cancel_sm": (c.CANCEL_SM, b"\0id1\0\5\0SHOP\0" + HANDSET, b""),
    "replace_sm": (c.REPLACE_SM, b"id1\0\5\0SHOP\0\0\0\1\0\3new", b""),
    "broadcast_sm": (c.BROADCAST_SM, b"\0\5\0SHOP\0\0\0\0\0\0\0\0" + TLVS, b"b1\0" + TLVS),
    "query_broadcast_sm": (c.QUERY_BROADCAST_SM, b"b1\0\5\0SHOP\0", b"b1\0" + TLVS),
    "cancel_broadcast_sm": (c.CANCEL_BROADCAST_SM, b"\0b1\0\5\0SHOP\0" + TLVS, b""),
    "a vendor's": (VENDOR, b"\xff\0anything", b"back"),
    "a later version's": (UNKNOWN, b"", b""),
    "a body that cannot be read": (c.QUERY_SM, b"\xff" * 40, b"\xff"),
}

RESPONSES = {
    "good": lambda command, sequence, body: pack(command | c.RESPONSE_BIT, 0, sequence, body),
    "an error without a body": lambda command, sequence, body: pack(command | c.RESPONSE_BIT, 0x67, sequence),
    "an error with its body": lambda command, sequence, body: pack(command | c.RESPONSE_BIT, 0x400, sequence, body),
    "generic_nack": lambda command, sequence, body: pack(c.GENERIC_NACK, c.ESME_RINVCMDID, sequence),
}


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
@pytest.mark.parametrize(("command", "body", "answer"), FROM_A_GATEWAY.values(), ids=FROM_A_GATEWAY)
@pytest.mark.parametrize("bound", [c.BIND_TRANSCEIVER_RESP, c.BIND_TRANSMITTER_RESP], ids=["transceiver", "pair"])
def test_a_gateways_request_and_the_operators_response(bound, command, body, answer, response):
    world = World()
    bind, session, bystander = world.bind("1", bound), world.session("gw2", bound), world.session()
    request = pack(command, 9, 0x80000011, body)  # a status in a request means nothing, and passes
    world.relay.from_gateway(session, [request])
    assert bind.connection.take() == [resequence(request, 1)]
    there = response(command, 1, answer)
    world.relay.from_operator(bind, [there])
    assert session.connection.take() == [resequence(there, 0x80000011)]
    assert bystander.connection.take() == []
    assert world.relay.in_flight == 0


@pytest.mark.parametrize(("command", "body", "_"), FROM_A_GATEWAY.values(), ids=FROM_A_GATEWAY)
def test_a_request_without_an_operator_is_answered_here_with_the_response_that_belongs_to_it(command, body, _):
    world = World()
    session = world.session()
    world.relay.from_gateway(session, [pack(command, 0, 5, body)])
    assert session.connection.take() == [pack(command | c.RESPONSE_BIT, c.ESME_RSYSERR, 5)]


@pytest.mark.parametrize(
    "command",
    [command for command, _, _ in FROM_A_GATEWAY.values() if command not in (VENDOR, UNKNOWN)],
)
def test_a_receiver_may_not_ask_and_an_operator_may_not_either(command):
    world = World()
    bind, session = world.bind(), world.session(command=c.BIND_RECEIVER_RESP)
    world.relay.from_gateway(session, [pack(command, 0, 5)])
    assert session.connection.take() == [pack(command | c.RESPONSE_BIT, c.ESME_RINVBNDSTS, 5)]
    assert bind.connection.take() == []
    if command == c.DATA_SM:
        return  # an operator's data_sm is a report or an MO
    world.relay.from_operator(bind, [pack(command, 0, 6)])
    assert bind.connection.take() == [pack(command | c.RESPONSE_BIT, c.ESME_RINVBNDSTS, 6)]
    assert session.connection.take() == []


DATA_SM_MO = pack(c.DATA_SM, 0, 8, b"\0" + HANDSET + b"\0\x007000\0\0\0\0" + encode_tlvs(((0x0424, b"WIN"),)))


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
@pytest.mark.parametrize(
    "request_",
    [pack(VENDOR, 0, 8, b"x"), pack(UNKNOWN, 7, 8), DATA_SM_MO],
    ids=["a vendor's", "a later version's", "an MO as data_sm"],
)
def test_an_operators_request_and_the_gateways_response(request_, response):
    world = World()
    other, bind, session = world.bind("1"), world.bind("2"), world.session()
    world.relay.from_operator(bind, [request_])
    assert session.connection.take() == [resequence(request_, 1)]
    there = response(command_of(request_), 1, b"\0")
    world.relay.from_gateway(session, [there])
    assert bind.connection.take() == [resequence(there, 8)]
    assert other.connection.take() == []


def test_a_report_as_data_sm_for_an_mt_as_data_sm():
    world = World()
    bind, session = world.bind(), world.session()
    command, body, answer = FROM_A_GATEWAY["data_sm"]
    world.relay.from_gateway(session, [pack(command, 0, 1, body)])
    world.relay.from_operator(bind, [pack(c.DATA_SM_RESP, 0, 1, answer)])
    tlvs = ((c.TLV_RECEIPTED_MESSAGE_ID, b"d1\0"), (c.TLV_MESSAGE_STATE, b"\2"))
    message = Message(source=b"447700900001", destination=b"SHOP", esm_class=c.ESM_RECEIPT, tlvs=tlvs)
    report = pack(c.DATA_SM, 0, 70, message.encode_data_sm())
    session.connection.take()
    bind.connection.take()
    world.relay.from_operator(bind, [report])
    assert session.connection.take() == [resequence(report, 1)]
    world.relay.from_gateway(session, [pack(c.DATA_SM_RESP, 0, 1, b"\0")])
    assert bind.connection.take() == [pack(c.DATA_SM_RESP, 0, 70, b"\0")]
    assert world.store.recent("acme", b"d1").finished


@pytest.mark.parametrize("request_", [pack(VENDOR, 0, 8), DATA_SM_MO], ids=["a vendor's", "an MO"])
def test_what_a_gateway_left_unanswered_when_it_went_is_not_left_to_the_operators_timer(request_):
    world = World()
    world.custody.at_once = True
    bind, session = world.bind(), world.session()
    world.relay.from_operator(bind, [request_])
    world.relay.lost(session)
    [answer] = bind.connection.take()
    assert (command_of(answer), sequence_of(answer)) == (command_of(request_) | c.RESPONSE_BIT, 8)


def test_an_alert_notification_passes_and_nobody_answers_it():
    world = World()
    bind, session = world.bind(), world.session()
    alert = pack(c.ALERT_NOTIFICATION, 0, 8, HANDSET + b"\0\x00SHOP\0" + TLVS)
    world.relay.from_operator(bind, [alert])
    assert session.connection.take() == [resequence(alert, 1)]
    assert bind.connection.take() == []
    assert len(session.window) == 0


def test_a_stray_generic_nack_harms_nobody():
    world = World()
    bind, session = world.bind(), world.session()
    nack = pack(c.GENERIC_NACK, c.ESME_RINVCMDLEN, 0)
    world.relay.from_operator(bind, [nack])
    world.relay.from_gateway(session, [nack])
    assert bind.connection.take() == session.connection.take() == []
    assert bind.connection.ended is session.connection.ended is None


def test_a_report_that_a_gateway_does_not_understand_is_nacked_to_the_operator():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(8, b"id1")])
    world.relay.from_gateway(session, [pack(c.GENERIC_NACK, c.ESME_RINVCMDID, 1)])
    assert bind.connection.take() == [pack(c.GENERIC_NACK, c.ESME_RINVCMDID, 8)]
    assert not world.store.recent("acme", b"id1").finished


# One id, several receipts


def multi(world, bind, session, command="submit_multi"):
    request, body, answer = FROM_A_GATEWAY[command]
    world.relay.from_gateway(session, [pack(request, 0, 1, body)])
    [sent] = bind.connection.take()
    world.relay.from_operator(bind, [pack(request | c.RESPONSE_BIT, 0, sequence_of(sent), answer)])
    session.connection.take()


async def reported(world, bind, session, *reports):
    """The operator sends them, the gateway takes what it gets: of which subscribers, in which state."""
    world.relay.from_operator(bind, list(reports))
    await world.look_up()
    seen = []
    while frames := session.connection.take():
        seen += [(frame[19:31], frame.partition(b"stat:")[2][:7]) for frame in frames]
        world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame)) for frame in frames])
    assert len(bind.connection.take()) == len(reports)
    return seen


async def test_a_submit_multi_gets_the_reports_of_all_its_destinations_however_far_apart():
    world = World(final_grace_s=3600)
    bind, session = world.bind(), world.session()
    multi(world, bind, session)
    one, two = b"447700900001", b"447700900002"
    assert await reported(world, bind, session, receipt(1, b"m1", source=one)) == [(one, b"DELIVRD")]
    world.now += 2 * DAY  # its grace period is long over, and the other one is still under way
    states = [receipt(2, b"m1", b"ENROUTE", source=two), receipt(3, b"m1", b"UNDELIV", source=two)]
    assert await reported(world, bind, session, *states) == [(two, b"ENROUTE"), (two, b"UNDELIV")]
    assert (await world.store.expire(world.now + 30 * DAY)).unreported == []


async def test_after_a_final_report_from_custody_a_submit_multi_is_open_still():
    world = World(final_grace_s=3600, rule=Rule.EXACT)
    bind, session = world.bind(), world.session()
    multi(world, bind, session)
    assert world.deliver("gw1", b"m1", receipt(1, b"m1"), lambda status: None)
    [frame] = session.connection.take()
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])
    world.relay.hand_over.close(world.store.recent("acme", b"m1"))
    world.now += DAY
    two = b"447700900002"
    assert await reported(world, bind, session, receipt(2, b"m1", b"ENROUTE", source=two)) == [(two, b"ENROUTE")]


async def test_the_id_of_a_broadcast_is_known_when_it_is_reported():
    world = World()
    bind, session = world.bind(), world.session()
    multi(world, bind, session, "broadcast_sm")
    assert await reported(world, bind, session, receipt(1, b"b1")) == [(b"447700900001", b"DELIVRD")]


# Versions


@pytest.mark.parametrize("command", sorted(c.BINDS))
@pytest.mark.parametrize("ours", ["3.3", "3.4", "5.0"])
@pytest.mark.parametrize("theirs", [0x00, 0x33, 0x34, 0x50])
async def test_gateways_of_every_version_bind_and_submit_whatever_we_speak_to_the_operator(theirs, ours, command):
    async with gateway_side(interface_version=ours) as side:
        bind = side.world.bind()
        peer = await side.dial()
        await peer.send(bind_request(2, command, interface_version=theirs))
        octet = {"3.3": 0x33, "3.4": 0x34, "5.0": 0x50}[ours]
        tlvs = encode_tlvs(((c.TLV_SC_INTERFACE_VERSION, bytes((octet,))),)) if theirs >= 0x34 else b""
        assert await peer.receive() == pack(command | c.RESPONSE_BIT, 0, 2, b"dlrproxy\0" + tlvs)
        if command == c.BIND_RECEIVER:
            return
        await peer.send(submit_sm(3), pack(c.ENQUIRE_LINK, 0, 4))
        assert await peer.receive() == pack(c.ENQUIRE_LINK_RESP, 0, 4)
        assert bind.connection.take() == [resequence(submit_sm(3), 1)]
        side.world.relay.from_operator(bind, [submit_sm_resp(1, b"0A1B2C3D")])
        assert await peer.receive() == submit_sm_resp(3, b"0A1B2C3D")
