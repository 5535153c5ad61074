"""How frames get from a node of one ring to a node of the other (ring/join.py): both rings name their nodes alike."""

import pytest

from protocols.peer.frames import (
    Bound,
    Claimed,
    Envelope,
    EnvelopeKey,
    Finished,
    Forgotten,
    Forward,
    HandOver,
    Joined,
    LapDone,
    Relayed,
    encode_frame,
)
from ring import peer_table
from ring.join import Join, check_gates
from ring.peer_url import PeerUrl

KEY = EnvelopeKey(b"store-id", 7)
GATES = ("north/gw1", "north/gw2", "south/gw1", "south/gw2")
FORGOTTEN = Forgotten(KEY)
FAR = {"south/gw1": 2, "south/gw2": 2}


def envelope(origin="gw3", kind="dlr"):
    return Envelope(KEY, origin, "acme", kind, b"m1", b"", b"pdu", "t1", True)


def forward(origin="gw3", kind="dlr"):
    return Forward(envelope(origin, kind), lap=1, hop=1, visited=(), inexact=False, age_s=0.0)


class Node:
    """A join, and what it has done."""

    def __init__(self, name="gw1", near=("gw1", "gw2", "gw3"), far=()):
        self.sent, self.crossed, self.received = [], [], []
        self.full = set()
        self.join = Join(
            cluster="north",
            me=name,
            gates=GATES,
            nodes=("gw1", "gw2", "gw3"),
            send=lambda to, frame: self._note(self.sent, to, frame),
            send_across=lambda to, frame: self._note(self.crossed, to, frame),
            receive=lambda sender, frame: self.received.append((sender, frame)),
        )
        self.join.near(frozenset(near) - {name})
        self.join.linked(dict.fromkeys(far, 2))
        self.sent.clear()
        self.crossed.clear()

    def _note(self, where, to, frame):
        if to in self.full:
            return False
        where.append((to, frame))
        return True


def relayed(to, sender, frame=FORGOTTEN):
    return Relayed(to, sender, encode_frame(frame))


def test_a_gate_sends_across_to_the_very_node_if_that_is_a_gate_else_to_any():
    gate = Node(far=FAR)
    assert gate.join.send("south/gw2", FORGOTTEN)
    assert gate.join.send("south/gw7", FORGOTTEN)
    assert gate.crossed == [
        ("south/gw2", relayed("south/gw2", "north/gw1")),
        ("south/gw1", relayed("south/gw7", "north/gw1")),
    ]


def test_another_gate_is_taken_where_one_has_no_room():
    gate = Node(far=FAR)
    gate.full = {"south/gw1"}
    assert gate.join.send("south/gw7", FORGOTTEN)
    assert [to for to, _ in gate.crossed] == ["south/gw2"]


def test_a_node_that_is_no_gate_sends_by_one_that_reaches_the_very_node():
    node = Node("gw3")
    assert not node.join.send("south/gw2", FORGOTTEN)
    node.join.heard("gw1", Joined(("south/gw1",)))
    node.join.heard("gw2", Joined(("south/gw2",)))
    assert node.join.reachable(2) == FAR
    assert node.join.send("south/gw2", FORGOTTEN)
    assert node.sent == [("gw2", relayed("south/gw2", "north/gw3"))]
    assert node.join.counts == {"no_way": 1}


def test_a_gate_whose_own_links_are_down_sends_by_another():
    gate = Node("gw1")
    gate.join.heard("gw2", Joined(("south/gw1",)))
    assert gate.join.send("south/gw7", FORGOTTEN)
    assert [to for to, _ in gate.sent] == ["gw2"]


def test_what_a_gate_has_said_counts_while_it_can_be_reached_and_again_after_a_silence():
    node = Node("gw3")
    node.join.heard("gw1", Joined(("south/gw1",)))
    node.join.near(frozenset({"gw2"}))
    assert not node.join.reachable(2)
    assert not node.join.send("south/gw1", FORGOTTEN)
    node.join.near(frozenset({"gw1", "gw2"}))
    assert node.join.reachable(2) == {"south/gw1": 2}
    node.join.heard("gw1", Joined(()))
    assert not node.join.reachable(2)


def test_only_gates_are_believed_and_only_of_gates():
    node = Node("gw3", near=("gw1", "gw4"))
    node.join.heard("gw4", Joined(("south/gw1",)))
    node.join.heard("gw1", Joined(("south/gw9", "north/gw1")))
    assert not node.join.reachable(2)


