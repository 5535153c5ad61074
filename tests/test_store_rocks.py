"""What the embedded store does when the process, the disk or its files fail, and how its rows lie on the disk."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import structlog.testing
import trio
import trio.testing

from dlrproxy.store import rocks
from dlrproxy.store.database import Database, DatabaseError, database_options
from dlrproxy.store.directory import FORMAT_KEY
from dlrproxy.store.group import MAX_SAME_FORM, Group
from dlrproxy.store.layout import FAMILIES, MAX_EXPIRY_ROW, changes_of, decode_keys
from dlrproxy.store.port import Lookup, OpenMessage, StoreBusyError, StoreError, Table
from dlrproxy.store.rocks import open_rocks
from protocols.smpp.message_ids import candidates, normal

NOW = 1000.0
MIB = 1024 * 1024


def an_open(message_id, *, expires_at=90_000.0, owner="gw1"):
    return OpenMessage("acme", message_id, owner, b"4790000000", b"2000", 7, NOW, expires_at)


def a_lookup(reported):
    return Lookup("acme", reported, candidates(reported))


async def open_store(directory, **options):
    options = {"min_free_mb": 0} | options
    return await open_rocks(directory, lambda: NOW, **options)


@contextlib.asynccontextmanager
async def running(directory, **options):
    store = await open_store(directory, **options)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            yield store
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await store.close()


async def durable(store):
    done = trio.Event()
    store.after_durable(done.set)
    with trio.fail_after(100):
        await done.wait()


async def idle(store):
    """Wait until the last group's callbacks have returned."""
    await durable(store)
    await trio.testing.wait_all_tasks_blocked()


async def until(condition):
    """Real time: threads and disks take part."""
    with trio.fail_after(100):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await trio.sleep(0.002)


async def found_ids(store, ids):
    lookups = [Lookup("acme", message_id, ()) for message_id in ids]
    return {record.message_id for records in await store.find(lookups) for record in records}


class Injected:
    """Databases whose calls can be made to fail or to wait, and what became of them."""

    def __init__(self):
        self.opened = 0
        self.failures = {"open": [], "write": [], "sync": [], "get": []}  # texts to raise, one a call
        self.calls = []
        self.gates = {}  # call -> threading.Event to wait for
        self.entered = {}  # call -> threading.Event set when a call waits
        self.lose_unsynced = False

    def hold(self, call):
        self.entered[call] = threading.Event()
        self.gates[call] = threading.Event()

    def release(self, call):
        self.gates.pop(call).set()

    def happens(self, call, path):
        self.calls.append(call)
        gate = self.gates.get(call)
        if gate is not None:
            self.entered[call].set()
            assert gate.wait(100)
        if self.failures[call]:
            raise DatabaseError(path, self.failures[call].pop(0))

    def opener(self, path):
        self.opened += 1
        self.happens("open", path)
        return InjectedDatabase(path, self)


class InjectedDatabase(Database):
    def __init__(self, path, injected):
        self.injected = injected
        self.synced_size = None
        self.failed = False
        super().__init__(path)
        self.log = max(path.glob("*.log"))
        self.synced_size = self.log.stat().st_size

    def write(self, changes):
        self.injected.happens("write", self.path)
        super().write(changes)

    def sync(self):
        try:
            self.injected.happens("sync", self.path)
        except DatabaseError:
            self.failed = True
            raise
        super().sync()
        self.synced_size = self.log.stat().st_size

    def get(self, family, keys):
        # The store's own start reads too; only the lookups of records are of interest.
        if family == "open":
            self.injected.happens("get", self.path)
        return super().get(family, keys)

    def close(self):
        super().close()
        if self.failed and self.injected.lose_unsynced and self.log.exists():
            # What the kernel does after a failed fsync: the pages that it could not write are gone.
            os.truncate(self.log, self.synced_size)


@pytest.fixture(autouse=True)
def a_busy_machine_is_no_disk_that_stands_still(monkeypatch):
    monkeypatch.setattr("dlrproxy.store.commits.STALLED_S", 1000.0)


@pytest.fixture
def injected():
    return Injected()


# --- restart ---------------------------------------------------------------------------------------------------------


