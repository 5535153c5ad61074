"""Nodes of a quorum that are set differently: who may not serve with whom, and what is said of the rest."""

import attrs
import msgspec
import pytest
import structlog.testing
import trio
from msgspec import UNSET
from test_config import OPERATOR, PEERS
from test_database_config import DATABASE, NODE, QUORUM
from test_quorum_driver import SYNCED, running

from dlrproxy.config import parse
from dlrproxy.modes.agreement import Agreement, Difference, settings_of
from dlrproxy.modes.cluster import (
    Adopt,
    Claim,
    MasterRow,
    Member,
    Observation,
    Publish,
    QuorumSettings,
    Role,
    Rows,
    Serve,
)
from dlrproxy.modes.node_settings import NodeSettings, decode, encode
from dlrproxy.modes.quorum import Quorum

ALIKE = settings_of(parse(QUORUM))
SLOW = msgspec.structs.replace(ALIKE, fence_after_s=20.0, takeover_after_s=30.0)


def rows(**members):
    return Rows(members=members, master=MasterRow())


def there(settings=ALIKE, beat=1, **changes):
    return Member(epoch=1, beat=beat, settings=settings, **changes)


def everybody(**members):
    return rows(**{name: there() for name in ("gw1", "gw2", "gw3")} | members)


def seen_by(own, found, now=0.0):
    agreement = Agreement("gw2", own)
    agreement.observe(found, now)
    return agreement


# What is told


def test_a_node_tells_what_stands_in_its_configuration():
    text = (
        QUORUM + 'takeover_after_s = 40.0\nstand_in = { gw1 = "gw2" }\nweights = { gw1 = 3 }\nsites = { gw1 = "x" }\n'
    )
    told = settings_of(parse(text))
    assert (told.takeover_after_s, told.stand_in, told.sites) == (40.0, {"gw1": "gw2"}, {"gw1": "x"})
    assert told.weights == {"gw1": 3, "gw2": 1, "gw3": 1}
    assert told.peers == ("gw1", "gw2", "gw3")
    assert decode(encode(told)) == told


def test_all_that_is_told_is_the_same_at_every_node_of_a_file_that_is():
    assert settings_of(parse(NODE.replace("gw1", "gw3").format("quorum") + OPERATOR + PEERS + DATABASE)) == ALIKE


def test_releases_that_tell_more_or_less_understand_one_another():
    newer = msgspec.json.encode({**msgspec.to_builtins(ALIKE), "of_a_later_release": 1})
    assert decode(newer) == ALIKE
    older = decode(b'{"fence_after_s": 10}')
    assert (older.fence_after_s, older.lease_s) == (10.0, UNSET)
    assert not seen_by(ALIKE, everybody(gw1=there(older))).differences


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"fence_after_s": "soon"}', b"[]"])
def test_what_cannot_be_read_is_not_compared(content):
    assert decode(content) is None
    agreement = seen_by(ALIKE, everybody(gw1=there(decode(content))))
    assert (agreement.differences, agreement.objection(everybody(gw1=there(decode(content))), 0.0)) == ((), "")


# What differs


@pytest.mark.parametrize(
    ("changes", "here", "there_"),
    [
        ({"lease_s": 9.0}, "6", "9"),
        ({"takeover_after_s": 16.5}, "15", "16.5"),
        ({"unmatched_for_s": 60.0}, "30", "60"),
        ({"maybe_delivered": "deliver"}, "park", "deliver"),
        ({"stand_in": {"gw3": "gw1", "gw1": "gw2"}}, "none", "gw1=gw2 gw3=gw1"),
        ({"weights": {"gw1": 3, "gw2": 1, "gw3": 1}}, "gw1=1 gw2=1 gw3=1", "gw1=3 gw2=1 gw3=1"),
        ({"arbitrators": {"garbd": 1}}, "none", "garbd=1"),
        ({"sites": {"gw1": "north"}}, "none", "gw1=north"),
        ({"peers": ("gw1", "gw2")}, "gw1 gw2 gw3", "gw1 gw2"),
    ],
)
def test_each_key_that_differs_is_named_with_both_values(changes, here, there_):
    found = everybody(gw3=there(msgspec.structs.replace(ALIKE, **changes)))
    agreement = seen_by(ALIKE, found)
    assert agreement.differences == (Difference("gw3", next(iter(changes)), here, there_),)
    assert not agreement.objection(found, 0.0)


