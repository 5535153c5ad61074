"""The role machine of a pair in a world of faults: never two active, and what was acknowledged survives a promotion."""

import pytest
from attrs import evolve
from pair_world import BEAT_S, SETTINGS, World

from dlrproxy.modes.pair import (
    Alone,
    GoAlone,
    GoPaired,
    Observation,
    Release,
    Replica,
    Role,
    Safety,
    Serve,
    Server,
)
from dlrproxy.modes.replication import Pair


def settle(world, seconds=30.0):
    """Let time pass without faults."""
    for _ in range(int(seconds / 0.25)):
        tick(world)


def tick(world):
    world.advance(0.25)
    for node in world.nodes.values():
        if world.now % BEAT_S < 0.25:
            world.beat(node)
            world.ask_witness(node)
        world.observe(node)
        while world.carry_out(node):
            world.check()
        world.message(node)
    for server in world.servers.values():
        for _ in range(20):
            world.fetch(server)
            world.apply(server)
    world.check()


def roles(world):
    return {name: node.machine.role for name, node in world.nodes.items() if node.machine is not None}


FAULTS = [
    "cut", "heal", "heal", "kill node", "start node", "start node", "kill server", "start server", "start server",
    "freeze", "thaw", "thaw", "promote", "demote", "rejoin", "rejoin", "witness cut", "witness heal",
]  # fmt: skip


def disturb(world):
    what = world.random.choice(FAULTS)
    name = world.random.choice("ab")
    node = world.nodes[name]
    world.note(what, name)
    match what:
        case "cut" | "heal":
            world.linked = what == "heal"
        case "kill node":
            world.kill(node)
        case "start node" if node.machine is None:
            world.start(node)
        case "kill server":
            node.server.kill()
        case "start server" if not node.server.up:
            node.server.start(world.now)
        case "freeze" if node.machine is not None:
            node.frozen = True
        case "thaw":
            node.frozen = False
        case "promote" | "demote":
            node.asked = what
            if node.machine is not None:
                getattr(node.machine, what)()
        case "rejoin":
            world.rejoin(name)
        case "witness cut" | "witness heal":
            world.witness_linked[name] = what == "witness heal"


def play(seed, settings=SETTINGS, machine=Pair, steps=400):
    """Anything in any order, and a node may die between any two commands."""
    world = World(seed, settings, machine)
    dice = world.random
    for _ in range(steps):
        node = world.nodes[dice.choice("ab")]
        server = world.servers[dice.choice("ab")]
        match dice.randrange(12):
            case 0 | 1:
                world.advance(dice.choice([0.05, 0.2, 0.5, 1.0, 3.0]))
            case 2 | 3 | 4:
                world.observe(node)
            case 5:
                world.carry_out(node)
            case 6:
                while world.carry_out(node):
                    world.check()
            case 7:
                world.beat(node)
                world.ask_witness(node)
            case 8:
                world.message(node)
            case 9:
                world.fetch(server)
                world.apply(server)
            case 10:
                for _ in range(30):
                    world.fetch(server)
                    world.apply(server)
            case 11 if dice.random() < 0.5:
                disturb(world)
        world.check()
        world.check_nothing_lost()
    return world


def drive(seed, settings=SETTINGS, machine=Pair, steps=500):
    """As a pair really runs: both look every quarter of a second, the applier lags, and faults come now and then."""
    world = World(seed, settings, machine)
    dice = world.random
    lag, loss = dice.choice([0.0, 0.3, 0.9]), dice.choice([0.0, 0.2])
    for step in range(steps):
        world.advance(0.25)
        for node in world.nodes.values():
            if dice.random() < loss:
                continue
            if step % 4 == 0:
                world.beat(node)
                world.ask_witness(node)
            world.observe(node)
            while world.carry_out(node):
                world.check()
            for _ in range(dice.choice([0, 1, 3])):
                world.message(node)
        for server in world.servers.values():
            for _ in range(20):
                world.fetch(server)
            while dice.random() > lag and server.applied < len(server.log) and server.applying and server.source:
                world.apply(server)
        if dice.random() < 0.05:
            disturb(world)
        world.check()
        world.check_nothing_lost()
    return world


