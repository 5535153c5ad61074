"""Where a relay sends an MO: by rule, in conversation, in parts, and else to whoever is bound."""

import pytest
from relay_world import World, command_of, deliver_sm_resp, mo, receipt, sequence_of, status_of, submit_sm_resp

from dlrproxy.config.keys import Address
from dlrproxy.config.tables import Mo, MoRule
from dlrproxy.mo.conversations import Conversations
from protocols.peer.frames import PartOf
from protocols.smpp import constants as c
from protocols.smpp.pdu import Message, pack
from protocols.smpp.receipts import read_body
from ring.coordinator import name_of

ONE_GATEWAY = {"gw1": Address("127.0.0.1", 0)}


def with_rules(*rules, **fields):
    return Mo(rules=tuple(MoRule(**rule) for rule in rules), **{"conversation_s": 0, **fields})


def answered(world, bind):
    """What the operator was answered, by its sequence numbers."""
    return {sequence_of(frame): status_of(frame) for frame in bind.connection.take()}


def part(sequence, number, total=2, reference=7, text=b"WIN a car", **fields):
    header = bytes((5, 0, 3, reference, total, number))
    return mo(sequence, header + text, esm_class=c.ESM_UDHI, **fields)


# By rule


def test_an_mo_is_passed_to_the_gateway_of_its_rule_and_the_answer_back():
    world = World(mo=with_rules({"keyword": "win", "gateway": "gw2"}))
    bind, one, two = world.bind(), world.session("gw1"), world.session("gw2")
    world.relay.from_operator(bind, [mo(1, b"WIN"), mo(2, b"lose")])
    assert [command_of(f) for f in one.connection.take()] == [c.DELIVER_SM]
    [frame] = two.connection.take()
    world.relay.from_gateway(two, [deliver_sm_resp(sequence_of(frame), c.ESME_RX_P_APPN)])
    assert answered(world, bind) == {1: c.ESME_RX_P_APPN}
    assert world.counters.mo_by_rule == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"text": b"win"},
        {"text": "win".encode("utf-16-be"), "data_coding": 8},
        {"text": b"\x02\x70\x00win", "esm_class": c.ESM_UDHI},
        {"text": b"", "tlvs": ((c.TLV_MESSAGE_PAYLOAD, b"Win now"),)},
    ],
    ids=["default alphabet", "UCS-2", "behind a header", "message_payload"],
)
def test_the_keyword_is_found_however_the_text_comes(fields):
    world = World(mo=with_rules({"keyword": "WIN", "gateway": "gw2"}))
    bind, _, two = world.bind(), world.session("gw1"), world.session("gw2")
    world.relay.from_operator(bind, [mo(1, **fields)])
    assert len(two.connection.take()) == 1


def test_an_mo_as_data_sm_goes_by_rule_too():
    world = World(mo=with_rules({"destination": "7000", "gateway": "gw2"}))
    bind, two = world.bind(), world.session("gw2")
    message = Message(source=b"4477", destination=b"7000", tlvs=((c.TLV_MESSAGE_PAYLOAD, b"hi"),))
    world.relay.from_operator(bind, [pack(c.DATA_SM, 0, 1, message.encode_data_sm())])
    assert len(two.connection.take()) == 1


@pytest.mark.parametrize("gateway", ["gw2", "elsewhere"])
def test_a_designated_gateway_that_is_not_bound_here_gets_it_from_custody_wherever_it_is(gateway):
    world = World(mo=with_rules({"gateway": gateway}), alone=False)
    bind, one = world.bind(), world.session("gw1")
    world.relay.from_operator(bind, [mo(1)])
    assert one.connection.take() == []
    [accepted] = world.custody.accepted
    assert (accepted.owner, accepted.designated, accepted.kind) == (None, gateway, "mo")
    world.custody.answer()
    assert answered(world, bind) == {1: c.ESME_ROK}


