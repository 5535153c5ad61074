"""The token bucket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp.pacing import Pace


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
