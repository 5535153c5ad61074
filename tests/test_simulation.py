"""The simulated ring (simulation/): it passes as it is, and a planted bug of each kind is found."""

import pytest
import trio
from attrs import define

import ring.join
from dlrproxy.custody import Keeper
from ring.claims import Claims
from ring.commands import Deliver
from ring.coordinator import Coordinator
from ring.custody import Custody
from ring.delivery import Delivery
from ring.far import node_of
from ring.items import State
from ring.join import Join
from ring.rows import Kind
from ring.shelf import Lines
from ring.topology import Topology
from simulation.__main__ import parse_seeds
from simulation.cluster import ClusterStore
from simulation.profiles import PROFILES
from simulation.report import Failure, run_seeds, story
from simulation.world import World
from simulation.wrong import Wrong

SEEDS = 20  # of each profile; `make sim` runs thousands
PATIENCE = 100  # seeds within which a planted bug is found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("profile", PROFILES)
def test_no_seed_fails(profile):
    failures = [result for result in run_seeds(range(SEEDS), profile) if isinstance(result, Failure)]
    assert not failures, story(failures[0])


def test_a_seed_is_the_same_every_time():
    async def events():
        await trio.lowlevel.checkpoint()
        world = World(11, "everything", frames=True)
        world.run()
        return [str(event) for event in world.history.events]

    first = trio.run(events)
    assert len(first) > 100
    assert trio.run(events) == first


def test_a_failing_seed_is_told_with_what_happened_to_the_report_that_is_to_blame(monkeypatch):
    _act_before_durable(monkeypatch)
    failure = _first_failure("crashes")
    told = story(failure).splitlines()
    assert told[0].startswith(f"seed {failure.seed}, profile crashes: {failure.wrong.value}: {failure.trace}")
    assert any(" sent " in line and failure.trace in line for line in told)


def test_seeds_are_given_as_one_or_as_a_range():
    assert list(parse_seeds("7")) == [7]
    assert list(parse_seeds("3-5")) == [3, 4, 5]


# Planted bugs


FOUND = set(Wrong) - {Wrong.BROKEN}  # a bug that only makes the code raise would need no checker


@define
class Planted:
    """A bug, the profile that shows it, and what it may be found as."""

    plant: object
    profile: str
    found_as: set[Wrong]


def _first_failure(profile: str) -> Failure:
    for start in range(0, PATIENCE, 10):
        for result in run_seeds(range(start, start + 10), profile):
            if isinstance(result, Failure):
                return result
    raise AssertionError(f"no seed of {PATIENCE} has found it")


def _act_before_durable(monkeypatch):
    """The driver takes every write for durable at once."""

    def write(self, write):
        for row in write.rows:
            table = next(table for table in self._store._visible.tables if table.value == row.table.value)
            if row.value is None:
                self._store.delete(table, row.key)
            else:
                self._store.put(table, row.key, row.value)
        self._do(self._machine.durable(write.ticket, self._clock.now()))

    monkeypatch.setattr(Keeper, "_write", write)


def _settle_before_durable(monkeypatch):
    """The origin tells the claimer before its own row says so."""
    release = Claims._release

    def too_early(self, items, frame, now, *also, **fields):
        self._answer(frame, granted=True)
        release(self, items, frame, now, *also, **fields)

    monkeypatch.setattr(Claims, "_release", too_early)


def _forget_keys_at_restart(monkeypatch):
    """A claimer that starts again does not know what it has delivered."""
    restore = Custody.restore

    def forgetful(self, row, now):
        if row.kind is not Kind.DELIVERED:
            restore(self, row, now)

    monkeypatch.setattr(Custody, "restore", forgetful)


def _forget_claims_at_restart(monkeypatch):
    """A claimer that starts again does not know what it has claimed."""
    restore = Custody.restore

    def forgetful(self, row, now):
        if row.kind is not Kind.CLAIM:
            restore(self, row, now)

    monkeypatch.setattr(Custody, "restore", forgetful)


