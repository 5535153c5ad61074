"""The relay's core, driven by hand: whole PDUs in, whole PDUs out."""

import pytest
import trio
import trio.testing
from relay_world import (
    Wire,
    World,
    command_of,
    deliver_sm_resp,
    heads,
    mo,
    receipt,
    sequence_of,
    status_of,
    submit_sm,
    submit_sm_resp,
)

from dlrproxy.mt.queue import MAX_QUEUED
from dlrproxy.sessions.connection import HIGH_WATER
from dlrproxy.store.port import MANY, StoreError
from protocols.smpp import constants as c
from protocols.smpp.framing import resequence
from protocols.smpp.message_ids import Rule
from protocols.smpp.pdu import pack

# MT and responses


def test_an_mt_reaches_the_operator_byte_for_byte_but_for_its_sequence_number():
    world = World()
    bind, session = world.bind(), world.session()
    [frame] = world.submit(session, 0x80000005)  # beyond what the specification allows
    [sent] = bind.connection.take()
    assert sequence_of(sent) == 1
    assert sent == resequence(frame, 1)


@pytest.mark.parametrize("sequence", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_response_carries_the_gateways_own_sequence_number(sequence):
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, sequence)
    response = submit_sm_resp(1, b"id1")
    world.relay.from_operator(bind, [response])
    assert session.connection.take() == [resequence(response, sequence)]


def test_a_reused_sequence_number_gets_both_its_responses():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 7, 7)
    world.relay.from_operator(bind, [submit_sm_resp(2, b"b"), submit_sm_resp(1, b"a")])
    assert session.connection.take() == [submit_sm_resp(7, b"b"), submit_sm_resp(7, b"a")]


def test_responses_out_of_order_find_their_session():
    world = World()
    bind, one, two = world.bind(), world.session(), world.session()
    world.submit(one, 1)
    world.submit(two, 1)
    world.relay.from_operator(bind, [submit_sm_resp(2, b"b"), submit_sm_resp(1, b"a")])
    assert one.connection.take() == [submit_sm_resp(1, b"a")]
    assert two.connection.take() == [submit_sm_resp(1, b"b")]


def test_a_batch_is_written_once():
    world = World(window=100)
    bind, session = world.bind(), world.session()
    world.submit(session, *range(1, 51))
    assert bind.connection.writes == 1
    world.relay.from_operator(bind, [submit_sm_resp(n, b"%d" % n) for n in range(1, 51)])
    assert session.connection.writes == 1
    assert len(session.connection.sent) == 50


def test_a_response_waits_until_its_open_message_is_durable():
    world = World(auto_commit=False)
    bind, session = world.bind(), world.session()
    world.submit(session, 5)
    world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
    assert session.connection.take() == []
    message = world.store.recent("acme", b"id1")
    assert (message.owner, message.destination, message.source) == ("gw1", b"447700900001", b"SHOP")
    assert message.session == session.token
    assert message.expires_at == world.now + 7 * 86_400
    world.store.commit()
    assert session.connection.take() == [submit_sm_resp(5, b"id1")]


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (pack(c.SUBMIT_SM_RESP, c.ESME_RTHROTTLED, 1), "an error without a body"),
        (submit_sm_resp(1, b"id1", c.ESME_RSYSERR), "an error with an id"),
        (submit_sm_resp(1, b""), "no id"),
        (pack(c.SUBMIT_SM_RESP, 0, 1), "no body"),
        (pack(c.GENERIC_NACK, c.ESME_RINVCMDID, 1), "generic_nack"),
    ],
)
def test_a_response_that_makes_no_open_message_goes_straight_on(response, why):
    world = World(auto_commit=False)
    bind, session = world.bind(), world.session()
    world.submit(session, 9)
    world.relay.from_operator(bind, [response])
    assert session.connection.take() == [resequence(response, 9)], why
    assert world.store.recent("acme", b"id1") is None


@pytest.mark.parametrize(
    ("track", "registered", "tracked"),
    [("all", 0, True), ("requested", 0, False), ("requested", 1, True), ("requested", 0x10, True)],
)
def test_what_is_tracked(track, registered, tracked):
    world = World(track=track)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1", registered_delivery=registered)
    assert (world.store.recent("acme", b"id1") is not None) is tracked


def test_a_body_cut_short_is_passed_on_and_still_tracked():
    world = World(track="requested")
    bind, session = world.bind(), world.session()
    for cut in range(16, len(submit_sm(1))):
        frame = submit_sm(1)[16:cut]
        world.relay.from_gateway(session, [pack(c.SUBMIT_SM, 0, 1, frame)])
        [sent] = bind.connection.take()
        world.relay.from_operator(bind, [submit_sm_resp(sequence_of(sent), b"id%d" % cut)])
        assert session.connection.take() == [submit_sm_resp(1, b"id%d" % cut)]


def test_one_id_of_a_submit_multi_is_tracked_for_all_its_destinations():
    world = World()
    bind, session = world.bind(), world.session()
    world.relay.from_gateway(session, [pack(c.SUBMIT_MULTI, 0, 1, b"\0\1\1SHOP\0\2rest")])
    world.relay.from_operator(bind, [pack(c.SUBMIT_MULTI_RESP, 0, 1, b"m1\0\0")])
    assert world.store.recent("acme", b"m1").destination == MANY


