"""Two adjacent versions of the peer protocol in one ring: version 1, frozen in frames_v1.py, with the present one."""

import random
from collections import Counter
from contextlib import asynccontextmanager

import frames_v1
import msgspec
import pytest
import structlog
import trio
from custody_world import World
from scripted_peer import dialled
from trio_websocket import ConnectionClosed

from dlrproxy.clock import NodeClock
from dlrproxy.custody import Keeper
from dlrproxy.custody_port import Accepted
from dlrproxy.logs import RouteLog
from dlrproxy.store.memory import MemoryStore
from protocols.peer import frames
from protocols.peer.frames import Learned
from protocols.smpp.message_ids import NoMatch
from ring import tls
from ring.custody import Custody as Machine
from ring.link import Links
from ring.link_settings import LinkSettings
from ring.peer_url import PeerUrl
from ring.topology import Topology

PATIENT = LinkSettings(heartbeat_s=0.05, suspect_after_s=30, dead_after_s=60)


class NoMessages:
    """An operator's relay that has never sent anything."""

    def bound_gateways(self):
        return []

    async def find_owners(self, wanted):
        return [NoMatch() for _ in wanted]

    def wrap_up(self):
        pass


class CurrentNode:
    """gw2 as it runs now: links and custody, on a port of the system's choosing."""

    def __init__(self):
        self.logged = []
        self.frames = []
        self.received = trio.Event()
        clock = NodeClock()
        self.store = MemoryStore(clock.now)
        machine = Machine(topology=Topology(("gw1", "gw2"), "gw2"), store_id=b"2" * 8, run=1)
        self.keeper = Keeper(machine, self.store, clock, RouteLog("gw2"))
        self.links = Links(
            me="gw2",
            cluster="test",
            peers={"gw1": PeerUrl.parse("ws://127.0.0.1:1"), "gw2": PeerUrl.parse("ws://127.0.0.1:0")},
            settings=PATIENT,
            tls=tls.plain(),
            store_id=b"2" * 8,
            callbacks=self,
            log=structlog.wrap_logger(None, processors=[self._log], wrapper_class=structlog.BoundLogger),
            on_reachable=self.keeper.reachable,
        )
        self.keeper.attach({"acme": NoMessages()}, self.links.send)

    def _log(self, _logger, _level, event):
        self.logged.append(event)
        raise structlog.DropEvent

    def on_up(self, peer, hello):
        pass

    def on_down(self, peer, why):
        pass

    def on_frames(self, peer, frames):
        self.frames += frames
        self.keeper.frames(peer, [frame for frame in frames if not isinstance(frame, Learned)])
        self.received.set()
        self.received = trio.Event()

    async def until_received(self, frame):
        while frame not in self.frames:
            await self.received.wait()

    def peer(self):
        [status] = self.links.status()
        return status


@pytest.fixture
async def node():
    node = CurrentNode()
    async with trio.open_nursery() as nursery:
        await nursery.start(node.links.run)
        nursery.start_soon(node.keeper.run)
        with trio.fail_after(100):
            yield node
        nursery.cancel_scope.cancel()


class Peer:
    """gw1: the handshake of every version, and the frames of one."""

    def __init__(self, websocket, codec):
        self._websocket = websocket
        self._codec = codec
        self._waiting = []

    async def send(self, *sent):
        await self.send_bytes(self._codec.encode(sent))

    async def send_bytes(self, message):
        await self._websocket.send_message(message)

    async def next(self, kind):
        """The next frame of that kind; a message that this version cannot read raises FrameError."""
        while True:
            for number, frame in enumerate(self._waiting):
                if isinstance(frame, kind):
                    return self._waiting.pop(number)
            self._waiting += self._codec.decode(await self._websocket.get_message())


@asynccontextmanager
async def dialling(node, codec):
    port = node.links.listening[1]
    async with dialled(port, store_id=b"1" * 8, oldest=codec.OLDEST_VERSION, newest=codec.VERSION) as (_, websocket, _):
        yield Peer(websocket, codec)


async def test_a_node_of_version_1_claims_a_report_and_finishes_it(node):
    answers = []
    async with dialling(node, frames_v1) as peer:
        await peer.send(frames_v1.Learned("acme", "exact", 1))
        await node.until_received(Learned("acme", "exact", 1))
        assert node.links.versions() == {"gw1": 1}
        assert node.peer().version == 1
        node.keeper.accept(Accepted("acme", "dlr", b"id1", b"4479", b"pdu", True, "t1"), answers.append)
        forward = await peer.next(frames_v1.Forward)
        assert answers == [True]
        assert forward.envelope.pdu == b"pdu"
        key = forward.envelope.key
        await peer.send(frames_v1.Claimed(key, "gw1", forward.lap, forward.hop))
        assert await peer.next(frames_v1.Settled) == frames_v1.Settled(key, granted=True)
        await peer.send(frames_v1.Finished(key, "gw1"))
        assert await peer.next(frames_v1.Forgotten) == frames_v1.Forgotten(key)
        assert node.keeper.in_custody() == 0
        assert node.peer().ups == 1


