"""Our numbers against python-smpplib's, a list that none of us wrote."""

import pytest
from smpplib import command_codes, consts

from protocols.smpp import constants as c

# Commands of SMPP 5.0 that smpplib does not know.
BROADCAST = {code for code, name in c.COMMAND_NAMES.items() if "broadcast" in name}
# By another name there.
STATE_NAMES = {
    "DELIVRD": "DELIVERED",
    "UNDELIV": "UNDELIVERABLE",
    "ACCEPTD": "ACCEPTED",
    "REJECTD": "REJECTED",
}


@pytest.mark.parametrize("code", sorted(set(c.COMMAND_NAMES) - BROADCAST))
def test_command_codes(code):
    assert command_codes.get_command_code(c.COMMAND_NAMES[code]) == code


def test_the_broadcast_commands_are_smpp_5s():
    assert sorted(BROADCAST) == [0x111, 0x112, 0x113, 0x80000111, 0x80000112, 0x80000113]


def test_a_response_is_its_command_with_the_response_bit():
    codes = {name: code for code, name in c.COMMAND_NAMES.items()}
    for name, code in codes.items():
        if f"{name}_resp" in codes:
            assert codes[f"{name}_resp"] == code | c.RESPONSE_BIT


@pytest.mark.parametrize("name", sorted(name for name in vars(c) if name.startswith("ESME_")))
def test_statuses(name):
    assert getattr(c, name) == getattr(consts, f"SMPP_{name}")


def test_every_status_has_its_name():
    assert all(getattr(c, name) == value for value, name in c.STATUS_NAMES.items())
    assert set(c.STATUS_NAMES) >= set(c.TEMPORARY)


@pytest.mark.parametrize("name", sorted(name for name in vars(c) if name.startswith("TLV_")))
def test_tlv_tags(name):
    assert consts.OPTIONAL_PARAMS[name.removeprefix("TLV_").lower()] == getattr(c, name)


def test_message_types():
    assert consts.SMPP_MSGTYPE_DEFAULT == c.ESM_MO
    assert consts.SMPP_MSGTYPE_DELIVERYACK == c.ESM_DELIVERY_ACK
    assert consts.SMPP_MSGTYPE_USERACK == c.ESM_MANUAL_ACK
    assert consts.SMPP_GSMFEAT_UDHI == c.ESM_UDHI
    assert all(kind & c.ESM_TYPE_MASK == kind for kind in (c.ESM_RECEIPT, c.ESM_ABORT, c.ESM_INTERMEDIATE))


@pytest.mark.parametrize("number", range(1, 9))
def test_message_states(number):
    name = c.MESSAGE_STATES[number]
    assert getattr(consts, f"SMPP_MESSAGE_STATE_{STATE_NAMES.get(name, name)}") == number


def test_final_states_are_states():
    assert set(c.MESSAGE_STATES.values()) >= c.FINAL_STATES
    assert "ACCEPTD" not in c.FINAL_STATES
