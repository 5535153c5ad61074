"""What each route answers, asked as the commands ask: by the client, over the unix socket."""

from functools import partial

import msgspec
import pytest
import structlog
from admin_world import (
    NOW,
    PDU,
    STORE_ID,
    FakeNode,
    asking,
    custody_entry,
    operator,
    pair_status,
    parked_row,
    serving,
    standby_status,
    status,
)

from dlrproxy.admin import parked
from dlrproxy.admin.api import Health
from dlrproxy.admin.client import RefusedError
from dlrproxy.admin.lookup import Answer
from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.admin.parked import Done, Page, ParkedDetail
from dlrproxy.admin.quorum_view import QuorumStatus
from dlrproxy.admin.view import DrainState, IdRule, NodeStatus, StoreStatus
from dlrproxy.store.port import OpenMessage, StoreError
from ring.rows import encode_key


@pytest.fixture
def node():
    return FakeNode()


@pytest.fixture
async def ask(node, tmp_path):
    async with serving(node, tmp_path):
        yield partial(asking, tmp_path)


async def refused(ask, *arguments):
    with pytest.raises(RefusedError) as caught:
        await ask(*arguments)
    return caught.value.status, str(caught.value)


def key(number=1):
    return (STORE_ID + number.to_bytes(8, "big")).hex()


def open_message(message_id=b"20266", **changes):
    values = {
        "operator": "acme", "message_id": message_id, "owner": "shop1", "destination": b"447911123456",
        "source": b"7000", "session": 1, "submitted_at": NOW - 90, "expires_at": NOW + 600_000,
    }  # fmt: skip
    return OpenMessage(**(values | changes))


# Status, health


async def test_status_is_the_nodes(node, ask):
    assert await ask("get", "/status", NodeStatus) == node.answer


async def test_a_node_that_serves_is_healthy(ask):
    assert await ask("get", "/health", Health) == Health("gw1", serving=True, why_not=())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"draining": "custody"}, "the node drains"),
        ({"operators": ()}, "no operator bind is up"),
        ({"operators": (operator(binds=()),)}, "no operator bind is up"),
        (
            {"store": StoreStatus(accepting=False, free_bytes=None, min_free_bytes=1, store_id="00")},
            "the store takes no writes",
        ),
    ],
)
async def test_a_node_that_does_not_serve_says_why(node, changes, why):
    assert status(**changes).why_not_serving == (why,)


async def test_health_of_a_node_that_does_not_serve_is_503(node, ask):
    node.change(operators=(), draining="stop")
    code, _ = await refused(ask, "get", "/health", Health)
    assert code == 503


# What is refused


