"""An operator that lost a bind sends again what it was not answered for: delivered once is enough, nothing is lost."""

import pytest
from relay_world import World, deliver_sm_resp, mo, receipt, sequence_of

from dlrproxy.reports.repeats import KEPT_S
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
    monkeypatch.setattr("dlrproxy.reports.repeats.MAX_KEPT", 3)
    world, one, two, _ = world_of(gateway_window=10)
    for number in range(5):
        world.relay.from_operator(one, [receipt(number, b"id1", b"STATE%02d" % number)])
    world.relay.lost(one)
    repeats = world.relay._arrivals._repeats
    assert len(repeats.firsts) == 3
    world.now += KEPT_S + 1
    world.relay.from_operator(two, [receipt(70, b"id1")])
    assert not repeats.firsts


def kept(world, one, frame):
    """Custody is asked to take it, and its disk stands still for longer than the operator waits."""
    world.relay.from_operator(one, [frame])
    world.tick(8)
    assert len(world.custody.accepted) == 1
    assert one.connection.take() == [deliver_sm_resp(sequence_of(frame), world.operator.retry_status)]
    assert (world.relay.in_flight, world.counters.refused_slow) == (0, 1)


def patient(**settings):
    """Without a gateway: all goes to custody."""
    world = World(enquire_link_s=1_000, **settings)
    return world, world.bind()


@pytest.mark.parametrize("durable", ["before the repeat", "after the repeat", "after the second repeat"])
@pytest.mark.parametrize("frame", [mo(7), no_id()])
def test_what_waits_too_long_for_the_disk_is_answered_and_kept_once(frame, durable):
    world, bind = patient()
    kept(world, bind, frame)
    if durable == "before the repeat":
        world.custody.answer()
        assert bind.connection.take() == []
    world.relay.from_operator(bind, [frame])
    if durable == "after the second repeat":
        world.tick(8)
        assert bind.connection.take() == [deliver_sm_resp(7, world.operator.retry_status)]
        world.relay.from_operator(bind, [frame])
    if durable != "before the repeat":
        assert bind.connection.take() == []
        world.custody.answer()
    assert bind.connection.take() == [deliver_sm_resp(7)]
    assert (len(world.custody.accepted), world.relay.in_flight) == (1, 0)
    world.relay.from_operator(bind, [frame])  # asked for by nobody
    assert len(world.custody.accepted) == 2


def test_what_custody_could_not_write_in_the_end_is_taken_anew():
    world, bind = patient()
    kept(world, bind, mo(7))
    world.custody.answer(durable=False)
    world.relay.from_operator(bind, [mo(7)])
    assert len(world.custody.accepted) == 2


def test_a_report_that_waits_too_long_for_the_disk_lets_the_next_of_its_message_go():
    world, bind = patient()
    session = world.session()
    world.open(session, bind, b"id1")
    world.relay.lost(session)
    kept(world, bind, receipt(7, b"id1", b"ENROUTE"))
    world.custody.held.add(("acme", b"id1"))  # so it queues there
    world.relay.from_operator(bind, [receipt(8, b"id1"), receipt(7, b"id1", b"ENROUTE")])
    world.custody.answer()
    world.custody.answer()
    assert bind.connection.take() == [deliver_sm_resp(7), deliver_sm_resp(8)]
    assert len(world.custody.accepted) == 2


@pytest.mark.parametrize("settings", [{}, {"on_temporary_error": "retry_status"}])
@pytest.mark.parametrize("status", [c.ESME_ROK, c.ESME_RX_T_APPN, None])
@pytest.mark.parametrize("late", [False, True])
def test_a_session_that_is_slow_gets_one_copy_while_custody_is_full(settings, status, late):
    """None: it ends without an answer."""
    world = World(enquire_link_s=1_000, **settings)
    bind, session = world.bind(), world.session()
    world.custody.at_once = False
    world.open(session, bind, b"id1")
    refused = [deliver_sm_resp(7, world.operator.retry_status)]
    for _ in range(3):
        world.relay.from_operator(bind, [receipt(7, b"id1")])
        world.tick(3)
        world.tick(0.25)
        assert bind.connection.take() == refused
    [frame] = session.connection.take()
    if not late:
        world.relay.from_operator(bind, [receipt(7, b"id1")])
    if status is None:
        world.relay.lost(session)
        session = world.session()
    else:
        world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame), status)])
    if late:
        world.relay.from_operator(bind, [receipt(7, b"id1")])
    if status == c.ESME_ROK:
        assert bind.connection.take() == [deliver_sm_resp(7)]
        assert session.connection.take() == []
    elif late:
        assert len(session.connection.take()) == 1  # a copy only now
    else:
        assert bind.connection.take() == refused
    assert len(world.relay._arrivals) == (1 if late and status != c.ESME_ROK else 0)


@pytest.mark.parametrize("status", [c.ESME_ROK, c.ESME_RX_T_APPN, None])
def test_an_end_in_good_order_waits_for_the_answer_of_a_report_that_the_operator_is_to_send_again(status):
    """None: the session ends without one. A gateway that took it would get it twice after the next start."""
    world = World(on_temporary_error="retry_status")
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(7, b"id1")])
    [frame] = session.connection.take()
    world.tick(3)
    assert bind.connection.take() == [deliver_sm_resp(7, world.operator.retry_status)]
    assert world.relay.in_flight == 1
    if status is None:
        world.relay.lost(session)
    else:
        world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame), status)])
    assert world.relay.in_flight == 0
