"""What `dlrproxy rejoin` does next: the planner, played against a world that is interrupted after every step."""

import attrs
import pytest

from dlrproxy.modes import rejoin as r
from dlrproxy.modes.pair import Role
from dlrproxy.modes.rejoin import Copy, Done, OwnServer, Primary, Refused, Seen, Wishes, next_step

SOURCE = "10.0.0.2:3306"
MANAGED = Wishes(manage=True)
OLD_PRIMARY = OwnServer(writable=True, epoch=1, holder="a", position="0-1-7")
PRIMARY = Primary(writable=True, epoch=2, holder="b", replicates=False)
AFTER_A_CRASH = Seen(me="a", peer="b", source=SOURCE, role=None, own=OLD_PRIMARY, primary=PRIMARY)
MISSING = ("pair.clone_command", "pair.stop_command", "pair.start_command", "pair.server_data_dir")


@attrs.define
class World:
    """The server of a, and the disk: what each step does to them, one part at a time."""

    own: OwnServer | None = OLD_PRIMARY
    diverged: bool = False
    merged: bool = False
    copy: Copy = Copy.NONE
    data: str | None = "old"  # or "clone", with its mark, or "replica"
    steps: list = attrs.field(factory=list)

    def seen(self):
        cloned = self.data == "clone"
        return attrs.evolve(
            AFTER_A_CRASH,
            own=self.own,
            diverged=self.diverged and self.own is not None,
            merged=self.merged,
            copy=self.copy,
            data=self.data is not None,
            cloned=cloned,
        )

    def parts(self, step):
        """Everything that the step does, each of which may be the last that is done."""
        self.steps.append(type(step).__name__)
        match step:
            case r.MakeReadOnly():
                return [self.make_read_only]
            case r.Merge():
                return [self.merge]
            case r.Fetch():
                return [lambda: self.copied(Copy.PARTIAL), lambda: self.copied(Copy.FETCHED)]
            case r.Prepare():
                return [lambda: self.copied(Copy.PREPARED)]
            case r.SwapIn():
                return [self.stop, self.put_aside, self.put_in, self.start]
            case r.StartServer():
                return [self.start]
            case r.Replicate(cloned):
                return [lambda: self.start_at(cloned=cloned), self.forget_mark, self.point, self.run]

    def make_read_only(self):
        self.own = attrs.evolve(self.own, writable=False)

    def merge(self):
        assert not self.own.writable, "it may yet write what is not merged"
        self.merged = True

    def copied(self, copy):
        assert self.merged or not self.diverged or self.own is None
        self.copy = copy

    def stop(self):
        self.own = None

    def put_aside(self):
        assert self.own is None
        assert self.merged or not self.diverged
        self.data = None

    def put_in(self):
        assert (self.copy, self.data) == (Copy.PREPARED, None)
        self.copy, self.data, self.diverged = Copy.NONE, "clone", False

    def start(self):
        assert self.data is not None
        if self.data == "old":
            self.own = OLD_PRIMARY
        else:
            self.own = OwnServer(writable=True, epoch=2, holder="b", position="0-1-3")  # what the clone's table says

    def start_at(self, *, cloned):
        assert cloned == (self.data == "clone")
        assert not self.diverged
        assert not self.own.writable
        if cloned:
            self.own = attrs.evolve(self.own, position="0-2-9")

    def forget_mark(self):
        if self.data == "clone":
            self.data = "replica"

    def point(self):
        self.own = attrs.evolve(self.own, source=SOURCE)

    def run(self):
        self.own = attrs.evolve(self.own, running=True)


def carried_out(world, wishes=MANAGED, interrupted_after=None):
    """Until it is done. With a number: the run is interrupted after so many parts, and begun again."""
    count = 0
    for _ in range(40):
        step = next_step(world.seen(), wishes)
        if isinstance(step, Done | Refused):
            return step, count
        for part in world.parts(step):
            part()
            count += 1
            if count == interrupted_after:
                break
    raise AssertionError(f"it goes in circles: {world.steps}")


def test_a_server_that_has_nothing_of_its_own_replicates_at_once():
    world = World()
    assert carried_out(world)[0] == Done()
    assert world.steps == ["MakeReadOnly", "Replicate"]


def test_one_that_has_diverged_is_merged_first_and_then_cloned():
    world = World(diverged=True)
    assert carried_out(world)[0] == Done()
    assert world.steps == ["MakeReadOnly", "Merge", "Fetch", "Prepare", "SwapIn", "MakeReadOnly", "Replicate"]


