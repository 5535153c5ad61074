"""The frames that nodes exchange: values, and their bytes (MessagePack arrays, a list of frames per WebSocket message).

Each frame is a tagged array, so that a later version may append fields: a decoder of an older version ignores what it
does not know at the end of an array, and a newer one fills in defaults. `VERSION` goes up when that is not enough:
with a new frame, or a field without which something goes wrong. The hello says which versions a node speaks, and each
link uses the highest that both ends do, so that two adjacent versions work together in one ring. `SINCE` says which
frames a version has; a node sends no other, and what depends on one is left to nodes that speak it.

    1  the first
    2  a frame with an unknown tag is skipped, where version 1 closes the link; SummaryPart, SummaryWanted;
       a node that leaves hands on what is in its custody (HandOver, Declined, Envelope.former, Claimed.line);
       a report goes to one node, if a person says so (Envelope.node, until then for MO only);
       reports cross to another ring (Relayed, Joined, LapDone.missing);
       in a cluster a node brings custody to another one (Brought), and a report may be for a gateway (Envelope.gateway)

An envelope carries a report or MO that was answered ESME_ROK by its origin and whose owner is elsewhere. Nodes between
two of a later version decode it and write it anew, in frames and in rows: what must not be lost on that way goes into
`Envelope.more`. docs/upgrading.md says what a release may change.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec

VERSION: Final = 2
OLDEST_VERSION: Final = 1

DIRECTED_SINCE: Final = 2  # a node claims a report with its name as `Envelope.node`

STORE_ID_BYTES: Final = 8

# A frame list above this is refused: a PDU is at most 65 KiB, and a batch is cut well below this (link.py).
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


# Counted on from what a peer says, so it must stay what can be encoded. A report goes round a few hundred times.
Round = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]
# Seconds; a time is made of it, so it must be a number. Below zero: the sender's clock stepped back over a restart.
Age = Annotated[float, msgspec.Meta(ge=-1e6, le=1e10)]


class FrameError(ValueError):
    """Bytes that are no list of frames; the link they came from is closed."""


class EnvelopeKey(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """The name of an envelope in the whole ring, for ever: the origin's store id and a number it never reuses.

    Checked when it is decoded: a name that does not fit a row's key (ring/rows.py) would be cut to that of another.
    """

    store: Annotated[bytes, msgspec.Meta(min_length=STORE_ID_BYTES, max_length=STORE_ID_BYTES)]
    number: Annotated[int, msgspec.Meta(ge=0)]


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where an MO goes."""

    gateway: str
    node: str = ""  # only there; empty: wherever the gateway is bound


