"""docs/active-passive.md, followed word for word: its settings, configuration and commands make a sound pair."""

import json
import re
from pathlib import Path

import mariadb_server
import pytest
from click.testing import CliRunner
from test_db_commands import db

from dlrproxy.cli import main

DOCUMENT = (Path(__file__).parent.parent / "docs" / "active-passive.md").read_text()


def blocks():
    """Indented ones, as they are to be typed."""
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", DOCUMENT, re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip("\n") for block in found]


def block(beginning):
    (found,) = [block for block in blocks() if block.startswith(beginning)]
    return found


@pytest.fixture
def servers():
    """Two, with the document's settings and no other but where they are."""
    made = []
    for number in (1, 2):
        server = mariadb_server.new_server()
        settings = server.directory / "60-dlrproxy.cnf"
        settings.write_text(block("[mariadb]").replace("server_id = 1", f"server_id = {number}") + "\n")
        settings.chmod(0o644)
        server.defaults = f"--defaults-file={settings}"
        server.settings = {}
        made.append(server.start())
    yield made
    for server in made:
        server.kill()


def configuration(directory, name, own, peer):
    """The document's, with the places of this test for those in it."""
    directory.mkdir()
    for secret in ("database", "database-admin", "replication", "acme"):
        (directory / f"{secret}.secret").write_text("secret0" + secret[:1] + "\n")
        (directory / f"{secret}.secret").chmod(0o640)
    text = block('[node]\nname = "gw1"\nmode').replace("/etc/dlrproxy", str(directory))
    for before, after in (
        ('name = "gw1"\nmode', f'name = "{name}"\nmode'),
        ("/var/lib/dlrproxy", str(directory / "data")),
        ("/run/mysqld/mysqld.sock", own.socket),
        ('peer_host = "10.0.0.2"', f'peer_host = "127.0.0.1"\npeer_port = {peer.port}'),
    ):
        assert before in text
        text = text.replace(before, after)
    path = directory / "dlrproxy.toml"
    path.write_text(text + "\n")
    return path


def test_a_pair_that_is_set_up_as_the_document_says_is_found_sound(servers, tmp_path):
    gw1, gw2 = servers
    first = configuration(tmp_path / "1", "gw1", gw1, gw2)
    second = configuration(tmp_path / "2", "gw2", gw2, gw1)
    options = " ".join(re.findall(r"--from \S+", block("dlrproxy db grants"))).split()
    assert len(options) == 6
    for server, file in ((gw1, first), (gw2, second)):
        checked = CliRunner().invoke(main, ["check-config", str(file)])
        assert checked.exit_code == 0, checked.output
        assert "warning" not in checked.output
        server.sql(db("grants", file, *options, "--from", "127.0.0.1"))
    assert "gw1 serves first" in db("init", first)
    assert "dlrproxy rejoin /etc/dlrproxy/dlrproxy.toml" in blocks()
    made = CliRunner().invoke(main, ["rejoin", str(second)])
    assert made.exit_code == 0, made.output
    position = gw1.sql("SELECT @@gtid_binlog_pos").strip()
    assert gw2.sql(f"SELECT MASTER_GTID_WAIT('{position}', 100)").strip() == "0"
    before_the_start = json.loads(db("check", first, "--json"))
    assert before_the_start["ok"]
    assert [finding["setting"] for finding in before_the_start["findings"]] == ["rpl_semi_sync_master_enabled"]
    assert "everything is as it should be" in db("check", second)


def test_the_settings_for_available_are_found_sound_as_well(servers, tmp_path):
    gw1, gw2 = servers
    file = configuration(tmp_path / "1", "gw1", gw1, gw2)
    file.write_text(file.read_text() + 'safety = "available"\n')
    for server in servers:
        server.sql(db("grants", file))
    db("init", file)
    found = {finding["setting"] for finding in json.loads(db("check", file, "--json"))["findings"]}
    assert found == {"rpl_semi_sync_master_timeout"}
    (change,) = re.findall(r"`(rpl_semi_sync_master_timeout = 1000)`", DOCUMENT)
    gw1.sql(f"SET GLOBAL {change}")
    assert "everything is as it should be" in db("check", file)