def test_a_designated_gateway_without_room_gets_it_from_custody_here():
    world = World(mo=with_rules({"gateway": "gw2"}), gateway_window=1)
    bind, two = world.bind(), world.session("gw2")
    world.relay.from_operator(bind, [mo(1), mo(2)])
    assert len(two.connection.take()) == 1
    assert [accepted.owner for accepted in world.custody.accepted] == ["gw2"]


def test_a_rule_for_another_operator_does_not_apply():
    world = World(mo=with_rules({"operator": "other", "gateway": "gw2"}))
    bind, one, two = world.bind(), world.session("gw1"), world.session("gw2")
    world.relay.from_operator(bind, [mo(1)])
    assert len(one.connection.take()) == 1
    assert two.connection.take() == []


def test_a_report_goes_by_no_rule():
    world = World(mo=with_rules({"gateway": "gw2"}))
    bind, one, two = world.bind(), world.session("gw1"), world.session("gw2")
    world.open(one, bind, b"id1")
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    assert len(one.connection.take()) == 1
    assert two.connection.take() == []


def test_under_observe_an_mo_goes_where_it_went_before():
    world = World(mo=with_rules({"gateway": "elsewhere"}, conversation_s=60), alone=False, observe=True)
    bind, one = world.bind(), world.session("gw1")
    world.relay.from_operator(bind, [mo(1), part(2, 1)])
    assert len(one.connection.take()) == 2
    assert not world.custody.accepted


# In conversation


def talk(world, session, bind, *, source=b"7000", destination=b"4477", status=0, **fields):
    world.submit(session, 1, source=source, destination=destination, **fields)
    [request] = bind.connection.take()
    world.relay.from_operator(bind, [submit_sm_resp(sequence_of(request), b"id" if status == 0 else b"", status)])
    session.connection.take()


def test_an_answer_goes_to_the_gateway_that_wrote_last():
    world = World(mo=Mo(conversation_s=60))
    bind, one, two = world.bind(), world.session("gw1"), world.session("gw2")
    talk(world, one, bind)
    talk(world, two, bind)
    world.relay.from_operator(bind, [mo(1)])
    assert one.connection.take() == []
    assert len(two.connection.take()) == 1
    assert world.counters.mo_in_conversation == 1


def test_a_conversation_is_over_after_conversation_s():
    world = World(mo=Mo(conversation_s=60))
    bind, one, two = world.bind(), world.session("gw1"), world.session("gw2")
    talk(world, two, bind)
    world.now += 60
    world.relay.from_operator(bind, [mo(1)])
    assert len(one.connection.take()) == 1


def test_a_rule_goes_before_a_conversation():
    world = World(mo=with_rules({"keyword": "win", "gateway": "gw1"}, conversation_s=60))
    bind, one, two = world.bind(), world.session("gw1"), world.session("gw2")
    talk(world, two, bind)
    world.relay.from_operator(bind, [mo(1)])
    assert len(one.connection.take()) == 1


@pytest.mark.parametrize(
    "fields",
    [{"source": b"+7000"}, {"destination": b"+4477"}, {"registered_delivery": 0}],
    ids=["a plus at the number", "a plus at the subscriber", "an MT that is not tracked"],
)
def test_what_counts_as_a_conversation(fields):
    world = World(mo=Mo(conversation_s=60), track="requested")
    bind, _, two = world.bind(), world.session("gw1"), world.session("gw2")
    talk(world, two, bind, **fields)
    world.relay.from_operator(bind, [mo(1)])
    assert len(two.connection.take()) == 1


@pytest.mark.parametrize(
    "fields",
    [{"source": b"SHOP"}, {"source": b"7001"}, {"status": c.ESME_RTHROTTLED}],
    ids=["a name", "another number", "an MT that the operator refused"],
)
def test_what_does_not(fields):
    world = World(mo=Mo(conversation_s=60))
    bind, one, two = world.bind(), world.session("gw1"), world.session("gw2")
    talk(world, two, bind, **fields)
    world.relay.from_operator(bind, [mo(1)])
    assert len(one.connection.take()) == 1


