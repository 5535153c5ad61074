"""The judge, on hand-written ledgers: each case is a change to a run in which everything went well."""

import pytest

from dlrproxy.simulator.judge import examine, judge
from dlrproxy.simulator.ledger import (
    Accepted,
    Answered,
    GatewayStarted,
    Mo,
    MoReceived,
    OperatorStarted,
    Report,
    Reported,
    Responded,
    Sent,
    Submitted,
    Unanswered,
)

T = 100.0


def accepted(message_id="a1", tag="g1-1", receipt_id=None):
    return Accepted(T, message_id, receipt_id or message_id, tag, "123", "467", "b1", "@1")


def report(n=1, message_id="a1", state="DELIVRD", destination="467"):
    return Report(T, n, message_id, destination, state, final=state != "ENROUTE")


def sent(n=1, t=T, attempt=1):
    return Sent(t, n, "b1", attempt)


def answered(n=1, status=0, t=T + 1):
    return Answered(t, n, "b1", status)


def submitted(tag="g1-1"):
    return Submitted(T, tag, "s1", 1, "467", 1)


def responded(message_id="a1", tag="g1-1", status=0):
    return Responded(T, tag, "s1", status, message_id)


def reported(message_id="a1", state="DELIVRD", tag="g1-1", t=T + 0.25, status=0):
    return Reported(t, message_id, state, tag, "467", "s1", status, "exact")


def mo(n=1, tag="m-1", message="m-1", part=1, parts=1):
    return Mo(T, n, tag, message, "467", "7000", part, parts)


def mo_received(tag="m-1", status=0):
    return MoReceived(T, tag, "467", "7000", "s1", status)


OPERATOR = [OperatorStarted(T, "r", 0.0), accepted(), report(), sent(), answered()]
SUBMIT = [GatewayStarted(T, "gw1", "r", 0.0), submitted(), responded()]


def verdict(operator, gw1=(), gw2=()):
    return judge(operator, {"gw1": gw1, "gw2": gw2})


def nonzero(found):
    """The counts that say something; the rest must be 0 or absent."""
    return {name: value for name, value in found.as_dict().items() if value}


GOOD = {
    "submitted": 1, "reports_made": 1, "reports_sent": 1, "delivered_to_owner": 1, "p50_ms": 250.0, "p99_ms": 250.0
}  # fmt: skip
MISSED = {"submitted": 1, "reports_made": 1, "reports_sent": 1}


def test_all_well():
    found = verdict(OPERATOR, [*SUBMIT, reported()])
    assert nonzero(found) == GOOD
    assert found.passed


@pytest.mark.parametrize(
    ("operator", "gw1", "gw2", "expected"),
    [
        pytest.param(OPERATOR, SUBMIT, [], {**MISSED, "lost": 1}, id="lost"),
        pytest.param(OPERATOR, SUBMIT, [reported()], {**MISSED, "delivered_elsewhere": 1}, id="wrong gateway"),
        pytest.param(
            OPERATOR, [*SUBMIT, reported()], [reported()], {**GOOD, "delivered_elsewhere": 1, "duplicates": 1},
            id="owner and wrong gateway",
        ),
        pytest.param(OPERATOR, [*SUBMIT, reported(message_id="b2", tag="")], [],
                     {**MISSED, "lost": 1, "unexpected": 1}, id="a report that was never made"),
        pytest.param(OPERATOR, [*SUBMIT, reported(status=0x58)], [], {**MISSED, "lost": 1},
                     id="refused and not delivered again"),
        pytest.param(OPERATOR, [*SUBMIT, reported(status=None)], [], {**MISSED, "lost": 1},
                     id="unanswered and not delivered again"),
        pytest.param(OPERATOR, [*SUBMIT[:2], reported(), responded()], [], {**GOOD, "order_violations": 1},
                     id="report before response"),
    ],
)  # fmt: skip
def test_failures_are_seen(operator, gw1, gw2, expected):
    found = verdict(operator, gw1, gw2)
    assert nonzero(found) == expected
    assert not found.passed


