"""The `dlrproxy` command: help that comes at once, exit codes that a script can use, problems without tracebacks."""

import gc
import importlib.metadata
import json
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from dlrproxy import cli
from dlrproxy.cli import COMMANDS, Entry, main
from dlrproxy.collector import YOUNG_OBJECTS, tune_collector
from dlrproxy.config import ConfigError, Problem
from dlrproxy.config.sample import sample

BAD = '[node]\nname = "gw1"\ndata_dir = "data"\nmoda = "ring"\n'


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def sample_file(tmp_path):
    path = tmp_path / "dlrproxy.toml"
    path.write_text(sample().replace("/var/lib/dlrproxy", "data"))
    return path


def test_help_lists_every_command_with_what_it_does(run):
    shown = run("--help").output
    for name, entry in COMMANDS.items():
        assert f"  {name} " in shown
        assert entry.summary in " ".join(shown.split())


def test_help_imports_no_command():
    code = (
        "import sys; from dlrproxy.cli import main; main(['--help'], standalone_mode=False);"
        "sys.exit(any(name in sys.modules for name in ('trio', 'cattrs', 'structlog', 'rich', 'dlrproxy.config')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_version(run):
    assert run("--version").output.split()[-1] == importlib.metadata.version("dlrproxy")


def test_an_unknown_command_is_a_usage_error(run):
    result = run("chekc-config")
    assert result.exit_code == 2
    assert "No such command" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run, name):
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_python_m_is_the_same_command():
    result = subprocess.run([sys.executable, "-m", "dlrproxy", "--version"], capture_output=True, check=True)
    assert importlib.metadata.version("dlrproxy") in result.stdout.decode()


def test_the_collector_leaves_what_start_up_made_alone():
    before = gc.get_threshold()
    try:
        tune_collector()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold() == (YOUNG_OBJECTS, *before[1:])
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_sample_config_passes_check_config(run, tmp_path):
    path = tmp_path / "dlrproxy.toml"
    path.write_text(run("sample-config").output)
    assert run("check-config", path).exit_code == 0


def test_check_config_sums_up_a_good_file(run, sample_file):
    result = run("check-config", sample_file)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{sample_file}: OK",
        f"  node gw1, mode ring, alone; data in {sample_file.parent / 'data'}",
        "  operator acme: 1 transceiver bind as shop to smsc.acme.example:2775",
        "    gateway gw1 dials 127.0.0.1:2775",
    ]
    assert result.stderr == ""


def test_check_config_names_the_other_nodes(run, sample_file):
    text = sample_file.read_text().replace("wss://10.0.0.1", "ws://127.0.0.1")
    sample_file.write_text(text + '[[peers]]\nname = "gw2"\nurl = "ws://127.0.0.1:7302"\n')
    assert "mode ring, with gw2;" in run("check-config", sample_file).stdout


def test_check_config_shows_the_share_of_the_accounts_rate(run, sample_file):
    text = sample_file.read_text().replace("wss://10.0.0.1", "ws://127.0.0.1")
    text += '[[peers]]\nname = "gw2"\nurl = "ws://127.0.0.1:7302"\n'
    sample_file.write_text(text.replace("#account_max_per_s = 100", "account_max_per_s = 100"))
    share = "; at most 50 MT a second, this node's share of 100 over 2"
    assert f"to smsc.acme.example:2775{share}\n" in run("check-config", sample_file).stdout
    assert json.loads(run("check-config", "--json", sample_file).stdout)["operators"][0]["max_per_s"] == 50
    sample_file.write_text(sample_file.read_text().replace("#max_per_s = 50", "max_per_s = 20"))
    assert "smsc.acme.example:2775; at most 20 MT a second\n" in run("check-config", sample_file).stdout


def test_check_config_adds_up_the_binds_of_all_nodes(run, sample_file):
    text = sample_file.read_text().replace("wss://10.0.0.1", "ws://127.0.0.1")
    text = text.replace("#max_binds = 4", "max_binds = 4").replace("#binds = 1", "binds = 2")
    for number in (2, 3):
        text += f'[[peers]]\nname = "gw{number}"\nurl = "ws://127.0.0.1:730{number}"\n'
    sample_file.write_text(text)
    result = run("check-config", sample_file)
    assert result.exit_code == 1
    said = "operators[0].max_binds: the operator allows 4, but 3 nodes with 2 each make 6"
    assert said in result.stderr
    sample_file.write_text(text.replace("binds = 2", "binds = 1"))
    assert run("check-config", sample_file).exit_code == 0


def test_check_config_says_warnings_and_still_succeeds(run, sample_file):
    sample_file.write_text(sample_file.read_text().replace("changeit", "changeitsoon"))
    result = run("check-config", sample_file)
    assert result.exit_code == 0
    assert "warning: operators[0].password: has 12 octets" in result.stderr


def test_check_config_says_every_problem_and_fails(run, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(BAD)
    result = run("check-config", path)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{path}: node.moda: unknown key; did you mean mode?",
        f"{path}: operators: at least one [[operators]] table is required",
        "2 problems",
    ]


def test_check_config_as_json(run, sample_file, tmp_path):
    good = json.loads(run("check-config", "--json", sample_file).stdout)
    assert good == {
        "ok": True,
        "problems": [],
        "warnings": [],
        "node": "gw1",
        "mode": "ring",
        "peers": ["gw1"],
        "operators": [
            {
                "name": "acme",
                "system_id": "shop",
                "addresses": ["smsc.acme.example:2775"],
                "bind_type": "transceiver",
                "binds": 1,
                "max_per_s": None,
                "listen": {"gw1": "127.0.0.1:2775"},
            }
        ],
    }
    path = tmp_path / "bad.toml"
    path.write_text(BAD)
    result = run("check-config", "--json", path)
    assert result.exit_code == 1
    bad = json.loads(result.stdout)
    assert bad["ok"] is False
    assert bad["problems"][0] == {"path": "node.moda", "text": "unknown key; did you mean mode?"}


def test_check_config_of_a_file_that_is_not_there(run, tmp_path):
    result = run("check-config", tmp_path / "absent.toml")
    assert result.exit_code == 1
    assert "cannot be read: No such file" in result.stderr


def test_a_config_error_of_any_command_is_problems_and_exit_code_2(run, monkeypatch):
    @click.command()
    def broken():
        raise ConfigError("gw1.toml", [Problem("node.name", "missing"), Problem("", "odd")])

    monkeypatch.setitem(sys.modules, "broken_command", SimpleNamespace(broken=broken))
    monkeypatch.setattr(cli, "COMMANDS", {"broken": Entry("broken_command", "broken", "Fails.")})
    result = run("broken")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == ["gw1.toml: node.name: missing", "gw1.toml: odd"]