def test_every_setting_is_compared():
    assert {field for field in NodeSettings.__struct_fields__ if getattr(ALIKE, field) is UNSET} == set()


def test_who_is_gone_differs_in_nothing():
    assert not seen_by(ALIKE, everybody(gw3=there(SLOW, taken=True))).differences


def test_nodes_of_the_database_and_of_the_peers_are_compared():
    found = rows(gw1=there(), gw2=there(), gw9=there(taken=True))
    assert seen_by(ALIKE, found).differences == (
        Difference("gw3", "peers", "among them", "has never served"),
        Difference("gw9", "peers", "not among them", "in the database"),
    )


def test_a_difference_lasts_from_when_it_was_first_seen():
    agreement = seen_by(ALIKE, everybody(gw3=there(SLOW)), 100.0)
    assert not agreement.lasting(15.0, 114.0)
    agreement.observe(everybody(gw3=there(SLOW, beat=2)), 115.0)
    assert len(agreement.lasting(15.0, 115.0)) == 2
    agreement.observe(everybody(), 116.0)
    assert not agreement.lasting(15.0, 116.0)


# Who may not serve


def test_a_node_that_would_serve_too_long_for_another_names_it_and_both_values():
    found = everybody()
    assert (
        seen_by(SLOW, found)
        .objection(found, 0.0)
        .startswith("quorum.fence_after_s here, 20, does not fit quorum.takeover_after_s of gw1, 15:")
    )


def test_and_one_that_would_take_over_too_early_from_another():
    found = everybody(gw1=there(SLOW), gw3=there(SLOW))
    assert (
        seen_by(ALIKE, found)
        .objection(found, 0.0)
        .startswith("quorum.fence_after_s of gw1, 20, does not fit quorum.takeover_after_s here, 15:")
    )


def test_times_may_be_changed_one_node_at_a_time_the_longer_takeover_first():
    longer = msgspec.structs.replace(ALIKE, takeover_after_s=30.0)
    for steps in ((ALIKE, longer), (longer, SLOW)):
        for own in steps:
            found = everybody(gw1=there(steps[0]), gw3=there(steps[1]))
            assert not seen_by(own, found).objection(found, 0.0)


def test_who_is_gone_is_not_asked():
    taken = everybody(gw1=there(taken=True), gw3=there(taken=True))
    assert not seen_by(SLOW, taken).objection(taken, 0.0)
    silent = everybody()
    agreement = seen_by(SLOW, silent)
    assert "of gw1" in agreement.objection(silent, 59.0)
    assert "of gw3" in agreement.objection(rows(gw2=there(), gw3=there()), 29.0)
    assert not agreement.objection(silent, 60.0)
    beating = everybody(gw3=there(beat=2))
    agreement.observe(beating, 60.0)
    assert "of gw3" in agreement.objection(beating, 60.0)


# What the machine makes of it


def machine(own, me="gw2"):
    return Quorum(QuorumSettings(me=me, home=b"1"), Agreement(me, own))


def observation(found):
    return Observation(server=SYNCED, rows=found)


def test_a_node_tells_before_it_claims_and_while_it_serves_when_it_has_changed():
    quorum = machine(ALIKE)
    assert quorum.observe(observation(rows()), 0.0) == [Publish(ALIKE), Claim(None)]
    quorum.vouched(1, 0.0)
    mine = rows(gw2=there(home=b"1"))
    assert quorum.observe(observation(mine), 0.0) == [Serve(1)]
    assert quorum.observe(observation(mine), 1.0) == []
    quorum.agreement.own = SLOW
    assert quorum.observe(observation(mine), 2.0) == [Publish(SLOW)]


def test_what_it_must_tell_keeps_nobody_from_his_custody():
    """A command that fails ends the list that it came in."""
    quorum = machine(ALIKE)
    quorum.observe(observation(rows()), 0.0)
    quorum.vouched(1, 0.0)
    quorum.observe(observation(rows(gw2=there(home=b"1"))), 0.0)
    moved = rows(gw1=there(taken=True, heir="gw2", moved=1), gw2=there(SLOW, home=b"1"))
    assert quorum.observe(observation(moved), 1.0) == [Adopt(), Publish(ALIKE)]