def test_unknown_commands_pass_both_ways():
    world = World()
    bind, session = world.bind(), world.session()
    vendor = pack(0x00010201, 3, 77, b"anything")
    world.relay.from_gateway(session, [vendor])
    assert bind.connection.take() == [resequence(vendor, 1)]
    answer = pack(0x80010201, 0, 1, b"back")
    world.relay.from_operator(bind, [answer])
    assert session.connection.take() == [resequence(answer, 77)]


def test_a_response_to_nothing_is_counted_and_dropped():
    world = World()
    bind, session = world.bind(), world.session()
    world.relay.from_operator(bind, [submit_sm_resp(9, b"id9")])
    world.relay.from_gateway(session, [deliver_sm_resp(9)])
    assert world.counters.response_unknown == 2
    assert session.connection.take() == bind.connection.take() == []


def test_the_open_message_of_a_session_that_is_gone_is_kept():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 1)
    world.relay.lost(session)
    world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
    assert world.store.recent("acme", b"id1").owner == "gw1"
    assert world.counters.response_session_gone == 1


# Room, pace, refusals


def test_mt_beyond_the_window_wait_and_go_as_responses_come():
    world = World(window=2)
    bind, session = world.bind(), world.session()
    frames = world.submit(session, 1, 2, 3, 4)
    assert [sequence_of(f) for f in bind.connection.take()] == [1, 2]
    world.relay.from_operator(bind, [submit_sm_resp(2, b"b")])
    assert bind.connection.take() == [resequence(frames[2], 3)]


def test_mt_spread_over_binds_with_room():
    world = World(window=2)
    binds, session = [world.bind("1"), world.bind("2")], world.session()
    world.submit(session, 1, 2, 3, 4)
    assert [len(b.connection.take()) for b in binds] == [2, 2]


def test_a_receiver_bind_gets_no_mt():
    world = World()
    receiver = world.bind("rx", c.BIND_RECEIVER_RESP)
    session = world.session()
    world.submit(session, 1)
    assert heads(session.connection.take()) == [("submit_sm_resp", c.ESME_RSYSERR, 1)]
    assert receiver.connection.take() == []


def test_a_bind_that_does_not_read_gets_no_more_mt():
    world = World()
    bind, session = world.bind(), world.session()
    bind.connection.congested = True
    world.submit(session, 1)
    assert bind.connection.take() == []
    bind.connection.congested = False
    world.tick(0.25)
    assert len(bind.connection.take()) == 1


def test_mt_that_waited_are_refused_once_the_store_takes_nothing():
    world = World(window=1)
    bind, session = world.bind(), world.session()
    world.submit(session, 1, 2)
    world.relay.from_gateway(session, [pack(c.QUERY_SM, 0, 3, b"id\0\0\0\0")])
    [first] = bind.connection.take()
    world.store.accepting = False
    world.relay.from_operator(bind, [submit_sm_resp(sequence_of(first), status=c.ESME_RINVDSTADR)])
    assert heads(session.connection.take()) == [
        ("submit_sm_resp", c.ESME_RINVDSTADR, 1),
        ("submit_sm_resp", c.ESME_RMSGQFUL, 2),
    ]
    assert heads(bind.connection.take()) == [("query_sm", 0, 2)]
    assert world.counters.refused_store == 1


class Reluctant(Wire):
    """The peer reads nothing."""

    unread = 0

    def send(self, data: bytes) -> None:
        super().send(data)
        self.unread += len(data)
        self.congested = self.unread > HIGH_WATER


def test_mt_that_waited_do_not_go_to_a_bind_that_does_not_read():
    world = World(window=1_000, no_bind="status")
    bind, session = world.bind(), world.session()
    bind.connection = Reluctant()
    bind.connection.congested = True
    world.submit(session, *range(1, 301), short_message=b"", tlvs=((c.TLV_MESSAGE_PAYLOAD, bytes(20_000)),))
    assert bind.connection.sent == []
    bind.connection.congested = False
    world.tick(0.25)
    assert HIGH_WATER < bind.connection.unread < 2 * HIGH_WATER
    bind.connection.unread, bind.connection.congested = 0, False
    sent = len(bind.connection.sent)
    world.tick(0.25)
    assert len(bind.connection.sent) == 2 * sent


def test_mt_that_wait_too_long_for_room_are_told_that_we_are_busy():
    world = World(window=1)
    _, session = world.bind(), world.session()
    world.submit(session, 1, 2)
    world.tick(5)
    assert heads(session.connection.take()) == [("submit_sm_resp", c.ESME_RTHROTTLED, 2)]
    assert world.counters.refused_busy == 1


def test_the_queue_of_waiting_mt_is_bounded():
    world = World(window=1, busy_status=c.ESME_RMSGQFUL)
    _, session = world.bind(), world.session()
    world.submit(session, *range(1, MAX_QUEUED + 3))
    assert heads(session.connection.take()) == [("submit_sm_resp", c.ESME_RMSGQFUL, MAX_QUEUED + 2)]


def test_a_gateway_that_floods_keeps_no_other_waiting():
    world = World(window=1)
    bind, flooding, other = world.bind(), world.session("gw1"), world.session("gw2")
    world.submit(flooding, *range(1, MAX_QUEUED + 3), source=b"FLOOD")
    world.submit(other, 1, 2, source=b"OTHER")
    assert other.connection.take() == []
    sources = []
    for _ in range(5):
        [request] = bind.connection.take()
        sources.append(b"OTHER" in request)
        world.relay.from_operator(bind, [submit_sm_resp(sequence_of(request), b"id")])
    assert sources == [False, False, True, False, True]
    world.relay.lost(flooding)
    world.tick(5)
    assert [status_of(frame) for frame in other.connection.take()] == [c.ESME_ROK, c.ESME_ROK]


