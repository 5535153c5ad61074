import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp import constants as c
from protocols.smpp import pdu
from protocols.smpp.framing import MAX_PDU_SIZE, FramingError, resequence, split, split_until_error

PDUS = st.builds(
    pdu.pack, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=300)
)


def read_in_chunks(stream, cuts):
    """What a reader gets that keeps the rest in front of the next receive."""
    frames, rest = [], b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found, rest = split(rest + stream[start:end])
        frames += found
    return frames, rest


@given(st.lists(PDUS, max_size=8), st.binary(max_size=3), st.data())
def test_any_chunking_gives_the_same_pdus(pdus, tail, data):
    stream = b"".join(pdus) + tail
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    assert read_in_chunks(stream, cuts) == (pdus, tail)


@given(st.lists(PDUS, min_size=1, max_size=3))
def test_octet_by_octet_gives_the_same_pdus(pdus):
    stream = b"".join(pdus)
    assert read_in_chunks(stream, range(1, len(stream))) == (pdus, b"")


@given(PDUS, st.integers(0, 2**32 - 1))
def test_resequence_changes_octets_12_to_15_only(frame, sequence):
    changed = resequence(frame, sequence)
    assert changed[:12] == frame[:12]
    assert changed[16:] == frame[16:]
    assert int.from_bytes(changed[12:16], "big") == sequence


@given(st.binary(max_size=600))
def test_any_bytes_give_frames_or_the_one_error(data):
    frames, rest, error = split_until_error(data)
    assert b"".join(frames) + rest == data
    for frame in frames:
        assert len(frame) == int.from_bytes(frame[:4], "big")
        assert c.HEADER_SIZE <= len(frame) <= MAX_PDU_SIZE
    if error is None:
        assert split(data) == (frames, rest)
        assert len(rest) < 4 or int.from_bytes(rest[:4], "big") > len(rest)
    else:
        assert error.length == int.from_bytes(rest[:4], "big")
        with pytest.raises(FramingError):
            split(data)


@pytest.mark.parametrize("length", [0, 1, c.HEADER_SIZE - 1, MAX_PDU_SIZE + 1, 0xFFFFFFFF])
def test_a_length_that_no_pdu_has_breaks_the_stream_at_once(length):
    with pytest.raises(FramingError) as caught:
        split(length.to_bytes(4, "big"))
    assert caught.value.length == length


@pytest.mark.parametrize("length", [c.HEADER_SIZE, MAX_PDU_SIZE])
def test_the_smallest_and_the_largest_pdu_pass(length):
    frame = pdu.pack(c.DATA_SM, 0, 1, bytes(length - c.HEADER_SIZE))
    assert split(frame + frame[:10]) == ([frame], frame[:10])


def test_what_stands_before_a_bad_length_is_still_given():
    good = pdu.pack(c.ENQUIRE_LINK, 0, 1)
    frames, rest, error = split_until_error(good + bytes(20))
    assert frames == [good]
    assert rest == bytes(20)
    assert error is not None


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_an_http_request_is_recognised_and_said_so(request_line):
    with pytest.raises(FramingError, match="not SMPP"):
        split(request_line)


def test_letters_and_an_octet_that_is_no_ascii_are_a_framing_error_like_any_other():
    with pytest.raises(FramingError, match="not SMPP"):
        split(b"AAa\x80")


def test_a_smaller_cap_can_be_asked_for():
    frame = pdu.pack(c.DATA_SM, 0, 1, bytes(100))
    with pytest.raises(FramingError):
        split(frame, max_size=100)
