"""The token bucket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp.pacing import Pace, Slowdown


def test_without_a_rate_everything_goes():
    pace = Pace(None, 0.0)
    assert all(pace.take(0.0) for _ in range(1000))
    assert pace.wait_s(0.0) == 0.0


@pytest.mark.parametrize(("per_s", "burst"), [(0.5, 1), (5, 1), (50, 5), (1000, 100)])
def test_a_burst_is_a_tenth_of_a_second_and_one_at_least(per_s, burst):
    pace = Pace(per_s, 0.0)
    assert [pace.take(0.0) for _ in range(burst + 1)] == [True] * burst + [False]


@given(st.floats(0.1, 5000), st.lists(st.floats(0, 0.5), max_size=100))
def test_never_more_than_the_rate_allows(per_s, pauses):
    pace, now, sent = Pace(per_s, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        while pace.take(now):
            sent += 1
    assert sent <= now * per_s + max(1.0, per_s * 0.1) + 0.01


@given(st.floats(0.1, 5000), st.floats(0, 1e9))
def test_what_wait_s_says_is_enough(per_s, start):
    pace = Pace(per_s, start)
    while pace.take(start):
        pass
    assert pace.take(start + pace.wait_s(start) + 1e-6)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing():
    pace = Pace(1, 10.0)
    assert pace.take(10.0)
    assert not pace.take(10.0)
    assert not pace.take(5.0)


def test_a_limit_may_change_and_what_was_saved_up_is_cut_to_it():
    pace = Pace(100, 0.0)
    pace.change(10, 0.0)
    assert [pace.take(0.0) for _ in range(2)] == [True, False]
    pace.change(None, 0.0)
    assert all(pace.take(0.0) for _ in range(1000))
    pace.change(10, 50.0)
    assert not pace.take(50.0)  # nothing was saved up while there was no limit
    assert pace.take(50.1)


def sending(per_s, seconds, slowdown=None, start=0.0):
    """Observed four times a second; the slowdown, what was sent in all, and the time."""
    slowdown = slowdown or Slowdown(0, start)
    sent = 0
    for step in range(int(seconds * 4) + 1):
        sent = int(per_s * step / 4)
        slowdown.observe(sent, start + step / 4)
    return slowdown, sent, start + seconds


def test_what_nobody_refuses_is_not_slowed():
    slowdown, _, now = sending(1000, 60)
    assert slowdown.per_s(now) is None


def test_half_of_what_was_sent_is_sent_then():
    slowdown, sent, now = sending(100, 10)
    assert slowdown.throttled(sent, now)
    assert slowdown.per_s(now) == pytest.approx(50)


def test_a_burst_at_the_very_start_counts_as_a_second_s():
    slowdown = Slowdown(0, 0.0)
    assert slowdown.throttled(80, 0.05)
    assert slowdown.per_s(0.05) == pytest.approx(40)


def test_what_was_in_flight_halves_it_only_once():
    slowdown, sent, now = sending(100, 10)
    halvings = [slowdown.throttled(sent, now + after) for after in (0, 0.1, 0.5, 0.99, 1.0)]
    assert halvings == [True, False, False, False, True]
    assert slowdown.per_s(now + 1) == pytest.approx(25)


@pytest.mark.parametrize(("after", "per_s"), [(0, 50), (1, 55), (5, 75), (10, 100), (20, 150), (29.9, 199.5)])
def test_it_recovers_by_the_same_step_every_second(after, per_s):
    slowdown, sent, now = sending(100, 10)
    slowdown.throttled(sent, now)
    assert slowdown.per_s(now + after) == pytest.approx(per_s)


def test_at_twice_the_refused_rate_it_is_over():
    slowdown, sent, now = sending(100, 10)
    slowdown.throttled(sent, now)
    assert slowdown.per_s(now + 30) is None


def test_a_rate_far_below_the_limit_is_what_is_halved():
    """The operator takes less than before: what is sent counts, not what might be."""
    slowdown, sent, now = sending(100, 10)
    slowdown.throttled(sent, now)
    slow, sent, now = sending(8, 10, slowdown, now)
    slow.throttled(sent, now)
    assert slow.per_s(now) == pytest.approx(4)


def test_it_never_goes_below_one_a_second():
    slowdown = Slowdown(0, 0.0)
    for now in range(10):
        slowdown.throttled(now, float(now))
        assert slowdown.per_s(now) >= 1


@pytest.mark.parametrize("limit", [20, 100, 500])
@pytest.mark.parametrize("appetite", [2, 10])
def test_an_operator_with_a_limit_is_used_well_and_pressed_little(limit, appetite):
    """Five minutes with an operator that counts by the second; the first one is for finding out."""
    slowdown, pace = Slowdown(0, 0.0), Pace(None, 0.0)
    sent = this_second = taken = refused = 0
    for step in range(300 * 20):
        now = step / 20
        if step % 20 == 0:
            this_second = 0
        if step % 5 == 0:
            slowdown.observe(sent, now)
            pace.change(slowdown.per_s(now), now)
        for _ in range(appetite * limit // 20):
            if not pace.take(now):
                break
            sent += 1
            this_second += 1
            if this_second > limit and slowdown.throttled(sent, now):
                pace.change(slowdown.per_s(now), now)
            if now >= 60:
                taken += this_second <= limit
                refused += this_second > limit
    assert taken > 0.65 * limit * 240
    assert refused < 0.02 * taken
