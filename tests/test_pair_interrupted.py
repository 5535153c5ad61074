"""Each transition of a pair, stopped after each of its steps in turn: never two active, none on a read-only server.

A step is one command of the role machine, or one of the three changes that a promotion makes at the database server.
After it the node dies, alone or with its database server, and starts again some time later.
"""

import pytest
from attrs import evolve
from pair_world import SETTINGS, World
from test_replication_machine import tick

from dlrproxy.modes import pair as p
from dlrproxy.modes.pair import Role
from dlrproxy.modes.replication import Pair

PROMOTION_STEPS = 3
MOST_STEPS = 60  # far more than any of the transitions takes


class Interrupted(World):
    """Ends the node that makes step number `stop`; 0: none. Starts it again `down_s` later."""

    def __init__(self, stop, *, server_too=False, down_s=1.0, **settings):
        self.stop = stop
        self.server_too = server_too
        self.down_s = down_s
        self.steps = 0
        self.counting = False
        self.victim = None
        self.back_at = float("inf")
        super().__init__(**settings)
        settle(self, 30.0)
        self.counting = True

    def reached(self, node):
        """One more step is done. True: it is the one to stop after."""
        if self.counting and self.victim is None:
            self.steps += 1
            if self.steps == self.stop:
                self.victim = node
        return self.victim is node

    def promotion_steps(self, node):
        return next(
            (done for done in range(1, PROMOTION_STEPS + 1) if self.victim is None and self.reached(node)),
            PROMOTION_STEPS,
        )

    def carry_out(self, node):
        if node.machine is None or node.frozen or not node.todo:
            return False
        counted_inside = isinstance(node.todo[0], p.BecomePrimary)
        super().carry_out(node)
        if not counted_inside and self.victim is None:
            self.reached(node)
        if self.victim is node and self.back_at == float("inf"):
            self.note("stopped", node.name, "after step", self.steps)
            self.kill(node)
            if self.server_too:
                node.server.kill()
            self.back_at = self.now + self.down_s
        return node.machine is not None

    def advance(self, seconds):
        super().advance(seconds)
        if self.victim is not None and self.back_at <= self.now < float("inf"):
            self.back_at = float("-inf")
            if not self.victim.server.up:
                self.victim.server.start(self.now)
            if self.victim.machine is None:
                self.start(self.victim)


def settle(world, seconds):
    for _ in range(int(seconds / 0.25)):
        tick(world)
        world.check_nothing_lost()


def ask(world, name, what):
    """As keepalived does, which remembers over a restart of the node."""
    node = world.nodes[name]
    node.asked = what
    if node.machine is not None:
        getattr(node.machine, what)()


# --- transitions


def fail_over(world):
    """The active dies with its server; the standby takes over."""
    world.kill(world.nodes["a"])
    world.servers["a"].kill()
    ask(world, "b", "promote")
    settle(world, 40)


def come_back(world):
    """And then the old active becomes its standby."""
    fail_over(world)
    world.servers["a"].start(world.now)
    world.start(world.nodes["a"])
    settle(world, 10)
    world.rejoin("a")
    settle(world, 20)


def cut(world):
    """The link is cut, the standby takes over, the link heals."""
    world.linked = False
    ask(world, "b", "promote")
    settle(world, 40)
    world.linked = True
    settle(world, 20)


def short_cut(world):
    """The link is cut for longer than the active may serve, and heals before anybody takes over."""
    world.linked = False
    settle(world, 8)
    world.linked = True
    settle(world, 20)


def switch(world):
    """By plan: one hands over, the other takes over."""
    ask(world, "a", "demote")
    ask(world, "b", "promote")
    settle(world, 30)


def switch_and_back(world):
    switch(world)
    world.rejoin("a")
    settle(world, 20)
    ask(world, "b", "demote")
    ask(world, "a", "promote")
    settle(world, 30)


def take_back(world):
    """Handed over, and taken back before anybody took over."""
    ask(world, "a", "demote")
    settle(world, 2)
    ask(world, "a", "promote")
    settle(world, 30)


def restart(world):
    world.kill(world.nodes["a"])
    settle(world, 2)
    world.start(world.nodes["a"])
    settle(world, 20)


def lose_and_regain_the_standby(world):
    """The active goes on alone where a witness lends itself, and waits for its replica again when that is back."""
    world.kill(world.nodes["b"])
    world.servers["b"].kill()
    settle(world, 40)
    world.servers["b"].start(world.now)
    world.start(world.nodes["b"])
    settle(world, 30)


TRANSITIONS = [
    fail_over, come_back, cut, short_cut, switch, switch_and_back, take_back, restart, lose_and_regain_the_standby,
]  # fmt: skip


def active(world):
    return [node.name for node in world.nodes.values() if node.machine is not None and node.machine.role is Role.ACTIVE]


@pytest.mark.parametrize("witness", [False, True], ids=["without a witness", "with a witness"])
@pytest.mark.parametrize("server_too", [False, True], ids=["the node", "the node and its server"])
@pytest.mark.parametrize("transition", TRANSITIONS)
def test_a_transition_that_is_stopped_after_any_of_its_steps_keeps_to_one_active_node(transition, server_too, witness):
    stops = 0
    for down_s in (1.0, 12.0):  # shorter and longer than the peer waits
        for stop in range(1, MOST_STEPS):
            world = Interrupted(stop, server_too=server_too, down_s=down_s, settings=evolve(SETTINGS, witness=witness))
            transition(world)
            settle(world, 60)
            if world.victim is None:
                break
            stops += 1
            assert len(active(world)) <= 1, world.story()
            assert active(world) or lost_its_relay_log(world), world.story()
    assert stops
    assert world.victim is None, "it takes more steps than are stopped after"


def lost_its_relay_log(world):
    """Its server died in the promotion, and the other one is dead for good: a person must decide."""
    return not world.servers["a"].up and "threw away what it had received" in world.nodes["b"].machine.refused


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_uninterrupted_each_transition_ends_with_one_active_node(transition):
    world = Interrupted(0)
    transition(world)
    assert active(world) == ["b" if transition in {fail_over, come_back, cut, switch} else "a"]


@pytest.mark.parametrize("down_s", [1.0, 12.0])
def test_a_stop_in_the_middle_of_a_promotion_is_gone_on_with(down_s):
    """Nothing is asked again: the row that is written says that it has begun."""
    finished = []
    for stop in range(1, MOST_STEPS):
        world = Interrupted(stop, down_s=down_s)
        fail_over(world)
        world.nodes["b"].asked = ""
        if world.victim is None:
            break
        settle(world, 30)
        finished.append(active(world))
    assert finished == [["b"]] * len(finished)
    assert len(finished) >= 1 + PROMOTION_STEPS


# --- bugs that are planted must be caught


class ReadOnlyFirst(Pair):
    """Releases what it serves last."""

    def observe(self, seen, now):
        return super().observe(seen, now)[::-1]


class ForgetsThatItBegan(Pair):
    def _begun(self, seen, own):
        return False


@pytest.mark.parametrize(("bug", "transition"), [(ReadOnlyFirst, switch), (ForgetsThatItBegan, fail_over)])
def test_a_planted_bug_is_caught(bug, transition):
    def all_stops():
        for stop in range(1, MOST_STEPS):
            world = Interrupted(stop, machine=bug)
            transition(world)
            world.nodes["b"].asked = ""
            settle(world, 60)
            assert active(world), world.story()

    with pytest.raises(AssertionError):
        all_stops()
