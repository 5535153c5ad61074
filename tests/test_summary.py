"""The compact sets behind the summaries: what they hold, what chance finds in them, and what they weigh."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.ledger import END, Ledger
from ring.summary import BEST_LOAD, HASH_BITS, PAGE_BUCKETS, Summary, fits, hash_of, pack, pages_for, unpack

HASHES = st.integers(0, 2**HASH_BITS - 1)
# Few values, so that they meet; those at the ends, and close ones.
CROWDED = st.one_of(st.integers(0, 30), st.integers(2**HASH_BITS - 30, 2**HASH_BITS - 1), HASHES)


def drawn(count, seed=1):
    source = random.Random(seed)
    return [source.getrandbits(HASH_BITS) for _ in range(count)]


@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), HASHES), max_size=300))
def test_a_summary_finds_what_was_added_and_not_removed(pages, steps):
    summary, inside = Summary(pages), []
    for adding, hashed in steps:
        if adding or not inside:
            if not summary.add([hashed]):
                inside.append(hashed)
        else:
            summary.remove([inside.pop(hashed % len(inside))])
    assert summary.count == len(inside)
    assert all(hashed in summary for hashed in inside)
    summary.remove(inside)
    assert summary.count == 0
    assert not any(hashed in summary for _, hashed in steps)


def test_a_full_bucket_leaves_out_and_counts_what_it_left_out():
    summary = Summary(1)
    assert summary.add([5] * 20) == 5
    summary.remove([5] * 20)
    assert summary.count == 0
    assert 5 not in summary


def test_what_was_never_added_is_passed_over_when_it_is_removed():
    summary = Summary(1)
    summary.add([1 << 31])
    summary.remove([1, 2**HASH_BITS - 1])
    assert summary.count == 1
    assert 1 << 31 in summary


@pytest.mark.parametrize("load", [3.0, BEST_LOAD, 5.0])
def test_a_summary_takes_less_than_two_bytes_a_hash_and_seldom_errs(load):
    pages = 100
    count = int(pages * PAGE_BUCKETS * load)
    assert fits(count, pages)
    summary = Summary(pages)
    left_out = summary.add(drawn(count))
    assert left_out <= count / 1000
    assert summary.bytes_used / count < 2.0
    asked = 100_000
    found = sum(hashed in summary for hashed in drawn(asked, seed=2))
    assert found / asked == pytest.approx(load / 4096, rel=0.3)


def test_the_pages_follow_the_count():
    assert pages_for(0) == pages_for(200) == 1
    assert fits(0, 1)
    assert not fits(400, 1)
    for count in (300, 1000, 10_000, 1_000_000):
        assert fits(count, pages_for(count))
        assert not fits(count, 2 * pages_for(count))
        assert not fits(2 * count, pages_for(count))


def test_the_hash_is_the_same_on_every_node_and_of_every_version():
    assert hash_of("acme", b"1234567890") == 287957795
    assert len({hash_of(operator, b"%d" % number) for operator in ("acme", "best") for number in range(1000)}) == 2000
    # The operator and the id cannot run into one another.
    assert hash_of("acme", b"1") != hash_of("acme1", b"")


def test_packed_hashes_come_back_and_other_sizes_are_refused():
    hashes = drawn(10)
    assert unpack(pack(hashes)) == tuple(hashes)
    assert unpack(b"") == ()
    with pytest.raises(ValueError, match="7 bytes"):
        unpack(b"1234567")


@given(st.lists(st.tuples(st.booleans(), CROWDED), max_size=400))
def test_a_ledger_is_a_set(steps):
    ledger, inside = Ledger(), set()
    for adding, hashed in steps:
        if adding:
            assert ledger.add(hashed) == (hashed not in inside)
            inside.add(hashed)
        else:
            assert ledger.remove(hashed) == (hashed in inside)
            inside.discard(hashed)
        assert (hashed in ledger) == (hashed in inside)
        assert len(ledger) == len(inside)
    assert sorted(read_all(ledger, 7)) == sorted(inside)


def test_a_ledger_grows_and_shrinks_by_single_pages_and_stays_small():
    ledger, hashes = Ledger(), drawn(20_000)
    for hashed in hashes:
        ledger.add(hashed)
    assert len(ledger) == len(set(hashes))
    assert ledger.bytes_used / len(ledger) < 5.0
    assert sorted(read_all(ledger, 100)) == sorted(set(hashes))
    for hashed in hashes[100:]:
        ledger.remove(hashed)
    assert sorted(read_all(ledger, 1)) == sorted(hashes[:100])
    assert ledger.bytes_used < 1000


@pytest.mark.parametrize("seed", range(10))
def test_a_ledger_that_changes_while_it_is_read_gives_what_stays_once(seed):
    source, ledger = random.Random(seed), Ledger()
    staying, passing = set(drawn(600, seed)), set(drawn(6000, seed + 100))
    passing -= staying
    for hashed in staying | passing:
        ledger.add(hashed)
    read, at, others = [], 0, sorted(passing)
    while at < END:
        hashes, at = ledger.read(at, source.randrange(1, 200))
        read += hashes
        # It shrinks and grows: pages are joined and split before and behind what has been read.
        change = ledger.remove if len(read) % 2 else ledger.add
        for hashed in source.choices(others, k=500):
            change(hashed)
    kept = [hashed for hashed in read if hashed in staying]
    assert sorted(kept) == sorted(staying)


def read_all(ledger, count):
    hashes, at = [], 0
    while at < END:
        more, at = ledger.read(at, count)
        hashes += more
    return hashes
