"""What the release before this one and this one write for each other, and for themselves after an upgrade or back.

docs/upgrading.md has the rules: a change that breaks one fails here, or in an upgrade of whole nodes.
"""

import functools
import re
from typing import Final

import admin_world
import mariadb_server
import msgspec
import other_releases
from test_peer_frames import ENVELOPE as BARE
from test_peer_frames import EVERY_FRAME

from dlrproxy.admin.parked import Page
from dlrproxy.admin.view import NodeStatus
from dlrproxy.store.directory import FORMAT
from dlrproxy.store.layout import decode_open, encode_open
from dlrproxy.store.port import OpenMessage
from dlrproxy.store.sql import schema
from dlrproxy.store.sql.pool import Pool
from protocols.peer import frames, hello
from protocols.peer.frames import PartOf
from protocols.peer.hello import Hello
from ring.rows import CustodyRow, Kind, ParkedRow, decode_custody, decode_parked, encode_row

_KNOWN: Final = """
import json
from dlrproxy.store.directory import FORMAT
from dlrproxy.store.sql import schema
from protocols.peer import frames
from ring.rows import Kind
print(json.dumps({"schema": schema.VERSION, "oldest": frames.OLDEST_VERSION, "newest": frames.VERSION,
                  "kinds": list(Kind), "format": FORMAT.decode()}))
"""

# How it reads something and writes it again.
_AGAIN: Final = {
    "frames": ("from protocols.peer.frames import decode, encode", "encode(decode(data))"),
    "hello": ("from protocols.peer.hello import decode_hello, encode_hello", "encode_hello(decode_hello(data))"),
    "custody": ("from ring.rows import decode_custody, encode_row", "encode_row(decode_custody(data))"),
    "parked": ("from ring.rows import decode_parked, encode_row", "encode_row(decode_parked(data))"),
    "open": ("from dlrproxy.store.layout import decode_open, encode_open", "encode_open(decode_open(data))"),
    "status": ("from dlrproxy.admin.view import NodeStatus", "json.encode(json.decode(data, type=NodeStatus))"),
    "page": ("from dlrproxy.admin.parked import Page", "json.encode(json.decode(data, type=Page))"),
}
_SCRIPT: Final = """
import sys
from msgspec import json, msgpack
{}
given = msgpack.decode(sys.stdin.buffer.read())
sys.stdout.buffer.write(msgpack.encode([{} for data in given]))
"""

ENVELOPE: Final = msgspec.structs.replace(
    BARE, gateway="shop", node="gw2", part=PartOf(b"message", "shop"), former=BARE.key, more=b"\x81\x01\xa5later"
)


@functools.cache
def known():
    """What it knows. A kind of row, or a frame, that is newer stands in nobody's way (test_later_releases.py)."""
    return msgspec.json.decode(other_releases.evaluate(_KNOWN))


def there_and_back(what: str, *sent: bytes) -> list[bytes]:
    """What the release before writes after it has read each of these. It has changed nothing that it knows."""
    script = _SCRIPT.format(*_AGAIN[what])
    back = msgspec.msgpack.decode(other_releases.evaluate(script, msgspec.msgpack.encode(sent)))
    for before, after in zip(sent, back, strict=True):
        if what not in ("status", "page"):
            assert kept(msgspec.msgpack.decode(before), msgspec.msgpack.decode(after)), (what, before, after)
    return back


def kept(before, after):
    """The same, but for fields at the end of a list that are not there any more."""
    if not isinstance(before, list):
        return before == after
    return len(after) <= len(before) and all(map(kept, before, after))


def test_it_is_another_release():
    assert other_releases.evaluate("from dlrproxy.release import RELEASE; print(RELEASE)").decode().strip() == (
        other_releases.RELEASE_BEFORE
    )
    assert (
        other_releases.evaluate("import dlrproxy; print(dlrproxy.__file__)")
        .decode()
        .startswith(str(other_releases.unpacked()))
    )


def test_they_have_a_version_of_the_frames_in_common_and_a_format_and_a_schema():
    assert known()["newest"] >= frames.OLDEST_VERSION
    assert known()["newest"] <= frames.VERSION
    assert FORMAT.decode() == known()["format"]
    assert schema.compatible_from(schema.VERSION) <= known()["schema"] <= schema.VERSION


