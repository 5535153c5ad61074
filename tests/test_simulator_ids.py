"""Spellings of one number, and how a gateway reads them back."""

import re

import pytest

from dlrproxy.simulator.ids import FIRST_HIGH, FIRST_LOW, IdFormat, canonical, readings, spelling

NUMERIC = [form for form in IdFormat if form is not IdFormat.UUID]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (IdFormat.HEX, "1a2b3c4d"),
        (IdFormat.UPPER_HEX, "1A2B3C4D"),
        (IdFormat.DECIMAL, "439041101"),
        (IdFormat.PADDED, "0439041101"),
    ],
)
def test_spelling(form, expected):
    assert spelling(form)(0x1A2B3C4D) == expected


def test_uuids_are_distinct_and_look_the_part():
    uuids = [spelling(IdFormat.UUID)(number) for number in range(FIRST_LOW, FIRST_LOW + 5000)]
    assert len(set(uuids)) == 5000
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}", uuid) for uuid in uuids)


@pytest.mark.parametrize("response", NUMERIC)
@pytest.mark.parametrize("reported", NUMERIC)
@pytest.mark.parametrize("number", [FIRST_LOW, 0x1A2B3C4D, FIRST_HIGH])
def test_any_two_spellings_of_a_number_are_read_as_one(response, reported, number):
    assert canonical(spelling(response)(number)) in readings(spelling(reported)(number))


@pytest.mark.parametrize("response", NUMERIC)
@pytest.mark.parametrize("reported", NUMERIC)
def test_neighbours_are_not_read_as_each_other(response, reported):
    assert canonical(spelling(response)(FIRST_LOW + 1)) not in readings(spelling(reported)(FIRST_LOW))


@pytest.mark.parametrize("odd", ["", "a-b", "0x1f", "msg_17", "12 34", "+12", "1_000", "héx"])
def test_other_ids_stay_as_they_are(odd):
    assert canonical(odd) == odd
