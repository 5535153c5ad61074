"""What the judge of `make chaos-quorum` lets pass, and what it finds: a bug is planted in each ledger or log."""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from test_chaos import MO, OPERATOR, REPORT, RULES, SUBMITTED, TOLD, found, parked, received

from chaos.judgement import Evidence, Rest, judged
from chaos.quorum.configuration import ANSWER_S
from chaos.quorum.excuses import (
    CROSSED,
    FINAL_FORGOTTEN,
    HURRIED,
    MAYBE_DELIVERED,
    PUT_OFF,
    RESENT,
    SESSION_ENDED,
    SLOW,
    TAKEN_OVER,
    QuorumExcuses,
)  # fmt: skip
from chaos.quorum.hearing import Gone, Hearing, Hurried, Released, Step
from chaos.quorum.inboxes import Inboxes, Stay
from chaos.quorum.skew import ahead, tidy
from chaos.quorum.stage import Episode
from chaos.quorum.turnstile import Passage, Turnstile
from chaos.told import Told
from dlrproxy.simulator import ledger as events
from protocols.smpp import constants as c

BINDS = [events.Bound(0.0, f"b{number}", "shop", "bind_transceiver", f"gw{number}@127.0.0.1") for number in (1, 2, 3)]
ENROUTE = [
    events.Report(1.0, 2, REPORT, "2", "ENROUTE", final=False),
    events.Sent(1.2, 2, "b2", 1),
    events.Answered(1.3, 2, "b2", c.ESME_ROK),
]
# In custody of gw1 when it came to its gateway, through gw1; the session ended, and it came again.
TWICE = [*TOLD, received(4.0), events.Unlinked(4.5, "s1", "reset"), received(9.0)]


def fault(*touched, began=4.2, ended=8.0):
    return Episode("a fault", frozenset(touched), began, ended)


def steps(*some):
    """Reports of the message that came to a node: when, where, and from which."""
    return {REPORT: [Step(*each) for each in some]}


def verdict(
    operator=OPERATOR,
    gw1=TOLD,
    gw2=(),
    *,
    where=None,
    episodes=(),
    via=(),
    arrived=None,
    gone=(),
    let_go=(),
    hurried=(),
    **more,
):
    """`via`: the nodes that the gateway gw1 was with, and since when."""
    rest = Rest(unrest="", parked=where or {}, replayed=[])
    evidence = Evidence(
        operator=[*BINDS, *operator], gateways={"gw1": gw1, "gw2": gw2}, rest=rest, faults={}, unfinished=0,
        **({"superseded": ()} | more),
    )  # fmt: skip
    turnstile = Turnstile(1, {})
    turnstile.passages = [Passage(*each) for each in via or [("gw1", 0.0)]]
    hearing = Hearing(gone=[Gone(*each) for each in gone], released=[Released(*each) for each in let_go])
    hearing.hurried += [Hurried(*each) for each in hurried]
    hearing.steps.update(arrived or {})
    told = Told(evidence.operator, evidence.gateways)
    return judged(evidence, told, QuorumExcuses(told, episodes, {"gw1": turnstile, "gw2": Turnstile(2, {})}, hearing))


# Lost, elsewhere


def test_a_report_that_nobody_has_is_lost_whatever_has_happened():
    everywhere = fault("gw1", "gw2", "gw3", began=0.0, ended=100.0)
    assert found(verdict(episodes=[everywhere], gone=[(5.0, "gw1")])) == ["lost"]
    assert found(verdict(gw1=SUBMITTED, episodes=[everywhere])) == ["lost"]


def test_a_report_at_another_gateway_is_elsewhere_whatever_has_happened():
    assert "elsewhere" in found(verdict(gw2=[received(4.0)], episodes=[fault("gw1", "gw2", "gw3", began=0.0)]))


# Twice


def test_nothing_comes_twice_without_a_fault_at_the_node_that_had_sent_it():
    assert found(verdict(gw1=TWICE)) == ["repeated without a reason"]
    assert found(verdict(gw1=TWICE, episodes=[fault("gw2")])) == ["repeated without a reason"]
    assert found(verdict(gw1=TWICE, episodes=[fault("gw1", began=8.5, ended=9.5)])) == ["repeated without a reason"]
    judgement = verdict(gw1=TWICE, episodes=[fault("gw1")])
    assert judgement.passed
    assert judgement.repeated == {SESSION_ENDED: 1}


def test_a_node_that_says_that_it_has_let_go_was_touched():
    assert verdict(gw1=TWICE, let_go=[(4.6, "gw1")]).repeated == {SESSION_ENDED: 1}
    assert found(verdict(gw1=TWICE, let_go=[(4.6, "gw2")])) == ["repeated without a reason"]
    assert found(verdict(gw1=TWICE, let_go=[(30.0, "gw1")])) == ["repeated without a reason"]


