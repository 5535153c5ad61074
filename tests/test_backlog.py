"""What has waited, however much of it, does not hold up what has just come."""

import gc
from collections import Counter

import pytest
from relay_world import World as RelayWorld
from relay_world import deliver_sm_resp, receipt, submit_sm_resp

from dlrproxy.collector import STEP, CustodyCollector, at_rest
from protocols.peer.frames import Envelope, EnvelopeKey, Forward, HandOver, LapDone
from ring.accepting import Offer
from ring.commands import Ask, Deliver, Note, Send, Write
from ring.custody import Custody
from ring.items import State
from ring.pace import BURST, PER_S, Pace
from ring.rows import CustodyRow, Kind
from ring.settings import CustodySettings
from ring.topology import Topology

NOW = 1_000_000.0
MINE = b"store of"
GATEWAY = ("acme", "gw")


class Machine:
    """One node's machine, with a disk that is quick and gateways that answer when they are asked to."""

    def __init__(self, waiting: int = 0, *, gateway: str = "", nodes=("n0", "n1"), **settings) -> None:
        """`waiting` rows of an earlier run: for that gateway, or for an owner that nobody knows."""
        self.now = NOW
        self.custody = Custody(
            topology=Topology(nodes, "n0"), store_id=MINE, run=2, settings=CustodySettings(**settings)
        )
        self.bound = False
        self.delivering = []  # traces with keys
        self.sent = []
        self.done = []
        self.notes = []
        for number in range(waiting):
            trace = f"old{number}"
            envelope = Envelope(
                EnvelopeKey(MINE, number), "n0", "acme", "dlr", trace.encode(), b"4479", b"pdu", trace, True
            )
            self.custody.restore(CustodyRow(Kind.ORIGIN, envelope, NOW - 3600.0, gateway), NOW)
        if waiting:
            self.do(self.custody.resume(NOW))

    def do(self, out):
        todo = list(out)
        while todo:
            more = []
            for command in todo:
                match command:
                    case Write(ticket=ticket):
                        more += self.custody.durable(ticket, self.now)
                    case Ask(envelope=envelope):
                        more += self.custody.asked(envelope.key, None, self.now)
                    case Deliver(envelope=envelope) if self.bound:
                        self.delivering.append((envelope.trace, envelope.key))
                    case Deliver(envelope=envelope):
                        more += self.custody.unsent(envelope.key, self.now)
                    case Send(frame=frame):
                        self.sent.append(frame)
                    case Note():
                        self.notes.append(command)
            todo = more

    def accept(self, trace: str, gateway: str = "") -> None:
        offer = Offer("acme", "dlr", trace.encode(), b"4479", b"pdu", True, trace, gateway, local=bool(gateway))
        key, out = self.custody.accept(offer, self.now)
        assert key is not None
        self.do(out)

    def bind(self) -> None:
        self.bound = True
        self.do(self.custody.gateway_bound(*GATEWAY, self.now))

    def answer(self) -> str:
        """The gateway takes the first that it has; its trace."""
        trace, key = self.delivering.pop(0)
        self.do(self.custody.answered(key, 0, self.now))
        return trace

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.custody.tick(self.now))

    def lap_done(self) -> None:
        """The other node does not own the one that has been with it for longest."""
        frame = next(frame for frame in self.sent if isinstance(frame, Forward) and frame not in self.done)
        self.done.append(frame)
        answer = LapDone(frame.envelope.key, frame.lap, (*frame.visited, "n1"), run=2)
        self.do(self.custody.frame("n1", answer, self.now))

    def waited(self) -> list[Note]:
        return [note for note in self.notes if note.event == "waiting"]

    def forwarded(self) -> list[str]:
        return [frame.envelope.trace for frame in self.sent if isinstance(frame, Forward)]


# To a gateway


def test_a_fresh_report_takes_turns_with_what_has_waited_for_the_gateway():
    machine = Machine(500, gateway="gw")
    machine.bind()
    machine.accept("fresh", "gw")
    window = len(machine.delivering)
    answered = [machine.answer() for _ in range(window + 2)]
    assert "fresh" in answered


def test_what_came_while_the_gateway_was_away_has_waited_too():
    machine = Machine()
    for number in range(100):
        machine.accept(f"old{number}", "gw")
    machine.bind()
    machine.accept("fresh", "gw")
    window = len(machine.delivering)
    assert "fresh" in [machine.answer() for _ in range(window + 2)]


def test_each_of_the_two_goes_in_its_order():
    machine = Machine(40, gateway="gw")
    machine.bind()
    for number in range(40):
        machine.accept(f"new{number}", "gw")
    answered = []
    while machine.delivering:
        answered.append(machine.answer())
    old = [trace for trace in answered if trace.startswith("old")]
    new = [trace for trace in answered if trace.startswith("new")]
    assert old == [f"old{number}" for number in range(40)]
    assert new == [f"new{number}" for number in range(40)]


