"""The window: numbers, order, room."""

from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp.window import HIGHEST_SEQUENCE, Window


def test_numbers_start_at_one_and_rise():
    window: Window[str] = Window(10)
    assert [window.open(name, 0.0) for name in "abc"] == [1, 2, 3]


def test_numbers_wrap_and_leave_out_what_still_waits():
    window: Window[str] = Window(10, last_sequence=HIGHEST_SEQUENCE - 2)
    assert window.open("a", 0.0) == HIGHEST_SEQUENCE - 1
    assert window.open("b", 0.0) == HIGHEST_SEQUENCE
    assert window.open("c", 0.0) == 1
    window = Window(10, last_sequence=HIGHEST_SEQUENCE - 1)
    window.open("a", 0.0)
    first = window.open("b", 0.0)
    window._last = HIGHEST_SEQUENCE - 1
    assert (first, window.next_sequence(), window.open("c", 0.0)) == (1, 2, 3)


def test_what_waited_is_given_once():
    window: Window[str] = Window(10)
    sequence = window.open("a", 0.0)
    assert (window.take(sequence), window.take(sequence), window.take(99)) == ("a", None, None)


def test_room():
    window: Window[str] = Window(2)
    assert (window.room, window.full) == (2, False)
    window.open("a", 0.0)
    window.open("b", 0.0)
    window.open("c", 0.0)  # custody's, say
    assert (window.room, window.full, len(window)) == (0, True, 3)
    window.take(1)
    window.take(2)
    assert (window.room, window.full) == (1, False)


def test_the_oldest_is_the_first_sent_that_still_waits():
    window: Window[str] = Window(10)
    assert window.oldest() is None
    for name in "abc":
        window.open(name, 0.0)
    window.take(1)
    assert window.oldest() == "b"


def test_what_is_overdue():
    window: Window[str] = Window(10)
    for at, name in enumerate("abcd"):
        window.open(name, float(at))
    assert list(window.sent_until(1.0)) == [(1, "a"), (2, "b")]
    assert window.take_sent_until(1.0) == ["a", "b"]
    assert window.take_sent_until(1.0) == []
    assert window.take_all() == ["c", "d"]
    assert len(window) == 0


@given(st.lists(st.tuples(st.sampled_from(["open", "take"]), st.integers(0, 30)), max_size=200))
def test_no_two_that_wait_share_a_number(steps):
    window: Window[int] = Window(1000, last_sequence=HIGHEST_SEQUENCE - 20)
    waiting: dict[int, int] = {}
    for number, (step, which) in enumerate(steps):
        if step == "open":
            sequence = window.open(number, float(number))
            assert 1 <= sequence <= HIGHEST_SEQUENCE
            assert sequence not in waiting
            waiting[sequence] = number
        elif waiting:
            sequence = sorted(waiting)[which % len(waiting)]
            assert window.take(sequence) == waiting.pop(sequence)
        assert len(window) == len(waiting)
        assert window.oldest() == min(waiting.values(), default=None)
