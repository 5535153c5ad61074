"""Session states: who may send what, when."""

import pytest

from protocols.smpp import constants as c
from protocols.smpp.session import LocalProtocolError, Session, Side, State, response_to

BINDS = {
    c.BIND_TRANSMITTER_RESP: State.BOUND_TX,
    c.BIND_RECEIVER_RESP: State.BOUND_RX,
    c.BIND_TRANSCEIVER_RESP: State.BOUND_TRX,
}


def session_in(state: State) -> Session:
    session = Session()
    if state is State.CLOSED:
        session.closed()
    elif state is not State.OPEN:
        command = next((bind for bind, bound in BINDS.items() if bound is state), c.BIND_TRANSCEIVER_RESP)
        session.responded(command, c.ESME_ROK)
        if state is State.UNBOUND:
            session.responded(c.UNBIND_RESP, c.ESME_ROK)
    assert session.state is state
    return session


# Where the ESME (e) and the SMSC (s) may send it: OPEN, BOUND_TX, BOUND_RX, BOUND_TRX. After SMPP 3.4 table 2-1.
TABLE = [
    (c.BIND_TRANSMITTER, "e", "", "", ""),
    (c.BIND_RECEIVER, "e", "", "", ""),
    (c.BIND_TRANSCEIVER, "e", "", "", ""),
    (c.OUTBIND, "s", "", "", ""),
    (c.UNBIND, "", "es", "es", "es"),
    (c.ENQUIRE_LINK, "es", "es", "es", "es"),
    (c.SUBMIT_SM, "", "e", "", "e"),
    (c.SUBMIT_MULTI, "", "e", "", "e"),
    (c.QUERY_SM, "", "e", "", "e"),
    (c.CANCEL_SM, "", "e", "", "e"),
    (c.REPLACE_SM, "", "e", "", "e"),
    (c.BROADCAST_SM, "", "e", "", "e"),
    (c.DATA_SM, "", "e", "s", "es"),
    (c.DELIVER_SM, "", "", "s", "s"),
    (c.ALERT_NOTIFICATION, "", "", "s", "s"),
    (0x00010200, "", "es", "es", "es"),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: c.COMMAND_NAMES.get(row[0], "vendor"))
def test_who_may_send_what(row):
    command, *allowed = row
    for state, senders in zip((State.OPEN, State.BOUND_TX, State.BOUND_RX, State.BOUND_TRX), allowed, strict=True):
        session = session_in(state)
        assert (session.refusal(Side.ESME, command) == c.ESME_ROK) is ("e" in senders), state
        assert (session.refusal(Side.SMSC, command) == c.ESME_ROK) is ("s" in senders), state


@pytest.mark.parametrize("state", [State.UNBOUND, State.CLOSED])
def test_after_the_end_nothing_may_be_sent(state):
    session = session_in(state)
    for command in (c.SUBMIT_SM, c.DELIVER_SM, c.BIND_TRANSCEIVER, 0x00010200):
        for side in Side:
            assert session.refusal(side, command) == c.ESME_RINVBNDSTS
    assert not session.bound


def test_a_second_bind_is_told_so():
    assert session_in(State.BOUND_RX).refusal(Side.ESME, c.BIND_TRANSCEIVER) == c.ESME_RALYBND


@pytest.mark.parametrize(("command", "state"), BINDS.items())
def test_a_good_bind_resp_binds(command, state):
    session = session_in(state)
    assert session.transmits is (state is not State.BOUND_RX)
    assert session.receives is (state is not State.BOUND_TX)


def test_a_refused_bind_leaves_the_session_open():
    session = Session()
    session.responded(c.BIND_RECEIVER_RESP, c.ESME_RBINDFAIL)
    assert session.state is State.OPEN


def test_a_bind_resp_out_of_place_is_a_bug_of_ours():
    with pytest.raises(LocalProtocolError):
        session_in(State.BOUND_TX).responded(c.BIND_TRANSMITTER_RESP, c.ESME_ROK)


def test_an_unbind_resp_while_open_changes_nothing():
    session = Session()
    session.responded(c.UNBIND_RESP, c.ESME_ROK)
    assert session.state is State.OPEN


@pytest.mark.parametrize(("request_", "response"), [(c.SUBMIT_SM, c.SUBMIT_SM_RESP), (0x00010200, 0x80010200)])
def test_every_request_has_a_response(request_, response):
    assert response_to(request_) == response
