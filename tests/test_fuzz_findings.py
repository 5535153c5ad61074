"""What `make fuzz` found, each as a test of its own; the corpus holds the inputs."""

from relay_world import World, deliver_sm_resp, receipt, sequence_of

from protocols.smpp import constants as c


def test_a_line_of_reports_whose_bind_is_lost_does_not_block_their_message_for_ever():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(n, b"id1", b"ENROUTE") for n in (1, 2, 3)])
    [first] = session.connection.take()
    world.relay.lost(bind)
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(first))])
    again = world.bind("2")
    world.relay.from_operator(again, [receipt(1, b"id1")])
    assert len(session.connection.take()) == 1
    assert world.counters.abandoned == 2


async def test_a_report_given_up_while_it_waited_behind_another_is_answered_once():
    world = World(operator_answer_s=8)
    bind = world.bind()
    world.relay.from_operator(bind, [receipt(n, b"nobody") for n in (1, 2, 3)])
    world.tick(8)
    assert bind.connection.take() == [deliver_sm_resp(n, c.ESME_RTHROTTLED) for n in (1, 2, 3)]
    await world.look_up()
    assert world.custody.accepted == []
    assert world.relay.in_flight == 0