@pytest.mark.parametrize("first", range(0, 150, 50))
@pytest.mark.parametrize("witness", [False, True])
def test_never_two_active_in_a_pair_that_runs(first, witness):
    for seed in range(first, first + 50):
        drive(seed, evolve(SETTINGS, witness=witness))


@pytest.mark.parametrize("first", range(0, 400, 200))
def test_never_two_active_and_nothing_acknowledged_is_lost(first):
    for seed in range(first, first + 200):
        play(seed)


@pytest.mark.parametrize("first", range(0, 200, 200))
def test_the_same_with_a_witness(first):
    for seed in range(first, first + 200):
        play(seed, evolve(SETTINGS, witness=True))


def test_a_pair_at_rest_is_one_active_and_one_standby():
    world = World()
    settle(world)
    assert roles(world) == {"a": Role.ACTIVE, "b": Role.STANDBY}
    assert world.nodes["a"].serving
    assert len(world.acknowledged) > 50


def test_the_standby_takes_over_when_the_active_and_its_server_die():
    world = World()
    settle(world)
    world.kill(world.nodes["a"])
    world.servers["a"].kill()
    world.nodes["b"].machine.promote()
    settle(world, 20)
    assert roles(world) == {"b": Role.ACTIVE}
    assert world.nodes["b"].machine.epoch == 2
    world.check_nothing_lost()


@pytest.mark.parametrize(
    ("receiving", "applying", "role"),
    [(True, True, Role.STANDBY), (False, True, Role.FAILED), (True, False, Role.FAILED)],
)
def test_a_replica_whose_source_is_away_stands_by_and_one_that_has_stopped_has_failed(receiving, applying, role):
    replica = Replica(receiving=receiving, applying=applying, all_applied=True, error="Connection refused")
    server = Server(writable=False, epoch=1, holder="a", beat=1, alone=Alone.NO, position="0-1-1", replica=replica)
    machine = Pair(evolve(SETTINGS, me="b"), 0.0)
    assert machine.observe(Observation(own=server, peer=None), 1.0) == []
    assert machine.role is role
    assert "Connection refused" in machine.why


def lose_the_relay_log(world):
    """B has acknowledged what it has not applied; then both servers and the active die, and B's server starts again."""
    settle(world)
    a, b = world.servers["a"], world.servers["b"]
    world.message(world.nodes["a"])
    world.fetch(b)
    assert world.acknowledged[-1] == b.log[-1]
    assert b.applied < len(b.log)
    world.kill(world.nodes["a"])
    a.kill()
    b.kill()
    settle(world, 2)
    b.start(world.now)
    world.nodes["b"].machine.promote()
    settle(world, 60)


def test_a_standby_that_threw_away_what_it_had_acknowledged_is_not_promoted():
    world = World()
    lose_the_relay_log(world)
    assert roles(world) == {"b": Role.STANDBY}
    assert "threw away what it had received" in world.nodes["b"].machine.refused


@pytest.mark.parametrize("restarted", [False, True])
def test_it_is_promoted_when_it_has_fetched_that_again(restarted):
    world = World()
    lose_the_relay_log(world)
    if restarted:
        world.kill(world.nodes["b"])
        world.start(world.nodes["b"])
        settle(world, 20)
    world.servers["a"].start(world.now)
    settle(world, 3)
    world.servers["a"].kill()
    world.nodes["b"].machine.promote()
    settle(world, 20)
    assert roles(world) == {"b": Role.ACTIVE}
    world.check_nothing_lost()


def test_it_is_promoted_without_that_by_force():
    world = World()
    lose_the_relay_log(world)
    world.nodes["b"].machine.promote(force=True)
    settle(world, 3)
    assert roles(world) == {"b": Role.ACTIVE}
    assert set(world.acknowledged) - set(world.servers["b"].log)  # what it says is lost is