def test_what_has_waited_goes_at_a_pace():
    machine = Machine(1000, gateway="gw")
    machine.bind()
    while machine.delivering:
        machine.answer()
    left = machine.custody.count().items
    assert 1000 - BURST <= left < 1000
    due = machine.custody.next_due()
    assert due is not None
    assert due <= NOW + 0.1
    seconds = 0.0
    while machine.custody.count().items:
        machine.advance(0.1)
        seconds += 0.1
        while machine.delivering:
            machine.answer()
    assert seconds == pytest.approx(left / PER_S, abs=0.21)


def test_a_fresh_report_does_not_wait_for_the_pace():
    machine = Machine(1000, gateway="gw")
    machine.bind()
    while machine.delivering:
        machine.answer()
    machine.accept("fresh", "gw")
    assert [trace for trace, _ in machine.delivering] == ["fresh"]


def test_a_pace_lets_a_burst_and_then_so_many_a_second():
    pace = Pace()
    assert sum(pace.take(NOW) for _ in range(1000)) == BURST
    assert not pace.take(NOW)
    assert NOW < pace.ready_at() <= NOW + 1.01 / PER_S
    assert sum(pace.take(NOW + 0.01) for _ in range(1000)) == pytest.approx(PER_S * 0.01, abs=1)


def test_who_asks_all_the_time_leaves_some_of_the_pace_to_the_others():
    pace, had, now = Pace(), Counter(), NOW
    while pace.take(now):
        pass
    for millisecond in range(1000):
        now += 0.001
        had["greedy"] += sum(pace.take(now, "greedy") for _ in range(32))
        if millisecond % 100 == 0:
            while pace.take(now, "at its tick"):
                had["at its tick"] += 1
    assert had["at its tick"] >= 9


def test_one_who_has_gone_for_good_takes_nothing_from_the_pace():
    pace = Pace()
    while pace.take(NOW, "gone"):
        pass
    pace.forget("gone")
    assert pace.take(NOW + 1.01 / PER_S)


def test_as_soon_as_it_is_said_to_be_ready_one_may_go():
    """Or a driver that comes exactly then would come again and again."""
    pace, now = Pace(), 1.7e9
    for who in ("one", "two"):
        while pace.take(now, who):
            pass
    for _ in range(1000):
        now = max(now, pace.ready_at("one"))
        assert pace.take(now, "one")
        pace.take(now, "two")


def test_what_no_session_takes_costs_nothing_of_the_pace():
    machine = Machine(40, gateway="gw")
    for _ in range(100):
        machine.do(machine.custody.tick(machine.now))
        machine.do(machine.custody.gateway_bound(*GATEWAY, machine.now))
    machine.bind()
    assert len(machine.delivering) == 32


# Round the ring


def test_a_fresh_report_walks_before_all_that_a_node_has_woken():
    machine = Machine(1000)
    machine.now += 10.0
    machine.do(machine.custody.reachable({"n1": 2}, machine.now))
    first = len(machine.forwarded())
    assert 0 < first <= BURST
    machine.accept("fresh")
    assert "fresh" in machine.forwarded()


def test_a_node_that_joins_wakes_all_in_time():
    machine = Machine(400)
    for _ in range(40):
        machine.advance(0.1)
    assert machine.custody.by_state() == {State.WAITING: 400}
    machine.sent.clear()
    machine.do(machine.custody.reachable({"n1": 2}, machine.now))
    for _ in range(400):
        machine.advance(0.1)
    assert set(machine.forwarded()) == {f"old{number}" for number in range(400)}


def test_laps_of_the_backlog_leave_room_to_walk():
    machine = Machine(1000, max_walking=40)
    machine.now += 10.0
    machine.do(machine.custody.reachable({"n1": 2}, machine.now))
    assert machine.custody.count().walking == 5
    for number in range(35):
        machine.accept(f"fresh{number}")
    assert machine.custody.count().walking == 40


@pytest.mark.parametrize("max_walking", [1, 40])
def test_what_comes_all_the_time_does_not_keep_the_backlog_from_walking(max_walking):
    machine = Machine(12, max_walking=max_walking)
    machine.do(machine.custody.reachable({"n1": 2}, machine.now))
    for number in range(max_walking):
        machine.accept(f"first{number}")
    for number in range(250):
        machine.accept(f"fresh{number}a")
        machine.accept(f"fresh{number}b")
        machine.lap_done()
    assert {f"old{number}" for number in range(12)} <= set(machine.forwarded())


