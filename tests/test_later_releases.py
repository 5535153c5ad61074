"""What a later release has written is kept, and in nobody's way: rows, frames, files (docs/upgrading.md)."""

import admin_world
import msgspec
import pytest
import structlog.testing
import trio
from cluster_world import World as Cluster
from rocksdict import Options, Rdict
from test_keeper import Pair, open_message
from test_store_rocks import an_open, open_store

from dlrproxy.admin.parked import Bulk, Filter, Parked
from dlrproxy.custody import Keeper
from dlrproxy.housekeeping import learned_rules
from dlrproxy.logs import RouteLog
from dlrproxy.modes.pair import Alone
from dlrproxy.store.database import database_options
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import Table
from protocols.peer import frames, hello
from protocols.peer.frames import Claimed, Envelope, EnvelopeKey, Finished, Forward, HandOver, Settled
from protocols.smpp.constants import ESME_ROK, ESME_RX_P_APPN
from protocols.smpp.message_ids import Rule
from ring.custody import Custody as Machine
from ring.rows import CustodyRow, Kind, ParkedRow, RowError, decode_custody, decode_parked, encode_key, encode_row
from ring.topology import Topology

MORE = b"\x81\x01\xa5later"  # as an envelope of a later release might have it
OWN, OTHERS = EnvelopeKey(b"a" * 8, 1), EnvelopeKey(b"b" * 8, 1)


def envelope(number=1, **changes):
    values = {
        "key": EnvelopeKey(b"a" * 8, number), "origin": "a", "operator": "acme", "kind": "dlr", "message_id": b"id1",
        "destination": b"4479", "pdu": b"pdu", "trace": f"t{number}", "final": True, "more": MORE,
    }  # fmt: skip
    return Envelope(**(values | changes))


def later(value, *fields):
    """Its bytes as a release would write them that has appended fields."""
    return msgspec.msgpack.encode([*msgspec.msgpack.decode(msgspec.msgpack.encode(value)), *fields])


def of_unknown_kind(number):
    kind, *rest = msgspec.msgpack.decode(encode_row(CustodyRow(Kind.ORIGIN, envelope(number), 1000.0, "gw-a")))
    return msgspec.msgpack.encode([kind + 98, *rest])


# Fields that are appended


def test_rows_and_frames_with_fields_that_are_not_known_are_read_without_them():
    row = CustodyRow(Kind.ORIGIN, envelope(), 1000.0, "gw-a")
    assert decode_custody(later(row, "new", 7)) == row
    parked = ParkedRow(envelope(), "of a later release", 1000.0, 1001.0)
    assert decode_parked(later(parked, {"new": 7})) == parked
    for frame in (Forward(envelope(), 1, 1, ("a",), inexact=False, age_s=1.0), HandOver((envelope(),), (1.0,))):
        assert frames.decode(b"\x91" + later(frame, "new")) == [frame]
    said = hello.Hello("a", "b", "test", 1, 2, b"a" * 8, b"boot", 1, b"n" * 32, (), "0.1.0")
    assert hello.decode_hello(later(said, "new")) == said


def test_what_a_later_release_adds_to_an_envelope_goes_wherever_that_goes():
    found = frames.decode(frames.encode([Forward(envelope(), 1, 1, ("a",), inexact=False, age_s=1.0)]))
    assert found[0].envelope.more == MORE  # from node to node
    assert decode_custody(encode_row(CustodyRow(Kind.CLAIM, found[0].envelope, 1000.0))).envelope.more == MORE


async def test_it_is_kept_when_the_report_is_taken_in_parked_and_replayed():
    pair = Pair()
    keeper, store = pair.keepers["a"], pair.stores["a"]
    assert keeper.take_in(CustodyRow(Kind.ORIGIN, envelope(), 1000.0, "gw-a"))
    pair.relays["a"].delivered.pop()[2](ESME_RX_P_APPN)
    [(key, value)] = await store.scan(Table.PARKED)
    assert decode_parked(value).envelope.more == MORE
    pair.relays["a"].bound = False
    assert await keeper.parked.replay([key], "gw-a") == 1
    [(_, value)] = await store.scan(Table.CUSTODY)
    assert decode_custody(value).envelope.more == MORE


