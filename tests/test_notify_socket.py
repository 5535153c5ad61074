"""The socket by which a Galera server of another user tells its node to look: for its group, and for nothing else."""

import errno
import grp
import os
import pwd
import socket
import stat
from contextlib import asynccontextmanager
from pathlib import Path

import mariadb_server
import pytest
import trio
from admin_world import FakeNode, quorum_status
from attrs import evolve
from test_config import problems, warnings
from test_database_config import QUORUM

from dlrproxy.admin import unix_socket
from dlrproxy.admin.server import serve
from dlrproxy.config import parse
from dlrproxy.logs import logger

NOTIFY = Path(__file__).parents[1] / "contrib" / "galera" / "dlrproxy-galera-notify"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a command as another user")
SERVER_USER = "mysql"


@asynccontextmanager
async def running(group):
    """A node, and the script where any user may read it; yields the node, both sockets' paths and the script's."""
    place = mariadb_server.readable_directory()
    script = place / NOTIFY.name
    script.write_bytes(NOTIFY.read_bytes())
    script.chmod(0o755)
    config = parse(QUORUM)
    quorum = evolve(config.quorum, notify_socket=place / "notify.sock", notify_group=group)
    data_dir = place / "data"
    data_dir.mkdir()
    config = evolve(config, node=evolve(config.node, data_dir=data_dir), quorum=quorum)
    node = FakeNode()
    node.change(mode="quorum", quorum=quorum_status())
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, node, config, logger("admin"))
        yield node, quorum.notify_socket, data_dir / "admin.sock", script
        nursery.cancel_scope.cancel()


async def run(*command, user=None):
    with trio.fail_after(100):
        who = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        return await trio.run_process(list(command), capture_stderr=True, capture_stdout=True, check=False, **who)


def ask(path, url, *options):
    return run(
        "curl", "--silent", "--write-out", "%{http_code}", "--unix-socket", path, *options, f"http://localhost{url}"
    )


@AS_ROOT
async def test_the_servers_own_user_makes_the_node_look():
    async with running(SERVER_USER) as (node, told, _, script):
        done = await run(script, told, "--status", "synced", "--primary", "yes", user=SERVER_USER)
        assert (done.returncode, done.stderr, node.calls["look"]) == (0, b"", 1)


@AS_ROOT
async def test_who_is_not_of_the_group_cannot():
    async with running(SERVER_USER) as (node, told, admin, script):
        done = await run(script, told, user="nobody")
        assert (done.returncode, node.calls["look"]) == (0, 0)
        assert done.stderr.startswith(b"dlrproxy-galera-notify: ")
        assert (await run(script, admin, user=SERVER_USER)).stderr  # which is for the node's own user alone
        assert node.calls["look"] == 0


async def test_nothing_else_can_be_asked_there_and_nothing_is_shown():
    async with running(grp.getgrgid(os.getegid()).gr_name) as (node, told, admin, _):
        body = ("--header", "Content-Type: application/json", "--data", "{}")
        assert (await ask(told, "/look", *body)).stdout == b"204"
        for path in ("/status", "/parked", "/metrics", "/look"):
            assert (await ask(told, path)).stdout[-3:] in (b"404", b"405")
        for path in ("/drain", "/parked/drop"):
            assert (await ask(told, path, *body)).stdout[-3:] == b"404"
        assert (node.calls["look"], node.drains, node.dropped) == (1, [], [])
        assert (await ask(admin, "/health")).stdout.endswith(b"200")


async def test_without_a_group_it_is_for_the_nodes_user_alone():
    async with running(None) as (_, told, _, _):
        assert stat.S_IMODE(told.stat().st_mode) == 0o600
    assert not told.exists()


async def test_a_group_that_is_not_there_is_named():
    with pytest.raises(ExceptionGroup) as raised:
        async with running("no-such-group"):
            raise AssertionError
    assert raised.group_contains(OSError, match="quorum.notify_socket.*there is no group no-such-group")


async def test_a_group_that_the_nodes_user_is_no_member_of_is_named(monkeypatch):
    def refused(path, *, group):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(unix_socket.shutil, "chown", refused)
    with pytest.raises(ExceptionGroup) as raised:
        async with running(SERVER_USER):
            raise AssertionError
    assert raised.group_contains(OSError, match="this user is not a member of the group mysql")


def refused(path):
    """Why nothing can be made there; what is there stays."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(OSError, match="there") as raised:
        unix_socket.listener(path)
    assert sorted(path.parent.iterdir()) == before
    return raised.value.strerror


def test_a_file_in_its_place_is_left_there(tmp_path):
    path = tmp_path / "notify.sock"
    path.write_text("of somebody else")
    assert "no socket" in refused(path)
    assert path.read_text() == "of somebody else"


def test_the_socket_of_another_process_is_left_to_that(tmp_path):
    path = tmp_path / "mysqld.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        assert "another process listens there" in refused(path)
        assert "another process listens there" in refused(path)  # whose queue is full now
    unix_socket.listener(path).close()


def test_nothing_is_left_of_one_that_could_not_be_made(tmp_path):
    with pytest.raises(OSError, match="no group"):
        unix_socket.listener(tmp_path / "notify.sock", "no-such-group")
    assert list(tmp_path.iterdir()) == []


async def test_without_a_quorum_there_is_none(tmp_path):
    config = parse(QUORUM)
    quorum = evolve(config.quorum, notify_socket=tmp_path / "notify.sock")
    config = evolve(config, node=evolve(config.node, mode="ring", data_dir=tmp_path), quorum=quorum)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, FakeNode(), config, logger("admin"))
        assert list(tmp_path.iterdir()) == [tmp_path / "admin.sock"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("keys", "path", "text"),
    [
        ('notify_group = "mysql"', "quorum.notify_group", "needs notify_socket"),
        ('notify_socket = "data/admin.sock"', "quorum.notify_socket", "everything can be done"),
        ('notify_socket = "/run/server.sock"', "quorum.notify_socket", "this node's own server"),
        ('notify_socket = "/run/a.sock"\nnotify_group = "no-such-group"', "quorum.notify_group", "has no group"),
    ],
)
def test_what_cannot_be_is_said_before_the_start(keys, path, text):
    config = QUORUM.replace("[database]", '[database]\nsocket = "/run/server.sock"')
    assert text in problems(config + keys + "\n")[path]


def test_who_is_no_member_is_warned_by_check_config(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    monkeypatch.setattr(os, "getegid", lambda: -1)
    monkeypatch.setattr(os, "getgroups", list)
    found = warnings(QUORUM + f'notify_socket = "/run/a.sock"\nnotify_group = "{SERVER_USER}"\n')
    assert "not a member of mysql" in found["quorum.notify_group"]
