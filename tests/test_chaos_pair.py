"""One round of `make chaos-pair`: with a hand on the address, and with keepalived. Nothing is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def play(directory, *options):
    command = [sys.executable, "-m", "chaos.pair", "--rounds", "1", "--rate", "50", "--directory", directory, *options]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + ends(directory)
    print(done.stdout)  # noqa: T201 - with the time to recovery


def ends(directory):
    """Of all logs."""
    return "\n".join(line for log in sorted(directory.glob("*.log")) for line in [log.name, log.read_text()[-4000:]])


def test_a_primary_that_is_killed_under_load_is_replaced_by_the_notify_script_and_comes_back(tmp_path):
    play(tmp_path)


def test_keepalived_moves_the_address_and_the_service_with_it(tmp_path):
    """It takes root, or the rights to make network namespaces; without them it fails, and says so."""
    play(tmp_path, "--keepalived")
