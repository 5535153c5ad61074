"""Two real servers in a pair: what they say, when a beat counts as acknowledged, and promotions that lose nothing."""

import contextlib

import attrs
import mariadb_pair
import pytest
import trio

from dlrproxy.modes import pair as p
from dlrproxy.modes.pair import Alone, Replica
from dlrproxy.store.sql import schema
from dlrproxy.store.sql.connection import Account, Connection
from dlrproxy.store.sql.dialect import includes
from dlrproxy.store.sql.errors import ReadOnlyError, SqlError, UnknownOutcomeError
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.reading import Completeness, with_replica
from dlrproxy.store.sql.replication import NotAppliedError, NotHolderError, Replication

LONG_S = 60
RUNNING = Replica(receiving=True, applying=True, all_applied=True)
BEGIN = 2  # the epoch of a first promotion


class Nodes:
    """The pair of servers, and both nodes' admin accounts."""

    def __init__(self, pair, **settings):
        self.pair = pair
        self.servers = pair.servers
        settings = {"strict": True, "timeout_s": LONG_S, **settings}
        self.a, self.b = (Replication(pair.account(name), name, **settings) for name in "ab")
        self.peer_of_a, self.peer_of_b = (Replication(pair.account(name), name, **settings) for name in "ba")
        self.app = Pool(pair.account("a", "app"), 4, LONG_S)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        for each in (self.a, self.b, self.peer_of_a, self.peer_of_b, self.app):
            await each.close()

    async def until(self, node, condition):
        """The node's first reading for which it holds."""
        with trio.fail_after(LONG_S):
            while True:
                with contextlib.suppress(SqlError):  # its schema is not replicated yet, or it has been restarted
                    if condition(reading := await node.read()):
                        return reading
                await trio.sleep(0.02)


@contextlib.asynccontextmanager
async def a_pair(**settings):
    """A's server is the primary and B's its replica; the schema is made, and has a table of the tests'."""
    pair = await trio.to_thread.run_sync(mariadb_pair.Pair)
    try:
        await trio.to_thread.run_sync(pair.start)
        async with Nodes(pair, **settings) as nodes:
            await schema.init(nodes.app, "a")
            await nodes.app.run("CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB")
            position = (await nodes.a.read()).server.position
            await nodes.until(nodes.b, lambda seen: includes(seen.server.position, position))
            yield nodes
    finally:
        await trio.to_thread.run_sync(pair.close)


async def promote(nodes, node, epoch=BEGIN, alone=Alone.FREE):
    """As the machine goes about it."""
    await node.carry_out(p.StopReceiving())
    await nodes.until(node, lambda seen: seen.server.replica.all_applied)
    await node.carry_out(p.BecomePrimary(epoch, alone))


# --- what they say


async def test_both_servers_say_what_they_are():
    async with a_pair() as nodes:
        a, b = await nodes.a.read(), await nodes.b.read()
    assert attrs.evolve(a.server, position="") == p.Server(
        writable=True, epoch=1, holder="a", beat=0, alone=Alone.NO, position=""
    )
    assert attrs.evolve(b.server, writable=True, replica=None) == a.server
    assert not b.server.writable
    assert b.server.replica == RUNNING
    assert (b.connected, b.source_id, b.received) == (True, a.server_id, a.server.position)
    assert (a.semi_sync.enabled, a.semi_sync.on, a.semi_sync.replicas) == (False, False, 1)


async def test_a_server_without_the_row_is_taken_over():
    async with a_pair() as nodes:
        await nodes.app.run("DELETE FROM pair")
        seen = (await nodes.a.read()).server
        assert (seen.epoch, seen.holder, seen.alone) == (0, "", Alone.NO)
        await nodes.a.carry_out(p.TakeOver(1, Alone.FREE))
        await nodes.a.carry_out(p.TakeOver(1, Alone.FREE))
        seen = (await nodes.a.read()).server
        assert (seen.epoch, seen.holder, seen.alone) == (1, "a", Alone.FREE)
        with pytest.raises(NotHolderError):
            await nodes.b.beat()


