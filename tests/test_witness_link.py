"""The witness over real sockets, as a process, and what the driver of a pair makes of it."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner
from pair_world import World
from test_pair_driver import PRIMARY, SETTINGS, STANDBY, FakeDatabase, FakeService
from test_replication_machine import roles, settle

from dlrproxy import config as configured
from dlrproxy.cli import main
from dlrproxy.config import Address, Config, Pair, Peer
from dlrproxy.modes.pair import Alone, Role
from dlrproxy.modes.pair_driver import PairDriver
from dlrproxy.modes.witness import Borrower, Witness
from dlrproxy.modes.witness_link import RemoteWitness, serve, witness_of
from dlrproxy.secret import Secret

SECRET = b"a secret of some length"
LONG_S = 60.0


def remote(port, node, secret=SECRET):
    return RemoteWitness("127.0.0.1", port, Borrower(secret, "a+b", node, least_s=1.0))


@contextlib.asynccontextmanager
async def a_witness(lease_s=1000.0):
    async with trio.open_nursery() as nursery:
        witness = Witness(SECRET, lease_s, trio.current_time() - lease_s)
        port = await nursery.start(serve, witness, "127.0.0.1", 0)
        yield port
        nursery.cancel_scope.cancel()


async def test_it_is_borrowed_refused_and_given_back():
    async with a_witness() as port:
        a, b = remote(port, "a"), remote(port, "b")
        before = trio.current_time()
        sent_at = await a.borrow(LONG_S)
        assert before <= sent_at <= trio.current_time()
        assert await b.borrow(LONG_S) is None
        assert b.refused == "a has it"
        assert await a.borrow(LONG_S) >= sent_at
        assert await a.give_back(LONG_S)
        assert await b.borrow(LONG_S) is not None
        assert b.refused == ""


async def test_one_that_is_gone_lends_nothing():
    async with a_witness() as port:
        pass
    node = remote(port, "a")
    assert await node.borrow(0.3) is None
    assert str(port) in node.refused
    assert not await node.give_back(0.3)


async def test_one_with_another_secret_does_not_answer():
    async with a_witness() as port:
        node = remote(port, "a", b"another secret, as long")
        assert await node.borrow(0.3) is None
        assert "does not answer" in node.refused


async def test_one_whose_name_is_unknown_lends_nothing():
    node = RemoteWitness("witness.invalid", 7390, Borrower(SECRET, "a+b", "a", least_s=1.0))
    assert await node.borrow(0.3) is None
    assert "witness.invalid" in node.refused


async def test_a_node_asks_the_one_that_its_configuration_names():
    async with a_witness(lease_s=8.0) as port:
        pair = Pair(witness=Address("127.0.0.1", port), witness_secret=Secret(SECRET), fence_after_s=6.0)
        peers = tuple(Peer(name=name) for name in "ab")
        config = Config(node=configured.Node(name="a", data_dir=Path("/")), peers=peers, pair=pair)
        assert await witness_of(config).borrow(LONG_S) is not None
        late = attrs.evolve(config, pair=attrs.evolve(pair, fence_after_s=7.0))
        node = witness_of(late)
        assert await node.borrow(LONG_S) is None
        assert node.refused == "the witness lends for 8 s, and this pair needs 9 s"
        assert witness_of(attrs.evolve(config, pair=attrs.evolve(pair, witness=None))) is None


# --- as a process


def test_the_command_lends_until_it_is_told_to_end(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    command = [sys.executable, "-m", "dlrproxy", "witness", "--listen", "127.0.0.1:0", "--secret-file", str(secret)]
    with subprocess.Popen([*command, "--lease-s", "1"], stderr=subprocess.PIPE, text=True) as process:
        line = json.loads(process.stderr.readline())
        assert line["event"] == "witness.listening"

        async def borrowed():
            with trio.fail_after(LONG_S):
                while await remote(line["port"], "a").borrow(LONG_S) is None:
                    pass  # it has just started

        trio.run(borrowed)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG_S) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "7390"], "HOST:PORT"),
        (["--listen", "127.0.0.1:70000"], "HOST:PORT"),
        (["--listen", "127.0.0.1:7390", "--secret-file", "short"], "fewer than 16 bytes"),
        (["--listen", "127.0.0.1:7390", "--secret-file", "none"], "cannot read"),
    ],
)
def test_what_it_cannot_work_with_it_says(tmp_path, arguments, said):
    (tmp_path / "short").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(SECRET)
    if "--secret-file" not in arguments:
        arguments = [*arguments, "--secret-file", "secret"]
    *others, name = arguments
    result = CliRunner().invoke(main, ["witness", *others, str(tmp_path / name)])
    assert result.exit_code != 0
    assert said in result.output


# --- in the driver


class FakeWitness:
    def __init__(self):
        self.lends = True
        self.refused = ""
        self.given_back = 0

    async def borrow(self, within_s):
        sent_at = trio.current_time()
        await trio.sleep(0.1)
        return sent_at if self.lends else None

    async def give_back(self, within_s):
        self.given_back += 1
        return True


class Node:
    """The primary of a pair, and its witness."""

    def __init__(self):
        self.own, self.peer = FakeDatabase(PRIMARY), FakeDatabase(STANDBY)
        self.witness, self.service = FakeWitness(), FakeService()
        settings = attrs.evolve(SETTINGS, witness=True)
        self.driver = PairDriver(
            settings, self.own, self.peer, self.service, heartbeat_s=1.0, reach_s=2.0, witness=self.witness
        )

    @contextlib.asynccontextmanager
    async def running(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.driver.run)
            await trio.sleep(5)
            assert self.driver.machine.role is Role.ACTIVE
            yield self
            nursery.cancel_scope.cancel()


async def test_an_active_that_loses_its_replica_goes_on_with_the_witness_alone(autojump_clock):
    async with Node().running() as node:
        node.peer.server = None
        node.own.acknowledges = False
        await trio.sleep(30)
        assert node.driver.machine.role is Role.ACTIVE
        assert any(getattr(command, "alone", None) is Alone.WITNESSED for command in node.own.done)


async def test_without_either_it_is_fenced(autojump_clock):
    async with Node().running() as node:
        node.peer.server = None
        node.own.acknowledges = False
        node.witness.lends = False
        await trio.sleep(30)
        assert (node.driver.machine.role, node.service.epoch) == (Role.FENCED, None)


async def test_a_node_that_hands_over_gives_it_back_when_it_serves_no_more(autojump_clock):
    async with Node().running() as node:
        assert node.witness.given_back == 0
        node.driver.demote()
        await trio.sleep(5)
        assert node.service.epoch is None
        assert node.witness.given_back == 1
        assert not node.driver.machine.wants_witness


# --- a cut between each two of the three


def a_world():
    world = World(settings=attrs.evolve(SETTINGS, me="", witness=True))
    settle(world)
    assert roles(world) == {"a": Role.ACTIVE, "b": Role.STANDBY}
    return world


def cut(world, links):
    for link in links:
        if link == "ab":
            world.linked = False
        else:
            world.witness_linked[link[0]] = False


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("links", [["ab"], ["aw"], ["bw"], ["ab", "bw"], ["aw", "bw"]])
def test_the_active_goes_on_while_it_has_its_replica_or_the_witness(links, asked):
    world = a_world()
    cut(world, links)
    if asked:
        world.nodes["b"].machine.promote()
    settle(world, 60)
    assert roles(world)["a"] is Role.ACTIVE
    assert roles(world)["b"] is not Role.ACTIVE
    world.check_nothing_lost()


def test_an_active_that_is_cut_off_from_both_gives_way_to_the_standby():
    world = a_world()
    cut(world, ["ab", "aw"])
    world.nodes["b"].machine.promote()
    settle(world, 60)
    assert roles(world) == {"a": Role.FENCED, "b": Role.ACTIVE}
    world.check_nothing_lost()


def test_without_the_witness_as_well_nobody_serves():
    world = a_world()
    cut(world, ["ab", "aw", "bw"])
    world.nodes["b"].machine.promote()
    settle(world, 60)
    assert roles(world)["a"] is Role.FENCED
    assert roles(world)["b"] is not Role.ACTIVE
    assert world.nodes["b"].machine.refused == "the witness does not lend itself to this node"


def test_with_a_witness_as_well_a_planned_switch_waits_for_nothing():
    world = a_world()
    world.nodes["a"].machine.demote()
    world.nodes["b"].machine.promote()
    settle(world, 4)
    assert roles(world)["b"] is Role.ACTIVE
