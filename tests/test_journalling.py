"""When a store journals open messages, whom it tells then, and that no crash at any point loses one that was told."""

import pytest
import structlog.testing
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_world import JOURNAL_AFTER_S, World, an_open

from dlrproxy.store.port import StoreError, Table

LONGER_S = JOURNAL_AFTER_S + 0.1


async def quiet():
    await trio.testing.wait_all_tasks_blocked()


async def test_a_commit_in_time_writes_nothing_to_the_journal(autojump_clock):
    async with World().running() as world:
        for number in range(5):
            world.put(b"%d" % number)
            await trio.sleep(1)
        assert world.ids_told == [b"0", b"1", b"2", b"3", b"4"]
        assert world.disk.writes == 0


async def test_a_commit_that_is_late_by_less_writes_nothing_to_the_journal(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.put(b"1")
        await trio.sleep(JOURNAL_AFTER_S - 0.01)
        assert world.told == []
        world.backend.gate.open()
        await quiet()
        assert world.ids_told == [b"1"]
        await trio.sleep(10)
        assert world.disk.writes == 0


async def test_a_late_commit_tells_the_gateway_once_the_journal_has_the_message(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        message = world.put(b"1")
        world.note_durable("1")
        await trio.sleep(LONGER_S)
        assert world.told == [message]
        assert world.journal.holds(message)
        assert world.durable == []  # what waits for the database waits on
        world.backend.gate.open()
        await quiet()
        assert world.durable == ["1"]
        assert world.told == [message]


@pytest.mark.parametrize("idle_s", [0.0, 0.1, 0.24, 0.25, 3.1])
async def test_the_journal_is_used_after_its_time_whenever_the_commit_began(autojump_clock, idle_s):
    async with World().running() as world:
        await trio.sleep(idle_s)
        world.backend.gate.close()
        world.put(b"1")
        began_at = trio.current_time()
        await trio.sleep(60)
        assert [at - began_at for at in world.told_at] == pytest.approx([JOURNAL_AFTER_S])


async def test_a_backend_that_fails_at_once_is_late_as_well(autojump_clock):
    async with World().running() as world:
        world.backend.gate.failures = 4
        message = world.put(b"1")
        await trio.sleep(LONGER_S)
        assert world.told == [message]
        assert world.backend.durable.opens == {}
        await trio.sleep(30)
        assert world.backend.durable.opens == {message.key: message}
        assert world.journal.size == 0


async def test_what_collects_behind_a_late_commit_is_told_in_the_order_of_registration(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.put(b"1")
        await quiet()  # in the committing group; the others collect
        world.put(b"2")
        world.put(b"3")
        await trio.sleep(LONGER_S)
        assert world.ids_told == [b"1", b"2", b"3"]
        world.put(b"4")
        await quiet()  # a stall goes on: nothing waits another quarter of a second
        assert world.ids_told == [b"1", b"2", b"3", b"4"]
        world.backend.gate.open()
        await quiet()
        assert world.ids_told == [b"1", b"2", b"3", b"4"]


async def test_what_is_put_while_the_journal_writes_is_not_told_by_that_write(autojump_clock):
    """The relay adds responses to a callback that is registered, as long as the store's group is the same."""
    async with World().running() as world:
        world.backend.gate.close()
        world.disk.gate.close()
        world.put(b"1")
        await trio.sleep(LONGER_S)
        group = world.store.group
        world.put(b"2")
        assert world.store.group == group
        world.disk.gate.failures = 1
        world.disk.gate.open()
        await quiet()
        assert world.told == []  # that write failed
        await trio.sleep(2)
        assert world.ids_told == [b"1", b"2"]


async def test_the_group_counts_on_with_each_write_of_the_journal(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.put(b"1")
        await quiet()
        world.put(b"2")
        before = world.store.group
        await trio.sleep(LONGER_S)
        assert world.store.group > before


async def test_the_journal_forgets_what_the_database_has(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.put(b"1")
        await quiet()
        world.put(b"2")
        await trio.sleep(LONGER_S)
        assert world.journal.size == 2
        world.backend.gate.open()
        await trio.sleep(1)
        assert world.journal.size == 0
        assert world.disk.rows == {}


async def test_what_becomes_durable_while_the_journal_writes_it_is_forgotten_as_well(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.disk.gate.close()
        world.put(b"1")
        await trio.sleep(LONGER_S)
        world.backend.gate.open()
        await quiet()
        assert world.ids_told == [b"1"]
        world.disk.gate.open()
        await trio.sleep(1)
        assert world.journal.size == 0
        assert world.disk.rows == {}


async def test_an_id_that_is_used_again_stays_until_the_database_has_the_later_message(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.put(b"1", submitted_at=900.0, owner="gw1")
        await quiet()
        later = world.put(b"1", submitted_at=901.0, owner="gw2")
        await trio.sleep(LONGER_S)
        assert world.journal.holds(later)
        world.backend.gate.open()
        await trio.lowlevel.checkpoint()
        await trio.sleep(1)
        assert world.backend.durable.opens == {later.key: later}
        assert world.journal.size == 0


async def test_a_message_that_is_closed_before_it_is_durable_is_forgotten_with_it(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.store.put(Table.CUSTODY, b"k", b"v")  # the committing group
        await quiet()
        message = world.put(b"1")
        await trio.sleep(LONGER_S)
        assert world.told == [message]
        world.store.close_open("acme", b"1", 950.0, 1500.0)
        world.backend.gate.open()
        await trio.sleep(1)
        assert world.backend.durable.opens[message.key].final_at == 950.0
        assert world.journal.size == 0


async def test_a_message_that_is_closed_while_its_commit_is_late_is_journalled_again(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.store.put(Table.CUSTODY, b"k", b"v")  # the committing group
        await quiet()
        world.put(b"1")
        await trio.sleep(LONGER_S)
        world.store.close_open("acme", b"1", 950.0, 1500.0)
        world.put(b"2")
        await quiet()
        assert world.journal.holds(an_open(b"1", final_at=950.0))


async def test_a_message_that_is_closed_while_its_journalling_fails_is_journalled_as_closed(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.disk.gate.close()
        world.store.put(Table.CUSTODY, b"k", b"v")  # the committing group
        await quiet()
        messages = [world.put(b"1"), world.put(b"2")]
        await trio.sleep(LONGER_S)
        world.store.close_open("acme", b"1", 950.0, 1500.0)
        world.disk.gate.failures = 1
        world.disk.gate.open()
        await trio.sleep(2)
        assert world.told == messages
        assert {row.final_at for _, row in await world.journal.rows()} == {950.0, 0.0}


async def test_a_late_commit_has_the_journal_look_at_each_message_once(autojump_clock):
    """However many wait: a node whose database is slow has no time for them all at each write."""
    looked_at = []
    async with World().running() as world:
        holds = world.journal.holds
        world.journal.holds = lambda message: looked_at.append(message) or holds(message)
        world.backend.gate.close()
        messages = []
        for number in range(20):
            messages.append(world.put(b"%d" % number))
            await trio.sleep(JOURNAL_AFTER_S)
        assert world.told == looked_at == messages
        assert world.disk.writes > 10  # not all at once


async def test_a_stop_that_interrupts_the_journal_has_closing_save_what_it_was_about_to_write(autojump_clock):
    async def write_for_ever(messages):
        await trio.sleep_forever()

    async with World().running() as world:
        write = world.journal.write
        world.journal.write = write_for_ever
        world.backend.gate.close()
        message = world.put(b"1")
        await trio.sleep(LONGER_S)
    world.journal.write = write
    world.store.abandon()
    await world.store.close()
    assert world.told == []
    assert world.journal.holds(message)


async def test_a_journal_that_fails_tells_nobody_and_the_database_everybody(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.disk.gate.failures = 1000
        message = world.put(b"1")
        with structlog.testing.capture_logs() as logs:
            await trio.sleep(10)
        assert world.told == []
        assert {entry["event"] for entry in logs} == {"journal.failed"}
        assert len(logs) <= 11  # no more than one a second
        world.backend.gate.open()
        await quiet()
        assert world.told == [message]


async def test_a_journal_that_works_again_tells(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.disk.gate.failures = 2
        message = world.put(b"1")
        await trio.sleep(10)
        assert world.told == [message]
        assert world.disk.replaced >= 2  # no sync is repeated on the same files


async def test_what_could_not_be_forgotten_is_forgotten_later(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.put(b"1")
        await trio.sleep(LONGER_S)
        world.disk.gate.failures = 3
        world.backend.gate.open()
        await trio.sleep(10)
        assert world.journal.size == 0


async def test_at_the_bound_nothing_more_is_journalled_and_gateways_wait(autojump_clock):
    async with World(max_rows=3).running() as world:
        world.backend.gate.close()
        for number in range(3):
            world.put(b"%d" % number)
        await trio.sleep(LONGER_S)
        assert len(world.told) == 3
        world.put(b"3")
        with structlog.testing.capture_logs() as logs:
            await trio.sleep(3)
        assert len(world.told) == 3
        assert world.journal.size == 3
        assert {entry["event"] for entry in logs} == {"journal.failed"}
        assert not world.store.accepting  # the stall alone has seen to that
        world.backend.gate.open()
        await trio.sleep(5)
        assert world.ids_told == [b"0", b"1", b"2", b"3"]
        assert world.journal.size == 0


async def test_rows_of_custody_wait_for_the_database(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.store.put(Table.CUSTODY, b"k", b"v")
        world.note_durable("k")
        await trio.sleep(60)
        assert world.durable == []
        assert world.disk.writes == 0


async def test_with_only_rows_waiting_there_are_no_open_messages_to_wait_for(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.store.put(Table.CUSTODY, b"k", b"v")
        await quiet()
        called = []
        world.store.after_opened(lambda: called.append(1))
        await trio.sleep(LONGER_S)
        assert called == [1]
        assert world.disk.writes == 0


async def test_a_stall_refuses_new_work_with_a_journal_as_without(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.put(b"1")
        await trio.sleep(5)
        assert not world.store.accepting


async def test_closing_while_the_database_is_away_leaves_the_messages_in_the_journal(autojump_clock):
    async with World().running() as world:
        world.backend.gate.failures = 1000
        message = world.put(b"1")
        await quiet()
    later = world.put(b"2")
    with pytest.raises(StoreError):
        await world.store.close()
    assert world.journal.holds(message)
    assert world.journal.holds(later)
    assert world.backend.closed


async def test_closing_while_the_database_stands_still_saves_what_its_canceller_cannot_wait_for(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        message = world.put(b"1")
        await quiet()
    with trio.move_on_after(1) as patience:
        await world.store.close()
    assert patience.cancelled_caught
    assert world.journal.holds(message)


async def test_closing_well_leaves_the_journal_empty(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        message = world.put(b"1")
        await trio.sleep(LONGER_S)
        assert world.journal.size == 1
    world.backend.gate.open()
    await world.store.close()
    assert world.backend.durable.opens == {message.key: message}
    assert world.journal.size == 0


async def test_abandoning_waits_for_no_database_tells_nobody_and_saves_all(autojump_clock):
    async with World().running() as world:
        world.backend.gate.close()
        world.store.put(Table.CUSTODY, b"k", b"v")
        world.note_durable("k")
        messages = [world.put(b"1")]
        await quiet()
        messages.append(world.put(b"2"))
    began_at = trio.current_time()
    world.store.abandon()
    await world.store.close()
    assert trio.current_time() == began_at
    assert (world.told, world.durable) == ([], [])
    assert all(world.journal.holds(message) for message in messages)
    assert world.backend.closed


async def test_a_running_store_cannot_be_closed(autojump_clock):
    async with World().running() as world:
        await quiet()
        with pytest.raises(RuntimeError, match="two writers"):
            await world.store.close()


# --- a crash at any point: `World.happened` asserts at every write and every answer

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from([b"1", b"2", b"3"])),
        st.tuples(st.just("close"), st.sampled_from([b"1", b"2", b"3"])),
        st.tuples(st.just("row"), st.just(b"k")),
        st.tuples(st.just("stall"), st.booleans()),
        st.tuples(st.just("journal_stall"), st.booleans()),
        st.tuples(st.just("fail"), st.integers(0, 3)),
        st.tuples(st.just("journal_fail"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.2, 0.3, 2.0])),
    ),
    max_size=40,
)


class Play:
    def __init__(self, world):
        self.world = world
        self.now = 900.0

    async def put(self, message_id):
        self.now += 0.001
        self.world.put(message_id, submitted_at=self.now)

    async def close(self, message_id):
        self.now += 0.001
        if self.world.store.recent("acme", message_id) is not None:
            self.world.store.close_open("acme", message_id, self.now, 5000.0)

    async def row(self, key):
        self.world.store.put(Table.CUSTODY, key, b"v")

    async def stall(self, stands):
        gate = self.world.backend.gate
        gate.close() if stands else gate.open()

    async def journal_stall(self, stands):
        gate = self.world.disk.gate
        gate.close() if stands else gate.open()

    async def fail(self, times):
        self.world.backend.gate.failures = times

    async def journal_fail(self, times):
        self.world.disk.gate.failures = times

    async def wait(self, seconds):
        await trio.sleep(seconds)


async def play(steps):
    world = World()
    expected = []
    async with world.running():
        plays = Play(world)
        for step, argument in steps:
            if step == "put":
                expected.append(argument)
            await getattr(plays, step)(argument)
        world.disk.gate.open()
        world.backend.gate.open()
        await trio.sleep(200)
        assert world.ids_told == expected  # each once, in the order of registration
        assert world.journal.size == 0
        assert world.disk.rows == {}
        assert world.store.accepting


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_no_crash_at_any_point_loses_what_was_told(steps):
    trio.run(play, steps, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_the_check_of_crashes_finds_an_answer_that_comes_too_early(autojump_clock):
    world = World()
    with pytest.raises(AssertionError):
        world.tell(an_open(b"1"))
