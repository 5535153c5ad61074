"""Two real servers: the primary is killed, the other one promoted, and the old one becomes its replica."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import attrs
import pytest
import trio
from test_keeper import FakeRelay
from test_pair_driver import SETTINGS, FakeService
from test_sql_replication import LONG_S, a_pair, promote

from dlrproxy.clock import NodeClock
from dlrproxy.custody import Keeper
from dlrproxy.keeping.intake import Intake
from dlrproxy.logs import RouteLog
from dlrproxy.modes import rejoin as r
from dlrproxy.modes.clone import CloneError, CloneSite
from dlrproxy.modes.merging import INTAKE, OF_CUSTODY, OF_OPENS, OF_PARKED, letter_of
from dlrproxy.modes.pair import Role
from dlrproxy.modes.pair_driver import PairDriver
from dlrproxy.modes.rejoin import Done, Wishes
from dlrproxy.modes.rejoin_driver import RejoinError, Rejoining, Servers
from dlrproxy.store.directory import free_bytes
from dlrproxy.store.port import OpenMessage, Table
from dlrproxy.store.space import Space
from dlrproxy.store.sql import schema, statements
from dlrproxy.store.sql.errors import SqlError
from dlrproxy.store.sql.merging import Merger
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.rejoin import RejoiningServer, Source
from dlrproxy.store.sql.store import Opening, open_sql
from protocols.peer.frames import Envelope, EnvelopeKey
from ring.custody import Custody as Machine
from ring.rows import CustodyRow, Kind, ParkedRow, encode_key, encode_row
from ring.topology import Topology

MANAGED = Wishes(manage=True)
CLONE_KEYS = ("pair.clone_command",)


def an_open(message_id, submitted_at=10_000.0, final_at=0.0):
    return OpenMessage("acme", message_id, "gw1", b"4670", b"4671", 1, submitted_at, submitted_at + 9e4, final_at)


def envelope_of(store_id, number, text=b"report"):
    return Envelope(EnvelopeKey(store_id, number), "a", "acme", "dlr", b"%d" % number, b"4670", text, "t", final=True)


def custody(store_id, number, **changes):
    row = CustodyRow(Kind.ORIGIN, envelope_of(store_id, number), 10_000.0, **changes)
    return Table.CUSTODY, encode_key(row.envelope.key), encode_row(row)


def parked(store_id, number):
    row = ParkedRow(envelope_of(store_id, number), "refused", 10_000.0, 10_001.0)
    return Table.PARKED, encode_key(row.envelope.key), encode_row(row)


class Rejoins:
    """What `dlrproxy rejoin` does at the machine of a; made anew for every run of it."""

    def __init__(self, nodes, data_dir, *, clone=True):
        self.nodes = nodes
        self.pair = nodes.pair
        self.data_dir = data_dir
        self.clone = clone
        self.said = []

    def site(self):
        a, b = self.nodes.servers["a"], self.nodes.servers["b"]
        backup = ["mariadb-backup", "--no-defaults", "--backup", "--stream=mbstream", f"--socket={b.socket}"]
        control = [sys.executable, __file__, str(a.directory / "pid")]
        start = shlex.join(a.command())
        return CloneSite(
            a.data,
            clone_command=[*backup, "--user=root", f"--datadir={b.data}"],
            stop_command=control,
            start_command=["sh", "-c", f"{start} >/dev/null 2>&1 &"],
        )

    def rejoining(self, wishes=MANAGED):
        account = self.pair.account
        limit = 20.0
        servers = Servers(
            own=RejoiningServer(account("a"), limit),
            primary=RejoiningServer(account("b"), limit),
            own_rows=Pool(account("a", "app"), 1, limit),
            primary_rows=Pool(account("b", "app"), 1, limit),
        )
        return servers, Rejoining(
            servers,
            me="a",
            peer="b",
            source=Source(host="127.0.0.1", port=self.pair.links["b"].port, user="copy", password="secret"),
            site=self.site() if self.clone else None,
            missing=() if self.clone else CLONE_KEYS,
            role=lambda: None,
            merger=Merger(self.data_dir),
            wishes=wishes,
            heartbeat_s=1.0,
            may_replace=lambda: True,
            say=self.said.append,
        )

    @contextlib.asynccontextmanager
    async def ready(self, wishes=MANAGED):
        servers, rejoining = self.rejoining(wishes)
        try:
            yield rejoining
        finally:
            await servers.close()

    async def run(self, wishes=MANAGED):
        async with self.ready(wishes) as rejoining:
            await rejoining.run()

    async def plan(self, wishes=MANAGED):
        async with self.ready(wishes) as rejoining:
            return await rejoining.plan()

    def audited(self):
        (path,) = self.data_dir.glob("rejoin-*.jsonl")
        assert path.stat().st_mode & 0o777 == 0o600
        return [json.loads(line) for line in path.read_text().splitlines()]


async def replicates(nodes):
    """What is written to b comes to a, and a acknowledges it."""
    primary = Pool(nodes.pair.account("b", "app"), 1, LONG_S)
    await primary.run("INSERT INTO t VALUES (1000)")
    await primary.close()
    with trio.fail_after(LONG_S):
        while True:
            if "1000" in await trio.to_thread.run_sync(nodes.servers["a"].sql, "SELECT id FROM dlrproxy.t"):
                break
            await trio.sleep(0.05)
    await nodes.until(nodes.b, lambda seen: seen.semi_sync.replicas == 1)
    seen = (await nodes.until(nodes.a, lambda seen: seen.server.replica is not None)).server
    assert not seen.writable
    assert (seen.epoch, seen.holder) == (2, "b")


async def killed_and_promoted(nodes, *, before_the_cut=(), tail=()):
    """What a has written when it dies, of which b has received the first; then b is promoted."""
    for statement in before_the_cut:
        await nodes.app.run(statement)
    position = (await nodes.a.read()).server.position
    await nodes.until(nodes.b, lambda seen: seen.server.position == position)
    nodes.pair.links["a"].cut()
    for statement in tail:
        await nodes.app.run(statement)
    await trio.to_thread.run_sync(nodes.servers["a"].kill)
    await promote(nodes, nodes.b)


async def test_a_primary_that_died_with_nothing_of_its_own_replicates_again(tmp_path):
    async with a_pair() as nodes:
        await killed_and_promoted(nodes, before_the_cut=["INSERT INTO t VALUES (1)"])
        await trio.to_thread.run_sync(nodes.servers["a"].start)
        rejoins = Rejoins(nodes, tmp_path, clone=False)
        assert await rejoins.plan() == r.MakeReadOnly()
        await rejoins.run()
        await replicates(nodes)
        assert await rejoins.plan() == Done()
        await rejoins.run()  # once more does no harm
        assert not list(tmp_path.glob("rejoin-*"))


async def test_a_primary_that_has_handed_over_applies_what_it_gets_once_it_replicates(tmp_path):
    async with a_pair() as nodes:
        await killed_and_promoted(nodes)
        await trio.to_thread.run_sync(nodes.servers["a"].start)
        nodes.servers["a"].sql("SET GLOBAL read_only=ON; SET GLOBAL rpl_semi_sync_master_enabled=ON")
        await Rejoins(nodes, tmp_path, clone=False).run()
        await replicates(nodes)


async def test_a_tail_that_no_replica_had_acknowledged_can_be_dropped_at_the_start_of_the_server(tmp_path):
    async with a_pair() as nodes:
        assert await nodes.a.beat()  # semi-sync is on
        position = (await nodes.a.read()).server.position
        await nodes.until(nodes.b, lambda seen: seen.server.position == position)
        nodes.pair.links["a"].cut()
        hasty = Pool(nodes.pair.account("a", "app"), 1, 1.0)
        with pytest.raises(SqlError):
            await hasty.run("INSERT INTO t VALUES (7)")
        await trio.to_thread.run_sync(nodes.servers["a"].kill)
        await hasty.close()
        await promote(nodes, nodes.b)
        start = nodes.servers["a"].start
        await trio.to_thread.run_sync(start, "--init-rpl-role=SLAVE", "--read-only=ON")
        await Rejoins(nodes, tmp_path, clone=False).run()
        await replicates(nodes)
        assert "7" not in nodes.servers["a"].sql("SELECT id FROM dlrproxy.t").split()


async def parted(nodes):
    """a has rows that b never got; b has delivered one that both had. Returns the store's id."""
    store_id = await schema.store_id(nodes.app)
    both = statements.put_items([custody(store_id, 1), custody(store_id, 2), parked(store_id, 3)])
    clock = statements.put_items([(Table.META, b"clock", b"10000.0")])
    tail = [
        statements.put_opens([an_open(b"only-a"), an_open(b"both", final_at=10_050.0)]),
        statements.put_items(
            [custody(store_id, 4), parked(store_id, 5), custody(store_id, 6, superseded=True), (Table.META, b"x", b"y")]
        ),
    ]
    await killed_and_promoted(nodes, before_the_cut=[clock, both, statements.put_opens([an_open(b"both")])], tail=tail)
    primary = Pool(nodes.pair.account("b", "app"), 1, LONG_S)
    name = encode_key(EnvelopeKey(store_id, 1))
    await primary.run(statements.delete_items(Table.CUSTODY, name[:-1], name + b"\0"))  # it is delivered
    await primary.run(statements.put_opens([an_open(b"only-b")]))
    await primary.close()
    await trio.to_thread.run_sync(nodes.servers["a"].start)
    return store_id


