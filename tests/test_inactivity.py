"""Sessions that bring nothing but enquire_link: ended after a setting's time, on either side, or never."""

import pytest
from relay_world import World, command_of, deliver_sm_resp, mo, sequence_of

from protocols.smpp import constants as c
from protocols.smpp.pdu import pack

ENQUIRY = pack(c.ENQUIRE_LINK, 0, 9)
ANSWER = pack(c.ENQUIRE_LINK_RESP, 0, 9)


def ends(world, link, bring):
    """The PDUs sent while nothing but enquire_link comes for 100 s and a little more."""
    for _ in range(11):
        world.tick(10)
        if link.connection.ended is None:
            bring(link, [ENQUIRY, ANSWER])
    return link.connection.ended, [command_of(frame) for frame in link.connection.take()]


def test_a_gateway_that_is_idle_is_unbound():
    world = World(inactivity_s=100, enquire_link_s=1000)
    ended, sent = ends(world, world.session(), world.relay.from_gateway)
    assert (ended, sent[-1]) == ("inactive", c.UNBIND)


def test_a_bind_that_is_idle_is_given_up():
    world = World(bind_inactivity_s=100, enquire_link_s=1000)
    ended, sent = ends(world, world.bind(), world.relay.from_operator)
    assert (ended, sent[-1]) == ("inactive", c.UNBIND)


@pytest.mark.parametrize("settings", [{}, {"inactivity_s": 100}], ids=["both off", "the gateways' on"])
def test_a_bind_stays_unless_its_own_setting_says_otherwise(settings):
    world = World(enquire_link_s=1000, **settings)
    ended, sent = ends(world, world.bind(), world.relay.from_operator)
    assert (ended, set(sent)) == (None, {c.ENQUIRE_LINK_RESP})


def test_whatever_else_a_bind_brings_keeps_it():
    world = World(bind_inactivity_s=100, enquire_link_s=1000)
    bind, session = world.bind(), world.session()
    for number in range(5):
        world.tick(60)
        world.relay.from_operator(bind, [ENQUIRY, mo(number)])
        for frame in session.connection.take():
            world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(frame))])
    assert bind.connection.ended is None
