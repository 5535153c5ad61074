"""Leases in a real Galera cluster of three servers, which lose one another."""

from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import pytest
import trio
from galera_cluster import NAMES, shared_cluster

from dlrproxy.modes.cluster import MasterRow, Member
from dlrproxy.modes.node_settings import NodeSettings
from dlrproxy.release import RELEASE
from dlrproxy.store.port import Table
from dlrproxy.store.sql import partition, schema
from dlrproxy.store.sql.errors import FencedError, NoQuorumError, ReadOnlyError, SqlError
from dlrproxy.store.sql.galera import Galera, server_of
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import put_items

TIMEOUT_S = 30.0
RACES = 20


async def until(condition):
    with trio.fail_after(100):
        while not await condition():  # noqa: ASYNC110 - what real servers lead to
            await trio.sleep(0.05)


async def in_thread(function, *args, **kwargs):
    return await trio.to_thread.run_sync(partial(function, *args, **kwargs))


@asynccontextmanager
async def a_cluster():
    """Its servers, and a node's view of each, with an empty schema."""
    cluster = await in_thread(shared_cluster)
    await in_thread(cluster.wait_synced, size=len(NAMES))
    cluster.servers["a"].sql("DROP DATABASE dlrproxy; CREATE DATABASE dlrproxy")
    pool = Pool(cluster.account("a"), 1, TIMEOUT_S)
    await schema.init(pool)
    await pool.close()
    views = {
        name: Galera(cluster.account(name), name, name.encode(), timeout_s=TIMEOUT_S, beat_timeout_s=TIMEOUT_S)
        for name in NAMES
    }
    for view in views.values():
        await caught_up(view)
    try:
        yield cluster, views
    finally:
        for view in views.values():
            await view.close()


async def caught_up(view):
    """What the server says once it has applied everything. One that was restarted has to be dialled anew."""

    async def has():
        with suppress(SqlError):
            await view._asking.run("SET STATEMENT wsrep_sync_wait=1 FOR SELECT 1 FROM members")
            return True

    await until(has)
    return await view.read()


async def test_a_server_says_what_it_belongs_to():
    async with a_cluster() as (_, views):
        seen = await views["b"].read()
        assert (seen.server.primary, seen.server.ready, seen.server.state) == (True, True, "Synced")
        assert (seen.server.size, seen.server.weight) == (3, 3)
        assert len(seen.server.uuid) == 36
        assert (seen.rows.members, seen.rows.master) == ({}, MasterRow())


async def test_a_schema_that_does_not_fit_says_what_to_do_at_every_server():
    async with a_cluster() as (cluster, views):
        for found, said in (
            ("UPDATE dlrproxy.schema_version SET version=99", ""),
            ("UPDATE dlrproxy.schema_version SET compatible_from=99", f"from version 99 on; dlrproxy {RELEASE} knows"),
            ("UPDATE dlrproxy.schema_version SET version=0", "run `dlrproxy db migrate`"),
        ):
            cluster.servers["a"].sql(found)
            seen = await caught_up(views["b"])
            assert said in seen.misfit
            assert bool(said) == bool(seen.misfit) == (seen.rows is None)


async def test_a_term_begins_with_a_claim_and_is_ended_by_a_taking():
    async with a_cluster() as (_, views):
        a, b = views["a"], views["b"]
        assert await a.claim(None) == 1
        assert await a.claim(None) is None
        assert await a.beat(1)
        row = (await caught_up(b)).rows.members["a"]
        assert row == Member(epoch=1, beat=2, home=b"a")
        assert await a.beat(1)
        assert not await b.take("a", row, "b")  # it has beaten since
        row = (await caught_up(b)).rows.members["a"]
        assert await b.take("a", row, "b")
        assert not await b.take("a", row, "b")
        assert not await a.beat(1)
        row = (await caught_up(a)).rows.members["a"]
        assert row == Member(epoch=2, beat=3, home=b"a", taken=True, heir="b")
        assert not await a.beat(2)
        assert await a.claim(attrs.evolve(row, beat=7)) is None
        assert await a.claim(row) == 3
        assert await a.beat(3)
        assert (await a.read()).rows.members["a"] == Member(epoch=3, beat=5, home=b"a")


