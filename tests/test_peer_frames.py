"""protocols/peer/frames.py and hello.py: values to bytes and back, and any other bytes to one error."""

import contextlib
import math
from collections import Counter

import frames_v1
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.peer import frames, hello
from protocols.peer.frames import (
    Bound,
    Brought,
    Claimed,
    Decided,
    Declined,
    Envelope,
    EnvelopeKey,
    Finished,
    Forgotten,
    Forward,
    FrameError,
    Gather,
    HandOver,
    Heartbeat,
    Joined,
    LapDone,
    Learned,
    PartOf,
    Place,
    Relayed,
    Settled,
    SummaryPart,
    SummaryWanted,
)
from protocols.peer.hello import Challenge, Hello, HelloError, Introduction, Ready

KEY = EnvelopeKey(b"store-id", 7)
ENVELOPE = Envelope(
    key=KEY,
    origin="gw1",
    operator="acme",
    kind="dlr",
    message_id=b"0A1B",
    destination=b"447700900123",
    pdu=bytes(range(256)),
    trace="t1",
    final=True,
)
EVERY_FRAME = [
    Forward(ENVELOPE, lap=1, hop=2, visited=("gw1", "gw3"), inexact=False, age_s=1.5),
    LapDone(KEY, lap=1, visited=("gw1", "gw2"), busy=("gw2",)),
    Claimed(KEY, node="gw2", lap=1, hop=1),
    Settled(KEY, granted=False, reason="gone"),
    Finished(KEY, node="gw2"),
    Forgotten(KEY),
    Heartbeat(draining=True),
    Learned("acme", rule="hex-decimal", evidence=3),
    Gather("acme", "t1", PartOf(b"message", "gw2", certain=False), Place("gw3", "n3"), Place("gw1", "n1")),
    Decided(b"message", Place("gw2"), "n2", 1.5),
    Bound("acme", ("gw1", "gw4")),
    HandOver((ENVELOPE, msgspec.structs.replace(ENVELOPE, former=KEY)), (1.5, 0.5)),
    Declined((KEY,), "full"),
    Relayed("south/gw1", "north/gw2", frames.encode_frame(Forgotten(KEY))),
    Joined(("south/gw1",)),
    Brought(),
    SummaryPart(stream=3, number=1, pages=2, complete=True, opened=b"\x01\x00\x00\xff", closed=b""),
    SummaryWanted(),
]
HELLO = Hello("gw1", "gw2", "prod", 1, 2, b"store-id", b"boot", 3, b"n" * 32, ("a", "b"))


@pytest.mark.parametrize("frame", EVERY_FRAME, ids=lambda frame: type(frame).__name__)
def test_every_frame_comes_back_as_it_went(frame):
    assert frames.decode(frames.encode([frame])) == [frame]


def test_no_two_frames_share_a_tag_and_the_list_above_is_complete():
    tags = [msgspec.msgpack.decode(frames.encode_frame(frame))[0] for frame in EVERY_FRAME]
    assert len(set(tags)) == len(tags)
    assert {type(frame) for frame in EVERY_FRAME} == set(frames.Frame.__args__)


def test_it_stands_of_every_frame_which_version_has_it():
    assert set(frames.SINCE) == set(frames.Frame.__args__)
    assert set(frames.SINCE.values()) <= set(range(1, frames.VERSION + 1))
    assert {frame.__name__ for frame, since in frames.SINCE.items() if since == 1} == {
        frame.__name__ for frame in frames_v1.Frame.__args__
    }


def test_a_node_speaks_the_frames_up_to_its_version(monkeypatch):
    monkeypatch.setitem(frames.SINCE, Learned, 3)
    learned = Learned("acme", "exact", 1)
    assert [frames.speaks(version, learned) for version in (1, 2, 3, 4)] == [False, False, True, True]
    assert frames.speaks(1, Heartbeat())


@pytest.mark.parametrize("frame", EVERY_FRAME, ids=lambda frame: type(frame).__name__)
def test_version_1_reads_what_it_knows_as_it_went_and_answers_likewise(frame):
    if frames.SINCE[type(frame)] == 1:
        [there] = frames_v1.decode(frames.encode([frame]))
        assert frames.decode(frames_v1.encode([there])) == [frame]