class PartOf(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What makes an MO one part of a concatenated message, and what its origin knows of where the message goes."""

    message: bytes  # the same for all parts on every node (ring.coordinator.name_of)
    rule: str = ""  # the gateway of the first [[mo.rules]] that applies; empty for none
    certain: bool = True  # False: a rule by keyword may come before that one, and only the first part has the keyword


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
    gateway: str = ""  # it goes to this gateway, wherever it is bound: an MO, or in a cluster a report of its message
    node: str = ""  # at this node only; empty for any. A report that has it goes there by a person's word
    part: PartOf | None = None  # one part of a concatenated MO: without a gateway until its coordinator has named one
    former: EnvelopeKey | None = None  # its name at the node that has handed it on to this origin (since 2)
    more: bytes = b""  # what later releases add: read by nobody here, and carried along wherever the envelope goes

    @property
    def is_sought(self) -> bool:
        """A report that goes to whoever owns its message. Anything else goes to a gateway that is bound."""
        return self.kind == "dlr" and not (self.node or self.gateway)


class Forward(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Whose is this? Claim it, or pass it on to the next reachable node not in `visited`."""

    envelope: Envelope
    lap: Round  # counts from 1 at the origin
    hop: Round  # links travelled in this lap, this one included
    visited: tuple[str, ...]  # not to be asked: who was busy in this lap; then the origin, and who does not own it
    inexact: bool  # an owner by anything but the exact id may claim (under a learned or pinned rule: always)
    age_s: Age  # since the origin took it
    run: int = 0  # counts the starts of the origin: an answer to a walk of an earlier start is not counted


class LapDone(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """To the origin: nobody that this node can reach is left to ask in this lap."""

    key: EnvelopeKey
    lap: Round
    visited: tuple[str, ...]
    busy: tuple[str, ...] = ()  # nodes that own it and cannot take it now (custody quota, store not accepting)
    run: int = 0
    conversation: Place | None = None  # a part of an MO, and this gateway is in conversation with its sender
    missing: tuple[str, ...] = ()  # to an origin in another ring: nodes of this one that have not answered (since 2)


class Claimed(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """To the origin: this node owns it and has it on disk. Repeated until settled.

    An heir says as well what it has on disk of the same line, this one included, so that all of that can be granted
    together; an owner leaves `line` empty.
    """

    key: EnvelopeKey
    node: str
    lap: Round
    hop: Round
    line: tuple[EnvelopeKey, ...] = ()  # since 2
    claim: int = 0  # since 2: which claim of that node it is: the answer names it


class Settled(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """To the claimer: the origin has let go of it, durably, in favour of that node; or (`granted` False) has not.

    `reason` says why not: "gone" (another node has it, or a policy or person decided), "unknown_store" (the origin's
    data directory is not the one that the envelope came from).
    """

    key: EnvelopeKey
    granted: bool
    reason: str = ""
    claim: int = 0  # the claim that is answered; 0 from a node that does not say so


class Finished(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """To the origin: what was granted is delivered or parked, durably. Repeated until forgotten."""

    key: EnvelopeKey
    node: str


class Forgotten(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """To the claimer: the origin keeps nothing of it, durably, and would refuse it to anybody: forget the key too."""

    key: EnvelopeKey


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Sent when nothing else is; a link that is silent for `suspect_after_s` is suspect."""

    draining: bool = False


class Learned(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """The rule by which an operator's receipt ids relate to its response ids, learned from traffic at one node."""

    operator: str
    rule: str
    evidence: int  # how many reports showed it


class Gather(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """To the coordinator of a concatenated MO: a part of it is here; where do all parts go?"""

    operator: str
    trace: str
    part: PartOf
    conversation: Place | None = None  # the gateway in conversation with its sender, if a lap has found one
    bound: Place | None = None  # a bound gateway: the sender's own, else any that it knows of


class Decided(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """From the coordinator, to everybody: all parts of that message go to one place."""

    message: bytes
    place: Place | None  # None, only to the node that asked: no gateway is bound anywhere, ask again later
    by: str  # the node that decided
    age_s: Age = 0.0  # since it did


class Bound(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """The sender's gateways that are bound to receive from that operator, all of them, the first to be chosen first.

    Sent when they change, and to a node that joins.
    """

    operator: str
    gateways: tuple[str, ...]


class HandOver(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """From an origin that leaves, to its heir: be the origin of these. Answered by Claimed for each, or Declined.

    They are reports of one message, in their order, or one of anything else.
    """

    envelopes: tuple[Envelope, ...]
    ages_s: tuple[Age, ...]  # since the origin took each


class Declined(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """To the node that leaves: this one does not take these, and keeps nothing of them.

    `reason`: "draining" (it leaves as well), "full" (quota, or its store takes no writes), "operator" (it has none of
    that name), "origin" (they are not the sender's own).
    """

    keys: tuple[EnvelopeKey, ...]
    reason: str


class Relayed(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """A frame between two nodes of joined rings, through their gates (ring/join.py). Both are named "cluster/node"."""

    to: str
    sender: str
    frame: bytes  # encoded; only frames by which a report is asked for and handed over


class Joined(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """From a gate, to the nodes of its own ring: it reaches these gates of the other ring, "cluster/node".

    `nodes` are those that the other ring's table has, "cluster/node", as far as is known. To a gate of the other ring:
    those of the sender's own, and no gates.
    """

    gates: tuple[str, ...]
    nodes: tuple[str, ...] = ()


class Brought(msgspec.Struct, frozen=True, array_like=True, tag=18, gc=False):
    """To another node of a cluster: the sender has put custody into its inbox (ring/sharing.py).

    It may be lost: the inbox is looked into now and then in any case.
    """


class SummaryPart(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """What the sender owns, for one node: hashes of open messages, each 4 bytes, little endian (ring/summary.py).

    Numbered within its stream, from 0; number 0 begins anew. Only to a node that asked.
    """

    stream: int
    number: int
    pages: int  # that suit how much the sender owns
    complete: bool  # all that it owns has been sent
    opened: bytes
    closed: bytes = b""  # of messages that it owns no more; they count before `opened`


class SummaryWanted(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """Tell me what you own, from the beginning."""


Frame = (
    Forward
    | LapDone
    | Claimed
    | Settled
    | Finished
    | Forgotten
    | Heartbeat
    | Learned
    | Gather
    | Decided
    | Bound
    | HandOver
    | Declined
    | Relayed
    | Joined
    | Brought
    | SummaryPart
    | SummaryWanted
)

# The first version that has each frame.
SINCE: Final[Mapping[type[Frame], int]] = {
    Forward: 1,
    LapDone: 1,
    Claimed: 1,
    Settled: 1,
    Finished: 1,
    Forgotten: 1,
    Heartbeat: 1,
    Learned: 1,
    Gather: 1,
    Decided: 1,
    Bound: 1,
    HandOver: 2,
    Declined: 2,
    Relayed: 2,
    Joined: 2,
    Brought: 2,
    SummaryPart: 2,
    SummaryWanted: 2,
}

# MessagePack's array headers: the first byte, or the byte in front of a count of 16 or 32 bits, big endian.
_FIXARRAY, _FIXARRAY_LIMIT = 0x90, 16
_ARRAY16, _ARRAY16_LIMIT = 0xDC, 1 << 16
_ARRAY32 = 0xDD
_HEADER_BYTES: Final = {_ARRAY16: 3, _ARRAY32: 5} | dict.fromkeys(range(_FIXARRAY + 1, _FIXARRAY + _FIXARRAY_LIMIT), 1)
# A tag is one byte: MessagePack's positive fixint. So the tags of later versions that are counted are few, too.
_TAG_LIMIT: Final = 0x80

# What msgspec raises for bytes from outside: besides its own error, invalid UTF-8 in a string, and nesting in a field
# of a later version that is skipped.
UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Frame])
_frame_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)
_parts_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_TAGS: Final = frozenset(frame.__struct_config__.tag for frame in SINCE)
_envelope_decoder = msgspec.msgpack.Decoder(Envelope)


def encode(frames: Sequence[Frame]) -> bytes:
    return _encoder.encode(frames)


def encode_frame(frame: Frame) -> bytes:
    """One frame alone, to be joined with others: so its size is known before it is decided which go together."""
    return _encoder.encode(frame)


def decode_frame(data: bytes) -> Frame:
    """What `encode_frame` made. Raises FrameError, for a frame that this version does not know too."""
    try:
        return _frame_decoder.decode(data)
    except UNDECODABLE as error:
        raise _no_frames(error) from error


def join(encoded: Sequence[bytes]) -> bytes:
    """The message that `encode` makes of the same frames, from what `encode_frame` made of each."""
    count = len(encoded)
    if count < _FIXARRAY_LIMIT:
        header = bytes((_FIXARRAY | count,))
    elif count < _ARRAY16_LIMIT:
        header = bytes((_ARRAY16,)) + count.to_bytes(2, "big")
    else:
        header = bytes((_ARRAY32,)) + count.to_bytes(4, "big")
    return header + b"".join(encoded)


def speaks(version: int, frame: Frame) -> bool:
    """Whether a node of this version knows the frame."""
    return SINCE[type(frame)] <= version


def decode(data: bytes, skipped: Counter[int] | None = None) -> list[Frame]:
    """Raises FrameError, for a message above MAX_MESSAGE_BYTES too.

    Frames with a tag that this version does not know are left out, and counted by tag in `skipped`; without that they
    are an error. Everything else that is no frame is one in any case.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise FrameError(f"a message of {len(data)} bytes; the most is {MAX_MESSAGE_BYTES}")
    try:
        return _decoder.decode(data)
    except UNDECODABLE as error:
        if skipped is None or not isinstance(error, msgspec.ValidationError):
            raise _no_frames(error) from error
    return _decode_known(data, skipped)


def _decode_known(data: bytes, skipped: Counter[int]) -> list[Frame]:
    """One frame at a time: ten times slower, for the messages of a later version only. Raises FrameError."""
    known: list[Frame] = []
    unknown: list[int] = []
    try:
        for part in map(bytes, _parts_decoder.decode(data)):
            tag = _tag(part)
            if tag is None or tag in _TAGS:
                known.append(_frame_decoder.decode(part))
            else:
                unknown.append(tag)
    except UNDECODABLE as error:
        raise _no_frames(error) from error
    skipped.update(unknown)
    return known


def _tag(part: bytes) -> int | None:
    """The tag of what may be a frame; None for what no version calls one."""
    at = _HEADER_BYTES.get(part[0])
    if at is None or len(part) <= at or part[at] >= _TAG_LIMIT:
        return None
    return part[at]


def _no_frames(error: Exception) -> FrameError:
    return FrameError(f"not a list of frames of version {VERSION}: {error}")


def encode_envelope(envelope: Envelope) -> bytes:
    return _encoder.encode(envelope)


def decode_envelope(data: bytes) -> Envelope:
    """Raises FrameError."""
    try:
        return _envelope_decoder.decode(data)
    except UNDECODABLE as error:
        raise FrameError(f"not an envelope: {error}") from error