async def test_the_ordinary_account_cannot_write_to_a_standby():
    async with a_pair() as nodes:
        standby = Pool(nodes.pair.account("b", "app"), 1, LONG_S)
        with pytest.raises(ReadOnlyError):
            await standby.run("INSERT INTO t VALUES (1)")
        await standby.close()


# --- beats


async def test_a_beat_that_the_replica_has_received_is_acknowledged():
    async with a_pair() as nodes:
        assert await nodes.a.beat()  # the replica connected while semi-sync was off
        assert (await nodes.a.read()).semi_sync.on
        await nodes.until(nodes.b, lambda seen: seen.server.beat == 1)


async def acknowledged_again(node):
    """While a replica comes back it may be counted twice, and commits that were ended count against a beat."""
    with trio.fail_after(LONG_S):
        while not await node.beat():
            pass


@pytest.mark.parametrize("fault", ["silence", "cut"])
async def test_without_its_replica_a_beat_does_not_return_until_it_is_back(fault):
    async with a_pair() as nodes:
        assert await nodes.a.beat()
        getattr(nodes.pair.links["a"], fault)()
        hasty = Replication(nodes.pair.account("a"), "a", strict=True, timeout_s=1)
        for _ in range(2):  # the second one ends the first one's connection, which commits it
            with pytest.raises(UnknownOutcomeError):
                await hasty.beat()
        await hasty.close()
        assert (await nodes.a.read()).semi_sync.on  # nothing to go by
        nodes.pair.links["a"].heal()
        await acknowledged_again(nodes.a)


@pytest.mark.parametrize("setting", ["rpl_semi_sync_master_wait_no_slave=OFF", "rpl_semi_sync_master_timeout=100"])
async def test_a_beat_that_returns_without_a_replica_is_not_acknowledged(setting):
    async with a_pair() as nodes:
        assert await nodes.a.beat()
        nodes.servers["a"].sql(f"SET GLOBAL {setting}")
        nodes.pair.links["a"].cut()
        for _ in range(3):
            assert not await nodes.a.beat()


async def test_available_waits_for_a_replica_only_while_one_is_connected():
    async with a_pair(strict=False) as nodes:
        assert await nodes.a.beat()
        nodes.servers["b"].kill()
        await nodes.until(nodes.a, lambda seen: seen.semi_sync.replicas == 0)
        assert not await nodes.a.beat()
        assert not (await nodes.a.read()).semi_sync.enabled


# --- alone and paired


async def test_going_alone_lets_what_waits_go_on():
    async with a_pair() as nodes:
        assert await nodes.a.beat()
        nodes.pair.links["a"].silence()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes.app.run, "INSERT INTO t VALUES (1)")
            await waiting(nodes, "INSERT")
            await nodes.a.carry_out(p.GoAlone(Alone.FREE))
        assert (await nodes.a.read()).server.alone is Alone.FREE
        assert not await nodes.a.beat()


async def waiting(nodes, statement):
    """Return when a commit of it waits for the replica."""
    found = "SELECT info FROM information_schema.processlist WHERE state LIKE 'Waiting for semi-sync ACK%'"
    with trio.fail_after(LONG_S):
        while statement not in nodes.servers["a"].sql(found):  # noqa: ASYNC110 - the state of another process
            await trio.sleep(0.02)


async def test_a_replica_counts_once_it_has_caught_up_and_only_while_it_answers():
    async with a_pair() as nodes:
        a, b = nodes.a, nodes.b
        await a.carry_out(p.GoAlone(Alone.FREE))
        await b.carry_out(p.StopReceiving())
        before = await a.read()
        assert not with_replica(before, before, await b.read()).has_replica
        await a.beat()
        await b.carry_out(p.StartReceiving())
        before = await a.read()
        peer = await nodes.until(b, lambda seen: seen.connected and includes(seen.received, before.server.position))
        own = await nodes.until(a, lambda seen: seen.semi_sync.replicas == 1)
        assert with_replica(own, before, peer).has_replica
        assert not with_replica(own, before, None).has_replica
        assert not with_replica(own, None, peer).has_replica

        nodes.pair.links["a"].silence()
        await a.beat()
        own = await a.read()
        assert own.semi_sync.replicas == 1  # as far as it knows
        assert not with_replica(own, own, await b.read()).has_replica

        nodes.pair.links["a"].heal()
        await a.carry_out(p.GoPaired())
        assert (await a.read()).server.alone is Alone.NO
        await acknowledged_again(a)


