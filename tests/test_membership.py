"""ring/membership.py: a node is reachable while its link is up and it was heard of lately."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.membership import Membership, State, Transition

ALIVE, SUSPECT, DEAD = State.ALIVE, State.SUSPECT, State.DEAD


@pytest.fixture
def members():
    return Membership(["gw2", "gw3"], suspect_after_s=3, dead_after_s=10)


def run(members, start, end):
    """Tick once a second, as the runner does several times within `suspect_after_s`."""
    return [change for second in range(start, end + 1) for change in members.tick(second)]


def test_a_node_that_was_never_linked_is_dead(members):
    assert members.tick(0) == []
    assert members.state("gw2") is DEAD
    assert members.alive() == frozenset()
    assert members.silent_s("gw2", 100) is None


def test_a_link_makes_it_alive_at_the_next_tick_and_silence_suspect_then_dead(members):
    members.linked("gw2", 0)
    assert members.alive() == frozenset()
    assert members.tick(0) == [Transition("gw2", DEAD, ALIVE)]
    assert members.alive() == {"gw2"}
    assert run(members, 1, 2) == []
    assert members.tick(3) == [Transition("gw2", ALIVE, SUSPECT)]
    assert members.alive() == frozenset()
    assert run(members, 4, 9) == []
    assert members.tick(10) == [Transition("gw2", SUSPECT, DEAD)]
    assert run(members, 11, 20) == []


def test_whoever_is_heard_stays_alive(members):
    members.linked("gw2", 0)
    changes = []
    for second in range(20):
        members.heard("gw2", second)
        changes += members.tick(second)
    assert changes == [Transition("gw2", DEAD, ALIVE)]
    assert members.silent_s("gw2", 21) == 2


def test_a_suspect_that_is_heard_again_is_alive_again(members):
    members.linked("gw2", 0)
    run(members, 0, 5)
    members.heard("gw2", 5.5)
    assert members.tick(6) == [Transition("gw2", SUSPECT, ALIVE)]


def test_a_lost_link_makes_a_suspect_at_once_and_a_dead_node_in_time(members):
    members.linked("gw2", 0)
    members.tick(0)
    members.heard("gw2", 1)
    members.unlinked("gw2", 2)
    assert members.tick(2) == [Transition("gw2", ALIVE, SUSPECT)]
    assert run(members, 3, 10) == []
    assert members.tick(11) == [Transition("gw2", SUSPECT, DEAD)]


def test_what_is_heard_without_a_link_counts_for_nothing(members):
    members.heard("gw2", 0)
    assert members.tick(0) == []
    members.linked("gw2", 1)
    members.unlinked("gw2", 1)
    members.heard("gw2", 8)
    assert run(members, 1, 11)[-1] == Transition("gw2", SUSPECT, DEAD)


def test_our_own_pause_is_nobodys_silence(members):
    members.linked("gw2", 0)
    members.linked("gw3", 0)
    run(members, 0, 1)
    members.unlinked("gw3", 1)
    members.tick(1)
    assert members.tick(1000) == []  # this process was stopped for 999 s
    assert members.alive() == {"gw2"}
    assert run(members, 1001, 1002) == [Transition("gw2", ALIVE, SUSPECT)]  # from here on silence counts again
    assert Transition("gw2", SUSPECT, DEAD) in run(members, 1003, 1009)


def test_a_new_table_keeps_the_state_of_those_who_stay(members):
    members.linked("gw2", 0)
    members.linked("gw3", 0)
    members.tick(0)
    members.set_nodes(["gw4", "gw3"])
    assert members.alive() == {"gw3"}
    assert members.state("gw4") is DEAD
    members.heard("gw2", 1)  # a late word from one that was removed
    members.linked("gw2", 1)
    members.unlinked("gw2", 1)
    assert members.tick(1) == []


def test_limits_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="suspect_after_s 5"):
        Membership([], suspect_after_s=5, dead_after_s=4)
    with pytest.raises(ValueError, match="suspect_after_s 0"):
        Membership([], suspect_after_s=0, dead_after_s=4)


EVENTS = st.lists(st.tuples(st.sampled_from(["linked", "unlinked", "heard"]), st.integers(0, 12)), max_size=30)


@given(EVENTS)
def test_whatever_happens_only_a_linked_and_recently_heard_node_is_reachable(events):
    members = Membership(["a"], suspect_after_s=3, dead_after_s=10)
    now, linked, heard_at, state = 0, False, None, DEAD
    for what, wait in events:
        for _ in range(wait):
            now += 1
            for change in members.tick(now):
                assert change.old is state
                state = change.new
        getattr(members, what)("a", now)
        linked = what == "linked" or (linked and what == "heard")
        if linked:
            heard_at = now
        for change in members.tick(now):
            assert change.old is state
            state = change.new
        assert members.state("a") is state
        assert ("a" in members.alive()) == linked
        assert heard_at is None or now - heard_at < 10 or state is DEAD