async def rows_at(nodes, name, table=Table.META, after=b""):
    pool = Pool(nodes.pair.account(name, "app"), 1, LONG_S)
    rows = (await pool.run(statements.scan_items(table.value, after, 100))).rows
    await pool.close()
    return rows


async def to_be_taken_in(nodes):
    rows = await rows_at(nodes, "b")
    return [(letter_of(name), content) for name, content in rows if name.startswith(INTAKE)]


async def open_at(nodes, name):
    pool = Pool(nodes.pair.account(name, "app"), 1, LONG_S)
    found = (await pool.run(statements.scan_opens(("", b""), 100))).rows
    await pool.close()
    return {message.message_id: message.final_at for message in map(statements.open_of, found)}


async def test_one_that_has_diverged_is_merged_and_cloned(tmp_path):
    async with a_pair() as nodes:
        store_id = await parted(nodes)
        rejoins = Rejoins(nodes, tmp_path)
        await rejoins.run()
        await replicates(nodes)
        # What a had alone is with b, and so with a again; what both had, and b has delivered, does not come back.
        expected = {b"only-a": 0.0, b"only-b": 0.0, b"both": 10_050.0}
        assert (await open_at(nodes, "b"), await open_at(nodes, "a")) == (expected, expected)
        assert await to_be_taken_in(nodes) == [
            (OF_CUSTODY, custody(store_id, 4)[2]), (OF_PARKED, parked(store_id, 5)[2]), (OF_OPENS, b"1")
        ]  # fmt: skip
        assert [name for name, _ in await rows_at(nodes, "b", Table.CUSTODY)] == [custody(store_id, 2)[1]]
        audited = [(line["table"], line["what"]) for line in rejoins.audited()]
        assert sorted(audited) == [
            ("custody", "merged"), ("custody", "superseded"), ("open_messages", "merged"), ("open_messages", "merged"),
            ("parked", "merged"),
        ]  # fmt: skip
        assert len(list(nodes.servers["a"].directory.glob("data.before-*"))) == 1
        assert await rejoins.plan() == Done()