LATER = [[99, "of a", {"later": ["version"]}], [127], [77, *range(70_000)]]


def test_frames_of_a_later_version_are_left_out_and_counted():
    known = [msgspec.msgpack.decode(frames.encode_frame(frame)) for frame in EVERY_FRAME]
    skipped = Counter()
    message = msgspec.msgpack.encode([LATER[0], *known, *LATER[1:], LATER[0]])
    assert frames.decode(message, skipped) == EVERY_FRAME
    assert skipped == {99: 2, 127: 1, 77: 1}
    with pytest.raises(FrameError):
        frames.decode(message)


NEARLY_LATER = {
    "no array": [{}],
    "an empty array": [[]],
    "a text for a tag": [["later"]],
    "a negative tag": [[-1]],
    "a tag above one byte": [[128]],
    "a known tag and too few fields": [[99], [1]],
    "a known tag and a field of another type": [[99], [6, "yes"]],
}


@pytest.mark.parametrize("case", NEARLY_LATER)
def test_what_no_version_calls_a_frame_is_an_error_though_later_ones_are_left_out(case):
    skipped = Counter()
    with pytest.raises(FrameError):
        frames.decode(msgspec.msgpack.encode(NEARLY_LATER[case]), skipped)
    assert not skipped


def test_an_envelope_comes_back_as_it_went():
    assert frames.decode_envelope(frames.encode_envelope(ENVELOPE)) == ENVELOPE


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 500, 65_535, 65_536])
def test_joined_frames_are_the_bytes_of_the_list(count):
    frame = Heartbeat()
    assert frames.join([frames.encode_frame(frame)] * count) == frames.encode([frame] * count)


@given(st.lists(st.sampled_from(EVERY_FRAME), max_size=40))
def test_whatever_is_joined_comes_apart_again(some):
    assert frames.decode(frames.join([frames.encode_frame(frame) for frame in some])) == some


def test_fields_of_a_later_version_are_passed_over():
    fields = msgspec.msgpack.decode(frames.encode_frame(Heartbeat(draining=True)))
    assert frames.decode(msgspec.msgpack.encode([[*fields, "later", {"much": [1]}]])) == [Heartbeat(draining=True)]


def test_fields_that_an_earlier_version_did_not_send_have_their_defaults():
    tag = msgspec.msgpack.decode(frames.encode_frame(Heartbeat()))[0]
    assert frames.decode(msgspec.msgpack.encode([[tag]])) == [Heartbeat(draining=False)]


def forward(key=(b"store-id", 7), lap=1, hop=1):
    """A Forward with these in it, whether or not they may be."""
    tag, (_, *envelope), _, _, *rest = msgspec.msgpack.decode(frames.encode_frame(EVERY_FRAME[0]))
    return msgspec.msgpack.encode([[tag, [list(key), *envelope], lap, hop, *rest]])


def test_the_frame_that_others_are_made_wrong_from_is_one():
    assert frames.decode(forward()) == [msgspec.structs.replace(EVERY_FRAME[0], lap=1, hop=1)]


NOT_FRAMES = {
    "a store id that is too short": forward(key=(b"store", 7)),
    "a store id that is too long": forward(key=(b"store-id-and-more", 7)),
    "a number that is no key": forward(key=(b"store-id", -1)),
    "a hop that cannot be counted on": forward(hop=(1 << 64) - 1),
    "a lap that cannot be counted on": forward(lap=(1 << 64) - 1),
    "an age that is no number": frames.encode([msgspec.structs.replace(EVERY_FRAME[0], age_s=math.nan)]),
    "an age without end": frames.encode([msgspec.structs.replace(EVERY_FRAME[0], age_s=math.inf)]),
    "nothing": b"",
    "no list": b"\x01",
    "an unknown tag": msgspec.msgpack.encode([[99]]),
    "too few fields": msgspec.msgpack.encode([[1]]),
    "more behind the list": frames.encode([Heartbeat()]) + b"\x00",
    "more behind a frame of a later version": b"\x91\x91\x63\x00",
    "a frame of a later version, cut off": b"\x91\x92\x63",
    "deep nesting in a frame of a later version": b"\x91\x92\x63" + b"\x91" * 100_000,
    "cut off": frames.encode(EVERY_FRAME)[:-1],
    "text that is not UTF-8": b"\x91\x94\x07\xa1\xff\xa1x\x01",
    "deep nesting in a field that is skipped": b"\x91\x93\x06\xc2" + b"\x91" * 100_000,
    "a list longer than its bytes": b"\xdd\xff\xff\xff\xff",
    "too large": b"\x90" + b"x" * frames.MAX_MESSAGE_BYTES,
}


