"""What the active node of a pair takes in of what was merged into its store."""

import attrs
import pytest
import structlog
import trio
import trio.testing
from msgspec import structs
from test_keeper import FakeRelay, open_message

from dlrproxy.clock import NodeClock
from dlrproxy.config import parse
from dlrproxy.custody import Keeper
from dlrproxy.keeping.intake import LOOK_S, Intake
from dlrproxy.logs import RouteLog
from dlrproxy.mo.conversations import Conversations
from dlrproxy.modes.merging import CAME_HOME, INTAKE, OF_CUSTODY, OF_OPENS, OF_PARKED, intake_name
from dlrproxy.store.counting import count_rows
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import Table
from dlrproxy.term import Term
from protocols.peer.frames import Envelope, EnvelopeKey
from protocols.smpp.constants import ESME_ROK
from ring.custody import Custody as Machine
from ring.rows import CustodyRow, Kind, ParkedRow, decode_parked, encode_key, encode_row
from ring.settings import CustodySettings, OperatorPolicy
from ring.topology import Topology

MERGE = b"m" * 32
STORE = b"pair" * 2


class Node:
    """A node alone, whose store is the pair's."""

    def __init__(self, **settings):
        clock = NodeClock(wall=lambda: 1000.0, monotonic=lambda: 1000.0)
        self.store = MemoryStore(clock.now)
        settings = CustodySettings(operators={"acme": OperatorPolicy()}, claim_for_s=0.0, **settings)
        machine = Machine(topology=Topology(("b",), "b"), store_id=STORE, run=2, settings=settings)
        self.keeper = Keeper(machine, self.store, clock, RouteLog("b"))
        self.relay = FakeRelay("gw1")
        self.keeper.attach({"acme": self.relay}, lambda peer, frame: False)
        self.intake = Intake(self.store, self.keeper)

    def merge(self, letter, row=None):
        if row is None:
            self.store.put(Table.META, intake_name(MERGE, letter), b"1")
        else:
            self.store.put(Table.META, intake_name(MERGE, letter, encode_key(row.envelope.key)), encode_row(row))

    async def settle(self):
        while self.keeper.lookups.waiting:
            assert await self.keeper.lookups.look_up()
            self.keeper.tick()

    async def waiting(self):
        return [name for name, _ in await self.store.scan(Table.META)]


def envelope(number, message_id=b"id1"):
    # A name that this node uses itself: both were active, and counted alike.
    key = EnvelopeKey(STORE, 2 << 32 | number)
    return Envelope(key, "a", "acme", "dlr", message_id, b"4670", b"pdu %d" % number, f"t{number}", final=True)


def of_custody(number, gateway="gw1"):
    return CustodyRow(Kind.ORIGIN, envelope(number), 900.0, gateway)


def of_parked(number, reason="refused", message_id=b"id1"):
    return ParkedRow(envelope(number, message_id), reason, 900.0, 950.0, "gw1", 8)


async def test_what_was_in_custody_is_delivered_and_its_row_goes_with_it():
    node = Node()
    node.merge(OF_CUSTODY, of_custody(1))
    node.merge(OF_CUSTODY, of_custody(2))
    assert await node.intake.take_in() == 2
    assert await node.waiting() == []
    assert await count_rows(node.store, Table.CUSTODY) == 2
    delivered = []
    while node.relay.delivered:
        _, pdu, done = node.relay.delivered.pop(0)
        delivered.append(pdu)
        done(ESME_ROK)
    assert delivered == [b"pdu 1", b"pdu 2"]
    assert node.keeper.in_custody() == 0
    assert await node.intake.take_in() == 0


async def test_what_has_a_name_that_is_in_use_here_becomes_another_row():
    node = Node()
    node.relay.bound = False
    node.keeper.take_in(of_custody(7))
    assert [item.key for item in node.keeper.machine._shelf.items] == [envelope(1).key]
    node.merge(OF_CUSTODY, of_custody(1))
    await node.intake.take_in()
    assert await count_rows(node.store, Table.CUSTODY) == 2