async def test_what_was_interrupted_between_the_row_and_semi_sync_is_put_right_by_the_next_beat():
    async with a_pair() as nodes:
        await nodes.a.carry_out(p.GoAlone(Alone.FREE))
        nodes.servers["a"].sql("SET GLOBAL rpl_semi_sync_master_enabled=ON")
        nodes.pair.links["a"].cut()
        assert not await nodes.a.beat()
        assert not (await nodes.a.read()).semi_sync.enabled
        nodes.pair.links["a"].heal()
        await nodes.a.carry_out(p.GoPaired())
        nodes.servers["a"].sql("SET GLOBAL rpl_semi_sync_master_enabled=OFF")
        await acknowledged_again(nodes.a)


async def test_no_commit_goes_without_the_replica_after_the_row_that_it_may_have():
    async with a_pair() as nodes:
        await nodes.a.carry_out(p.GoAlone(Alone.FREE))
        nodes.pair.links["a"].silence()
        hasty = Replication(nodes.pair.account("a"), "a", strict=True, timeout_s=1)
        with pytest.raises(UnknownOutcomeError):
            await hasty.carry_out(p.GoPaired())
        await hasty.close()
        seen = await nodes.a.read()
        assert (seen.server.alone, seen.semi_sync.enabled) == (Alone.NO, True)  # and no beat finds another row
        nodes.pair.links["a"].heal()
        await acknowledged_again(nodes.a)


# --- handing over


async def test_there_and_back_by_plan():
    async with a_pair() as nodes:
        assert await nodes.a.beat()
        await nodes.app.run("INSERT INTO t VALUES (1)")
        await nodes.a.carry_out(p.MakeReadOnly())
        with pytest.raises(ReadOnlyError):
            await nodes.app.run("INSERT INTO t VALUES (2)")
        with pytest.raises(NotHolderError):
            await nodes.a.beat()
        position = (await nodes.a.read()).server.position
        await nodes.until(nodes.b, lambda seen: seen.server.position == position)
        await promote(nodes, nodes.b)
        assert not await nodes.b.beat()

        await trio.to_thread.run_sync(nodes.pair.replicate, "a", "b")
        await nodes.a.carry_out(p.StartReceiving())
        position = (await nodes.b.read()).server.position
        own = await nodes.until(nodes.a, lambda seen: seen.server.position == position)
        assert (own.server.epoch, own.server.holder, own.semi_sync.enabled) == (2, "b", False)
        await nodes.b.carry_out(p.GoPaired())
        assert await nodes.b.beat()

        await nodes.b.carry_out(p.MakeReadOnly())
        await promote(nodes, nodes.a, epoch=3)
        seen = (await nodes.a.read()).server
        assert (seen.writable, seen.epoch, seen.holder, seen.replica) == (True, 3, "a", None)
        await nodes.app.run("INSERT INTO t VALUES (2)")


async def test_a_replica_that_waits_for_a_replica_of_its_own_can_be_promoted():
    async with a_pair() as nodes:
        nodes.servers["b"].sql("SET GLOBAL rpl_semi_sync_master_enabled=ON")
        await nodes.app.run("INSERT INTO t VALUES (1)")  # b has received it, and does not get done with it
        await trio.to_thread.run_sync(nodes.servers["a"].kill)
        await promote(nodes, nodes.b)
        assert nodes.servers["b"].sql("SELECT id FROM dlrproxy.t") == "1\n"


async def test_a_handed_over_server_is_taken_back():
    async with a_pair() as nodes:
        await nodes.a.carry_out(p.GoAlone(Alone.FREE))
        await nodes.a.carry_out(p.MakeReadOnly())
        seen = (await nodes.a.read()).server
        assert (seen.writable, seen.alone) == (False, Alone.NO)
        await nodes.a.carry_out(p.AcceptWrites())
        assert (await nodes.a.read()).semi_sync.enabled
        assert await nodes.a.beat()


