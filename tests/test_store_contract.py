"""What every store must do, whichever holds the rows: the same tests over each of them."""

import contextlib

import mariadb_server
import pytest
import trio
import trio.testing

from dlrproxy.store.directory import free_bytes
from dlrproxy.store.journal import open_journal
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import MANY, Lookup, OpenMessage, Table
from dlrproxy.store.rocks import open_rocks
from dlrproxy.store.space import Space
from dlrproxy.store.sql import schema
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.store import Opening, open_shared, open_sql
from protocols.smpp.message_ids import candidates


class Hand:
    """A clock that a test turns."""

    def __init__(self):
        self.reading = 1000.0

    def now(self):
        return self.reading


@pytest.fixture
def clock():
    return Hand()


class MemoryKind:
    """Opens memory stores, whose groups a running task commits."""

    name = "memory"

    def __init__(self, clock, directory):
        self.clock = clock

    @contextlib.asynccontextmanager
    async def opened(self):
        store = MemoryStore(self.clock.now, auto_commit=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            yield store
            nursery.cancel_scope.cancel()
        await store.close()


class RocksKind:
    """Opens RocksDB stores in a directory of the test."""

    name = "rocks"
    remembered = 1000

    def __init__(self, clock, directory):
        self.clock = clock
        self.directory = directory / "data"

    @contextlib.asynccontextmanager
    async def opened(self):
        store = await open_rocks(self.directory, self.clock.now, min_free_mb=1, remembered=self.remembered)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            yield store
            nursery.cancel_scope.cancel()
        await store.close()


class ForgetfulRocksKind(RocksKind):
    """The same with next to nothing in memory, so that answers come from the disk."""

    name = "rocks-forgetful"
    remembered = 0


class SqlKind:
    """Opens stores in a schema of the test, in a real MariaDB server."""

    name = "sql"
    remembered = 1000

    def __init__(self, clock, directory):
        self.clock = clock
        self.directory = directory

    @contextlib.asynccontextmanager
    async def opened(self):
        async with mariadb_server.fresh_schema() as account, self.journal() as journal:
            await make_schema(account)
            space = Space(self.directory, 1, free_bytes)
            store = await open_sql(
                account,
                self.clock.now,
                Opening(space=space, connections=3, statement_timeout_s=30, remembered=self.remembered, **journal),
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.run)
                yield store
                nursery.cancel_scope.cancel()
            await store.close()

    @contextlib.asynccontextmanager
    async def journal(self):
        yield {}


class ForgetfulSqlKind(SqlKind):
    """The same with next to nothing in memory, so that answers come from the server."""

    name = "sql-forgetful"
    remembered = 0


class JournallingSqlKind(SqlKind):
    """Journals every open message, as no commit is fast enough for it."""

    name = "sql-journalling"

    @contextlib.asynccontextmanager
    async def journal(self):
        journal = await open_journal(self.directory / "data")
        yield {"journal": journal, "journal_after_s": 0.0}
        await journal.close()


class SharedKind(SqlKind):
    """Opens the partition of a node of a cluster, in a schema of the test."""

    name = "shared"

    @contextlib.asynccontextmanager
    async def opened(self):
        async with mariadb_server.fresh_schema() as account:
            await make_schema(account)
            store = await open_shared(
                account,
                self.clock.now,
                "gw1",
                1,
                Opening(
                    space=Space(self.directory, 1, free_bytes),
                    connections=3,
                    statement_timeout_s=30,
                    remembered=self.remembered,
                ),
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.run)
                yield store
                nursery.cancel_scope.cancel()
            await store.close()


async def make_schema(account):
    pool = Pool(account, 1, 30)
    await schema.init(pool)
    await pool.close()


KINDS = [MemoryKind, RocksKind, ForgetfulRocksKind, SqlKind, ForgetfulSqlKind, JournallingSqlKind, SharedKind]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
async def store(request, clock, tmp_path):
    async with request.param(clock, tmp_path).opened() as opened:
        yield opened


def an_open(message_id, *, operator="acme", expires_at=5000.0, owner="gw1", **changes):
    fields = {"destination": b"4790000000", "source": b"2000", "session": 7, "submitted_at": 900.0} | changes
    return OpenMessage(operator=operator, message_id=message_id, owner=owner, expires_at=expires_at, **fields)


def a_lookup(reported, operator="acme"):
    return Lookup(operator, reported, candidates(reported))


async def durable(store):
    """Wait until everything written so far is durable."""
    done = trio.Event()
    store.after_durable(done.set)
    with trio.fail_after(100):
        await done.wait()


async def find_one(store, lookup):
    (found,) = await store.find([lookup])
    return found


async def test_store_id_is_eight_bytes_and_stays(store):
    assert len(store.store_id) == 8
    assert store.store_id == store.store_id


async def test_accepts_from_the_start(store):
    assert store.accepting


# --- open messages ---------------------------------------------------------------------------------------------------


async def test_a_record_is_found_before_and_after_it_is_durable(store):
    message = an_open(b"abc-1")
    store.put_open(message)
    assert await find_one(store, a_lookup(b"abc-1")) == [message]
    await durable(store)
    assert await find_one(store, a_lookup(b"abc-1")) == [message]
    assert store.remembered("acme", b"abc-1") == message


async def test_what_is_remembered_is_unchanged_until_it_is_closed_or_put_again(store):
    first, second = an_open(b"7"), an_open(b"8", operator="other", owner="gw2", submitted_at=901.5)
    for message in (first, second):
        store.put_open(message)
    await durable(store)
    assert await store.unchanged([m for m in (first, second) if store.remembered(*m.key)])
    store.put_open(an_open(b"7", owner="gw3", submitted_at=902.0))
    assert not await store.unchanged([first, second])
    await durable(store)
    assert not await store.unchanged([first])
    store.close_open("other", b"8", 1000.0, 2000.0)
    assert not await store.unchanged([second])
    await durable(store)
    assert not await store.unchanged([second])


async def test_an_unknown_id_finds_nothing(store):
    store.put_open(an_open(b"abc-1"))
    assert await find_one(store, a_lookup(b"abc-2")) == []
    assert store.recent("acme", b"abc-2") is None


async def test_one_call_answers_many_lookups_in_their_order(store):
    messages = [an_open(b"m-%d" % number) for number in range(50)]
    for message in messages:
        store.put_open(message)
    lookups = [a_lookup(b"m-%d" % number) for number in range(-1, 51)]
    found = await store.find(lookups)
    assert found == [[], *([message] for message in messages), []]
    assert await store.find([]) == []


async def test_operators_do_not_share_ids(store):
    ours, theirs = an_open(b"77", operator="acme"), an_open(b"77", operator="other", owner="gw2")
    store.put_open(ours)
    store.put_open(theirs)
    assert await find_one(store, a_lookup(b"77")) == [ours]
    assert await find_one(store, a_lookup(b"77", operator="other")) == [theirs]
    assert await find_one(store, a_lookup(b"77", operator="acm")) == []


@pytest.mark.parametrize(
    ("stored", "reported"),
    [
        (b"0012ab", b"12AB"),  # padding and case
        (b"12AB", b"0012ab"),
        (b"00000000000000000042", b"42"),
        (b"42", b"00000042"),
        (b"FF", b"255"),  # response hex, report decimal
        (b"255", b"ff"),  # response decimal, report hex
        (b"FFFFFFFFFFFFFFFFFF", b"4722366482869645213695"),  # above 64 bits
        (b"0000000000", b"0"),
    ],
)
@pytest.mark.parametrize("when", ["pending", "durable"])
async def test_a_record_is_found_by_another_form_of_its_id(store, stored, reported, when):
    message = an_open(stored)
    store.put_open(message)
    if when == "durable":
        await durable(store)
    assert await find_one(store, a_lookup(reported)) == [message]


@pytest.mark.parametrize(
    ("stored", "reported"),
    [
        (b"4062581461565934000241", b"40625814615659340002410"),
        (b"550e8400-e29b-41d4-a716-446655440000", b"550E8400-E29B-41D4-A716-446655440000"),
        (b"0xyz", b"xyz"),
        (b"1000", b"1001"),
    ],
)
async def test_near_misses_are_not_found(store, stored, reported):
    store.put_open(an_open(stored))
    await durable(store)
    assert await find_one(store, a_lookup(reported)) == []


@pytest.mark.parametrize("when", ["pending", "durable", "one of each"])
async def test_two_ids_with_one_normal_form_are_both_found_the_exact_one_first(store, when):
    short, padded, upper = an_open(b"12ab"), an_open(b"0012ab", owner="gw2"), an_open(b"12AB", owner="gw3")
    store.put_open(short)
    store.put_open(padded)
    if when == "one of each":
        await durable(store)
    store.put_open(upper)
    if when == "durable":
        await durable(store)
    for first in (short, padded, upper):
        found = await find_one(store, a_lookup(first.message_id))
        assert found[0] == first
        assert {record.message_id for record in found} == {b"12ab", b"0012ab", b"12AB"}
        assert len(found) == 3
    found = await find_one(store, a_lookup(b"012Ab"))
    assert {record.owner for record in found} == {"gw1", "gw2", "gw3"}


async def test_the_newest_submission_with_an_id_wins(store):
    store.put_open(an_open(b"0A", owner="gw1"))
    await durable(store)
    newer = an_open(b"0A", owner="gw2", submitted_at=990.0)
    store.put_open(newer)
    for _ in range(2):
        assert await find_one(store, a_lookup(b"0A")) == [newer]
        assert await find_one(store, a_lookup(b"a")) == [newer]
        await durable(store)


async def test_an_expired_record_is_never_returned(store, clock):
    message = an_open(b"0A", expires_at=1100.0)
    store.put_open(message)
    await durable(store)
    clock.reading = 1099.0
    assert await find_one(store, a_lookup(b"0A")) == [message]
    clock.reading = 1100.0
    assert await find_one(store, a_lookup(b"0A")) == []
    assert await find_one(store, a_lookup(b"a")) == []
    assert store.recent("acme", b"0A") is None


async def test_closing_keeps_the_record_for_a_grace_period(store, clock):
    store.put_open(an_open(b"m-1", expires_at=9000.0))
    await durable(store)
    store.close_open("acme", b"m-1", final_at=1010.0, expires_at=1500.0)
    for _ in range(2):
        (record,) = await find_one(store, a_lookup(b"m-1"))
        assert (record.final_at, record.expires_at, record.owner, record.session) == (1010.0, 1500.0, "gw1", 7)
        await durable(store)
    clock.reading = 1501.0
    assert await find_one(store, a_lookup(b"m-1")) == []


async def test_closing_in_the_same_group_as_the_submission(store):
    store.put_open(an_open(b"m-1"))
    store.close_open("acme", b"m-1", final_at=1010.0, expires_at=1500.0)
    await durable(store)
    (record,) = await find_one(store, a_lookup(b"m-1"))
    assert record.final_at == 1010.0


async def test_closing_an_unknown_id_does_nothing(store):
    store.close_open("acme", b"m-1", final_at=1010.0, expires_at=1500.0)
    await durable(store)
    assert await find_one(store, a_lookup(b"m-1")) == []


async def test_an_id_that_is_used_again_after_its_final_report_is_open_again(store):
    store.put_open(an_open(b"m-1"))
    store.close_open("acme", b"m-1", final_at=1010.0, expires_at=1500.0)
    await durable(store)
    store.close_open("acme", b"m-1", final_at=1011.0, expires_at=1501.0)
    again = an_open(b"m-1", owner="gw2")
    store.put_open(again)
    await durable(store)
    assert await find_one(store, a_lookup(b"m-1")) == [again]


# --- durability and callbacks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["after_durable", "after_opened"])
async def test_callbacks_come_in_the_order_of_registration_over_many_groups(store, when):
    calls = []
    for number in range(300):
        store.put_open(an_open(b"m-%d" % number))
        getattr(store, when)(lambda number=number: calls.append(number))
        if number % 7 == 0:
            await trio.lowlevel.checkpoint()
        if number % 50 == 0:
            await trio.sleep(0.002)
    await durable(store)
    assert calls == list(range(300))


async def test_who_waits_for_open_messages_is_never_later_than_who_waits_for_everything(store):
    calls = []
    for number in range(50):
        store.put_open(an_open(b"m-%d" % number))
        store.put(Table.CUSTODY, b"%d" % number, b"x")
        store.after_opened(lambda number=number: calls.append(("opened", number)))
        store.after_durable(lambda number=number: calls.append(("durable", number)))
        if number % 5 == 0:
            await trio.lowlevel.checkpoint()
    await durable(store)
    for number in range(50):
        assert calls.index(("opened", number)) < calls.index(("durable", number))
    assert len(calls) == 100


async def test_nobody_is_called_for_an_open_message_in_the_same_step(store):
    calls = []
    store.put_open(an_open(b"m-1"))
    store.after_opened(lambda: calls.append(1))
    assert calls == []
    await durable(store)
    assert calls == [1]


async def test_no_callback_before_the_write_is_durable(store):
    calls = []
    store.put(Table.CUSTODY, b"1", b"x")
    store.after_durable(lambda: calls.append(1))
    assert calls == []
    await durable(store)
    assert calls == [1]


@pytest.mark.parametrize("when", ["after_durable", "after_opened"])
async def test_with_nothing_to_write_the_callback_comes_at_once(store, when):
    calls = []
    getattr(store, when)(lambda: calls.append(1))
    assert calls == [1]


async def test_a_callback_may_register_another_and_write(store):
    calls = []

    def first():
        calls.append("first")
        store.after_durable(lambda: calls.append("third"))
        store.put(Table.CUSTODY, b"2", b"y")
        store.after_durable(lambda: calls.append("fourth"))

    store.put(Table.CUSTODY, b"1", b"x")
    store.after_durable(first)
    store.after_durable(lambda: calls.append("second"))
    await durable(store)
    await durable(store)
    assert calls == ["first", "second", "third", "fourth"]
    assert await store.get(Table.CUSTODY, b"2") == b"y"


# --- rows ------------------------------------------------------------------------------------------------------------


async def test_rows_are_read_back_before_and_after_they_are_durable(store):
    store.put(Table.PARKED, b"k", b"v")
    for _ in range(2):
        assert await store.get(Table.PARKED, b"k") == b"v"
        assert await store.get(Table.CUSTODY, b"k") is None
        assert await store.get(Table.PARKED, b"k2") is None
        await durable(store)


async def test_an_empty_value_is_a_value(store):
    store.put(Table.META, b"flag", b"")
    for _ in range(2):
        assert await store.get(Table.META, b"flag") == b""
        assert (b"flag", b"") in await store.scan(Table.META)
        await durable(store)


async def test_a_deleted_row_is_gone_before_the_deletion_is_durable(store):
    store.put(Table.PARKED, b"k", b"v")
    store.put(Table.PARKED, b"l", b"w")
    await durable(store)
    store.delete(Table.PARKED, b"k")
    store.delete(Table.PARKED, b"never there")
    for _ in range(2):
        assert await store.get(Table.PARKED, b"k") is None
        assert await store.scan(Table.PARKED) == [(b"l", b"w")]
        await durable(store)


async def test_the_last_write_of_a_row_wins(store):
    for value in (b"1", b"2"):
        store.put(Table.PARKED, b"k", value)
    store.delete(Table.PARKED, b"k")
    store.put(Table.PARKED, b"k", b"3")
    for _ in range(2):
        assert await store.get(Table.PARKED, b"k") == b"3"
        await durable(store)


async def test_get_many_sees_durable_and_fresh_rows_in_the_order_that_is_asked_for(store):
    for key in (b"a", b"b", b"c"):
        store.put(Table.PARKED, key, b"durable " + key)
    await durable(store)
    store.delete(Table.PARKED, b"b")
    store.put(Table.PARKED, b"d", b"fresh")
    keys = [b"d", b"none", b"c", b"b", b"a"]
    assert await store.get_many(Table.PARKED, keys) == [b"fresh", None, b"durable c", None, b"durable a"]
    assert await store.get_many(Table.PARKED, []) == []


async def test_scan_gives_key_order_over_durable_and_fresh_rows(store):
    keys = [b"%04d" % number for number in range(40)]
    for key in keys[::2]:
        store.put(Table.CUSTODY, key, b"durable")
    await durable(store)
    for key in keys[1::2]:
        store.put(Table.CUSTODY, key, b"fresh")
    store.put(Table.CUSTODY, keys[4], b"changed")
    store.delete(Table.CUSTODY, keys[6])
    store.delete(Table.CUSTODY, keys[7])
    expected = {key: b"durable" if not number % 2 else b"fresh" for number, key in enumerate(keys)}
    expected[keys[4]] = b"changed"
    del expected[keys[6]], expected[keys[7]]
    assert await store.scan(Table.CUSTODY) == sorted(expected.items())
    await durable(store)
    assert await store.scan(Table.CUSTODY) == sorted(expected.items())


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_scan_in_pages_gives_every_row_once(store, limit):
    keys = [b"%04d" % number for number in range(30)]
    for key in keys:
        store.put(Table.CUSTODY, key, key)
    await durable(store)
    for key in keys[5:15]:
        store.delete(Table.CUSTODY, key)
    store.put(Table.CUSTODY, b"0005x", b"fresh")
    pages, after = [], b""
    while page := await store.scan(Table.CUSTODY, after, limit):
        assert len(page) <= limit
        pages += page
        after = page[-1][0]
    assert [key for key, _ in pages] == sorted([*keys[:5], b"0005x", *keys[15:]])


async def test_scan_of_an_empty_table(store):
    assert await store.scan(Table.PARKED) == []


# --- expiry ----------------------------------------------------------------------------------------------------------


async def test_expire_returns_what_never_got_a_final_report(store, clock):
    store.put_open(an_open(b"unreported", expires_at=1100.0))
    store.put_open(an_open(b"reported", expires_at=9000.0))
    store.put_open(an_open(b"still open", expires_at=9000.0))
    store.close_open("acme", b"reported", final_at=1001.0, expires_at=1200.0)
    await durable(store)
    assert (await store.expire(clock.now())).unreported == []
    clock.reading = 2000.0
    assert [record.message_id for record in (await store.expire(clock.now())).unreported] == [b"unreported"]
    await durable(store)
    assert (await store.expire(clock.now())).unreported == []
    assert [record.message_id for record in await find_one(store, a_lookup(b"still open"))] == [b"still open"]


class Follower:
    """What a store says of open messages; `open` as it follows from it."""

    def __init__(self):
        self.said = []

    def opened(self, operator, message_id):
        self.said.append(("opened", message_id))

    def closed(self, operator, message_id):
        self.said.append(("closed", message_id))


async def test_a_follower_is_told_what_is_opened_closed_and_expires(store, clock):
    follower = Follower()
    store.follow(follower)
    for message_id in (b"1", b"2", b"3"):
        store.put_open(an_open(message_id, expires_at=clock.now() + 100))
    store.put_open(an_open(b"many", destination=MANY, expires_at=clock.now() + 100))
    store.close_open("acme", b"1", clock.now(), clock.now() + 100)
    store.close_open("acme", b"many", clock.now(), clock.now() + 100)
    await durable(store)
    assert follower.said == [*(("opened", each) for each in (b"1", b"2", b"3", b"many")), ("closed", b"1")]
    clock.reading += 200
    follower.said.clear()
    await store.expire(clock.now())
    assert {message_id for _, message_id in follower.said} >= {b"2", b"3", b"many"}
    assert {what for what, _ in follower.said} == {"closed"}


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_what_is_stored_and_awaited_is_read_in_pages(store, clock, limit):
    for operator in ("acme", "best"):
        for number in range(5):
            store.put_open(an_open(b"%d" % number, operator=operator))
    store.put_open(an_open(b"many", destination=MANY))
    store.put_open(an_open(b"late", expires_at=clock.now() - 1))
    await durable(store)
    store.close_open("acme", b"3", clock.now(), clock.now() + 1000)
    store.close_open("acme", b"many", clock.now(), clock.now() + 1000)
    for _ in range(2):
        found, after = [], b""
        while True:
            messages, after = await store.scan_open(after, limit)
            assert len(messages) <= limit
            found += [message.key for message in messages]
            if not after:
                break
        ids = [(operator, b"%d" % number) for operator in ("acme", "best") for number in range(5)]
        assert sorted(found) == sorted({*ids, ("acme", b"many")} - {("acme", b"3")})
        await durable(store)


async def test_what_is_expired_is_not_returned_a_second_time_before_it_is_durable(store, clock):
    for number in range(20):
        store.put_open(an_open(b"m-%d" % number, expires_at=1100.0))
    await durable(store)
    clock.reading = 2000.0
    first = (await store.expire(clock.now())).unreported
    second = (await store.expire(clock.now())).unreported
    assert len(first) == 20
    assert second == []


async def test_expire_takes_no_more_than_its_limit_and_the_rest_next_time(store, clock):
    for number in range(25):
        store.put_open(an_open(b"m-%d" % number, expires_at=1100.0))
    await durable(store)
    clock.reading = 2000.0
    seen = []
    for expected in (10, 10, 5, 0):
        gone = (await store.expire(clock.now(), limit=10)).unreported
        assert len(gone) == expected
        seen += gone
        await durable(store)
    assert {record.message_id for record in seen} == {b"m-%d" % number for number in range(25)}


async def test_a_record_submitted_again_expires_at_its_new_time(store, clock):
    store.put_open(an_open(b"0A", expires_at=1100.0))
    await durable(store)
    newer = an_open(b"0A", expires_at=9000.0, owner="gw2")
    store.put_open(newer)
    await durable(store)
    clock.reading = 2000.0
    assert (await store.expire(clock.now())).unreported == []
    await durable(store)
    assert await find_one(store, a_lookup(b"a")) == [newer]
    clock.reading = 9100.0
    assert (await store.expire(clock.now())).unreported == [newer]
    await durable(store)
    clock.reading = 2000.0  # only to show that nothing is left, not even hidden by its age
    assert await find_one(store, a_lookup(b"0A")) == []
    assert await find_one(store, a_lookup(b"a")) == []


async def test_an_id_used_again_while_its_expiry_is_not_durable_is_kept(store, clock):
    store.put_open(an_open(b"0A", expires_at=1100.0))
    await durable(store)
    clock.reading = 2000.0
    assert len((await store.expire(clock.now())).unreported) == 1
    newer = an_open(b"0A", expires_at=9000.0, owner="gw2")
    store.put_open(newer)
    for _ in range(2):
        assert await find_one(store, a_lookup(b"0A")) == [newer]
        assert await find_one(store, a_lookup(b"a")) == [newer]
        await durable(store)


async def test_expiring_one_of_two_ids_with_one_normal_form_keeps_the_other(store, clock):
    store.put_open(an_open(b"0A", expires_at=1100.0))
    other = an_open(b"00A", expires_at=9000.0)
    store.put_open(other)
    await durable(store)
    clock.reading = 2000.0
    assert len((await store.expire(clock.now())).unreported) == 1
    for _ in range(2):
        assert await find_one(store, a_lookup(b"a")) == [other]
        await durable(store)