def test_where_safety_is_availability_it_is_promoted_all_the_same():
    world = World(settings=evolve(SETTINGS, safety=Safety.AVAILABLE))
    lose_the_relay_log(world)
    assert roles(world) == {"b": Role.ACTIVE}


def test_a_cut_link_fences_the_active_before_the_standby_promotes():
    world = World()
    settle(world)
    world.linked = False
    world.nodes["b"].machine.promote()
    settle(world, 7)
    assert roles(world) == {"a": Role.FENCED, "b": Role.STANDBY}
    assert "may serve for" in world.nodes["b"].machine.refused
    settle(world, 5)
    assert roles(world) == {"a": Role.FENCED, "b": Role.ACTIVE}
    world.linked = True
    settle(world)
    assert world.nodes["a"].machine.role in {Role.FENCED, Role.STANDBY}
    assert not world.servers["a"].writable
    world.rejoin("a")
    settle(world)
    assert roles(world) == {"a": Role.STANDBY, "b": Role.ACTIVE}


def test_a_link_that_heals_in_time_gives_the_active_its_service_back():
    world = World()
    settle(world)
    world.linked = False
    settle(world, 8)
    assert roles(world)["a"] is Role.FENCED
    world.linked = True
    settle(world)
    assert roles(world) == {"a": Role.ACTIVE, "b": Role.STANDBY}
    assert world.nodes["a"].machine.epoch == 1


def test_the_standby_takes_over_when_the_active_dies_and_its_server_lives():
    world = World()
    settle(world)
    world.kill(world.nodes["a"])
    world.nodes["b"].machine.promote()
    settle(world, 5)
    assert roles(world) == {"b": Role.STANDBY}
    assert "takes writes" in world.nodes["b"].machine.refused
    settle(world, 10)
    assert roles(world) == {"b": Role.ACTIVE}
    world.start(world.nodes["a"])
    settle(world)
    assert roles(world) == {"a": Role.FENCED, "b": Role.ACTIVE} or not world.servers["a"].writable
    assert roles(world)["b"] is Role.ACTIVE
    world.check_nothing_lost()


def test_it_does_not_while_that_server_may_serve_alone():
    world = World()
    settle(world)
    world.linked = False
    settle(world, 8)
    world.nodes["a"].machine.promote(force=True)  # it goes on alone, and b is not told
    settle(world, 5)
    world.kill(world.nodes["a"])
    world.nodes["b"].machine.promote()
    world.servers["b"].source = None  # whatever keeps it from hearing of that
    world.linked = True
    settle(world, 20)
    assert roles(world)["b"] is Role.STANDBY


def alone_at(machine, now, alone=Alone.FREE, **changes):
    """What it does when its server shows that it is the primary, and may serve alone."""
    server = Server(writable=True, epoch=2, holder="a", beat=1, alone=alone, position="0-1-1", replica=None)
    return machine.observe(Observation(own=evolve(server, **changes), peer=None), now)


@pytest.fixture
def pairing():
    """An active whose replica is back at 10.0, and may have the row that ends being alone."""
    machine = Pair(evolve(SETTINGS, me="a"), 0.0)
    assert alone_at(machine, 9.0) == [Serve(2)]
    assert alone_at(machine, 10.0, has_replica=True) == [GoPaired()]
    return machine


def test_an_active_serves_no_longer_than_its_replica_may_know_of_though_its_own_row_does_not_show_it(pairing):
    assert alone_at(pairing, 12.0) == []
    assert alone_at(pairing, 13.0, has_replica=True) == [GoPaired()]  # which vouches for nothing that the first has not
    assert pairing.serve_until == 10.0 + SETTINGS.fence_after_s
    assert [type(command) for command in alone_at(pairing, 17.0)] == [Release]
    assert alone_at(pairing, 18.0) == []
    assert pairing.role is Role.FENCED


def test_it_is_paired_once_the_replica_answers_again(pairing):
    alone_at(pairing, 17.0)
    assert alone_at(pairing, 18.0, has_replica=True) == [GoPaired()]
    pairing.acknowledged(19.0)
    assert alone_at(pairing, 19.0, Alone.NO) == [Serve(2)]