async def test_everything_is_there_after_a_restart(tmp_path):
    async with running(tmp_path / "data") as store:
        store_id = store.store_id
        for number in range(500):
            store.put_open(an_open(b"%06dAB" % number))
        store.close_open("acme", b"000007AB", final_at=1001.0, expires_at=5000.0)
        store.put(Table.CUSTODY, b"key", b"value")
        store.put(Table.META, b"rule", b"zeros")
    async with running(tmp_path / "data") as store:
        assert store.store_id == store_id
        assert len(await found_ids(store, [b"%06dAB" % number for number in range(500)])) == 500
        (by_form,) = await store.find([a_lookup(b"7ab")])
        assert [(record.message_id, record.final_at, record.expires_at) for record in by_form] == [
            (b"000007AB", 1001.0, 5000.0)
        ]
        assert await store.scan(Table.CUSTODY) == [(b"key", b"value")]
        assert await store.get(Table.META, b"rule") == b"zeros"


async def test_records_of_an_earlier_run_expire(tmp_path):
    async with running(tmp_path / "data") as store:
        store.put_open(an_open(b"old", expires_at=1100.0))
        store.put_open(an_open(b"grace", expires_at=90_000.0))
        store.put_open(an_open(b"young", expires_at=90_000.0))
        await durable(store)
    async with running(tmp_path / "data") as store:
        store.close_open("acme", b"grace", final_at=1001.0, expires_at=1100.0)  # known to the disk only
        await durable(store)
    async with running(tmp_path / "data") as store:
        assert [record.message_id for record in (await store.expire(2000.0)).unreported] == [b"old"]
        await durable(store)
        assert await found_ids(store, [b"old", b"grace", b"young"]) == {b"young"}


async def test_two_data_directories_have_two_store_ids(tmp_path):
    async with running(tmp_path / "one") as one, running(tmp_path / "two") as two:
        assert one.store_id != two.store_id


async def test_the_data_directory_is_for_its_owner_only(tmp_path):
    async with running(tmp_path / "a" / "data"):
        assert (tmp_path / "a" / "data").stat().st_mode & 0o777 == 0o700


async def test_a_store_that_was_not_finished_is_made_anew(tmp_path):
    (tmp_path / "data" / "store.new").mkdir(parents=True)
    (tmp_path / "data" / "store.new" / "CURRENT").write_text("garbage")
    async with running(tmp_path / "data") as store:
        store.put(Table.META, b"k", b"v")
        await durable(store)
        assert not (tmp_path / "data" / "store.new").exists()


async def test_a_failed_close_is_not_silent_and_releases_the_directory(tmp_path, injected):
    store = await open_store(tmp_path / "data", opener=injected.opener)
    store.put_open(an_open(b"m-1"))
    injected.failures["sync"] = ["Corruption: injected"]
    with pytest.raises(StoreError, match="injected"):
        await store.close()
    async with running(tmp_path / "data"):
        pass


async def test_lookups_after_close_fail(tmp_path, monkeypatch):
    monkeypatch.setattr("dlrproxy.store.disk.READ_WAIT_S", 0.01)
    async with running(tmp_path / "data") as store:
        pass
    with pytest.raises(StoreError, match="closed"):
        await store.find([a_lookup(b"1")])


# --- kill -9 ---------------------------------------------------------------------------------------------------------

WRITER = """
import os, sys, trio
from pathlib import Path
from dlrproxy.store.port import OpenMessage, Table
from dlrproxy.store.rocks import open_rocks

async def main():
    store = await open_rocks(Path(sys.argv[1]), lambda: 1000.0, min_free_mb=0, remembered=100)
    start = int(sys.argv[2])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        number = start
        while True:
            batch = range(number, number + 1 + number % 60)
            for n in batch:
                store.put_open(OpenMessage("acme", b"%08dF" % n, "gw1", b"47", b"20", 0, 1000.0, 90000.0))
                store.put(Table.CUSTODY, b"%08d" % n, b"x" * (n % 700))
                if n % 3 == 0:
                    store.close_open("acme", b"%08dF" % n, 1001.0, 80000.0)
            number = batch.stop
            text = b"".join(b"%d\\n" % n for n in batch)
            store.after_durable(lambda text=text: os.write(1, text))
            await trio.sleep(0)

trio.run(main)
"""


