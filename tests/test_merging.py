"""Which rows of an old primary the new one gets."""

import msgspec
import pytest

from dlrproxy.modes.merging import Known, KnownError, decode_known, encode_known, is_new, merged, parted_at
from dlrproxy.store.port import OpenMessage

STORE = b"a-store!"
MINE = OpenMessage("acme", b"1", "gw1", b"4670", b"4671", 1, 100.0, 900.0)


def name(number):
    return STORE + number.to_bytes(8)


def test_what_was_known_is_read_as_it_was_written():
    known = Known("gw2", name(7), 12.5)
    assert decode_known(encode_known(known)) == known
    with pytest.raises(KnownError):
        decode_known(b"nothing of the kind")


def test_the_two_parted_at_the_first_promotion_that_the_old_primary_has_not_heard_of():
    first, second, third = (Known("b", name(number), 0.0) for number in (1, 2, 3))
    assert parted_at({2: first}, {2: first, 3: second, 4: third}) == second
    assert parted_at({2: first}, {2: first}) is None
    # Both were promoted, each without the other's knowledge: what the new one knew then counts.
    assert parted_at({2: first, 3: changed(second, holder="a")}, {2: first, 3: second}) == second


def changed(known, **changes):
    return msgspec.structs.replace(known, **changes)


def test_a_row_is_new_if_its_name_is_newer_than_all_that_was_known():
    known = Known("b", name(7), 0.0)
    assert [is_new(name(number), STORE, known) for number in (6, 7, 8)] == [False, False, True]
    assert is_new(b"another!" + bytes(8), STORE, known)
    assert is_new(name(1), STORE, Known("b", b"", 0.0))


@pytest.mark.parametrize(
    ("theirs", "wins"),
    [
        (None, True),
        ({}, False),
        ({"submitted_at": 99.0}, True),
        ({"submitted_at": 101.0}, False),
        ({"final_at": 150.0}, False),
    ],
)
def test_an_open_message_is_written_only_over_an_older_one(theirs, wins):
    stored = None if theirs is None else msgspec.structs.replace(MINE, **theirs)
    assert merged(MINE, stored) == (MINE if wins else None)


def test_one_that_is_finished_here_ends_the_other():
    finished = msgspec.structs.replace(MINE, final_at=150.0, expires_at=400.0)
    assert merged(finished, MINE) == finished
    assert merged(finished, msgspec.structs.replace(MINE, submitted_at=160.0)) is None
