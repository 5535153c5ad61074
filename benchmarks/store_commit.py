"""What the embedded store costs: CPU microseconds an open message and commits a second, by group size.

    python benchmarks/store_commit.py [--directory DIR] [--seconds 2] [--held 0]

A group is written as the relay writes it: put_open for each message, one after_durable, and the next group when that
has been called. So the commits of this table do not overlap with collecting; a busy node's do. CPU is the whole
process: the loop, the worker thread, RocksDB's own threads. The floor is a plain file with the same bytes, one write
and one fdatasync a group.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.port import Lookup, OpenMessage
from dlrproxy.store.rocks import open_rocks
from protocols.smpp.message_ids import candidates

GROUPS = (10, 100, 1000)
FORMS: dict[str, Callable[[int], bytes]] = {
    "decimal": lambda number: b"%d" % (number * 7919 % 10**12 + 10**12),
    "padded hex": lambda number: b"%016X" % (number * 7919 % 10**12),  # another normal form: an alias to keep
    "uuid": lambda number: b"%08x-0000-4000-8000-%012x" % (number * 7919 % 2**32, number),
}
RECORD_BYTES = 130


def an_open(message_id: bytes, now: float) -> OpenMessage:
    return OpenMessage("acme", message_id, "gw1", b"4790123456", b"2000", 7, now, now + 7 * 86400)


async def commits(store: GroupedStore, size: int, seconds: float, form: Callable[[int], bytes], start: int) -> int:
    """Write groups for so long; how many."""
    done = 0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        finished = trio.Event()
        now = time.time()
        for number in range(start + done * size, start + (done + 1) * size):
            store.put_open(an_open(form(number), now))
        store.after_durable(finished.set)
        await finished.wait()
        done += 1
    return done


def plain_file(directory: Path, size: int, seconds: float) -> tuple[int, float]:
    """Groups and CPU seconds of a file that is only appended to."""
    data = os.urandom(RECORD_BYTES * size)
    done, cpu, until = 0, time.process_time(), time.perf_counter() + seconds
    with (directory / "plain").open("wb", buffering=0) as file:
        while time.perf_counter() < until:
            file.write(data)
            os.fdatasync(file.fileno())
            done += 1
    return done, time.process_time() - cpu


def row(name: str, size: int, done: int, seconds: float, cpu: float) -> None:
    records = done * size
    print(f"{name:<14}{size:>8}{done / seconds:>12.0f}{records / seconds:>14.0f}{cpu / records * 1e6:>16.1f}")


async def hold(store: GroupedStore, held: int) -> None:
    """Fill the store, so that the rest is measured over a big one."""
    for start in range(0, held, 5000):
        finished = trio.Event()
        for number in range(start, min(start + 5000, held)):
            store.put_open(an_open(b"held-%d" % (number * 7919 % 10**12), time.time()))
        store.after_durable(finished.set)
        await finished.wait()


async def lookups(store: GroupedStore, total: int) -> None:
    """Reports of ids that are on the disk only, and of ids that nobody here submitted (the ring's usual case)."""
    print(f"\n{'lookup':<22}{'a batch':>8}{'us wall':>12}{'us CPU':>12}   a lookup")
    kinds = {"found on disk": range(total), "unknown": range(10**11, 10**11 + total)}
    for name, numbers in kinds.items():
        for size in GROUPS:
            rounds = max(2000 // size, 5)
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(rounds):
                ids = [FORMS["decimal"](number) for number in random.sample(numbers, size)]
                await store.find([Lookup("acme", i, candidates(i)) for i in ids])
            each = 1e6 / (rounds * size)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(f"{name:<22}{size:>8}{wall * each:>12.1f}{cpu * each:>12.1f}")


async def measure(directory: Path, seconds: float, held: int) -> None:
    store = await open_rocks(directory / "data", time.time, min_free_mb=0, remembered=10_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        await hold(store, held)
        print(f"{held} records held\n{'ids':<14}{'a group':>8}{'commits/s':>12}{'records/s':>14}{'us CPU/record':>16}")
        start = 0
        for name, form in FORMS.items():
            for size in GROUPS:
                cpu, began = time.process_time(), time.perf_counter()
                done = await commits(store, size, seconds, form, start)
                row(name, size, done, time.perf_counter() - began, time.process_time() - cpu)
                start += done * size if name == "decimal" else 0
        for size in GROUPS:
            done, used = plain_file(directory, size, seconds)
            row("plain file", size, done, seconds, used)
        await lookups(store, start)
        nursery.cancel_scope.cancel()
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, help="on the disk to measure; default: the temporary directory")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    parser.add_argument("--held", type=int, default=0, help="records in the store before anything is measured")
    arguments = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as a node does: a worker thread must not wait for the loop's whole time slice
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        trio.run(measure, Path(directory), arguments.seconds, arguments.held)


if __name__ == "__main__":
    main()
