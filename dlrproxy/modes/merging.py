"""Which rows of an old primary the new one must get, when both have written since they parted. Pure.

When a node is promoted, it writes down what it knows at that moment (`Known`): the newest name in custody or among
parked items, and the clock. Names of one store are numbered upwards, and a row keeps its name from custody to the
parked items and back. So a row of the old primary with a newer name was written after the two had parted, and the new
primary never had it; one with an older name was known to the new primary, which has delivered, parked or dropped it
since, or still has it. The first is merged, the second never comes back.

Open messages have no numbers: those submitted or finished since `clock`, less a margin, are compared one by one. The
newest submission with an id wins, and of two records of one submission the finished one.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from dlrproxy.store.port import OpenMessage
from protocols.peer.frames import UNDECODABLE

# A message is submitted when its submit_sm comes, and recorded when the operator has answered; the clock is written
# down every ten seconds; the clocks of two machines differ.
MARGIN_S: Final = 3600.0

# Names of META rows in which custody and parked items lie for the active node to take in: this, the name of the merge,
# a letter for what it is, and the row's name at the old primary.
INTAKE: Final = b"intake/"
MERGE_NAME_SIZE: Final = 32
OF_CUSTODY: Final = b"c"
OF_PARKED: Final = b"p"
OF_OPENS: Final = b"z"  # no row: all open messages of the merge are there. After the others

# Names of META rows which say that open messages have come here from a node's journal: this, and what makes one of them
# different from any other. So the active node, which takes each away, never takes away one that it has not seen.
CAME_HOME: Final = b"home/"


def intake_name(merge: bytes, letter: bytes, name: bytes = b"") -> bytes:
    return INTAKE + merge + b"/" + letter + b"/" + name


def letter_of(name: bytes) -> bytes:
    """Of an `intake_name`."""
    at = len(INTAKE) + MERGE_NAME_SIZE + 1
    return name[at : at + 1]


class Known(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node that was promoted knew when it was."""

    holder: str
    newest: bytes  # the newest name of custody and parked items; b"": there was none
    clock: float  # seconds; the last that the old primary had written down


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Known)


class KnownError(ValueError):
    """A row that is no `Known`."""


def encode_known(known: Known) -> bytes:
    return _encoder.encode(known)


def decode_known(data: bytes) -> Known:
    """Raises KnownError."""
    try:
        return _decoder.decode(data)
    except UNDECODABLE as error:
        raise KnownError(f"not what a promoted node knew: {error}") from error


def parted_at(own: Mapping[int, Known], primary: Mapping[int, Known]) -> Known | None:
    """What the new primary knew when the two parted: at its first promotion that the old one has not heard of.

    Both are by epoch. None: there was no such promotion, so the old server never served on its own.
    """
    for epoch in sorted(primary):
        if own.get(epoch) != primary[epoch]:
            return primary[epoch]
    return None


def is_new(name: bytes, store_id: bytes, known: Known) -> bool:
    """Whether a row of custody or of a parked item was written after the two had parted.

    Of the names of other stores nothing is known: they count as new.
    """
    return not name.startswith(store_id) or name > known.newest


def merged(mine: OpenMessage, theirs: OpenMessage | None) -> OpenMessage | None:
    """What the new primary must write of an open message that the old one has as `mine`; None: nothing."""
    if theirs is None or mine.submitted_at > theirs.submitted_at:
        return mine
    if mine.submitted_at == theirs.submitted_at and mine.final_at and not theirs.final_at:
        return mine
    return None
