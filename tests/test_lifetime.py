"""How long an open message lives, and what its reports meet: while it is open, after a final one, and after its end."""

import json

import pytest
from relay_world import World, deliver_sm_resp, receipt, sequence_of, submit_sm, submit_sm_resp

from dlrproxy.clock import NodeClock
from dlrproxy.custody_port import Wanted
from dlrproxy.housekeeping import Housekeeping
from dlrproxy.log_sink import Sink
from dlrproxy.logs import RouteLog
from dlrproxy.reports.finals import KEPT_S, MAX_KEPT, Finals
from protocols.smpp import constants as c
from protocols.smpp.message_ids import NoMatch, Rule
from protocols.smpp.pdu import pack

HOUR, DAY = 3600, 86_400
NOW = 1_709_121_600.0  # 2024-02-28 12:00 UTC


def world_of(**settings):
    world = World(**settings)
    world.now = NOW
    return world, world.bind(), world.session()


def lifetime(world, message_id=b"id1"):
    return world.store.recent("acme", message_id).expires_at - NOW


async def answered(world, bind, session, *frames):
    """The operator sends reports, the gateway takes what reaches it; the reports' states and the operator's answers."""
    world.relay.from_operator(bind, list(frames))
    await world.look_up()
    states, answers = [], bind.connection.take()
    while passed := session.connection.take():
        for frame in passed:
            states.append(frame.partition(b"stat:")[2][:7])
            world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])
            await world.look_up()
        answers += bind.connection.take()
    return states, answers


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 7 * DAY),
        ({"validity_period": b"000000010000000R"}, 25 * HOUR),
        ({"validity_period": b"000002000000000R"}, 3 * DAY),
        ({"validity_period": b"240229120000000+"}, 2 * DAY),
        ({"validity_period": b"240229140000008+"}, 2 * DAY),  # two hours ahead of UTC
        ({"validity_period": b"000100000000000R"}, 30 * DAY),  # the cap
        ({"validity_period": b"240101000000000+"}, 1 * DAY),  # over already: the margin is left
        ({"validity_period": b"tomorrow"}, 7 * DAY),
        ({"validity_period": b"1234567890123456789"}, 7 * DAY),
        ({"schedule_time": b"000010000000000R"}, 17 * DAY),  # open when it is sent at last
        ({"schedule_time": b"240309120000000+", "validity_period": b"000001000000000R"}, 12 * DAY),
        ({"schedule_time": b"240101000000000+"}, 7 * DAY),
        ({"schedule_time": b"000128000000000R"}, 30 * DAY),
        ({"source": b"", "validity_period": b"000001000000000R"}, 2 * DAY),
    ],
)
def test_a_message_is_open_for_its_validity_and_a_margin(fields, expected):
    world, bind, session = world_of()
    world.open(session, bind, b"id1", **fields)
    assert lifetime(world) == expected


def test_default_margin_and_cap_are_settings():
    world, bind, session = world_of(open_message_days=2, open_message_margin_h=6, open_message_max_days=3)
    world.open(session, bind, b"id1")
    world.open(session, bind, b"id2", validity_period=b"000000060000000R")
    world.open(session, bind, b"id3", validity_period=b"000010000000000R")
    assert [lifetime(world, message_id) for message_id in (b"id1", b"id2", b"id3")] == [2 * DAY, 12 * HOUR, 3 * DAY]


def test_a_message_past_its_validity_is_open_for_a_minute():
    world, bind, session = world_of(open_message_margin_h=0)
    world.open(session, bind, b"id1", validity_period=b"200101000000000+")
    assert lifetime(world, b"id1") == 60


def test_an_mt_that_asks_for_no_report_is_not_tracked_whatever_its_validity():
    world, bind, session = world_of(track="requested")
    world.open(session, bind, b"id1", validity_period=b"000000010000000R", registered_delivery=0)
    world.open(session, bind, b"id2", validity_period=b"000000010000000R")
    assert world.store.recent("acme", b"id1") is None
    assert lifetime(world, b"id2") == 25 * HOUR


def test_a_body_cut_short_within_its_times_has_the_default():
    world, bind, session = world_of()
    whole = submit_sm(1, validity_period=b"000000010000000R")
    for cut in range(whole.index(b"447700900001") + 13, whole.index(b"00R") + 3):
        world.relay.from_gateway(session, [pack(c.SUBMIT_SM, 0, 1, whole[16:cut])])
        [sent] = bind.connection.take()
        world.relay.from_operator(bind, [submit_sm_resp(sequence_of(sent), b"id%d" % cut)])
        assert lifetime(world, b"id%d" % cut) == 7 * DAY