async def test_what_has_no_owner_yet_finds_it():
    node = Node()
    node.relay.owned[b"id1"] = open_message(b"id1", "gw1")
    node.merge(OF_CUSTODY, of_custody(1, gateway=""))
    await node.intake.take_in()
    await node.settle()
    assert [pdu for _, pdu, _ in node.relay.delivered] == [b"pdu 1"]


async def test_parked_items_are_parked_again():
    node = Node()
    node.merge(OF_PARKED, of_parked(9))
    assert await node.intake.take_in() == 1
    [(name, content)] = await node.store.scan(Table.PARKED)
    row = decode_parked(content)
    assert (row.reason, row.status, row.accepted_at, row.envelope.pdu) == ("refused", 8, 900.0, b"pdu 9")
    assert name == encode_key(row.envelope.key)
    assert node.keeper.machine.count().parked == 1
    assert await node.waiting() == []


async def test_a_report_that_nobody_owned_goes_to_its_owner_when_its_message_is_merged():
    node = Node()
    for number, message_id in ((1, b"id1"), (2, b"id2")):
        assert node.keeper.parked.take_in(of_parked(number, "unclaimed", message_id))
    assert node.keeper.parked.take_in(of_parked(3, "refused"))
    node.relay.owned[b"id1"] = open_message(b"id1", "gw1")
    node.merge(OF_OPENS)
    await node.intake.take_in()
    await node.settle()
    assert [pdu for _, pdu, _ in node.relay.delivered] == [b"pdu 1"]
    assert node.keeper.machine.count().parked == 2
    assert await node.waiting() == []


def parked_for_want_of_owners(node, *message_ids):
    for number, message_id in enumerate(message_ids, 1):
        assert node.keeper.parked.take_in(of_parked(number, "unclaimed", message_id))


async def test_a_report_that_nobody_owned_goes_to_its_owner_once_when_its_message_has_come_home():
    node = Node()
    parked_for_want_of_owners(node, b"id1", b"id2")
    assert await node.intake.look_again() == 0
    node.relay.owned[b"id1"] = open_message(b"id1", "gw1")
    assert await node.intake.look_again() == 0  # nobody has said that anything came
    for note in (b"1", b"2"):
        node.store.put(Table.META, CAME_HOME + note, b"1")
    assert await node.intake.look_again() == 1
    await node.settle()
    assert [pdu for _, pdu, _ in node.relay.delivered] == [b"pdu 1"]
    assert node.keeper.machine.count().parked == 1
    assert await node.waiting() == []
    node.store.put(Table.META, CAME_HOME + b"3", b"1")  # as after a crash: the same messages once more
    assert await node.intake.look_again() == 0
    await node.settle()
    assert len(node.relay.delivered) == 1


async def test_a_report_is_not_that_of_a_message_which_got_its_id_long_after_it_came():
    node = Node()
    parked_for_want_of_owners(node, b"id1")
    node.relay.owned[b"id1"] = structs.replace(open_message(b"id1", "gw1"), submitted_at=1e9)
    node.store.put(Table.META, CAME_HOME + b"1", b"1")
    assert await node.intake.look_again() == 0
    assert node.keeper.machine.count().parked == 1


async def test_a_note_that_comes_while_it_looks_again_is_for_the_next_time(monkeypatch):
    node = Node()
    parked_for_want_of_owners(node, b"id1")
    node.store.put(Table.META, CAME_HOME + b"1", b"1")
    look_again = node.keeper.parked.look_again

    async def later():
        found = await look_again()
        node.relay.owned[b"id1"] = open_message(b"id1", "gw1")
        node.store.put(Table.META, CAME_HOME + b"2", b"1")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(node.keeper.parked, "look_again", later)
        assert await node.intake.look_again() == 0
    assert await node.waiting() == [CAME_HOME + b"2"]
    assert await node.intake.look_again() == 1