def test_a_fault_alone_excuses_nothing_whose_session_went_on():
    going_on = [*TOLD, received(4.0), received(9.0)]
    assert found(verdict(gw1=going_on, episodes=[fault("gw1")])) == ["repeated without a reason"]


def test_what_the_operator_was_answered_for_after_the_gateway_had_it_is_not_in_flight():
    """Passed straight on: ESME_ROK is the gateway's own answer."""
    straight = [*OPERATOR[:4], events.Answered(4.1, 1, "b2", c.ESME_ROK)]
    assert found(verdict(straight, gw1=TWICE, episodes=[fault("gw1")])) == ["repeated without a reason"]


def test_an_answer_is_on_its_way_for_as_long_as_faults_detain_it():
    late = [*TOLD, received(4.0), events.Unlinked(18.0, "s1", "reset"), received(19.0)]
    assert found(verdict(gw1=late, episodes=[fault("gw1", began=4.2, ended=5.0)])) == ["repeated without a reason"]
    assert verdict(gw1=late, episodes=[fault("gw1", began=4.2, ended=17.0)]).passed
    assert verdict(gw1=late, episodes=[fault("gw1", began=4.2, ended=9.0), fault("gw1", began=9.5, ended=17.0)]).passed


def test_what_the_operator_sends_again_may_come_again_once_for_each_time():
    again = [*OPERATOR[:4], events.Unanswered(4.5, 1, "b2", "bind lost"), events.Sent(5.0, 1, "b3", 2)]
    twice = [*TOLD, received(4.0), received(9.0)]
    assert verdict(again, gw1=twice, episodes=[fault("gw2")]).repeated == {RESENT: 1}
    assert found(verdict(again, gw1=twice)) == ["repeated without a reason"]  # why had it no answer?
    thrice = [*twice, received(10.0)]
    assert found(verdict(again, gw1=thrice, episodes=[fault("gw2")])) == ["repeated without a reason"]


def test_what_crosses_an_unbind_may_come_again():
    sent = [*OPERATOR[:3], events.Sent(4.0, 1, "b2", 1)]
    crossed = [*sent, events.Unanswered(4.1, 1, "b2", "bind lost"), events.Sent(5.0, 1, "b3", 2)]
    twice = [*TOLD, received(4.05), received(9.0)]
    assert verdict(crossed, gw1=twice).repeated == {CROSSED: 1}
    late = [*sent, events.Unanswered(4.8, 1, "b2", "bind lost"), events.Sent(5.0, 1, "b3", 2)]
    assert found(verdict(late, gw1=twice)) == ["repeated without a reason"]


def test_what_a_node_could_not_answer_within_its_drain_s_may_come_again():
    stopped = [*OPERATOR[:4], events.Unanswered(6.0, 1, "b2", "bind lost"), events.Sent(6.1, 1, "b3", 2)]
    twice = [*TOLD, received(4.0), received(9.0)]
    assert verdict(stopped, gw1=twice, hurried=[(5.8, "gw2")]).repeated == {HURRIED: 1}
    for other in ((5.8, "gw1"), (2.5, "gw2"), (9.0, "gw2")):
        assert found(verdict(stopped, gw1=twice, hurried=[other])) == ["repeated without a reason"]


def test_what_the_operator_is_told_to_send_again_may_come_again_if_the_node_failed():
    put_off = [*OPERATOR[:4], events.Answered(4.5, 1, "b2", c.ESME_RX_T_APPN), events.Sent(5.0, 1, "b3", 2)]
    twice = [*TOLD, received(4.0), received(9.0)]
    assert verdict(put_off, gw1=twice, episodes=[fault("gw1")]).repeated == {PUT_OFF: 1}
    assert found(verdict(put_off, gw1=twice, episodes=[fault("gw2")])) == ["repeated without a reason"]


def test_what_was_not_in_custody_in_time_for_the_operators_answer_may_come_again_once_for_each_time():
    def put_off(took_s):
        refused = events.Answered(2.0 + took_s, 1, "b2", c.ESME_RTHROTTLED)
        return [*OPERATOR[:4], refused, events.Sent(12.0, 1, "b3", 2), events.Answered(12.1, 1, "b3", c.ESME_ROK)]

    twice = [*TOLD, received(14.0), received(16.0)]
    assert verdict(put_off(ANSWER_S), gw1=twice).repeated == {SLOW: 1}
    assert found(verdict(put_off(ANSWER_S - 0.1), gw1=twice)) == ["repeated without a reason"]
    assert found(verdict(put_off(ANSWER_S), gw1=[*twice, received(17.0)])) == ["repeated without a reason"]
    before = [*TOLD, received(4.0), received(9.0)]
    assert found(verdict(put_off(ANSWER_S), gw1=before)) == ["repeated without a reason"]


