"""`make isolated`: processes with a part of a processor each, and what is compared to what."""

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.isolation import Ratios, compared
from benchmarks.load import Outcome, Spread
from benchmarks.processors import NoControlError, processors
from benchmarks.rounds import Load, Measured

ROOT = Path(__file__).parent.parent
NONE = Spread(0.0, 0.0)


def measured(contestant, per_s, node_us, server_us=0.0):
    outcome = Outcome(seconds=1.0, response=NONE, receipt=NONE)
    behind = {"database_us": 2 * server_us, "server_us": server_us} if server_us else {}
    return Measured(contestant, Load(100, 1), node_us, per_s, outcome, node_us=node_us, **behind)


def test_a_mode_is_compared_to_the_ring_of_the_same_round_that_carries_reports_the_same_way():
    rounds = [
        [measured("dlrproxy", 100.0, 40.0), measured("one-hop", 10.0, 200.0), measured("quorum", 90.0, 50.0, 30.0)],
        [measured("dlrproxy", 50.0, 80.0), measured("one-hop", 5.0, 400.0), measured("quorum", 40.0, 80.0, 200.0)],
        [measured("dlrproxy", 80.0, 50.0), measured("one-hop", 8.0, 250.0), measured("quorum", 80.0, 50.0, 40.0)],
    ]
    ring, _, quorum = compared(rounds, server_processors=2.0)
    assert (ring.throughput, ring.cpu, ring.accounted) == (None, None, None)
    assert quorum.throughput == Ratios(0.9, 0.8, 1.0)
    assert quorum.cpu == Ratios(1.0, 1.0, 1.25)
    # In the second round its server has 100 us on each of two processors, more than the node's 80.
    assert quorum.accounted == Ratios(0.8, 0.8, 1.0)


def test_what_has_no_base_in_the_run_is_not_compared():
    (quorum,) = compared([[measured("quorum", 90.0, 50.0, 30.0)]], 1.0)
    assert (quorum.per_s, quorum.throughput, quorum.cpu) == (90.0, None, None)


def test_a_process_gets_its_part_and_comes_first(tmp_path):
    controller = tmp_path / "cpu"
    controller.mkdir()
    (controller / "cgroup.procs").touch()
    with processors(tmp_path) as given:
        (home,) = controller.glob("dlrproxy-*")
        assert (home / "cpu.shares").read_text() == "262144"
        given.give(4711, 0.3)
        group = home / "4711"
        assert int((group / "cpu.cfs_quota_us").read_text()) / int((group / "cpu.cfs_period_us").read_text()) == 0.3
        assert (group / "cgroup.procs").read_text() == "4711"
        for written in (*group.iterdir(), *home.glob("cpu.*")):  # the kernel's are no files, and go with the directory
            written.unlink()
    assert not home.exists()


def test_a_machine_without_the_controller_says_why(tmp_path, monkeypatch):
    (tmp_path / "cgroup.procs").touch()

    def refuse(_path, *_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(NoControlError, match="Permission denied"), processors(tmp_path):
        pass


def test_a_directory_that_is_no_control_group_is_refused(tmp_path):
    with pytest.raises(NoControlError, match="no control group"), processors(tmp_path):
        pass


@pytest.mark.processes
def test_a_node_is_measured_with_what_it_may_use():
    command = [sys.executable, "-m", "benchmarks.isolated", "--json", "--messages", "40", "--repeat", "1"]
    done = subprocess.run(
        [*command, "--window", "4", "--reports-after", "0", "--only", "dlrproxy"],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(row["load"], row["contestant"]) for row in report["rows"]] == [("W=4", "dlrproxy")]
    assert (report["limited"] is None) == bool(report["not_limited"])


_LEFT_ALONE = """
import signal, sys, time
from pathlib import Path
from benchmarks.contestants import byte_relay, end_on_sigterm, free_ports
end_on_sigterm()
started = byte_relay(Path(sys.argv[1]), free_ports(1)[0])
print(started.pids[0], flush=True)
signal.pause()
"""


@pytest.mark.processes
def test_sigterm_ends_what_a_benchmark_has_started(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", _LEFT_ALONE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as benchmark:
        pid = int(benchmark.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        benchmark.terminate()
        assert benchmark.wait(60) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{pid}").exists()
