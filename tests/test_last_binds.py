"""rebind_wait_s over restarts, and the dead session that an operator still holds."""

import pytest
import structlog
import trio
import trio.testing
from one_node import GOES_ON, one_node, submit
from operator_world import Smsc, operator_side
from relay_world import World, command_of, sequence_of

from dlrproxy.operators import Operators
from dlrproxy.sessions.binding import HELD_TRIES
from dlrproxy.sessions.last_binds import UP_EVERY_S, LastBinds
from dlrproxy.store.port import StoreError, Table
from protocols.smpp import constants as c
from protocols.smpp.pdu import pack


class Memory:
    """What is kept of the binds, with a clock to move."""

    def __init__(self, wait_s=30.0):
        self.world = World(rebind_wait_s=wait_s)

    def of(self):
        """As each run has it."""
        return LastBinds(self.world.store, self.world.operator, lambda: self.world.now)

    def later(self, seconds):
        self.world.now += seconds


async def test_a_bind_that_never_was_needs_no_wait():
    assert await Memory().of().rest_s("1") == 0


@pytest.mark.parametrize(("later", "rest"), [(0, 30), (12, 18), (30, 0), (3600, 0)])
async def test_the_rest_of_the_wait_is_left_after_an_unbind(later, rest):
    memory = Memory()
    memory.of().ended("1")
    memory.later(later)
    assert await memory.of().rest_s("1") == pytest.approx(rest)
    assert await memory.of().rest_s("2") == 0


async def test_a_bind_whose_end_nobody_noted_may_have_lived_until_the_next_note():
    memory = Memory()
    memory.of().up(["1", "2"])
    memory.later(10)
    assert await memory.of().rest_s("1") == pytest.approx(20 + UP_EVERY_S)
    assert await memory.of().rest_s("2") == pytest.approx(20 + UP_EVERY_S)


async def test_a_clock_that_was_set_back_makes_no_longer_wait():
    memory = Memory()
    memory.of().up(["1"])
    memory.later(-1000)
    assert await memory.of().rest_s("1") == 30 + UP_EVERY_S


async def test_without_a_wait_nothing_is_written():
    memory = Memory(0)
    memory.of().up(["1"])
    memory.of().ended("1")
    assert await memory.world.store.scan(Table.META) == []
    assert await memory.of().rest_s("1") == 0


async def test_a_note_that_cannot_be_read_is_an_error():
    memory = Memory()
    memory.of().ended("1")
    [(key, _)] = await memory.world.store.scan(Table.META)
    memory.world.store.put(Table.META, key, b"ended soon")
    with pytest.raises(StoreError, match="damaged"):
        await memory.of().rest_s("1")


async def release(side, peer):
    side.release()
    unbind = await peer.receive()
    await peer.send(pack(c.UNBIND_RESP, 0, sequence_of(unbind)))
    await side.released.wait()


async def restarted(side, smsc):
    """The binds of another run of the node, over the same store: when they are made, and what the log said."""
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Operators(side.world.relay, structlog.get_logger()).run)
            began = trio.current_time()
            await smsc.bound()
            took = trio.current_time() - began
            for peer in smsc.peers:
                await trio.aclose_forcefully(peer.stream)
            nursery.cancel_scope.cancel()
    return took, logs


async def test_a_restart_waits_out_the_rest():
    smsc = Smsc()
    async with operator_side(smsc, rebind_wait_s=0.4) as side:
        await release(side, await smsc.bound())
        side.world.now += 0.1  # the node's clock stands still in these tests
        took, logs = await restarted(side, smsc)
        assert took >= 0.25
        assert logs[0]["event"] == "operator.waiting"
        assert (logs[0]["wait_s"], logs[0]["why"]) == (0.3, "rebind_wait_s")