@pytest.mark.parametrize(
    ("path", "query", "code", "text"),
    [
        ("/nowhere", {}, 404, "Not Found"),
        ("/drain", {}, 405, "Method Not Allowed"),
        ("/undrain", {}, 405, "Method Not Allowed"),
        ("/status", {"verbose": 1}, 400, "unknown field `verbose`"),
        ("/parked", {"resaon": "refused"}, 400, "unknown field `resaon`"),
        ("/parked", {"reason": "refusd"}, 400, "reason: must be one of unclaimed, owner_unreachable, refused"),
        ("/parked", {"kind": "sms"}, 400, "kind: must be dlr or mo"),
        ("/parked", {"limit": 1001}, 400, "limit: must be from 1 to 1000"),
        ("/parked", {"limit": "many"}, 400, "Expected `int`"),
        ("/parked", {"since": "yesterday"}, 400, "Expected `float`"),
        ("/parked", {"after": "xyz"}, 400, "a key is written in hex"),
        ("/parked/xyz", {}, 400, "a key is written in hex"),
        ("/parked/00", {}, 404, "00 is not parked here"),
        ("/lookup", {}, 400, "missing required field `id`"),
        ("/lookup", {"id": "1", "operator": "acne"}, 404, "this node has no acne; it has acme"),
    ],
)
async def test_a_get_that_makes_no_sense(ask, path, query, code, text):
    answered, said = await refused(ask, "get", path, NodeStatus, query)
    assert answered == code
    assert text in said


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/parked/drop", {}, "give either keys or filter"),
        ("/parked/drop", {"keys": ["00"], "filter": {"operator": "acme"}}, "give either keys or filter"),
        ("/parked/drop", {"filter": {}}, "say all: true if that is meant"),
        ("/parked/drop", {"filter": {}, "until": NOW}, "say all: true if that is meant"),
        ("/parked/drop", {"filter": {"opertor": "acme"}}, "unknown field `opertor`"),
        ("/parked/drop", {"filter": {"reason": "refusd"}}, "reason: must be one of"),
        ("/parked/drop", {"filter": {"operator": "acme"}, "to": "ring"}, "unknown field `to`"),
        ("/parked/drop", {"keys": ["xyz"]}, "a key is written in hex"),
        ("/parked/drop", {"keys": ["00"] * 1001}, "at most 1000"),
        ("/parked/drop", {"filter": {"operator": "acme"}, "limit": 0}, "limit: must be from 1"),
        ("/parked/drop", [], "Expected `object`"),
        ("/parked/replay", {"filter": {"operator": "acme"}}, "missing required field `to`"),
        ("/parked/replay", {"filter": {}, "to": "ring"}, "say all: true if that is meant"),
        ("/parked/replay", {"keys": [], "to": "shop9"}, "shop9 is no gateway of this node, and shop9 no other node"),
        ("/drain", {"mode": "now"}, "Invalid enum value 'now'"),
        ("/drain", {}, "missing required field `mode`"),
        ("/undrain", {"mode": "custody"}, "Object contains unknown field `mode`"),
    ],
)
async def test_a_post_that_makes_no_sense_does_nothing(node, ask, path, body, text):
    node.park(parked_row())
    answered, said = await refused(ask, "post", path, Done, body)
    assert answered == 400
    assert text in said
    assert (node.dropped, node.replayed, node.drains) == ([], [], [])


async def test_a_body_that_is_too_large(ask):
    answered, said = await refused(ask, "post", "/parked/drop", Done, {"keys": ["0" * 300_000]})
    assert answered == 413
    assert "larger than 262144 bytes" in said


async def test_a_store_that_fails_is_503_with_its_words(node, ask):
    node.failure = StoreError("the store is closed")
    assert await refused(ask, "get", "/parked", Page) == (503, "the store is closed")


# Lookup


async def test_lookup_of_an_id_that_a_learned_rule_relates(node, ask):
    node.messages = [open_message(b"4F2A")]
    [found] = (await ask("get", "/lookup", Answer, {"id": "20266"})).operators
    assert (found.operator, found.rule, found.verdict) == ("acme", "hex-decimal", "match")
    assert found.candidates == ("20266", "4f2a", "131686")
    [message] = found.open_messages
    assert (message.message_id, message.owner, message.rule, message.final_at) == ("4F2A", "shop1", "hex-decimal", None)
    assert message.destination == "4479******56"


@pytest.mark.parametrize(
    ("stored", "rule", "verdict"),
    [
        ([], None, "none"),
        ([b"20266"], None, "match"),
        ([b"4F2A"], None, "inexact"),
        ([b"020266", b"0020266"], "zeros", "ambiguous"),
        ([b"4F2A"], "zeros", "none"),
    ],
)
async def test_lookup_says_what_a_report_would_find(node, ask, stored, rule, verdict):
    node.messages = list(map(open_message, stored))
    node.change(operators=(operator(message_id=IdRule(rule=rule, pinned=False)),))
    [found] = (await ask("get", "/lookup", Answer, {"id": "20266"})).operators
    assert found.verdict == verdict


async def test_lookup_finds_what_is_in_custody_and_parked(node, ask):
    node.custody = [custody_entry(1), custody_entry(2)]
    node.park(parked_row(1), parked_row(3))
    answer = await ask("get", "/lookup", Answer, {"id": "4f2a", "operator": "acme"})
    [found] = answer.operators
    [entry] = found.custody
    assert (entry.key, entry.message_id, entry.state, entry.lap) == (key(1), "4F2A", "walking", 2)
    assert entry.destination == "4479******56"
    assert [item.key for item in found.parked.items] == [key(1)]
    assert not answer.nothing


