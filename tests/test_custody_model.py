"""The custody machine of a whole ring as a stateful model: hypothesis chooses every step.

Invariants after each step: an envelope travels at most N - 1 hops a lap (asserted where frames are sent, in
`custody_world`), and what was answered ESME_ROK is on some disk until a gateway has answered for it. At the end, when
everybody is back: delivered to its owner, or parked exactly once, and in no custody any more.
"""

import pytest
from custody_world import World
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from protocols.smpp.constants import ESME_ROK, ESME_RSYSERR

NODES = st.integers(0, 4)


class Ring(RuleBasedStateMachine):
    messages = Bundle("messages")  # (message id, owner's name) of open messages that have no report yet

    @initialize(size=st.integers(2, 5), summaries=st.booleans())
    def build(self, size: int, summaries: bool) -> None:
        self.world = World(size, summaries=summaries)
        self.count = 0

    def node(self, number: int) -> str:
        return self.world.names[number % len(self.world.names)]

    def up(self, number: int) -> bool:
        return self.world.nodes[self.node(number)].machine is not None

    @rule(target=messages, owner=NODES)
    def submit(self, owner: int):
        if not self.up(owner):
            return multiple()
        self.count += 1
        message_id = b"id%d" % self.count
        self.world.submit(self.node(owner), message_id)
        return message_id, self.node(owner)

    @rule(message=consumes(messages), at=NODES, intermediate=st.booleans())
    def report(self, message, at: int, intermediate: bool) -> None:
        message_id, owner = message
        if not self.up(at):
            return
        if intermediate:
            self.world.report(self.node(at), message_id, f"{message_id.decode()}-1", owner, final=False)
        self.world.report(self.node(at), message_id, f"{message_id.decode()}-2", owner)

    @rule(at=NODES)
    def ownerless_report(self, at: int) -> None:
        if self.up(at):
            self.count += 1
            self.world.report(self.node(at), b"nobody%d" % self.count, f"nobody{self.count}", owner="")

    @rule(steps=st.lists(st.integers(0, 1000), min_size=1, max_size=40))
    def carry_on(self, steps: list[int]) -> None:
        for step in steps:
            if choices := self.world.busy_steps():
                choices[step % len(choices)]()

    @rule(at=NODES, status=st.sampled_from([ESME_ROK, ESME_RSYSERR]))
    def answer(self, at: int, status: int) -> None:
        if self.world.nodes[self.node(at)].at_gateway:
            self.world.answer(self.node(at), status)

    @rule(at=NODES)
    def crash_or_start(self, at: int) -> None:
        if self.up(at):
            self.world.crash(self.node(at))
        else:
            self.world.start(self.node(at))

    @rule(at=NODES)
    def leave(self, at: int) -> None:
        """It hands on what it can; it goes when it crashes."""
        self.world.leave(self.node(at))

    @rule(one=NODES, other=NODES, cut=st.booleans())
    def change_link(self, one: int, other: int, cut: bool) -> None:
        if self.node(one) == self.node(other):
            return
        if cut:
            self.world.cut_link(self.node(one), self.node(other))
        else:
            self.world.heal_link(self.node(one), self.node(other))

    @rule(at=NODES, up=st.booleans())
    def change_gateway(self, at: int, up: bool) -> None:
        self.world.set_gateway(self.node(at), up)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def nothing_acknowledged_is_forgotten(self) -> None:
        answered = {delivery.trace for delivery in self.world.delivered if delivery.answered}
        for trace in self.world.accepted:
            done = trace in answered or trace in self.world.superseded
            assert done or self.world.custodies(trace), f"{trace} is on no disk"

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.recover()
            self.world.check()


Ring.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestRing = pytest.mark.timeout(300)(Ring.TestCase)
