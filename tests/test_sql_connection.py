"""The rules that trio-mysql's faults make necessary: a test for each, against a real server or a scripted one."""

import ssl
import struct
from functools import partial

import attrs
import mariadb_server
import pytest
import trio
import trio.testing
import trustme

from dlrproxy.store.sql.connection import Account, Connection
from dlrproxy.store.sql.errors import (
    AgainError,
    ReadOnlyError,
    RefusedError,
    StatementError,
    UnknownOutcomeError,
    UnreachableError,
    error_of,
)
from dlrproxy.store.sql.pool import Pool

LONG_S = 60


@pytest.fixture
async def account():
    async with mariadb_server.fresh_schema() as made:
        yield made


@pytest.fixture
async def connection(account):
    opened = await Connection.open(account)
    yield opened
    await opened.close()


@pytest.fixture
async def pool(account):
    made = Pool(account, 3, LONG_S)
    await made.run("CREATE TABLE t (id INT PRIMARY KEY, v INT) ENGINE=InnoDB")
    yield made
    await made.close()


@pytest.fixture(scope="module")
def own_server():
    """A server that tests stop, kill and set: not the one that other tests use."""
    server = mariadb_server.new_server().start()
    yield server
    server.stop()


async def numbers(pool):
    return [row for (row,) in (await pool.run("SELECT v FROM t ORDER BY id")).rows]


# --- statements


async def test_rows_come_back_with_their_types(connection):
    result = await connection.run("SELECT x'00ff', 'text', 7, 1.5e0, NULL", LONG_S)
    assert result.rows == ((b"\x00\xff", "text", 7, 1.5, None),)


async def test_each_statement_is_a_transaction_of_its_own(account, pool):
    await pool.run("INSERT INTO t VALUES (1,1)")
    other = await Connection.open(account)
    assert (await other.run("SELECT v FROM t", LONG_S)).rows == ((1,),)
    assert (await other.run("SELECT @@autocommit, @@in_transaction", LONG_S)).rows == ((1, 0),)
    await other.close()


async def test_the_driver_has_no_way_to_begin_a_transaction_from_outside(connection):
    public = {name for name in vars(Connection) if not name.startswith("_")}
    assert public == {"open", "run", "close", "thread_id", "version"}


async def test_a_wrong_statement_says_what_the_server_says_and_names_it(connection, account):
    with pytest.raises(StatementError, match=f"{account.socket} says 1064"):
        await connection.run("SELEKT 1", LONG_S)
    assert connection.broken
    with pytest.raises(UnreachableError, match="broken"):
        await connection.run("SELECT 1", LONG_S)


async def test_a_missing_table_names_the_command_that_makes_it(connection):
    with pytest.raises(StatementError, match="dlrproxy db init"):
        await connection.run("SELECT * FROM nothing", LONG_S)


async def test_a_duplicate_key_leaves_the_connection_usable(pool):
    connection = await Connection.open(pool.account)
    await connection.run("INSERT INTO t VALUES (1,1)", LONG_S)
    with pytest.raises(StatementError, match="1062"):
        await connection.run("INSERT INTO t VALUES (1,2)", LONG_S)
    assert (await connection.run("SELECT v FROM t", LONG_S)).rows == ((1,),)
    await connection.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1205, AgainError),
        (1213, AgainError),
        (1180, UnknownOutcomeError),
        (2006, UnknownOutcomeError),
        (2013, UnknownOutcomeError),
        (1290, ReadOnlyError),
        (1836, ReadOnlyError),
        (1045, RefusedError),
        (1142, RefusedError),
        (1146, StatementError),
        (1153, StatementError),
    ],
)
def test_errors_say_what_may_be_done_next(code, kind):
    assert type(error_of(code, "said", "the server")) is kind