async def test_lookup_of_an_unknown_id_asks_every_operator(node, ask):
    node.change(operators=(operator(), operator("other")))
    answer = await ask("get", "/lookup", Answer, {"id": "nothing"})
    assert [found.operator for found in answer.operators] == ["acme", "other"]
    assert answer.nothing


async def test_an_id_that_is_not_ascii_is_written_as_it_is_shown(node, ask):
    node.messages = [open_message(b"a\xff\\x")]
    answer = await ask("get", "/lookup", Answer, {"id": r"a\xff\x"})
    assert answer.id == r"a\xff\x"
    assert answer.operators[0].verdict == "match"


# Parked: list and show


async def test_the_list_shows_what_is_parked_but_no_text_and_no_number(node, tmp_path, ask):
    node.park(parked_row())
    [item] = (await ask("get", "/parked", Page)).items
    assert msgspec.to_builtins(item) == {
        "key": key(1),
        "reason": "refused",
        "operator": "acme",
        "kind": "dlr",
        "message_id": "4F2A",
        "destination": "4479******56",
        "final": True,
        "origin": "gw1",
        "gateway": "shop1",
        "status": "ESME_RSUBMITFAIL",
        "accepted_at": NOW - 3610,
        "parked_at": NOW - 3600,
        "trace": "0000000000000001",
        "pdu_bytes": len(PDU),
    }


async def test_one_is_shown_with_what_it_reports(node, ask):
    node.park(parked_row())
    raw = await ask("get", f"/parked/{key(1)}", msgspec.Raw)
    shown = msgspec.json.decode(raw, type=ParkedDetail)
    assert (shown.key, shown.state, shown.error) == (key(1), "DELIVRD", "000")
    assert b"Secret" not in bytes(raw)
    assert b"447911123456" not in bytes(raw)


async def test_an_mo_reports_nothing(node, ask):
    node.park(parked_row(kind="mo", message_id=b""))
    shown = await ask("get", f"/parked/{key(1)}", ParkedDetail)
    assert (shown.state, shown.error) == (None, None)


async def test_numbers_are_shown_where_the_setting_says_so(node, tmp_path):
    node.park(parked_row())
    node.messages = [open_message(b"4F2A")]
    async with serving(node, tmp_path, "[log]\nfull_numbers = true"):
        [item] = (await asking(tmp_path, "get", "/parked", Page)).items
        assert item.destination == "447911123456"
        answer = await asking(tmp_path, "get", "/lookup", Answer, {"id": "4F2A"})
        assert answer.operators[0].open_messages[0].destination == "447911123456"


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({}, [1, 2, 3, 4]),
        ({"operator": "other"}, [3]),
        ({"reason": "unclaimed"}, [2]),
        ({"kind": "mo"}, [4]),
        ({"destination": "+447911123456"}, [1, 2]),
        ({"destination": "07911123456"}, [1, 2]),
        ({"destination": "7000"}, [4]),
        ({"id": "4f2b"}, [2]),
        ({"id": "20267"}, [2]),
        ({"since": NOW - 100}, [4]),
        ({"until": NOW - 7000}, [3]),
        ({"owner": "shop1"}, [1, 2, 3, 4]),
        ({"owner": "shop2"}, []),
        ({"operator": "acme", "reason": "unclaimed", "since": NOW - 100}, []),
    ],
)
async def test_the_list_can_be_narrowed(node, ask, query, numbers):
    node.park(
        parked_row(1),
        parked_row(2, "unclaimed"),
        parked_row(3, age_s=7200, operator="other", destination=b"33612345678"),
        parked_row(4, age_s=60, kind="mo", message_id=b"", destination=b"7000"),
    )
    page = await ask("get", "/parked", Page, query)
    assert [item.key for item in page.items] == list(map(key, numbers))
    assert page.next is None


