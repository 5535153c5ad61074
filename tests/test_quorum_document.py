"""docs/quorum.md, word by word: its settings and commands make a sound node, and every name that stands in it exists.

`galera_new_cluster` and systemd are not here: the server is started as they start it, with --wsrep-new-cluster.
"""

import os
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path

import attrs
import click
import mariadb_server
import pytest
import trio
from admin_world import FakeNode, quorum_status
from click.testing import CliRunner
from galera_cluster import wait_ready
from ports import free_ports
from test_db_commands import db, said

from dlrproxy.admin.metrics import Metrics
from dlrproxy.admin.quorum_metrics import ROLES
from dlrproxy.admin.server import serve
from dlrproxy.cli import main
from dlrproxy.config import Database, Node, Quorum, Ring, load
from dlrproxy.logs import logger
from dlrproxy.modes.cluster import RATE_MARGIN, RELEASE_S
from dlrproxy.modes.survival import losses

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "quorum.md").read_text()
CUSTODY = (ROOT / "docs" / "quorum-custody.md").read_text()
FILE = "/etc/dlrproxy/dlrproxy.toml"
TABLES = {"database": Database, "node": Node, "quorum": Quorum, "ring": Ring}


def blocks():
    """Indented ones, as they are to be typed."""
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", DOCUMENT, re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip("\n") for block in found]


def block(beginning):
    (found,) = [block for block in blocks() if block.startswith(beginning)]
    return found


def spans(text=DOCUMENT):
    """What stands in backticks, a line's end being a space."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def row(name):
    """The cells of the table's row that begins with `name`."""
    (found,) = [line for line in DOCUMENT.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


# Set up as it says


@pytest.fixture
def place():
    """A directory that the server may read, and a server in it with the document's settings, not started."""
    server = mariadb_server.new_server()
    script = server.directory / "dlrproxy-galera-notify"
    script.write_bytes((ROOT / "contrib" / "galera" / "dlrproxy-galera-notify").read_bytes())
    script.chmod(0o755)
    port = free_ports(10)
    own = f"gmcast.listen_addr=tcp://127.0.0.1:{port};ist.recv_addr=127.0.0.1:{port + 1};"
    text = f"{block('[mariadb]')}\n{block('wsrep_notify_cmd')}\n"
    for before, after in (
        ("gcomm://10.0.0.1,10.0.0.2,10.0.0.3", f"gcomm://127.0.0.1:{port}"),
        ("10.0.0.1", f"127.0.0.1:{port}"),
        ('"gcache.size=512M;', f'"{own}gcache.size=16M;'),  # which is written as the server starts
        ("/usr/local/bin/dlrproxy-galera-notify", str(script)),
        ("/run/dlrproxy/notify.sock", str(server.directory / "notify.sock")),
    ):
        assert before in text
        text = text.replace(before, after)
    settings = server.directory / "60-galera.cnf"
    settings.write_text(text)
    settings.chmod(0o644)
    server.defaults = f"--defaults-file={settings}"
    server.settings = {}
    yield server
    server.kill()


def configuration(server):
    """The document's, with the places of this test for those in it, and the nodes that it leaves out."""
    directory = server.directory / "etc"
    directory.mkdir()
    for secret in ("acme", "ring", "database", "database-admin"):
        (directory / f"{secret}.secret").write_text(
            f"{secret[:4]}-secret-of-some-length"[: 8 if secret == "acme" else 99]
        )
        (directory / f"{secret}.secret").chmod(0o640)
    text = block('[node]\nname = "gw1"\nmode')
    more = "".join(f'[[peers]]\nname = "gw{number}"\nurl = "wss://10.0.0.{number}:7301"\n' for number in (2, 3))
    for before, after in (
        ("/etc/dlrproxy", str(directory)),
        ("/var/lib/dlrproxy", str(server.directory / "data-gw1")),
        ("/run/mysqld/mysqld.sock", server.socket),
        ("# ... gw2, gw3\n", more),
        ("/run/dlrproxy/notify.sock", str(server.directory / "notify.sock")),
    ):
        assert before in text
        text = text.replace(before, after)
    path = directory / "dlrproxy.toml"
    path.write_text(text + "\n")
    return path


async def test_a_node_that_is_set_up_as_the_document_says_is_found_sound(place):
    file = configuration(place)
    checked = CliRunner().invoke(main, ["check-config", str(file)])
    assert checked.exit_code == 0, checked.output
    assert "warning" not in checked.output
    config = load(file)
    config.node.data_dir.mkdir()
    node = FakeNode()
    node.change(mode="quorum", quorum=quorum_status())
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, node, config, logger("admin"))
        await trio.to_thread.run_sync(partial(place.start, "--wsrep-new-cluster"))
        with trio.fail_after(100):
            while not node.calls["look"]:  # noqa: ASYNC110 - what the server leads to, as a user of its own
                await trio.sleep(0.05)
        await trio.to_thread.run_sync(_follow, place, file)
        nursery.cancel_scope.cancel()


