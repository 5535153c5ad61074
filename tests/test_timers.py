"""Session timers, by arithmetic."""

from protocols.smpp.timers import Due, Limits, Timers

LIMITS = Limits(session_init_s=10, enquire_link_s=30, enquire_link_timeout_s=5, inactivity_s=100)


def bound_at(now: float, limits: Limits = LIMITS) -> Timers:
    timers = Timers(limits, now)
    timers.bound(now)
    return timers


def test_a_bind_has_session_init_s_whatever_is_said_meanwhile():
    timers = Timers(LIMITS, 0)
    timers.heard_at = timers.worked_at = 9
    assert timers.tick(9.9) is None
    assert timers.tick(10) is Due.NOT_BOUND


def test_silence_is_asked_about_once_and_then_given_up():
    timers = bound_at(0)
    assert [timers.tick(now) for now in (29.9, 30, 30.1, 34.9)] == [None, Due.ENQUIRE_LINK, None, None]
    assert timers.tick(35) is Due.SILENT


def test_anything_heard_is_an_answer():
    timers = bound_at(0)
    assert timers.tick(30) is Due.ENQUIRE_LINK
    timers.heard_at = 31
    assert [timers.tick(now) for now in (36, 60.9, 61)] == [None, None, Due.ENQUIRE_LINK]


def test_a_late_tick_still_asks_before_it_gives_up():
    timers = bound_at(0)
    assert timers.tick(1000 - 901) is Due.ENQUIRE_LINK


def test_inactivity_counts_from_the_last_work():
    timers = bound_at(0)
    timers.worked_at = 50
    for now in range(0, 150, 10):
        timers.heard_at = now
        assert timers.tick(now) is None
    timers.heard_at = 150
    assert timers.tick(150) is Due.INACTIVE


def test_inactivity_may_be_off():
    timers = bound_at(0, Limits(session_init_s=10, enquire_link_s=30, enquire_link_timeout_s=5))
    timers.heard_at = 1_000_000
    assert timers.tick(1_000_000) is None
