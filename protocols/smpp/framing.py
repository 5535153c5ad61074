"""From a byte stream to whole PDUs, and back with another sequence number.

A bad length breaks the stream, for nobody can say where the next PDU begins; anything else that is wrong
with a PDU does not. So the only error here is `FramingError`, and the one who reads the socket answers it
with generic_nack ESME_RINVCMDLEN and closes (SMPP 3.4 4.3).

The reader keeps the bytes of an unfinished PDU and passes them in front of the next receive:

    frames, rest = split(rest + received)
"""

import struct

from protocols.smpp.constants import HEADER_SIZE

HEADER = struct.Struct(">IIII")  # command_length, command_id, command_status, sequence_number
LENGTH = struct.Struct(">I")
_resequenced_header = struct.Struct(">12sI").pack  # takes the first 12 bytes of a longer frame

# message_payload carries up to 64 KiB; its PDU has a header and other fields besides.
MAX_PDU_SIZE = 0x10000 + 0x400


class FramingError(Exception):
    """The stream cannot be read any further: a length below the header's size or above the cap.

    `length` is what the peer sent; 0x48545450 ("HTTP") says that somebody sent an HTTP request to an SMPP port.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        text = LENGTH.pack(length)
        hint = f" (the bytes read {text.decode('latin-1')!r}: not SMPP)" if text[:3].isalpha() else ""
        super().__init__(f"command_length {length} is not between {HEADER_SIZE} and {MAX_PDU_SIZE}{hint}")


def split(data: bytes, max_size: int = MAX_PDU_SIZE) -> tuple[list[bytes], bytes]:
    """Cut `data` into whole PDUs and the rest, which is an unfinished PDU or empty.

    Raises FramingError at the first bad length; PDUs before it are lost to the caller only if it does not
    ask `split_until_error`.
    """
    frames, rest, error = split_until_error(data, max_size)
    if error is not None:
        raise error
    return frames, rest


def split_until_error(data: bytes, max_size: int = MAX_PDU_SIZE) -> tuple[list[bytes], bytes, FramingError | None]:
    """As `split`, but give what stands before a bad length together with the error, so that it is still handled."""
    frames: list[bytes] = []
    start, end = 0, len(data)
    unpack_length = LENGTH.unpack_from
    while end - start >= 4:
        (length,) = unpack_length(data, start)
        if not HEADER_SIZE <= length <= max_size:
            return frames, data[start:], FramingError(length)
        stop = start + length
        if stop > end:
            break
        frames.append(data[start:stop])
        start = stop
    return frames, data[start:] if start else data, None


def resequence(frame: bytes, sequence: int) -> bytes:
    """The same PDU with another sequence number: bytes 12 to 15 change, nothing else."""
    return _resequenced_header(frame, sequence) + frame[16:]
