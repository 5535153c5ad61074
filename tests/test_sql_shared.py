"""The store of a cluster: a partition for each node, what goes from one to another, and taking over from a dead one.

On one server: that several servers of a cluster decide alike is Galera's, and `test_galera_*` ask it.
"""

import contextlib

import mariadb_server
import pytest
import trio
from attrs import evolve
from test_store_contract import a_lookup, an_open, durable, find_one

from dlrproxy.keeping.set_aside import SetAside
from dlrproxy.modes.merging import CAME_HOME
from dlrproxy.store.directory import free_bytes
from dlrproxy.store.group import Group
from dlrproxy.store.journal import open_journal
from dlrproxy.store.port import Lookup, OpenMessage, StoreError, Table
from dlrproxy.store.space import Space
from dlrproxy.store.sql import partition, schema
from dlrproxy.store.sql.backend import CAUSAL, SqlBackend
from dlrproxy.store.sql.errors import FencedError, UnknownOutcomeError
from dlrproxy.store.sql.fence import FENCE
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import delete_expired
from dlrproxy.store.sql.store import Opening, open_shared

NOW = 1000.0


@pytest.fixture
async def pool():
    async with mariadb_server.fresh_schema() as account:
        pool = Pool(account, 2, 30)
        await schema.init(pool)
        yield pool
        await pool.close()


def opened(pool, node, tmp_path, epoch=1):
    space = Space(tmp_path, 0, free_bytes)
    return open_shared(
        pool.account,
        lambda: NOW,
        node,
        epoch,
        Opening(space=space, connections=2, statement_timeout_s=30, remembered=0),
    )


