"""`make scale`: a report takes one hop, whatever the size of the ring. Virtual time, and seeds."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ring_scale import measure

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("nodes", [3, 32])
def test_a_report_takes_one_hop_with_summaries(nodes):
    row = measure(nodes, True, rate=20.0, seconds=0.6)
    assert row.reports > 20
    assert row.hops <= 1.05


def test_without_summaries_a_report_walks():
    row = measure(8, False, rate=20.0, seconds=0.6)
    assert row.hops == pytest.approx(4.0, abs=0.8)  # half of the others, on average
    assert (row.told_frames, row.summary_us, row.kept_bytes) == (0.0, 0.0, 0.0)


def test_what_is_kept_takes_less_than_two_bytes_a_message_as_soon_as_there_are_some_hundred():
    row = measure(3, True, rate=200.0, seconds=0.3)
    assert row.kept_bytes < 2.0
    assert row.told_bytes < 10.0  # a hash when it is opened, one when it is closed, and frames around them


def test_the_table_has_a_line_for_each_size_and_either_way():
    command = [sys.executable, "-m", "benchmarks.ring_scale", "--nodes", "3,4", "--rate", "10", "--seconds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines()]
    assert [row[1:3] for row in rows[2:]] == [["3", "off"], ["3", "on"], ["4", "off"], ["4", "on"]]
