"""`make bench` counts every message: the byte relay's way through the whole program, with a tiny load."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks import messages
from benchmarks.load import Outcome, RunFailedError, Spread
from benchmarks.relay_core import core_ns
from benchmarks.results import rows, verdicts
from benchmarks.rounds import Load, Measured, field_of, rig
from protocols.smpp import pdu
from protocols.smpp.receipts import read

ROOT = Path(__file__).parent.parent


@pytest.mark.processes
def test_a_run_with_the_byte_relay_gives_a_row_for_every_load():
    command = [sys.executable, "-m", "benchmarks", "--json", "--messages", "60", "--repeat", "1", "--windows", "1,10"]
    only = ["--only", "direct", "--only", "byte-relay", "--pace", "400", "--pace-s", "0.1"]
    done = subprocess.run([*command, *only], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(row["load"], row["contestant"]) for row in report["rows"]] == [
        (load, contestant) for load in ("W=1", "W=10", "W=10 at 400/s") for contestant in ("direct", "byte-relay")
    ]
    assert all((row["cpu_us"] is None) == (row["contestant"] == "direct") for row in report["rows"])
    assert [verdict["holds"] for verdict in report["verdicts"]] == [None] * 4
    assert report["absent"] == {}


@pytest.mark.processes
def test_a_receipt_at_the_wrong_session_fails_the_run(tmp_path):
    # Two sessions of an account whose receipts cross over, with nothing between that would bring them back.
    with rig() as ends, field_of(["direct"], tmp_path, ends.port) as ((direct,), absent):
        crossed = type(direct)("one-hop", direct.addresses * 2)
        with pytest.raises(RunFailedError, match=r"came (elsewhere|early)"):
            ends.measure(crossed, Load(window=4, messages=20))
    assert absent == {}


def test_the_receipt_is_one_and_names_its_message():
    frame = messages.receipt(7, b"123456", b"0" * messages.STAMP_DIGITS, b"100000000042")
    report = read(frame)
    assert report is not None
    assert (report.message_id, report.text_id, report.state, report.final) == (b"100000000042",) * 2 + ("DELIVRD", True)
    assert frame[messages.ID_AT :].startswith(b"100000000042")
    assert len(frame) == messages.RECEIPT_SIZE


def test_every_submit_sm_asks_for_a_report_and_has_its_own_number():
    first, second = (messages.submit(sequence) for sequence in (1, 2))
    assert pdu.parse(first).registered_delivery == 1
    assert pdu.parse(first).destination != pdu.parse(second).destination
    assert 170 <= messages.SUBMIT_SIZE <= 200
    assert 170 <= messages.RECEIPT_SIZE <= 200


def measured(contestant, cpu_us, response):
    outcome = Outcome(seconds=1.0, response=Spread(response, 2 * response), receipt=Spread(0.1, 0.2))
    return Measured(contestant, Load(100, 1), cpu_us, 1000.0, outcome)


def test_ratios_and_added_latency_are_taken_within_a_round():
    calm = [measured("direct", 0.0, 1.0), measured("byte-relay", 2.0, 1.5), measured("dlrproxy", 10.0, 3.0)]
    busy = [measured("direct", 0.0, 5.0), measured("byte-relay", 8.0, 6.0), measured("dlrproxy", 40.0, 7.0)]
    direct, _, dlrproxy = rows([calm, busy])
    assert dlrproxy.ratio == 5.0
    assert dlrproxy.added_response_ms == Spread(2.0, 4.0)
    assert (dlrproxy.cpu_us_min, dlrproxy.cpu_us, dlrproxy.cpu_us_max) == (10.0, 25.0, 40.0)
    assert (direct.cpu_us, direct.ratio, direct.added_response_ms) == (None, None, None)


def test_what_the_database_uses_is_counted_apart():
    outcome = measured("", 0.0, 1.0).outcome
    rounds = [
        [measured("dlrproxy", 10.0, 1.0), Measured("active-passive", Load(100, 1), 20.0, 1.0, outcome, behind)]
        for behind in (70.0, 90.0, 80.0)
    ]
    ring, pair = rows(rounds)
    assert (ring.cpu_us, ring.database_us) == (10.0, None)
    assert (pair.cpu_us, pair.database_us) == (20.0, 80.0)


@pytest.mark.processes
def test_an_active_passive_pair_is_measured_with_its_database_servers():
    with (
        tempfile.TemporaryDirectory() as work,  # the servers' account does not get into the test's own directory
        rig() as ends,
        field_of(["active-passive"], Path(work), ends.port) as ((pair,), absent),
    ):
        assert absent == {}
        found = ends.measure(pair, Load(window=4, messages=20))
        assert len(pair.database_pids) == 2
        assert found.database_us > 0
        assert found.cpu_us > 0
    assert all(started.process.poll() is not None for started in (*pair.started, *pair.database))


def test_the_budget_is_judged_only_by_what_was_measured():
    found = rows([[measured("direct", 0.0, 1.0), measured("dlrproxy", 16.0, 3.0)]])
    matched, hop, response, receipt = verdicts(found, Load(10, 1, 1000.0), fsync_ms=0.5)
    assert (matched.measured, matched.holds) == (16.0, False)
    assert (hop.holds, response.holds, receipt.holds) == (None, None, None)


def test_the_core_alone_takes_every_message_of_a_batch_there_and_back():
    assert core_ns(size=5, total=20) > 0