@contextlib.asynccontextmanager
async def running(pool, node, tmp_path):
    store = await opened(pool, node, tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield store
        nursery.cancel_scope.cancel()
    await store.close()


@contextlib.asynccontextmanager
async def opened_with_memory(pool, node, tmp_path):
    """As `running`, but that it remembers what it has written."""
    space = Space(tmp_path, 0, free_bytes)
    store = await open_shared(
        pool.account, lambda: NOW, node, 1, Opening(space=space, connections=2, statement_timeout_s=30)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield store
        nursery.cancel_scope.cancel()
    await store.close()


async def test_what_the_journal_holds_reaches_the_database_as_a_term_begins(pool, tmp_path):
    journal = await open_journal(tmp_path)
    await pool.run("INSERT INTO members (node,epoch,beat,home,taken,heir,moved) VALUES ('a',1,1,'',0,'',0)")
    await pool.run("INSERT INTO members (node,epoch,beat,home,taken,heir,moved) VALUES ('b',1,1,'',0,'',0)")
    message = OpenMessage("acme", b"1", "gw1", b"47", b"20", 7, 900.0, 5000.0, 0.0)
    await journal.write([message])
    space = Space(tmp_path, 0, free_bytes)
    store = await open_shared(
        pool.account, lambda: NOW, "a", 1, Opening(space=space, connections=2, statement_timeout_s=30, journal=journal)
    )
    assert journal.size == 0
    assert await store.find([Lookup("acme", b"1", ())]) == [[message]]
    notes = await pool.run(f"SELECT node FROM items WHERE LEFT(name,{len(CAME_HOME)})='{CAME_HOME.decode()}'")  # noqa: S608
    assert sorted(notes.rows) == [(b"a",), (b"b",)]  # each looks again at what it has parked
    await store.close()
    await journal.close()


async def rows_of(pool):
    """Every row but those that a store keeps of itself: node, kind and name, with the content."""
    result = await pool.run("SELECT node,kind,name,content FROM items WHERE kind NOT IN ('fence','meta')")
    return {(node.decode(), kind.decode(), name): content for node, kind, name, content in result.rows}


async def put(pool, node, kind, *names):
    for name in names:
        await pool.run(f"INSERT INTO items VALUES ('{node}','{kind}','{name}','of {name}')")  # noqa: S608


def a_group(*rows, inbox=()):
    group = Group()
    for table, key, value in rows:
        group.set_row(table, key, value)
    for node, key, value in inbox:
        group.set_inbox(node, key, value)
    return group


# --- partitions


async def test_nodes_see_the_same_open_messages_and_rows_of_their_own(pool, tmp_path):
    async with running(pool, "a", tmp_path) as a, running(pool, "b", tmp_path) as b:
        assert a.store_id != b.store_id
        a.put_open(an_open(b"m-1"))
        a.put(Table.CUSTODY, b"k", b"of a")
        await durable(a)
        b.put(Table.CUSTODY, b"k", b"of b")
        await durable(b)
        assert await find_one(b, a_lookup(b"m-1"))
        assert await a.get(Table.CUSTODY, b"k") == b"of a"
        assert await b.scan(Table.CUSTODY) == [(b"k", b"of b")]
        a.delete(Table.CUSTODY, b"k")
        await durable(a)
        assert await rows_of(pool) == {("b", "custody", b"k"): b"of b"}


async def test_a_partition_keeps_its_store_id(pool, tmp_path):
    async with running(pool, "a", tmp_path) as store:
        first = store.store_id
    async with running(pool, "a", tmp_path) as store:
        assert store.store_id == first


@pytest.mark.parametrize("page", [1, 3, 4, 100])
async def test_what_a_crash_left_without_content_is_swept_as_the_next_term_begins(pool, tmp_path, monkeypatch, page):
    monkeypatch.setattr(partition, "ROWS", 2)
    monkeypatch.setattr(partition, "PAGE", page)
    fence = await partition.fence(pool, "a", 1)
    await put(pool, "a", "custody", "k0", "k1", "k2", "stays")
    await put(pool, "a", "inbox", "i0")
    await put(pool, "a", "parked", "p0", "p1")
    await put(pool, "b", "custody", "k0")
    gone = [(Table.CUSTODY, b"k%d" % number, None) for number in range(3)]
    group = a_group(*gone, (Table.PARKED, b"p0", None), inbox=[("a", b"i0", None)])
    await pool.run(next(iter(fence.statements_of(group))))  # and it crashes before the others
    assert len(await rows_of(pool)) == 8
    async with running(pool, "a", tmp_path):
        assert await rows_of(pool) == {
            ("a", "custody", b"stays"): b"of stays",
            ("a", "parked", b"p1"): b"of p1",
            ("b", "custody", b"k0"): b"of k0",
        }


async def test_what_is_put_into_an_inbox_is_there_for_that_node_until_it_takes_it(pool, tmp_path):
    async with running(pool, "a", tmp_path) as a, running(pool, "b", tmp_path) as b:
        a.put(Table.CUSTODY, b"k", b"v")
        await durable(a)
        a.delete(Table.CUSTODY, b"k")
        a.put_into_inbox("b", b"k", b"v")
        await durable(a)
        assert await rows_of(pool) == {("b", "inbox", b"k"): b"v"}
        assert await a.inbox() == []
        assert await b.inbox() == [(b"k", b"v")]
        b.put(Table.CUSTODY, b"k", b"v")
        b.take_from_inbox(b"k")
        assert await b.inbox() == []
        await durable(b)
        assert await b.inbox() == []
        assert await rows_of(pool) == {("b", "custody", b"k"): b"v"}


@pytest.mark.parametrize(
    "group",
    [
        a_group((Table.CUSTODY, b"k", None), inbox=[("b", b"k", b"v")]),
        a_group((Table.CUSTODY, b"k", None), (Table.PARKED, b"k", b"v")),
    ],
    ids=["to another node", "parked"],
)
async def test_a_row_that_moves_is_at_every_moment_in_exactly_one_place(pool, group):
    fence = await partition.fence(pool, "a", 1)
    await put(pool, "a", "custody", "k")
    for statement in ("DO 0", *fence.statements_of(group)):
        await pool.run(statement)
        seen = [place for place, content in (await rows_of(pool)).items() if content is not None]
        assert len(seen) == 1
    assert len(await rows_of(pool)) == 1


# --- fences


async def test_whoever_begins_later_shuts_out_who_began_before(pool):
    before = await partition.fence(pool, "a", 1)
    after = await partition.fence(pool, "a", 2)
    late, *_ = before.statements_of(a_group((Table.CUSTODY, b"k", b"late"), (Table.CUSTODY, b"l", b"late")))
    with pytest.raises(FencedError):
        await pool.run(late)
    assert await rows_of(pool) == {}
    for statement in after.statements_of(a_group((Table.CUSTODY, b"k", b"v"))):
        await pool.run(statement)
    assert await rows_of(pool) == {("a", "custody", b"k"): b"v"}


async def test_a_fence_is_for_one_partition(pool):
    fence = await partition.fence(pool, "a", 1)
    await partition.fence(pool, "b", 7)
    for statement in fence.statements_of(a_group((Table.CUSTODY, b"k", b"v"), inbox=[("b", b"l", b"v")])):
        await pool.run(statement)
    assert set(await rows_of(pool)) == {("a", "custody", b"k"), ("b", "inbox", b"l")}


async def test_a_write_may_be_repeated(pool):
    fence = await partition.fence(pool, "a", 1)
    statements = list(fence.statements_of(a_group((Table.CUSTODY, b"k", b"v"), (Table.CUSTODY, b"gone", None))))
    for statement in statements * 2:
        await pool.run(statement)
    assert await rows_of(pool) == {("a", "custody", b"k"): b"v"}


async def test_nobody_begins_under_an_epoch_that_is_over(pool):
    await partition.fence(pool, "a", 3)
    await partition.fence(pool, "a", 3)
    with pytest.raises(FencedError, match="under epoch 3, which is after 2"):
        await partition.fence(pool, "a", 2)


async def test_of_many_that_begin_at_once_the_highest_epoch_is_left(pool):
    async def begin(epoch):
        with contextlib.suppress(FencedError):
            await partition.fence(pool, "a", epoch)

    async with trio.open_nursery() as nursery:
        for epoch in range(1, 9):
            nursery.start_soon(begin, epoch)
    with pytest.raises(FencedError):
        await partition.fence(pool, "a", 7)
    await partition.fence(pool, "a", 8)


async def test_a_store_that_was_taken_over_from_ends_and_writes_nothing_more(pool, tmp_path):
    store = await opened(pool, "a", tmp_path)
    await partition.move(pool, "a", 2, "b")
    called = []
    store.put(Table.CUSTODY, b"k", b"late")
    store.after_durable(lambda: called.append(1))
    with pytest.raises(ExceptionGroup) as ended:
        await store.run()
    assert ended.group_contains(StoreError, match="another node has taken over the custody of a")
    with pytest.raises(StoreError, match="another node has taken over the custody of a"):
        await store.close()
    assert called == []
    assert await rows_of(pool) == {}


# --- taking over


async def test_the_heir_gets_custody_in_its_inbox_and_parked_rows_as_such(pool):
    await put(pool, "a", "custody", "c1", "c2")
    await put(pool, "a", "inbox", "i1")
    await put(pool, "a", "parked", "p1")
    await put(pool, "a", "meta", "run")
    await put(pool, "b", "custody", "own")
    assert await partition.move(pool, "a", 2, "b") == {Table.CUSTODY: 3, Table.PARKED: 1}
    assert await rows_of(pool) == {
        ("b", "inbox", b"c1"): b"of c1",
        ("b", "inbox", b"c2"): b"of c2",
        ("b", "inbox", b"i1"): b"of i1",
        ("b", "parked", b"p1"): b"of p1",
        ("b", "custody", b"own"): b"of own",
    }
    left = await pool.run("SELECT kind FROM items WHERE node='a' ORDER BY kind")
    assert left.rows == ((b"fence",), (b"meta",))


async def test_what_the_dead_node_could_not_read_comes_to_the_heir_who_may(pool, tmp_path):
    await put(pool, "a", "meta", "run", "unreadable", "unreadable/k1", "unreadable/k2")
    assert await partition.move(pool, "a", 2, "b") == {Table.CUSTODY: 2}
    assert await rows_of(pool) == {
        ("b", "inbox", b"unreadable/k1"): b"of unreadable/k1",
        ("b", "inbox", b"unreadable/k2"): b"of unreadable/k2",
    }
    async with running(pool, "b", tmp_path) as b:
        rows = await b.inbox()
        assert SetAside(b).readable(rows) == []  # nor can this one
        await durable(b)
        assert await b.inbox() == []
    assert await partition.move(pool, "b", 2, "c") == {Table.CUSTODY: 2}  # and so on
    assert sorted((await rows_of(pool)).values()) == [b"of unreadable/k1", b"of unreadable/k2"]


async def test_a_takeover_may_end_anywhere_and_another_node_goes_on(pool, monkeypatch):
    names = [f"c{number:02}" for number in range(20)]
    await put(pool, "a", "custody", *names)
    monkeypatch.setattr(partition, "ROWS", 3)
    left = 4

    class Ending(Pool):
        async def run(self, statement, timeout_s=None):
            nonlocal left
            if "SET node=" in statement:
                left -= 1
                if left == 0:
                    raise StoreError("its process has ended")
            return await super().run(statement, timeout_s)

    ending = Ending(pool.account, 1, 30)
    with pytest.raises(StoreError, match="has ended"):
        await partition.move(ending, "a", 2, "b")
    await ending.close()
    assert (await partition.move(pool, "a", 2, "c"))[Table.CUSTODY] == 11
    places = [node for node, _, _ in await rows_of(pool)]
    assert (places.count("a"), places.count("b"), places.count("c")) == (0, 9, 11)


async def test_who_takes_over_stops_when_the_dead_node_is_back(pool, monkeypatch):
    await put(pool, "a", "custody", "c1", "c2")
    monkeypatch.setattr(partition, "ROWS", 1)

    class Overtaken(Pool):
        async def run(self, statement, timeout_s=None):
            result = await super().run(statement, timeout_s)
            if "SET node=" in statement:
                await partition.fence(pool, "a", 3)
            return result

    overtaken = Overtaken(pool.account, 1, 30)
    with pytest.raises(FencedError):
        await partition.move(overtaken, "a", 2, "b")
    await overtaken.close()
    assert set(await rows_of(pool)) == {("b", "inbox", b"c1"), ("a", "custody", b"c2")}


# --- expiry


async def test_what_another_node_has_closed_expires_when_that_one_says(pool, tmp_path):
    async with opened_with_memory(pool, "a", tmp_path) as a, running(pool, "b", tmp_path) as b:
        a.put_open(an_open(b"m-1", expires_at=NOW + 1000))
        await durable(a)
        b.close_open("acme", b"m-1", NOW, NOW + 10)
        await durable(b)
        expired = await a.expire(NOW + 20)
        assert expired.more
        await durable(a)
        assert not (await a.expire(NOW + 20)).more
        assert not (await pool.run("SELECT message_id FROM open_messages")).rows


async def test_an_id_that_another_node_uses_again_while_it_expires_is_kept(pool, tmp_path):
    async with running(pool, "a", tmp_path) as a, running(pool, "b", tmp_path) as b:
        a.put_open(an_open(b"m-1", owner="gw2", expires_at=NOW + 1000))
        await durable(a)
        for statement in delete_expired([("acme", b"m-1")], NOW + 20):  # what was found before
            await pool.run(statement)
        assert [message.owner for message in await find_one(b, a_lookup(b"m-1"))] == ["gw2"]


# --- the second look


async def test_a_miss_is_looked_for_again_once_this_server_has_caught_up(pool, tmp_path, monkeypatch):
    asked = []
    behind = True
    read = SqlBackend.read_opens

    async def read_opens(self, keys, forms):
        asked.append({message_id for _, message_id in keys})
        return ({}, {}) if behind else await read(self, keys, forms)

    async def catch_up(self):
        nonlocal behind
        behind = False

    async with running(pool, "a", tmp_path) as a, running(pool, "b", tmp_path) as b:
        a.put_open(an_open(b"m-1"))
        await durable(a)
        monkeypatch.setattr(SqlBackend, "read_opens", read_opens)
        monkeypatch.setattr(SqlBackend, "catch_up", catch_up)
        assert await find_one(b, a_lookup(b"m-1"))
        assert len(asked) == 2
        asked.clear()
        known, unknown = await b.find([a_lookup(b"m-1"), a_lookup(b"nobodys")])
        assert known
        assert not unknown
        assert [b"nobodys" in ids for ids in asked] == [True, True]


async def test_what_another_node_has_finished_is_known_though_memory_says_otherwise(pool, tmp_path):
    async with running(pool, "a", tmp_path) as a, running(pool, "b", tmp_path) as b:
        for message_id in (b"m-1", b"m-2"):
            a.put_open(an_open(message_id))
        await durable(a)
        b.close_open("acme", b"m-1", NOW, 5000.0)
        await durable(b)
        assert not a.remembered("acme", b"m-1").finished
        assert await a.finished([("acme", b"m-1"), ("acme", b"m-2"), ("acme", b"nobodys")]) == {("acme", b"m-1")}


async def test_a_server_without_a_cluster_has_nothing_to_catch_up_with(pool):
    causal = Pool(evolve(pool.account, session=CAUSAL), 1, 30)
    await SqlBackend(pool, None, causal).catch_up()
    assert [(await each.run("SELECT @@wsrep_sync_wait")).rows for each in (causal, pool)] == [((1,),), ((0,),)]
    await causal.close()


async def test_each_connection_begins_with_what_its_account_says(pool):
    """Also one that is dialled in place of one that broke."""
    causal = Pool(evolve(pool.account, session=CAUSAL), 1, 30)
    thread_id = (await causal.run("SELECT CONNECTION_ID()")).rows[0][0]
    await pool.run(f"KILL CONNECTION {thread_id}")
    with pytest.raises(UnknownOutcomeError):
        await causal.run("SELECT 1")
    waits, another_id = (await causal.run("SELECT @@wsrep_sync_wait, CONNECTION_ID()")).rows[0]
    assert (waits, another_id != thread_id) == (1, True)
    await causal.close()


def test_the_fence_is_no_table():
    """Its name, like that of the inbox, is not one that a node could write a row under."""
    assert FENCE not in {table.value for table in Table}