async def test_a_report_that_is_looked_up_while_its_message_comes_home_is_seen_as_well():
    node = Node()
    found, asked, go_on = node.relay.find_owners, trio.Event(), trio.Event()

    async def slowly(wanted):
        verdicts = await found(wanted)  # as the database said before the message came
        asked.set()
        await go_on.wait()
        return verdicts

    node.merge(OF_CUSTODY, of_custody(1, gateway=""))
    await node.intake.take_in()
    node.relay.find_owners = slowly
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.settle)
        with trio.fail_after(60):
            await asked.wait()
        node.relay.owned[b"id1"] = open_message(b"id1", "gw1")
        node.store.put(Table.META, CAME_HOME + b"1", b"1")
        nursery.start_soon(node.intake.look_again)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    node.relay.find_owners = found
    await node.settle()
    assert [pdu for _, pdu, _ in node.relay.delivered] == [b"pdu 1"]
    assert await node.waiting() == []


async def test_what_cannot_be_taken_in_keeps_nobody_from_looking_again(autojump_clock):
    node = Node()
    node.store.put(Table.META, intake_name(MERGE, OF_CUSTODY, b"x"), b"nothing of the kind")
    parked_for_want_of_owners(node, b"id1")
    node.relay.owned[b"id1"] = open_message(b"id1", "gw1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.intake.run)
        await trio.sleep(1.0)
        node.store.put(Table.META, CAME_HOME + b"1", b"1")
        await trio.sleep(LOOK_S)
        nursery.cancel_scope.cancel()
    await node.settle()
    assert [pdu for _, pdu, _ in node.relay.delivered] == [b"pdu 1"]
    assert await node.waiting() == [intake_name(MERGE, OF_CUSTODY, b"x")]


@pytest.mark.parametrize(
    ("settings", "letter", "row"),
    [({"max_messages": 1}, OF_CUSTODY, of_custody), ({"max_parked": 1}, OF_PARKED, of_parked)],
)
async def test_what_there_is_no_room_for_waits_where_it_is(settings, letter, row):
    node = Node(**settings)
    node.relay.bound = False
    node.merge(letter, row(1))
    node.merge(letter, row(2))
    assert await node.intake.take_in() == 1
    assert await node.waiting() == [intake_name(MERGE, letter, encode_key(envelope(2).key))]


@pytest.mark.parametrize("letter", [OF_CUSTODY, b"later"])
async def test_a_row_that_cannot_be_read_stays_and_holds_up_no_other(letter):
    node = Node()
    name = intake_name(MERGE, letter, b"\0")
    node.store.put(Table.META, name, b"nothing of the kind")
    node.store.put(Table.META, b"rule/acme", b"exact 9")
    node.merge(OF_PARKED, of_parked(1))
    with structlog.testing.capture_logs() as logged:
        assert await node.intake.take_in() == 1
        assert await node.intake.take_in() == 0  # a few seconds later; nothing is said again
    assert await node.waiting() == [name, b"rule/acme"]
    [said] = [entry for entry in logged if entry["event"] == "custody.merge_unreadable"]
    assert (said["log_level"], said["name"]) == ("error", name.hex())


TERM = """
[node]
name = "b"
mode = "active-passive"
data_dir = "/nowhere"

[[operators]]
name = "acme"
host = "127.0.0.1"
port = 1
system_id = "shop"
password = "secret"
listen = "127.0.0.1:0"

[[peers]]
name = "a"
[[peers]]
name = "b"

[database]
user = "app"
admin_user = "admin"
[pair]
peer_host = "10.0.0.2"
"""


async def test_a_term_of_service_of_a_pair_takes_in_what_was_merged():
    clock = NodeClock()
    store = MemoryStore(clock.now)
    alone = attrs.evolve(parse(TERM), peers=())
    term = Term(alone, clock, RouteLog("b"), Conversations(600.0))
    row = of_custody(1, gateway="b")
    store.put(Table.META, intake_name(MERGE, OF_CUSTODY, encode_key(row.envelope.key)), encode_row(row))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        await nursery.start(term.run, store)
        with trio.fail_after(60):
            while True:
                if term.keeper.in_custody() and not [
                    name for name, _ in await store.scan(Table.META) if name.startswith(INTAKE)
                ]:
                    break
                await trio.sleep(0.02)
        term.stop()
        nursery.cancel_scope.cancel()
    assert await count_rows(store, Table.CUSTODY) == 1
