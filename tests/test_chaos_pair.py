"""One round of `make chaos-pair`: with a hand on the address, and with keepalived. Nothing is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PATIENT = ["--fence-after", "10"]  # a machine that is very busy must not make an active let go before it is killed

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def play(directory, *options):
    """Returns what it said of its round: how long nobody served."""
    command = [sys.executable, "-m", "chaos.pair", "--rounds", "1", "--rate", "50", *PATIENT]
    command += ["--directory", directory, *options]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
        try:
            said, _ = process.communicate()
        finally:
            process.terminate()  # where the test's time is over: it ends all that it has started
    assert process.returncode == 0, said + ends(directory)
    return next(line for line in said.splitlines() if line.startswith("round 1"))


def ends(directory):
    """Of all logs."""
    return "\n".join(line for log in sorted(directory.glob("*.log")) for line in [log.name, log.read_text()[-4000:]])


def test_a_primary_that_is_killed_under_load_is_replaced_by_the_notify_script_and_comes_back(tmp_path, record_property):
    record_property("a pair, by hand", play(tmp_path))


def test_keepalived_moves_the_address_and_the_service_with_it(tmp_path, record_property):
    """It takes root, or the rights to make network namespaces; without them it fails, and says so."""
    record_property("a pair, by keepalived", play(tmp_path, "--keepalived"))
