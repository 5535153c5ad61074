"""The role and the lease machines of a quorum in a world of faults, and by hand."""

import pytest
from attrs import evolve
from quorum_world import MASTER, NAMES, SETTINGS, World, member

from dlrproxy.modes.cluster import (
    Adopt,
    Claim,
    MasterRow,
    Member,
    Move,
    Observation,
    Release,
    Role,
    Rows,
    Serve,
    Server,
    Take,
    TakeLease,
)
from dlrproxy.modes.lease import Master, heir_of
from dlrproxy.modes.quorum import Quorum

STEP_S = 0.25
FAULTS = [
    "cut", "cut", "heal", "heal", "heal", "kill node", "start node", "start node", "kill server", "start server",
    "start server", "freeze", "thaw", "thaw", "pause server", "resume server", "resume server",
]  # fmt: skip


def disturb(world):
    what, name = world.random.choice(FAULTS), world.random.choice(NAMES)
    node, server = world.nodes[name], world.servers[name]
    world.note(what, name)
    match what:
        case "cut" | "heal":
            server.connected = what == "heal"
        case "kill node":
            world.kill(node)
        case "start node" if node.quorum is None:
            world.start(node)
        case "kill server":
            server.up = server.paused = False
        case "start server":
            server.up = True
        case "freeze" | "thaw" if node.quorum is not None:
            node.frozen = what == "freeze"
        case "pause server":
            server.paused = server.up
        case "resume server":
            server.paused = False


def learn(world, server):
    """A server finds out what it belongs to, and catches up."""
    if server.up and not server.paused:
        server.claims_primary = world.in_quorum(server)


def play(seed, steps=600, **machines):
    """Anything in any order."""
    world = World(seed, **machines)
    dice = world.random
    calm = dice.choice([0.02, 0.1, 0.3])
    for _ in range(steps):
        node = world.nodes[dice.choice(NAMES)]
        server = world.servers[dice.choice(NAMES)]
        match dice.randrange(16):
            case 0 | 1:
                world.advance(dice.choice([0.05, 0.2, 0.5, 1.0, 3.0]))
            case 2 | 3:
                world.observe(node)
            case 4 | 5:
                world.carry_out(node)
            case 6 | 7:
                world.read_mail(node)
            case 8 | 9 | 10 if world.writes:
                world.step_write(dice.choice(world.writes))
            case 11:
                world.beat(node)
                world.renew(node)
            case 12:
                world.accept(node)
                world.deliver(node)
            case 13:
                world.apply(server, dice.randint(server.applied, len(world.log)))
                learn(world, server)
            case 14 if dice.random() < calm:
                world.forget(node)
            case 15 if dice.random() < calm:
                disturb(world)
        world.check()
        world.check_custody()
    return world


def drive(world, seconds, faults=0.0, lag=0.0):
    """As a cluster really runs: everybody looks every quarter of a second and beats every second."""
    dice = world.random
    world.loss = 0.05 if faults else 0.0
    for step in range(int(seconds / STEP_S)):
        world.advance(STEP_S)
        for name in NAMES:
            server, node = world.servers[name], world.nodes[name]
            if server.up and not server.paused and world.in_quorum(server) and dice.random() >= lag:
                world.apply(server)
            if dice.random() < 0.5:
                learn(world, server)
            if step % 4 == 0:
                world.beat(node)
                world.renew(node)
                if faults and dice.random() < 0.1:
                    world.forget(node)
            if step % 2 == 0:
                world.observe(node)
            world.accept(node)
            world.deliver(node)
        for _ in range(4):
            for node in world.nodes.values():
                world.carry_out(node)
                world.check()
            for write in list(world.writes):
                if dice.random() >= lag:
                    world.step_write(write)
            for node in world.nodes.values():
                while node.inbox and world.runs(node):
                    world.read_mail(node)
                    world.check()
        if dice.random() < faults:
            disturb(world)
        world.check()
        world.check_custody()


def serving(world):
    return {node.name for node in world.nodes.values() if world.serves(node)}


