"""The driver of summaries: what the store holds and what changes in it reaches the other nodes."""

import trio

from dlrproxy.logs import logger
from dlrproxy.modes.summaries import SummaryExchange
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import OpenMessage, StoreError
from protocols.peer.frames import VERSION, SummaryPart, SummaryWanted
from ring.summaries import Summaries
from ring.topology import Topology

OTHERS = {"gw2": VERSION}


def open_message(number):
    return OpenMessage("acme", b"%d" % number, "shop", b"4479", b"7000", 1, 0.0, 1e9)


class OneSided:
    """gw1 with its exchange, and gw2 that hears all it says."""

    def __init__(self, count=0):
        self.store = MemoryStore(lambda: 100.0)
        for number in range(count):
            self.store.put_open(open_message(number))
        self.machine = Summaries(Topology(["gw1", "gw2"], "gw1"), 16)
        self.other = Summaries(Topology(["gw1", "gw2"], "gw2"), 16)
        self.exchange = SummaryExchange(self.machine, self.store, self.send, logger("ring"))
        self.machine.reachable(OTHERS, trio.current_time())
        self.machine.frame("gw2", SummaryWanted(), trio.current_time())
        self.changed = trio.Event()

    def send(self, to, frame):
        assert to == "gw2"
        if isinstance(frame, SummaryPart):
            self.other.frame("gw1", frame, trio.current_time())
            self.changed.set()
        return True

    def knows(self, number):
        return self.other.likely("acme", b"%d" % number, ["gw1"]) == "gw1"

    async def until(self, condition):
        while not condition():
            self.changed = trio.Event()
            await self.changed.wait()


async def test_what_an_earlier_run_left_open_and_what_changes_now_is_told(autojump_clock):
    world = OneSided(1200)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.exchange.run)
        await world.until(lambda: world.machine.own == 1200 and world.knows(0) and world.knows(1199))
        world.store.put_open(open_message(5000))
        world.store.close_open("acme", b"0", 100.0, 200.0)
        await world.until(lambda: world.knows(5000) and not world.knows(0))
        nursery.cancel_scope.cancel()


async def test_a_store_that_cannot_be_read_for_a_moment_is_read_again(autojump_clock):
    world = OneSided(10)
    failures = [StoreError("just now"), StoreError("still")]
    read = world.store.scan_open

    async def scan_open(after, limit):
        if failures:
            raise failures.pop()
        return await read(after, limit)

    world.store.scan_open = scan_open
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.exchange.run)
        await world.until(lambda: world.knows(9))
        nursery.cancel_scope.cancel()
