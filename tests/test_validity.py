"""validity_period and schedule_delivery_time, in every form that peers send."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp.validity import seconds_until

MINUTE, HOUR, DAY = 60, 3600, 86_400


def at(*moment: int) -> float:
    return datetime(*moment, tzinfo=UTC).timestamp()


NOON = at(2024, 2, 28, 12)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (b"000000000001000R", 1),
        (b"000000000100000R", MINUTE),
        (b"000000010000000R", HOUR),
        (b"000001000000000R", DAY),
        (b"000002120000000R", 2 * DAY + 12 * HOUR),
        (b"000000480000000R", 48 * HOUR),  # beyond the specification, and meant
        (b"000100000000000R", 31 * DAY),
        (b"010000000000000R", 366 * DAY),
        (b"990000000000000R", 99 * 366 * DAY),
        (b"000000010000999R", HOUR),  # tenths and zone mean nothing here
    ],
)
def test_a_relative_time(time, seconds):
    assert seconds_until(time, NOON) == seconds


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (b"240228120000000+", 0),
        (b"240228120100000+", MINUTE),
        (b"240228120000500+", 0.5),
        (b"240229120000000+", DAY),  # a leap day
        (b"240301120000000+", 2 * DAY),
        (b"240227120000000+", -DAY),
    ],
)
def test_an_absolute_time(time, seconds):
    assert seconds_until(time, NOON) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        (b"00+", 0),
        (b"00-", 0),
        (b"04+", -1),  # noon an hour ahead of UTC has been an hour ago
        (b"04-", 1),
        (b"22+", -5.5),
        (b"23+", -5.75),
        (b"48-", 12),
        (b"56+", -14),
    ],
)
def test_time_zones_are_in_quarter_hours(zone, hours):
    assert seconds_until(b"2402281200000" + zone, NOON) == hours * HOUR


@pytest.mark.parametrize(
    ("now", "time", "days"),
    [
        (at(2023, 12, 31), b"240101000000000+", 1),
        (at(2024, 1, 1), b"231231000000000+", -1),
        (at(2099, 12, 31), b"000101000000000+", 1),
        (at(2100, 1, 1), b"991231000000000+", -1),
        (at(2024, 1, 1), b"731231000000000+", 18_262),
        (at(2024, 1, 1), b"740101000000000+", -18_262),
    ],
)
def test_two_digits_mean_the_nearest_year(now, time, days):
    assert seconds_until(time, now) == days * DAY


@pytest.mark.parametrize(
    "time",
    [
        b"",
        b"0",
        b"000000000000000R",  # nothing from now
        b"000000000000000+",  # no such date
        b"240230120000000+",
        b"241301120000000+",
        b"240228240000000+",
        b"240228126000000+",
        b"240228120060000+",
        b"240228120000057+",  # no such zone
        b"240228120000",
        b"2402281200+",
        b"240228120000000",
        b"240228120000000 ",
        b"240228120000000r",
        b"240228120000000+0",
        b"0000000100000 0R",
        b"-40228120000000+",
        b"00000001000000\xb2R",  # a digit to some, and not to SMPP
        b"24-02-28 12:00:0",
        b"1440",
    ],
)
def test_anything_else_says_nothing(time):
    assert seconds_until(time, NOON) is None


@given(st.binary(max_size=20) | st.from_regex(rb"[0-9]{15}[-+R]", fullmatch=True), st.floats(0, at(9000, 1, 1)))
def test_no_bytes_raise(time, now):
    assert seconds_until(time, now) is None or isinstance(seconds_until(time, now), float)
