"""Decisions about reports and MO."""

import pytest
from attrs import define

from dlrproxy.routing import Step, after_answer, choose, matched, placed_locally, unmatched, without_session
from protocols.smpp import constants as c


@pytest.mark.parametrize(
    ("final", "finished", "step"),
    [(True, False, Step.PASS), (False, False, Step.PASS), (True, True, Step.PASS), (False, True, Step.SWALLOW)],
)
def test_nothing_intermediate_follows_a_final_report(final, finished, step):
    assert matched(final=final, finished=finished) is step


@pytest.mark.parametrize(("observe", "step"), [(False, Step.KEEP), (True, Step.LOCAL)])
def test_unmatched(observe, step):
    assert unmatched(observe=observe) is step


@pytest.mark.parametrize(("bound", "step"), [(True, Step.LOCAL), (False, Step.KEEP)])
def test_placed_locally(bound, step):
    assert placed_locally(bound=bound) is step


@pytest.mark.parametrize(
    ("status", "custody", "retry"),
    [
        (c.ESME_ROK, Step.RELAY, Step.RELAY),
        (c.ESME_RX_P_APPN, Step.RELAY, Step.RELAY),
        (0x00000432, Step.RELAY, Step.RELAY),
        (c.ESME_RTHROTTLED, Step.KEEP, Step.RETRY),
        (c.ESME_RSYSERR, Step.KEEP, Step.RETRY),
        (c.ESME_RMSGQFUL, Step.KEEP, Step.RETRY),
        (c.ESME_RX_T_APPN, Step.KEEP, Step.RETRY),
        (None, Step.KEEP, Step.RETRY),
    ],
)
def test_after_the_gateways_answer(status, custody, retry):
    assert after_answer(status, "custody") is custody
    assert after_answer(status, "retry_status") is retry


@define
class Receiver:
    gateway: str
    has_room: bool = True


def test_the_submitting_session_comes_first():
    submitter, other = Receiver("gw1"), Receiver("gw1")
    assert choose("gw1", submitter, [other, submitter]) is submitter


@pytest.mark.parametrize("submitter", [None, Receiver("gw1", has_room=False), Receiver("gw2")])
def test_else_the_first_with_room(submitter):
    full, free = Receiver("gw1", has_room=False), Receiver("gw1")
    assert choose("gw1", submitter, [full, free]) is free
    assert choose("gw1", submitter, [full]) is None


@pytest.mark.parametrize(
    ("bound", "roaming", "step"),
    [(True, True, Step.ANSWER), (False, True, Step.KEEP), (True, False, Step.ANSWER), (False, False, Step.ANSWER)],
)
def test_only_where_gateways_roam_is_one_kept_for_wherever_it_is_bound(bound, roaming, step):
    assert without_session(bound=bound, roaming=roaming) is step