def child(code, *arguments, within=(), **options):
    return subprocess.Popen(
        [*within, sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        **options,
    )


async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path):
    acknowledged = []
    for rounds in range(3):
        start = (rounds + 1) * 10_000_000
        with child(WRITER, tmp_path / "data", start) as writer:
            wanted = start + 1000 + secrets.randbelow(2000)
            for line in writer.stdout:
                acknowledged.append(int(line))
                if acknowledged[-1] >= wanted:
                    break
            writer.send_signal(signal.SIGKILL)
            # What was acknowledged before the signal came, to the last whole line.
            acknowledged += [int(line) for line in writer.stdout.read().split(b"\n")[:-1]]
    assert len(acknowledged) == len(set(acknowledged)) > 3000
    async with running(tmp_path / "data", remembered=0) as store:
        ids = [b"%08dF" % number for number in acknowledged]
        records = [record for records in await store.find([Lookup("acme", i, ()) for i in ids]) for record in records]
        assert [record.message_id for record in records] == ids
        assert all(
            bool(record.final_at) == (number % 3 == 0) for number, record in zip(acknowledged, records, strict=True)
        )
        by_form = await store.find([a_lookup(normal(message_id)) for message_id in ids])
        assert [[record.message_id for record in records] for records in by_form] == [[i] for i in ids]
        rows = {}
        while page := await store.scan(Table.CUSTODY, max(rows, default=b"")):
            rows.update(page)
        assert all(rows[b"%08d" % number] == b"x" * (number % 700) for number in acknowledged)


# --- a second process ------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time, trio
from pathlib import Path
from dlrproxy.store.rocks import open_rocks

async def main():
    await open_rocks(Path(sys.argv[1]), lambda: 1000.0, min_free_mb=0)
    print("open", flush=True)
    sys.stdin.read()