def test_a_gate_tells_each_node_of_its_ring_what_it_reaches_also_one_that_had_no_room_or_lost_the_word():
    gate = Node(far=())
    gate.full = {"gw3"}
    gate.join.linked({"south/gw1": 2})
    assert gate.sent == [("gw2", Joined(("south/gw1",)))]
    gate.full.clear()
    gate.join.tell()
    assert gate.sent[1:] == [("gw2", Joined(("south/gw1",))), ("gw3", Joined(("south/gw1",)))]
    gate.join.near(frozenset({"gw2", "gw3", "gw4"}))
    assert gate.sent[3:] == [("gw4", Joined(("south/gw1",)))]


def test_what_a_gate_says_again_is_no_news():
    node = Node("gw3", near=("gw1",))
    assert node.join.heard("gw1", Joined(("south/gw1",)))
    assert not node.join.heard("gw1", Joined(("south/gw1",)))
    assert node.join.heard("gw1", Joined(()))
    assert not node.join.heard("gw4", Joined(("south/gw1",)))


def test_a_node_that_is_no_gate_tells_nothing():
    node = Node("gw3")
    node.join.near(frozenset({"gw1", "gw2", "gw4"}))
    node.join.retopologize(("gw1", "gw3"))
    assert not node.sent
    assert not node.crossed


def table(*nodes, gates=()):
    return Joined(gates, nodes)


def test_a_gate_tells_the_other_ring_which_nodes_its_own_has_on_each_link_and_when_they_change():
    gate = Node()
    gate.join.linked({"south/gw1": 2})
    assert gate.crossed == [("south/gw1", table("north/gw1", "north/gw2", "north/gw3"))]
    gate.join.retopologize(("gw1", "gw2"))
    assert gate.crossed[1:] == [("south/gw1", table("north/gw1", "north/gw2"))]


def test_what_a_gate_hears_of_the_table_of_the_other_ring_its_own_ring_hears_at_once():
    gate = Node(far=("south/gw1",))
    assert gate.join.heard_across("south/gw1", table("south/gw1", "south/gw7", "north/gw9"))
    assert gate.join.far_nodes() == {"south/gw1", "south/gw7"}
    assert gate.sent == [(to, table("south/gw1", "south/gw7", gates=("south/gw1",))) for to in ("gw2", "gw3")]
    assert not gate.join.heard_across("south/gw1", table("south/gw1", "south/gw7"))
    assert len(gate.sent) == 2
    node = Node("gw3")
    assert node.join.heard("gw1", gate.sent[0][1])
    assert node.join.far_nodes() == {"south/gw1", "south/gw7"}


def test_a_node_over_there_counts_while_any_gate_that_can_be_reached_has_it_in_its_table():
    gate = Node(far=FAR)
    gate.join.heard_across("south/gw1", table("south/gw1"))
    gate.join.heard_across("south/gw2", table("south/gw1", "south/gw2"))
    assert gate.join.far_nodes() == {"south/gw1", "south/gw2"}
    gate.join.linked({"south/gw1": 2})
    assert gate.join.far_nodes() == {"south/gw1"}
    gate.join.linked({})
    assert gate.join.far_nodes() == {"south/gw1"}  # what was last known


def test_two_gates_do_not_go_by_each_others_word_of_a_table_that_is_over():
    gates = {"gw1": Node("gw1", far=("south/gw1",)), "gw2": Node("gw2", far=("south/gw2",))}
    for last in (("south/gw7",), ()):
        for name, gate in gates.items():
            far = name.replace("gw", "south/gw")
            gate.join.heard_across(far, table("south/gw1", "south/gw2", *last))
        for _ in range(2):
            for name, gate in gates.items():
                gate.join.tell()
                for to, frame in gate.sent:
                    if to in gates:
                        gates[to].join.heard(name, frame)
                gate.sent.clear()
    assert gates["gw1"].join.far_nodes() == gates["gw2"].join.far_nodes() == {"south/gw1", "south/gw2"}


def test_a_gate_passes_on_for_a_node_of_its_ring_but_never_to_another_gate_of_its_own():
    gate = Node(far=FAR)
    gate.join.from_near("gw3", relayed("south/gw7", "north/gw3"))
    assert [to for to, _ in gate.crossed] == ["south/gw1"]
    gate.join.linked({})
    gate.join.heard("gw2", Joined(("south/gw1",)))
    gate.sent.clear()
    gate.join.from_near("gw3", relayed("south/gw7", "north/gw3"))
    assert not gate.sent
    assert gate.join.counts["no_way"] == 1


