"""A damaged store is copied, and what can be read of it is saved."""

import os
import secrets
import shutil
import sys

import pytest
import trio

from dlrproxy.store.port import Lookup, OpenMessage, StoreBusyError, StoreError, Table
from dlrproxy.store.repair import repair
from dlrproxy.store.rocks import open_rocks

EARLY = [b"early-%04d" % number for number in range(1500)]  # in tables when the damage is done
LATE = [b"late-%04d" % number for number in range(1500)]  # in the log
GROUP = 100


async def write(directory, ids, copy_to=None):
    store = await open_rocks(directory, lambda: 1000.0, min_free_mb=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        for start in range(0, len(ids), GROUP):
            for message_id in ids[start : start + GROUP]:
                store.put_open(OpenMessage("acme", message_id, "gw1", b"47", b"20", 0, 1000.0, 90000.0))
            store.put(Table.CUSTODY, ids[start], secrets.token_bytes(200))
            done = trio.Event()
            store.after_durable(done.set)
            await done.wait()
        if copy_to is not None:
            shutil.copytree(directory, copy_to)  # as kill -9 would leave it
        nursery.cancel_scope.cancel()
    await store.close()
    return store.store_id


async def saved(directory):
    store = await open_rocks(directory, lambda: 1000.0, min_free_mb=0)
    found = await store.find([Lookup("acme", message_id, ()) for message_id in EARLY + LATE])
    custody = await store.scan(Table.CUSTODY)
    await store.close()
    ids = [record.message_id for records in found for record in records]
    return store.store_id, ids, [key for key, _ in custody]


@pytest.fixture
async def killed(tmp_path):
    store_id = await write(tmp_path / "life", EARLY)
    await write(tmp_path / "life", LATE, copy_to=tmp_path / "data")
    return tmp_path / "data", store_id


def largest(directory, pattern):
    return max((directory / "store").glob(pattern), key=lambda path: path.stat().st_size)


def everything():
    return EARLY + LATE, [*EARLY[::GROUP], *LATE[::GROUP]]


def empty(content):
    return b""


def garbage(content):
    return secrets.token_bytes(len(content))


def flip_middle(content):
    at = len(content) // 2
    return content[:at] + bytes(octet ^ 0xFF for octet in content[at : at + 32]) + content[at + 32 :]


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*"])
@pytest.mark.parametrize("change", [empty, garbage])
async def test_lost_bookkeeping_costs_nothing(killed, pattern, change):
    directory, store_id = killed
    path = largest(directory, pattern)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StoreError):
        await saved(directory)
    done = repair(directory)
    assert done.how == "tables"
    assert not done.new_store_id
    ids, custody = everything()
    assert await saved(directory) == (store_id, ids, sorted(custody))
    assert done.rows["open"] == len(ids)
    assert done.rows["custody"] == len(custody)


async def test_a_store_that_was_never_written_out_loses_nothing_with_its_bookkeeping(tmp_path):
    """RocksDB's repair forgets the log's rows of families that have no table: every family has one from the start."""
    store_id = await write(tmp_path / "life", LATE, copy_to=tmp_path / "data")
    largest(tmp_path / "data", "CURRENT").write_bytes(b"")
    repair(tmp_path / "data")
    assert await saved(tmp_path / "data") == (store_id, LATE, LATE[::GROUP])


async def test_a_damaged_log_costs_one_group_or_what_shares_its_block(killed):
    directory, store_id = killed
    path = largest(directory, "*.log")
    path.write_bytes(flip_middle(path.read_bytes()))
    done = repair(directory)
    assert done.how == "log"
    found_id, ids, custody = await saved(directory)
    assert found_id == store_id
    assert set(EARLY) <= set(ids)
    assert len(set(LATE) & set(ids)) >= len(LATE) - 5 * GROUP
    assert LATE[-1] in ids  # what came after the damage
    assert set(EARLY[::GROUP]) <= set(custody)


async def test_a_damaged_table_costs_that_table(killed):
    directory, store_id = killed
    path = largest(directory, "*.sst")
    path.write_bytes(garbage(path.read_bytes()))
    done = repair(directory)
    assert done.how == "tables"
    found_id, ids, custody = await saved(directory)
    assert found_id == store_id
    assert ids == LATE
    assert set(custody) == {*EARLY[::GROUP], *LATE[::GROUP]}


async def test_an_intact_store_is_left_as_it_is(killed):
    directory, store_id = killed
    assert repair(directory).how == "intact"
    ids, custody = everything()
    assert await saved(directory) == (store_id, ids, sorted(custody))


async def test_the_damaged_files_are_kept_at_every_try(killed):
    directory, _ = killed
    largest(directory, "CURRENT").write_bytes(b"garbage")
    first, second = repair(directory), repair(directory)
    assert (first.copy / "CURRENT").read_bytes() == b"garbage"
    assert second.how == "intact"
    assert first.copy != second.copy


async def test_a_lost_id_is_replaced_and_said(tmp_path):
    store_id = await write(tmp_path / "data", LATE)
    for table in (tmp_path / "data" / "store").glob("*.sst"):
        table.write_bytes(garbage(table.read_bytes()))
    done = repair(tmp_path / "data")
    assert done.new_store_id
    found_id, _, _ = await saved(tmp_path / "data")
    assert found_id != store_id


async def test_a_running_node_is_not_repaired(tmp_path):
    store = await open_rocks(tmp_path / "data", lambda: 1000.0, min_free_mb=0)
    with pytest.raises(StoreBusyError):
        repair(tmp_path / "data")
    await store.close()


async def run_command(*arguments):
    return await trio.run_process(
        [sys.executable, "-m", "dlrproxy.store.repair", *map(str, arguments)],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


async def test_the_command_says_what_it_did(killed):
    directory, _ = killed
    largest(directory, "CURRENT").write_bytes(b"")
    done = await run_command(directory)
    assert done.returncode == 0
    assert "tables were damaged; the store now holds these rows: 3000 open" in done.stdout.decode()
    assert f"as it was: {directory / 'store.lost-1'}" in done.stdout.decode()


async def test_the_command_says_when_there_is_nothing(tmp_path):
    done = await run_command(tmp_path / "nowhere")
    assert done.returncode == 1
    assert "not repaired: there is no store in" in done.stderr.decode()
    assert not (tmp_path / "nowhere").exists()