trio.run(main)
"""


async def test_a_second_process_is_refused_and_told_who_holds_the_directory(tmp_path):
    with child(HOLDER, tmp_path / "data", stdin=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreBusyError) as refused:
            await open_store(tmp_path / "data")
        assert f"process {holder.pid}" in str(refused.value)
        assert str(tmp_path / "data") in str(refused.value)
        holder.stdin.close()
        holder.wait(60)
    async with running(tmp_path / "data"):
        pass


async def test_a_second_store_in_the_same_process_is_refused(tmp_path):
    async with running(tmp_path / "data"):
        with pytest.raises(StoreBusyError):
            await open_store(tmp_path / "data")


async def test_a_store_opened_behind_the_lock_is_busy_too(tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "store").symlink_to(tmp_path / "data" / "store")
    with child(HOLDER, tmp_path / "data", stdin=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreBusyError, match="another process"):
            await open_store(tmp_path / "copy")
        holder.stdin.close()


async def test_a_data_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file.*cannot be used"):
        await open_store(tmp_path / "file" / "data")


# --- damaged files ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def killed(tmp_path):
    """A data directory as kill -9 leaves it: two runs, so that there are tables and a log."""
    async with running(tmp_path / "life") as store:
        for number in range(2000):
            store.put_open(an_open(b"%06d-a" % number))
        await durable(store)
    async with running(tmp_path / "life") as store:
        for group in range(10):
            for number in range(200):
                store.put_open(an_open(b"%02d-%04d-b" % (group, number)))
            await durable(store)
        shutil.copytree(tmp_path / "life", tmp_path / "data")
    return tmp_path / "data"


def largest(directory, pattern):
    return max((directory / "store").glob(pattern), key=lambda path: path.stat().st_size)


def damage(path, change):
    path.write_bytes(change(path.read_bytes()))


def flipped(content, at, size=64):
    return content[:at] + bytes(octet ^ 0xFF for octet in content[at : at + size]) + content[at + size :]


def contents(directory):
    kept = ("CURRENT", "MANIFEST", "IDENTITY")
    return {
        path.name: path.read_bytes()
        for path in (directory / "store").iterdir()
        if path.suffix in {".sst", ".log"} or path.name.startswith(kept)
    }


@pytest.mark.parametrize(
    ("pattern", "change"),
    [
        ("CURRENT", lambda content: b""),
        ("CURRENT", lambda content: b"\x00\xffgarbage"),
        ("MANIFEST-*", lambda content: b""),
        ("MANIFEST-*", lambda content: content[: len(content) // 2]),
        ("MANIFEST-*", lambda content: secrets.token_bytes(len(content))),
        ("*.sst", lambda content: content[: len(content) // 2]),
        ("*.sst", lambda content: secrets.token_bytes(len(content))),
        ("*.log", lambda content: flipped(content, len(content) // 2)),
    ],
)
async def test_damage_is_told_and_nothing_is_made_anew(killed, pattern, change):
    damage(largest(killed, pattern), change)
    before = contents(killed)
    for _ in range(2):
        with pytest.raises(StoreError) as damaged:
            await open_store(killed)
        text = str(damaged.value)
        assert f"the store in {killed / 'store'} is damaged" in text
        assert f"dlrproxy.store.repair {killed}" in text
        assert contents(killed) == before


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.sst"])
async def test_a_missing_file_is_told_and_nothing_is_made_anew(killed, pattern):
    largest(killed, pattern).unlink()
    before = contents(killed)
    with pytest.raises(StoreError, match="is damaged"):
        await open_store(killed)
    assert contents(killed) == before


async def test_an_empty_store_directory_is_not_taken_for_a_new_one(tmp_path):
    (tmp_path / "data" / "store").mkdir(parents=True)
    with pytest.raises(StoreError, match="is damaged"):
        await open_store(tmp_path / "data")


async def test_a_damaged_block_fails_the_lookup_and_not_the_others(killed):
    table = largest(killed, "*.sst")
    damage(table, lambda content: flipped(content, 100))
    async with running(killed) as store:
        with pytest.raises(StoreError, match="is damaged"):
            await store.find([Lookup("acme", b"000000-a", ())])
        assert await found_ids(store, [b"00-0000-b", b"001999-a"]) == {b"00-0000-b", b"001999-a"}


async def test_a_damaged_block_does_not_pass_for_the_end_of_the_rows(tmp_path):
    async with running(tmp_path / "data") as store:
        for number in range(3000):
            store.put(Table.CUSTODY, b"%06d" % number, secrets.token_bytes(50))
        await durable(store)
    async with running(tmp_path / "data"):  # the open writes the log's rows into a table
        pass
    damage(largest(tmp_path / "data", "*.sst"), lambda content: flipped(content, len(content) // 2))
    async with running(tmp_path / "data") as store:
        with pytest.raises(StoreError, match="is damaged"):
            await store.scan(Table.CUSTODY, limit=5000)


@pytest.mark.parametrize("cut", [1, 100, 3000])
async def test_a_torn_last_record_costs_only_what_was_never_acknowledged(killed, cut):
    damage(largest(killed, "*.log"), lambda content: content[:-cut])
    async with running(killed) as store:
        ids = [b"%02d-%04d-b" % (group, number) for group in range(9) for number in range(200)]
        assert await found_ids(store, ids) == set(ids)
        assert await found_ids(store, [b"%06d-a" % number for number in range(2000)])


async def test_a_directory_that_is_not_ours(tmp_path):
    (tmp_path / "data").mkdir()
    Database(tmp_path / "data" / "store", options=database_options(create=True)).close()
    with pytest.raises(StoreError, match="no store id"):
        await open_store(tmp_path / "data")


async def test_a_store_of_a_later_format(tmp_path):
    async with running(tmp_path / "data"):
        pass
    database = Database(tmp_path / "data" / "store")
    database.write({family: [] for family in FAMILIES} | {"meta": [(FORMAT_KEY, b"2")]})
    database.close()
    with pytest.raises(StoreError, match="has format 2; this version reads 1"):
        await open_store(tmp_path / "data")


# --- a disk that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["write", "sync"])
async def test_after_a_failed_commit_the_store_is_opened_again_and_the_group_written_again(tmp_path, injected, failing):
    injected.lose_unsynced = True
    async with running(tmp_path / "data", opener=injected.opener, remembered=0) as store:
        for number in range(100):
            store.put_open(an_open(b"safe-%d" % number))
        await idle(store)
        injected.failures[failing] = ["IO error: injected", "IO error: injected again"]
        injected.hold("open")
        calls, accepting = [], []
        with structlog.testing.capture_logs() as logs:
            store.put_open(an_open(b"failed"))
            store.after_durable(lambda: calls.append(("failed", len(injected.failures[failing]))))
            store.after_durable(lambda: accepting.append(store.accepting))
            await trio.to_thread.run_sync(injected.entered["open"].wait, 60)
            assert not store.accepting
            store.put_open(an_open(b"after"))
            store.after_durable(lambda: calls.append(("after", 0)))
            assert calls == []
            injected.release("open")
            await idle(store)
        assert calls == [("failed", 0), ("after", 0)]
        assert accepting == [True]
        assert store.accepting
        assert injected.opened == 3
        events = [entry["event"] for entry in logs]
        assert events.count("store.commit_failed") == 2
        assert events[-1] == "store.commit_resumed"
        assert "injected" in logs[0]["why"]
        ids = {b"failed", b"after", *(b"safe-%d" % number for number in range(100))}
        assert await found_ids(store, ids) == ids
    async with running(tmp_path / "data") as store:
        assert await found_ids(store, ids) == ids


async def test_no_file_is_synced_again_after_a_failed_sync(tmp_path, injected):
    async with running(tmp_path / "data", opener=injected.opener) as store:
        injected.failures["sync"] = ["IO error: injected"]
        injected.calls.clear()
        store.put_open(an_open(b"m-1"))
        await durable(store)
    assert injected.calls == ["write", "sync", "open", "write", "sync"]


async def test_opening_again_is_tried_until_it_works(tmp_path, injected):
    async with running(tmp_path / "data", opener=injected.opener) as store:
        injected.failures["sync"] = ["IO error: injected"]
        injected.failures["open"] = ["IO error: still broken", "IO error: still broken"]
        store.put_open(an_open(b"m-1"))
        await durable(store)
        assert injected.opened == 4
        assert await found_ids(store, [b"m-1"]) == {b"m-1"}


async def test_a_disk_that_never_comes_back_ends_the_run(tmp_path, injected, monkeypatch):
    monkeypatch.setattr(rocks, "GIVE_UP_S", 0.2)
    store = await open_store(tmp_path / "data", opener=injected.opener)
    store.put_open(an_open(b"m-1"))
    called = []
    store.after_durable(lambda: called.append(1))
    injected.failures["sync"] = ["IO error: injected"] * 100
    with pytest.RaisesGroup(pytest.RaisesExc(StoreError, match="cannot be written")):
        await store.run()
    assert called == []
    with pytest.raises(StoreError):
        await store.close()


async def test_a_disk_that_stands_still_takes_nothing_more(tmp_path, injected, monkeypatch):
    monkeypatch.setattr("dlrproxy.store.commits.STALLED_S", 0.05)
    async with running(tmp_path / "data", opener=injected.opener) as store:
        injected.hold("sync")
        store.put_open(an_open(b"m-1"))
        await until(injected.entered["sync"].is_set)
        await until(lambda: not store.accepting)
        injected.release("sync")
        await idle(store)
        assert store.accepting


async def test_damage_found_while_writing_ends_the_run(tmp_path, injected):
    store = await open_store(tmp_path / "data", opener=injected.opener)
    injected.failures["write"] = ["Corruption: block checksum mismatch"]
    store.put_open(an_open(b"m-1"))
    with pytest.RaisesGroup(pytest.RaisesExc(StoreError, match="is damaged")):
        await store.run()
    await store.close()


async def test_a_run_cancelled_while_the_disk_fails_leaves_its_group_to_close(tmp_path, injected):
    called = []
    async with running(tmp_path / "data", opener=injected.opener) as store:
        injected.failures["sync"] = ["IO error: injected"]
        store.put_open(an_open(b"m-1"))
        store.after_durable(lambda: called.append(1))
        await until(lambda: not store.accepting)
        store.put_open(an_open(b"m-2"))
        store.after_durable(lambda: called.append(2))
        assert called == []
    assert called == [1, 2]
    async with running(tmp_path / "data") as store:
        assert await found_ids(store, [b"m-1", b"m-2"]) == {b"m-1", b"m-2"}


async def test_a_callback_that_raises_ends_the_run_and_is_not_called_again(tmp_path):
    store = await open_store(tmp_path / "data")
    calls = []

    def broken():
        calls.append("broken")
        raise ZeroDivisionError

    store.put_open(an_open(b"m-1"))
    store.after_durable(broken)
    store.after_durable(lambda: calls.append("next"))
    with pytest.RaisesGroup(ZeroDivisionError):
        await store.run()
    await store.close()
    assert calls == ["broken", "next"]


async def test_readers_wait_for_the_reopened_store(tmp_path, injected):
    async with running(tmp_path / "data", opener=injected.opener, remembered=0) as store:
        store.put_open(an_open(b"m-1"))
        await idle(store)
        injected.failures["sync"] = ["IO error: injected"]
        injected.hold("open")
        store.put_open(an_open(b"m-2"))
        await trio.to_thread.run_sync(injected.entered["open"].wait, 60)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read():
                assert await found_ids(store, [b"m-1", b"m-3"]) == {b"m-1"}

            await trio.testing.wait_all_tasks_blocked()
            injected.release("open")


async def test_readers_do_not_wait_for_ever(tmp_path, injected, monkeypatch):
    monkeypatch.setattr("dlrproxy.store.disk.READ_WAIT_S", 0.05)
    async with running(tmp_path / "data", opener=injected.opener) as store:
        injected.failures["sync"] = ["IO error: injected"]
        injected.hold("open")
        store.put_open(an_open(b"m-2"))
        await trio.to_thread.run_sync(injected.entered["open"].wait, 60)
        with pytest.raises(StoreError, match="opened again"):
            await store.find([a_lookup(b"77")])
        assert store.recent("acme", b"m-2") is not None
        injected.release("open")


async def test_the_store_is_not_closed_under_a_reader(tmp_path, injected):
    async with running(tmp_path / "data", opener=injected.opener, remembered=0) as store:
        store.put_open(an_open(b"m-1"))
        await idle(store)
        injected.hold("get")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read():
                assert await found_ids(store, [b"m-1"]) == {b"m-1"}

            await trio.to_thread.run_sync(injected.entered["get"].wait, 60)
            injected.failures["sync"] = ["IO error: injected"]
            store.put(Table.META, b"k", b"v")
            await trio.sleep(0.3)
            assert injected.opened == 1
            injected.release("get")
        await durable(store)
        assert injected.opened == 2


# --- a full disk -----------------------------------------------------------------------------------------------------

FILLER = """
import json, os, resource, structlog, sys, trio
from pathlib import Path
from dlrproxy.store.port import OpenMessage, Table
from dlrproxy.store import commits
from dlrproxy.store.rocks import open_rocks