async def test_a_node_of_version_1_passes_a_report_back_to_its_origin(node):
    async with dialling(node, frames_v1) as peer:
        key = frames_v1.EnvelopeKey(b"1" * 8, 1)
        envelope = frames_v1.Envelope(key, "gw1", "acme", "dlr", b"id1", b"4479", b"pdu", "t1", final=True)
        await peer.send(frames_v1.Forward(envelope, 1, 1, ("gw1",), False, 0.5, run=7))
        assert await peer.next(frames_v1.LapDone) == frames_v1.LapDone(key, 1, ("gw1", "gw2"), run=7)


async def test_a_frame_that_version_1_lacks_is_withheld_from_it_and_the_link_stays(node, monkeypatch):
    monkeypatch.setitem(frames.SINCE, Learned, 2)
    async with dialling(node, frames_v1) as peer:
        await peer.next(frames_v1.Heartbeat)
        assert not node.links.send("gw1", Learned("acme", "exact", 1))
        assert node.peer().frames_withheld == 1
        assert node.links.send("gw1", frames.Forgotten(frames.EnvelopeKey(b"1" * 8, 1)))
        await peer.next(frames_v1.Forgotten)
        assert node.peer().ups == 1
    assert [(event["version"], event["release"]) for event in node.logged if event["event"] == "peer.up"] == [(1, "")]


async def test_a_node_of_this_version_gets_it(node, monkeypatch):
    monkeypatch.setitem(frames.SINCE, Learned, 2)
    async with dialling(node, frames) as peer:
        await peer.next(frames.Heartbeat)
        assert node.links.send("gw1", Learned("acme", "exact", 1))
        assert await peer.next(Learned) == Learned("acme", "exact", 1)
        assert node.peer().frames_withheld == 0


async def test_frames_of_a_later_version_are_skipped_and_logged_once(node):
    later = msgspec.msgpack.encode([[99, "much", "more"]])
    async with dialling(node, frames) as peer:
        for number in (1, 2):
            await peer.send_bytes(later)
            await peer.send(Learned("acme", "exact", number))
            await node.until_received(Learned("acme", "exact", number))
        assert node.peer().frames_skipped == 2
    assert [event["tags"] for event in node.logged if event["event"] == "peer.frames_skipped"] == [[99]]


async def test_what_no_version_calls_a_frame_ends_the_link(node):
    async with dialling(node, frames) as peer:
        await peer.send_bytes(msgspec.msgpack.encode([["a", "b"]]))
        with pytest.raises(ConnectionClosed):
            await peer.next(Learned)


# Rings of machines


def mixed(*older, size=4):
    """A ring in which these nodes are of version 1."""
    world = World(size)
    for name in older:
        world.nodes[name].version = 1
    world.links_changed()
    return world


def test_a_machine_is_told_which_version_each_node_speaks():
    world = mixed("n1")
    machine = world.nodes["n0"].machine
    assert machine.speaking(1) == {"n1", "n2", "n3"}
    assert machine.speaking(2) == {"n2", "n3"}
    assert world.nodes["n1"].machine.speaking(2) == frozenset()
    world.nodes["n1"].version = frames.VERSION
    world.links_changed()
    assert machine.speaking(2) == {"n1", "n2", "n3"}


@pytest.mark.parametrize("older", [("n0",), ("n1",), ("n3",), ("n0", "n3"), ("n1", "n2")])
def test_a_report_goes_from_its_origin_to_its_owner_whichever_of_them_is_older(older):
    world = mixed(*older)
    world.submit("n3", b"id1")
    world.report("n0", b"id1", "t1", owner="n3")
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n3"]
    assert Counter(note.event for _, note in world.notes)["forwarded"] == 3
    world.check()


@pytest.mark.parametrize("seed", range(20))
def test_a_ring_that_is_upgraded_node_by_node_loses_nothing(seed):
    """Each node in turn is stopped and comes back with the present version, with reports on their way all the time."""
    choose = random.Random(seed)
    world = mixed("n0", "n1", "n2", "n3")
    for round_, name in enumerate(choose.sample(world.names, 4)):
        for number in range(5):
            owner, at = choose.choice(world.names), choose.choice(world.names)
            message = f"id{round_}-{number}"
            world.submit(owner, message.encode())
            world.report(at, message.encode(), message, owner)
        for _ in range(choose.randrange(60)):
            if steps := world.busy_steps():
                choose.choice(steps)()
        world.crash(name)
        world.nodes[name].version = frames.VERSION
        for _ in range(choose.randrange(60)):
            if steps := world.busy_steps():
                choose.choice(steps)()
        world.start(name)
    world.recover(choose)
    assert len(world.accepted) > 10
    world.check()