async def pages(ask, **query):
    found, after = [], ""
    while after is not None:
        page = await ask("get", "/parked", Page, query | {"after": after})
        found.append([int(item.key[16:], 16) for item in page.items])
        after = page.next
    return found


async def test_the_list_comes_in_pages(node, ask):
    node.park(*map(parked_row, range(1, 6)))
    assert await pages(ask, limit=2) == [[1, 2], [3, 4], [5]]
    assert await pages(ask, limit=5) == [[1, 2, 3, 4, 5], []]


async def test_a_page_looks_at_a_bounded_number_of_rows(node, ask, monkeypatch):
    monkeypatch.setattr(parked, "MAX_SCANNED", 4)
    monkeypatch.setattr(parked, "_SLICE", 2)
    node.park(*map(parked_row, range(1, 8)), parked_row(8, "unclaimed"))
    assert await pages(ask, reason="unclaimed") == [[], [8], []]


# Parked: replay and drop


async def test_replay_round_the_ring(node, ask):
    node.park(parked_row(1), parked_row(2, "unclaimed"))
    done = await ask("post", "/parked/replay", Done, {"filter": {"reason": "unclaimed"}, "to": "ring"})
    assert done == Done(done=1, gone=0, unfit=0, until=NOW, next=None)
    assert node.replayed == [(2, "")]


async def test_replay_to_a_gateway_leaves_what_it_does_not_dial(node, ask):
    node.change(operators=(operator(), operator("other", gateways=())))
    node.park(parked_row(1), parked_row(2, operator="other"))
    done = await ask("post", "/parked/replay", Done, {"filter": {}, "all": True, "to": "shop2"})
    assert (done.done, done.unfit) == (1, 1)
    assert node.replayed == [(1, "shop2")]


@pytest.mark.parametrize(("to", "meant"), [("gw2", "gw2/"), ("gw3/shop9", "gw3/shop9")])
async def test_replay_to_another_node_takes_whatever_operator_it_is_of(node, ask, to, meant):
    """What that node has, it knows itself; until there is such a gateway the report waits."""
    node.link("gw2")
    node.link("gw3")
    node.park(parked_row(1), parked_row(2, operator="other"))
    done = await ask("post", "/parked/replay", Done, {"filter": {}, "all": True, "to": to})
    assert (done.done, done.unfit) == (2, 0)
    assert node.replayed == [(1, meant), (2, meant)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"linked": False, "state": "dead", "version": 0}, "gw2 cannot be reached now (dead)"),
        ({"version": 1}, "gw2 speaks version 1 of the peer protocol, and this takes version 2"),
        ({"draining": True}, "gw2 is being drained"),
    ],
)
async def test_replay_to_a_node_that_cannot_take_it_leaves_all_parked(node, ask, changes, said):
    node.park(parked_row(1))
    node.link("gw2", **changes)
    body = {"filter": {}, "all": True, "to": "gw2/shop4"}
    answer = await refused(ask, "post", "/parked/replay", Done, body)
    assert answer == (409, f"to: {said}; nothing was replayed")
    assert node.replayed == []


async def test_replay_by_key_says_what_is_gone(node, ask):
    node.park(parked_row(1))
    done = await ask("post", "/parked/replay", Done, {"keys": [key(1), key(1), key(2)], "to": "ring"})
    assert (done.done, done.gone, done.next) == (1, 1, None)
    assert node.replayed == [(1, "")]


async def test_replay_stops_where_custody_is_full(node, ask):
    node.change(custody=msgspec.structs.replace(node.answer.custody, items=6, max_items=10))
    node.park(*map(parked_row, range(1, 5)))
    asked = {"filter": {}, "all": True, "to": "ring"}
    done = await ask("post", "/parked/replay", Done, asked)
    assert (done.done, done.stopped, done.next) == (2, "custody_full", key(2))
    node.change(custody=msgspec.structs.replace(node.answer.custody, items=8))
    done = await ask("post", "/parked/replay", Done, asked | {"after": done.next})
    assert (done.done, done.stopped, done.next) == (0, "custody_full", key(2))