def test_or_alone_again_if_a_person_says_so(pairing):
    alone_at(pairing, 17.0)
    pairing.promote(force=True)
    assert alone_at(pairing, 18.0) == [GoAlone(Alone.FREE)]
    assert alone_at(pairing, 19.0) == [Serve(2)]


def test_a_planned_switch_waits_for_nothing_and_loses_nothing():
    world = World()
    settle(world)
    world.nodes["a"].machine.demote()
    world.nodes["b"].machine.promote()
    settle(world, 3)
    assert roles(world)["b"] is Role.ACTIVE
    assert roles(world)["a"] is not Role.ACTIVE
    world.check_nothing_lost()


def test_and_back_again():
    world = World()
    settle(world)
    for old, new in ["ab", "ba", "ab"]:
        world.nodes[old].machine.demote()
        world.nodes[new].machine.promote()
        settle(world, 15)
        world.rejoin(old)
        settle(world, 15)
        assert roles(world) == {old: Role.STANDBY, new: Role.ACTIVE}
    world.check_nothing_lost()
    assert world.nodes["b"].machine.epoch == 4


def test_an_active_that_freezes_as_its_replica_comes_back_says_nothing_after_that():
    world = World()
    settle(world)
    a, b = world.nodes["a"], world.nodes["b"]
    a.machine.demote()
    b.machine.promote()
    settle(world)
    assert roles(world)["b"] is Role.ACTIVE
    world.rejoin("a")
    while world.servers["b"].row[4] is not Alone.NO:
        assert world.now < 100
        tick(world)
    b.frozen = True  # before it has looked again
    settle(world, 3)
    world.linked = False
    a.machine.promote()
    settle(world, 15)
    assert roles(world)["a"] is Role.ACTIVE
    b.frozen = False
    world.advance(0)
    world.check()
    assert not b.serving


def test_a_restarted_active_goes_on_under_its_epoch():
    world = World()
    settle(world)
    world.kill(world.nodes["a"])
    settle(world, 2)
    world.start(world.nodes["a"])
    settle(world, 5)
    assert roles(world) == {"a": Role.ACTIVE, "b": Role.STANDBY}
    assert world.nodes["a"].machine.epoch == 1


def test_the_witness_lets_an_active_that_loses_its_replica_go_on():
    world = World(settings=evolve(SETTINGS, witness=True))
    settle(world)
    world.kill(world.nodes["b"])
    world.servers["b"].kill()
    settle(world, 60)
    assert roles(world) == {"a": Role.ACTIVE}
    world.servers["b"].start(world.now)
    world.start(world.nodes["b"])
    settle(world, 30)
    assert roles(world) == {"a": Role.ACTIVE, "b": Role.STANDBY}
    assert world.servers["a"].semi_sync


# --- bugs that are planted must be caught


class TooEager(Pair):
    def _too_early(self, seen, own, now):
        return ""


class ThrowsAway(Pair):
    """Promotes without applying what was received."""

    def _take_over(self, seen, own, now):
        if own.replica is not None:
            own = evolve(own, replica=evolve(own.replica, all_applied=True))
        return super()._take_over(seen, own, now)


class Forgetful(Pair):
    """Takes a replica that was started again for one that has all it has acknowledged."""

    def _passive(self, seen, own, now):
        if own.replica is not None:
            own = evolve(own, replica=evolve(own.replica, complete=True))
        return super()._passive(seen, own, now)


class Deaf(Pair):
    """Counts a beat from when it returned."""

    def acknowledged(self, sent_at):
        super().acknowledged(sent_at + 5)


class Trusting(Pair):
    """Takes a start for an acknowledgement."""

    def __init__(self, settings, now):
        super().__init__(settings, now)
        self._acknowledged_at = now


@pytest.mark.parametrize("bug", [TooEager, ThrowsAway, Forgetful, Deaf, Trusting])
def test_a_planted_bug_is_caught(bug):
    def all_seeds():
        for seed in range(300):
            drive(seed, machine=bug)
            play(seed, machine=bug)

    with pytest.raises(AssertionError):
        all_seeds()
