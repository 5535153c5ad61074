"""`dlrproxy rejoin` from a configuration file, with two real servers."""

import os

import pytest
import trio
from click.testing import CliRunner
from test_rejoin_servers import a_pair, killed_and_promoted, replicates

from dlrproxy.cli import main
from dlrproxy.cli.rejoin import running_role
from dlrproxy.modes.pair import Role

RIGHTS = """
CREATE USER app@127.0.0.1 IDENTIFIED BY 'secret'; GRANT ALL ON dlrproxy.* TO app@127.0.0.1;
CREATE USER admin@127.0.0.1 IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO admin@127.0.0.1;
"""
CONFIG = """
[node]
name = "a"
mode = "active-passive"
data_dir = "{data_dir}"

[[operators]]
name = "acme"
host = "smsc.acme.example"
system_id = "shop"
password = "secret"
listen = "127.0.0.1:2775"

[[peers]]
name = "a"

[[peers]]
name = "b"

[database]
host = "127.0.0.1"
port = {own_port}
user = "app"
password = "secret"
admin_user = "admin"
admin_password = "secret"

[pair]
peer_host = "127.0.0.1"
peer_port = {peer_port}
manage_database = true
{more}
"""
REPLICATION = 'replication_user = "copy"\nreplication_password = "secret"'


def written(directory, own_port=3306, peer_port=3307, more=REPLICATION):
    path = directory / "dlrproxy.toml"
    path.write_text(CONFIG.format(data_dir=directory, own_port=own_port, peer_port=peer_port, more=more))
    return str(path)


def run(*arguments):
    return CliRunner().invoke(main, ["rejoin", *arguments])


async def test_the_old_primary_becomes_a_replica_by_one_command(tmp_path):
    async with a_pair() as nodes:
        for server in nodes.servers.values():
            server.sql(f"SET sql_log_bin=0; {RIGHTS}")
        config = written(tmp_path, nodes.servers["a"].port, nodes.pair.links["b"].port)
        too_early = await trio.to_thread.run_sync(run, config)
        assert (too_early.exit_code, "b is no primary" in too_early.output) == (1, True), too_early.output
        await killed_and_promoted(nodes)
        down = await trio.to_thread.run_sync(run, config)
        assert "does not run: start it" in down.output
        await trio.to_thread.run_sync(nodes.servers["a"].start)
        plan = await trio.to_thread.run_sync(run, config, "--plan")
        assert "next: Accept no more writes" in plan.output
        done = await trio.to_thread.run_sync(run, config)
        assert (done.exit_code, done.output.splitlines()[-1]) == (
            0, "this node's database server replicates from b's",
        )  # fmt: skip
        await replicates(nodes)
        again = await trio.to_thread.run_sync(run, config, "--plan")
        assert "nothing is to be done" in again.output


def test_what_is_not_set_is_named(tmp_path):
    result = run(written(tmp_path, more=""))
    assert result.exit_code == 1
    assert "not set: pair.replication_user" in result.output


def test_a_node_of_another_mode_does_not_rejoin(tmp_path):
    path = tmp_path / "ring.toml"
    path.write_text(CONFIG.partition("[[peers]]")[0].format(data_dir=tmp_path).replace("active-passive", "ring"))
    result = run(str(path))
    assert 'is of mode "ring"' in result.output


@pytest.mark.parametrize(
    ("content", "age_s", "role"),
    [("active 3\n", 0, Role.ACTIVE), ("fenced 3\n", 0, Role.FENCED), ("active 3\n", 60, None), ("", 0, None)],
)
def test_the_role_of_the_node_that_runs_is_read_from_its_state_file(tmp_path, content, age_s, role):
    path = tmp_path / "state"
    path.write_text(content)
    modified = path.stat().st_mtime - age_s
    os.utime(path, (modified, modified))
    assert running_role(tmp_path, heartbeat_s=1.0) == role


def test_without_a_state_file_no_node_runs(tmp_path):
    assert running_role(tmp_path, heartbeat_s=1.0) is None