commits.STALLED_S = 1000.0  # a machine that is busy is no disk that stands still
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

LIMIT = 200_000  # bytes a file may have; the log meets it first

def say(**what):
    os.write(1, json.dumps(what).encode() + b"\\n")

async def main():
    store = await open_rocks(Path(sys.argv[1]), lambda: 1000.0, min_free_mb=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        number = 0
        while store.accepting:
            store.put_open(OpenMessage("acme", b"m-%d" % number, "gw1", b"47", b"20", 0, 1000.0, 90000.0))
            store.put(Table.CUSTODY, b"%06d" % number, os.urandom(900))
            store.after_durable(lambda number=number: say(durable=number))
            number += 1
            await trio.sleep(0.0002)
        say(refusing=number)
        await trio.sleep(0.5)
        if len(sys.argv) > 2:
            say(end=True)
            os.kill(os.getpid(), 9)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        while not store.accepting:
            await trio.sleep(0.01)
        store.after_durable(nursery.cancel_scope.cancel)
    await store.close()
    say(end=True)

trio.run(main)
"""


@pytest.mark.parametrize("ending", ["room again", "killed while full"])
async def test_a_disk_without_room_refuses_and_loses_nothing_acknowledged(tmp_path, ending):
    arguments = [] if ending == "room again" else ["kill"]
    with child(FILLER, tmp_path / "data", *arguments) as filler:
        said = [json.loads(line) for line in filler.stdout]
    assert said[-1] == {"end": True}
    refused = next(index for index, what in enumerate(said) if "refusing" in what)
    durable_numbers = [what["durable"] for what in said if "durable" in what]
    assert refused > 10
    assert durable_numbers == list(range(len(durable_numbers)))
    if ending == "room again":
        assert len(durable_numbers) == said[refused]["refusing"]
    async with running(tmp_path / "data") as store:
        ids = {b"m-%d" % number for number in durable_numbers}
        assert await found_ids(store, ids) == ids
        rows = dict(await store.scan(Table.CUSTODY, limit=100_000))
        assert all(len(rows[b"%06d" % number]) == 900 for number in durable_numbers)


SMALL_DISK = """
import json, os, subprocess, sys, structlog, trio
from pathlib import Path
from dlrproxy.store.port import Lookup, OpenMessage, Table
from dlrproxy.store import commits
from dlrproxy.store.rocks import open_rocks

commits.STALLED_S = 1000.0  # a machine that is busy is no disk that stands still
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
here = Path(sys.argv[1])
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", here]).returncode:
    sys.exit(77)

async def until(condition):
    with trio.fail_after(100):
        while not condition():
            await trio.sleep(0.005)

async def fill_and_make_room(done):
    store = await open_rocks(here / "data", lambda: 1000.0, min_free_mb=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        store.put_open(OpenMessage("acme", b"before", "gw1", b"47", b"20", 0, 1000.0, 90000.0))
        store.after_durable(lambda: done.append(-1))
        await until(lambda: done)
        ballast = here / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        number = 0
        while store.accepting:
            store.put(Table.CUSTODY, b"%06d" % number, os.urandom(5000))
            store.after_durable(lambda number=number: done.append(number))
            number += 1
            await trio.sleep(0.001)
        await trio.sleep(1)
        full = {"refused": not store.accepting, "waiting": number - 1 - done[-1]}
        ballast.unlink()
        await until(lambda: store.accepting)
        store.after_durable(nursery.cancel_scope.cancel)
    await store.close()
    return full | {"written": number, "done": done[1:]}

async def main():
    said = await fill_and_make_room([])
    store = await open_rocks(here / "data", lambda: 1000.0, min_free_mb=0)
    (before,) = await store.find([Lookup("acme", b"before", ())])
    said |= {"before": len(before), "rows": len(await store.scan(Table.CUSTODY, limit=100_000))}
    await store.close()
    print(json.dumps(said))

trio.run(main)
"""


def test_a_file_system_that_is_really_full(tmp_path):
    """In a mount namespace of its own, which ends with the process whatever happens."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare(1)")
    if subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not make a mount namespace here")
    with child(SMALL_DISK, tmp_path, within=[unshare, "-rm"]) as filler:
        (line, *_) = [*filler.stdout, b"null"]
    if filler.returncode == 77:
        pytest.skip("may not mount a small file system here")
    assert filler.returncode == 0
    said = json.loads(line)
    assert said["refused"]
    assert said["waiting"] > 0
    assert said["done"] == list(range(said["written"]))
    assert said["rows"] == said["written"]
    assert said["before"] == 1


async def test_below_min_free_mb_nothing_is_accepted_and_writes_still_come_in(tmp_path, autojump_off):
    free = [300 * MIB]
    options = {"min_free_mb": 256, "free": lambda path: free[0]}
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path / "data", **options) as store:
            assert store.accepting
            free[0] = 255 * MIB
            await until(lambda: not store.accepting)
            store.put_open(an_open(b"id that comes back"))
            await durable(store)
            free[0] = 257 * MIB  # not enough above it: no flapping at the border
            await trio.sleep(0.05)
            assert not store.accepting
            free[0] = 300 * MIB
            await until(lambda: store.accepting)
    assert [entry["event"] for entry in logs] == ["store.space_low", "store.space_enough"]
    assert logs[0]["free_mb"] == 255
    assert logs[0]["min_free_mb"] == 256