def _follow(server, file):
    """The statements of the second step, and the commands of the fourth."""
    wait_ready(server)
    server.sql(block("CREATE USER IF NOT EXISTS mysql@localhost"))
    if os.geteuid() == 0:  # else the server runs as another user than that account's
        _give_state(server)
    steps = block("dlrproxy db grants").splitlines()
    assert steps == [f"dlrproxy db grants {FILE} | mariadb", f"dlrproxy db init {FILE}", f"dlrproxy db check {FILE}"]
    server.sql(db("grants", file))
    assert "is made" in db("init", file)
    assert "everything is as it should be" in said(db("check", file)), db("check", file)


def _give_state(server):
    """As a donor does, without anybody who takes it."""
    given = subprocess.run(
        ["mariadb-backup", "--no-defaults", "--backup", "--galera-info", "--stream=mbstream", "--user=mysql",
         f"--socket={server.socket}", f"--datadir={server.data}", f"--tmpdir={server.directory}"],
        user="mysql", group="mysql", extra_groups=[], capture_output=True, check=False, timeout=100,
    )  # fmt: skip
    assert given.returncode == 0, given.stderr.decode()[-2000:]
    assert given.stdout


def test_an_arbitrator_is_set_as_the_servers_are():
    servers = dict(re.findall(r"^(\w+) = (\S+)", block("[mariadb]"), re.MULTILINE))
    arbitrators = dict(re.findall(r'^(\w+)="(.*)"$', block("GALERA_NODES"), re.MULTILINE))
    assert arbitrators["GALERA_GROUP"] == servers["wsrep_cluster_name"]
    assert arbitrators["GALERA_OPTIONS"] == servers["wsrep_provider_options"].strip('"').partition(";")[2]


# Words


def subcommand(words):
    """What the words of a command line mean; raises click's errors where they mean nothing."""
    command, context = main, click.Context(main)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, words
        command, words = found, words[1:]
    return command, words


def command_lines():
    written = [line for text in blocks() for line in text.splitlines() if line.startswith("dlrproxy ")]
    return sorted({line.partition(" |")[0] for line in (*written, *spans()) if re.match(r"dlrproxy [a-z]", line)})


@pytest.mark.parametrize("line", command_lines())
def test_every_command_exists_with_its_options(line):
    command, rest = subcommand(shlex.split(line)[1:])
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_the_commands_that_it_is_about_are_among_them():
    assert {
        "dlrproxy check-config",
        "dlrproxy status",
        f"dlrproxy db bootstrap {FILE}",
        f"dlrproxy db forget {FILE} gw3",
    } <= set(command_lines())


def test_every_target_of_make_exists():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {span.split()[1] for span in spans() if span.startswith("make ")} <= set(targets)


def test_every_file_of_ours_exists():
    named = {span for span in spans() if span.startswith(("contrib/", "docs/"))}
    assert "contrib/galera/dlrproxy-galera-notify" in named
    assert all((ROOT / name).exists() for name in named)


def test_every_key_has_its_default_and_every_default_its_key():
    rows = re.findall(
        r"^\| `([a-z_]+)` \| ([^|]*)\|", DOCUMENT.partition("\n## Settings\n")[2].partition("\n## ")[0], re.MULTILINE
    )
    written = {name: default.strip() for name, default in rows}
    defaults = {}
    for field in attrs.fields(Quorum):
        value = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default
        match value:
            case float():
                defaults[field.name] = f"{value:g}"
            case str():
                defaults[field.name] = f'`"{value}"`'
            case _:
                assert not value
                defaults[field.name] = ""
    assert Quorum().weight("gw1") == 1
    assert written == defaults | {"weights": "1 each"}


