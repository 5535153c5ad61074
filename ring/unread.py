"""Rows of custody that this release cannot read: what other nodes say of them gets no answer.

A later release has written such a row, and it may be a grant, a claim or an heir's. A node that answered as one which
has nothing would have the other one let go of what it keeps for this row, or would write another row over it. Without
an answer the other node goes on saying it, until this one runs a release that can read the row.
"""

from protocols.peer.frames import Claimed, EnvelopeKey, Finished, Forgotten, Forward, Frame, HandOver, Settled
from ring.rows import encode_key


class Unread:
    def __init__(self) -> None:
        self._names: set[bytes] = set()

    def add(self, name: bytes) -> None:
        """The name of a row."""
        self._names.add(name)

    def is_meant(self, frame: Frame) -> bool:
        """One of them is, or may be, what the frame is about."""
        return bool(self._names) and any(encode_key(key) in self._names for key in _keys(frame))


def _keys(frame: Frame) -> tuple[EnvelopeKey, ...]:
    match frame:
        case Claimed() | Settled() | Finished() | Forgotten():
            return (frame.key,)
        case Forward():
            return (frame.envelope.key,)
        case HandOver():
            return tuple(envelope.key for envelope in frame.envelopes)
        case _:
            return ()
