"""Messages of other nodes: `protocols.peer.frames` and `protocols.peer.hello`."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from protocols.peer import frames, hello
from protocols.peer.frames import (
    Claimed,
    Envelope,
    EnvelopeKey,
    Finished,
    Forgotten,
    Forward,
    FrameError,
    Heartbeat,
    LapDone,
    Learned,
    Settled,
    SummaryPart,
    SummaryWanted,
)

KEY = EnvelopeKey(b"store-id", 7)
ENVELOPE = Envelope(KEY, "gw1", "acme", "dlr", b"0A1B", b"447700900123", b"\0\0\0\x10\0\0\0\5", "t1", final=True)


def check(data: bytes) -> None:
    """Bytes give values that encode to bytes that give the same values, or FrameError."""
    decoded = _round_trip(data, frames.decode, frames.encode)
    if decoded is not None:
        assert frames.join([frames.encode_frame(frame) for frame in decoded]) == frames.encode(decoded)
    _round_trip(data, partial(frames.decode, skipped=Counter()), frames.encode)
    _round_trip(data, frames.decode_envelope, frames.encode_envelope)
    _round_trip(data, hello.decode, hello.encode)
    _round_trip(data, hello.decode_hello, hello.encode_hello)


def _round_trip(data: bytes, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> Any:
    """Bytes are compared, for a float in them may be one that equals nothing."""
    try:
        value = decode(data)
    except FrameError as error:
        assert str(error)
        return None
    encoded = encode(value)
    assert encode(decode(encoded)) == encoded
    return value


def seeds() -> Iterator[bytes]:
    each = [
        Forward(ENVELOPE, lap=1, hop=2, visited=("gw1", "gw3"), inexact=False, age_s=1.5, run=3),
        LapDone(KEY, lap=1, visited=("gw1", "gw2"), busy=("gw2",), run=3),
        Claimed(KEY, "gw2", lap=1, hop=1),
        Settled(KEY, granted=False, reason="gone"),
        Finished(KEY, "gw2"),
        Forgotten(KEY),
        Heartbeat(draining=True),
        Learned("acme", "hex-decimal", 12),
        SummaryPart(3, 1, pages=2, complete=True, opened=b"\x01\x00\x00\xff", closed=b"\x02\x00\x00\xff"),
        SummaryWanted(),
    ]
    yield frames.encode(each)
    for frame in each:
        yield frames.encode([frame])
    yield b"\x92\x92\x63\xa5later" + frames.encode_frame(Heartbeat())
    yield frames.encode_envelope(ENVELOPE)
    own = hello.Hello("gw1", "gw2", "prod", 1, 1, b"store-id", b"boot", 3, b"n" * 32, ("zstd",))
    yield hello.encode_hello(own)
    yield hello.encode(hello.Challenge(b"n" * 32))
    yield hello.encode(hello.Introduction(hello.encode_hello(own), b"p" * 32))
    yield hello.encode(hello.Ready())