MOVED_OVER = [("gw1", 0.0), ("gw2", 4.6)]


def test_a_node_may_give_away_what_it_had_sent_when_the_session_ends():
    judgement = verdict(gw1=TWICE, via=MOVED_OVER, episodes=[fault("gw1")], arrived=steps((7.0, "gw2", "gw1")))
    assert judgement.repeated == {SESSION_ENDED: 1}


def test_an_heir_never_delivers_what_a_gateway_may_have_had():
    planted = verdict(
        gw1=[*TWICE[:-1], received(14.0)],
        via=MOVED_OVER,
        episodes=[fault("gw1", ended=20.0)],
        arrived=steps((13.0, "gw2", "gw1")),
        gone=[(12.0, "gw1")],
    )
    assert found(planted) == ["repeated without a reason"]


def test_nothing_appears_at_another_node_that_no_log_says_the_way_of():
    planted = verdict(gw1=TWICE, via=MOVED_OVER, episodes=[fault("gw1")])
    assert found(planted) == ["repeated without a reason"]


# Parked


def test_only_what_may_have_been_delivered_when_its_node_was_taken_over_from_stays_parked():
    maybe = {"gw2": [parked("maybe_delivered")]}
    inherited = {"arrived": steps((13.0, "gw2", "gw1")), "gone": [(12.0, "gw1")]}
    assert verdict(where=maybe, **inherited).kept == {MAYBE_DELIVERED: 1}
    assert verdict(where=maybe, **inherited).passed
    assert verdict(where=maybe, gw1=[*TOLD, received(4.0)], **inherited).passed
    for why in ("unclaimed", "owner_unreachable", "refused"):
        assert found(verdict(where={"gw2": [parked(why)]}, **inherited)) == ["parked for good, and it has an owner"]
    assert found(verdict(where=maybe)) == ["parked for good, and it has an owner"]
    assert found(verdict(where=maybe, arrived=steps((13.0, "gw2", "gw1")))) == ["parked for good, and it has an owner"]
    assert found(verdict(where=maybe, gone=[(12.0, "gw1")])) == ["parked for good, and it has an owner"]
    twice = {"gw2": [parked("maybe_delivered")], "gw3": [parked("maybe_delivered")]}
    assert found(verdict(where=twice, **inherited)) == ["parked more than once"]


def test_an_mo_stays_parked_for_the_same_reason_alone():
    delivered = [*TOLD, received(4.0)]
    inherited = {"arrived": {"": [Step(13.0, "gw2", "gw1")]}, "gone": [(12.0, "gw1")]}

    def of(reason, **more):
        item = msgspec.structs.replace(parked(reason), kind="mo", message_id="")
        return found(verdict(MO, gw1=delivered, rules=RULES, where={"gw2": [item]}, **more))

    assert of("maybe_delivered", **inherited) == []
    assert of("maybe_delivered") == ["MO parked for good"]
    assert of("unclaimed", **inherited) == ["MO parked for good"]
    assert found(verdict(MO, gw1=delivered, rules=RULES, **inherited)) == ["MO lost"]


# Inboxes


def lingered(began, ended, *episodes, let_go=()):
    hearing = Hearing(released=[Released(*each) for each in let_go])
    excuses = QuorumExcuses(Told([], {}), episodes, {}, hearing)
    return bool(list(excuses.lingered([Stay("gw1", began, ended)])))


def test_a_row_stays_in_an_inbox_only_while_something_keeps_its_node_from_taking_it():
    assert not lingered(0.0, 9.0)
    assert lingered(0.0, 11.0)
    assert lingered(0.0, 11.0, fault("gw2", began=0.0, ended=10.0))
    assert not lingered(0.0, 19.0, fault("gw1", began=1.0, ended=12.0))
    assert lingered(0.0, 30.0, fault("gw1", began=1.0, ended=12.0))
    assert not lingered(0.0, 30.0, fault("gw1", began=1.0, ended=12.0), fault("gw1", began=15.0, ended=21.0))
    assert lingered(0.0, 14.0, fault("gw1", began=11.0, ended=12.0))
    assert lingered(0.0, 14.0, fault("gw1", began=15.0, ended=16.0))
    assert not lingered(0.0, 14.0, let_go=[(10.0, "gw1")])
    assert not lingered(0.0, 14.0, Episode("a rolling restart", frozenset(), 1.0, 9.0, restarted=frozenset({"gw1"})))


# Order

LATE = [*TOLD, received(4.0), received(9.0, "ENROUTE")]


