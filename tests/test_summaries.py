"""Summaries between nodes: machines joined by wires that keep order, or lose, repeat and disorder what they carry."""

import random
from collections import deque
from itertools import pairwise

import pytest

from protocols.peer.frames import VERSION, SummaryPart, SummaryWanted
from protocols.smpp.message_ids import normal
from ring.summaries import Summaries
from ring.summary import hash_of
from ring.summary_telling import TELL_S, WHOLE_PER_S
from ring.topology import Topology


class Nodes:
    """Named n0, n1, ...; time passes in ticks, and after each one what was said arrives."""

    def __init__(self, size=2, memory_mb=16):
        self.names = [f"n{number}" for number in range(size)]
        self.memory_mb = memory_mb
        self.now = 100.0
        self.wires: dict[tuple[str, str], deque] = {}
        self.sent: list[tuple[str, str, SummaryPart | SummaryWanted]] = []
        self.broken = frozenset()
        self.versions = dict.fromkeys(self.names, VERSION)
        self.machines = {}
        for name in self.names:
            self.machines[name] = self.new(name)
        self.link()

    def new(self, name):
        return Summaries(Topology(self.names, name), self.memory_mb)

    def __getitem__(self, name):
        return self.machines[name]

    def link(self):
        for name, machine in self.machines.items():
            others = {other: self.versions[other] for other in self.names if other != name}
            for pair in self.broken:
                if name in pair:
                    others.pop(next(iter(pair - {name})), None)
            machine.reachable(others, self.now)

    def cut(self, one, other):
        self.broken = frozenset({*self.broken, frozenset((one, other))})
        for wire in ((one, other), (other, one)):
            self.wires.pop(wire, None)
        self.link()

    def heal(self):
        self.broken = frozenset()
        self.link()

    def restart(self, name):
        """Another process: it knows nothing any more."""
        for other in self.names:
            if other != name:
                self.cut(name, other)
        self.machines[name] = self.new(name)
        self.heal()

    def tick(self, count=1):
        for _ in range(count):
            self.now += TELL_S
            self.speak()
            self.listen()

    def speak(self):
        for name, machine in self.machines.items():
            for send in machine.tick(self.now):
                if frozenset((name, send.to)) not in self.broken:
                    self.sent.append((name, send.to, send.frame))
                    self.wires.setdefault((name, send.to), deque()).append(send.frame)

    def listen(self):
        for (sender, to), frames in list(self.wires.items()):
            while frames:
                self.machines[to].frame(sender, frames.popleft(), self.now)

    def owner(self, message_id, at="n0"):
        return self.machines[at].likely("acme", message_id, [name for name in self.names if name != at])

    def parts(self, sender="n1", to="n0"):
        return [frame for one, other, frame in self.sent if (one, other) == (sender, to) and hasattr(frame, "number")]


def open_many(machine, count, prefix=b"z"):
    ids = [b"%b-%d" % (prefix, number) for number in range(count)]
    for message_id in ids:
        machine.opened("acme", message_id)
    return ids


def test_a_message_is_known_elsewhere_a_tick_after_it_is_opened_and_no_more_when_it_is_closed():
    nodes = Nodes(3)
    nodes.tick()
    nodes["n2"].opened("acme", b"1f")
    assert nodes.owner(b"1f") is None
    nodes.tick()
    assert nodes.owner(b"1f") == nodes.owner(b"1f", at="n1") == "n2"
    assert nodes["n0"].likely("best", b"1f", ["n1", "n2"]) is None
    assert nodes["n0"].likely("acme", b"1f", ["n1"]) is None
    nodes["n2"].closed("acme", b"1f")
    nodes.tick()
    assert nodes.owner(b"1f") is None


@pytest.mark.parametrize(
    ("response", "reported"), [(b"0A1B", b"a1b"), (b"ff", b"255"), (b"255", b"FF"), (b"007", b"7")]
)
def test_an_id_is_known_in_every_form_that_operators_use(response, reported):
    nodes = Nodes()
    nodes["n1"].opened("acme", response)
    nodes.tick(2)
    assert nodes.owner(reported) == "n1"


def test_the_likelier_form_counts_before_the_order_of_the_nodes():
    nodes = Nodes(3)
    nodes["n1"].opened("acme", b"100")  # reported 256 would be its hexadecimal number in decimal
    nodes["n2"].opened("acme", b"256")
    nodes.tick(2)
    assert nodes.owner(b"256") == "n2"


def test_what_is_opened_and_closed_within_a_tick_is_not_sent():
    nodes = Nodes()
    nodes.tick(2)
    said = len(nodes.parts())
    for message_id in open_many(nodes["n1"], 100):
        nodes["n1"].closed("acme", message_id)
    nodes.tick(2)
    assert len(nodes.parts()) == said
    assert nodes["n1"].own == nodes["n1"].behind == 0


