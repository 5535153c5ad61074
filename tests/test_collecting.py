"""What a node takes from its inbox at a time (`Inbox.collect`)."""

from unittest.mock import AsyncMock, Mock

import pytest
import structlog
import trio

from dlrproxy.custody import Keeper
from dlrproxy.keeping.set_aside import SetAside
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import StoreError, Table
from dlrproxy.store.shared import UNREADABLE
from protocols.peer.frames import Envelope, EnvelopeKey
from ring.rows import CustodyRow, Kind, RowError, encode_key, encode_row


class Shared(MemoryStore):
    """Other nodes have put `rows` into its inbox."""

    rows: list

    async def inbox(self, limit=1000):
        return self.rows[:limit]

    def take_from_inbox(self, key):
        self.rows = [row for row in self.rows if row[0] != key]

    def take(self, rows):
        """As the machine has it do with what has arrived; it is durable at once."""
        del self.rows[: len(rows)]
        return []


def a_row(number):
    key = EnvelopeKey(b"s" * 8, number)
    envelope = Envelope(key, "gw2", "acme", "dlr", b"1", b"47", b"pdu", f"t{number}", final=False)
    return encode_key(key), encode_row(CustodyRow(Kind.ORIGIN, envelope, 0.0))


async def test_no_more_than_one_commit_carries_and_the_rest_once_that_is_durable():
    store = Shared(lambda: 0.0)
    store.rows = [a_row(number) for number in range(250)]
    taken = []
    machine = Mock()
    machine.arrived = lambda rows, now: taken.append(len(rows)) or store.take(rows)
    keeper = Keeper(machine, store, Mock(), Mock(), store)
    keeper.inbox.look()
    while keeper.inbox.wanted:
        assert await keeper.inbox.collect()
    assert taken == [100, 100, 50]


async def test_what_came_while_the_node_was_away_is_taken_as_soon_as_it_serves(autojump_clock):
    """In virtual time: long before it would look into its inbox in any case."""
    store = Shared(lambda: 0.0)
    store.rows = [a_row(1)]
    taken = trio.Event()
    machine = Mock(handing_on=False)
    machine.tick.return_value = []
    machine.count.return_value.items = 0

    def arrived(rows, now):
        taken.set()
        return store.take(rows)

    machine.arrived = arrived
    keeper = Keeper(machine, store, Mock(), Mock(), store)
    assert trio.current_time() == 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await taken.wait()
        nursery.cancel_scope.cancel()
    assert store.rows == []
    assert trio.current_time() < 1.0


async def test_what_a_gone_node_had_parked_is_counted():
    store = Shared(lambda: 0.0)
    store.rows = []
    machine = Mock()
    keeper = Keeper(machine, store, Mock(), Mock(), store)
    store.put(Table.PARKED, b"own", b"row")
    assert await keeper.inbox.collect()
    machine.recount.assert_not_called()
    store.put(Table.PARKED, b"inherited", b"row")
    keeper.inbox.take_over()
    assert await keeper.inbox.collect()
    machine.recount.assert_called_once_with(2)


def keeper_of(store):
    """Its machine takes all that arrives, and `taken` has the traces of that."""
    taken = []

    def arrived(rows, now):
        for row in rows:
            store.take_from_inbox(encode_key(row.envelope.key))
            taken.append(row.envelope.trace)
        return []

    machine = Mock()
    machine.arrived = arrived
    return Keeper(machine, store, Mock(), Mock(), store), taken


async def collect_all(keeper):
    keeper.inbox.look()
    while keeper.inbox.wanted:
        assert await keeper.inbox.collect()


async def set_aside(store):
    return [value for name, value in await store.scan(Table.META) if name.startswith(UNREADABLE)]


@pytest.mark.parametrize("bad", [b"", b"nothing of the kind", a_row(1)[1][:-3]])
async def test_what_cannot_be_read_is_set_aside_and_the_rest_comes_in(bad):
    store = Shared(lambda: 0.0)
    store.rows = [(b"n" * 200, bad), *(a_row(number) for number in range(2, 5))]
    keeper, taken = keeper_of(store)
    with structlog.testing.capture_logs() as logged:
        await collect_all(keeper)
    assert taken == ["t2", "t3", "t4"]
    assert (store.rows, await set_aside(store)) == ([], [bad])
    [said] = [entry for entry in logged if entry["event"] == "custody.unreadable_set_aside"]
    assert (said["log_level"], said["name"]) == ("error", (b"n" * 200).hex())


async def test_what_a_gone_node_had_set_aside_comes_in_once():
    """It has another name in the inbox than the row has that is in it."""
    store = Shared(lambda: 0.0)
    store.rows = [(UNREADABLE + b"name/hash", a_row(1)[1]), a_row(2)]
    keeper, taken = keeper_of(store)
    await collect_all(keeper)
    await collect_all(keeper)
    assert (sorted(taken), store.rows) == (["t1", "t2"], [])


def test_it_is_taken_out_of_the_inbox_in_the_commit_that_sets_it_aside():
    group = Mock()
    rows = [(b"k%d" % number, b"bad") for number in range(3)]
    assert SetAside(group).readable(rows) == []
    assert [call[0] for call in group.method_calls] == ["put", "take_from_inbox"] * 3  # nothing is awaited between


async def test_a_term_that_can_read_it_takes_it_in(monkeypatch):
    store = Shared(lambda: 0.0)
    store.rows = []
    later = [a_row(number) for number in range(250)]  # as if written by a release that this one does not know yet
    with monkeypatch.context() as patched:
        patched.setattr("dlrproxy.keeping.set_aside.decode_custody", Mock(side_effect=RowError("of a later release")))
        store.rows = later[:]
        keeper, taken = keeper_of(store)
        await collect_all(keeper)
    assert (taken, store.rows, len(await set_aside(store))) == ([], [], 250)
    await collect_all(keeper)
    assert taken == []  # not within a term

    store.put(Table.META, UNREADABLE + b"!", b"damaged")
    keeper, taken = keeper_of(store)
    await collect_all(keeper)
    assert sorted(taken) == sorted(f"t{number}" for number in range(250))
    assert await set_aside(store) == [b"damaged"]


async def test_what_is_set_aside_while_earlier_rows_are_looked_at_counts_once():
    store = Shared(lambda: 0.0)
    store.rows = [(b"n", b"damaged")]
    store.put(Table.META, UNREADABLE + b"!", b"of an earlier term")  # the first by its name
    keeper, taken = keeper_of(store)
    with structlog.testing.capture_logs() as logged:
        await collect_all(keeper)
        await collect_all(keeper)
    assert (taken, len(await set_aside(store)), keeper.unreadable) == ([], 2, 2)
    said = [entry["event"] for entry in logged if "unreadable" in entry["event"]]
    assert sorted(said) == ["custody.unreadable", "custody.unreadable_set_aside"]


async def test_a_store_that_cannot_be_read_for_a_moment_keeps_back_nothing_that_was_set_aside(monkeypatch):
    store = Shared(lambda: 0.0)
    store.rows = []
    store.put(Table.META, UNREADABLE + b"x", a_row(7)[1])
    keeper, taken = keeper_of(store)
    keeper.inbox.look()
    with monkeypatch.context() as patched:
        patched.setattr(store, "inbox", AsyncMock(side_effect=StoreError("away")))
        assert not await keeper.inbox.collect()
    await collect_all(keeper)
    assert taken == ["t7"]