async def test_rows_of_a_taken_node_go_to_its_heir_until_it_is_back():
    async with a_cluster() as (cluster, views):
        a, b = views["a"], views["b"]
        assert await a.claim(None) == 1
        pool = Pool(cluster.account("a"), 1, TIMEOUT_S)
        await partition.fence(pool, "a", 1)
        await pool.run(put_items([(Table.CUSTODY, b"1", b"x"), (Table.PARKED, b"2", b"y")], "a"))
        assert await b.move("a", 2) == 0  # it is not taken
        assert await b.take("a", (await caught_up(b)).rows.members["a"], "b")
        assert await b.move("a", 2) == 2
        assert await b.move("a", 2) == 0
        assert (await caught_up(a)).rows.members["a"].moved == 1
        assert [(await caught_up(view)).inbox for view in (a, b)] == [(), (b"1",)]
        assert set((await pool.run("SELECT node,kind FROM items WHERE kind IN ('inbox','parked')")).rows) == {
            (b"b", b"inbox"), (b"b", b"parked"),
        }  # fmt: skip
        assert await a.claim((await a.read()).rows.members["a"]) == 3
        await partition.fence(pool, "a", 3)
        await pool.run(put_items([(Table.CUSTODY, b"3", b"z")], "a"))
        assert await b.move("a", 2) == 0
        with pytest.raises(FencedError):
            await partition.move(pool, "a", 2, "b")
        await pool.close()


async def test_of_three_that_want_the_lease_at_once_exactly_one_gets_it():
    async with a_cluster() as (_, views):
        for race in range(RACES):
            seen = {name: (await caught_up(view)).rows.master for name, view in views.items()}
            assert len(set(seen.values())) == 1
            won = {}

            async def run(name, row, won=won):
                won[name] = await views[name].take_lease(row)

            async with trio.open_nursery() as nursery:
                for name, row in seen.items():
                    nursery.start_soon(run, name, row)
            (winner,) = [name for name, epoch in won.items() if epoch is not None]
            assert won[winner] == race + 1
            for name, view in views.items():
                assert await view.renew(race + 1) == (name == winner)


class Beater:
    """Beats until it is refused."""

    def __init__(self, view):
        self.view = view
        self.sent = []  # when those that returned were sent
        self.errors = []
        self.refused = trio.Event()

    async def run(self, epoch):
        while not self.refused.is_set():
            sent_at = trio.current_time()
            try:
                if await self.view.beat(epoch):
                    self.sent.append(sent_at)
                    await trio.sleep(0.01)
                else:
                    self.refused.set()
            except SqlError as error:
                self.errors.append(error)
                await trio.sleep(0.2)


@asynccontextmanager
async def beating(views):
    beaters = {name: Beater(view) for name, view in views.items()}
    async with trio.open_nursery() as nursery:
        for name, beater in beaters.items():
            nursery.start_soon(beater.run, await views[name].claim(None))
        await until_all_beat(beaters)
        yield beaters
        nursery.cancel_scope.cancel()


async def until_all_beat(beaters):
    """After now."""
    since = trio.current_time()

    async def all_have():
        return all(beater.sent and beater.sent[-1] >= since for beater in beaters.values())

    await until(all_have)


async def test_beats_wait_while_a_server_dies_and_go_on():
    async with a_cluster() as (cluster, views), beating(views) as beaters:
        survivors = {name: beaters[name] for name in "ab"}
        try:
            await in_thread(cluster.servers["c"].kill)
            await until_all_beat(survivors)
            assert all(not beater.errors for beater in survivors.values())
            assert (await views["a"].read()).server.size == 2
        finally:
            await in_thread(cluster.restart, "c")
        await in_thread(cluster.wait_synced, size=3)
        await until_all_beat(beaters)
        returned = {name: len(beater.sent) for name, beater in survivors.items()}
        rows = (await caught_up(views["c"])).rows.members
        assert all(rows[name].beat >= count for name, count in returned.items())