def masters(world):
    return [node.name for node in world.nodes.values() if world.runs(node) and node.master.holds(world.clock(node))]


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_anything_in_any_order(first):
    for seed in range(first, first + 100):
        play(seed)


@pytest.mark.parametrize("first", range(0, 45, 15))
def test_a_cluster_that_runs_while_everything_fails(first):
    handed_over = 0
    for seed in range(first, first + 15):
        world = World(seed)
        drive(world, 150, faults=0.04, lag=world.random.choice([0.0, 0.3, 0.7]))
        handed_over += sum(row.moved for key, row in world.truth.items() if key[0] == "member")
    assert handed_over > 0


def calm_down(world):
    for server in world.servers.values():
        server.up, server.paused, server.connected = True, False, True
    for node in world.nodes.values():
        world.kill(node)  # what has lost the answer to a write of custody reads it again
        world.start(node)


@pytest.mark.parametrize("seed", range(10))
def test_after_any_faults_and_a_restart_all_serve_one_is_master_and_all_is_sent_or_parked(seed):
    world = World(seed)
    drive(world, 100, faults=0.1, lag=0.3)
    calm_down(world)
    drive(world, 90)
    assert serving(world) == set(NAMES)
    assert len(masters(world)) == 1
    early = set(range(world.numbers + 1))
    drive(world, 90)
    left = {key[2] for key, value in world.truth.items() if key[0] == "item" and value == "waiting"} & early
    assert left == set()


def test_at_rest_all_serve_and_the_first_who_asked_is_master():
    world = World()
    drive(world, 30)
    assert serving(world) == set(NAMES)
    assert len(masters(world)) == 1
    assert {row.epoch for key, row in world.truth.items() if key[0] == "member"} == {1}
    assert world.truth[MASTER].epoch == 1


def test_a_dead_nodes_rows_go_to_the_next_one():
    world = World()
    drive(world, 30)
    world.kill(world.nodes["b"])
    drive(world, 30)
    assert serving(world) == {"a", "c"}
    row = world.truth[member("b")]
    assert (row.taken, row.heir) == (True, "c")
    assert not [key for key in world.truth if key[:2] == ("item", "b")]
    world.start(world.nodes["b"])
    drive(world, 10)
    assert serving(world) == set(NAMES)
    assert not world.truth[member("b")].taken


def test_another_becomes_master_within_the_lease_when_the_master_dies():
    world = World()
    drive(world, 30)
    (old,) = masters(world)
    world.kill(world.nodes[old])
    drive(world, SETTINGS.lease_s + 3)
    (new,) = masters(world)
    assert new != old
    assert world.truth[MASTER].epoch == 2


def test_a_survivor_of_three_stops_and_all_come_back():
    world = World()
    drive(world, 30)
    for name in "bc":
        world.servers[name].up = False
    drive(world, 12)
    assert serving(world) == set()
    assert world.nodes["a"].quorum.role is Role.NO_QUORUM
    for name in "bc":
        world.servers[name].up = True
    drive(world, 15)
    assert serving(world) == set(NAMES)
    assert not any(row.taken for key, row in world.truth.items() if key[0] == "member")  # all had their time


def test_a_stall_shorter_than_the_fence_unbinds_nobody():
    world = World()
    drive(world, 30)
    releases = sum("Release" in str(entry) for entry in world.trace)
    for server in world.servers.values():
        server.connected = False
    for _ in range(int((SETTINGS.fence_after_s - 2) / STEP_S)):
        world.advance(STEP_S)
        for node in world.nodes.values():
            world.observe(node)
            world.check()
    for server in world.servers.values():
        server.connected = True
    drive(world, 5)
    assert serving(world) == set(NAMES)
    assert sum("Release" in str(entry) for entry in world.trace) == releases


# --- by hand

SYNCED = Server(primary=True, ready=True, state="Synced")
MINE = evolve(SETTINGS, me="a", home=b"1")


def seen(server=SYNCED, master=None, **members):
    return Observation(server=server, rows=Rows(members=members, master=master or MasterRow()))