@pytest.mark.parametrize("case", NOT_FRAMES)
def test_bytes_that_are_no_frames_are_a_frame_error(case):
    with pytest.raises(FrameError):
        frames.decode(NOT_FRAMES[case])
    if case != "an unknown tag":
        with pytest.raises(FrameError):
            frames.decode(NOT_FRAMES[case], Counter())


@pytest.mark.parametrize("case", NOT_FRAMES)
def test_bytes_that_are_no_envelope_are_a_frame_error(case):
    with pytest.raises(FrameError):
        frames.decode_envelope(NOT_FRAMES[case])


def mutations(data):
    """`data` with a few bytes changed, removed or put in: nearer to what decodes than random bytes are."""

    def apply(edits):
        changed = bytearray(data)
        for at, cut, put in edits:
            at %= len(changed) + 1
            changed[at : at + cut] = put
        return bytes(changed)

    edit = st.tuples(st.integers(0, len(data)), st.integers(0, 4), st.binary(max_size=4))
    return st.lists(edit, max_size=5).map(apply)


@given(st.binary(max_size=300) | mutations(frames.encode(EVERY_FRAME)) | mutations(frames.encode_envelope(ENVELOPE)))
def test_any_bytes_give_frames_or_the_one_error(data):
    for decode in (frames.decode, frames.decode_envelope, lambda data: frames.decode(data, Counter())):
        with contextlib.suppress(FrameError):
            decode(data)


@pytest.mark.parametrize("message", [Challenge(b"n"), Introduction(b"hello", b"proof"), Ready()])
def test_every_message_of_the_handshake_comes_back_as_it_went(message):
    assert hello.decode(hello.encode(message)) == message


def test_a_hello_comes_back_as_it_went():
    assert hello.decode_hello(hello.encode_hello(HELLO)) == HELLO


def test_an_introduction_with_long_names_fits_into_what_a_stranger_may_send():
    long = "n" * 250
    packed = hello.encode_hello(Hello(long, long, long, 1, 9, b"s" * 8, b"b" * 8, 1 << 60, b"n" * 32, ("cap",) * 20))
    assert len(hello.encode(Introduction(packed, b"p" * 32))) < hello.MAX_HELLO_BYTES / 2


@pytest.mark.parametrize("data", [b"", b"\x91\x01", b"\x91\x66", b"\x93\x66", b"\x91\x67" + b"x" * 5000])
def test_bytes_that_are_no_handshake_are_a_hello_error(data):
    with pytest.raises(HelloError):
        hello.decode(data)
    with pytest.raises(HelloError):
        hello.decode_hello(data)


@given(
    st.binary(max_size=300) | mutations(hello.encode(Introduction(b"h", b"p"))) | mutations(hello.encode_hello(HELLO))
)
def test_any_bytes_give_a_message_or_the_one_error(data):
    for decode in (hello.decode, hello.decode_hello):
        with contextlib.suppress(HelloError):
            decode(data)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [((1, 1), (1, 1), 1), ((1, 3), (2, 9), 3), ((1, 2), (3, 4), None), ((3, 4), (1, 2), None)],
)
def test_the_highest_version_in_both_ranges_is_common(ours, theirs, expected):
    first = msgspec.structs.replace(HELLO, oldest=ours[0], newest=ours[1])
    second = msgspec.structs.replace(HELLO, oldest=theirs[0], newest=theirs[1])
    assert hello.common_version(first, second) == hello.common_version(second, first) == expected