def test_frames_go_there_and_back():
    sent = [frame for frame in EVERY_FRAME if frames.SINCE[type(frame)] <= known()["newest"]]
    sent += [frames.Forward(ENVELOPE, 1, 1, ("gw1",), False, 1.0), frames.HandOver((ENVELOPE,), (1.0,))]
    back = there_and_back("frames", *(frames.encode([frame]) for frame in sent))
    assert [type(frame) for data in back for frame in frames.decode(data)] == list(map(type, sent))


def test_a_hello_goes_there_and_back():
    said = Hello("gw1", "gw2", "prod", 1, frames.VERSION, b"store-id", b"boot", 7, b"n" * 32, ("able",), "9.9.9")
    [back] = there_and_back("hello", hello.encode_hello(said))
    assert hello.decode_hello(back).release == "9.9.9"


def test_rows_of_custody_go_there_and_back_with_all_that_an_envelope_carries():
    sent = [
        CustodyRow(Kind(kind), ENVELOPE, 1000.5, "shop", "gw3", superseded=True, delivering=True)
        for kind in known()["kinds"]
    ]
    back = [decode_custody(data) for data in there_and_back("custody", *map(encode_row, sent))]
    assert [row.kind for row in back] == known()["kinds"]
    assert {row.envelope.more for row in back} == {ENVELOPE.more}


def test_parked_rows_and_open_messages_go_there_and_back():
    [back] = there_and_back("parked", encode_row(ParkedRow(ENVELOPE, "refused", 1000.5, 1001.5, "shop", 0x45, 3)))
    assert decode_parked(back).envelope.more == ENVELOPE.more
    message = OpenMessage("acme", b"id1", "shop", b"4479", b"7000", 7, 1000.5, 9000.5, 1001.5)
    [back] = there_and_back("open", encode_open(message))
    assert decode_open(back).key == message.key


def test_the_commands_of_each_read_what_the_other_one_answers():
    answer = admin_world.status(pair=admin_world.pair_status(), quorum=admin_world.quorum_status())
    [back] = there_and_back("status", msgspec.json.encode(answer))
    read = msgspec.json.decode(back, type=NodeStatus)
    assert (read.node, read.pair.role, read.quorum.role) == (answer.node, answer.pair.role, answer.quorum.role)
    [back] = there_and_back("page", msgspec.json.encode(Page(now=1.0, items=(), next=None)))
    assert msgspec.json.decode(back, type=Page).next is None


async def test_a_schema_of_the_release_before_becomes_this_ones():
    """By migrations: what only schema.sql has, a cluster that is upgraded never gets."""
    version = known()["schema"]
    stage = f"INSERT INTO schema_version (id,version,compatible_from) VALUES (1,{version},1)"  # noqa: S608
    upgraded = await shape_of([*creation_before(), stage], schema.migrate)
    assert upgraded == await shape_of([], schema.init)


async def shape_of(statements, finish):
    """Columns and keys of a schema that is made so."""
    async with mariadb_server.fresh_schema() as account:
        pool = Pool(account, 1, 30)
        try:
            for statement in statements:
                await pool.run(statement)
            await finish(pool)
            return await shape(pool)
        finally:
            await pool.close()


def creation_before():
    text = (other_releases.unpacked() / "dlrproxy" / "store" / "sql" / "schema.sql").read_text()
    bare = re.sub(r"^\s*--.*$", "", text, flags=re.MULTILINE)
    return [statement.strip() for statement in bare.split(";") if statement.strip()]


async def shape(pool):
    columns = await pool.run(
        "SELECT table_name,column_name,column_type,is_nullable,column_default FROM information_schema.columns "
        "WHERE table_schema=DATABASE() ORDER BY table_name,column_name"
    )
    keys = await pool.run(
        "SELECT table_name,index_name,seq_in_index,column_name,non_unique FROM information_schema.statistics "
        "WHERE table_schema=DATABASE() ORDER BY table_name,index_name,seq_in_index"
    )
    return columns.rows, keys.rows