async def test_commits_that_wait_for_a_lost_replica_do_not_keep_a_server_from_becoming_read_only():
    async with a_pair() as nodes:
        assert await nodes.a.beat()
        nodes.pair.links["a"].silence()
        writer = await Connection.open(nodes.pair.account("a", "app"))
        failed = []

        async def write():
            try:
                await writer.run("INSERT INTO t VALUES (1)", LONG_S)
            except SqlError as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await waiting(nodes, "INSERT")
            await nodes.a.carry_out(p.MakeReadOnly())
        await writer.close()
        assert isinstance(failed[0], UnknownOutcomeError)  # nobody takes it for durable
        assert not (await nodes.a.read()).server.writable


# --- promotion


@contextlib.asynccontextmanager
async def held_back(nodes):
    """B applies nothing that concerns the table of the tests."""
    holder = await Connection.open(nodes.pair.account("b"))
    try:
        await holder.run("LOCK TABLES t READ", LONG_S)
        yield
    finally:
        await holder.close()


async def write_on(account, numbers, acknowledged):
    """Until the server is gone."""
    with contextlib.suppress(SqlError):
        connection = await Connection.open(account)
        try:
            for number in numbers:
                await connection.run(f"INSERT INTO t VALUES ({number})", LONG_S)  # noqa: S608 - a number
                acknowledged.append(number)
        finally:
            await connection.close()


@pytest.mark.parametrize("enough", [30, 300])
async def test_a_primary_that_is_killed_under_load_takes_no_acknowledged_row_with_it(enough):
    async with a_pair() as nodes:
        assert await nodes.a.beat()
        acknowledged = []
        async with trio.open_nursery() as nursery, held_back(nodes):
            for first in range(3):
                numbers = range(first, 10**9, 3)
                nursery.start_soon(write_on, nodes.pair.account("a", "app"), numbers, acknowledged)
            with trio.fail_after(LONG_S):
                while len(acknowledged) < enough:  # noqa: ASYNC110 - counted by other tasks
                    await trio.sleep(0.01)
            nodes.servers["a"].kill()
            await nodes.b.carry_out(p.StopReceiving())
            assert not (await nodes.b.read()).server.replica.all_applied
            with pytest.raises(NotAppliedError):
                await nodes.b.carry_out(p.BecomePrimary(2, Alone.FREE))
        await promote(nodes, nodes.b)
        found = nodes.servers["b"].sql("SELECT id FROM dlrproxy.t").split()
        assert set(acknowledged) <= set(map(int, found))
        assert len(acknowledged) >= enough


class StoppedError(Exception):
    pass


async def stopped_before(replication, command, statement):
    """Carry it out until a statement that begins so is about to be sent."""
    pool = replication._acting
    run = pool.run

    async def run_until(sql):
        if sql.startswith(statement):
            raise StoppedError
        return await run(sql)

    pool.run = run_until
    try:
        with pytest.raises(StoppedError):
            await replication.carry_out(command)
    finally:
        del pool.run


async def test_a_promotion_that_stops_between_any_two_statements_goes_on_when_it_is_repeated():
    async with a_pair() as nodes:
        assert await nodes.a.beat()
        nodes.servers["a"].kill()
        await nodes.b.carry_out(p.StopReceiving())
        seen = await nodes.until(nodes.b, lambda seen: seen.server.replica.all_applied)
        states = []
        for statement in ("SET", "SHOW", "STOP SLAVE", "INSERT", "UPDATE", "RESET SLAVE", "SET GLOBAL read_only"):
            await stopped_before(nodes.b, p.BecomePrimary(BEGIN, Alone.FREE), statement)
            now = (await nodes.b.read()).server
            assert not now.writable
            assert now.replica is None or now.replica.all_applied
            states.append((now.epoch, now.replica is not None))
        assert states == [(1, True)] * 5 + [(2, True), (2, False)]
        await nodes.b.carry_out(p.BecomePrimary(BEGIN, Alone.FREE))
        now = (await nodes.b.read()).server
        assert now == attrs.evolve(
            now, writable=True, epoch=2, holder="b", alone=Alone.FREE, replica=None, beat=seen.server.beat + 1
        )
        await nodes.b.carry_out(p.BecomePrimary(BEGIN, Alone.FREE))
        assert (await nodes.b.read()).server == now


