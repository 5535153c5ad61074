"""Nodes of a cluster whose clocks differ: what is over, and who hears of it. On one server."""

import structlog
from shared_world import running_stores
from test_store_contract import a_lookup, an_open, durable, find_one

from dlrproxy.clock import NodeClock
from dlrproxy.clocks import APART_S, Clocks
from dlrproxy.housekeeping import write_clock
from dlrproxy.store.port import Table

NOW = 1000.0
DAY = 86_400.0


class Hand:
    """The wall clocks of the nodes a and b, `apart` of them in seconds."""

    def __init__(self, a_ahead_s):
        self.passed = 0.0
        self.a = NodeClock(wall=lambda: NOW + a_ahead_s, monotonic=lambda: self.passed)
        self.b = NodeClock(wall=lambda: NOW, monotonic=lambda: self.passed)


async def written_down(store, clock):
    write_clock(store, clock)
    await durable(store)


async def left(pool):
    return (await pool.run("SELECT COUNT(*) FROM open_messages")).rows[0][0]


async def test_a_node_whose_clock_is_a_day_ahead_deletes_and_overlooks_nothing_that_the_others_wait_for(tmp_path):
    hand = Hand(a_ahead_s=DAY)
    async with running_stores(tmp_path, a=hand.a.now, b=hand.b.now) as (pool, stores):
        a, b = stores.values()
        await written_down(b, hand.b)
        b.put_open(an_open(b"7", expires_at=NOW + 1000))
        await durable(b)
        await Clocks(a, hand.a).compare()
        assert not (await a.expire(hand.a.now())).more
        assert await find_one(a, a_lookup(b"7"))
        hand.passed = 2000.0
        await written_down(b, hand.b)
        await Clocks(a, hand.a).compare()
        assert await find_one(a, a_lookup(b"7")) == []
        assert (await a.expire(hand.a.now())).deleted
        await durable(a)
        assert await left(pool) == 0


async def test_a_node_whose_clock_is_a_day_behind_keeps_what_is_over_until_it_is_gone(tmp_path):
    hand = Hand(a_ahead_s=-DAY)
    async with running_stores(tmp_path, a=hand.a.now, b=hand.b.now) as (pool, stores):
        a, b = stores.values()
        await written_down(a, hand.a)
        b.put_open(an_open(b"7", expires_at=NOW - 1))
        await durable(b)
        clocks = Clocks(b, hand.b)
        await clocks.compare()
        assert not (await b.expire(hand.b.now())).more
        await pool.run("UPDATE members SET taken=1,heir='b' WHERE node='a'")
        await clocks.compare()
        assert (await b.expire(hand.b.now())).deleted


async def test_a_difference_is_told_once_and_so_is_its_end(tmp_path):
    hand = Hand(a_ahead_s=APART_S + 1)
    async with running_stores(tmp_path, a=hand.a.now, b=hand.b.now) as (_, stores):
        a, b = stores.values()
        clocks = Clocks(a, hand.a)
        with structlog.testing.capture_logs() as logged:
            for passed in (0.0, 30.0, 60.0):
                hand.passed = passed
                await written_down(b, hand.b)
                await clocks.compare()
            assert clocks.apart == {"b": APART_S + 1}
            hand.b = NodeClock(wall=lambda: NOW + APART_S + hand.passed, monotonic=lambda: hand.passed)
            await written_down(b, hand.b)
            await clocks.compare()
        assert clocks.apart == {}
    said = [(each["event"], each["log_level"], each["node"]) for each in logged if each["event"].startswith("quorum.")]
    assert said == [("quorum.clocks_apart", "error", "b"), ("quorum.clocks_agree", "info", "b")]


async def test_an_old_reading_of_a_node_that_is_down_is_no_difference(tmp_path):
    hand = Hand(a_ahead_s=0.0)
    async with running_stores(tmp_path, a=hand.a.now, b=hand.b.now) as (_, stores):
        a, b = stores.values()
        await written_down(b, hand.b)
        hand.passed = DAY
        clocks = Clocks(a, hand.a)
        for _ in range(3):
            await clocks.compare()
        assert (clocks.apart, a.ahead_s) == ({}, DAY)


async def test_a_reading_that_is_none_is_named_and_passed_over(tmp_path):
    hand = Hand(a_ahead_s=0.0)
    async with running_stores(tmp_path, a=hand.a.now, b=hand.b.now) as (_, stores):
        a, b = stores.values()
        b.put(Table.META, b"clock", b"half past")
        await durable(b)
        with structlog.testing.capture_logs() as logged:
            await Clocks(a, hand.a).compare()
        assert a.ahead_s == 0.0
        [said] = [each for each in logged if each["event"] == "quorum.clock_unreadable"]
        assert (said["node"], said["log_level"]) == ("b", "error")