def test_it_is_kept_when_another_node_of_the_cluster_takes_the_report_over():
    world = Cluster(2)
    machine = world.processes["n0"].machine
    row = CustodyRow(Kind.ORIGIN, envelope(origin="n1"), world.now, "gw1")
    commands = machine.arrived([row], world.now)
    written = [row for command in commands for row in getattr(command, "rows", ()) if row.value and not row.inbox]
    assert [decode_custody(row.value).envelope.more for row in written] == [MORE]


# Rows that cannot be read


async def restarted(pair, send=lambda peer, frame: True):
    machine = Machine(topology=Topology(("a", "b"), "a"), store_id=b"a" * 8, run=2)
    keeper = Keeper(machine, pair.stores["a"], pair.keepers["a"]._clock, RouteLog("a"))
    keeper.attach({"acme": pair.relays["a"]}, send)
    await keeper.restore()
    return keeper


async def test_a_node_starts_on_custody_that_it_cannot_read_and_leaves_that_where_it_is():
    pair = Pair()
    store = pair.stores["a"]
    names = [encode_key(EnvelopeKey(b"a" * 8, number)) for number in (1, 2, 3)]
    store.put(Table.CUSTODY, names[0], of_unknown_kind(1))
    store.put(Table.CUSTODY, names[1], encode_row(CustodyRow(Kind.ORIGIN, envelope(2), 1000.0, "gw-a")))
    store.put(Table.CUSTODY, names[2], b"damaged")
    with structlog.testing.capture_logs() as logged:
        keeper = await restarted(pair)
    [(_, _, done)] = pair.relays["a"].delivered
    done(ESME_ROK)
    assert (keeper.in_custody(), keeper.unreadable) == (0, 2)
    assert await store.scan(Table.CUSTODY) == [(names[0], of_unknown_kind(1)), (names[2], b"damaged")]
    said = [entry for entry in logged if entry["event"] == "custody.unreadable"]
    assert [entry["name"] for entry in said] == [names[0].hex(), names[2].hex()]
    assert {entry["log_level"] for entry in said} == {"error"}


@pytest.mark.parametrize(
    ("key", "frame"),
    [
        (OWN, Claimed(OWN, "b", 1, 1)),
        (OWN, Finished(OWN, "b")),
        (OTHERS, Settled(OTHERS, granted=True, claim=-1)),  # "is it still there?"
        (OTHERS, Forward(envelope(key=OTHERS, origin="b"), 1, 1, ("b",), inexact=False, age_s=1.0)),
        (OTHERS, HandOver((envelope(key=OTHERS, origin="b"),), (1.0,))),
    ],
)
async def test_nothing_is_answered_to_what_other_nodes_say_of_a_row_that_cannot_be_read(key, frame):
    """The answer of a node that has nothing would have them let go of it."""
    pair = Pair()
    store, sent = pair.stores["a"], []
    store.put(Table.CUSTODY, encode_key(key), b"of a later release")
    pair.relays["a"].owned[b"id1"] = open_message(b"id1", "gw-a")
    keeper = await restarted(pair, lambda peer, frame: sent.append(frame))
    keeper.reachable({"b": frames.VERSION})
    for _ in range(2):
        keeper.frames("b", [frame])
        assert await keeper.lookups.look_up()
        keeper.tick()  # some frames wait for it
    assert (sent, pair.relays["a"].delivered) == ([], [])
    assert await store.scan(Table.CUSTODY) == [(encode_key(key), b"of a later release")]


