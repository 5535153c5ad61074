"""What the contract cannot say of a store in a database server: stalls, restarts, what others see, and its schema."""

import contextlib

import mariadb_server
import pytest
import structlog.testing
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store_contract import a_lookup, an_open, durable, find_one

from dlrproxy.store.directory import free_bytes
from dlrproxy.store.group import Group
from dlrproxy.store.journal import open_journal
from dlrproxy.store.port import OpenMessage, StoreError, Table
from dlrproxy.store.space import Space
from dlrproxy.store.sql import schema, statements
from dlrproxy.store.sql.errors import SqlError, StatementError
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.store import Opening, open_sql
from protocols.smpp.message_ids import normal

NOW = 1000.0


@pytest.fixture(scope="module")
def own_server():
    """A server that tests stop and kill."""
    server = mariadb_server.new_server().start()
    yield server
    server.stop()


@contextlib.asynccontextmanager
async def a_schema(server=None):
    async with mariadb_server.fresh_schema(server) as account:
        pool = Pool(account, 2, 30)
        await schema.init(pool)
        yield pool
        await pool.close()


@contextlib.asynccontextmanager
async def running(pool, tmp_path, timeout_s=30, journal=None):
    space = Space(tmp_path, 0, free_bytes)
    store = await open_sql(
        pool.account,
        lambda: NOW,
        Opening(space=space, connections=2, statement_timeout_s=timeout_s, remembered=0, journal=journal),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield store
        nursery.cancel_scope.cancel()
    await store.close()


@contextlib.asynccontextmanager
async def a_journal(tmp_path):
    journal = await open_journal(tmp_path / "data")
    try:
        yield journal
    finally:
        with trio.CancelScope(shield=True):
            await journal.close()


async def until(condition):
    with trio.fail_after(100):
        while not condition():  # noqa: ASYNC110 - the state of another process
            await trio.sleep(0.01)


# --- the server goes away


async def test_a_killed_server_loses_nothing_that_was_called_back_and_is_written_to_again(own_server, tmp_path):
    async with a_schema(own_server) as pool, running(pool, tmp_path) as store:
        store.put_open(an_open(b"before"))
        await durable(store)
        own_server.kill()
        called = []
        with structlog.testing.capture_logs() as logs:
            store.put_open(an_open(b"while away"))
            store.put(Table.CUSTODY, b"k", b"v")
            store.after_durable(lambda: called.append(1))
            await until(lambda: not store.accepting)
            assert called == []
            await trio.to_thread.run_sync(own_server.start)
            await until(lambda: called)
        assert store.accepting
        assert {entry["event"] for entry in logs} == {"store.commit_failed", "store.commit_resumed"}
        for message_id in (b"before", b"while away"):
            assert await find_one(store, a_lookup(message_id))
        assert await store.get(Table.CUSTODY, b"k") == b"v"


async def test_a_server_that_stands_still_takes_nothing_more_and_then_everything_once(own_server, tmp_path):
    async with a_schema(own_server) as pool, running(pool, tmp_path, timeout_s=0.5) as store:
        own_server.pause()
        for number in range(10):
            store.put_open(an_open(b"m-%d" % number))
        store.put(Table.PARKED, b"k", b"v")
        await until(lambda: not store.accepting)
        own_server.go_on()
        await durable(store)
        assert store.accepting
        rows = await pool.run("SELECT message_id FROM open_messages ORDER BY message_id")
        assert rows.rows == tuple((b"m-%d" % number,) for number in range(10))


async def test_while_a_server_stands_still_gateways_are_told_of_what_the_journal_has(own_server, tmp_path):
    async with (
        a_schema(own_server) as pool,
        a_journal(tmp_path) as journal,
        running(pool, tmp_path, timeout_s=0.5, journal=journal) as store,
    ):
        own_server.pause()
        told, in_database = [], []
        for number in range(10):
            store.put_open(an_open(b"m-%d" % number))
            store.after_opened(lambda number=number: told.append(number))
            store.after_durable(lambda number=number: in_database.append(number))
            await trio.lowlevel.checkpoint()
        await until(lambda: len(told) == 10)
        assert (journal.size, in_database) == (10, [])
        own_server.go_on()
        await until(lambda: len(in_database) == 10 and journal.size == 0)
        assert told == in_database == list(range(10))
        rows = await pool.run("SELECT COUNT(*) FROM open_messages")
        assert rows.rows == ((10,),)


async def test_what_gateways_were_told_before_a_crash_is_in_the_database_at_the_next_start(own_server, tmp_path):
    async with a_schema(own_server) as pool:
        own_server.kill()
        async with a_journal(tmp_path) as journal:
            await journal.write([an_open(b"m-1")])  # all that is left of a process that has died
        async with a_journal(tmp_path) as journal:
            with pytest.raises(SqlError):
                async with running(pool, tmp_path, journal=journal):
                    raise AssertionError("opened without its server")
            assert journal.size == 1
            await trio.to_thread.run_sync(own_server.start)
            async with running(pool, tmp_path, journal=journal) as store:
                assert journal.size == 0
                assert await find_one(store, a_lookup(b"m-1")) == [an_open(b"m-1")]


async def test_a_lookup_without_a_server_is_an_error_and_no_miss(own_server, tmp_path):
    async with a_schema(own_server) as pool, running(pool, tmp_path) as store:
        own_server.kill()
        with pytest.raises(StoreError):
            await store.find([a_lookup(b"m-1")])
        await trio.to_thread.run_sync(own_server.start)


# --- what one statement does


async def test_a_row_that_moves_is_at_every_moment_in_exactly_one_table(tmp_path):
    """Nobody who looks at the server between two statements sees it twice, or not at all."""
    group = Group()
    group.set_row(Table.CUSTODY, b"k", None)
    group.set_row(Table.PARKED, b"k", b"parked")
    async with a_schema() as pool:
        await pool.run(statements.put_items([(Table.CUSTODY, b"k", b"in custody")]))
        for statement in ("DO 0", *statements.statements_of(group)):
            await pool.run(statement)
            seen = [
                table
                for table in (Table.CUSTODY, Table.PARKED)
                if (await pool.run(statements.get_item(table, b"k"))).rows
            ]
            assert len(seen) == 1
        assert (await pool.run("SELECT COUNT(*) FROM items WHERE content IS NULL")).rows == ((0,),)


async def test_a_large_group_is_one_group(tmp_path):
    async with a_schema() as pool, running(pool, tmp_path) as store:
        for number in range(3000):
            store.put_open(an_open(b"m-%d" % number))
            store.put(Table.CUSTODY, b"%d" % number, b"x" * 300)
        await durable(store)
        assert (await pool.run("SELECT COUNT(*) FROM open_messages")).rows == ((3000,),)
        assert (await pool.run("SELECT COUNT(*) FROM items WHERE kind='custody'")).rows == ((3000,),)


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
ids = st.binary(max_size=65).filter(lambda value: b"\0" not in value)
times = st.floats(0, 1e12, allow_nan=False)
messages = st.builds(
    OpenMessage,
    operator=words,
    message_id=ids,
    owner=words,
    destination=ids,
    source=ids,
    session=st.integers(0, 2**64 - 1),
    submitted_at=times,
    expires_at=times,
    final_at=times,
)


@settings(max_examples=15, deadline=None)
@given(st.lists(messages, min_size=1, max_size=30, unique_by=lambda message: (message.operator, message.message_id)))
def test_every_value_comes_back_as_it_was(written):
    async def there_and_back():
        async with a_schema() as pool:
            await pool.run(statements.put_opens(written))
            keys = [message.key for message in written]
            found = await pool.run(statements.find_opens(keys, []))
            assert {message.key: message for message in map(statements.open_of, found.rows)} == dict(
                zip(keys, written, strict=True)
            )
            forms = {(message.operator, normal(message.message_id)) for message in written}
            found = await pool.run(statements.find_opens([], list(forms)))
            assert {message.key for message in map(statements.open_of, found.rows)} == set(keys)

    trio.run(there_and_back)


# --- the schema


async def test_init_may_be_repeated_and_keeps_the_store_id(tmp_path):
    async with a_schema() as pool:
        first = await schema.store_id(pool)
        assert len(first) == 8
        assert await schema.init(pool) == first
        async with running(pool, tmp_path) as store:
            assert store.store_id == first


async def test_an_empty_schema_names_the_command_that_fills_it(tmp_path):
    async with mariadb_server.fresh_schema() as account:
        with pytest.raises(schema.SchemaError, match="dlrproxy db init"):
            await open_sql(
                account,
                lambda: NOW,
                Opening(space=Space(tmp_path, 0, free_bytes), connections=1, statement_timeout_s=30),
            )


async def test_a_newer_schema_that_says_so_is_used_as_it_is():
    async with a_schema() as pool:
        await pool.run(f"UPDATE schema_version SET version={schema.VERSION + 1}")  # noqa: S608
        assert len(await schema.ready(pool)) == 8
        assert list(await schema.migrate(pool)) == []
        assert (await schema.stage(pool)).version == schema.VERSION + 1


async def test_a_newer_schema_that_does_not_fit_is_left_alone():
    newer = schema.VERSION + 1
    async with a_schema() as pool:
        await pool.run(f"UPDATE schema_version SET version={newer},compatible_from={newer}")  # noqa: S608
        for refuse in (schema.migrate, schema.ready):
            with pytest.raises(schema.SchemaError, match=f"version {schema.VERSION + 1}, made by a newer"):
                await refuse(pool)


async def test_an_older_schema_is_migrated_step_by_step(monkeypatch):
    steps = (
        schema.Migration(("CREATE TABLE second (id INT)",)),
        schema.Migration(("CREATE TABLE third (id INT)", "DROP TABLE second"), compatible_from=2),
    )
    async with a_schema() as pool:
        monkeypatch.setattr(schema, "MIGRATIONS", steps)
        monkeypatch.setattr(schema, "VERSION", 3)
        with pytest.raises(schema.SchemaError, match="dlrproxy db migrate"):
            await schema.ready(pool)
        assert list(await schema.migrate(pool)) == [2, 3]
        assert await schema.stage(pool) == schema.Stage(3, 2)
        assert list(await schema.migrate(pool)) == []
        await pool.run("SELECT * FROM third")
        with pytest.raises(StatementError):
            await pool.run("SELECT * FROM second")


async def test_check_finds_what_puts_messages_at_risk():
    server = mariadb_server.new_server(
        innodb_flush_log_at_trx_commit="2", max_allowed_packet="1M", log_bin="ON", sync_binlog="0"
    ).start()
    try:
        async with mariadb_server.fresh_schema(server) as account:
            pool = Pool(account, 1, 30)
            found = {finding.setting: finding for finding in await schema.check(pool)}
            await pool.close()
    finally:
        server.stop()
    assert set(found) == {"innodb_flush_log_at_trx_commit", "max_allowed_packet", "sync_binlog"}
    assert found["innodb_flush_log_at_trx_commit"].value == "2"
    assert all(finding.fatal and finding.risk and finding.should for finding in found.values())


async def test_check_is_content_with_a_sound_server():
    async with a_schema() as pool:
        assert await schema.check(pool) == []