@contextlib.asynccontextmanager
async def its_node_runs(nodes):
    """The node of a, whose server it manages."""
    service = FakeService()
    settings = attrs.evolve(SETTINGS, me="a")
    driver = PairDriver(settings, nodes.a, nodes.peer_of_a, service, heartbeat_s=0.2, reach_s=2.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        yield driver
        nursery.cancel_scope.cancel()
    assert not [call for call in service.calls if call[1] == "serve"]


@pytest.mark.parametrize("has_diverged", [False, True])
async def test_its_node_may_run_meanwhile(tmp_path, has_diverged):
    async with a_pair() as nodes:
        if has_diverged:
            await parted(nodes)
        else:
            await killed_and_promoted(nodes)
            await trio.to_thread.run_sync(nodes.servers["a"].start)
        async with its_node_runs(nodes) as driver:
            await Rejoins(nodes, tmp_path).run()
            await replicates(nodes)
            with trio.fail_after(LONG_S):
                while True:
                    if (driver.machine.role, driver.machine.why) == (Role.STANDBY, "its database server is a replica"):
                        break
                    await trio.sleep(0.05)


async def test_the_active_node_takes_in_what_was_merged(tmp_path):
    async with a_pair() as nodes:
        store_id = await parted(nodes)
        with pytest.raises(RejoinError):
            await Rejoins(nodes, tmp_path, clone=False).run()
        clock = NodeClock(wall=lambda: 10_000.0, monotonic=trio.current_time)
        account = nodes.pair.account("b", "app")
        store = await open_sql(
            account, clock.now, Opening(space=Space(tmp_path, 0, free_bytes), connections=1, statement_timeout_s=LONG_S)
        )
        assert store.store_id == store_id
        machine = Machine(topology=Topology(("b",), "b"), store_id=store_id, run=2)
        keeper = Keeper(machine, store, clock, RouteLog("b"))
        relay = FakeRelay("gw1")
        relay.bound = False
        keeper.attach({"acme": relay}, lambda peer, frame: False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            assert await Intake(store, keeper).take_in() == 3
            durable = trio.Event()
            store.after_durable(durable.set)
            await durable.wait()
            nursery.cancel_scope.cancel()
        await store.close()
        assert await to_be_taken_in(nodes) == []
        inherited = [name for name, _ in await rows_at(nodes, "b", Table.CUSTODY)]
        assert inherited == [custody(store_id, 2)[1], encode_key(EnvelopeKey(store_id, 2 << 32 | 1))]
        assert len(await rows_at(nodes, "b", Table.PARKED)) == 2


async def test_a_merge_that_is_repeated_brings_nothing_twice(tmp_path):
    async with a_pair() as nodes:
        await parted(nodes)
        rejoins = Rejoins(nodes, tmp_path, clone=False)
        for _ in range(2):  # the second run finds that it is done
            with pytest.raises(RejoinError, match=r"pair\.clone_command"):
                await rejoins.run()
        assert len(await to_be_taken_in(nodes)) == 3
        # Interrupted just before its end, with the first rows taken in and delivered since:
        primary = Pool(nodes.pair.account("b", "app"), 1, LONG_S)
        marks = [name for name, _ in await rows_at(nodes, "b") if name.startswith(b"merged/")]
        batches = [(Table.META, marks[0] + b"/" + batch, b"1") for batch in (b"c0", b"p0")]
        await primary.run(statements.put_items(batches))
        await primary.run(statements.delete_items(Table.META, marks[0][:-1], marks[0] + b"\0"))
        await primary.run(statements.delete_items(Table.META, INTAKE, INTAKE + b"~"))
        await primary.close()
        with pytest.raises(RejoinError, match=r"pair\.clone_command"):
            await rejoins.run()
        assert [letter for letter, _ in await to_be_taken_in(nodes)] == [OF_OPENS]
        assert not [name for name, _ in await rows_at(nodes, "b") if name in {batch[1] for batch in batches}]


async def test_both_active_in_a_partition_are_merged_after_it(tmp_path):
    """`safety = "available"`: the old primary went on, and answered gateways, while the other one was promoted."""
    async with a_pair(strict=False) as nodes:
        store_id = await schema.store_id(nodes.app)
        nodes.pair.links["a"].cut()
        await promote(nodes, nodes.b)
        for number in range(300):
            await nodes.app.run(statements.put_items([custody(store_id, number)]))
            await nodes.app.run(statements.put_opens([an_open(b"a%d" % number)]))
        rejoins = Rejoins(nodes, tmp_path)
        await rejoins.run()
        await replicates(nodes)
        assert len([letter for letter, _ in await to_be_taken_in(nodes) if letter == OF_CUSTODY]) == 100
        opens = await trio.to_thread.run_sync(nodes.servers["b"].sql, "SELECT COUNT(*) FROM dlrproxy.open_messages")
        assert opens.split() == ["300"]
        intake = await trio.to_thread.run_sync(
            nodes.servers["b"].sql, "SELECT COUNT(*) FROM dlrproxy.items WHERE name LIKE 'intake/%/c/%'"
        )
        assert intake.split() == ["300"]


async def test_a_clone_that_does_not_come_over_leaves_the_old_data_alone(tmp_path):
    async with a_pair() as nodes:
        await parted(nodes)
        rejoins = Rejoins(nodes, tmp_path)
        broken = rejoins.site()
        rejoins.site = lambda: CloneSite(
            nodes.servers["a"].data,
            clone_command=["sh", "-c", "echo no room >&2; exit 3"],
            stop_command=broken._stop_command,
            start_command=broken._start_command,
        )
        with pytest.raises(RejoinError, match=r"ended with 3\): no room"):
            await rejoins.run()
        assert (await nodes.until(nodes.a, lambda seen: not seen.server.writable)).server.epoch == 1
        assert await rejoins.plan() == r.Fetch()


async def test_a_server_whose_data_is_gone_gets_a_clone_by_a_persons_word(tmp_path):
    async with a_pair() as nodes:
        await killed_and_promoted(nodes)
        data = nodes.servers["a"].data
        owner = data.stat()
        await trio.to_thread.run_sync(shutil.rmtree, data)
        data.mkdir()
        os.chown(data, owner.st_uid, owner.st_gid)
        rejoins = Rejoins(nodes, tmp_path)
        lost = Wishes(manage=True, clone=True, lost=True)
        assert await rejoins.plan(lost) == r.Fetch()
        await rejoins.run(lost)
        await replicates(nodes)
        assert not list(tmp_path.glob("rejoin-*"))


def test_a_command_that_fails_says_what_it_said(tmp_path):
    site = CloneSite(
        tmp_path / "data", clone_command=(), stop_command=["sh", "-c", "echo no; exit 5"], start_command=()
    )
    with pytest.raises(CloneError, match="sh ended with 5: no"):
        site.stop()


def _stop(pid_file):
    """As systemctl does: until the server has ended."""
    pid = int(Path(pid_file).read_text())
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, signal.SIGTERM)
        while "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.05)


if __name__ == "__main__":
    with contextlib.suppress(FileNotFoundError):
        _stop(sys.argv[1])
