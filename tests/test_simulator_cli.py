"""`dlrproxy simulate` as a user runs it."""

import json
import re
import signal
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dlrproxy.cli.simulate import simulate

COMMAND = [sys.executable, "-m", "dlrproxy", "simulate"]


def invoke(*arguments):
    return CliRunner().invoke(simulate, arguments)


@pytest.mark.parametrize("command", ["operator", "gateway", "judge"])
def test_every_option_is_explained(command):
    assert invoke(command, "--help").exit_code == 0
    assert all(
        parameter.help for parameter in simulate.commands[command].params if parameter.param_type_name == "option"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("operator", "--delay", "9-1"), "must not be above"),
        (("operator", "--delay", "soon"), "neither a number"),
        (("operator", "--states", "FINE=1"), "FINE is not one of"),
        (("operator", "--states", "DELIVRD=x"), "is not STATE=WEIGHT"),
        (("operator", "--account", "shop"), "SYSTEM_ID:PASSWORD"),
        (("operator", "--early", "2"), "not in the range"),
        (("operator", "--error", "0.7", "--throttle", "0.7"), "more than every message"),
        (("gateway", "--bind-type", "receiver"), "a receiver cannot submit"),
        (("gateway", "--temporary-status", "ESME_RFINE"), "neither a number nor the name"),
        (("operator", "--ledger", "/nonexistent/ledger.jsonl"), "No such file"),
    ],
)
def test_wrong_values_are_named(arguments, message):
    result = invoke(*arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())


def test_judge_wants_ledgers(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("{}\n")
    result = invoke("judge", str(path), str(path))
    assert (result.exit_code, "line 1" in result.output) == (1, True)
    path.write_text("")
    assert "not the ledger of a gateway" in invoke("judge", str(path), str(path)).output


@pytest.mark.processes
def test_operator_gateway_and_judge_as_processes(tmp_path):
    ledgers = [str(tmp_path / name) for name in ("operator.jsonl", "gw1.jsonl")]
    options = ["--port", "0", "--account", "shop:secret", "--receipt-id", "decimal", "--ledger", ledgers[0], "--json"]
    with subprocess.Popen(
        [*COMMAND, "operator", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as operator:
        try:
            port = re.search(r":(\d+)$", operator.stderr.readline())[1]
            arguments = ["--port", port, "--system-id", "shop", "--messages", "300", "--ledger", ledgers[1], "--json"]
            gateway = subprocess.run([*COMMAND, "gateway", *arguments], capture_output=True, text=True, check=True)
        finally:
            operator.send_signal(signal.SIGINT)
        summary = json.loads(operator.stdout.read())
    assert operator.returncode == 0
    assert summary["accepted"] == 300
    counts = json.loads(gateway.stdout)
    assert (counts["final"], counts["matched_by_number"], counts["unfinished"]) == (300, 300, 0)
    result = invoke("judge", *ledgers, "--json")
    assert result.exit_code == 0
    assert json.loads(result.output)["delivered_to_owner"] == 300


@pytest.mark.processes
def test_gateway_without_an_operator_ends_with_status_1():
    ended = subprocess.run(
        [*COMMAND, "gateway", "--port", "1", "--give-up", "0.2", "--messages", "5", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, json.loads(ended.stdout)["unfinished"]) == (1, 5)


@pytest.mark.processes
def test_a_port_in_use_is_a_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run([*COMMAND, "operator", "--port", port], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: ")
    assert "Address already in use" in ended.stderr