def test_every_key_that_is_named_exists():
    paths = [span.split(".") for span in (*spans(), *spans(CUSTODY)) if re.fullmatch(r"[a-z]+\.[a-z_]+_[a-z_]+", span)]
    named = {(table, key) for table, key in paths if table in TABLES and f"{table}.{key}" not in events()}
    assert ("quorum", "takeover_after_s") in named
    assert all(key in attrs.fields_dict(TABLES[table]) for table, key in named), named


EVENT = re.compile(r"""\.(?:info|warning|error)\(\s*f?"((?:quorum|\{self\._name\})\.[a-z_]+)\"""")


def events():
    """What a quorum logs, but for what is there for its developers."""
    found = {event for file in (ROOT / "dlrproxy").rglob("*.py") for event in EVENT.findall(file.read_text())}
    found.add("quorum.role")  # its level is chosen as it is written
    return {event.replace("{self._name}", "quorum") for event in found}


def test_every_event_is_explained_and_no_other():
    assert len(events()) > 15
    rows = re.findall(r"^\| ((?:`quorum\.[a-z_]+`(?:, )?)+) \|", DOCUMENT, re.MULTILINE)
    assert {name for cell in rows for name in spans(cell)} == events()


def test_every_metric_exists():
    node = FakeNode()
    node.change(quorum=quorum_status())
    exported = {
        line.split()[2] for line in Metrics(node.status).text().decode().splitlines() if line.startswith("# TYPE")
    }
    named = set(re.findall(r"dlrproxy_[a-z_]+", "\n".join(spans()))) - {"dlrproxy_admin"}
    assert named <= exported
    assert "dlrproxy_role" in named


def test_every_role_has_its_row():
    assert [row(f"`{role}`")[0] for role in ROLES] == [f"`{role}`" for role in ROLES]


def test_the_numbers_of_the_leases_are_those_of_the_code():
    assert (
        f"`fence_after_s + {RELEASE_S:g}` of each must be at most {RATE_MARGIN:g} of the `takeover_after_s`" in DOCUMENT
    )


# What survives what: label, weights, sites, and what the two cells begin with


@pytest.mark.parametrize(
    ("label", "weights", "sites"),
    [
        ("three nodes at one site", {"a": 1, "b": 1, "c": 1}, {}),
        ("two sites, 2 and 1", {"a": 1, "b": 1, "c": 1}, {"a": "prime", "b": "prime", "c": "other"}),
        (
            "two sites, 2 and 2, one at the prime site of weight 2 (5 in all)",
            {"a": 2, "b": 1, "c": 1, "d": 1},
            {"a": "prime", "b": "prime", "c": "other", "d": "other"},
        ),
        (
            "two sites, 1 and 1, and garbd at a third",
            {"a": 1, "b": 1, "garbd": 1},
            {"a": "one", "b": "other", "garbd": "third"},
        ),
    ],
)
def test_any_one_server_is_survived_and_what_is_said_of_sites_holds(label, weights, sites):
    _, one, site = row(label)
    found = {loss.of: loss.survived for loss in losses(weights, sites)}
    assert one == "goes on"
    assert all(found[name] for name in weights)
    lost = {name: survived for name, survived in found.items() if name.startswith("site ")}
    match site:
        case "":
            assert not lost
        case "any one site: goes on":
            assert all(lost.values())
            assert len(lost) == 3
        case _:
            assert re.fullmatch(
                r"(the other site|the site with one): goes on\. The prime site: the other one stops", site
            )
            assert lost == {"site prime": False, "site other": True}


def test_what_is_said_of_a_heavy_one_holds():
    assert row("weights 2, 1, 1")[1:] == [
        "a light one: goes on. The heavy one: stops (exactly half is not enough)",
        "both light ones: stops, likewise; with 3, 1, 1 it goes on",
    ]
    heavy = {"a": 2, "b": 1, "c": 1}
    assert {loss.of: loss.survived for loss in losses(heavy, {"b": "x", "c": "x", "a": "y"})} == {
        "a": False, "b": True, "c": True, "site x": False, "site y": False,
    }  # fmt: skip
    assert {loss.of: loss.survived for loss in losses(heavy | {"a": 3}, {"b": "x", "c": "x", "a": "y"})}["site x"]