def a_serving_machine(now=0.0):
    machine = Quorum(MINE)
    assert not machine.may_act(machine.epoch, now)
    own = Member(epoch=3, beat=7, home=b"1")
    assert machine.observe(seen(a=own), now) == [Claim(own)]
    machine.vouched(4, now)
    assert machine.observe(seen(a=evolve(own, epoch=4)), now) == [Serve(4)]
    return machine


def test_a_server_that_calls_itself_primary_is_not_enough():
    machine = a_serving_machine()
    later = SETTINGS.fence_after_s + 10
    own = Member(epoch=4, beat=8, home=b"1")
    (release,) = machine.observe(seen(a=own), later)
    assert isinstance(release, Release)
    assert machine.serve_until < later
    assert machine.observe(seen(a=own), later) == [Claim(own)]
    assert machine.observe(seen(a=own), later) == [Claim(own)]  # as long as it is not certified
    machine.vouched(4, later)  # a beat of the term that is over, answered late
    assert machine.observe(seen(a=own), later) == [Claim(own)]
    machine.vouched(5, later)
    assert machine.observe(seen(a=own), later) == [Serve(5)]


def test_it_ends_at_once_when_its_server_says_that_it_is_out():
    for server in (evolve(SYNCED, primary=False), evolve(SYNCED, ready=False)):
        machine = a_serving_machine()
        (release,) = machine.observe(seen(server), 1.0)
        assert isinstance(release, Release)
        assert machine.role is Role.NO_QUORUM


def test_it_goes_on_without_an_answer_until_its_time_is_over():
    machine = a_serving_machine()
    assert machine.observe(Observation(server=None), machine.settle_from - 0.1) == []
    (release,) = machine.observe(Observation(server=None), machine.settle_from)
    assert machine.serve_until == SETTINGS.fence_after_s  # until then it may answer
    assert isinstance(release, Release)
    assert machine.role is Role.UNREACHABLE


def test_a_refused_write_ends_the_term():
    machine = a_serving_machine()
    machine.refused(3)
    assert machine.serve_until > 0
    machine.refused(4)
    assert machine.serve_until < 0
    (release,) = machine.observe(seen(a=Member(epoch=5, beat=8, taken=True, heir="b")), 1.0)
    assert "taken over" in release.why


def test_it_claims_nothing_while_the_schema_does_not_fit_and_serves_once_it_does():
    machine = Quorum(MINE)
    misfit = Observation(server=SYNCED, misfit="the schema is of version 1; run `dlrproxy db migrate`")
    assert machine.observe(misfit, 0.0) == []
    assert (machine.role, machine.why) == (Role.JOINING, misfit.misfit)
    own = Member(epoch=3, beat=7, home=b"1")
    assert machine.observe(seen(a=own), 1.0) == [Claim(own)]


def test_it_lets_go_when_the_schema_fits_no_more_and_does_not_use_the_claim_that_it_had():
    machine = a_serving_machine()
    (release,) = machine.observe(Observation(server=SYNCED, misfit="upgrade this node"), 1.0)
    assert (release.why, machine.role, machine.epoch) == ("upgrade this node", Role.JOINING, 0)
    own = Member(epoch=4, beat=8, home=b"1")
    assert machine.observe(seen(a=own), 2.0) == [Claim(own)]
    machine.vouched(5, 2.0)
    assert machine.observe(Observation(server=SYNCED, misfit="upgrade this node"), 2.5) == []
    assert machine.observe(seen(a=own), 3.0) == [Claim(own)]


@pytest.mark.parametrize("state", ["Joiner", "Joined", "Donor/Desynced"])
def test_it_begins_on_a_synced_server_only(state):
    machine = Quorum(MINE)
    assert machine.observe(seen(evolve(SYNCED, state=state)), 0.0) == []
    assert machine.role is Role.JOINING
    machine = a_serving_machine()
    assert machine.observe(seen(evolve(SYNCED, state=state)), 1.0) == []