async def test_a_series_of_replays_takes_nothing_twice(node, ask):
    """What is refused again while the series runs is parked again, and must not go round for ever."""
    node.park(*map(parked_row, range(1, 4)))
    body = {"filter": {}, "all": True, "to": "ring", "limit": 2}
    done = await ask("post", "/parked/replay", Done, body)
    node.park(parked_row(9, age_s=-1))
    node.change(now=NOW + 5)
    body |= {"until": done.until, "after": done.next}
    assert (await ask("post", "/parked/replay", Done, body)).next is None
    assert node.replayed == [(1, ""), (2, ""), (3, "")]


async def test_drop_by_filter_and_by_key(node, ask):
    node.park(parked_row(1), parked_row(2, "unclaimed"), parked_row(3))
    assert (await ask("post", "/parked/drop", Done, {"filter": {"reason": "unclaimed"}})).done == 1
    assert (await ask("post", "/parked/drop", Done, {"keys": [key(3)]})).done == 1
    assert list(node.parked) == [encode_key(parked_row(1).envelope.key)]
    assert (await ask("post", "/parked/drop", Done, {"filter": {}, "all": True})).done == 1
    assert node.parked == {}


async def test_what_people_do_is_logged_without_their_numbers(node, tmp_path):
    node.park(parked_row(1))
    with structlog.testing.capture_logs() as logged:
        async with serving(node, tmp_path):
            await asking(
                tmp_path, "post", "/parked/drop", Done, {"filter": {"id": "4F2A", "destination": "447911123456"}}
            )
            await asking(tmp_path, "post", "/parked/replay", Done, {"keys": [key(1)], "to": "ring"})
            await asking(tmp_path, "post", "/drain", DrainState, {"mode": "custody"})
    acts = [event for event in logged if event["event"] != "admin.listening"]
    assert acts == [
        {
            "event": "admin.dropped", "log_level": "info", "count": 1, "message_id": "4F2A",
            "destination": "447911123456",  # masked by the log's own processors
        },
        {"event": "admin.replayed", "log_level": "info", "count": 0, "keys": 1, "to": "ring"},
        {"event": "admin.drain", "log_level": "info", "mode": "custody"},
    ]  # fmt: skip


async def test_a_failure_half_way_still_logs_what_was_done(node, tmp_path):
    node.park(*map(parked_row, range(1, 102)))  # fifty at a time
    real = node.drop

    async def drop(keys):
        done = await real(keys)
        node.failure = StoreError("the disk is gone")
        return done

    node.drop = drop
    with structlog.testing.capture_logs() as logged:
        async with serving(node, tmp_path):
            with pytest.raises(RefusedError, match="the disk is gone"):
                await asking(tmp_path, "post", "/parked/drop", Done, {"filter": {}, "all": True})
    assert [event["count"] for event in logged if event["event"] == "admin.dropped"] == [50]


# Drain


@pytest.mark.parametrize("mode", ["custody", "stop"])
async def test_drain_begins_and_says_how_far_it_is(node, ask, mode):
    state = await ask("post", "/drain", DrainState, {"mode": mode})
    assert state == DrainState(mode, 1, 4, 7)
    assert node.drains == [mode]


async def test_undrain_puts_the_node_back(node, ask):
    await ask("post", "/drain", DrainState, {"mode": "custody"})
    assert await ask("post", "/undrain", DrainState, {}) == DrainState(None, 1, 4, 7)
    assert node.undrains == 1


async def test_a_node_that_stops_is_not_put_back(node, ask):
    await ask("post", "/drain", DrainState, {"mode": "stop"})
    assert await refused(ask, "post", "/undrain", DrainState, {}) == (409, "the node is stopping; start it again")


# A pair


NOT_HERE = "this node is standby; ask the active one (gw2)"