def test_the_last_word_of_a_tick_counts():
    nodes = Nodes()
    nodes["n1"].opened("acme", b"1")
    nodes.tick(2)
    nodes["n1"].closed("acme", b"1")
    nodes["n1"].opened("acme", b"1")
    nodes.tick()
    assert nodes.owner(b"1") == "n1"
    nodes["n1"].closed("acme", b"1")
    nodes.tick()
    assert nodes.owner(b"1") is None


def test_a_node_that_joins_is_told_everything_at_a_bounded_rate_and_what_is_new_at_once():
    nodes = Nodes()
    nodes.cut("n0", "n1")
    old = open_many(nodes["n1"], 45_000)
    nodes.tick(2)
    nodes.heal()
    nodes.tick(2)
    assert not nodes["n0"].known()["n1"].current
    new = open_many(nodes["n1"], 100, b"new")
    nodes.tick()
    assert all(nodes.owner(message_id) == "n1" for message_id in new)
    assert not nodes["n0"].known()["n1"].current
    for message_id in old[:1000] + new[:50]:
        nodes["n1"].closed("acme", message_id)
    nodes.tick(4)
    known = nodes["n0"].known()["n1"]
    assert known.current
    assert nodes["n1"].known()["n0"].told
    assert known.messages == nodes["n1"].own == 44_050
    assert known.bytes_used < 2 * known.messages
    assert all(nodes.owner(message_id) == "n1" for message_id in old[1000:2000] + new[50:])
    assert sum(nodes.owner(message_id) is not None for message_id in old[:1000]) < 20
    most = WHOLE_PER_S * TELL_S + 128  # a page more
    assert max(len(part.opened) / 4 for part in nodes.parts()) <= most + 100


def test_a_stream_begins_anew_when_the_pages_suit_the_count_no_more_and_nothing_is_unknown_meanwhile():
    nodes = Nodes()
    nodes.tick(2)
    ids = []
    for step in range(60):
        ids += open_many(nodes["n1"], 1000, b"%d" % step)
        nodes.tick()
        asked = ids[-1000::10] + ids[:1000:10]
        assert sum(nodes.owner(message_id) != "n1" for message_id in asked) <= 1  # a bucket may be full
    nodes.tick(20)
    known = nodes["n0"].known()["n1"]
    assert known.messages > 59_950
    assert known.bytes_used / known.messages < 2.0
    assert len({part.stream for part in nodes.parts()}) <= 22
    for message_id in ids[500:]:
        nodes["n1"].closed("acme", message_id)
    nodes.tick(40)
    assert 499 <= nodes["n0"].known()["n1"].messages <= 500
    assert nodes["n0"].known()["n1"].bytes_used < 1500
    assert all(nodes.owner(message_id) == "n1" for message_id in ids[:500])


def test_a_lost_frame_is_missed_and_the_whole_is_asked_for_again():
    nodes = Nodes()
    nodes.tick(20)
    nodes["n1"].opened("acme", b"lost")
    nodes.now += TELL_S
    nodes.speak()
    nodes.wires.clear()
    nodes.tick(10)
    assert nodes.owner(b"lost") is None  # nobody can know, for nothing else has been said
    nodes.tick(60)
    assert nodes.owner(b"lost") == "n1"
    assert nodes["n0"].known()["n1"].current


def test_a_node_that_does_not_answer_is_asked_again_ever_more_seldom():
    nodes = Nodes()
    nodes.wires.clear()
    asked = []
    for _ in range(3000):
        nodes.now += TELL_S
        nodes.speak()
        nodes.wires.clear()
        asked += [nodes.now for one, _, frame in nodes.sent if one == "n0" and isinstance(frame, SummaryWanted)]
        nodes.sent.clear()
    gaps = [round(later - earlier) for earlier, later in pairwise(asked)]
    assert gaps[:5] == [5, 10, 20, 40, 60]
    assert set(gaps[5:]) == {60}
    nodes["n1"].opened("acme", b"1")
    nodes.tick(700)
    assert nodes.owner(b"1") == "n1"


def test_a_node_that_comes_back_is_known_by_its_earlier_summary_until_the_new_one_is_there():
    nodes = Nodes()
    ids = open_many(nodes["n1"], 30_000)
    nodes.tick(20)
    nodes.restart("n1")
    assert nodes.owner(ids[0]) == "n1"
    for message_id in ids[1000:]:  # what its store still holds, after the first thousand have been closed
        nodes["n1"].opened("acme", message_id)
    nodes.tick()
    assert all(nodes.owner(message_id) == "n1" for message_id in ids[1000::100])
    nodes.tick(40)
    assert nodes["n0"].known()["n1"].current
    assert nodes["n0"].known()["n1"].messages == 29_000