def test_nothing_intermediate_follows_the_final_report():
    with_enroute = [*OPERATOR, *ENROUTE]
    assert found(verdict(with_enroute, gw1=LATE)) == ["out of order"]
    assert found(verdict(with_enroute, gw1=LATE, episodes=[fault("gw2")])) == ["out of order"]
    assert found(verdict(with_enroute, gw1=LATE, episodes=[fault("gw1", began=7.5)])) == ["out of order"]
    assert verdict(with_enroute, gw1=[*TOLD, received(4.0, "ENROUTE"), received(9.0)]).passed


def test_unless_the_node_that_had_delivered_the_final_one_failed_just_then():
    assert verdict([*OPERATOR, *ENROUTE], gw1=LATE, episodes=[fault("gw1")]).late == {FINAL_FORGOTTEN: 1}


def test_or_it_was_at_a_node_that_was_taken_over_from():
    with_enroute = [*OPERATOR, *ENROUTE]
    taken = {"arrived": steps((8.5, "gw1", "gw3")), "gone": [(8.0, "gw3")]}
    assert verdict(with_enroute, gw1=LATE, **taken).late == {TAKEN_OVER: 1}
    moved = {"arrived": steps((8.5, "gw1", "gw3"))}
    assert found(verdict(with_enroute, gw1=LATE, **moved)) == ["out of order"]
    other = {"arrived": steps((8.5, "gw1", "gw3")), "gone": [(8.0, "gw2")]}
    assert found(verdict(with_enroute, gw1=LATE, **other)) == ["out of order"]


def test_no_report_comes_before_the_response_to_its_message_whatever_has_happened():
    early = [*SUBMITTED, received(4.0), events.Responded(4.5, "gw1-r-1", "s1", c.ESME_ROK, REPORT)]
    everything = fault("gw1", "gw2", "gw3", began=0.0, ended=100.0)
    assert found(verdict(gw1=early, episodes=[everything], gone=[(3.0, "gw1")])) == ["out of order"]


# What it goes by


@pytest.mark.parametrize(("t", "node"), [(-1.0, ""), (1.0, "gw1"), (5.0, "gw2")])
def test_a_turnstile_knows_which_node_a_gateway_was_with(t, node):
    turnstile = Turnstile(1, {})
    turnstile.passages = [Passage("gw1", 0.0), Passage("gw2", 4.0)]
    assert turnstile.node_at(t) == node


def test_logs_are_heard_by_the_stages_own_clock():
    hearing = Hearing()
    line = {"timestamp": "2020-01-01T00:00:00.000+00:00", "level": "info", "node": "gw2", "message_id": REPORT}
    hearing.hear("gw2", {**line, "event": "dlr.arrived", "origin": "gw1"})
    hearing.hear("gw3", {**line, "event": "mo.arrived", "message_id": "", "origin": "gw1"})
    assert [step.node for step in hearing.arrived("")] == ["gw3"]
    hearing.hear("gw2", {**line, "event": "quorum.node_gone", "gone": "gw1"})
    (step,) = hearing.arrived(REPORT)
    assert (step.node, step.origin) == ("gw2", "gw1")
    assert [gone.node for gone in hearing.gone_between("gw1", step.t, time.monotonic())] == ["gw1"]
    assert hearing.ahead_s["gw2"] < -86400
    hearing.hear("gw2", {**line, "event": "quorum.released", "why": "it is stopping"})
    hearing.hear("gw2", {**line, "event": "quorum.released", "why": "its database server cannot be reached"})
    assert [released.node for released in hearing.released] == ["gw2"]
    hearing.hear("gw3", {**line, "event": "node.drain_time_over"})
    assert [hurried.node for hurried in hearing.hurried] == ["gw3"]


def test_a_clock_is_moved_and_the_monotonic_one_is_left_alone():
    code = "import os, time; print(time.monotonic(), time.time(), os.getpid())"
    before = time.monotonic(), time.time()
    said = subprocess.run([*ahead(500.0), sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = time.monotonic(), time.time()
    monotonic, wall, pid = said.stdout.split()
    assert before[0] <= float(monotonic) <= after[0]
    assert before[1] <= float(wall) - 500.0 <= after[1]
    assert ahead(0.0) == ()
    tidy()
    assert not list(Path("/dev/shm").glob(f"*faketime_*_{pid}"))


def test_a_row_is_in_an_inbox_from_the_first_look_that_finds_it_to_the_first_that_does_not():
    inboxes = Inboxes([])
    inboxes.heard({("gw1", b"a")}, 1.0)
    inboxes.heard({("gw1", b"a"), ("gw2", b"a")}, 2.0)
    assert inboxes.now() == {"gw1": 1, "gw2": 1}
    inboxes.heard({("gw2", b"a")}, 4.0)
    assert inboxes.stays == [Stay("gw1", 1.0, 4.0)]
    assert inboxes.now() == {"gw2": 1}
    assert inboxes.looked == 4.0