def test_a_name_that_is_used_elsewhere_is_not_claimed_before_that_has_ended():
    machine = Quorum(MINE)
    for now in range(20):
        assert machine.observe(seen(a=Member(epoch=1, beat=now, home=b"2")), float(now)) == []
    assert "another data directory" in machine.why
    assert machine.observe(seen(a=Member(epoch=1, beat=19, home=b"2")), 19 + SETTINGS.takeover_after_s)
    assert Quorum(MINE).observe(seen(a=Member(epoch=1, beat=1, home=b"2", taken=True, heir="b")), 0.0)


def test_of_two_processes_with_copies_of_one_data_directory_the_later_one_serves_and_the_other_waits():
    """As of a machine that was cloned: each takes the other one for a dead process of its own."""
    row, first, second = Member(epoch=1, beat=1, home=b"1"), Quorum(MINE), Quorum(MINE)
    served = []
    for now in range(100):
        for name, machine in (("first", first), ("second", second)):
            if name == "second" and now < 10:
                continue
            if machine.epoch == row.epoch:
                row = evolve(row, beat=row.beat + 1)
                machine.vouched(row.epoch, float(now))
            elif machine.epoch:
                machine.refused(machine.epoch)
            for command in machine.observe(seen(a=row), float(now)):
                if isinstance(command, Claim):
                    row = evolve(row, epoch=row.epoch + 1)
                    machine.vouched(row.epoch, float(now))
                elif isinstance(command, Serve):
                    served.append(name)
    assert served == ["first", "second"]
    assert "copy of its data directory" in first.why
    for now in range(100, 100 + int(SETTINGS.takeover_after_s) + 2):  # the second is gone
        commands = first.observe(seen(a=row), float(now))
    assert commands == [Claim(row)]


@pytest.mark.parametrize("after", [Member(epoch=4, beat=8, home=b"1"), Member(epoch=5, beat=8, home=b"1", taken=True)])
def test_a_term_that_was_refused_is_followed_by_another_at_once_where_nobody_else_has_its_name(after):
    machine = a_serving_machine()
    machine.refused(4)
    (release,) = machine.observe(seen(a=after), 1.0)
    assert isinstance(release, Release)
    assert machine.observe(seen(a=after), 1.0) == [Claim(after)]
    claimed = evolve(after, epoch=after.epoch + 1, taken=False)  # and nobody heard of it
    assert machine.observe(seen(a=claimed), 2.0) == [Claim(claimed)]


def test_an_answer_to_a_former_term_says_nothing_of_who_has_the_present_one():
    machine, own = a_serving_machine(), Member(epoch=4, beat=8, home=b"1")
    machine.refused(3)  # its last beat, which was slow
    assert isinstance(machine.observe(seen(evolve(SYNCED, ready=False)), 1.0)[0], Release)
    assert machine.observe(seen(a=own), 2.0) == [Claim(own)]


def test_only_writes_under_the_present_epoch_count_and_the_one_that_was_sent_last():
    machine = a_serving_machine(now=10.0)
    machine.vouched(4, 12.0)
    machine.vouched(4, 11.0)
    assert machine.serve_until == 12.0 + SETTINGS.fence_after_s
    machine.vouched(5, 3.0)  # its claim was sent before, and its answer was slow
    assert machine.serve_until == 3.0 + SETTINGS.fence_after_s
    machine.vouched(4, 14.0)
    assert machine.serve_until == 3.0 + SETTINGS.fence_after_s
    assert machine.may_act(5, 4.0)
    assert not machine.may_act(4, 4.0)


def test_a_claim_that_was_used_too_late_is_followed_by_another_whatever_beat_returns():
    machine, late = Quorum(MINE), SETTINGS.fence_after_s + 1
    own = Member(epoch=3, beat=7, home=b"1")
    assert machine.observe(seen(a=own), 0.0) == [Claim(own)]
    machine.vouched(4, 0.0)
    own = evolve(own, epoch=4)
    assert machine.observe(seen(a=own), late) == [Claim(own)]
    machine.vouched(4, late)
    assert machine.observe(seen(a=own), late) == [Claim(own)]


