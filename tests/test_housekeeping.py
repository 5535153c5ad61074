"""What a node keeps of itself in its store: how often it has started, what time it was, what it has learned."""

import pytest
import trio

from dlrproxy.clock import NodeClock
from dlrproxy.housekeeping import Housekeeping, learned_rules, next_run, read_clock, write_rule
from dlrproxy.logs import RouteLog
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import StoreError, Table
from protocols.smpp.message_ids import Rule


@pytest.fixture
def store():
    return MemoryStore(lambda: 1000.0)


async def test_every_start_has_its_own_number(store):
    assert [await next_run(store) for _ in range(3)] == [1, 2, 3]


async def test_a_new_store_knows_no_time(store):
    assert await read_clock(store) == 0.0


async def test_the_time_is_written_down_at_once(store, nursery):
    clock = NodeClock()
    began = clock.now()
    nursery.start_soon(Housekeeping(store, clock, RouteLog("gw1")).run)
    await trio.testing.wait_all_tasks_blocked()
    assert began - 0.001 <= await read_clock(store) <= clock.now() + 0.001  # it is kept in milliseconds


@pytest.mark.parametrize("read", [read_clock, next_run])
async def test_what_something_else_has_written_is_named(store, read):
    for key in (b"clock", b"run"):
        store.put(Table.META, key, b"noon")
    with pytest.raises(StoreError, match="'noon'"):
        await read(store)


async def test_rules_are_kept_by_operator_until_they_are_unlearned(store):
    write_rule(store, "acme", (Rule.HEX_DECIMAL, 5))
    write_rule(store, "beta", (Rule.ZEROS, 7))
    assert await learned_rules(store) == [("acme", Rule.HEX_DECIMAL, 5), ("beta", Rule.ZEROS, 7)]
    write_rule(store, "acme", None)
    assert await learned_rules(store) == [("beta", Rule.ZEROS, 7)]