@pytest.mark.parametrize(
    "question",
    [
        ("get", "/lookup", Answer, {"id": "4F2A"}),
        ("get", "/parked", Page),
        ("get", f"/parked/{key()}", ParkedDetail),
        ("post", "/parked/replay", Done, {"keys": [key()], "to": "ring"}),
        ("post", "/parked/drop", Done, {"keys": [key()]}),
        ("post", "/drain", DrainState, {"mode": "custody"}),
        ("post", "/undrain", DrainState, {}),
    ],
)
async def test_a_node_that_does_not_serve_says_whom_to_ask(node, ask, question):
    node.answer, node.no_service = standby_status(), NOT_HERE
    assert await refused(ask, *question) == (503, NOT_HERE)
    assert (node.drains, node.undrains, node.calls["open_messages"]) == ([], 0, 0)


async def test_it_says_how_it_is_and_can_be_stopped_all_the_same(node, ask):
    node.answer, node.no_service = standby_status(), NOT_HERE
    assert await ask("get", "/status", NodeStatus) == node.answer
    assert (await ask("post", "/drain", DrainState, {"mode": "stop"})).draining == "stop"


async def test_a_standby_is_not_healthy_and_says_its_role(node, ask):
    node.answer = standby_status()
    with pytest.raises(RefusedError, match="503"):
        await ask("get", "/health", Health)
    assert node.answer.why_not_serving == ("its role is standby: its database server is a replica",)


def test_an_active_whose_term_has_not_begun_does_not_serve():
    waiting = standby_status(pair=pair_status(serving=False))
    assert waiting.why_not_serving == ("the term of service has not begun; the log says why",)


@pytest.mark.parametrize(
    ("body", "asked"), [({}, "promote"), ({"force": False}, "promote"), ({"force": True}, "force")]
)
async def test_promoting(node, ask, body, asked):
    node.answer = standby_status()
    assert await ask("post", "/promote", PairStatus, body) == node.answer.pair
    assert node.promotions == [asked]


async def test_demoting(node, ask):
    node.answer = standby_status()
    assert await ask("post", "/demote", PairStatus, {}) == node.answer.pair
    assert node.promotions == ["demote"]


@pytest.mark.parametrize("path", ["/promote", "/demote"])
async def test_a_node_of_a_ring_is_neither_promoted_nor_demoted(ask, path):
    assert await refused(ask, "post", path, PairStatus, {}) == (
        409,
        "the mode is ring: only a node of a pair is promoted or demoted",
    )


async def test_a_node_of_another_mode_is_not_told_to_look(ask):
    assert await refused(ask, "post", "/look", QuorumStatus, {}) == (
        409,
        "the mode is ring: only a node of a quorum is told to look",
    )


# The pace of replays


async def test_replays_go_on_when_few_of_the_earlier_ones_are_on_their_way(node, ask):
    node.park(*map(parked_row, range(1, 4)))
    numbers = iter([900, 900, 700, 400])
    node.on_their_way = lambda: next(numbers)
    done = await ask("post", "/parked/replay", Done, {"filter": {}, "all": True, "to": "ring"})
    assert (done.done, done.next) == (3, None)
    assert list(numbers) == []


async def test_who_asks_for_more_replays_too_soon_is_told_where_to_go_on(node, ask, monkeypatch):
    monkeypatch.setattr(parked, "_LONGEST_S", 0.0)
    node.park(*map(parked_row, range(1, 4)))
    node.on_their_way = lambda: 900
    body = {"filter": {}, "all": True, "to": "ring", "after": key(1), "until": NOW}
    done = await ask("post", "/parked/replay", Done, body)
    assert (done.done, done.next, done.until, done.stopped) == (0, key(1), NOW, "")
    assert node.replayed == []


async def test_replays_that_are_held_up_hold_up_no_others(node, ask, monkeypatch):
    """They may be for a gateway that is not bound."""
    monkeypatch.setattr(parked, "_PATIENCE_S", 0.0)
    node.park(*map(parked_row, range(1, 4)))
    node.on_their_way = lambda: 900
    done = await ask("post", "/parked/replay", Done, {"filter": {}, "all": True, "to": "ring"})
    assert (done.done, done.next) == (3, None)
