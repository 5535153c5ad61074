"""A node of a quorum from term to term, on one real database server: what Galera says of that is pretended."""

from contextlib import asynccontextmanager
from pathlib import Path

import mariadb_server
import pytest
import structlog.testing
import trio
from attrs import evolve
from test_quorum_driver import FakeDatabase

from dlrproxy.admin import unix_socket
from dlrproxy.config import parse
from dlrproxy.config.accounts import ordinary
from dlrproxy.config.changes import ReloadRefusedError
from dlrproxy.config.tables import Peer
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.modes import quorum_node
from dlrproxy.modes.agreement import settings_of
from dlrproxy.modes.cluster import Member
from dlrproxy.modes.node_settings import NodeSettings
from dlrproxy.modes.quorum_node import QuorumNode
from dlrproxy.store.sql import schema
from dlrproxy.store.sql.pool import Pool

LONG_S = 100


class FakeGalera(FakeDatabase):
    home = b""

    def opened(self, account, name, home, **times):
        self.home = home
        return self

    async def claim(self, seen):
        epoch = await super().claim(seen)
        self.members["a"] = evolve(self.members["a"], home=self.home)
        return epoch

    async def close(self):
        pass


def config_of(data_dir, account, listen, other, links, operator="port = 1"):
    return parse(f"""
        [node]
        name = "a"
        mode = "quorum"
        data_dir = "{data_dir}"
        min_free_mb = 16
        drain_s = 5
        [[operators]]
        name = "acme"
        host = "{LOOPBACK}"
        {operator}
        system_id = "shop"
        password = "secret"
        listen = {{ shop = "{LOOPBACK}:{listen}", other = "{LOOPBACK}:{other}" }}
        [[peers]]
        name = "a"
        url = "ws://{LOOPBACK}:{links}"
        [[peers]]
        name = "b"
        url = "ws://{LOOPBACK}:1"
        [ring]
        cluster = "test"
        [database]
        socket = "{account.socket}"
        user = "{account.user}"
        password = "secret"
        schema = "{account.schema}"
        [quorum]
        heartbeat_s = 0.2
        fence_after_s = 60
        takeover_after_s = 100
    """)


NOTIFY = Path(__file__).parents[1] / "contrib" / "galera" / "dlrproxy-galera-notify"


class Scene:
    def __init__(self, node, config, galera, account):
        self.node, self.config, self.galera, self.account = node, config, galera, account

    async def term_after(self, former=None):
        with trio.fail_after(LONG_S):
            while (term := self.node.term) is None or term is former:  # noqa: ASYNC110 - what a thread leads to
                await trio.sleep(0.01)
            await term.started.wait()
            return term

    async def lose_quorum(self):
        self.galera.server = evolve(self.galera.server, primary=False)
        await self.without_term()

    async def without_term(self):
        with trio.fail_after(LONG_S):
            while self.node.term is not None:  # noqa: ASYNC110 - what a thread leads to
                await trio.sleep(0.01)

    def regain_quorum(self):
        self.galera.server = evolve(self.galera.server, primary=True)

    async def state(self, *words):
        path = self.config.node.data_dir / "state"
        with trio.fail_after(LONG_S):
            while not path.exists() or tuple(path.read_text("ascii").split()[:3]) != words:  # noqa: ASYNC110 - a thread's
                await trio.sleep(0.01)

    def with_window(self, window, **changes):
        (operator,) = self.config.operators
        return evolve(self.config, operators=(evolve(operator, window=window),), **changes)


@asynccontextmanager
async def running(tmp_path, monkeypatch, members=(), operator="port = 1", **quorum):
    """`operator`: lines of its table."""
    galera = FakeGalera()
    galera.members.update(members)
    monkeypatch.setattr(quorum_node, "Galera", galera.opened)
    async with mariadb_server.fresh_schema() as account:
        pool = Pool(account, 1, LONG_S)
        await schema.init(pool)
        await pool.close()
        with reserved(3) as ports:
            config = config_of(tmp_path / "data", account, *ports, operator)
            config = evolve(config, quorum=evolve(config.quorum, **quorum))
            node = QuorumNode(config)
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run)
                yield Scene(node, config, galera, account)
                node.stop()


def window(term):
    return term.fronts["acme"].relay.operator.window


async def test_the_state_file_says_the_role_and_whether_it_serves(tmp_path, monkeypatch):
    async with running(tmp_path, monkeypatch) as scene:
        await scene.state("serving", "1", "serving")
        await scene.lose_quorum()
        await scene.state("no-quorum", "0", "idle")


async def test_the_servers_own_word_makes_it_look_long_before_its_heartbeat(tmp_path, monkeypatch):
    async with running(tmp_path, monkeypatch, heartbeat_s=3600.0, fence_after_s=7200.0) as scene:
        await scene.term_after()
        scene.galera.server = evolve(scene.galera.server, primary=False)
        words = [NOTIFY, scene.config.node.data_dir, "--status", "connected", "--primary", "no"]
        await trio.run_process(words)
        await scene.without_term()


