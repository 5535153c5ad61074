"""The service of a node that serves at times, over a store on disk: its beginning and end, and reloads meanwhile."""

import contextlib

import pytest
import structlog
import trio
import trio.testing
from attrs import evolve

from dlrproxy.clock import NodeClock
from dlrproxy.config import parse
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.logs import RouteLog
from dlrproxy.modes.terms import Terms
from dlrproxy.store.port import StoreError, Table
from dlrproxy.store.rocks import open_rocks

LONG_S = 100


def config_of(data_dir, port):
    return parse(f"""
        [node]
        name = "a"
        data_dir = "{data_dir}"
        min_free_mb = 16
        drain_s = 5
        [[operators]]
        name = "acme"
        host = "{LOOPBACK}"
        port = 1
        system_id = "shop"
        password = "secret"
        listen = {{ shop = "{LOOPBACK}:{port}" }}
    """)


class Scene:
    def __init__(self, config):
        self.config = config
        self.store = None
        self.fails = []  # what keeps the store from being opened, one after the other
        self.prepare = lambda store: None  # called with each store that is opened
        self.clock = NodeClock()
        self.terms = Terms(config, self._open, self.clock, RouteLog.of(config.log, "a", None), lambda: float("inf"))

    async def _open(self):
        if self.fails:
            raise self.fails.pop(0)
        self.store = await open_rocks(self.config.node.data_dir, self.clock.now, min_free_mb=16)
        self.prepare(self.store)
        return self.store

    def with_window(self, window):
        (operator,) = self.config.operators
        return evolve(self.config, operators=(evolve(operator, window=window),))

    async def started(self):
        with trio.fail_after(LONG_S):
            while self.terms.term is None:  # noqa: ASYNC110 - what a thread leads to
                await trio.sleep(0.01)
            await self.terms.term.started.wait()
            return self.terms.term


@pytest.fixture
async def scene(tmp_path):
    with reserved(1) as (port,):
        made = Scene(config_of(tmp_path, port))
        async with trio.open_nursery() as nursery:
            await nursery.start(made.terms.run)
            yield made
            with trio.fail_after(LONG_S):
                await made.terms.release("the test is over")
            nursery.cancel_scope.cancel()


def window(term):
    return term.fronts["acme"].relay.operator.window


@contextlib.contextmanager
def held(monkeypatch, store, name):
    """What is asked of the store by that name waits inside; yields an event that it has come there."""
    there, go_on = trio.Event(), trio.Event()
    ask = getattr(store, name)

    async def wait(*args, **kwargs):
        there.set()
        with trio.CancelScope(shield=True):
            await go_on.wait()
        return await ask(*args, **kwargs)

    monkeypatch.setattr(store, name, wait)
    try:
        yield there
    finally:
        go_on.set()


async def test_a_reload_counts_for_a_term_that_has_begun_and_does_not_listen_yet(scene, monkeypatch):
    with contextlib.ExitStack() as stack:
        there = []
        scene.prepare = lambda store: there.append(stack.enter_context(held(monkeypatch, store, "scan")))
        await scene.terms.serve(1)
        with trio.fail_after(LONG_S):
            while not there:  # noqa: ASYNC110 - what a thread leads to
                await trio.sleep(0.01)
            await there[0].wait()
        reloaded = []

        async def reload():
            reloaded.append(await scene.terms.reload(scene.with_window(7)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload)
            await trio.testing.wait_all_tasks_blocked()
            stack.close()
    assert reloaded == [True]
    assert window(await scene.started()) == 7


async def test_a_reload_while_a_term_ends_counts_for_the_next_one(scene, monkeypatch):
    ending, go_on = trio.Event(), trio.Event()

    def hold(store):
        run = store.run

        async def run_and_wait():
            try:
                await run()
            finally:
                ending.set()
                with trio.CancelScope(shield=True):
                    await go_on.wait()

        monkeypatch.setattr(store, "run", run_and_wait)

    scene.prepare = hold
    await scene.terms.serve(1)
    term = await scene.started()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.terms.wind_down)
        await scene.terms.reload(scene.with_window(7))  # whichever is first
        with trio.fail_after(LONG_S):
            await ending.wait()
        assert not await scene.terms.reload(scene.with_window(8))
        go_on.set()
    await scene.terms.release("it is over")
    await scene.terms.serve(2)
    assert window(term) != 8
    assert window(await scene.started()) == 8


async def test_what_a_graceful_end_could_not_store_is_told(scene, monkeypatch):
    await scene.terms.serve(1)
    await scene.started()
    close = scene.store.close

    async def closing():
        await close()
        raise StoreError("the disk is full")

    monkeypatch.setattr(scene.store, "close", closing)
    with structlog.testing.capture_logs() as logged:
        await scene.terms.wind_down()
    assert [(each["event"], each["detail"]) for each in logged if each["log_level"] == "error"] == [
        ("pair.ended_badly", "the disk is full")
    ]


async def test_a_term_that_could_not_begin_is_tried_again_and_ends_without_waiting_for_that(scene, monkeypatch):
    monkeypatch.setattr("dlrproxy.modes.terms.RETRY_MIN_S", 0.01)
    scene.fails = [StoreError("away"), StoreError("away")]
    await scene.terms.serve(1)
    await scene.started()
    monkeypatch.setattr("dlrproxy.modes.terms.RETRY_MIN_S", float("inf"))
    broken = trio.Event()

    def fail(*_):
        broken.set()
        raise StoreError("lost")

    monkeypatch.setattr(scene.store._backend, "write", fail)
    scene.store.put(Table.META, b"x", b"y")
    with trio.fail_after(LONG_S):
        await broken.wait()
        while scene.terms.term is not None:  # noqa: ASYNC110 - the end of a term
            await trio.sleep(0.01)
        await scene.terms.wind_down()


async def test_terms_that_cannot_begin_are_tried_ever_more_slowly_also_from_turn_to_turn(scene, monkeypatch):
    monkeypatch.setattr("dlrproxy.modes.terms.RETRY_MIN_S", 0.01)
    monkeypatch.setattr("dlrproxy.modes.terms.RETRY_MAX_S", 0.05)
    with structlog.testing.capture_logs() as logged:

        def waits(epoch):
            failed = [each for each in logged if each["event"] == "pair.cannot_serve"]
            return [each["wait_s"] for each in failed if each["epoch"] == epoch]

        for epoch in (1, 2):
            scene.fails = [StoreError("away")] * 100_000
            await scene.terms.serve(epoch)
            with trio.fail_after(LONG_S):
                while len(waits(epoch)) < 2:  # noqa: ASYNC110 - two attempts
                    await trio.sleep(0.01)
            await scene.terms.release("it is over")
        for epoch in (3, 4):
            scene.fails = [StoreError("away")]
            await scene.terms.serve(epoch)
            await scene.started()
            await scene.terms.release("it is over")
    assert waits(1)[:2] == [0.01, 0.02]
    assert waits(2)[0] > 0.02
    assert (waits(3), waits(4)) == ([0.05], [0.01])
