"""What a journal holds reaches a real database: no newer row is replaced, and any step may be repeated."""

import random
from functools import partial

import mariadb_server
import pytest
import structlog.testing
import trio
from journal_world import an_open
from test_sql_store import a_schema, until
from test_store_contract import a_lookup, find_one

from dlrproxy.modes.merging import CAME_HOME
from dlrproxy.store.directory import free_bytes
from dlrproxy.store.journal import JournalError, open_journal, version
from dlrproxy.store.port import Table
from dlrproxy.store.space import Space
from dlrproxy.store.sql import homecoming, statements
from dlrproxy.store.sql.errors import SqlError
from dlrproxy.store.sql.homecoming import bring_home, bring_home_elsewhere
from dlrproxy.store.sql.store import Opening, open_sql
from protocols.smpp.message_ids import normal


@pytest.fixture
async def journal(tmp_path):
    opened = await open_journal(tmp_path / "data")
    yield opened
    await opened.close()


async def stored(pool):
    rows = await pool.run(statements.scan_opens(("", b""), 1000))
    return [statements.open_of(row) for row in rows.rows]


async def notes(pool):
    """What has the active node look again at parked reports."""
    rows = await pool.run(statements.scan_items(Table.META.value, CAME_HOME, 100))
    return [name for name, _ in rows.rows if name.startswith(CAME_HOME)]


OPEN = an_open(b"1", submitted_at=900.0)
CLOSED = an_open(b"1", submitted_at=900.0, final_at=950.0)
AGAIN = an_open(b"1", submitted_at=901.0, owner="gw2")
AGAIN_CLOSED = an_open(b"1", submitted_at=901.0, owner="gw2", final_at=940.0)


@pytest.mark.parametrize("there", [OPEN, CLOSED, AGAIN, AGAIN_CLOSED], ids=["open", "closed", "again", "again closed"])
@pytest.mark.parametrize("comes", [OPEN, CLOSED, AGAIN, AGAIN_CLOSED], ids=["open", "closed", "again", "again closed"])
async def test_of_two_rows_the_newer_stays_as_it_is(there, comes):
    async with a_schema() as pool:
        await pool.run(statements.put_opens([there]))
        for _ in range(2):
            await pool.run(statements.merge_opens([comes]))
            assert await stored(pool) == [max(there, comes, key=version)]


async def test_many_rows_come_together_in_one_statement_and_in_any_order():
    chance = random.Random(1)
    records = [
        an_open(b"%02d" % number, submitted_at=900.0 + chance.randrange(3), final_at=chance.choice([0.0, 950.0, 951.0]))
        for number in range(60)
        for _ in range(4)
    ]
    chance.shuffle(records)
    newest = {}
    for record in records:
        newest[record.key] = max(newest.get(record.key, record), record, key=version)
    async with a_schema() as pool:
        for start in range(0, len(records), 80):
            await pool.run(statements.merge_opens(records[start : start + 80]))
        assert await stored(pool) == [newest[key] for key in sorted(newest)]


async def test_every_value_of_a_new_row_comes_along(journal):
    message = an_open(b"000A", submitted_at=900.25, final_at=950.5)
    await journal.write([message])
    async with a_schema() as pool:
        assert await bring_home(journal, pool) == 1
        assert await stored(pool) == [message]
        found = await pool.run(statements.find_opens([], [("acme", normal(message.message_id))]))
        assert [statements.open_of(row) for row in found.rows] == [message]


async def test_all_pages_are_brought_and_forgotten(journal, monkeypatch):
    monkeypatch.setattr(statements, "ROWS", 7)
    messages = [an_open(b"%02d" % number) for number in range(25)]
    await journal.write(messages)
    async with a_schema() as pool:
        with structlog.testing.capture_logs() as logs:
            assert await bring_home(journal, pool) == 25
        assert await stored(pool) == messages
    assert journal.size == 0
    assert [(entry["event"], entry["messages"]) for entry in logs] == [("journal.brought_home", 25)]


async def test_an_empty_journal_says_nothing(journal):
    async with a_schema() as pool:
        with structlog.testing.capture_logs() as logs:
            assert await bring_home(journal, pool) == 0
        assert await notes(pool) == []
    assert logs == []


async def test_the_active_is_told_to_look_again_before_anything_is_forgotten(journal, monkeypatch):
    await journal.write([OPEN])
    there = []
    forget = journal.forget

    async def forgetting(messages):
        there.append((await stored(pool), len(await notes(pool))))
        await forget(messages)

    monkeypatch.setattr(journal, "forget", forgetting)
    async with a_schema() as pool:
        await bring_home(journal, pool)
        await journal.write([AGAIN])
        await bring_home(journal, pool)
        assert there == [
            ([OPEN], 1),
            ([AGAIN], 2),
        ]  # another one each time: the active may be about to delete the first


async def test_what_could_not_be_forgotten_is_brought_again_without_harm(journal, monkeypatch):
    await journal.write([OPEN])

    async def failing(messages):
        raise JournalError("no room")

    async with a_schema() as pool:
        with monkeypatch.context() as patch:
            patch.setattr(journal, "forget", failing)
            with pytest.raises(JournalError):
                await bring_home(journal, pool)
        await pool.run(statements.put_opens([AGAIN]))  # meanwhile
        assert await bring_home(journal, pool) == 1
        assert await stored(pool) == [AGAIN]
    assert journal.size == 0


async def test_what_could_not_be_written_is_not_forgotten(journal):
    await journal.write([OPEN])
    async with a_schema() as pool:
        await pool.run("DROP TABLE open_messages")
        with pytest.raises(SqlError):
            await bring_home(journal, pool)
    assert journal.size == 1


async def test_a_store_that_is_opened_has_what_a_crash_left_in_the_journal(journal, tmp_path):
    await journal.write([OPEN])
    async with a_schema() as pool:
        store = await open_sql(
            pool.account,
            lambda: 1000.0,
            Opening(space=Space(tmp_path, 0, free_bytes), connections=2, statement_timeout_s=30, journal=journal),
        )
        assert journal.size == 0
        assert await find_one(store, a_lookup(b"1")) == [OPEN]
        await store.close()


async def test_a_node_that_does_not_serve_brings_its_journal_to_the_one_that_does(journal, monkeypatch):
    monkeypatch.setattr(homecoming, "TRY_AGAIN_S", 0.05)
    server = mariadb_server.new_server().start()
    may, asked = [False], []

    def allowed():
        asked.append(journal.size)
        return may[0]

    try:
        async with a_schema(server) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(partial(bring_home_elsewhere, journal, pool.account, allowed, statement_timeout_s=30))
            with structlog.testing.capture_logs() as logs:
                await journal.write([OPEN])
                await until(lambda: len(asked) >= 3)
                assert journal.size == 1  # nobody has said that it may
                server.sql("SET GLOBAL read_only=ON")
                may[0] = True
                await until(lambda: logs)
                assert {entry["event"] for entry in logs} == {"journal.not_brought_home"}
                assert journal.size == 1
                server.sql("SET GLOBAL read_only=OFF")
                await until(lambda: journal.size == 0)
            assert await stored(pool) == [OPEN]
            await journal.write([AGAIN])  # a later stall of this node, from which it came out as a standby
            await until(lambda: journal.size == 0)
            assert await stored(pool) == [AGAIN]
            nursery.cancel_scope.cancel()
    finally:
        server.stop()