def _forget_keys_early(monkeypatch):
    """A claimer forgets the key with the delivery, and not when its origin has."""
    finish = Delivery.finish

    def forgetful(self, item, now):
        item.released = True
        finish(self, item, now)

    monkeypatch.setattr(Delivery, "finish", forgetful)


def _count_laps_wrongly(monkeypatch):
    """A lap counts as complete with one node that has not answered."""
    missing = Topology.missing
    monkeypatch.setattr(Topology, "missing", lambda self, visited: missing(self, visited)[1:])


def _skip_the_line(monkeypatch):
    """A report sets out before the one in front of it."""
    monkeypatch.setattr(Lines, "is_head", lambda self, item: True)


def _take_any_answer(monkeypatch):
    """The word on an earlier claim counts for a later one."""
    settled = Claims.settled

    def credulous(self, frame, sender, now):
        item = self._shelf.items.get(frame.key)
        if item is not None:
            item.claim = frame.claim
        settled(self, frame, sender, now)

    monkeypatch.setattr(Claims, "settled", credulous)


def _grant_twice(monkeypatch):
    """The origin gives to a second claimer what it has given to a first."""
    claimed = Claims.claimed

    def generous(self, frame, now):
        item = self._shelf.items.get(frame.key)
        if item is not None and item.state is State.GRANTED:
            self._answer(frame, granted=True)
        else:
            claimed(self, frame, now)

    monkeypatch.setattr(Claims, "claimed", generous)


def _forget_where_it_crossed(monkeypatch):
    """What comes from the other ring is taken for what comes from a node of that name in this one."""
    monkeypatch.setattr(ring.join, "_with_far_names", lambda frame, sender: frame)


def _send_back_across(monkeypatch):
    """A gate that is not whom a frame from the other ring is for sends it back."""
    from_across = Join.from_across

    def bounce(self, relayed):
        if node_of(relayed.to) == self._me or not self._across(relayed):
            from_across(self, relayed)

    monkeypatch.setattr(Join, "from_across", bounce)


def _do_not_tell_decisions(monkeypatch):
    """A coordinator tells those who have asked, and no node that joins later."""
    monkeypatch.setattr(Coordinator, "reachable", lambda self, nodes, now: setattr(self, "_reachable", nodes))


def _write_after_a_takeover(monkeypatch):
    """A node that was taken over from goes on."""
    monkeypatch.setattr(ClusterStore, "_fenced", False)


def _deliver_unmarked(monkeypatch):
    """A gateway gets a report before its row says so."""

    def unmarked(self, item):
        self._shelf.command(Deliver(item.envelope, item.gateway, item.accepted_at))

    monkeypatch.setattr(Delivery, "_mark", unmarked)


PLANTED = [
    Planted(_write_after_a_takeover, "cluster", FOUND),
    Planted(_deliver_unmarked, "cluster", FOUND),
    Planted(_act_before_durable, "crashes", {Wrong.ACKNOWLEDGED_TOO_EARLY}),
    Planted(_settle_before_durable, "crashes", FOUND),
    Planted(_forget_keys_at_restart, "crashes", FOUND),
    Planted(_forget_claims_at_restart, "crashes", FOUND),
    Planted(_forget_keys_early, "hostile", FOUND),
    Planted(_count_laps_wrongly, "unclaimed", FOUND),
    Planted(_skip_the_line, "gateways", FOUND),
    Planted(_take_any_answer, "hostile", FOUND),
    Planted(_grant_twice, "contested", FOUND),
    Planted(_forget_where_it_crossed, "joined", FOUND),
    Planted(_do_not_tell_decisions, "network", {Wrong.SPLIT}),
    Planted(_send_back_across, "joined", {Wrong.UNLAWFUL}),
]


@pytest.mark.timeout(600)  # some seconds of one processor
@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.plant.__name__.strip("_"))
def test_a_planted_bug_is_found(bug, monkeypatch):
    bug.plant(monkeypatch)
    assert _first_failure(bug.profile).wrong in bug.found_as
