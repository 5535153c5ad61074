"""The rows that custody keeps on disk, and what each means after a restart.

A row is written before anything is promised on the strength of it, so a restart needs nothing but the rows:

    ORIGIN     we answered the operator ESME_ROK for it: walk it, or deliver it to `gateway` if that is known
    GRANTED    we let go of it in favour of `granted_to`: only that node may have it
    HEIR       its origin hands it on to us: ask that (again), and make it our own with the origin's word
    CLAIM      we claimed it: ask its origin (again), and deliver it with the origin's word
    DELIVERED  we delivered or parked what we were given; its origin has not forgotten it: recognise another copy
    DECISION   we decided where all parts of a concatenated MO go: `envelope` names the message and the place

A row with a kind that this release does not know stays where it is, unread (docs/upgrading.md). What a later release
appends to a row is lost where an earlier one writes it anew; `Envelope.more` is not.

Keys are the origin's store id and the envelope's number, big-endian: key order is the order of arrival at an origin.
"""

import struct
from enum import IntEnum

import msgspec

from protocols.peer.frames import UNDECODABLE, Envelope, EnvelopeKey

_KEY = struct.Struct(">8sQ")


class RowError(ValueError):
    """A row that does not decode: a later release has written it, something else has, or it is damaged."""


class Kind(IntEnum):
    ORIGIN = 1
    GRANTED = 2
    CLAIM = 3
    DELIVERED = 4
    DECISION = 5
    HEIR = 6  # since version 2 of the peer protocol


class CustodyRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    kind: Kind
    envelope: Envelope
    accepted_at: float  # seconds on this node's clock
    gateway: str = ""  # the owner, if it is a gateway of this node
    granted_to: str = ""
    superseded: bool = False  # a final report of its message was delivered: it is not to be
    delivering: bool = False  # in a cluster: a gateway may have got it, or may get it at this moment


class ParkedRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    envelope: Envelope
    reason: str
    accepted_at: float
    parked_at: float
    gateway: str = ""  # the owner, where it was known
    status: int = 0  # what the gateway answered, where it did
    lap: int = 0  # laps it had walked: a replay counts on, so that no answer to an old lap is taken for a new one's


_encoder = msgspec.msgpack.Encoder()
_custody_decoder = msgspec.msgpack.Decoder(CustodyRow)
_parked_decoder = msgspec.msgpack.Decoder(ParkedRow)


def encode_key(key: EnvelopeKey) -> bytes:
    return _KEY.pack(key.store, key.number)


def decode_key(data: bytes) -> EnvelopeKey:
    """Raises RowError."""
    try:
        return EnvelopeKey(*_KEY.unpack(data))
    except struct.error as error:
        raise RowError(f"a custody key has 16 bytes, not {len(data)}") from error


def encode_row(row: CustodyRow | ParkedRow) -> bytes:
    return _encoder.encode(row)


def decode_custody(data: bytes) -> CustodyRow:
    """Raises RowError."""
    try:
        return _custody_decoder.decode(data)
    except UNDECODABLE as error:
        raise RowError(f"not a custody row: {error}") from error


def decode_parked(data: bytes) -> ParkedRow:
    """Raises RowError."""
    try:
        return _parked_decoder.decode(data)
    except UNDECODABLE as error:
        raise RowError(f"not a parked row: {error}") from error


def read_parked(data: bytes) -> ParkedRow | None:
    """None where `decode_parked` raises RowError: such a row stays parked, and in nobody's way."""
    try:
        return decode_parked(data)
    except RowError:
        return None