async def test_a_bind_is_noted_at_once_and_then_while_it_is_up(monkeypatch):
    monkeypatch.setattr("dlrproxy.operators.UP_EVERY_S", 0.05)
    async with operator_side(rebind_wait_s=0.2) as side:
        peer = await side.smsc.bound()
        store = side.world.store
        assert await store.get(Table.META, b"bind/acme/1") == b"up 1000.000"
        side.world.now += 7
        with trio.fail_after(100):
            while await store.get(Table.META, b"bind/acme/1") != b"up 1007.000":
                await trio.testing.wait_all_tasks_blocked(0.01)
        await release(side, peer)
        assert (await store.get(Table.META, b"bind/acme/1")).startswith(b"ended ")


async def test_where_the_last_bind_is_not_known_the_whole_wait_is_kept():
    smsc = Smsc()
    async with operator_side(smsc, rebind_wait_s=0.2) as side:
        peer = await smsc.bound()
        await release(side, peer)
        side.world.store.put(Table.META, b"bind/acme/1", b"?")
        took, logs = await restarted(side, smsc)
        assert took >= 0.15
        assert (logs[0]["event"], logs[0]["log_level"]) == ("operator.last_bind_unknown", "error")


async def refuse(smsc, status):
    peer = await smsc.accept()
    request = await peer.receive()
    await peer.send(pack(command_of(request) | c.RESPONSE_BIT, status, sequence_of(request)))
    await trio.aclose_forcefully(peer.stream)


async def test_a_session_that_the_operator_still_holds_is_not_waited_for_by_the_minute(monkeypatch):
    monkeypatch.setattr("dlrproxy.sessions.binding.HELD_WAIT_S", 0.01)
    async with operator_side(refused_bind_s=300) as side:
        with structlog.testing.capture_logs() as logs:
            for _ in range(HELD_TRIES):
                await refuse(side.smsc, c.ESME_RALYBND)
            await side.smsc.bound()
        assert side.world.counters.bind_refusals == HELD_TRIES
        waits = [line["wait_s"] for line in logs if line["event"] == "operator.bind_refused"]
        assert waits == [0.01] * HELD_TRIES
        assert side.operators.slots[0].held == 0


async def test_one_that_it_holds_for_good_is(monkeypatch):
    monkeypatch.setattr("dlrproxy.sessions.binding.HELD_WAIT_S", 0.01)
    async with operator_side(refused_bind_s=300) as side:
        with structlog.testing.capture_logs() as logs:
            for _ in range(HELD_TRIES + 1):
                await refuse(side.smsc, c.ESME_RALYBND)
            with trio.move_on_after(0.3) as waiting:
                await side.smsc.accept()
            assert waiting.cancelled_caught
        waits = [line["wait_s"] for line in logs if line["event"] == "operator.bind_refused"]
        assert waits == [0.01] * HELD_TRIES + [300]


async def test_another_refusal_in_between_is_as_long_as_ever(monkeypatch):
    monkeypatch.setattr("dlrproxy.sessions.binding.HELD_WAIT_S", 0.01)
    async with operator_side(refused_bind_s=0.05) as side:
        with structlog.testing.capture_logs() as logs:
            await refuse(side.smsc, c.ESME_RALYBND)
            await refuse(side.smsc, c.ESME_RINVPASWD)
            await side.smsc.bound()
        waits = [line["wait_s"] for line in logs if line["event"] == "operator.bind_refused"]
        assert waits == [0.01, 0.05]


@pytest.mark.processes
async def test_a_node_that_was_killed_waits_out_the_rest(tmp_path):
    async with one_node(tmp_path, {"operators": {"rebind_wait_s": 300}}) as scene:
        await scene.node.start()
        bind = await scene.bound()
        await submit(await scene.bound_gateway(), bind, GOES_ON)  # so that what was written before is on disk
        await scene.node.kill()
        await scene.node.start()
        waiting = await scene.node.seen("operator.waiting", why="rebind_wait_s")
        assert 100 < waiting["wait_s"] <= 300 + UP_EVERY_S