@pytest.fixture
def autojump_off(monkeypatch):
    """Threads take part, so real time; looked at more often than once a second."""
    monkeypatch.setattr("dlrproxy.store.space.CHECK_S", 0.005)


async def test_a_store_that_starts_without_room_accepts_nothing(tmp_path):
    async with running(tmp_path / "data", min_free_mb=256, free=lambda path: 0) as store:
        assert not store.accepting


async def test_a_disk_that_stands_still_bounds_what_waits(tmp_path, injected, monkeypatch):
    monkeypatch.setattr(rocks, "MAX_WAITING_BYTES", 100_000)
    async with running(tmp_path / "data", opener=injected.opener) as store:
        injected.hold("sync")
        store.put_open(an_open(b"first"))
        await trio.to_thread.run_sync(injected.entered["sync"].wait, 60)
        number = 0
        while store.accepting:
            store.put_open(an_open(b"m-%d" % number))
            number += 1
        assert 100 < number < 1000
        injected.release("sync")
        await durable(store)
        assert store.accepting


# --- group commit and memory -----------------------------------------------------------------------------------------


async def test_what_is_written_during_a_commit_is_one_group(tmp_path, injected):
    async with running(tmp_path / "data", opener=injected.opener) as store:
        injected.hold("sync")
        injected.calls.clear()
        store.put_open(an_open(b"first"))
        await trio.to_thread.run_sync(injected.entered["sync"].wait, 60)
        for number in range(50):
            store.put_open(an_open(b"m-%d" % number))
            await trio.lowlevel.checkpoint()
        injected.release("sync")
        await idle(store)
        assert injected.calls.count("sync") == 2