def test_names_and_refused_messages_take_no_room():
    world = World(mo=Mo(conversation_s=60))
    bind, two = world.bind(), world.session("gw2")
    talk(world, two, bind, source=b"SHOP")
    talk(world, two, bind, status=c.ESME_RTHROTTLED)
    assert len(world.conversations) == 0


def test_with_conversations_off_nothing_is_remembered():
    world = World(mo=Mo(conversation_s=0))
    bind, two = world.bind(), world.session("gw2")
    talk(world, two, bind)
    assert len(world.conversations) == 0


def test_conversations_that_do_not_fit_are_counted():
    world = World(mo=Mo(conversation_s=60), conversations=Conversations(60, most=2))
    bind, one = world.bind(), world.session("gw1")
    for n in range(5):
        talk(world, one, bind, destination=b"44770%d" % n)
    assert world.counters.conversations_forgotten == 4


def test_without_a_conversation_here_the_ring_is_asked_where_there_is_one():
    world = World(mo=Mo(conversation_s=60), alone=False)
    bind, one = world.bind(), world.session("gw1")
    world.relay.from_operator(bind, [mo(1)])
    assert one.connection.take() == []
    [accepted] = world.custody.accepted
    assert (accepted.owner, accepted.designated, accepted.part) == (None, "", None)


def test_a_conversation_here_is_passed_straight_on_also_with_other_nodes():
    world = World(mo=Mo(conversation_s=60), alone=False)
    bind, one = world.bind(), world.session("gw1")
    talk(world, one, bind)
    world.relay.from_operator(bind, [mo(1)])
    assert len(one.connection.take()) == 1


def test_a_conversation_whose_gateway_is_not_bound_is_the_rings_to_place():
    world = World(mo=Mo(conversation_s=60), alone=False)
    bind, one, two = world.bind(), world.session("gw1"), world.session("gw2")
    talk(world, two, bind)
    world.relay.lost(two)
    world.relay.from_operator(bind, [mo(1)])
    assert one.connection.take() == []
    assert world.custody.accepted[0].designated == ""


@pytest.mark.parametrize("alone", [True, False])
def test_with_conversations_off_an_mo_goes_straight_to_a_bound_gateway_of_this_node(alone):
    world = World(mo=Mo(conversation_s=0), alone=alone)
    bind, one = world.bind(), world.session("gw1")
    world.relay.from_operator(bind, [mo(1)])
    assert len(one.connection.take()) == 1
    assert not world.custody.accepted


def test_a_node_alone_passes_an_mo_straight_on():
    world = World(mo=Mo(conversation_s=60))
    bind, one = world.bind(), world.session("gw1")
    world.relay.from_operator(bind, [mo(1)])
    assert len(one.connection.take()) == 1


def test_custody_is_told_who_converses_here():
    world = World(mo=Mo(conversation_s=60), alone=False)
    bind, two = world.bind(), world.session("gw2")
    talk(world, two, bind)
    assert world.relay.hand_over.conversing(mo(1)) == "gw2"
    assert world.relay.hand_over.conversing(mo(1, source=b"4478")) is None
    assert world.relay.hand_over.conversing(b"") is None


# In parts


def test_a_part_goes_to_custody_to_be_placed_with_the_others():
    world = World(mo=with_rules(), alone=False)
    bind, one = world.bind(), world.session("gw1")
    world.relay.from_operator(bind, [part(1, 1), part(2, 2), part(3, 1, reference=8)])
    assert one.connection.take() == []
    names = [accepted.part.message for accepted in world.custody.accepted]
    assert names[0] == names[1] != names[2]
    assert names[0] == name_of("acme", b"4477\x007000\x007/2")
    assert world.counters.mo_parts == 3


def test_parts_of_other_operators_subscribers_and_numbers_are_of_other_messages():
    world = World(mo=with_rules(), alone=False)
    bind = world.bind()
    frames = [part(1, 1), part(2, 1, source=b"4478"), part(3, 1, destination=b"7001")]
    world.relay.from_operator(bind, frames)
    assert len({accepted.part.message for accepted in world.custody.accepted}) == 3
    assert name_of("acme", b"x") != name_of("other", b"x")


