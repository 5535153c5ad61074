"""An operator that lost a bind sends again what it was not answered for: delivered once is enough, nothing is lost."""

import pytest
from relay_world import World, deliver_sm_resp, mo, receipt, sequence_of

from dlrproxy.repeats import KEPT_S
from protocols.smpp import constants as c
from protocols.smpp.pdu import Message, pack


def world_of(**settings):
    world = World(**settings)
    one, two, session = world.bind("1"), world.bind("2"), world.session()
    world.open(session, one, b"id1")
    return world, one, two, session


def answer(world, session, status=0):
    """The gateway answers the one report that it was given."""
    [frame] = session.connection.take()
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame), status)])


def with_the_gateway(**settings):
    """A report was passed to the gateway, its bind was lost, and it comes again on the other one."""
    world, one, two, session = world_of(**settings)
    world.relay.from_operator(one, [receipt(7, b"id1")])
    world.relay.lost(one)
    world.relay.from_operator(two, [receipt(70, b"id1")])
    assert two.connection.take() == []
    return world, two, session


@pytest.mark.parametrize("status", [c.ESME_ROK, c.ESME_RX_P_APPN])
def test_while_the_gateway_has_it_the_repeat_gets_its_answer(status):
    world, two, session = with_the_gateway()
    answer(world, session, status)
    assert two.connection.take() == [deliver_sm_resp(70, status)]
    assert session.connection.take() == []
    assert (world.counters.repeated, world.relay.in_flight) == (1, 0)


def test_what_the_gateway_cannot_take_then_goes_to_custody_for_the_repeat():
    world, two, session = with_the_gateway()
    answer(world, session, c.ESME_RX_T_APPN)
    assert len(world.custody.accepted) == 1
    world.custody.answer()
    assert two.connection.take() == [deliver_sm_resp(70)]


def test_a_gateway_that_goes_leaves_it_to_custody_for_the_repeat():
    world, two, session = with_the_gateway()
    world.relay.lost(session)
    world.custody.answer()
    assert two.connection.take() == [deliver_sm_resp(70)]


def test_the_repeat_may_lose_its_bind_too():
    world, two, session = with_the_gateway()
    three = world.bind("3")
    world.relay.lost(two)
    world.relay.from_operator(three, [receipt(700, b"id1")])
    answer(world, session)
    assert three.connection.take() == [deliver_sm_resp(700)]
    assert session.connection.take() == []


@pytest.mark.parametrize("lost", ["before its answer", "with its answer"])
def test_what_the_gateway_has_taken_is_answered_at_once(lost):
    world, one, two, session = world_of()
    world.relay.from_operator(one, [receipt(7, b"id1")])
    if lost == "before its answer":
        world.relay.lost(one)
        answer(world, session)
    else:
        answer(world, session)
        world.relay.lost(one)
    for _ in range(2):  # the second time it is meant
        world.relay.from_operator(two, [receipt(70, b"id1")])
    assert two.connection.take() == [deliver_sm_resp(70)]
    answer(world, session)
    assert two.connection.take() == [deliver_sm_resp(70)]
    assert world.counters.repeated == 1


@pytest.mark.parametrize("durable", ["before the repeat", "after the repeat", "after the loss"])
async def test_what_is_in_custody_is_answered_once_it_is_durable(durable):
    world, one, two, _ = world_of()
    world.relay.from_operator(one, [receipt(7, b"nobody")])
    await world.look_up()
    if durable == "before the repeat":
        world.custody.answer()
    world.relay.lost(one)
    if durable == "after the loss":
        world.custody.answer()
    world.relay.from_operator(two, [receipt(70, b"nobody")])
    if durable == "after the repeat":
        assert two.connection.take() == []
        world.custody.answer()
    assert two.connection.take() == [deliver_sm_resp(70)]
    await world.look_up()
    assert len(world.custody.accepted) == 1


async def test_what_custody_refused_is_taken_anew():
    world, one, two, _ = world_of()
    world.relay.from_operator(one, [receipt(7, b"nobody")])
    await world.look_up()
    world.relay.lost(one)
    world.custody.answer(durable=False)
    world.relay.from_operator(two, [receipt(70, b"nobody")])
    await world.look_up()
    assert len(world.custody.accepted) == 2