def interrupted_at_each_part(make, wishes=MANAGED):
    _, parts = carried_out(make(), wishes)
    for number in range(1, parts + 1):
        world = make()
        assert carried_out(world, wishes, interrupted_after=number)[0] == Done(), world.steps
        yield world


def test_it_goes_on_wherever_it_was_interrupted():
    assert len(list(interrupted_at_each_part(World))) == 5
    for world in interrupted_at_each_part(lambda: World(diverged=True)):
        assert world.steps.count("Merge") == 1
        assert (world.data, world.own.position) == ("replica", "0-2-9")


def test_old_data_that_cannot_be_read_is_given_up_by_a_persons_word_alone():
    assert isinstance(carried_out(World(own=None, data=None))[0], Refused)
    lost = Wishes(manage=True, clone=True, lost=True)
    assert isinstance(carried_out(World(own=None, data=None), lost)[0], Refused)  # whose is it to be?
    world = World(own=None)
    assert next_step(world.seen(), MANAGED) == r.StartServer()
    assert next_step(world.seen(), lost) == r.Fetch()
    assert next_step(attrs.evolve(world.seen(), copy=Copy.FETCHED), lost) == r.Prepare()
    assert next_step(attrs.evolve(world.seen(), copy=Copy.PREPARED), lost) == r.SwapIn()
    assert next_step(attrs.evolve(world.seen(), cloned=True, data=True), lost) == r.StartServer()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"role": Role.ACTIVE}, "this node is active"),
        ({"primary": None, "primary_error": "nobody answers"}, "cannot be reached: nobody answers"),
        ({"primary": attrs.evolve(PRIMARY, writable=False)}, "is no primary"),
        ({"primary": attrs.evolve(PRIMARY, replicates=True)}, "is no primary"),
        ({"primary": attrs.evolve(PRIMARY, holder="a")}, "b has not been promoted"),
        ({"own": attrs.evolve(OLD_PRIMARY, epoch=3)}, "a was promoted after b"),
        ({"own": attrs.evolve(OLD_PRIMARY, epoch=2)}, "both nodes were promoted under epoch 2"),
        ({"own": None, "own_error": "it is down", "missing": MISSING}, "does not run: start it (it is down)"),
    ],
)
def test_what_is_refused_says_why(changes, said):
    step = next_step(attrs.evolve(AFTER_A_CRASH, **changes), MANAGED)
    assert isinstance(step, Refused)
    assert said in step.why


def test_without_what_a_clone_takes_the_rows_are_merged_all_the_same_and_the_keys_named():
    seen = attrs.evolve(AFTER_A_CRASH, own=attrs.evolve(OLD_PRIMARY, writable=False), diverged=True, missing=MISSING)
    assert next_step(seen, MANAGED) == r.Merge()
    step = next_step(attrs.evolve(seen, merged=True), MANAGED)
    assert isinstance(step, Refused)
    assert "pair.clone_command" in step.why


def test_a_server_that_another_tool_manages_is_merged_and_otherwise_left_alone():
    unmanaged = Wishes(manage=False)
    seen = attrs.evolve(AFTER_A_CRASH, diverged=True)
    assert next_step(seen, unmanaged) == r.Merge()
    step = next_step(attrs.evolve(seen, merged=True), unmanaged)
    assert isinstance(step, Refused)
    assert "manage_database" in step.why


def test_a_server_that_is_new_gets_everything_from_the_primary():
    new = OwnServer(writable=False)
    seen = attrs.evolve(AFTER_A_CRASH, own=new, missing=MISSING)
    assert next_step(seen, MANAGED) == r.Replicate(cloned=False)
    refused = attrs.evolve(new, source=SOURCE, beyond_repair=True)  # it no longer has its first transactions
    assert isinstance(next_step(attrs.evolve(seen, own=refused), MANAGED), Refused)
    assert next_step(attrs.evolve(seen, own=refused, missing=()), MANAGED) == r.Fetch()


def test_a_server_without_a_history_that_has_rows_is_cloned():
    old = OwnServer(writable=False, epoch=1, holder="a")
    assert next_step(attrs.evolve(AFTER_A_CRASH, own=old), MANAGED) == r.Fetch()


def test_a_replica_that_the_primary_can_no_longer_serve_is_cloned():
    behind = OwnServer(writable=False, epoch=1, holder="a", position="0-1-7", source=SOURCE, error="1236")
    seen = attrs.evolve(AFTER_A_CRASH, own=behind)
    assert next_step(seen, MANAGED) == r.Replicate(cloned=False)  # wrong credentials, perhaps
    assert next_step(attrs.evolve(seen, own=attrs.evolve(behind, beyond_repair=True)), MANAGED) == r.Fetch()