def test_max_per_s_paces_mt():
    world = World(window=100, max_per_s=10.0)
    bind, session = world.bind(), world.session()
    world.submit(session, *range(1, 31))
    sent = [len(bind.connection.take())]
    for _ in range(10):
        world.tick(0.1)
        sent.append(len(bind.connection.take()))
    assert sent == [1] * 11


@pytest.mark.parametrize(
    ("prepare", "status", "counter"),
    [
        (lambda world: None, c.ESME_RSYSERR, "refused_no_bind"),
        (lambda world: (world.bind(), setattr(world.relay, "draining", True)), c.ESME_RTHROTTLED, "refused_draining"),
        (lambda world: (world.bind(), setattr(world.store, "accepting", False)), c.ESME_RMSGQFUL, "refused_store"),
    ],
)
def test_refusals_have_a_status_and_a_name(prepare, status, counter):
    world = World()
    prepare(world)
    session = world.session()
    world.submit(session, 3)
    assert session.connection.take() == [pack(c.SUBMIT_SM_RESP, status, 3)]
    assert getattr(world.counters, counter) == 1


def test_what_an_mt_is_answered_without_a_bind_is_a_setting():
    world = World(no_bind_status=c.ESME_RMSGQFUL)
    session = world.session()
    world.submit(session, 5)
    assert heads(session.connection.take()) == [("submit_sm_resp", c.ESME_RMSGQFUL, 5)]


def test_no_bind_may_close_the_session_instead():
    world = World(no_bind="close")
    session = world.session()
    world.submit(session, 3, 4)  # all are answered before the goodbye
    assert [command_of(f) for f in session.connection.take()] == [c.SUBMIT_SM_RESP, c.SUBMIT_SM_RESP, c.UNBIND]
    assert session.connection.ended == "no_operator_bind"


def test_the_last_bind_lost_may_close_the_sessions():
    world = World(no_bind="close")
    bind, session = world.bind(), world.session()
    world.relay.lost(bind)
    assert session.connection.ended == "no_operator_bind"


@pytest.mark.parametrize("lost", ["before the MT", "with the MT in the queue"])
def test_a_drained_node_keeps_the_sessions_that_custody_delivers_to(lost):
    world = World(no_bind="close", window=1)
    bind, session = world.bind(), world.session()
    if lost == "before the MT":
        world.relay.draining = True
        world.relay.lost(bind)
        world.submit(session, 2)
    else:
        world.submit(session, 1, 2)
        world.relay.draining = True
        world.relay.lost(bind)
    assert heads(session.connection.take())[-1] == ("submit_sm_resp", c.ESME_RTHROTTLED, 2)
    assert session.connection.ended is None
    assert (world.counters.refused_draining, world.counters.refused_no_bind) == (1, 0)


def test_mt_of_a_lost_bind_are_answered_with_a_temporary_status():
    world = World(window=1)
    bind, session = world.bind(), world.session()
    world.submit(session, 1, 2)
    world.relay.lost(bind)
    assert heads(session.connection.take()) == [("submit_sm_resp", 8, 1), ("submit_sm_resp", 8, 2)]
    assert (world.counters.unanswered_link_lost, world.counters.refused_no_bind) == (1, 1)


def test_mt_unanswered_for_response_s_are_answered_and_free_the_window():
    world = World(window=1, response_s=4, enquire_link_s=100)
    bind, session = world.bind(), world.session()
    world.submit(session, 1)
    world.tick(3)
    world.submit(session, 2)
    assert session.connection.take() == []
    bind.connection.take()
    world.tick(1)
    assert heads(session.connection.take()) == [("submit_sm_resp", 8, 1)]
    assert heads(bind.connection.take()) == [("submit_sm", 0, 2)]
    world.relay.from_operator(bind, [submit_sm_resp(1, b"late")])
    assert (world.counters.unanswered_in_time, world.counters.response_unknown) == (1, 1)


def test_a_receiver_session_may_not_submit():
    world = World()
    world.bind()
    session = world.session(command=c.BIND_RECEIVER_RESP)
    world.submit(session, 4)
    assert session.connection.take() == [pack(c.SUBMIT_SM_RESP, c.ESME_RINVBNDSTS, 4)]


def test_a_second_bind_on_a_session_is_refused():
    world = World()
    session = world.session()
    world.relay.from_gateway(session, [pack(c.BIND_TRANSCEIVER, 0, 2, b"shop\0secret\0\0\x34\0\0\0")])
    assert session.connection.take() == [pack(c.BIND_TRANSCEIVER_RESP, c.ESME_RALYBND, 2)]


def test_enquire_link_and_unbind_are_answered_on_both_sides():
    world = World()
    bind, session = world.bind(), world.session()
    for receive, link in ((world.relay.from_gateway, session), (world.relay.from_operator, bind)):
        receive(link, [pack(c.ENQUIRE_LINK, 0, 5), pack(c.UNBIND, 0, 6)])
        assert link.connection.take() == [pack(c.ENQUIRE_LINK_RESP, 0, 5), pack(c.UNBIND_RESP, 0, 6)]
        assert link.connection.ended == "unbound_by_peer"