async def test_nobody_writes_the_row_of_an_older_epoch():
    async with a_pair() as nodes:
        await nodes.app.run("UPDATE pair SET epoch=5,holder='b'")
        with pytest.raises(NotHolderError):
            await nodes.a.carry_out(p.TakeOver(4, Alone.FREE))
        for command in (p.GoAlone(Alone.FREE), p.GoPaired()):
            with pytest.raises(NotHolderError):
                await nodes.a.carry_out(command)
        assert (await nodes.a.read()).server.holder == "b"


async def test_a_row_written_on_both_sides_shows_as_failed_replication():
    async with a_pair() as nodes:
        await nodes.b.carry_out(p.StopReceiving())
        await stopped_before(nodes.b, p.BecomePrimary(BEGIN, Alone.FREE), "RESET SLAVE")
        assert (await nodes.b.read()).server.epoch == 2
        await nodes.app.run("INSERT INTO t VALUES (1)")
        await nodes.b.carry_out(p.StartReceiving())
        seen = await nodes.until(nodes.b, lambda seen: seen.server.replica.error)
        assert "out-of-order" in seen.server.replica.error
        assert not seen.server.replica.applying


async def test_a_replica_that_was_restarted_knows_nothing_of_what_it_had_received():
    async with a_pair() as nodes:
        nodes.pair.links["a"].cut()
        nodes.servers["b"].kill()
        await trio.to_thread.run_sync(nodes.servers["b"].start)
        seen = await nodes.until(nodes.b, lambda seen: True)
        assert seen.server.replica == Replica(receiving=False, applying=False, all_applied=False)
        assert seen.source_id == 0
        assert seen.server.writable
        await nodes.b.carry_out(p.StartReceiving())
        seen = await nodes.until(nodes.b, lambda seen: seen.server.replica.all_applied)
        assert (seen.connected, seen.source_id) == (False, 0)
        assert not seen.server.writable
        nodes.pair.links["a"].heal()
        await nodes.until(nodes.b, lambda seen: seen.connected and seen.source_id)


async def test_a_replica_that_threw_away_what_it_had_acknowledged_is_complete_once_it_has_fetched_it_again():
    async with a_pair() as nodes:
        assert await nodes.a.beat()
        completeness, acknowledged = Completeness(), []

        async def judged(peer):
            reading = await nodes.until(nodes.b, lambda seen: True)
            return completeness.judge(reading, peer).server.replica

        a = await nodes.a.read()
        assert (await judged(a)).complete
        async with trio.open_nursery() as nursery, held_back(nodes):
            nursery.start_soon(write_on, nodes.pair.account("a", "app"), range(20), acknowledged)
            with trio.fail_after(LONG_S):
                while len(acknowledged) < 20:  # noqa: ASYNC110 - counted by another task
                    await trio.sleep(0.01)
            nodes.servers["a"].kill()
            nodes.servers["b"].kill()
        await trio.to_thread.run_sync(nodes.servers["b"].start)
        assert not (await judged(None)).complete
        await nodes.b.carry_out(p.StartReceiving())
        await nodes.until(nodes.b, lambda seen: seen.server.replica.all_applied)
        lacking = attrs.evolve(await judged(None), error="")  # that it cannot reach its source
        assert lacking == attrs.evolve(RUNNING, complete=False)  # nothing else shows it
        assert set(nodes.servers["b"].sql("SELECT id FROM dlrproxy.t").split()) < set(map(str, acknowledged))
        await trio.to_thread.run_sync(nodes.servers["a"].start)
        a = await nodes.until(nodes.a, lambda seen: True)
        await judged(a)
        await nodes.until(nodes.b, lambda seen: seen.connected and includes(seen.received, a.server.position))
        await judged(a)
        assert (await judged(a)).complete
        await promote(nodes, nodes.b)
        assert set(map(int, nodes.servers["b"].sql("SELECT id FROM dlrproxy.t").split())) == set(acknowledged)


async def test_serving_is_not_done_at_a_database_server():
    replication = Replication(Account(user="nobody"), "a", strict=True, timeout_s=1)
    for command in (p.Serve(1), p.Release("")):
        with pytest.raises(ValueError, match="not for a database server"):
            await replication.carry_out(command)
