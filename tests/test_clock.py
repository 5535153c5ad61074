from dlrproxy.clock import NodeClock


class Hands:
    """A wall clock and a monotonic clock that a test turns."""

    def __init__(self, wall=1000.0, monotonic=50.0):
        self.wall_reading = wall
        self.monotonic_reading = monotonic

    def wall(self):
        return self.wall_reading

    def monotonic(self):
        return self.monotonic_reading

    def clock(self, high_water=0.0):
        return NodeClock(high_water, wall=self.wall, monotonic=self.monotonic)


def test_starts_at_the_wall_clock():
    assert Hands(wall=1000.0).clock().now() == 1000.0


def test_runs_with_the_monotonic_clock():
    hands = Hands()
    clock = hands.clock()
    hands.monotonic_reading += 2.5
    assert clock.now() == 1002.5


def test_does_not_follow_a_wall_clock_that_jumps():
    hands = Hands()
    clock = hands.clock()
    for jump in (-86400.0, 86400.0):
        hands.wall_reading += jump
        assert clock.now() == 1000.0


def test_continues_from_the_last_run_when_the_wall_clock_went_back():
    hands = Hands(wall=1000.0)
    clock = hands.clock(high_water=5000.0)
    hands.monotonic_reading += 1
    assert clock.now() == 5001.0


def test_follows_the_wall_clock_when_time_passed_since_the_last_run():
    assert Hands(wall=9000.0).clock(high_water=5000.0).now() == 9000.0


def test_can_be_moved_on_to_a_stored_reading_but_never_back():
    hands = Hands(wall=1000.0)
    clock = hands.clock()
    clock.not_before(900.0)
    assert clock.now() == 1000.0
    clock.not_before(1500.0)
    assert clock.now() == 1500.0
    hands.monotonic_reading += 1
    assert clock.now() == 1501.0


def test_real_clocks_do_not_go_back():
    clock = NodeClock()
    readings = [clock.now() for _ in range(1000)]
    assert readings == sorted(readings)