def test_a_data_sm_and_a_submit_multi_have_the_default():
    world, bind, session = world_of()
    requests = [
        pack(c.DATA_SM, 0, 1, b"\0\1\1SHOP\0\1\x01447700900001\0\0\1\0"),
        pack(c.SUBMIT_MULTI, 0, 2, b"\0\1\1SHOP\0\2rest"),
    ]
    world.relay.from_gateway(session, requests)
    world.relay.from_operator(bind, [pack(c.DATA_SM_RESP, 0, 1, b"d1\0"), pack(c.SUBMIT_MULTI_RESP, 0, 2, b"m1\0\0")])
    assert [lifetime(world, message_id) for message_id in (b"d1", b"m1")] == [7 * DAY] * 2


# After its end


@pytest.mark.parametrize(("rule", "reported"), [(Rule.EXACT, b"1a"), (Rule.HEX_DECIMAL, b"26")])
async def test_a_report_after_the_end_is_a_miss(rule, reported):
    world, bind, session = world_of(rule=rule)
    world.open(session, bind, b"1a", validity_period=b"000000010000000R")
    world.now += 25 * HOUR - 1
    assert await answered(world, bind, session, receipt(1, reported, b"ENROUTE")) == (
        [b"ENROUTE"],
        [deliver_sm_resp(1)],
    )
    world.now += 1
    assert await answered(world, bind, session, receipt(2, reported)) == ([], [])
    assert [accepted.message_id for accepted in world.custody.accepted] == [reported]
    assert world.counters.missed == 1


async def test_what_expires_is_counted_by_operator_and_named_where_that_is_wanted(tmp_path):
    world, bind, session = world_of()
    for number, validity in enumerate((b"000000010000000R", b"000000020000000R", b"000010000000000R")):
        world.open(session, bind, b"id%d" % number, validity_period=validity)
    assert await answered(world, bind, session, receipt(1, b"id1")) == ([b"DELIVRD"], [deliver_sm_resp(1)])
    clock = NodeClock(wall=lambda: NOW, monotonic=lambda: world.now - NOW)
    sink = Sink(tmp_path / "log")
    silent = Housekeeping(world.store, clock, RouteLog("n1", sink))
    loud = Housekeeping(world.store, clock, RouteLog("n1", sink), lambda: {"acme"})
    await loud.expire()
    world.now += 2 * DAY
    await loud.expire()  # id1 had its final report
    world.now += 10 * DAY
    await silent.expire()
    sink.close()
    assert (dict(loud.expired), dict(silent.expired)) == ({"acme": 1}, {"acme": 1})
    event = json.loads((tmp_path / "log").read_bytes())
    assert (event["event"], event["operator"], event["message_id"]) == ("dlr.expired", "acme", "id0")
    assert (event["gateway"], event["destination"]) == ("gw1", "4477******01")


async def test_after_months_the_newest_submission_has_the_id():
    world, bind, session = world_of()
    other = world.session("gw2")
    world.open(session, bind, b"id1")
    assert (await answered(world, bind, session, receipt(1, b"id1")))[0] == [b"DELIVRD"]
    world.now += 90 * DAY  # nothing has deleted the old record
    world.open(other, bind, b"id1")
    record = world.store.recent("acme", b"id1")
    assert (record.owner, record.final_at) == ("gw2", 0)
    assert (await answered(world, bind, other, receipt(2, b"id1", b"ENROUTE")))[0] == [b"ENROUTE"]
    assert session.connection.take() == []


async def test_an_id_in_use_that_comes_again_is_the_newest_submissions():
    world, bind, session = world_of()
    other = world.session("gw2")
    world.open(session, bind, b"id1")
    await answered(world, bind, session, receipt(1, b"id1"))
    world.now += HOUR / 2  # within the grace period of the first
    world.open(other, bind, b"id1")
    world.now += 1
    assert (await answered(world, bind, other, receipt(2, b"id1", b"ENROUTE"), receipt(3, b"id1")))[0] == [
        b"ENROUTE",
        b"DELIVRD",
    ]


# Several reports


async def test_several_reports_reach_the_gateway_in_their_order():
    world, bind, session = world_of()
    world.open(session, bind, b"id1")
    states = [b"ACCEPTD", b"ENROUTE", b"ENROUTE", b"UNKNOWN", b"DELIVRD"]
    reports = [receipt(number, b"id1", state) for number, state in enumerate(states, 1)]
    answers = [deliver_sm_resp(number) for number in range(1, 6)]
    assert await answered(world, bind, session, *reports) == (states, answers)


@pytest.mark.parametrize("second", [b"DELIVRD", b"UNDELIV"])
async def test_within_the_grace_period_a_final_report_is_delivered_again_and_after_it_a_miss(second):
    world, bind, session = world_of(final_grace_s=3600)
    world.open(session, bind, b"id1")
    assert (await answered(world, bind, session, receipt(1, b"id1")))[0] == [b"DELIVRD"]
    world.now += 3599
    assert await answered(world, bind, session, receipt(2, b"id1", second)) == ([second], [deliver_sm_resp(2)])
    world.now += 3600  # it has begun again with the second
    assert await answered(world, bind, session, receipt(3, b"id1", second)) == ([], [])
    assert world.counters.missed == 1


