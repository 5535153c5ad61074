"""Receipts like those of the field that are in no sample: `dlrproxy explain --json` as a support engineer asks it.

Spacing, order, separators and case of keys, values that are empty or glued, ids of every form, TLVs alone, alphabets,
and messages that only look like receipts. Each is named for what is odd about it.
"""

import json

import pytest
from click.testing import CliRunner

from dlrproxy.cli import main

MO = (False, None, None, None)
USUAL = (True, "12345", "DELIVRD", "000")

VARIANTS = {
    # Spacing, separators, case, order
    "blanks behind the colons": ({"text": "id: 12345 sub: 001 stat: DELIVRD err: 000 text: hi"}, USUAL),
    "blanks before the colons": ({"text": "id :12345 stat :DELIVRD err :000"}, USUAL),
    "all in capitals": ({"text": "ID:12345 SUB:001 SUBMIT DATE:2401011200 STAT:DELIVRD ERR:000 TEXT:hi"}, USUAL),
    "capital initials": ({"text": "Id:12345 Done Date:2401011201 Stat:DELIVRD Err:000 Text:"}, USUAL),
    "tabs between": ({"text": "id:12345\tsub:001\tstat:DELIVRD\terr:000"}, USUAL),
    "a line each": ({"text": "id:12345\r\nsub:001\r\nstat:DELIVRD\r\nerr:000\r\ntext:"}, USUAL),
    "commas between": ({"text": "id:12345,sub:001,dlvrd:001,stat:DELIVRD,err:000"}, USUAL),
    "semicolons between": ({"text": "id:12345;stat:DELIVRD;err:000"}, USUAL),
    "values in quotes": ({"text": 'id:"12345" stat:"DELIVRD" err:"000"', "esm_class": 4}, USUAL),
    "the state before the id": ({"text": "stat:DELIVRD err:000 id:12345 done date:2401011201"}, USUAL),
    "underscores in the dates' keys": ({"text": "id:12345 submit_date:1 done_date:2 stat:DELIVRD err:000"}, USUAL),
    "dates with hyphens, blanks and colons": (
        {"text": "id:12345 submit date:24-01-01 12:00 done date:24-01-01 12:01 stat:DELIVRD err:000 text:"},
        USUAL,
    ),
    "another name of the id": ({"text": "msgid:12345 stat:DELIVRD err:000", "esm_class": 4}, USUAL),
    "message id in two words": ({"text": "message id:12345 stat:DELIVRD err:000"}, USUAL),
    # Glued, empty and missing
    "no blank before err": (
        {"text": "id:12345 stat:DELIVRDerr:000 text:", "esm_class": 4},
        (True, "12345", "DELIVRD", None),
    ),
    "no blank anywhere": (
        {"text": "id:12345sub:001dlvrd:001stat:UNDELIVerr:000", "esm_class": 4},
        (True, "12345", "UNDELIV", None),
    ),
    "an empty id": ({"text": "id: stat:DELIVRD err:000 text:"}, (True, None, "DELIVRD", "000")),
    "an empty state": ({"text": "id:12345 stat: err:000 text:"}, (True, "12345", "", "000")),
    "a negative error": ({"text": "id:12345 stat:DELIVRD err:-1 text:"}, (True, "12345", "DELIVRD", "-1")),
    "error under another name": (
        {"text": "id:12345 stat:DELIVRD error:000 text:", "esm_class": 4},
        (True, "12345", "DELIVRD", None),
    ),
    "state under another name": (
        {"text": "id:12345 status:DELIVRD err:000 text:", "esm_class": 4},
        (True, "12345", None, "000"),
    ),
    "no id and no date but a state": ({"text": "sub:001 stat:DELIVRD"}, (True, None, "DELIVRD", None)),
    # States
    "a state of the specification's table": ({"text": "id:1 stat:Delivered err:0"}, (True, "1", "DELIVERED", "0")),
    "its long form": ({"text": "id:1 stat:UNDELIVERABLE err:0"}, (True, "1", "UNDELIVERABLE", "0")),
    "a state of 5.0": ({"text": "id:1 stat:SKIPPED err:9"}, (True, "1", "SKIPPED", "9")),
    "a state of nobody's": ({"text": "id:1 stat:BUFFERD err:9"}, (True, "1", "BUFFERD", "9")),
    "an intermediate notification": ({"text": "id:1 stat:ENROUTE err:0", "esm_class": 32}, (True, "1", "ENROUTE", "0")),
    # What the message's own text imitates
    "a whole receipt inside text": (
        {"text": "id:12345 stat:DELIVRD err:000 text:id:99999 stat:REJECTD err:111"},
        USUAL,
    ),
    # Ids
    "an id with a colon": ({"text": "id:c449:1 stat:DELIVRD err:000"}, (True, "c449:1", "DELIVRD", "000")),
    "an id like an address": ({"text": "id:1-2@smsc.x stat:DELIVRD err:0"}, (True, "1-2@smsc.x", "DELIVRD", "0")),
    "a UUID in braces": ({"text": "id:{577e505a-dbd7} stat:DELIVRD err:0"}, (True, "{577e505a-dbd7}", "DELIVRD", "0")),
    "an id with 0x": ({"text": "id:0x1A2B stat:DELIVRD err:0"}, (True, "0x1A2B", "DELIVRD", "0")),
    # TLVs
    "TLVs alone, the state as a byte": (
        {"text": "", "esm_class": 4, "tlv": {"0x001E": "abc", "0x0427": "05", "0x0423": "030008"}},
        (True, "abc", "UNDELIV", None),
    ),
    "a NUL at the end of the id": (
        {"text": "", "esm_class": 4, "tlv": {"0x001E": "abc\0", "0x0427": 8}},
        (True, "abc", "REJECTD", None),
    ),
    "the state SCHEDULED": (
        {"text": "", "esm_class": 4, "tlv": {"0x001E": "abc", "0x0427": 0}},
        (True, "abc", "SCHEDULED", None),
    ),
    "a state of no table": (
        {"text": "", "esm_class": 4, "tlv": {"0x001E": "abc", "0x0427": 77}},
        (True, "abc", None, None),
    ),
    "an empty id TLV and nothing else": ({"text": "", "esm_class": 4, "tlv": {"0x001E": ""}}, (True, None, None, None)),
    "an empty id TLV beside the text's id": (
        {"text": "id:55 stat:DELIVRD", "esm_class": 4, "tlv": {"0x001E": ""}},
        (True, "55", "DELIVRD", None),
    ),
    "type 0 with id and state TLVs": (
        {"text": "hello", "esm_class": 0, "tlv": {"0x001E": "abc", "0x0427": 2}},
        (True, "abc", "DELIVRD", None),
    ),
    # Alphabets
    "UCS-2": (
        {
            "text": "id:12345 stat:DELIVRD err:000 text:\u043f\u0440\u0438\u0432\u0435\u0442",
            "data_coding": 8,
            "esm_class": 4,
        },
        USUAL,
    ),
    # No receipts
    "an MO with an id TLV and no state": ({"text": "hello", "esm_class": 0, "tlv": {"0x001E": "abc"}}, MO),
    "an MO in a receipt's words": ({"text": "id:12345 stat:DELIVRD err:000", "esm_class": 0}, MO),
    "an MO that mentions both keys": ({"text": "my id:12345 and stat:great thanks"}, MO),
    "an MO with a PIN": ({"text": "PIN id: 4711 valid"}, MO),
    "equals signs": ({"text": "id=12345 stat=DELIVRD err=000"}, MO),
    "a delivery acknowledgement of a phone": ({"text": "hello", "esm_class": 8}, MO),
    "a manual acknowledgement of a person": ({"text": "yes", "esm_class": 16}, MO),
}