async def parked_at(pair, *contents):
    names = [encode_key(EnvelopeKey(b"a" * 8, number)) for number, _ in enumerate(contents, 1)]
    for name, content in zip(names, contents, strict=True):
        pair.stores["a"].put(Table.PARKED, name, content)
    return names


async def test_parked_rows_that_cannot_be_read_are_neither_replayed_nor_dropped_nor_in_the_way():
    pair = Pair()
    keeper, store = pair.keepers["a"], pair.stores["a"]
    good = encode_row(ParkedRow(envelope(2), "unclaimed", 1000.0, 1001.0))
    names = await parked_at(pair, b"of a later release", good)
    assert await keeper.parked.drop([names[0]]) == 0
    assert await keeper.parked.replay([names[0]], "") == 0
    pair.relays["a"].owned[b"id1"] = open_message(b"id1", "gw-a")
    assert await keeper.parked.look_again() == 1
    assert await store.scan(Table.PARKED) == [(names[0], b"of a later release")]


async def test_a_late_claim_of_what_is_parked_and_cannot_be_read_is_refused():
    pair = Pair()
    keeper, store = pair.keepers["a"], pair.stores["a"]
    [name] = await parked_at(pair, b"of a later release")
    told = []
    keeper.attach({"acme": pair.relays["a"]}, lambda peer, frame: told.append(frame) or True)
    keeper.frames("b", [frames.Claimed(EnvelopeKey(b"a" * 8, 1), "b", 1, 1)])
    assert await keeper.lookups.look_up()
    assert [frame.granted for frame in told if isinstance(frame, frames.Settled)] == [False]
    assert await store.get(Table.PARKED, name) == b"of a later release"


async def test_the_list_of_what_is_parked_counts_what_cannot_be_read():
    node = admin_world.FakeNode()
    node.park(*map(admin_world.parked_row, (1, 3)))
    node.parked[encode_key(EnvelopeKey(admin_world.STORE_ID, 2))] = None
    parked = Parked(node, structlog.get_logger(), full_numbers=False)
    page = await parked.page(Filter(), b"", 10)
    assert (len(page.items), page.unreadable, page.next) == (2, 1, None)
    done = await parked.drop(Bulk(filter=Filter(), all=True))
    assert done.done == 2
    assert list(node.parked.values()) == [None]


async def test_a_rule_for_message_ids_that_is_not_known_is_learned_anew():
    store = MemoryStore(lambda: 0.0)
    store.put(Table.META, b"rule/acme", b"of-a-later-release 17")
    store.put(Table.META, b"rule/other", b"hex-decimal 3")
    assert await learned_rules(store) == [("other", Rule("hex-decimal"), 3)]


def test_a_permission_to_serve_alone_that_is_not_known_is_none():
    assert Alone("of-a-later-release") is Alone.NO


# Files


async def test_a_store_with_a_family_of_a_later_release_opens_and_keeps_it(tmp_path):
    store = await open_store(tmp_path)
    await store.close()
    add_family(tmp_path / "store")
    store = await open_store(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        store.put_open(an_open(b"1"))
        durable = trio.Event()
        store.after_durable(durable.set)
        await durable.wait()
        nursery.cancel_scope.cancel()
    await store.close()
    assert in_family(tmp_path / "store") == b"row"


def opened(path):
    families = Rdict.list_cf(str(path), Options(raw_mode=True))
    options = {name: Options(raw_mode=True) for name in families}
    return Rdict(str(path), database_options(create=False), options)


def add_family(path):
    database = opened(path)
    family = database.create_column_family("later", Options(raw_mode=True))
    family[b"name"] = b"row"
    family.close()
    database.close()


def in_family(path):
    database = opened(path)
    family = database.get_column_family("later")
    try:
        return family[b"name"]
    finally:
        family.close()
        database.close()


def test_a_kind_that_is_not_known_is_an_error_of_its_row_alone():
    with pytest.raises(RowError):
        decode_custody(of_unknown_kind(1))
