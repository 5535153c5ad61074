"""Custody's driver: two nodes' keepers with memory stores, joined without a network."""

import pytest
import trio
from attrs import evolve
from msgspec.structs import replace

from dlrproxy.clock import NodeClock
from dlrproxy.custody import Keeper
from dlrproxy.custody_port import Accepted, Wanted
from dlrproxy.logs import RouteLog
from dlrproxy.store.counting import count_rows
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import OpenMessage, StoreError, Table
from protocols.peer.frames import VERSION, Claimed, PartOf
from protocols.smpp.constants import ESME_ROK, ESME_RX_P_APPN
from protocols.smpp.message_ids import Inexact, Match, NoMatch, Rule
from ring.custody import Custody as Machine
from ring.items import State
from ring.rows import decode_parked
from ring.settings import CustodySettings, OperatorPolicy
from ring.topology import Topology


class FakeRelay:
    """An operator's relay with one gateway; what is delivered waits in `delivered` for an answer."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.bound = True
        self.owned = {}
        self.guessed = {}  # verdicts by a rule that is not in force
        self.converses = False
        self.delivered = []
        self.closed = []
        self.passing, self.finals = set(), set()
        self.wrapped_up = 0

    def bound_gateways(self):
        return [self.gateway] if self.bound else []

    def conversing(self, pdu):
        return self.gateway if self.converses else None

    def deliver(self, gateway, message_id, pdu, done, *, age_s=0.0):
        if not self.bound or gateway != self.gateway:
            return False
        self.delivered.append((message_id, pdu, done))
        return True

    async def find_owners(self, wanted):
        assert all(isinstance(each, Wanted) for each in wanted)
        await trio.lowlevel.checkpoint()
        found = [self.owned.get(each.message_id) for each in wanted]
        return [
            self.guessed.get(each.message_id, NoMatch()) if message is None else Match(message, Rule.EXACT)
            for each, message in zip(wanted, found, strict=True)
        ]

    def under_way(self, message_id):
        return message_id in self.passing

    def finished(self, message_id):
        return message_id in self.finals

    def wrap_up(self):
        self.wrapped_up += 1

    def close(self, message):
        self.closed.append(message)


class Pair:
    """Nodes a and b; `tick` moves their clocks together."""

    def __init__(self, settings=None):
        self.time = 1000.0
        clock = NodeClock(wall=lambda: 1000.0, monotonic=lambda: self.time)
        self.keepers, self.relays, self.stores = {}, {}, {}
        for name in ("a", "b"):
            self.stores[name] = MemoryStore(clock.now)
            machine = Machine(topology=Topology(("a", "b"), name), store_id=name.encode() * 8, run=1, settings=settings)
            self.keepers[name] = Keeper(machine, self.stores[name], clock, RouteLog(name))
            self.relays[name] = FakeRelay(f"gw-{name}")
        for name, other in (("a", "b"), ("b", "a")):
            self.keepers[name].attach({"acme": self.relays[name]}, self._wire(name))
            self.keepers[name].reachable({other: VERSION})

    def _wire(self, sender):
        def send(peer, frame):
            self.keepers[peer].frames(sender, [frame])
            return True

        return send


def report(message_id=b"id1", trace="t1", owner=None, session=None, kind="dlr"):
    return Accepted("acme", kind, message_id, b"4479", b"pdu " + message_id, True, trace, owner, session=session)


def open_message(message_id, owner):
    return OpenMessage("acme", message_id, owner, b"4479", b"7000", 0, 1000.0, 9e9)


async def until(nursery, condition):
    with trio.fail_after(100):
        while not condition():
            await trio.lowlevel.checkpoint()
    nursery.cancel_scope.cancel()


async def run_until(pair, condition):
    async with trio.open_nursery() as nursery:
        for keeper in pair.keepers.values():
            nursery.start_soon(keeper.run)
        nursery.start_soon(until, nursery, condition)


async def test_what_nobody_owns_is_handed_on_when_its_node_leaves():
    pair, answers = Pair(CustodySettings(operators={"acme": OperatorPolicy()})), []
    pair.keepers["a"].accept(report(), answers.append)
    await run_until(pair, lambda: pair.keepers["a"].counts["waiting"])
    pair.keepers["a"].leave()
    async with trio.open_nursery() as nursery:
        for keeper in pair.keepers.values():
            nursery.start_soon(keeper.run)
        with trio.fail_after(100):
            await pair.keepers["a"].handed_on()
        nursery.cancel_scope.cancel()
    assert [pair.keepers[name].in_custody() for name in ("a", "b")] == [0, 1]
    assert [await count_rows(pair.stores[name], Table.CUSTODY) for name in ("a", "b")] == [0, 1]


async def test_a_node_that_cannot_write_inherits_nothing():
    pair, answers = Pair(CustodySettings(operators={"acme": OperatorPolicy()})), []
    pair.keepers["a"].accept(report(), answers.append)
    await run_until(pair, lambda: pair.keepers["a"].counts["waiting"])
    pair.stores["b"].accepting = False
    pair.keepers["a"].leave()
    async with trio.open_nursery() as nursery:
        for keeper in pair.keepers.values():
            nursery.start_soon(keeper.run)
        with trio.fail_after(100):
            await pair.keepers["a"].handed_on()
        nursery.cancel_scope.cancel()
    assert [pair.keepers[name].in_custody() for name in ("a", "b")] == [1, 0]
    assert pair.keepers["a"].counts["busy"] == 1


@pytest.mark.parametrize(("later_s", "ended"), [(0.0, 1), (7200.0, 0)])
async def test_a_final_report_that_was_long_in_custody_ends_no_message_that_has_its_id_since(later_s, ended):
    pair = Pair()
    pair.relays["b"].owned[b"id1"] = open_message(b"id1", "gw-b")
    pair.keepers["a"].accept(report(), [].append)
    await run_until(pair, lambda: pair.relays["b"].delivered)
    [(_, _, done)] = pair.relays["b"].delivered
    pair.time += later_s
    pair.relays["b"].owned[b"id1"] = replace(open_message(b"id1", "gw-b"), submitted_at=1000.0 + later_s)
    done(ESME_ROK)
    assert pair.keepers["b"].lookups.waiting
    assert await pair.keepers["b"].lookups.look_up()
    assert len(pair.relays["b"].closed) == ended


async def test_a_report_is_answered_claimed_by_its_owner_and_delivered_there():
    pair, answers = Pair(), []
    pair.relays["b"].owned[b"id1"] = open_message(b"id1", "gw-b")
    pair.keepers["a"].accept(report(), answers.append)
    assert answers == [True]
    await run_until(pair, lambda: pair.relays["b"].delivered)
    [(message_id, pdu, done)] = pair.relays["b"].delivered
    assert (message_id, pdu) == (b"id1", b"pdu id1")
    done(ESME_ROK)
    await run_until(pair, lambda: not any(keeper.in_custody() for keeper in pair.keepers.values()))
    assert [message.message_id for message in pair.relays["b"].closed] == [b"id1"]
    assert [await count_rows(store, Table.CUSTODY) for store in pair.stores.values()] == [0, 0]
    assert pair.keepers["b"].counts["claimed"] == 1


async def test_a_store_that_takes_no_writes_refuses():
    pair, answers = Pair(), []
    pair.stores["a"].accepting = False
    pair.keepers["a"].accept(report(), answers.append)
    assert answers == [False]
    assert pair.keepers["a"].refused == {"store_not_accepting": 1}


async def test_a_full_custody_refuses():
    pair, answers = Pair(CustodySettings(max_messages=1)), []
    pair.relays["a"].bound = False
    for number in (1, 2):
        pair.keepers["a"].accept(report(b"%d" % number, f"t{number}", owner="gw-a"), answers.append)
    assert answers == [True, False]
    assert pair.keepers["a"].refused == {"custody_full": 1}


async def test_a_late_answer_of_its_session_settles_it():
    pair, answers = Pair(), []
    keeper = pair.keepers["a"]
    keeper.accept(report(owner="gw-a", session=7), answers.append)
    assert keeper.in_custody() == 1
    assert not pair.relays["a"].delivered
    keeper.answered("t1", ESME_ROK)
    assert keeper.in_custody() == 0


async def test_what_its_session_never_answered_is_delivered_again():
    pair, answers = Pair(), []
    keeper = pair.keepers["a"]
    keeper.accept(report(owner="gw-a", session=7), answers.append)
    keeper.answered("t1", None)
    assert len(pair.relays["a"].delivered) == 1


async def test_an_mo_waits_for_a_gateway_anywhere():
    pair, answers = Pair(), []
    pair.relays["a"].bound = pair.relays["b"].bound = False
    pair.keepers["a"].accept(report(b"", kind="mo"), answers.append)
    assert answers == [True]
    pair.relays["b"].bound = True
    pair.keepers["b"].gateway_bound("acme", "gw-b")
    pair.time += 400
    await run_until(pair, lambda: pair.relays["b"].delivered)


async def test_an_mo_for_a_gateway_is_delivered_where_that_is_bound():
    pair, answers = Pair(), []
    mo = Accepted("acme", "mo", b"", b"7000", b"pdu", False, "t1", designated="gw-b")
    pair.keepers["a"].accept(mo, answers.append)
    assert answers == [True]
    [(_, pdu, done)] = pair.relays["b"].delivered
    assert pdu == b"pdu"
    done(ESME_ROK)
    await run_until(pair, lambda: not any(keeper.in_custody() for keeper in pair.keepers.values()))
    assert not pair.relays["a"].delivered


async def test_an_mo_goes_to_the_node_that_converses_with_its_sender_before_any_bound_gateway():
    pair, answers = Pair(CustodySettings(conversations=True)), []
    pair.relays["b"].converses = True
    pair.keepers["a"].accept(report(b"", kind="mo"), answers.append)
    assert len(pair.relays["b"].delivered) == 1
    pair.relays["b"].converses = False
    pair.keepers["a"].accept(report(b"", trace="t2", kind="mo"), answers.append)
    assert len(pair.relays["a"].delivered) == 1


async def test_the_parts_of_an_mo_that_came_in_at_two_nodes_are_delivered_at_one():
    pair, answers = Pair(), []
    for name, relay in pair.relays.items():
        pair.keepers[name].gateway_bound("acme", relay.gateway)
    part = PartOf(b"message")
    for trace, name in (("t1", "a"), ("t2", "b")):
        mo = Accepted("acme", "mo", b"", b"7000", trace.encode(), False, trace, part=part)
        pair.keepers[name].accept(mo, answers.append)
    assert answers == [True, True]
    assert [pdu for _, pdu, _ in pair.relays["a"].delivered] == [b"t1", b"t2"]
    assert not pair.relays["b"].delivered
    assert [keeper.counts["gathered"] for keeper in pair.keepers.values()] == [1, 1]


async def test_a_decision_about_parts_outlives_a_restart_on_disk():
    pair, answers = Pair(), []
    pair.keepers["a"].gateway_bound("acme", "gw-a")
    for keeper in pair.keepers.values():
        mo = Accepted("acme", "mo", b"", b"7000", b"pdu", False, "t1", part=PartOf(b"message", rule="gw-a"))
        keeper.accept(mo, answers.append)
    for _, _, done in pair.relays["a"].delivered:
        done(ESME_ROK)
    await run_until(pair, lambda: not any(keeper.in_custody() for keeper in pair.keepers.values()))
    [count] = {len(await store.scan(Table.CUSTODY)) for store in pair.stores.values()} - {0}
    assert count == 1
    for name, store in pair.stores.items():
        machine = Machine(topology=Topology(("a", "b"), name), store_id=name.encode() * 8, run=2)
        clock = NodeClock(wall=lambda: 1000.0, monotonic=lambda: pair.time)
        again = Keeper(machine, store, clock, RouteLog(name))
        await again.restore()
        assert again.in_custody() == 0
        pair.time += 601
        again._do(machine.tick(clock.now()))
        assert await store.scan(Table.CUSTODY) == []


async def test_a_gateway_that_has_gone_is_not_chosen_for_parts():
    pair, answers = Pair(), []
    for name, relay in pair.relays.items():
        pair.keepers[name].gateway_bound("acme", relay.gateway)
    pair.keepers["a"].gateway_gone("acme", "gw-a")
    pair.relays["a"].bound = False
    pair.keepers["a"].accept(Accepted("acme", "mo", b"", b"7", b"", False, "t1", part=PartOf(b"x")), answers.append)
    assert len(pair.relays["b"].delivered) == 1


async def test_a_refused_report_is_parked_replayed_and_dropped():
    pair, answers = Pair(), []
    keeper = pair.keepers["a"]
    keeper.accept(report(owner="gw-a"), answers.append)
    pair.relays["a"].delivered.pop()[2](ESME_RX_P_APPN)
    [(key, value)] = await pair.stores["a"].scan(Table.PARKED)
    assert decode_parked(value).reason == "refused"
    assert await keeper.parked.replay([key], "gw-a") == 1
    pair.relays["a"].delivered.pop()[2](ESME_RX_P_APPN)
    [(key, _)] = await pair.stores["a"].scan(Table.PARKED)
    assert await keeper.parked.drop([key]) == 1
    assert await keeper.parked.drop([key]) == 0
    assert await keeper.parked.replay([key], "") == 0
    assert keeper.machine.count().parked == 0
    assert keeper.counts["parked.refused"] == 2


async def test_a_parked_report_is_replayed_to_the_gateway_of_another_node():
    pair = Pair()
    keeper = pair.keepers["a"]
    keeper.accept(report(owner="gw-a"), lambda _: None)
    pair.relays["a"].delivered.pop()[2](ESME_RX_P_APPN)
    [(key, _)] = await pair.stores["a"].scan(Table.PARKED)
    assert await keeper.parked.replay([key], "gw-b", node="b") == 1
    [(_, _, done)] = pair.relays["b"].delivered
    done(ESME_ROK)
    await run_until(pair, lambda: not any(each.in_custody() for each in pair.keepers.values()))
    assert not pair.relays["a"].delivered


@pytest.mark.parametrize("what", ["replay", "drop"])
async def test_what_a_late_claim_takes_while_a_person_has_it_read_is_the_claimers(what):
    pair = Pair(CustodySettings(claim_for_s=0.0, operators={"acme": OperatorPolicy()}))
    keeper, store = pair.keepers["a"], pair.stores["a"]
    keeper.accept(report(), lambda _: None)
    await run_until(pair, lambda: keeper.counts["parked.unclaimed"])
    [(key, value)] = await store.scan(Table.PARKED)
    read = store.get_many

    async def read_slowly(table, keys):
        values = await read(table, keys)
        keeper.frames("b", [Claimed(decode_parked(value).envelope.key, "b", 1, 1)])
        assert await keeper.lookups.look_up()
        return values

    store.get_many = read_slowly
    assert await (keeper.parked.replay([key], "") if what == "replay" else keeper.parked.drop([key])) == 0
    assert keeper.machine.by_state() == {State.GRANTED: 1}
    assert keeper.machine.count().parked == 0
    assert keeper.parked.replaying() == 0


async def test_a_restart_goes_on_with_what_is_on_disk():
    pair, answers = Pair(), []
    pair.relays["a"].bound = False
    pair.keepers["a"].accept(report(owner="gw-a"), answers.append)
    machine = Machine(topology=Topology(("a", "b"), "a"), store_id=b"a" * 8, run=2)
    clock = NodeClock(wall=lambda: 1000.0, monotonic=lambda: pair.time)
    again = Keeper(machine, pair.stores["a"], clock, RouteLog("a"))
    pair.relays["a"].bound = True
    again.attach({"acme": pair.relays["a"]}, lambda peer, frame: True)
    await again.restore()
    assert [pdu for _, pdu, _ in pair.relays["a"].delivered] == [b"pdu id1"]


async def test_a_store_that_cannot_be_read_for_a_moment_is_asked_again(autojump_clock):
    pair, answers = Pair(), []
    pair.relays["b"].owned[b"id1"] = open_message(b"id1", "gw-b")
    look = pair.relays["b"].find_owners
    failures = [StoreError("the store is closed, or being opened again")] * 3

    async def find_owners(wanted):
        if failures:
            raise failures.pop()
        return await look(wanted)

    delivered = trio.Event()
    deliver = pair.relays["b"].deliver

    def deliver_and_tell(*delivery, **more):
        delivered.set()
        return deliver(*delivery)

    pair.relays["b"].find_owners, pair.relays["b"].deliver = find_owners, deliver_and_tell
    pair.keepers["a"].accept(report(), answers.append)
    async with trio.open_nursery() as nursery:
        for keeper in pair.keepers.values():
            nursery.start_soon(keeper.run)
        await delivered.wait()
        nursery.cancel_scope.cancel()
    assert not failures


@pytest.mark.parametrize(
    ("agrees", "subscriber", "delivered"),
    [(True, b"4479", True), (False, b"4670", False), (False, b"", True), (False, b"*", True)],
)
async def test_a_rule_that_is_not_in_force_gives_a_report_only_to_its_own_subscribers_message(
    agrees, subscriber, delivered
):
    pair, answers = Pair(CustodySettings(claim_for_s=0.0)), []
    record = OpenMessage("acme", b"1f", "gw-b", subscriber, b"7000", 0, 1000.0, 9e9)
    pair.relays["b"].guessed[b"31"] = Inexact(record, Rule.HEX_DECIMAL, agrees)
    pair.keepers["a"].accept(report(b"31"), answers.append)
    counts = {name: keeper.counts for name, keeper in pair.keepers.items()}
    await run_until(pair, lambda: pair.relays["b"].delivered or counts["a"]["parked"])
    assert bool(pair.relays["b"].delivered) is delivered


async def test_an_intermediate_report_waits_for_a_final_one_that_goes_past_custody_and_is_superseded_by_it():
    pair, answers = Pair(), []
    keeper, relay = pair.keepers["a"], pair.relays["a"]
    relay.passing.add(b"id1")
    intermediate = evolve(report(owner="gw-a"), final=False)
    keeper.accept(intermediate, answers.append)
    assert answers == [True]
    assert not relay.delivered
    relay.passing.clear()
    relay.finals.add(b"id1")
    pair.time += 2
    await run_until(pair, lambda: not keeper.in_custody())
    assert not relay.delivered
    assert keeper.counts["superseded"] == 1