async def test_a_lock_wait_is_tried_again_on_the_same_connection(pool):
    await pool.run("INSERT INTO t VALUES (1,1)")
    holder = await Connection.open(pool.account)
    await holder.run("SET autocommit=0", LONG_S)
    await holder.run("UPDATE t SET v=2", LONG_S)
    waiter = await Connection.open(pool.account)
    await waiter.run("SET innodb_lock_wait_timeout=1", LONG_S)
    with pytest.raises(AgainError):
        await waiter.run("UPDATE t SET v=v+10", LONG_S)
    assert not waiter.broken
    await holder.close()
    await waiter.run("UPDATE t SET v=v+10", LONG_S)
    assert await numbers(pool) == [11]
    await waiter.close()


# --- cancelling and deadlines


async def test_a_cancelled_statement_breaks_the_connection_and_stays_a_cancel(connection):
    with trio.move_on_after(0.05) as scope:
        await connection.run("SELECT SLEEP(60)", LONG_S)
    assert scope.cancelled_caught
    assert connection.broken


async def test_a_statement_beyond_its_deadline_has_an_unknown_outcome(connection):
    with pytest.raises(UnknownOutcomeError, match=r"not answered within 0\.05 s"):
        await connection.run("SELECT SLEEP(60)", 0.05)
    assert connection.broken


async def test_what_a_broken_connection_left_behind_has_ended_before_the_next_statement(pool):
    await pool.run("INSERT INTO t VALUES (1,1)")
    with trio.move_on_after(0.2):
        await pool.run("UPDATE t SET v=666 WHERE SLEEP(3)=0")
    await pool.run("UPDATE t SET v=2")
    running = await pool.run("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(3)=%'")
    assert running.rows == ((1,),)  # this one
    assert await numbers(pool) == [2]


async def _abandon_when_it_runs(observer, pool):
    asked = "SELECT COUNT(*) FROM information_schema.processlist WHERE info='SELECT SLEEP(1000)'"
    with trio.fail_after(LONG_S):
        while (await observer.run(asked)).rows == ((0,),):  # noqa: ASYNC110 - the state of another process
            await trio.sleep(0.01)
    pool.abandon()