def test_a_silent_peer_is_asked_and_then_given_up():
    world = World()
    bind = world.bind()
    world.tick(30)
    assert heads(bind.connection.take()) == [("enquire_link", 0, 1)]
    world.tick(10)
    assert bind.connection.ended == "enquire_link_unanswered"


# Reports


def passed(world, session, bind):
    """The one report that was passed to the session, answered ESME_ROK; what the operator was answered."""
    [frame] = session.connection.take()
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])
    return bind.connection.take()


def test_a_report_goes_to_its_session_and_the_answer_back():
    world = World()
    bind, session = world.bind(), world.session()
    world.session()
    world.open(session, bind, b"id1")
    report = receipt(0xFFFFFFFF, b"id1")
    world.relay.from_operator(bind, [report])
    [frame] = session.connection.take()
    assert frame == resequence(report, 1)
    answer = deliver_sm_resp(1)
    world.relay.from_gateway(session, [answer])
    assert bind.connection.take() == [resequence(answer, 0xFFFFFFFF)]
    assert world.counters.answered_ok == 1


def test_a_final_report_leaves_a_grace_period_and_an_intermediate_one_nothing():
    world = World(final_grace_s=60)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(1, b"id1", b"ENROUTE")])
    passed(world, session, bind)
    assert world.store.recent("acme", b"id1").final_at == 0
    world.relay.from_operator(bind, [receipt(2, b"id1")])
    passed(world, session, bind)
    message = world.store.recent("acme", b"id1")
    assert (message.final_at, message.expires_at) == (world.now, world.now + 60)


def test_an_intermediate_report_after_the_final_one_is_answered_and_not_delivered():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(1, b"id1"), receipt(2, b"id1", b"ENROUTE")])
    assert passed(world, session, bind) == [deliver_sm_resp(1), deliver_sm_resp(2)]
    assert session.connection.take() == []
    assert world.counters.late_intermediate == 1


def test_a_second_final_report_is_delivered():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    for sequence in (1, 2):
        world.relay.from_operator(bind, [receipt(sequence, b"id1")])
        assert passed(world, session, bind) == [deliver_sm_resp(sequence)]


def test_reports_of_one_message_go_one_after_the_other():
    world = World()
    binds, session = [world.bind("1"), world.bind("2")], world.session()
    world.open(session, binds[0], b"id1")
    world.relay.from_operator(binds[0], [receipt(1, b"id1", b"ENROUTE")])
    world.relay.from_operator(binds[1], [receipt(1, b"id1", b"DELIVRD")])
    [first] = session.connection.take()
    assert b"ENROUTE" in first
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(first))])
    [second] = session.connection.take()
    assert b"DELIVRD" in second
    assert world.counters.queued_behind == 1


def test_a_report_waits_for_all_responses_with_its_id():
    """Some operators answer several MT with one id; these are in two groups of the store."""
    world = World()
    groups = []
    world.store.after_opened = groups.append
    bind, session = world.bind(), world.session()
    world.submit(session, 5, 6)
    world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
    world.store.group += 1
    world.relay.from_operator(bind, [submit_sm_resp(2, b"id1"), receipt(9, b"id1")])
    assert world.relay.in_flight == 3  # two responses and the report
    groups[0]()
    assert [command_of(f) for f in session.connection.take()] == [c.SUBMIT_SM_RESP]
    groups[1]()
    assert [command_of(f) for f in session.connection.take()] == [c.SUBMIT_SM_RESP, c.DELIVER_SM]
    assert world.relay.in_flight == 1


def test_a_report_before_its_response_waits_for_it():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 5)
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    assert session.connection.take() == []


async def test_the_race_ends_with_the_response():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 5)
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    await world.look_up()
    assert (world.counters.race_held, world.custody.accepted) == (1, [])
    world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
    await world.look_up()
    assert [command_of(f) for f in session.connection.take()] == [c.SUBMIT_SM_RESP, c.DELIVER_SM]
    assert world.counters.race_resolved == 1


async def test_a_response_while_the_store_is_read_is_not_missed():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 5)
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    find = world.store.find

    async def find_and_then_hear(lookups):
        found = await find(lookups)
        world.store.find = find
        world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
        return found

    world.store.find = find_and_then_hear
    await world.look_up()
    assert [command_of(f) for f in session.connection.take()] == [c.SUBMIT_SM_RESP, c.DELIVER_SM]
    assert world.custody.accepted == []


async def test_the_race_ends_when_what_was_outstanding_is_answered():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 5)
    world.relay.from_operator(bind, [receipt(1, b"other")])
    await world.look_up()
    world.submit(session, 6)  # came later: not waited for
    world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
    await world.look_up()
    assert [a.message_id for a in world.custody.accepted] == [b"other"]


async def test_the_race_ends_after_race_window_s():
    world = World(race_window_s=1.0)
    bind, session = world.bind(), world.session()
    world.submit(session, 5)
    world.relay.from_operator(bind, [receipt(1, b"other")])
    await world.look_up()
    world.tick(0.9)
    await world.look_up()
    assert world.custody.accepted == []
    world.tick(0.1)
    await world.look_up()
    assert [a.message_id for a in world.custody.accepted] == [b"other"]


async def test_the_race_ends_when_the_bind_is_lost():
    world = World()
    one, two, session = world.bind("1"), world.bind("2", c.BIND_RECEIVER_RESP), world.session()
    world.submit(session, 5)
    world.relay.from_operator(two, [receipt(1, b"other")])
    await world.look_up()
    world.relay.lost(one)
    await world.look_up()
    assert [a.message_id for a in world.custody.accepted] == [b"other"]


