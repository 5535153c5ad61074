"""The embedded store against the memory store, over any history: submissions, reports, expiry, restarts."""

import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import Lookup, OpenMessage, Table
from dlrproxy.store.rocks import open_rocks
from protocols.smpp.message_ids import candidates

# Few ids and keys, so that histories meet: forms of 0xa, of 10, and strings that have no form.
IDS = st.sampled_from([b"a", b"0A", b"000a", b"A", b"10", b"010", b"0010", b"16", b"x-1", b"X-1"])
KEYS = st.sampled_from([b"1", b"2", b"21", b"3"])
MINUTES = st.integers(1, 5)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), IDS, MINUTES, st.sampled_from(["gw1", "gw2"])),
        st.tuples(st.just("report"), IDS, MINUTES),
        st.tuples(st.just("put"), KEYS, st.binary(max_size=3)),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("wait"), st.integers(0, 3)),
        st.tuples(st.just("expire"), st.sampled_from([1, 2, 1000])),
        st.tuples(st.just("durable")),
        st.tuples(st.just("restart")),
    ),
    max_size=40,
)


class History:
    """Plays the same steps on both stores, and compares what they answer after each."""

    def __init__(self, directory, remembered):
        self.directory = directory
        self.remembered = remembered
        self.now = 6000.0
        self.model = MemoryStore(lambda: self.now)
        self.store = None
        self.cancel = None
        self.ended = None

    async def open(self, nursery):
        self.store = await open_rocks(self.directory, lambda: self.now, min_free_mb=0, remembered=self.remembered)
        self.cancel, self.ended = trio.CancelScope(), trio.Event()
        nursery.start_soon(self.run)

    async def run(self):
        with self.cancel:
            await self.store.run()
        self.ended.set()

    async def close(self):
        self.cancel.cancel()
        await self.ended.wait()
        await self.store.close()

    async def play(self, steps):
        async with trio.open_nursery() as nursery:
            await self.open(nursery)
            for step, *arguments in steps:
                if step == "restart":
                    await self.close()
                    await self.open(nursery)
                else:
                    await getattr(self, step)(*arguments)
                await self.compare()
            await self.close()

    def until(self, minutes):
        """A second before a minute ends: due for both stores when the clock, which goes by minutes, is past it."""
        return self.now + 60.0 * minutes - 1

    async def submit(self, message_id, minutes, owner):
        message = OpenMessage("acme", message_id, owner, b"47", b"20", 0, self.now, self.until(minutes))
        for store in (self.model, self.store):
            store.put_open(message)

    async def report(self, message_id, minutes):
        if self.model.recent("acme", message_id) is not None:  # the relay closes what it has found
            for store in (self.model, self.store):
                store.close_open("acme", message_id, self.now, self.until(minutes))

    async def put(self, key, value):
        for store in (self.model, self.store):
            store.put(Table.CUSTODY, key, value)

    async def delete(self, key):
        for store in (self.model, self.store):
            store.delete(Table.CUSTODY, key)

    async def wait(self, minutes):
        self.now += 60.0 * minutes

    async def expire(self, limit):
        """Both give up the same records, though not in the same order or portions."""
        gone = [[], []]
        for found, store in zip(gone, (self.model, self.store), strict=True):
            more = True
            while more:
                unreported, more = await store.expire(self.now, limit)
                found += unreported
                await self.durable()
        assert sorted(map(repr, gone[0])) == sorted(map(repr, gone[1]))

    async def durable(self):
        done = trio.Event()
        self.store.after_durable(done.set)
        await done.wait()

    async def compare(self):
        ids = [b"a", b"0A", b"000A", b"10", b"00010", b"16", b"x-1", b"X-1", b"nobody"]
        lookups = [Lookup("acme", i, candidates(i)) for i in ids]
        expected, found = await self.model.find(lookups), await self.store.find(lookups)
        for lookup, wanted, given_back in zip(lookups, expected, found, strict=True):
            assert sorted(map(repr, given_back)) == sorted(map(repr, wanted))
            if any(record.message_id == lookup.exact for record in wanted):
                assert given_back[0].message_id == lookup.exact
        assert await self.store.scan(Table.CUSTODY) == await self.model.scan(Table.CUSTODY)
        assert await self.store.scan(Table.CUSTODY, b"2", 2) == await self.model.scan(Table.CUSTODY, b"2", 2)
        assert await self.store.get(Table.CUSTODY, b"21") == await self.model.get(Table.CUSTODY, b"21")


@pytest.mark.timeout(300)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, remembered=st.sampled_from([0, 4, 1000]))
def test_both_stores_answer_alike(steps, remembered):
    with tempfile.TemporaryDirectory() as directory:
        trio.run(History(Path(directory) / "data", remembered).play, steps)
