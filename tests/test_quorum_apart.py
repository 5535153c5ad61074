"""Two clusters where one was meant to be: their nodes find out by their links, and give one another no custody."""

import pytest
import structlog.testing
import trio
from attrs import evolve
from test_join_links import gate, run_by
from test_quorum_driver import SETTINGS, running

from dlrproxy.modes.apart import Apart
from dlrproxy.modes.cluster import Member
from protocols.peer.frames import VERSION

LONG_S = int(SETTINGS.fence_after_s + SETTINGS.takeover_after_s)
NEVER, TAKEN = None, Member(epoch=5, beat=9, taken=True, heir="a")


def rows(member):
    return {} if member is None else {"b": member}


@pytest.mark.parametrize("member", [NEVER, TAKEN])
def test_a_node_that_is_linked_and_beats_elsewhere_is_apart(member):
    apart = Apart(SETTINGS)
    for now in range(LONG_S):
        assert apart.observe({"b"}, rows(member), float(now)) == set()
    assert apart.observe({"b"}, rows(member), float(LONG_S)) == {"b"}
    assert apart.observe({"b"}, None, LONG_S + 1.0) == {"b"}  # its server does not say: as before
    assert apart.observe(set(), None, LONG_S + 2.0) == set()
    assert apart.observe({"b"}, rows(member), LONG_S + 3.0) == set()  # it counts from when it is linked again


def test_one_that_beats_here_is_not_however_long_its_beats_take():
    apart = Apart(SETTINGS)
    for now in range(10 * LONG_S):
        beaten = Member(epoch=5, beat=now // (LONG_S - 1))
        assert apart.observe({"b"}, {"b": beaten}, float(now)) == set()


def test_nor_is_one_that_is_linked_and_not_watched_while_this_nodes_server_is_silent():
    apart = Apart(SETTINGS)
    apart.observe({"b"}, {"b": Member(epoch=1, beat=1)}, 0.0)
    assert apart.observe({"b"}, None, 1000.0) == set()
    assert apart.observe({"b"}, {"b": Member(epoch=1, beat=99)}, 1001.0) == set()


async def test_a_node_says_once_that_there_are_two_clusters_and_when_there_are_no_more(autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with running() as node:
            node.service.links = {"b", "c"}
            node.own.members["b"] = TAKEN
            node.own.members["c"] = Member(epoch=1, beat=1)
            for beat in range(2 * LONG_S):
                await trio.sleep(1)
                node.own.members["c"] = evolve(node.own.members["c"], beat=beat)
            assert (node.driver.apart, node.service.apart) == ({"b"}, {"b"})
            node.service.links = {"c"}
            await trio.sleep(2)
            assert node.service.apart == set()
    told = [entry for entry in logs if entry["event"] in ("quorum.two_clusters", "quorum.one_cluster")]
    assert [(entry["event"], entry.get("nodes")) for entry in told] == [
        ("quorum.two_clusters", ["b"]),
        ("quorum.one_cluster", None),
    ]


def test_custody_does_not_count_on_a_node_that_is_apart(tmp_path, monkeypatch):
    mode, keeper = run_by(gate(tmp_path, "south", {"north": 1, "south": 2}, {"gw1": 3, "gw2": 4, "gw3": 5}))
    told = []
    monkeypatch.setattr(keeper, "reachable", told.append)
    mode._reachable({"gw2": VERSION, "gw3": VERSION})
    mode.set_apart({"gw3"})
    mode.set_apart({"gw3"})
    assert mode.linked() == {"gw2", "gw3"}
    mode.set_apart(set())
    assert told == [{"gw2": VERSION, "gw3": VERSION}, {"gw2": VERSION}, {"gw2": VERSION, "gw3": VERSION}]