async def test_a_report_from_disk_is_found():
    world = World(rule=Rule.HEX_DECIMAL)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"1a")
    world.relay.from_operator(bind, [receipt(1, b"26")])
    await world.look_up()
    assert passed(world, session, bind) == [deliver_sm_resp(1)]


async def test_an_inexact_hit_without_a_rule_asks_the_ring_first():
    world = World(rule=None)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"1a")
    world.relay.from_operator(bind, [receipt(1, b"26")])
    await world.look_up()
    [accepted] = world.custody.accepted
    assert accepted.owner is None
    assert world.counters.inexact == 1
    assert world.learner.evidence == {Rule.HEX_DECIMAL: 1}


async def test_a_miss_is_answered_when_custody_has_it_on_disk():
    world = World()
    bind = world.bind()
    world.session()
    report = receipt(9, b"nobody")
    world.relay.from_operator(bind, [report])
    await world.look_up()
    [accepted] = world.custody.accepted
    assert (accepted.kind, accepted.message_id, accepted.pdu) == ("dlr", b"nobody", report)
    assert (accepted.destination, accepted.final, accepted.owner) == (b"447700900001", True, None)
    assert len(accepted.trace) == 16
    assert bind.connection.take() == []
    world.custody.answer()
    assert bind.connection.take() == [deliver_sm_resp(9)]


async def test_what_custody_refuses_the_operator_is_asked_to_send_again():
    world = World(retry_status=c.ESME_RSYSERR)
    bind = world.bind()
    world.relay.from_operator(bind, [receipt(9, b"nobody")])
    await world.look_up()
    world.custody.answer(durable=False)
    assert bind.connection.take() == [deliver_sm_resp(9, c.ESME_RSYSERR)]
    assert world.counters.refused_custody == 1


async def test_a_store_that_cannot_be_read_means_again_later():
    world = World()
    bind = world.bind()

    async def broken(lookups):
        raise StoreError("gone")

    world.store.find = broken
    world.relay.from_operator(bind, [receipt(9, b"x")])
    await world.look_up()
    assert bind.connection.take() == [deliver_sm_resp(9, c.ESME_RTHROTTLED)]
    assert world.relay.in_flight == 0


async def test_a_matched_report_queues_behind_custody_of_its_message():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.custody.held.add(("acme", b"id1"))
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    [accepted] = world.custody.accepted
    assert accepted.owner == "gw1"
    assert session.connection.take() == []


async def test_observe_passes_a_miss_to_the_local_gateway():
    world = World(observe=True)
    bind, session = world.bind(), world.session("gw2")
    world.relay.from_operator(bind, [receipt(1, b"nobody")])
    await world.look_up()
    assert passed(world, session, bind) == [deliver_sm_resp(1)]
    assert (world.counters.missed, world.custody.accepted) == (1, [])


async def test_observe_without_a_gateway_keeps_the_miss_for_it():
    world = World(observe=True)
    bind = world.bind()
    world.relay.from_operator(bind, [receipt(1, b"nobody")])
    await world.look_up()
    assert world.custody.accepted[0].owner == "gw1"


NO_ID = pack(c.DELIVER_SM, 0, 1, b"\0\1\x014477\0\0\0SHOP\0\x04\0\0\0\0\0\0\0\0\x03abc")


def test_a_report_without_an_id_goes_to_the_local_gateway():
    world = World()
    bind, session = world.bind(), world.session()
    world.relay.from_operator(bind, [NO_ID])
    assert passed(world, session, bind) == [deliver_sm_resp(1)]
    assert world.counters.no_id == 1


def test_a_report_without_an_id_and_without_a_gateway_is_kept():
    world = World()
    world.relay.from_operator(world.bind(), [NO_ID])
    assert (world.custody.accepted[0].message_id, world.custody.accepted[0].owner) == (b"", None)


# What the gateway answers


@pytest.mark.parametrize("status", [c.ESME_RX_P_APPN, c.ESME_RX_R_APPN, c.ESME_RINVMSGLEN, 0x00000400])
def test_a_permanent_error_is_the_operators_to_know(status):
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(8, b"id1")])
    world.relay.from_gateway(session, [pack(c.DELIVER_SM_RESP, status, 1, b"why\0")])
    assert bind.connection.take() == [pack(c.DELIVER_SM_RESP, status, 8, b"why\0")]
    assert world.store.recent("acme", b"id1").final_at == 0


@pytest.mark.parametrize("status", sorted(c.TEMPORARY))
def test_a_temporary_error_is_custodys(status):
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(8, b"id1")])
    world.relay.from_gateway(session, [deliver_sm_resp(1, status)])
    [accepted] = world.custody.accepted
    assert (accepted.owner, accepted.session) == ("gw1", None)
    assert bind.connection.take() == []
    world.custody.answer()
    assert bind.connection.take() == [deliver_sm_resp(8)]


def test_a_temporary_error_may_be_the_operators_instead():
    world = World(on_temporary_error="retry_status")
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(8, b"id1")])
    world.relay.from_gateway(session, [deliver_sm_resp(1, c.ESME_RX_T_APPN)])
    assert bind.connection.take() == [deliver_sm_resp(8, c.ESME_RTHROTTLED)]
    assert world.custody.accepted == []


def silent_gateway(**settings):
    world = World(gateway_answer_s=3, **settings)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(8, b"id1")])
    world.tick(3)
    return world, bind, session