def test_the_first_part_has_the_keyword_and_the_others_wait_for_it():
    world = World(mo=with_rules({"keyword": "win", "gateway": "gw2"}, {"destination": "7000", "gateway": "gw1"}))
    bind = world.bind()
    world.relay.from_operator(bind, [part(1, 1), part(2, 2), part(3, 1, reference=8, text=b"lose")])
    first, second, other = [accepted.part for accepted in world.custody.accepted]
    assert first == PartOf(first.message, "gw2", certain=True)
    assert second == PartOf(first.message, "gw1", certain=False)
    assert other == PartOf(other.message, "gw1", certain=True)


def test_where_no_keyword_matters_no_part_waits():
    world = World(mo=with_rules({"destination": "7001", "keyword": "win", "gateway": "gw2"}), alone=False)
    bind = world.bind()
    world.relay.from_operator(bind, [part(1, 2)])
    assert world.custody.accepted[0].part.certain


def test_parts_named_by_sar_tlvs_are_parts_too():
    world = World(mo=with_rules(), alone=False)
    bind = world.bind()
    tlvs = (
        (c.TLV_SAR_MSG_REF_NUM, b"\0\7"),
        (c.TLV_SAR_TOTAL_SEGMENTS, b"\2"),
        (c.TLV_SAR_SEGMENT_SEQNUM, b"\2"),
    )
    world.relay.from_operator(bind, [part(1, 1), mo(2, b"tail", tlvs=tlvs)])
    first, second = [accepted.part for accepted in world.custody.accepted]
    assert first.message == second.message


def test_where_there_is_one_gateway_only_parts_go_straight_to_it():
    world = World(mo=with_rules(), listen=ONE_GATEWAY)
    bind, one = world.bind(), world.session("gw1")
    world.relay.from_operator(bind, [part(1, 1), part(2, 2)])
    assert len(one.connection.take()) == 2
    assert not world.custody.accepted


def test_a_body_that_cannot_be_read_goes_to_a_gateway_all_the_same():
    world = World(mo=with_rules({"keyword": "win", "gateway": "gw2"}, conversation_s=60), alone=False)
    bind, one = world.bind(), world.session("gw1")
    frame = pack(c.DELIVER_SM, 0, 1, b"\0\1\1cut")
    assert read_body(frame) is None
    world.relay.from_operator(bind, [frame])
    assert len(one.connection.take()) == 1


# Another configuration, while it runs


def test_other_rules_count_from_the_next_mo():
    world = World(mo=with_rules({"keyword": "win", "gateway": "gw2"}))
    bind, one, two = world.bind(), world.session("gw1"), world.session("gw2")
    world.relay.mo.reload(with_rules({"keyword": "win", "gateway": "gw1"}), alone=True)
    world.relay.from_operator(bind, [mo(1, b"WIN")])
    assert len(one.connection.take()) == 1
    assert two.connection.take() == []


def test_a_node_that_is_not_alone_any_more_asks_the_ring_for_conversations_and_keeps_parts_together():
    world = World(listen=ONE_GATEWAY, mo=Mo(conversation_s=60), conversations=Conversations(60))
    bind, session = world.bind(), world.session("gw1")
    world.relay.from_operator(bind, [mo(1, b"hello"), part(2, 1)])
    assert len(session.connection.take()) == 2
    world.relay.mo.reload(Mo(conversation_s=60), alone=False)
    world.relay.from_operator(bind, [mo(3, b"hello"), part(4, 1)])
    assert session.connection.take() == []
    assert len(world.custody.accepted) == 2
    world.relay.mo.reload(Mo(conversation_s=60), alone=True)
    world.relay.from_operator(bind, [mo(5, b"hello"), part(6, 1)])
    assert len(session.connection.take()) == 2