def test_what_has_just_come_tries_again_as_without_a_backlog():
    machine = Machine(3000)
    for _ in range(100):
        machine.advance(0.1)
    machine.accept("fresh")
    for _ in range(300):
        machine.advance(0.1)
    fresh = [dict(note.fields)["wait_s"] for note in machine.waited() if note.envelope.trace == "fresh"]
    assert len(fresh) >= 3
    assert fresh[0] < 6.0


def test_the_more_wait_the_later_each_tries_again():
    machine = Machine(3000)
    for _ in range(100):
        machine.advance(0.1)
    waits = [dict(note.fields)["wait_s"] for note in machine.waited()]
    assert len(waits) >= 3000
    assert max(waits[:10]) < 6.0
    assert waits[2999] >= 10.0


def test_what_waits_is_handed_on_in_steps():
    machine = Machine(1000)
    for _ in range(40):
        machine.advance(0.1)
    machine.do(machine.custody.reachable({"n1": 2}, machine.now))
    machine.do(machine.custody.leave(machine.now))
    offered = [frame for frame in machine.sent if isinstance(frame, HandOver)]
    assert 0 < len(offered) <= 200
    assert machine.custody.handing_on


# Counts


def test_counts_by_state_need_no_look_at_every_item():
    machine = Machine(30, gateway="gw")
    machine.accept("fresh")
    assert machine.custody.by_state() == Counter({State.QUEUED: 30, State.WAITING: 1})
    machine.bind()
    while machine.delivering:
        machine.answer()
    assert machine.custody.by_state() == Counter({State.WAITING: 1})


# On a session


def test_custody_takes_half_of_a_sessions_window_and_no_more():
    world = RelayWorld(gateway_window=4)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    done = []
    sent = [world.deliver("gw1", b"", receipt(1, b"x"), done.append) for _ in range(3)]
    assert sent == [True, True, False]
    session.connection.take()
    world.relay.from_operator(bind, [receipt(8, b"id1")])
    assert len(session.connection.take()) == 1
    assert not world.custody.accepted
    world.relay.from_gateway(session, [deliver_sm_resp(1)])
    assert done == [0]
    assert world.deliver("gw1", b"", receipt(1, b"x"), done.append)


def test_a_window_of_one_is_for_either():
    world = RelayWorld(gateway_window=1)
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    done = []
    assert world.deliver("gw1", b"", receipt(1, b"x"), done.append)
    assert not world.deliver("gw1", b"", receipt(1, b"x"), done.append)
    world.relay.from_operator(bind, [receipt(8, b"id1")])
    assert len(world.custody.accepted) == 1
    world.relay.from_gateway(session, [deliver_sm_resp(1)])
    assert world.deliver("gw1", b"", receipt(1, b"x"), done.append)


def test_the_end_of_a_session_gives_custody_its_share_again():
    world = RelayWorld(gateway_window=2)
    session = world.session()
    done = []
    assert world.deliver("gw1", b"", receipt(1, b"x"), done.append)
    world.relay.lost(session)
    assert done == [None]
    assert session.kept == 0


@pytest.mark.parametrize(("age_s", "written"), [(0.0, False), (3600.0, True)])
def test_a_report_of_long_ago_waits_for_no_response_that_is_outstanding(age_s, written):
    world = RelayWorld(auto_commit=False)
    bind, session = world.bind(), world.session()
    world.submit(session, 1)
    bind.connection.take()
    world.relay.from_operator(bind, [submit_sm_resp(1, b"other")])
    assert world.relay.hand_over.deliver("gw1", b"id1", receipt(1, b"id1"), lambda _: None, age_s=age_s)
    world.relay.wrap_up()
    assert bool(session.connection.take()) is written


# The collector


@pytest.fixture
def thawed():
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("thawed")
def test_the_collector_leaves_what_custody_holds_alone_in_steps():
    collector = CustodyCollector()
    before = gc.get_freeze_count()
    collector.holds(STEP - 1)
    assert gc.get_freeze_count() == before
    collector.holds(STEP)
    frozen = gc.get_freeze_count()
    assert frozen > before
    kept = [[] for _ in range(1000)]
    collector.holds(STEP + 1)
    assert gc.get_freeze_count() <= frozen
    collector.holds(2 * STEP)
    assert gc.get_freeze_count() >= frozen + len(kept)


@pytest.mark.usefixtures("thawed")
def test_what_fills_custody_again_is_left_alone_as_well():
    collector = CustodyCollector()
    collector.holds(10 * STEP)
    collector.holds(0)
    frozen = gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    collector.holds(STEP)
    assert gc.get_freeze_count() >= frozen + len(kept)


@pytest.mark.usefixtures("thawed")
def test_nothing_is_collected_while_custody_is_read():
    with at_rest():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.freeze()
    before = gc.get_freeze_count()
    with at_rest():
        kept = [[] for _ in range(1000)]
    assert gc.get_freeze_count() >= before + len(kept)