def test_no_answer_in_time_is_custodys_and_a_late_one_settles():
    world, bind, session = silent_gateway()
    [accepted] = world.custody.accepted
    assert (accepted.owner, accepted.session) == ("gw1", session.token)
    world.tick(3)
    assert len(world.custody.accepted) == 1
    world.custody.answer()
    assert bind.connection.take() == [deliver_sm_resp(8)]
    world.relay.from_gateway(session, [deliver_sm_resp(1)])
    assert world.custody.late == [(accepted.trace, c.ESME_ROK)]
    assert bind.connection.take() == []


def test_a_late_answer_before_custody_is_durable_is_told_afterwards():
    world, bind, session = silent_gateway()
    world.relay.from_gateway(session, [deliver_sm_resp(1)])
    assert world.custody.late == []
    world.custody.answer()
    assert world.custody.late == [(world.custody.accepted[0].trace, c.ESME_ROK)]
    assert bind.connection.take() == [deliver_sm_resp(8)]


def test_what_the_gateway_took_while_custody_refused_it_is_answered_well():
    world, bind, session = silent_gateway()
    world.relay.from_gateway(session, [deliver_sm_resp(1)])
    world.custody.answer(durable=False)
    assert bind.connection.take() == [deliver_sm_resp(8)]
    assert world.relay.in_flight == 0


def test_custody_hears_of_the_end_of_the_session_that_never_answered():
    world, _, session = silent_gateway()
    world.custody.answer()
    world.relay.lost(session)
    assert world.custody.late == [(world.custody.accepted[0].trace, None)]


def test_a_late_answer_after_a_retry_status_closes_the_message():
    world, bind, session = silent_gateway(on_temporary_error="retry_status")
    assert bind.connection.take() == [deliver_sm_resp(8, c.ESME_RTHROTTLED)]
    world.relay.from_gateway(session, [deliver_sm_resp(1)])
    assert world.store.recent("acme", b"id1").final_at == world.now
    assert world.custody.late == []


def test_a_gateway_that_never_answers_is_disconnected():
    world, _, session = silent_gateway(response_s=60)
    session.timers.heard_at += 1000
    world.tick(57)
    assert session.connection.ended == "unresponsive_gateway"
    assert world.counters.unresponsive_gateway == 1


def test_a_lost_session_leaves_its_reports_to_custody():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(8, b"id1")])
    world.relay.lost(session)
    [accepted] = world.custody.accepted
    assert (accepted.owner, accepted.session) == ("gw1", None)
    assert world.custody.bound == []


def test_without_a_session_a_matched_report_is_custodys():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.lost(session)
    other = world.session("gw2")
    world.relay.from_operator(bind, [receipt(8, b"id1")])
    assert world.custody.accepted[0].owner == "gw1"
    assert other.connection.take() == []


def test_a_full_window_to_the_gateway_is_custodys():
    world = World(gateway_window=1)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.open(session, bind, b"id2")
    world.relay.from_operator(bind, [receipt(1, b"id1"), receipt(2, b"id2")])
    assert len(session.connection.take()) == 1
    assert [a.message_id for a in world.custody.accepted] == [b"id2"]


def test_a_lost_bind_takes_what_nobody_has_yet_with_it():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(1, b"id1", b"ENROUTE"), receipt(2, b"id1")])
    world.relay.lost(bind)
    [frame] = session.connection.take()
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])
    assert session.connection.take() == []
    assert (world.counters.answer_bind_gone, world.counters.abandoned) == (1, 1)
    assert world.relay.in_flight == 0


def test_a_lost_bind_and_a_temporary_error_leave_it_to_the_operator():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    world.relay.lost(bind)
    world.relay.from_gateway(session, [deliver_sm_resp(1, c.ESME_RX_T_APPN)])
    assert world.custody.accepted == []


@pytest.mark.parametrize("message_id", [b"id1", b"nobody"])
async def test_what_is_looked_for_when_its_bind_is_lost_is_left_to_the_operator(message_id):
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.store.recent = lambda operator, message_id: None  # only the disk knows
    world.relay.from_operator(bind, [receipt(1, message_id)])
    world.relay.lost(bind)
    await world.look_up()
    assert (session.connection.take(), world.custody.accepted) == ([], [])
    assert (world.counters.abandoned, world.relay.in_flight) == (1, 0)


async def test_everybody_who_waits_for_the_end_of_traffic_hears_of_it():
    world = World()
    bind, session = world.bind(), world.session()
    world.submit(session, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.relay.settled)
        nursery.start_soon(world.relay.settled)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(100):
            world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
            await trio.testing.wait_all_tasks_blocked()
    assert world.relay.in_flight == 0


def test_many_reports_of_one_message_do_not_nest():
    world = World()
    world.custody.at_once = True
    world.custody.held.add(("acme", b"id1"))
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(n, b"id1") for n in range(1, 3001)])
    assert len(bind.connection.take()) == 3000


def test_what_is_not_placed_in_time_is_answered():
    world = World(operator_answer_s=8)
    bind = world.bind()
    world.relay.from_operator(bind, [receipt(1, b"x"), receipt(2, b"x")])  # nobody looks
    world.tick(8)
    assert bind.connection.take() == [deliver_sm_resp(n, c.ESME_RTHROTTLED) for n in (1, 2)]
    assert (world.counters.refused_slow, world.relay.in_flight) == (2, 0)


# Sessions


