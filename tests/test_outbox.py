"""ring/outbox.py: frames on their way to one peer, bounded, in order."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from protocols.peer.frames import MAX_MESSAGE_BYTES, FrameError, Heartbeat, Learned, decode, encode_frame, join
from ring.outbox import Outbox


def note(size):
    return Learned(operator="x" * size, rule="exact", evidence=0)


def test_it_is_bounded_by_count():
    outbox = Outbox(max_frames=2, max_bytes=1000)
    assert [outbox.put(note(1)) for _ in range(3)] == [True, True, False]
    assert len(outbox) == 2


def test_it_is_bounded_by_bytes():
    size = len(encode_frame(note(100)))
    outbox = Outbox(max_frames=100, max_bytes=2 * size)
    assert [outbox.put(note(100)) for _ in range(3)] == [True, True, False]
    assert outbox.size == 2 * size
    assert not outbox.put(Heartbeat())


def test_what_is_taken_makes_room():
    outbox = Outbox(max_frames=2, max_bytes=1000)
    outbox.put(note(1))
    outbox.put(note(1))
    assert len(outbox.take(1, 1000)) == 1
    assert outbox.put(note(1))


def test_a_frame_that_no_peer_would_take_is_our_own_fault():
    outbox = Outbox(max_frames=2, max_bytes=2 * MAX_MESSAGE_BYTES)
    with pytest.raises(FrameError, match=r"a Learned of .* bytes does not fit into a message"):
        outbox.put(note(MAX_MESSAGE_BYTES))


@given(st.lists(st.integers(0, 50)), st.integers(1, 8), st.integers(1, 200))
def test_batches_keep_the_order_and_the_limits(sizes, max_frames, max_bytes):
    outbox = Outbox(max_frames=1000, max_bytes=100_000)
    sent = [note(size) for size in sizes]
    assert all(map(outbox.put, sent))
    received = []
    while outbox:
        batch = outbox.take(max_frames, max_bytes)
        assert 1 <= len(batch) <= max_frames
        assert len(batch) == 1 or sum(map(len, batch)) <= max_bytes
        received += decode(join(batch))
    assert received == sent
    assert outbox.size == 0
    assert outbox.take(max_frames, max_bytes) == []


async def test_the_writer_wakes_when_there_is_something_to_take():
    outbox = Outbox(max_frames=2, max_bytes=1000)
    with trio.move_on_after(0.01) as scope:
        await outbox.filled()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.filled)
        await trio.testing.wait_all_tasks_blocked()
        outbox.put(Heartbeat())
    with trio.fail_after(100):
        await outbox.filled()
