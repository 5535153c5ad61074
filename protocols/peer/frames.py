"""The frames that nodes exchange: values, and their bytes (MessagePack arrays, a list of frames per WebSocket message).

Each frame is a tagged array, so that a later version may append fields: a decoder of an older version ignores what it
does not know at the end of an array, and a newer one fills in defaults. `VERSION` goes up when that is not enough, and
the hello says which versions a node speaks, so that two adjacent ones work together.

An envelope carries a report or MO that was answered ESME_ROK by its origin and whose owner is elsewhere.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

VERSION: Final = 1
OLDEST_VERSION: Final = 1

# A frame list above this is refused: a PDU is at most 65 KiB, and a batch is cut well below this (link.py).
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


class FrameError(ValueError):
    """Bytes that are no list of frames; the link they came from is closed."""


class EnvelopeKey(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """The name of an envelope in the whole ring, for ever: the origin's store id and a number it never reuses."""

    store: bytes
    number: int


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A report or MO in custody, as it travels and as it is stored."""

    key: EnvelopeKey
    origin: str  # the node that took it from the operator
    operator: str
    kind: Literal["dlr", "mo"]
    message_id: bytes  # the id that the report names; empty for an MO
    destination: bytes  # digits that break ties: a report's source_addr is the handset, the MT's destination
    pdu: bytes  # the deliver_sm or data_sm, byte for byte
    trace: str  # joins the route events of every node
    final: bool  # the report's state is final
    grant: bool  # whoever claims must wait for the origin's grant before delivering
    gateway: str = ""  # an MO that a rule gives to this gateway; a report once its owner is known


class Forward(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Whose is this? Claim it, or pass it on to the next reachable node not in `visited`."""

    envelope: Envelope
    lap: int  # counts from 1 at the origin
    hop: int  # links travelled in this lap, this one included
    visited: tuple[str, ...]  # nodes that do not own it, the origin first
    inexact: bool  # an owner by anything but the exact id may claim (under a learned or pinned rule: always)
    age_s: float  # since the origin took it


class LapDone(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """To the origin: nobody that this node can reach is left to ask in this lap."""

    key: EnvelopeKey
    lap: int
    visited: tuple[str, ...]
    busy: tuple[str, ...] = ()  # nodes that own it and cannot take it now (custody quota, store not accepting)


class Claimed(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """To the origin: this node owns it and has it on disk. Repeated until settled."""

    key: EnvelopeKey
    node: str
    lap: int
    hop: int


class Settled(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """To the claimer: the origin has let go, durably. With `granted` False it must not be delivered.

    `reason` says why not: "gone" (delivered by another claim or a policy), "unknown_store" (the origin's data directory
    is not the one the envelope came from).
    """

    key: EnvelopeKey
    granted: bool
    reason: str = ""


class Confirmed(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """To the origin: the grant is on disk at the claimer; the origin may forget whom it granted to."""

    key: EnvelopeKey


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Sent when nothing else is; a link that is silent for `suspect_after_s` is suspect."""

    draining: bool = False


class Learned(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """The rule by which an operator's receipt ids relate to its response ids, learned from traffic at one node."""

    operator: str
    rule: str
    evidence: int  # how many reports showed it


Frame = Forward | LapDone | Claimed | Settled | Confirmed | Heartbeat | Learned

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Frame])
_envelope_decoder = msgspec.msgpack.Decoder(Envelope)


def encode(frames: Sequence[Frame]) -> bytes:
    return _encoder.encode(frames)


def decode(data: bytes) -> list[Frame]:
    """Raises FrameError."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise FrameError(f"not a list of frames of version {VERSION}: {error}") from error


def encode_envelope(envelope: Envelope) -> bytes:
    return _encoder.encode(envelope)


def decode_envelope(data: bytes) -> Envelope:
    """Raises FrameError."""
    try:
        return _envelope_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise FrameError(f"not an envelope: {error}") from error