def test_a_report_goes_to_another_session_when_its_own_is_gone():
    world = World()
    bind, session, other = world.bind(), world.session(), world.session()
    world.open(session, bind, b"id1")
    world.relay.lost(session)
    world.now += 1
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    assert len(other.connection.take()) == 1


def test_a_report_of_a_transmitter_session_follows_its_response_after_the_delay():
    world = World(receipt_delay_ms=50)
    bind = world.bind()
    sender, receiver = world.session(command=c.BIND_TRANSMITTER_RESP), world.session(command=c.BIND_RECEIVER_RESP)
    world.open(sender, bind, b"id1")
    world.relay.from_operator(bind, [receipt(1, b"id1", b"ENROUTE"), receipt(2, b"id1")])
    assert receiver.connection.take() == []
    world.tick(0.04)
    assert receiver.connection.take() == []
    world.tick(0.02)
    [frame] = receiver.connection.take()
    assert b"ENROUTE" in frame
    world.relay.from_gateway(receiver, [deliver_sm_resp(sequence_of(frame))])
    assert len(receiver.connection.take()) == 1
    assert world.counters.delayed == 1


def test_long_after_its_response_a_report_is_not_delayed():
    world = World(receipt_delay_ms=50)
    bind = world.bind()
    sender, receiver = world.session(command=c.BIND_TRANSMITTER_RESP), world.session(command=c.BIND_RECEIVER_RESP)
    world.open(sender, bind, b"id1")
    world.now += 0.06
    world.open(sender, bind, b"id2", sequence=2)
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    assert len(receiver.connection.take()) == 1


# MO and everything else


def test_an_mo_goes_to_the_local_gateway_and_its_answer_back():
    world = World()
    bind, session = world.bind(), world.session("gw2")
    world.relay.from_operator(bind, [mo(4)])
    assert passed(world, session, bind) == [deliver_sm_resp(4)]
    assert world.counters.mo == 1


def test_an_mo_without_a_gateway_is_custodys():
    world = World()
    bind = world.bind()
    world.session(command=c.BIND_TRANSMITTER_RESP)
    world.relay.from_operator(bind, [mo(4)])
    [accepted] = world.custody.accepted
    assert (accepted.kind, accepted.owner, accepted.destination) == ("mo", None, b"7000")


def test_an_mo_that_the_gateway_cannot_take_now_is_kept_for_it():
    world = World()
    bind, session = world.bind(), world.session("gw2")
    world.relay.from_operator(bind, [mo(4)])
    world.relay.from_gateway(session, [deliver_sm_resp(1, c.ESME_RMSGQFUL)])
    assert (world.custody.accepted[0].kind, world.custody.accepted[0].owner) == ("mo", "gw2")


def test_a_data_sm_report_is_answered_as_data_sm():
    world = World()
    bind = world.bind()
    tlvs = b"\x00\x1e\x00\x04id1\0\x04\x27\x00\x01\x02"
    world.relay.from_operator(bind, [pack(c.DATA_SM, 0, 3, b"\0\1\x014477\0\0\0SHOP\0\x04\0\0" + tlvs)])
    assert world.counters.reports == 1
    world.tick(8)
    assert bind.connection.take() == [pack(c.DATA_SM_RESP, c.ESME_RTHROTTLED, 3, b"\0")]


def test_other_requests_of_the_operator_are_answered_by_a_gateway():
    world = World()
    bind, session = world.bind(), world.session()
    vendor = pack(0x00010300, 0, 11, b"x")
    world.relay.from_operator(bind, [vendor, pack(c.ALERT_NOTIFICATION, 0, 12, b"y")])
    frames = session.connection.take()
    assert frames[0] == resequence(vendor, 1)
    assert [command_of(f) for f in frames] == [0x00010300, c.ALERT_NOTIFICATION]
    world.relay.from_gateway(session, [pack(0x80010300, 5, 1)])
    assert bind.connection.take() == [pack(0x80010300, 5, 11)]


def test_other_requests_without_a_gateway_are_refused():
    world = World()
    bind = world.bind()
    world.relay.from_operator(bind, [pack(0x00010300, 0, 11), pack(c.ALERT_NOTIFICATION, 0, 12)])
    assert bind.connection.take() == [pack(0x80010300, c.ESME_RX_T_APPN, 11)]
    assert world.counters.others_refused == 2


# Custody's deliveries


def test_custody_delivers_to_the_submitting_session_and_hears_the_answer():
    world = World()
    bind, session, other = world.bind(), world.session(), world.session()
    world.open(other, bind, b"id1")
    heard: list[int | None] = []
    assert world.deliver("gw1", b"id1", receipt(77, b"id1"), heard.append)
    assert session.connection.take() == []
    [frame] = other.connection.take()
    assert sequence_of(frame) == 1
    world.tick(4)
    world.relay.from_gateway(other, [deliver_sm_resp(1, c.ESME_RX_T_APPN)])
    assert heard == [c.ESME_RX_T_APPN]


def test_custody_hears_none_when_the_session_ends():
    world = World()
    session = world.session()
    heard: list[int | None] = []
    assert world.deliver("gw1", b"", mo(1), heard.append)
    world.relay.lost(session)
    assert heard == [None]


def test_custody_cannot_deliver_without_a_session_with_room():
    world = World(gateway_window=1)
    assert not world.deliver("gw1", b"", mo(1), lambda status: None)
    world.session()
    assert world.deliver("gw1", b"", mo(1), lambda status: None)
    assert not world.deliver("gw1", b"", mo(1), lambda status: None)