async def test_an_intermediate_report_within_the_grace_period_is_answered_and_goes_nowhere():
    world, bind, session = world_of(final_grace_s=3600)
    world.open(session, bind, b"id1")
    await answered(world, bind, session, receipt(1, b"id1"))
    world.now += 3599
    assert await answered(world, bind, session, receipt(2, b"id1", b"ENROUTE")) == ([], [deliver_sm_resp(2)])
    assert world.counters.late_intermediate == 1


# After a final report from custody, whose record is on the disk


def delivered_by_custody(world, session, report, message_id=b"id1"):
    assert world.deliver("gw1", message_id, report, lambda status: None)
    [frame] = session.connection.take()
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])


async def test_an_intermediate_report_right_after_a_final_one_from_custody_goes_nowhere():
    world, bind, session = world_of()
    world.open(session, bind, b"id1")
    delivered_by_custody(world, session, receipt(1, b"id1"))  # custody has not found its record yet
    assert await answered(world, bind, session, receipt(2, b"id1", b"ENROUTE")) == ([], [deliver_sm_resp(2)])
    assert (await answered(world, bind, session, receipt(3, b"id1")))[0] == [b"DELIVRD"]
    assert world.counters.late_intermediate == 1


async def test_so_it_is_while_something_else_of_the_message_is_in_custody():
    world, bind, session = world_of()
    world.open(session, bind, b"id1")
    delivered_by_custody(world, session, receipt(1, b"id1"))
    world.custody.held.add(("acme", b"id1"))
    assert await answered(world, bind, session, receipt(2, b"id1", b"ENROUTE")) == ([], [deliver_sm_resp(2)])


@pytest.mark.parametrize("report", [receipt(1, b"id1", b"ENROUTE"), receipt(1, b"id2")])
async def test_nothing_else_finishes_a_message(report):
    world, bind, session = world_of()
    world.open(session, bind, b"id1")
    delivered_by_custody(world, session, report, b"id2" if b"id2" in report else b"id1")
    assert (await answered(world, bind, session, receipt(2, b"id1", b"ENROUTE")))[0] == [b"ENROUTE"]


async def test_a_final_report_that_the_gateway_did_not_take_finishes_nothing():
    world, bind, session = world_of()
    world.open(session, bind, b"id1")
    assert world.deliver("gw1", b"id1", receipt(1, b"id1"), lambda status: None)
    session.connection.take()
    world.relay.from_gateway(session, [deliver_sm_resp(1, c.ESME_RX_P_APPN)])
    assert (await answered(world, bind, session, receipt(2, b"id1", b"ENROUTE")))[0] == [b"ENROUTE"]


async def test_a_message_submitted_since_is_another_one():
    world, bind, session = world_of()
    world.open(session, bind, b"id1")
    delivered_by_custody(world, session, receipt(1, b"id1"))
    world.now += 1
    world.open(session, bind, b"id1")
    assert (await answered(world, bind, session, receipt(2, b"id1", b"ENROUTE")))[0] == [b"ENROUTE"]


async def test_a_lookup_for_the_ring_that_had_begun_sees_that_the_message_is_finished():
    world, bind, session = world_of()
    world.open(session, bind, b"id1")
    find = world.store.find

    async def deliver_while_reading(lookups):
        found = await find(lookups)
        delivered_by_custody(world, session, receipt(1, b"id1"))
        return found

    world.store.find = deliver_while_reading
    [verdict, nothing] = await world.relay.hand_over.find_owners([Wanted(b"id1", b""), Wanted(b"id2", b"")])
    assert (verdict.record.message_id, verdict.record.final_at) == (b"id1", world.now)
    assert nothing == NoMatch()


async def test_a_late_answer_to_a_final_report_finishes_its_message_before_custody_has_it():
    world, bind, session = world_of(gateway_answer_s=3)
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(1, b"id1")])
    world.tick(3)
    world.relay.from_gateway(session, [deliver_sm_resp(1)])
    session.connection.take()
    assert world.store.recent("acme", b"id1").final_at == world.now
    world.custody.answer()
    assert await answered(world, bind, session, receipt(2, b"id1", b"ENROUTE")) == (
        [],
        [deliver_sm_resp(1), deliver_sm_resp(2)],
    )


def test_what_is_remembered_of_finals_is_bounded():
    finals = Finals()
    for number in range(MAX_KEPT + 10):
        finals.note(b"%d" % number, NOW)
    assert len(finals.at) == MAX_KEPT
    finals.note(b"0", NOW + KEPT_S + 1)
    assert list(finals.at) == [b"0"]
