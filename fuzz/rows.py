"""Rows of a data directory: `ring.rows`, and those of the store."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from dlrproxy.store import layout
from dlrproxy.store.port import OpenMessage, StoreError
from fuzz.peer_frames import ENVELOPE, KEY
from ring import rows
from ring.rows import CustodyRow, Kind, ParkedRow, RowError

_encode = msgspec.msgpack.encode


def check(data: bytes) -> None:
    """A row gives a value that encodes to a row that gives the same value, or the error that says it is none."""
    _round_trip(data, rows.decode_key, rows.encode_key, RowError)
    _round_trip(data, rows.decode_custody, rows.encode_row, RowError)
    _round_trip(data, rows.decode_parked, rows.encode_row, RowError)
    _round_trip(data, layout.decode_open, _encode, StoreError)
    _round_trip(data, layout.decode_keys, layout.encode_keys, StoreError)


def _round_trip(
    data: bytes, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes], error: type[Exception]
) -> None:
    """Bytes are compared, for a float in them may be one that equals nothing."""
    try:
        value = decode(data)
    except error as raised:
        assert str(raised)
        return
    encoded = encode(value)
    assert encode(decode(encoded)) == encoded


def seeds() -> Iterator[bytes]:
    yield rows.encode_key(KEY)
    for kind in Kind:
        yield rows.encode_row(CustodyRow(kind, ENVELOPE, 12.5, "gw1", "gw2"))
    yield rows.encode_row(ParkedRow(ENVELOPE, "refused", 12.5, 13.5, "gw1", 0x65, 2))
    yield _encode(OpenMessage("acme", b"0A1B", "gw1", b"4477", b"SHOP", 7, 1.0, 2.0))
    yield layout.encode_keys([b"acme\x000A1B", b"acme\0uuid"])