def test_custody_does_not_overtake_the_response():
    world = World(auto_commit=False)
    bind, session = world.bind(), world.session()
    world.submit(session, 5)
    world.relay.from_operator(bind, [submit_sm_resp(1, b"id1")])
    assert world.deliver("gw1", b"id1", receipt(1, b"id1"), lambda status: None)
    assert session.connection.take() == []
    world.store.commit()
    assert [command_of(f) for f in session.connection.take()] == [c.SUBMIT_SM_RESP, c.DELIVER_SM]


def test_custody_does_not_overtake_a_response_whose_id_is_written_otherwise():
    world = World(auto_commit=False, rule=Rule.HEX_DECIMAL)
    bind, session = world.bind(), world.session()
    world.submit(session, 5, 6)
    world.relay.from_operator(bind, [submit_sm_resp(1, b"1a"), submit_sm_resp(2, b"ff")])
    assert world.relay.hand_over.deliver("gw1", b"26", receipt(1, b"26"), lambda status: None)
    world.relay.wrap_up()
    assert session.connection.take() == []
    world.store.commit()
    assert [command_of(f) for f in session.connection.take()] == [c.SUBMIT_SM_RESP, c.SUBMIT_SM_RESP, c.DELIVER_SM]


def test_what_custody_delivers_follows_its_response_on_another_session_after_the_delay():
    world = World(receipt_delay_ms=50)
    bind = world.bind()
    sender, receiver = world.session(command=c.BIND_TRANSMITTER_RESP), world.session(command=c.BIND_RECEIVER_RESP)
    world.open(sender, bind, b"1a")
    for message_id in (b"1a", b"26"):
        assert world.relay.hand_over.deliver("gw1", message_id, receipt(1, message_id), lambda status: None)
    world.relay.wrap_up()
    assert receiver.connection.take() == []
    world.tick(0.06)
    assert len(receiver.connection.take()) == 2


def test_one_commit_releases_the_responses_of_many_batches_in_one_write():
    world = World(auto_commit=False)
    bind, session = world.bind(), world.session()
    world.submit(session, 1, 2, 3)
    for sequence in (1, 2, 3):
        world.relay.from_operator(bind, [submit_sm_resp(sequence, b"id%d" % sequence)])
    world.store.commit()
    assert len(session.connection.take()) == 3
    assert session.connection.writes == 1


def test_a_batch_after_a_commit_waits_for_the_next_one():
    world = World(auto_commit=False)
    bind, session = world.bind(), world.session()
    world.submit(session, 1, 2)
    for sequence in (1, 2):
        world.relay.from_operator(bind, [submit_sm_resp(sequence, b"id%d" % sequence)])
        assert session.connection.take() == []
        world.store.commit()
        assert session.connection.take() == [submit_sm_resp(sequence, b"id%d" % sequence)]


def test_custody_is_told_of_open_messages_only_while_it_watches():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.custody.watching = True
    world.open(session, bind, b"id2")
    assert world.custody.opened == [b"id2"]


def test_custody_is_told_of_gateways():
    world = World()
    transmitter = world.session("gw1", c.BIND_TRANSMITTER_RESP)
    assert world.custody.bound == []
    one, two = world.session("gw1"), world.session("gw1")
    assert world.custody.bound == world.relay.hand_over.bound_gateways() == ["gw1"]
    for session in (transmitter, one):
        world.relay.lost(session)
    assert world.custody.bound == ["gw1"]
    world.relay.lost(two)
    assert world.custody.bound == world.relay.hand_over.bound_gateways() == []


def test_nothing_is_left_behind():
    world = World()
    bind, session = world.bind(), world.session()
    for n in range(50):
        world.open(session, bind, b"id%d" % n, sequence=n)
        world.relay.from_operator(bind, [receipt(n, b"id%d" % n)])
        assert [status_of(f) for f in passed(world, session, bind)] == [0]
    assert world.relay.in_flight == 0
    assert not world.relay._arrivals._lines
    assert not world.relay._responses._following


def test_what_custody_delivers_is_in_flight_until_the_gateway_has_answered():
    world = World()
    session = world.session()
    heard = []
    assert world.deliver("gw1", b"", mo(1), heard.append)
    assert world.relay.in_flight == 1
    [frame] = session.connection.take()
    world.relay.hand_over.closing = True
    assert not world.deliver("gw1", b"", mo(2), heard.append)
    assert session.connection.take() == []
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])
    assert (world.relay.in_flight, heard) == (0, [c.ESME_ROK])


def test_what_custody_took_over_is_in_flight_while_the_session_may_answer():
    world = World(gateway_answer_s=1.0)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    [frame] = session.connection.take()
    world.tick(2.0)
    world.custody.answer()
    assert bind.connection.take() == [deliver_sm_resp(1)]
    assert world.relay.in_flight == 1
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])
    assert world.relay.in_flight == 0


def test_a_relay_that_ends_gives_back_what_custody_has_with_it():
    world = World(receipt_delay_ms=500)
    bind, first, second = world.bind(), world.session(), world.session()
    world.open(first, bind, b"id1")
    world.relay.lost(first)
    heard = []
    assert world.deliver("gw1", b"id1", receipt(77, b"id1"), heard.append)  # waits for receipt_delay_ms
    assert second.connection.take() == []
    world.relay.hand_over.end()
    assert (heard, world.relay.in_flight) == ([None], 0)
    world.relay.lost(second)
    world.tick(1.0)
    assert heard == [None]