def test_a_claim_that_was_not_used_before_the_quorum_was_lost_is_of_no_use_after_it():
    machine = Quorum(MINE)
    machine.vouched(4, 0.0)
    assert machine.observe(seen(evolve(SYNCED, primary=False)), 1.0) == []
    own = Member(epoch=4, beat=8, home=b"1")
    assert machine.observe(seen(a=own), 2.0) == [Claim(own)]


def test_it_does_not_serve_on_a_server_that_certifies_nothing():
    machine = a_serving_machine()
    (release,) = machine.observe(seen(evolve(SYNCED, certifies=False)), 1.0)
    assert "wsrep_on" in release.why
    assert machine.observe(seen(evolve(SYNCED, certifies=False)), 2.0) == []


def test_nor_on_one_that_does_not_say_who_holds_what():
    machine = Quorum(MINE)
    assert machine.observe(Observation(server=SYNCED), 0.0) == []
    assert (machine.role, machine.why) == (Role.JOINING, "its database server does not say which node holds what")
    machine = a_serving_machine()
    assert machine.observe(Observation(server=SYNCED), 1.0) == []  # its beats decide


def test_a_master_that_serves_no_more_lets_the_lease_run_out():
    master = Master(MINE)
    master.renewed(1, 0.0)
    rows = Rows(members={"a": Member(epoch=1, beat=1)}, master=MasterRow(epoch=1, holder="a", beat=1))
    assert master.observe(rows, 1.0, serving=True) == []
    assert master.holds(1.0)
    assert master.observe(rows, 2.0, serving=False) == []
    assert not master.holds(2.0)
    assert master.observe(rows, 3.0, serving=True) == [TakeLease(rows.master)]  # its own still: nobody took it


def test_a_lease_is_used_for_less_than_it_goes_from_when_its_last_renewal_was_sent():
    master = Master(MINE)
    master.renewed(5, 10.0)
    master.renewed(5, 8.0)
    master.renewed(4, 99.0)  # of an earlier lease, answered late
    assert master.epoch == 5
    assert master.holds(10.0 + 0.89 * SETTINGS.lease_s)
    assert not master.holds(10.0 + 0.91 * SETTINGS.lease_s)


def seen_by_a_master(master, members, now):
    master.renewed(1, now)
    rows = Rows(members={"a": Member(epoch=1, beat=int(now)), **members}, master=MasterRow(epoch=1, holder="a"))
    return master.observe(rows, now, serving=True)


def test_nobody_who_is_gone_is_an_heir():
    master, after_s = Master(MINE), SETTINGS.takeover_after_s
    gone, alive = Member(epoch=1, beat=1), Member(epoch=1, beat=9)
    assert seen_by_a_master(master, {"b": gone, "c": gone, "d": alive}, 0.0) == []
    d = evolve(alive, beat=10)
    assert seen_by_a_master(master, {"b": gone, "c": gone, "d": d}, after_s) == [
        Take("b", gone, "d"),
        Take("c", gone, "d"),
    ]
    b = Member(epoch=2, beat=1, taken=True, heir="d")
    assert seen_by_a_master(master, {"b": b, "d": d}, after_s + 1) == [Move("b", 2)]
    assert seen_by_a_master(master, {"a1": gone, "b": b, "d": d}, after_s + 2) == [Move("b", 2)]
    late = 2 * after_s + 2  # a1 and d are gone now: b's heir is another one, and a1's is not b
    assert seen_by_a_master(master, {"a1": gone, "b": b, "d": d}, late) == [
        Take("a1", gone, "a"),
        Take("b", b, "a"),
        Take("d", d, "a"),
    ]


def test_one_that_was_taken_a_moment_ago_is_no_heir_either():
    master, after_s = Master(MINE), SETTINGS.takeover_after_s
    b, c = Member(epoch=1, beat=1), Member(epoch=1, beat=1)
    assert seen_by_a_master(master, {"aa": b, "b": c}, 0.0) == []
    b = Member(epoch=2, beat=1, taken=True, heir="a")
    assert seen_by_a_master(master, {"aa": c, "b": b}, after_s) == [Take("aa", c, "a"), Move("b", 2)]