async def fill_memory(store):
    """Write two groups: a store that remembers next to nothing has then forgotten what came before."""
    for message_id in (b"filler-1", b"filler-2"):
        store.put_open(an_open(message_id))
        await idle(store)


async def test_a_lookup_does_not_bring_back_what_was_replaced_while_it_read(tmp_path, injected):
    async with running(tmp_path / "data", opener=injected.opener, remembered=0) as store:
        store.put_open(an_open(b"m-1", owner="gw1"))
        await fill_memory(store)
        assert store.recent("acme", b"m-1") is None
        injected.hold("get")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read():
                (records,) = await store.find([a_lookup(b"m-1")])
                assert [record.owner for record in records] == ["gw2"]

            await trio.to_thread.run_sync(injected.entered["get"].wait, 60)
            store.put_open(an_open(b"m-1", owner="gw2"))
            await fill_memory(store)
            assert store.recent("acme", b"m-1") is None
            injected.release("get")
        (records,) = await store.find([a_lookup(b"m-1")])
        assert [record.owner for record in records] == ["gw2"]


async def test_what_waits_for_its_commit_stays_in_memory(tmp_path, injected):
    async with running(tmp_path / "data", opener=injected.opener, remembered=0) as store:
        injected.hold("sync")
        store.put_open(an_open(b"committing"))
        await trio.to_thread.run_sync(injected.entered["sync"].wait, 60)
        ids = [b"collecting-%d" % number for number in range(100)]
        for message_id in ids:
            store.put_open(an_open(message_id))
        for message_id in (b"committing", *ids):
            assert store.recent("acme", message_id) is not None
        injected.release("sync")


