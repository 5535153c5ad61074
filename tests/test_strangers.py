"""ring/strangers.py: how much those who have not proved themselves may ask of a node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.link_settings import LinkSettings
from ring.strangers import StrangerLimit, source_of


def test_a_source_has_a_burst_and_then_a_rate():
    limit = StrangerLimit(burst=3, refill_per_s=0.5)
    for _ in range(3):
        assert limit.admit("192.0.2.1", now=0) is None
        limit.finished("192.0.2.1", proven=False)
    assert limit.admit("192.0.2.1", now=1) == "too_often"
    assert limit.admit("192.0.2.2", now=1) is None  # others are not concerned
    assert limit.admit("192.0.2.1", now=2) is None
    assert limit.admit("192.0.2.1", now=2) == "too_often"


def test_being_turned_away_costs_nothing():
    limit = StrangerLimit(burst=1, refill_per_s=1)
    assert limit.admit("192.0.2.1", now=0) is None
    for tenth in range(1, 10):
        assert limit.admit("192.0.2.1", now=tenth / 10) == "too_often"
    assert limit.admit("192.0.2.1", now=1) is None


def test_who_proved_to_be_a_peer_gets_its_attempts_back():
    limit = StrangerLimit(burst=2, refill_per_s=0)
    for _ in range(10):
        assert limit.admit("192.0.2.1", now=0) is None
        limit.finished("192.0.2.1", proven=True)


def test_handshakes_open_at_one_time_are_bounded_by_source_and_in_all():
    limit = StrangerLimit(max_open_per_source=2, max_open=3)
    assert [limit.admit("192.0.2.1", now=0) for _ in range(3)] == [None, None, "too_many_from_source"]
    assert limit.admit("192.0.2.2", now=0) is None
    assert limit.admit("192.0.2.3", now=0) == "too_many"
    limit.finished("192.0.2.1", proven=False)
    assert limit.admit("192.0.2.3", now=0) is None


def test_the_table_forgets_the_source_unseen_for_longest_but_none_with_an_open_handshake():
    limit = StrangerLimit(burst=1, refill_per_s=0, max_sources=2)
    limit.admit("192.0.2.1", now=0)
    limit.admit("192.0.2.2", now=1)
    limit.finished("192.0.2.2", proven=False)
    limit.admit("192.0.2.3", now=2)  # takes the place of 2, since 1 is still at it
    limit.finished("192.0.2.1", proven=False)
    assert limit.admit("192.0.2.1", now=3) == "too_often"
    assert len(limit) == 2


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.booleans()), max_size=200))
def test_the_table_stays_bounded_and_the_counts_come_out(visits):
    limit = StrangerLimit(burst=2, refill_per_s=1, max_open_per_source=2, max_open=5, max_sources=8)
    still_open = []
    for now, (host, stays, proven) in enumerate(visits):
        address = f"192.0.2.{host}"
        if limit.admit(address, now / 10) is None:
            still_open.append(address)
            if not stays:
                limit.finished(still_open.pop(), proven=proven)
        assert len(limit) <= 8
        assert len(still_open) <= 5
        assert all(still_open.count(each) <= 2 for each in still_open)
    for address in still_open:
        limit.finished(address, proven=False)
    assert limit.admit("198.51.100.1", now=1000) is None


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("somewhere", "somewhere"),
    ],
)
def test_one_source_is_an_address_or_the_network_that_one_ipv6_host_has(address, source):
    assert source_of(address) == source


def test_four_peers_that_are_refused_for_good_do_not_lock_out_a_fifth_behind_their_address():
    limit = StrangerLimit()
    between_s = 0.75 * LinkSettings().reconnect_max_s  # the back-off's average, with its jitter
    for attempt in range(1_000):
        for peer in range(4):
            assert limit.admit("10.0.0.1", (attempt + peer / 4) * between_s) is None
            limit.finished("10.0.0.1", proven=False)
    assert limit.admit("10.0.0.1", 1_000 * between_s) is None