MATCHES = {
    "above 64 bits, hex and decimal": ("18446744073709551616", "10000000000000000", True),
    "case and zeros together": ("B8BE19", "00b8be19", True),
    "zeros in front of a decimal": ("0012345", "12345", True),
    "hex in the receipt, decimal in the response": ("ffffffffffffffff", "18446744073709551615", True),
    "one digit more": ("12345", "123456", False),
    "a UUID in other case": ("577E505A-DBD7", "577e505a-dbd7", False),
    "zeros inside": ("HW001", "HW1", False),
    "a blank at the end": ("12345", "12345 ", False),
}


def explained(*asked):
    lines = "".join(f"{json.dumps(each)}\n" for each in asked)
    result = CliRunner().invoke(main, ["explain", "--json"], input=lines)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_seen_as_a_person_would_see_it(name):
    asked, expected = VARIANTS[name]
    (found,) = explained(asked)
    assert (found["is_receipt"], found["id"], found["state"], found["error"]) == expected


@pytest.mark.parametrize("name", MATCHES)
def test_ids_that_are_written_otherwise_match_and_others_do_not(name):
    reported, responded, matches = MATCHES[name]
    (found,) = explained({"text": f"id:{reported} stat:DELIVRD", "resp_id": responded})
    assert found["matches_resp_id"] is matches


def test_all_of_them_in_one_go_come_back_line_by_line():
    found = explained(*(asked for asked, _ in VARIANTS.values()))
    assert [each["is_receipt"] for each in found] == [expected[0] for _, expected in VARIANTS.values()]