def test_a_row_that_was_away_and_is_back_counts_from_then():
    master, after_s = Master(MINE), SETTINGS.takeover_after_s
    b = Member(epoch=1, beat=1)
    for members, now in (({"b": b}, 0.0), ({}, 1.0), ({"b": b}, after_s + 1)):
        assert seen_by_a_master(master, members, now) == []


def test_after_an_outage_of_its_own_a_node_counts_the_silence_of_others_anew():
    master, later = Master(MINE), 10 * SETTINGS.takeover_after_s
    rows = Rows(
        members={"a": Member(epoch=1, beat=1), "b": Member(epoch=1, beat=1)},
        master=MasterRow(epoch=1, holder="c", beat=1),
    )
    assert master.observe(rows, 0.0, serving=True) == []
    assert master.observe(None, 1.0, serving=False) == []
    assert master.observe(rows, later, serving=True) == []  # nor does it take the lease
    master.renewed(2, later)
    assert master.observe(rows, later + 1, serving=True) == []
    master.renewed(2, later + SETTINGS.takeover_after_s)
    (take,) = master.observe(rows, later + SETTINGS.takeover_after_s, serving=True)
    assert take == Take("b", rows.members["b"], "a")


def test_rows_that_are_moved_here_are_adopted_once():
    machine = a_serving_machine()
    own = Member(epoch=4, beat=8, home=b"1")
    gone = Member(epoch=2, beat=2, taken=True, heir="a")
    assert machine.observe(seen(a=own, b=gone), 1.0) == [Adopt()]
    assert machine.observe(seen(a=own, b=gone), 2.0) == []
    assert machine.observe(seen(a=own, b=evolve(gone, moved=1)), 3.0) == [Adopt()]
    assert machine.observe(seen(a=own, b=evolve(gone, heir="c")), 4.0) == []


def test_rows_that_were_moved_here_before_it_serves_are_there_when_it_begins():
    machine = Quorum(MINE)
    own, gone = Member(epoch=4, beat=8, home=b"1"), Member(epoch=2, beat=2, taken=True, heir="a")
    machine.vouched(4, 0.0)
    assert machine.observe(seen(a=own, b=gone), 0.0) == [Serve(4)]
    assert machine.observe(seen(a=own, b=gone), 1.0) == []


def test_the_heir_is_the_next_one_that_lives():
    assert [heir_of("b", living) for living in (["a", "c"], ["a"], ["a", "b2", "c"])] == ["c", "a", "b2"]


# --- bugs that are planted must be caught


class Trusting(Quorum):
    """Takes its server's word for a beat."""

    def observe(self, seen, now):
        if self.epoch and seen.server is not None and seen.server.primary:
            self.serve_until = now + self._settings.fence_after_s
        return super().observe(seen, now)


class Deaf(Quorum):
    """Counts a beat from when its answer was read, some seconds later."""

    def vouched(self, epoch, sent_at):
        super().vouched(epoch, sent_at + 6)


class Undead(Quorum):
    """Lets a beat of an old term vouch for a new one."""

    def _end_term(self):
        self.serve_until = float("-inf")


class TooEager(Master):
    def __init__(self, settings):
        super().__init__(evolve(settings, takeover_after_s=2.0))


class Usurper(Master):
    """Takes a lease before it has run out."""

    def __init__(self, settings):
        super().__init__(settings)
        self._theirs = evolve(settings, lease_s=1.0)

    def _stand_for(self, seen, now):
        kept, self._settings = self._settings, self._theirs
        try:
            return super()._stand_for(seen, now)
        finally:
            self._settings = kept


@pytest.mark.parametrize(
    "bug", [{"quorum": Trusting}, {"quorum": Deaf}, {"quorum": Undead}, {"master": TooEager}, {"master": Usurper}]
)
def test_a_planted_bug_is_caught(bug):
    def all_seeds():
        for seed in range(200):
            world = World(seed, **bug)
            drive(world, 150, faults=0.06, lag=world.random.choice([0.0, 0.3, 0.7]))
            play(seed, **bug)

    with pytest.raises(AssertionError):
        all_seeds()