async def test_what_an_abandoned_pool_left_behind_has_ended_before_the_next_pool_sends_anything(account, pool):
    doubts = []
    first, second = (Pool(account, 1, LONG_S, doubts) for _ in range(2))
    await first.run("SELECT 1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_abandon_when_it_runs, pool, first)
        with pytest.raises(UnknownOutcomeError):
            await first.run("SELECT SLEEP(1000)")
    await first.close()
    running = await second.run("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(1000%'")
    assert running.rows == ((1,),)  # this one
    assert doubts == []
    await second.close()


async def test_a_server_that_stands_still_and_goes_on_does_not_undo_what_came_after(own_server):
    async with mariadb_server.fresh_schema(own_server) as account:
        pool = Pool(account, 2, LONG_S)
        await pool.run("CREATE TABLE t (id INT PRIMARY KEY, v INT) ENGINE=InnoDB")
        await pool.run("INSERT INTO t VALUES (1,1)")
        own_server.pause()
        with pytest.raises(UnknownOutcomeError):
            await pool.run("UPDATE t SET v=2", timeout_s=0.1)
        own_server.go_on()
        await pool.run("UPDATE t SET v=3")
        assert await numbers(pool) == [3]
        await pool.close()


# --- many tasks


async def test_tasks_do_not_share_a_connection(pool):
    seen = []

    async def ask(number):
        result = await pool.run(f"SELECT {number}, SLEEP(0.01)")
        seen.append((number, result.rows[0][0]))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert sorted(seen) == [(number, number) for number in range(20)]


async def test_a_pool_opens_no_more_connections_than_it_may(pool):
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(pool.run, "SELECT SLEEP(0.02)")
    user = pool.account.user
    open_now = await pool.run(f"SELECT COUNT(*) FROM information_schema.processlist WHERE user='{user}'")  # noqa: S608
    assert 1 <= open_now.rows[0][0] <= 3


async def test_a_closed_pool_says_so(account):
    pool = Pool(account, 1, LONG_S)
    await pool.run("SELECT 1")
    await pool.close()
    with pytest.raises(UnreachableError, match="closed"):
        await pool.run("SELECT 1")


# --- connecting


async def test_a_server_that_is_not_there(tmp_path):
    account = Account(socket=str(tmp_path / "none"), user="u")
    with pytest.raises(UnreachableError, match=f"{tmp_path}/none cannot be reached"):
        await Connection.open(account)


async def test_a_wrong_password(account):
    wrong = Account(socket=account.socket, user=account.user, password="wrong", schema=account.schema)
    with pytest.raises(RefusedError, match="1045") as caught:
        await Connection.open(wrong)
    assert "wrong" not in str(caught.value)


async def test_an_account_with_ed25519(own_server):
    own_server.sql("INSTALL SONAME 'auth_ed25519'; CREATE USER ed@localhost IDENTIFIED VIA ed25519 USING PASSWORD('x')")
    connection = await Connection.open(Account(socket=own_server.socket, user="ed", password="x"))
    assert (await connection.run("SELECT 1", LONG_S)).rows == ((1,),)
    await connection.close()


async def test_tls_with_a_certificate_for_the_name_that_was_dialled(tmp_path_factory):
    authority = trustme.CA()
    files = mariadb_server.readable_directory()
    authority.cert_pem.write_to_path(files / "ca")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(files / "own")
    server = mariadb_server.new_server(ssl_ca=files / "ca", ssl_cert=files / "own", ssl_key=files / "own").start()
    try:
        server.sql("CREATE USER tls@127.0.0.1 IDENTIFIED BY 'x' REQUIRE SSL")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        account = Account(host="localhost", port=server.port, user="tls", password="x", tls=context)
        connection = await Connection.open(account)
        (row,) = (await connection.run("SHOW STATUS LIKE 'Ssl_version'", LONG_S)).rows
        assert row[1].startswith("TLS")
        await connection.close()
        with pytest.raises(UnreachableError, match="certificate"):
            await Connection.open(attrs.evolve(account, tls=ssl.create_default_context()))
    finally:
        server.stop()


async def test_no_tls_where_it_is_asked_for_is_an_error_and_no_plain_connection():
    server = mariadb_server.shared_server()
    account = Account(host="localhost", port=server.port, user="u", tls=ssl.create_default_context())
    with pytest.raises(RefusedError, match="does not offer TLS"):
        await Connection.open(account)


async def test_a_schema_that_is_not_there(account):
    wrong = Account(socket=account.socket, user=account.user, password=account.password, schema="elsewhere")
    with pytest.raises((RefusedError, StatementError), match="elsewhere"):
        await Connection.open(wrong)


async def test_the_deadline_of_connecting_covers_the_handshake():
    """trio-mysql's own covers TCP alone: a server that accepts and says nothing would be waited for for ever."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, _silence, 0)
        port = listeners[0].socket.getsockname()[1]
        account = Account(host="127.0.0.1", port=port, user="u", connect_timeout_s=0.1)
        with pytest.raises(UnreachableError, match=r"did not let us in within 0\.1 s"):
            await Connection.open(account)
        nursery.cancel_scope.cancel()


async def _silence(stream):
    await trio.sleep_forever()


def _packet(sequence, payload):
    return struct.pack("<I", len(payload))[:3] + bytes([sequence]) + payload


def _greeting(plugin):
    """Protocol::HandshakeV10 of a server whose accounts use `plugin` (MySQL's client/server protocol)."""
    capabilities = 0x00_0F_F7_FF | 0x0008_0000  # ... PLUGIN_AUTH
    return _packet(
        0,
        b"\x0a8.0.36\0"
        + struct.pack("<I", 11)
        + b"12345678\0"
        + struct.pack("<H", capabilities & 0xFFFF)
        + b"\xff"
        + struct.pack("<HHB", 2, capabilities >> 16, 21)
        + bytes(10)
        + b"901234567890\0"
        + plugin
        + b"\0",
    )


async def scripted(stream, plugin, answers):
    await stream.send_all(_greeting(plugin))
    for answer in answers:
        await stream.receive_some(65536)
        await stream.send_all(answer)
    await trio.sleep_forever()


SWITCH_TO_SHA2 = _packet(2, b"\xfecaching_sha2_password\x0012345678901234567890\0")


async def _connect_to(plugin, *answers):
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, partial(scripted, plugin=plugin, answers=answers), 0)
        port = listeners[0].socket.getsockname()[1]
        account = Account(host="127.0.0.1", port=port, user="dlr", password="x", connect_timeout_s=30)
        try:
            return await Connection.open(account)
        finally:
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("default", [b"caching_sha2_password", b"mysql_native_password"])
async def test_an_account_with_caching_sha2_password_is_told_what_to_change(default):
    with pytest.RaisesGroup(pytest.RaisesExc(RefusedError, match=_CHANGE_IT)):
        await _connect_to(default, SWITCH_TO_SHA2)


_CHANGE_IT = r"caching_sha2_password for dlr.*mysql_native_password or ed25519"


async def test_an_account_with_a_native_password_is_let_in_where_the_default_is_another():
    """MySQL 8's greeting names caching_sha2_password, whatever the account has."""
    ok = b"\0\0\0\x02\0\0\0"
    switch = _packet(2, b"\xfemysql_native_password\x0012345678901234567890\0")
    connection = await _connect_to(b"caching_sha2_password", switch, _packet(4, ok), _packet(1, ok))
    assert connection.version == "8.0.36"
    await connection.close()


async def test_a_server_that_is_killed_in_the_middle(own_server):
    async with mariadb_server.fresh_schema(own_server) as account:
        pool = Pool(account, 2, LONG_S)
        await pool.run("CREATE TABLE t (id INT PRIMARY KEY, v INT) ENGINE=InnoDB")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask():
                with pytest.raises(UnknownOutcomeError):
                    await pool.run("SELECT SLEEP(60)")

            watcher = await Connection.open(account)
            while not (await watcher.run(_SLEEPING, LONG_S)).rows:  # noqa: ASYNC110 - the server's state
                await trio.sleep(0.02)
            own_server.kill()
            await watcher.close()
        with pytest.raises(UnreachableError):
            await pool.run("SELECT 1")
        await trio.to_thread.run_sync(own_server.start)
        await trio.sleep(0.3)  # longer than a failed dial is remembered
        await pool.run("INSERT INTO t VALUES (1,1)")
        assert await numbers(pool) == [1]
        await pool.close()


_SLEEPING = "SELECT id FROM information_schema.processlist WHERE info='SELECT SLEEP(60)'"


async def test_a_read_only_server_says_so(own_server):
    async with mariadb_server.fresh_schema(own_server) as account:
        pool = Pool(account, 1, LONG_S)
        await pool.run("CREATE TABLE t (id INT PRIMARY KEY, v INT) ENGINE=InnoDB")
        own_server.sql("SET GLOBAL read_only=ON")
        try:
            with pytest.raises(ReadOnlyError):
                await pool.run("INSERT INTO t VALUES (1,1)")
        finally:
            own_server.sql("SET GLOBAL read_only=OFF")
        await pool.run("INSERT INTO t VALUES (1,1)")
        await pool.close()


async def test_an_abandoned_pool_ends_even_shielded_statements_and_sends_no_more(pool):
    await pool.run("SELECT 1")  # one connection is idle
    failures = []

    async def write():
        with trio.CancelScope(shield=True):
            try:
                await pool.run("SELECT SLEEP(1000)")
            except UnknownOutcomeError as error:
                failures.append(str(error))

    with trio.fail_after(LONG_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            pool.abandon()
    assert len(failures) == 1
    assert "abandoned" in failures[0]
    with pytest.raises(UnreachableError, match="closed"):
        await pool.run("SELECT 1")