@pytest.mark.parametrize(
    ("operator", "gw1", "expected"),
    [
        pytest.param(OPERATOR, [*SUBMIT, reported(), reported()], {**GOOD, "duplicates": 1}, id="duplicate"),
        pytest.param([*OPERATOR[:-1], sent(attempt=2), answered()], [*SUBMIT, reported(), reported()],
                     {**GOOD, "duplicates": 1, "resent": 1}, id="duplicate that the operator sent twice"),
        pytest.param(OPERATOR, [*SUBMIT, reported(status=0x58, t=T + 0.1), reported()], GOOD,
                     id="delivered again after a refusal is no duplicate"),
        pytest.param(OPERATOR[:-1], SUBMIT, {"submitted": 1, "reports_made": 1},
                     id="not accepted from the operator is not lost"),
        pytest.param([*OPERATOR[:-1], answered(status=0x58)], SUBMIT, {"submitted": 1, "reports_made": 1},
                     id="refused to the operator is not lost"),
        pytest.param(OPERATOR, SUBMIT[:2], {**MISSED, "ownerless": 1}, id="response lost with the link"),
        pytest.param(OPERATOR, [], {**MISSED, "ownerless": 1}, id="a gateway without a ledger"),
        pytest.param(OPERATOR, [*SUBMIT[:2], reported()], GOOD, id="report, and a response that never comes"),
    ],
)  # fmt: skip
def test_what_is_counted_and_tolerated(operator, gw1, expected):
    found = verdict(operator, gw1)
    assert nonzero(found) == expected
    assert found.passed


BOTH = [OperatorStarted(T, "r", 0.0), accepted(), report(1, state="ENROUTE"), report(2)]


def test_what_a_verdict_counts_has_names():
    operator, gateways = [*OPERATOR, Unanswered(T, 1, "b1", "timeout"), sent(attempt=2)], {"gw1": [*SUBMIT, reported()]}
    found, cases = examine(operator, {**gateways, "gw2": [reported(t=T + 5)]})
    assert found.delivered_elsewhere == 1
    (case,) = cases.elsewhere
    assert (case.message_id, case.state, case.final, case.owner, case.told, case.sent) == (
        "a1", "DELIVRD", True, "gw1", True, 2
    )  # fmt: skip
    assert [(arrival.gateway, arrival.t) for arrival in case.received] == [("gw1", T + 0.25), ("gw2", T + 5)]
    assert cases.repeated == cases.elsewhere
    assert cases.lost == cases.ownerless == cases.disordered == ()

    _, cases = examine(OPERATOR, {"gw1": SUBMIT[:2]})
    assert [(case.message_id, case.told) for case in cases.ownerless] == [("a1", False)]


def test_intermediate_then_final():
    found = verdict([*BOTH, sent(1), answered(1), sent(2), answered(2)],
                    [*SUBMIT, reported(state="ENROUTE"), reported()])  # fmt: skip
    assert (found.delivered_to_owner, found.order_violations, found.lost) == (2, 0, 0)


def test_final_then_intermediate_is_a_violation():
    found = verdict([*BOTH, sent(1), sent(2), answered(1), answered(2)],
                    [*SUBMIT, reported(), reported(state="ENROUTE")])  # fmt: skip
    assert (found.delivered_to_owner, found.order_violations) == (2, 1)


def test_intermediate_kept_back_because_its_final_overtook_it():
    found = verdict([*BOTH, sent(1), sent(2), answered(2), answered(1, t=T + 2)], [*SUBMIT, reported()])
    assert (found.superseded, found.lost, found.passed) == (1, 0, True)


def test_intermediate_that_was_accepted_before_the_final_was_sent_may_not_be_kept_back():
    found = verdict([*BOTH, sent(1), answered(1), sent(2, t=T + 2), answered(2, t=T + 3)], [*SUBMIT, reported()])
    assert (found.superseded, found.lost) == (0, 1)