async def test_a_server_gets_no_error_and_no_wait_from_a_node_that_is_not_there(tmp_path):
    for words in ([], [tmp_path], [tmp_path, "--status", "synced"]):
        with trio.fail_after(LONG_S):
            done = await trio.run_process([NOTIFY, *words], capture_stdout=True, capture_stderr=True)
        assert (done.returncode, done.stdout) == (0, b"")
        assert done.stderr.startswith(b"dlrproxy-galera-notify: ")


async def test_nor_from_one_that_does_not_answer(tmp_path):
    with unix_socket.listener(tmp_path / unix_socket.NAME), trio.fail_after(LONG_S):
        done = await trio.run_process([NOTIFY, tmp_path], capture_stderr=True)
    assert done.returncode == 0


async def test_a_reload_counts_for_the_term_that_is_there_and_for_the_next_one(tmp_path, monkeypatch):
    async with running(tmp_path, monkeypatch) as scene:
        term = await scene.term_after()
        await scene.node.reload(scene.with_window(7))
        assert window(term) == 7
        await scene.lose_quorum()
        scene.regain_quorum()
        assert window(await scene.term_after(term)) == 7


async def test_without_a_term_it_counts_for_the_next_one_and_names_what_needs_a_restart(tmp_path, monkeypatch):
    async with running(tmp_path, monkeypatch) as scene:
        await scene.term_after()
        await scene.lose_quorum()
        wanted = scene.with_window(7, database=evolve(scene.config.database, connections=9))
        with structlog.testing.capture_logs() as logged:
            await scene.node.reload(wanted)
        assert [entry["keys"] for entry in logged if entry["event"] == "config.needs_restart"] == [
            ["database.connections"]
        ]
        assert scene.node.config.database == scene.config.database
        scene.regain_quorum()
        assert window(await scene.term_after()) == 7


async def test_a_node_that_does_not_fit_the_others_says_so_and_serves_once_it_does(tmp_path, monkeypatch):
    """Its file has fence_after_s = 60, and b would take over from it after 15 s."""
    other = Member(epoch=1, beat=1, settings=NodeSettings(fence_after_s=10.0, takeover_after_s=15.0))
    async with running(tmp_path, monkeypatch, members={"b": other}) as scene:
        await scene.state("joining", "0", "idle")
        with trio.fail_after(LONG_S):
            while not scene.node.quorum().differences:  # noqa: ASYNC110 - what a thread leads to
                await trio.sleep(0.01)
        assert "quorum.takeover_after_s of b, 15" in scene.node.quorum().why
        assert scene.node.term is None
        scene.galera.members["b"] = evolve(other, taken=True)
        await scene.term_after()
        assert not scene.node.quorum().differences
        assert scene.galera.published == settings_of(scene.config)


async def test_a_term_knows_other_clocks_before_it_looks_anything_up(tmp_path, monkeypatch):
    async with running(tmp_path, monkeypatch) as scene:
        term = await scene.term_after()
        await scene.lose_quorum()
        pool = Pool(ordinary(scene.config), 1, LONG_S)
        await pool.run("INSERT INTO members (node,epoch,beat,home,taken,heir,moved) VALUES ('b',1,1,'',0,'',0)")
        await pool.run("INSERT INTO items (node,kind,name,content) VALUES ('b','meta','clock','1000000000')")
        await pool.close()
        scene.regain_quorum()
        term = await scene.term_after(term)
        assert term.store.ahead_s > 1e6
        assert scene.node.quorum().clocks == {}  # for all that is known it is down


async def test_the_others_are_told_what_a_reload_has_changed(tmp_path, monkeypatch):
    async with running(tmp_path, monkeypatch) as scene:
        await scene.term_after()
        wanted = evolve(scene.config, peers=(*scene.config.peers, Peer(name="c", url=f"ws://{LOOPBACK}:2")))
        await scene.node.reload(wanted)
        with trio.fail_after(LONG_S):
            while scene.galera.published.peers != ("a", "b", "c"):  # noqa: ASYNC110 - what a thread leads to
                await trio.sleep(0.01)


async def test_a_node_that_stops_takes_over_nothing(tmp_path, monkeypatch):
    async with running(tmp_path, monkeypatch) as scene:
        scene.node.stop()
        with pytest.raises(ReloadRefusedError):
            await scene.node.reload(scene.with_window(7))


async def test_what_a_term_left_behind_at_the_server_is_known_to_the_next_one(tmp_path, monkeypatch):
    known = []

    async def opened(*args):
        known.append(args[-1].doubts)
        return await open_shared(*args)

    open_shared = quorum_node.open_shared
    monkeypatch.setattr(quorum_node, "open_shared", opened)
    async with running(tmp_path, monkeypatch) as scene:
        term = await scene.term_after()
        await scene.lose_quorum()
        scene.regain_quorum()
        await scene.term_after(term)
    first, second = known
    assert first is second