def test_what_comes_across_goes_to_its_node_and_never_back():
    gate = Node(far=FAR)
    gate.join.from_across(relayed("north/gw3", "south/gw1"))
    assert gate.sent == [("gw3", relayed("north/gw3", "south/gw1"))]
    gate.join.from_across(relayed("south/gw2", "south/gw1"))
    gate.join.from_across(relayed("north/gw9", "south/gw1"))
    assert len(gate.sent) == 1
    assert not gate.crossed
    assert gate.join.counts == {"refused": 1, "no_way": 1}


@pytest.mark.parametrize(
    ("to", "sender"),
    [
        ("south/gw7", "north/gw2"),  # not the node that it comes from
        ("south/gw7", "south/gw3"),
        ("east/gw1", "north/gw3"),  # no ring that is joined
        ("north/gw2", "south/gw1"),  # for another node
        ("north/gw1", "north/gw3"),  # never left the ring
        ("gw1", "gw3"),
    ],
)
def test_what_is_not_as_it_says_goes_nowhere(to, sender):
    gate = Node(far=FAR)
    gate.join.from_near("gw3", relayed(to, sender))
    assert gate.sent == gate.crossed == gate.received == []
    assert gate.join.counts == {"refused": 1}


def test_custody_sees_the_other_ring_by_its_clusters_name():
    node = Node("gw3")
    sender = "south/gw3"  # as this node is called in its own ring
    for frame in (forward(), Claimed(KEY, "gw3", 1, 1), Finished(KEY, "gw3"), LapDone(KEY, 1, ("gw3",)), FORGOTTEN):
        node.join.from_near("gw1", relayed("north/gw3", sender, frame))
    assert node.received == [
        (sender, forward(origin=sender)),
        (sender, Claimed(KEY, sender, 1, 1)),
        (sender, Finished(KEY, sender)),
        (sender, LapDone(KEY, 1, ("gw3",))),
        (sender, FORGOTTEN),
    ]


@pytest.mark.parametrize(
    "frame",
    [
        forward(origin="gw4"),  # of another origin than its sender
        forward(origin="north/gw3"),  # it would cross a second time
        forward(kind="mo"),
        Claimed(KEY, "gw4", 1, 1),
        Claimed(KEY, "gw3", 1, 1, line=(KEY,)),  # an heir's
        Finished(KEY, "gw4"),
        HandOver((envelope(),), (0.0,)),
        Bound("acme", ("gw",)),
        relayed("north/gw3", "south/gw3"),
    ],
)
def test_custody_sees_nothing_that_no_ring_sends_across(frame):
    node = Node("gw3")
    node.join.from_near("gw1", relayed("north/gw3", "south/gw3", frame))
    assert not node.received
    assert node.join.counts == {"refused": 1}


def test_bytes_that_are_no_frame_are_refused():
    node = Node("gw3")
    node.join.from_near("gw1", Relayed("north/gw3", "south/gw3", b"\x92\x7e\x00"))
    assert not node.received
    assert node.join.counts == {"refused": 1}


def test_what_does_not_cross_is_not_sent():
    gate = Node(far=FAR)
    assert not gate.join.send("south/gw1", Bound("acme", ("gw",)))
    assert not gate.join.send("east/gw1", FORGOTTEN)
    assert not gate.crossed


@pytest.mark.parametrize(
    ("gates", "text"),
    [
        (("north/gw1", "gw2"), 'gw2 must be named "cluster/node"'),
        (("south/gw1",), "no gate is of this ring (north); gates of both rings stand in the table"),
        (("north/gw1",), "gates of one other ring are wanted, not none"),
        (("north/gw1", "south/gw1", "east/gw1"), "gates of one other ring are wanted, not east, south"),
    ],
)
def test_a_table_that_joins_no_two_rings(gates, text):
    with pytest.raises(ValueError, match=r".") as error:
        check_gates("north", gates)
    assert str(error.value) == text


def test_a_gate_goes_by_its_nodes_name_in_its_certificate():
    names = peer_table.certificate_names({"south/GW1": PeerUrl.parse("wss://10.0.0.1:7302")})
    assert names == {"south/GW1": {"gw1", "10.0.0.1"}}