@pytest.mark.parametrize(
    ("response", "receipt", "seen"),
    [("1a2b3c4d", "439041101", "439041101"), ("1a2b3c4d", "439041101", "1a2b3c4d"),
     ("1A2B3C4D", "0439041101", "439041101"), ("439041101", "1a2b3c4d", "1A2B3C4D")],
)  # fmt: skip
def test_ids_in_any_spelling(response, receipt, seen):
    operator = [OPERATOR[0], accepted(response, receipt_id=receipt), report(message_id=response), sent(), answered()]
    gateway = [*SUBMIT[:2], responded(response), reported(message_id=seen)]
    assert verdict(operator, gateway).delivered_to_owner == 1


def test_owner_is_told_by_the_tag_where_an_id_comes_again():
    operator = [
        *OPERATOR, OperatorStarted(T, "r2", 0.0), accepted(tag="g2-1"), report(), sent(), answered()
    ]  # fmt: skip
    gw2 = [submitted("g2-1"), responded(tag="g2-1"), reported(tag="g2-1")]
    found = verdict(operator, [*SUBMIT, reported()], gw2)
    assert (found.reports_sent, found.delivered_to_owner, found.delivered_elsewhere, found.lost) == (2, 2, 0, 0)


def test_resubmitted_message_has_a_report_for_each_id():
    operator = [
        *OPERATOR, accepted("a2"), report(2, "a2"), sent(2), answered(2),
    ]  # fmt: skip
    gateway = [submitted(), submitted(), responded("a2"), reported("a2")]
    found = verdict(operator, gateway)
    assert (found.delivered_to_owner, found.ownerless, found.lost) == (1, 1, 0)


def test_one_message_to_several_destinations():
    operator = [
        OPERATOR[0], accepted(), report(1, destination="461"), report(2, destination="467"),
        sent(1), answered(1), sent(2), answered(2),
    ]  # fmt: skip
    found = verdict(operator, [*SUBMIT, reported(), reported()])
    assert (found.delivered_to_owner, found.duplicates, found.lost) == (1, 1, 1)


MO_SENT = [OperatorStarted(T, "r", 0.0), mo(), sent(), answered()]


@pytest.mark.parametrize(
    ("gw1", "gw2", "expected"),
    [
        ([mo_received()], [], {"mo_sent": 1, "mo_delivered": 1}),
        ([], [], {"mo_sent": 1, "mo_lost": 1}),
        ([mo_received(status=0x58)], [], {"mo_sent": 1, "mo_lost": 1}),
        ([mo_received()], [mo_received()], {"mo_sent": 1, "mo_delivered": 1, "mo_duplicates": 1}),
        ([mo_received("m-9")], [], {"mo_sent": 1, "mo_lost": 1, "unexpected": 1}),
    ],
)
def test_mo(gw1, gw2, expected):
    assert nonzero(verdict(MO_SENT, gw1, gw2)) == expected


def test_parts_of_one_mo_at_two_gateways():
    parts = [mo(1, "m-1.1", "m-1", 1, 2), mo(2, "m-1.2", "m-1", 2, 2), sent(1), answered(1), sent(2), answered(2)]
    operator = [OperatorStarted(T, "r", 0.0), *parts]
    together = verdict(operator, [mo_received("m-1.1"), mo_received("m-1.2")])
    apart = verdict(operator, [mo_received("m-1.1")], [mo_received("m-1.2")])
    assert (together.mo_split, together.passed) == (0, True)
    assert (apart.mo_split, apart.passed) == (1, False)


def test_percentiles():
    operator = [OperatorStarted(T, "r", 0.0)]
    gateway = []
    for n in range(1, 101):
        operator += [accepted(f"{n:x}", f"t{n}"), report(n, f"{n:x}"), sent(n), answered(n)]
        gateway += [submitted(f"t{n}"), responded(f"{n:x}", f"t{n}"), reported(f"{n:x}", tag=f"t{n}", t=T + n / 1000)]
    found = verdict(operator, gateway)
    assert (found.p50_ms, found.p99_ms) == (pytest.approx(50.0), pytest.approx(99.0))
