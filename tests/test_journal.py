"""The journal on a real disk: what it keeps over a crash, which record of a key stays, what it says when it fails."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import structlog.testing
import trio
from journal_world import an_open
from test_store_rocks import Injected

from dlrproxy.store.journal import JournalError, open_journal
from dlrproxy.store.port import StoreBusyError
from dlrproxy.store.rocks import open_rocks


async def all_rows(journal):
    return [message for _, message in await journal.rows()]


async def reopened(journal, data_dir):
    await journal.close()
    return await open_journal(data_dir)


async def test_what_was_written_is_there_after_a_restart(tmp_path):
    journal = await open_journal(tmp_path)
    assert journal.size == 0
    messages = [an_open(b"%d" % number) for number in range(3)]
    await journal.write(messages)
    journal = await reopened(journal, tmp_path)
    assert journal.size == 3
    assert await all_rows(journal) == messages
    assert all(journal.holds(message) for message in messages)
    await journal.close()


async def test_a_store_of_a_ring_that_nobody_reads_any_more_is_named(tmp_path):
    await (await open_rocks(tmp_path, lambda: 0.0)).close()
    with structlog.testing.capture_logs() as logged:
        await (await open_journal(tmp_path)).close()
    assert [entry["event"] for entry in logged] == ["journal.ring_store_left"]


async def test_rows_are_read_in_pages(tmp_path):
    journal = await open_journal(tmp_path)
    await journal.write([an_open(b"%02d" % number) for number in range(25)])
    found, after = [], b""
    while page := await journal.rows(after, 10):
        found += [message.message_id for _, message in page]
        after = page[-1][0]
    assert found == [b"%02d" % number for number in range(25)]
    await journal.close()


@pytest.mark.parametrize("together", [True, False], ids=["in one write", "one after the other"])
@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (an_open(b"1", submitted_at=900.0, owner="gw1"), an_open(b"1", submitted_at=901.0, owner="gw2")),
        (an_open(b"1"), an_open(b"1", final_at=950.0)),
        (an_open(b"1", submitted_at=900.0, final_at=990.0), an_open(b"1", submitted_at=901.0)),
    ],
    ids=["used again", "closed", "used again after a final report"],
)
async def test_the_newer_record_stays_whichever_is_written_last(tmp_path, older, newer, together):
    for writes in ([older, newer], [newer, older]):
        journal = await open_journal(tmp_path)
        if together:
            await journal.write(writes)
        else:
            for message in writes:
                await journal.write([message])
        await journal.forget([older])
        assert await all_rows(journal) == [newer]
        journal = await reopened(journal, tmp_path)
        await journal.forget([older])
        assert await all_rows(journal) == [newer]
        await journal.forget([newer])
        assert (journal.size, await all_rows(journal)) == (0, [])
        await journal.close()


async def test_an_older_record_is_forgotten_with_a_newer_one(tmp_path):
    journal = await open_journal(tmp_path)
    await journal.write([an_open(b"1")])
    await journal.forget([an_open(b"1", final_at=950.0), an_open(b"unknown")])
    assert journal.size == 0
    await journal.close()


async def test_above_its_bound_it_takes_nothing_of_a_write(tmp_path):
    journal = await open_journal(tmp_path, max_rows=3)
    await journal.write([an_open(b"1"), an_open(b"2")])
    with pytest.raises(JournalError, match="full: it has 2"):
        await journal.write([an_open(b"3"), an_open(b"4")])
    assert journal.size == 2
    await journal.write([an_open(b"2", submitted_at=901.0), an_open(b"3")])  # one of these is no new key
    assert journal.size == 3
    await journal.close()


async def test_no_second_process_has_the_data_directory_meanwhile(tmp_path):
    journal = await open_journal(tmp_path)
    with pytest.raises(StoreBusyError, match="in use by process"):
        await open_journal(tmp_path)
    with pytest.raises(StoreBusyError, match="in use by process"):
        await open_rocks(tmp_path, lambda: 1000.0)
    await journal.close()
    await (await open_journal(tmp_path)).close()


@pytest.mark.parametrize("call", ["write", "sync"])
async def test_after_a_failed_write_the_files_are_opened_again_before_the_next(tmp_path, call):
    injected = Injected()
    journal = await open_journal(tmp_path, opener=injected.opener)
    injected.failures[call].append("IO error: No space left on device")
    with pytest.raises(JournalError, match=r"journal in .*journal cannot be used: IO error: No space left on device"):
        await journal.write([an_open(b"1")])
    assert not journal.holds(an_open(b"1"))
    assert injected.opened == 1
    await journal.write([an_open(b"1")])
    assert injected.opened == 2
    journal = await reopened(journal, tmp_path)
    assert await all_rows(journal) == [an_open(b"1")]
    await journal.close()


async def test_a_damaged_journal_says_what_to_do_and_lets_go_of_the_directory(tmp_path):
    journal = await open_journal(tmp_path)
    await journal.close()
    (tmp_path / "journal" / "CURRENT").write_text("nonsense\n")
    with pytest.raises(JournalError, match=r"is damaged: .*Move it away"):
        await open_journal(tmp_path)
    (tmp_path / "journal").rename(tmp_path / "away")
    await (await open_journal(tmp_path)).close()


async def test_a_closed_journal_is_an_error_and_not_an_empty_one(tmp_path):
    journal = await open_journal(tmp_path)
    await journal.close()
    with pytest.raises(JournalError, match="cannot be read"):
        await journal.rows()


WRITER = """
import os, sys, trio
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from journal_world import an_open
from dlrproxy.store.journal import open_journal

async def main():
    journal = await open_journal(Path(sys.argv[1]))
    number = 0
    while True:
        await journal.write([an_open(b"%d" % number)])
        os.write(1, b"%d\\n" % number)
        if number % 3 == 0:
            await journal.forget([an_open(b"%d" % number)])
        number += 1

trio.run(main)
"""


@pytest.mark.processes
async def test_a_killed_process_loses_nothing_that_the_journal_had_written(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
        written = b""
        while written.count(b"\n") < 50:
            written += await process.stdout.receive_some()
        process.send_signal(signal.SIGKILL)
        while more := await process.stdout.receive_some():
            written += more
    numbers = [int(line) for line in written.splitlines()]
    journal = await open_journal(tmp_path)
    kept = {int(message.message_id) for message in await all_rows(journal)}
    assert {number for number in numbers if number % 3} <= kept
    assert journal.size == len(kept)
    await journal.close()
