"""Bytes of a stream to PDUs: `protocols.smpp.framing`."""

from collections.abc import Iterator

from protocols.smpp import constants as c
from protocols.smpp.framing import FramingError, resequence, split, split_until_error
from protocols.smpp.pdu import pack


def check(data: bytes) -> None:
    """However a stream is cut into receives, the same PDUs come out, and the same error or the same unfinished rest.

    The first byte says into what chunks the stream is cut; the rest is the stream.
    """
    if not data:
        return
    size, stream = data[0] + 1, data[1:]
    frames, rest, error = split_until_error(stream)
    _check_pieces(stream, frames, rest, error)
    assert (frames, rest, _length(error)) == _in_chunks(stream, size), size
    try:
        assert split(stream) == (frames, rest)
        assert error is None
    except FramingError as raised:
        assert error is not None
        assert str(raised) == str(error)


def _check_pieces(stream: bytes, frames: list[bytes], rest: bytes, error: FramingError | None) -> None:
    assert b"".join(frames) + rest == stream
    for frame in frames:
        assert int.from_bytes(frame[:4], "big") == len(frame) >= c.HEADER_SIZE
        other = resequence(frame, 0x01020304)
        assert other == frame[:12] + b"\1\2\3\4" + frame[16:]
    if error is None and len(rest) >= 4:
        assert int.from_bytes(rest[:4], "big") > len(rest)


def _in_chunks(stream: bytes, size: int) -> tuple[list[bytes], bytes, int | None]:
    """As a reader does it: until the first error, with what was left in front of the next receive."""
    frames: list[bytes] = []
    rest = b""
    for start in range(0, len(stream), size):
        more, rest, error = split_until_error(rest + stream[start : start + size])
        frames += more
        if error is not None:
            return frames, rest + stream[start + size :], error.length
    return frames, rest, None


def _length(error: FramingError | None) -> int | None:
    return None if error is None else error.length


def seeds() -> Iterator[bytes]:
    whole = pack(c.ENQUIRE_LINK, 0, 1) + pack(c.SUBMIT_SM_RESP, 0, 2, b"id1\0") + pack(c.UNBIND, 0, 0xFFFFFFFF)
    yield b"\0" + whole
    yield b"\6" + whole + whole[:20]
    yield b"\x20" + whole + b"GET / HTTP/1.1\r\n\r\n"
    yield b"\3" + whole + b"\0\0\0\x0f"
    yield b"\xff" + pack(c.DELIVER_SM, 0, 1, bytes(300))
    yield b"\1" + b"ab\xe9\xff" + bytes(12)