def test_a_cut_link_is_asked_anew_when_it_is_whole():
    nodes = Nodes()
    nodes["n1"].opened("acme", b"1")
    nodes.tick(2)
    nodes.cut("n0", "n1")
    nodes["n1"].closed("acme", b"1")
    nodes["n1"].opened("acme", b"2")
    nodes.tick(3)
    assert not nodes["n0"].known()["n1"].current
    nodes.heal()
    nodes.tick(20)
    assert (nodes.owner(b"1"), nodes.owner(b"2")) == (None, "n1")


def test_a_node_of_version_1_is_not_asked():
    nodes = Nodes()
    nodes.versions["n1"] = 1
    nodes.link()
    nodes.sent.clear()
    nodes.tick(100)
    assert not [frame for one, _, frame in nodes.sent if one == "n0" and isinstance(frame, SummaryWanted)]


def test_a_node_that_is_configured_no_more_is_forgotten():
    nodes = Nodes(3)
    nodes["n2"].opened("acme", b"1")
    nodes.tick(2)
    nodes["n0"].retopologize(Topology(["n0", "n1"], "n0"))
    nodes["n0"].frame("n2", SummaryPart(1, 0, 1, True, b"1234"), nodes.now)
    assert list(nodes["n0"].known()) == ["n1"]
    assert nodes["n0"].likely("acme", b"1", ["n1", "n2"]) is None


def test_memory_is_bounded_and_what_finds_no_room_is_counted():
    nodes = Nodes(memory_mb=1)
    open_many(nodes["n1"], 100_000)
    nodes.tick(40)
    own = nodes["n1"].own
    assert own == int(1024 * 1024 / 4 / 5.5)
    assert nodes["n1"].left_out == pytest.approx(100_000 - own, abs=5)  # two ids may have one hash
    assert nodes["n1"].own_bytes <= 1024 * 1024 / 4
    # A node with less memory than that, for more than it can take.
    small = nodes.machines["n0"] = Summaries(Topology(nodes.names, "n0"), 0)
    small.reachable({"n1": VERSION}, nodes.now)
    nodes.tick(40)
    assert small.known()["n1"].messages == 0
    assert small.left_out == own


def test_a_frame_that_is_no_list_of_hashes_is_not_taken_and_the_whole_asked_for():
    nodes = Nodes()
    nodes["n1"].opened("acme", b"1")
    nodes.tick(20)
    part = nodes.parts()[-1]
    nodes["n0"].frame("n1", SummaryPart(part.stream, part.number + 1, 1, True, b"12345"), nodes.now)
    assert not nodes["n0"].known()["n1"].current
    nodes.tick(20)
    assert nodes["n0"].known()["n1"].current
    assert nodes.owner(b"1") == "n1"


@pytest.mark.parametrize("seed", range(20))
def test_in_the_end_everything_open_is_known_whatever_happened_to_frames_links_and_processes(seed):
    source = random.Random(seed)
    nodes = Nodes(3)
    opened = {name: set() for name in nodes.names}
    for _ in range(150):
        for name in nodes.names:
            for _ in range(source.choice((0, 3, 40))):
                message_id = b"%x" % source.getrandbits(48)
                opened[name].add(message_id)
                nodes[name].opened("acme", message_id)
            for message_id in source.sample(sorted(opened[name]), k=len(opened[name]) // 10):
                opened[name].discard(message_id)
                nodes[name].closed("acme", message_id)
        nodes.now += TELL_S
        nodes.speak()
        disturb(nodes, opened, source)
        nodes.listen()
    nodes.heal()
    nodes.tick(100)
    for at in nodes.names:
        known = nodes[at].known()
        for name in nodes.names:
            if name != at:
                assert known[name].current
                assert known[name].messages == len({hash_of("acme", normal(each)) for each in opened[name]})
                assert all(nodes[at].likely("acme", each, [name]) == name for each in opened[name])


def disturb(nodes, opened, source):
    """Lose, repeat and disorder frames; cut and heal links; restart a node now and then."""
    for wire, frames in nodes.wires.items():
        if source.random() < 0.05 and frames:
            frames.popleft()
        if source.random() < 0.05 and frames:
            frames.append(frames[0])
        if source.random() < 0.05:
            shuffled = list(frames)
            source.shuffle(shuffled)
            nodes.wires[wire] = deque(shuffled)
    if source.random() < 0.03:
        nodes.cut(*source.sample(nodes.names, 2))
    if source.random() < 0.1 and nodes.broken:
        nodes.heal()
    if source.random() < 0.02:
        name = source.choice(nodes.names)
        nodes.restart(name)
        for message_id in opened[name]:
            nodes[name].opened("acme", message_id)
