"""A `dlrproxy` as the release after this one might be: run as `python later_dlrproxy.py run FILE`.

It differs from this one wherever docs/upgrading.md lets a release differ, and does nothing else that is new:

    frames          a version more, with a frame that only that has; a field at the end of each
    hello           a field at its end
    envelopes       something in `more`
    rows            a field at the end of each; every fourth row of custody of a kind that is not known here
    open messages   a field at the end of each in RocksDB and in the journal
    RocksDB         a family more
    the schema      a version more: a column that is NULL, one with a default, a table
"""

import sys
from typing import Final

import msgspec
from other_releases import LATER_RELEASE

from protocols.peer import frames, hello

# Before anything imports names from these modules.

MORE: Final = b"\x81\x01\xa5later"
LATER_KIND: Final = 99
_ONE_IN: Final = 4


class Later(msgspec.Struct, frozen=True, array_like=True, tag=100, gc=False):
    """A frame that only the later version has."""

    text: str


def _appended(encode):
    """The same bytes, with a field at the end."""

    def encode_later(value):
        return msgspec.msgpack.encode([*msgspec.msgpack.decode(encode(value)), "later"])

    return encode_later


frames.VERSION += 1
frames.SINCE[Later] = frames.VERSION
frames._TAGS = frames._TAGS | {100}
frames._decoder = msgspec.msgpack.Decoder(list[frames.Frame | Later])
frames._frame_decoder = msgspec.msgpack.Decoder(frames.Frame | Later)
frames.encode_frame = _appended(frames.encode_frame)
hello.encode_hello = _appended(hello.encode_hello)

from dlrproxy import release  # noqa: E402 - after what it is to find
from dlrproxy.store import layout  # noqa: E402
from ring import rows  # noqa: E402

release.RELEASE = LATER_RELEASE
layout.FAMILIES = (*layout.FAMILIES, "later")
layout.encode_open = _appended(layout.encode_open)
_encode_row, _decode_custody = _appended(rows.encode_row), rows.decode_custody


def encode_row(row):
    value = _encode_row(row)
    if isinstance(row, rows.CustodyRow) and row.kind is rows.Kind.ORIGIN and row.envelope.key.number % _ONE_IN == 0:
        _, *rest = msgspec.msgpack.decode(value)
        return msgspec.msgpack.encode([LATER_KIND, *rest])
    return value


def decode_custody(value):
    try:
        kind, *rest = msgspec.msgpack.decode(value)
    except (ValueError, TypeError) as error:
        raise rows.RowError(str(error)) from error
    return _decode_custody(msgspec.msgpack.encode([rows.Kind.ORIGIN if kind == LATER_KIND else kind, *rest]))


rows.encode_row, rows.decode_custody = encode_row, decode_custody

from dlrproxy.cli import main  # noqa: E402
from dlrproxy.modes import ring as ring_mode  # noqa: E402
from dlrproxy.store.sql import schema  # noqa: E402
from ring import accepting  # noqa: E402

schema.MIGRATIONS = (
    *schema.MIGRATIONS,
    schema.Migration(
        (
            "ALTER TABLE open_messages ADD COLUMN IF NOT EXISTS later VARBINARY(255) NULL, ALGORITHM=INSTANT",
            "ALTER TABLE members ADD COLUMN IF NOT EXISTS later INT NOT NULL DEFAULT 7, ALGORITHM=INSTANT",
            "CREATE TABLE IF NOT EXISTS later (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB",
        ),
        compatible_from=schema.compatible_from(schema.VERSION),
    ),
)
schema.VERSION += 1

_envelope = accepting.Accepting._envelope
_on_up, _on_frames = ring_mode.RingMode.on_up, ring_mode.RingMode.on_frames


def envelope(self, offer):
    return msgspec.structs.replace(_envelope(self, offer), more=MORE)


def on_up(self, peer, said):
    _on_up(self, peer, said)
    self.send(peer, Later("hello"))


def on_frames(self, peer, received):
    _on_frames(self, peer, [frame for frame in received if not isinstance(frame, Later)])


accepting.Accepting._envelope = envelope
ring_mode.RingMode.on_up, ring_mode.RingMode.on_frames = on_up, on_frames

if __name__ == "__main__":
    sys.exit(main())
