"""Summaries over the links of whole ring modes: what one node's store holds, the other one's summaries name."""

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from dlrproxy.clock import NodeClock
from dlrproxy.config import parse
from dlrproxy.custody import Keeper
from dlrproxy.demo.ports import reserved
from dlrproxy.logs import RouteLog, logger
from dlrproxy.modes import ring
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import OpenMessage
from ring.custody import Custody

PATIENCE_S = 100.0


def config(directory, name, ports, summary_mb):
    peers = "".join(f'[[peers]]\nname = "gw{n}"\nurl = "ws://127.0.0.1:{port}"\n' for n, port in enumerate(ports, 1))
    operator = 'name = "acme"\nhost = "localhost"\nport = 2775\nsystem_id = "shop"\npassword = "x"\n'
    return parse(
        f'[node]\nname = "{name}"\ndata_dir = "{directory}"\n[[operators]]\n{operator}listen = "127.0.0.1:2776"\n'
        f"{peers}[ring]\nsummary_mb = {summary_mb}\n"
    )


class Node:
    """A node's ring mode, and the store that it follows."""

    def __init__(self, settings, held):
        clock = NodeClock()
        self.store = MemoryStore(clock.now)
        for number in range(held):
            self.open(b"old%d" % number)
        self.summaries = ring.summaries(settings)
        topology = ring.topology(settings)
        machine = Custody(topology=topology, store_id=self.store.store_id, run=1, owners=self.summaries)
        keeper = Keeper(machine, self.store, clock, RouteLog(settings.node.name))
        keeper.attach({}, self.send)
        self.mode = ring.RingMode(settings, self.store, keeper, self.summaries, dict, self.adopt, logger("ring"))
        self._take = self.mode.on_frames
        self.mode.on_frames = self.on_frames
        self._heard = trio.Event()

    def on_frames(self, peer, frames):
        self._take(peer, frames)
        self._heard.set()

    async def until(self, condition):
        """It becomes true with something that this node hears."""
        with trio.fail_after(PATIENCE_S):
            while not condition():
                self._heard = trio.Event()
                await self._heard.wait()

    def send(self, peer, frame):
        return self.mode.send(peer, frame)

    def adopt(self, operator, rule, evidence):
        raise AssertionError("nothing is learned here")

    def open(self, message_id):
        self.store.put_open(OpenMessage("acme", message_id, "shop", b"4479", b"7000", 1, 0.0, 1e12))

    def names(self, message_id, nodes):
        return self.summaries.likely("acme", message_id, nodes)


@asynccontextmanager
async def running(*nodes):
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.mode.run)
        yield nursery
        nursery.cancel_scope.cancel()


@pytest.fixture
def make(tmp_path):
    with reserved(2) as ports:
        yield lambda name, held=0, summary_mb=64: Node(config(tmp_path, name, ports, summary_mb), held)


async def test_what_a_node_holds_and_opens_is_named_by_the_other_until_it_is_closed(make):
    one, other = make("gw1"), make("gw2", held=700)
    async with running(one, other):
        await one.until(lambda: one.names(b"old0", ["gw2"]) == one.names(b"old699", ["gw2"]) == "gw2")
        other.open(b"new")
        await one.until(partial(one.names, b"new", ["gw2"]))
        other.store.close_open("acme", b"new", 1.0, 1e12)
        await one.until(lambda: one.names(b"new", ["gw2"]) is None)
        await other.until(lambda: other.summaries.known()["gw1"].current)
        assert one.summaries.known()["gw2"].current


async def test_a_node_whose_summaries_are_off_works_with_one_whose_are_on(make):
    one, other = make("gw1", summary_mb=0), make("gw2", held=1)
    assert one.summaries is None
    async with running(one, other):
        await one.until(
            lambda: any(peer.frames_in > 0 for peer in one.mode.peers())
        )  # it has been asked, and says nothing
        assert not other.summaries.known()["gw1"].current