async def test_lookups_alone_do_not_fill_memory(tmp_path):
    async with running(tmp_path / "data") as store:
        for number in range(500):
            store.put_open(an_open(b"m-%d" % number))
        await durable(store)
    async with running(tmp_path / "data", remembered=20) as store:
        for number in range(500):
            assert await found_ids(store, [b"m-%d" % number])
        assert store.recent("acme", b"m-499") is not None
        assert store.recent("acme", b"m-1") is None


async def test_a_record_closed_while_a_lookup_read_it_stays_closed(tmp_path, injected):
    async with running(tmp_path / "data") as store:
        store.put_open(an_open(b"m-1"))
        await durable(store)
    async with running(tmp_path / "data", opener=injected.opener) as store:
        injected.hold("get")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.find, [a_lookup(b"m-1")])
            await trio.to_thread.run_sync(injected.entered["get"].wait, 60)
            store.close_open("acme", b"m-1", final_at=1001.0, expires_at=5000.0)
            injected.release("get")
        await idle(store)
        (records,) = await store.find([a_lookup(b"m-1")])
        assert [record.final_at for record in records] == [1001.0]


# --- rows on the disk ------------------------------------------------------------------------------------------------


def nothing_stored(family, keys):
    return [None] * len(keys)


def test_one_expiry_row_for_each_minute_of_a_group_in_parts_of_bounded_size():
    group = Group()
    for number in range(MAX_EXPIRY_ROW + 5):
        group.put_open(("acme", b"m-%d" % number), an_open(b"m-%d" % number, expires_at=600.0 + number % 50), b"")
    group.put_open(("acme", b"late"), an_open(b"late", expires_at=6000.0), b"late")
    rows = changes_of(group, nothing_stored, sequence=9)["expiry"]
    assert [len(decode_keys(value)) for _, value in rows] == [MAX_EXPIRY_ROW, 5, 1]
    assert len({key for key, _ in rows}) == 3


def test_ids_with_one_normal_form_are_bounded_and_the_newest_stay():
    group = Group()
    for zeros in range(1, MAX_SAME_FORM + 4):
        message_id = b"0" * zeros + b"7"
        group.put_open(("acme", message_id), an_open(message_id), b"7")
    ((key, value),) = changes_of(group, nothing_stored, sequence=9)["alias"]
    assert key == b"acme\0" + b"7"
    kept = decode_keys(value)
    assert len(kept) == MAX_SAME_FORM
    assert kept[-1] == b"0" * (MAX_SAME_FORM + 3) + b"7"


def test_an_id_in_its_normal_form_needs_no_alias():
    group = Group()
    group.put_open(("acme", b"12ab"), an_open(b"12ab"), b"12ab")
    assert changes_of(group, nothing_stored, sequence=9)["alias"] == []
