"""ring/topology.py: the order of the ring, and what a walk along it promises."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.topology import Topology

FOUR = ("gw3", "gw1", "gw4", "gw2")  # configured order, not sorted


@pytest.mark.parametrize(
    ("me", "visited", "reachable", "expected"),
    [
        ("gw3", ["gw3"], FOUR, "gw1"),
        ("gw2", ["gw2"], FOUR, "gw3"),  # the last is followed by the first
        ("gw3", ["gw3"], ["gw4", "gw2"], "gw4"),  # an unreachable one is passed over
        ("gw3", ["gw3", "gw1"], FOUR, "gw4"),
        ("gw4", ["gw1", "gw3", "gw4"], FOUR, "gw2"),
        ("gw3", list(FOUR), FOUR, None),  # everybody was asked
        ("gw3", ["gw3"], [], None),  # nobody can be reached
        ("gw3", ["gw3"], ["gw3"], None),  # never itself
        ("gw1", [], ["gw1", "gw4"], "gw4"),  # not even when it has not noted itself
        ("gw3", ["gw3", "gone"], FOUR, "gw1"),  # a node that left the table in the meantime
        ("gw3", ["gw3"], ["gone"], None),
    ],
)
def test_the_successor_is_the_next_reachable_node_not_yet_asked(me, visited, reachable, expected):
    assert Topology(FOUR, me).successor(visited, reachable) == expected


def test_the_others_are_asked_in_ring_order_from_here():
    assert Topology(FOUR, "gw1").others == ("gw4", "gw2", "gw3")
    assert Topology(["alone"], "alone").others == ()


def test_a_lap_is_complete_when_nobody_is_missing():
    topology = Topology(FOUR, "gw4")
    assert topology.missing(["gw4", "gw1", "elsewhere"]) == ("gw2", "gw3")
    assert topology.missing(FOUR) == ()
    assert topology.missing([]) == ("gw4", "gw2", "gw3", "gw1")


def test_a_table_that_names_a_node_twice_or_not_this_one_is_refused():
    with pytest.raises(ValueError, match="named twice in a, b, a"):
        Topology(("a", "b", "a"), "a")
    with pytest.raises(ValueError, match="c is not among a, b"):
        Topology(("a", "b"), "c")


@st.composite
def rings(draw):
    """Nodes whose tables hold the same names in any order (a reload under way), and whom each of them can reach."""
    names = draw(st.lists(st.text("abcdefgh", min_size=1, max_size=2), min_size=1, max_size=7, unique=True))
    tables = {name: draw(st.permutations(names)) for name in names}
    reachable = {name: draw(st.sets(st.sampled_from(names))) for name in names}
    return [Topology(tables[name], name) for name in names], reachable


def walk(topologies, reachable, origin):
    """The nodes of one lap in the order in which they are asked, the origin first."""
    by_name = {topology.me: topology for topology in topologies}
    visited = [origin]
    while (following := by_name[visited[-1]].successor(visited, reachable[visited[-1]])) is not None:
        visited.append(following)
    return visited


@given(rings())
def test_a_walk_asks_each_node_at_most_once_and_has_fewer_hops_than_nodes(ring):
    topologies, reachable = ring
    for topology in topologies:
        visited = walk(topologies, reachable, topology.me)
        assert len(set(visited)) == len(visited)
        assert len(visited) - 1 <= len(topologies) - 1
        assert all(after in reachable[before] for before, after in itertools.pairwise(visited))


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=2), min_size=1, max_size=7, unique=True), st.data())
def test_where_all_agree_a_walk_asks_exactly_the_reachable_nodes_in_table_order(names, data):
    up = data.draw(st.sets(st.sampled_from(names)))
    origin = data.draw(st.sampled_from(names))
    topologies = [Topology(names, name) for name in names]
    visited = walk(topologies, dict.fromkeys(names, up), origin)
    start = names.index(origin)
    rotated = names[start:] + names[:start]
    assert visited == [name for name in rotated if name == origin or name in up]
    assert set(topologies[start].missing(visited)) == set(names) - up - {origin}
