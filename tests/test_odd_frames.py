"""Frames that decode and make no sense, from a peer: whatever they say, a custody machine goes on.

A peer is one of the ring and means well; it may be of a later version, or wrong.
"""

import random
from collections import deque

import msgspec
import pytest
from custody_world import Delivery, World
from test_peer_frames import EVERY_FRAME

from protocols.peer.frames import (
    FrameError,
    Heartbeat,
    Joined,
    Learned,
    Relayed,
    SummaryPart,
    SummaryWanted,
    decode,
    encode,
)
from ring import commands as c

STEPS = 60
OF_CUSTODY = [
    frame
    for frame in EVERY_FRAME
    if not isinstance(frame, Heartbeat | Learned | SummaryPart | SummaryWanted | Relayed | Joined)
]
VALUES = {
    bool: [False, True],
    int: [0, 1, -1, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1],
    float: [0.0, -1.0, 1e300, float("inf"), float("-inf"), float("nan")],
    str: ["", "n0", "n1", "n2", "stranger", "south/s0", "gw", "acme"],
    bytes: [b"", b"m1", b"\0" * 8, b"\1" * 8, b"9" * 5000],
}


class OddWorld(World):
    """Sends whatever it is told to, if it can be encoded, and believes nothing of what it sees."""

    def do(self, name, out):
        node = self.nodes[name]
        for command in out:
            match command:
                case c.Send(to=to, frame=frame):
                    encode([frame])
                    if to in self.nodes and self.linked(name, to):
                        self.wires.setdefault((name, to), deque()).append(frame)
                case c.Deliver(envelope=envelope, gateway=gateway):
                    delivery = Delivery(name, envelope.trace, envelope.final, gateway, envelope.message_id)
                    node.at_gateway.append((envelope.key, delivery))
                case c.Accepted() | c.Note():
                    pass
                case _:
                    super().do(name, [command])

    def keys(self):
        return [item.key for node in self.nodes.values() for item in node.machine.of_message("acme", {b"m1", b""})]


def odd(value, choose, keys):
    """The same with some of it changed; names of envelopes as a rule into those that are there."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], bytes) and keys and choose.random() < 0.7:
        key = choose.choice(keys)
        return [key.store, key.number]
    if isinstance(value, list):
        kept = value[:-1] if value and choose.random() < 0.1 else value
        return [odd(each, choose, keys) for each in kept]
    return choose.choice(VALUES[type(value)]) if value is not None and choose.random() < 0.25 else value


def odd_frame(choose, keys):
    """None: it is no frame any more."""
    [[tag, *fields]] = msgspec.msgpack.decode(encode([choose.choice(OF_CUSTODY)]))
    try:
        [frame] = decode(msgspec.msgpack.encode([[tag, *odd(fields, choose, keys)]]))
    except FrameError:
        return None
    return frame


def step(world, choose):
    name = choose.choice(world.names)
    node = world.nodes[name]
    waiting = [wire for wire, frames in world.wires.items() if frames]
    match choose.randrange(10):
        case 0 | 1 | 2 if node.disk.pending:
            world.commit(name)
        case 3 | 4 if waiting:
            world.deliver_frame(choose.choice(waiting))
        case 5:
            world.advance(choose.choice([0.1, 1, 6, 20, 1000]))
        case 6 if node.at_gateway:
            world.answer(name, choose.choice([0, 8, 0x58]))
        case _:
            if frame := odd_frame(choose, world.keys()):
                sender = choose.choice([*world.names, "stranger"])
                world.do(name, node.machine.frame(sender, frame, world.now))


@pytest.mark.parametrize("seed", range(40))
def test_a_machine_goes_on_whatever_its_peers_say_and_starts_again_with_what_it_wrote(seed):
    choose = random.Random(seed)
    world = OddWorld(3)
    world.submit("n1", b"m1")
    for number in range(12):
        world.report(choose.choice(world.names), b"m1", f"t{number}", "n1", final=choose.random() < 0.7)
        world.mo("n0", f"o{number}")
    for _ in range(STEPS):
        step(world, choose)
    for name in world.names:
        world.crash(name)
        world.start(name)  # what it has written can be read
    assert [node.runs for node in world.nodes.values()] == [2, 2, 2]