def test_a_node_that_does_not_fit_tells_and_does_not_claim():
    quorum = machine(SLOW)
    found = everybody(gw2=there(home=b"1"))
    assert quorum.observe(observation(found), 0.0) == [Publish(SLOW)]
    assert quorum.role is Role.JOINING
    assert "quorum.takeover_after_s of gw1, 15" in quorum.why
    told = everybody(gw2=there(SLOW, home=b"1"))
    assert quorum.observe(observation(told), 1.0) == []
    mended = everybody(**{name: there(SLOW, home=b"1") for name in ("gw1", "gw2", "gw3")})
    assert quorum.observe(observation(mended), 2.0) == [Claim(mended.members["gw2"])]


def test_one_that_does_not_fit_and_has_never_served_writes_nothing():
    quorum = machine(SLOW)
    assert quorum.observe(observation(rows(gw1=there(), gw3=there())), 0.0) == []
    assert "quorum.takeover_after_s of gw1, 15" in quorum.why


def test_a_claim_is_not_used_where_another_node_came_before():
    quorum = machine(SLOW)
    quorum.observe(observation(rows()), 0.0)
    quorum.vouched(1, 0.0)
    assert quorum.observe(observation(rows(gw1=there(), gw2=there(SLOW, home=b"1"))), 0.0) == []
    assert (quorum.role, quorum.epoch) == (Role.JOINING, 0)


def test_who_serves_goes_on():
    quorum = machine(ALIKE)
    quorum.observe(observation(rows()), 0.0)
    quorum.vouched(1, 0.0)
    quorum.observe(observation(rows(gw2=there(home=b"1"))), 0.0)
    assert quorum.observe(observation(rows(gw1=there(SLOW), gw2=there(home=b"1"))), 1.0) == []
    assert quorum.role is Role.SERVING


def test_of_two_that_come_at_one_moment_and_do_not_fit_one_serves():
    """All were stopped, and two of them start with files that do not fit one another's."""
    members = {"gw1": there(home=b"1"), "gw2": there(SLOW, home=b"1")}
    nodes = {"gw1": machine(ALIKE, "gw1"), "gw2": machine(SLOW, "gw2")}
    serving = set()
    for tick in range(200):
        for name, node in nodes.items():
            for command in node.observe(observation(rows(**members)), float(tick)):
                match command:
                    case Claim(seen):
                        members[name] = attrs.evolve(seen, epoch=seen.epoch + 1, beat=seen.beat + 1)
                        node.vouched(seen.epoch + 1, float(tick))
                    case Serve(_):
                        serving.add(name)
            if node.epoch:
                members[name] = attrs.evolve(members[name], beat=members[name].beat + 1)
                node.vouched(node.epoch, float(tick))
    assert serving == {"gw1"}
    assert "of gw1, 15" in nodes["gw2"].why


# What the log says


async def test_the_log_says_what_lasts_once_and_when_it_is_over(autojump_clock):
    with structlog.testing.capture_logs() as logged:
        async with running(Agreement("a", msgspec.structs.replace(ALIKE, peers=("a", "b")))) as node:
            node.own.members["b"] = there(msgspec.structs.replace(ALIKE, lease_s=9.0, peers=("a", "b")))
            await trio.sleep(11)
            assert not [entry for entry in logged if entry["event"] == "quorum.settings_differ"]
            await trio.sleep(60)
            del node.own.members["b"]
            node.own.members["b"] = there(msgspec.structs.replace(ALIKE, peers=("a", "b")))
            await trio.sleep(5)
    (differ,) = [entry for entry in logged if entry["event"] == "quorum.settings_differ"]
    assert [differ[key] for key in ("node", "key", "here", "there", "log_level")] == [
        "b",
        "lease_s",
        "6",
        "9",
        "warning",
    ]
    (agree,) = [entry for entry in logged if entry["event"] == "quorum.settings_agree"]
    assert (agree["node"], agree["key"]) == ("b", "lease_s")
    assert node.own.published.peers == ("a", "b")


async def test_a_node_that_does_not_serve_for_it_says_so_as_an_error(autojump_clock):
    with structlog.testing.capture_logs() as logged:
        async with running(Agreement("a", SLOW)) as node:
            node.own.members["b"] = there()
            await trio.sleep(5)
            node.own.members["b"] = there(taken=True)
            await trio.sleep(5)
    roles = [entry for entry in logged if entry["event"] == "quorum.role"]
    assert [entry["log_level"] for entry in roles if "does not fit" in entry["why"]] == ["error"]
    assert roles[-1]["log_level"] == "info"
    assert roles[-1]["role"] == "serving"