async def test_what_was_given_up_with_its_bind_is_taken_anew():
    world, one, two, session = world_of()
    world.relay.from_operator(one, [receipt(7, b"id1", b"ENROUTE"), receipt(8, b"id1")])
    world.relay.lost(one)
    answer(world, session)  # the second is first in its line, and nobody waits for it
    assert world.counters.abandoned == 1
    world.relay.from_operator(two, [receipt(70, b"id1", b"ENROUTE"), receipt(80, b"id1")])
    assert two.connection.take() == [deliver_sm_resp(70)]
    answer(world, session)
    assert two.connection.take() == [deliver_sm_resp(80)]


async def test_what_waits_in_line_keeps_its_place_for_the_repeat():
    world, one, two, session = world_of()
    world.relay.from_operator(one, [receipt(7, b"id1", b"ENROUTE"), receipt(8, b"id1")])
    world.relay.lost(one)
    world.relay.from_operator(two, [receipt(80, b"id1"), receipt(70, b"id1", b"ENROUTE")])
    answer(world, session)
    assert two.connection.take() == [deliver_sm_resp(70)]
    answer(world, session)
    assert two.connection.take() == [deliver_sm_resp(80)]


def test_a_temporary_error_after_the_loss_is_taken_anew():
    world, one, two, session = world_of()
    world.relay.from_operator(one, [receipt(7, b"id1")])
    world.relay.lost(one)
    answer(world, session, c.ESME_RX_T_APPN)
    world.relay.from_operator(two, [receipt(70, b"id1")])
    answer(world, session)
    assert two.connection.take() == [deliver_sm_resp(70)]


def no_id():
    body = Message(source=b"447700900001", destination=b"SHOP", esm_class=c.ESM_RECEIPT, short_message=b"delivered")
    return pack(c.DELIVER_SM, 0, 7, body.encode())


@pytest.mark.parametrize("frame", [mo(7), no_id()])
def test_what_names_no_message_is_never_taken_for_a_repeat(frame):
    world, one, two, session = world_of()
    world.relay.from_operator(one, [frame])
    world.relay.lost(one)
    world.relay.from_operator(two, [frame])
    assert len(session.connection.take()) == 2


def test_one_octet_of_difference_is_another_report():
    world, one, two, session = world_of()
    world.relay.from_operator(one, [receipt(7, b"id1", b"ENROUTE")])
    world.relay.lost(one)
    world.relay.from_operator(two, [receipt(7, b"id1", b"enroute")])
    answer(world, session)
    assert b"enroute" in session.connection.sent[0]


def test_on_binds_that_live_an_operator_that_repeats_itself_means_it():
    world, one, two, session = world_of()
    world.relay.from_operator(one, [receipt(7, b"id1")])
    world.relay.from_operator(two, [receipt(7, b"id1")])
    answer(world, session)
    answer(world, session)
    assert world.counters.repeated == 0


@pytest.mark.parametrize("long", ["after the loss", "before the loss"])
def test_after_a_while_it_is_another_report(long):
    world, one, two, session = world_of(final_grace_s=10_000)
    world.relay.from_operator(one, [receipt(7, b"id1")])
    answer(world, session)
    world.now += 30 if long == "before the loss" else 0
    world.relay.lost(one)
    world.now += KEPT_S + 1 if long == "after the loss" else 0
    world.relay.from_operator(two, [receipt(70, b"id1")])
    assert len(session.connection.take()) == 1


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("dlrproxy.repeats.MAX_KEPT", 3)
    world, one, two, _ = world_of(gateway_window=10)
    for number in range(5):
        world.relay.from_operator(one, [receipt(number, b"id1", b"STATE%02d" % number)])
    world.relay.lost(one)
    repeats = world.relay._arrivals._repeats
    assert len(repeats.firsts) == 3
    world.now += KEPT_S + 1
    world.relay.from_operator(two, [receipt(70, b"id1")])
    assert not repeats.firsts