@pytest.mark.parametrize("how", ["isolated", "stopped"])
async def test_no_beat_returns_after_the_part_was_taken_whatever_the_server_calls_itself(how):
    async with a_cluster() as (cluster, views), beating(views) as beaters:
        server = cluster.servers["c"]
        try:
            if how == "isolated":
                await in_thread(cluster.isolate, "c")
            else:
                server.pause()

            async def alone():
                return (await views["a"].read()).server.size == 2

            await until(alone)
            row = (await caught_up(views["a"])).rows.members["c"]
            assert await views["a"].take("c", row, "a")
            taken_at = trio.current_time()
        finally:
            if how == "isolated":
                await in_thread(cluster.isolate, "c", isolated=False)
            else:
                server.go_on()
        await in_thread(cluster.wait_synced, size=3)
        with trio.fail_after(100):
            await beaters["c"].refused.wait()
        assert all(sent_at < taken_at for sent_at in beaters["c"].sent)
        assert (await caught_up(views["c"])).rows.members["c"] == attrs.evolve(row, epoch=2, taken=True, heir="a")


async def test_a_server_without_quorum_says_so_and_refuses_the_rest():
    async with a_cluster() as (cluster, views):
        assert await views["c"].claim(None) == 1
        try:
            await in_thread(cluster.isolate, "c")

            async def knows():
                return not (await views["c"].read()).server.primary

            await until(knows)
            seen = await views["c"].read()
            assert (seen.server.ready, seen.rows) == (False, None)
            for refused in (partial(views["c"].beat, 1), partial(views["c"].renew, 1), partial(views["c"].claim, None)):
                with pytest.raises(NoQuorumError):
                    await refused()
        finally:
            await in_thread(cluster.isolate, "c", isolated=False)


@asynccontextmanager
async def spoilt(server, how, mended):
    server.sql(how)
    try:
        yield
    finally:
        server.sql(mended)


async def test_a_server_that_does_not_do_its_part_says_why():
    async with a_cluster() as (cluster, views):
        server, view = cluster.servers["c"], views["c"]
        assert await view.claim(None) == 1
        async with spoilt(server, "SET GLOBAL wsrep_on=OFF", "SET GLOBAL wsrep_on=ON"):
            seen = await view.read()
            assert (seen.server.primary, seen.server.ready, seen.server.certifies) == (True, True, False)
        async with spoilt(server, "SET GLOBAL read_only=ON", "SET GLOBAL read_only=OFF"):
            assert (await view.read()).trouble == ""
            with pytest.raises(ReadOnlyError):
                await view.beat(1)
        async with spoilt(server, "SET GLOBAL wsrep_reject_queries=ALL", "SET GLOBAL wsrep_reject_queries=NONE"):
            seen = await view.read()
            assert (seen.server.primary, seen.rows) == (True, None)
            assert "1047" in seen.trouble
        async with spoilt(
            server, "RENAME TABLE dlrproxy.lease TO dlrproxy.l", "RENAME TABLE dlrproxy.l TO dlrproxy.lease"
        ):
            seen = await view.read()
            assert (seen.server.primary, seen.rows) == (True, None)
            assert "`dlrproxy db init` makes what is missing" in seen.trouble
        seen = await view.read()
        assert (seen.trouble, seen.server.certifies) == ("", True)
        assert await view.beat(1)


async def test_a_node_reads_at_its_own_server_what_another_one_is_set_to():
    async with a_cluster() as (_, views):
        assert await views["a"].claim(None) == 1
        for lease_s in (6.0, 9.0):
            await views["a"].publish(NodeSettings(lease_s=lease_s, peers=("a", "b")))
            (seen,) = (await caught_up(views["b"])).rows.members.values()
            assert seen.settings == NodeSettings(lease_s=lease_s, peers=("a", "b"))
        assert await views["b"].claim(None) == 1
        assert (await caught_up(views["a"])).rows.members["b"].settings is None


def test_what_a_server_does_not_say_counts_against_it():
    seen = server_of({})
    assert (seen.primary, seen.ready, seen.state, seen.size) == (False, False, "", 0)
