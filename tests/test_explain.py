import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dlrproxy.cli.explain import explain
from dlrproxy.explanation import UnusableInputError, explain_frame, frame_of_hex, frame_of_line
from protocols.smpp import constants as c
from protocols.smpp import pdu

TEXT = "id:0059113978 sub:001 dlvrd:001 submit date:1002101730 done date:1002101731 stat:DELIVRD err:000 text:hello"
CONFIG = """
[node]
name = "gw1"
data_dir = "{directory}"

[[operators]]
name = "acme"
host = "smsc.acme.example"
system_id = "shop"
password = "secret"
listen = "127.0.0.1:2775"
message_id = "exact"
receipt_text = true

[[peers]]
name = "gw1"
url = "wss://10.0.0.1:7301"
"""


def run(*arguments, stdin=None):
    return CliRunner().invoke(explain, [*arguments], input=stdin)


def run_json(*arguments, stdin=None):
    result = run("--json", *arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def lines(*objects):
    return "\n".join(json.dumps(line) for line in objects)


def one(**line):
    (found,) = run_json(stdin=json.dumps(line))
    return found


class TestArguments:
    def test_a_text(self):
        (found,) = run_json(TEXT)
        assert found["is_receipt"] is True
        assert (found["id"], found["state"], found["error"]) == ("0059113978", "DELIVRD", "000")
        assert found["keys"] == ["0059113978", "59113978", "38601fa", "1494301048"]
        assert "matches_resp_id" not in found

    def test_a_pdu_in_hex_with_blanks_colons_and_capitals(self):
        message = pdu.Message(source=b"49170", esm_class=4, short_message=TEXT.encode())
        frame = pdu.pack(c.DELIVER_SM, 0, 9, message.encode())
        for written in (frame.hex(), frame.hex(" ").upper(), frame.hex(":"), frame.hex(" ", 4) + "\n"):
            assert run_json(written)[0]["id"] == "0059113978"

    def test_a_body_in_hex_without_its_header(self):
        message = pdu.Message(source=b"49170", esm_class=4, short_message=TEXT.encode())
        assert run_json(message.encode().hex())[0]["id"] == "0059113978"

    def test_a_pdu_whose_command_length_is_wrong_is_read_and_said_to_be(self):
        frame = pdu.pack(c.DELIVER_SM, 0, 9, pdu.Message(esm_class=4, short_message=TEXT.encode()).encode())
        (found,) = run_json((b"\0\0\0\x20" + frame[4:]).hex())
        assert found["id"] == "0059113978"
        assert found["problem"] == f"command_length says 32, there are {len(frame)} octets"

    def test_tlvs_esm_class_and_data_coding_beside_a_text(self):
        options = ["--tlv", "0x001E=38601fa", "--tlv", "0x0427=2", "--data-coding", "8", "--esm-class", "0x00"]
        (found,) = run_json(TEXT, *options)
        assert (found["id"], found["text_id"], found["state"]) == ("38601fa", "0059113978", "DELIVRD")
        (found,) = run_json(TEXT, "--esm-class", "0")
        assert found["is_receipt"] is False
        assert found["id"] is None

    def test_a_response_id(self):
        (found,) = run_json(TEXT, "--resp-id", "38601FA")
        assert found["matches_resp_id"] is True
        assert found["rule"] == "hex-decimal"

    @pytest.mark.parametrize(
        ("rule", "matches"), [("auto", True), ("hex-decimal", True), ("exact", False), ("zeros", False)]
    )
    def test_a_pinned_rule_decides(self, rule, matches):
        (found,) = run_json(TEXT, "--resp-id", "38601FA", "--message-id", rule)
        assert found["matches_resp_id"] is matches

    def test_an_exact_id_matches_under_any_rule(self):
        (found,) = run_json(TEXT, "--resp-id", "0059113978", "--message-id", "hex-decimal")
        assert found["matches_resp_id"] is True

    def test_receipts_that_look_like_mo(self):
        (found,) = run_json(TEXT, "--esm-class", "0", "--receipt-text")
        assert found["is_receipt"] is True

    def test_the_settings_of_an_operator(self, tmp_path):
        config = tmp_path / "gw1.toml"
        config.write_text(CONFIG.format(directory=tmp_path))
        arguments = [TEXT, "--esm-class", "0", "--resp-id", "38601fa", "--config", str(config), "--operator"]
        (found,) = run_json(*arguments, "acme")
        assert found["is_receipt"] is True
        assert found["matches_resp_id"] is False
        (found,) = run_json(*arguments, "acme", "--message-id", "hex-decimal")
        assert found["matches_resp_id"] is True
        result = run(*arguments, "other")
        assert result.exit_code == 2
        assert "has no operator 'other'" in result.output

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--operator", "acme"], "go together"),
            (["--tlv", "0x001E"], "write TAG=VALUE"),
            (["--tlv", "receipted=1"], "not a number"),
            (["--config", "/nowhere/x.toml", "--operator", "acme"], "nowhere"),
        ],
    )
    def test_options_that_cannot_be_used(self, arguments, said):
        result = run(TEXT, *arguments)
        assert result.exit_code != 0
        assert said in result.output

    def test_an_esm_class_that_is_none(self):
        result = run(TEXT, "--esm-class", "300")
        assert result.exit_code == 1
        assert "esm_class: not a number from 0 to 255" in result.stderr


class TestTable:
    def test_it_shows_every_field_the_verdict_and_the_match(self):
        result = run(
            TEXT, "--tlv", "0x001E=38601fa", "--tlv", "0x0427=2", "--tlv", "0x1454=0001", "--resp-id", "38601fa"
        )
        assert result.exit_code == 0
        shown = [" ".join(line.split()) for line in result.stdout.splitlines()]
        for row in (
            "esm_class 0x04: delivery receipt",
            "TLV 0x0427 message_state = 2 (DELIVRD)",
            "TLV 0x1454 vendor = 0001",
            "submit date: 1002101730",
            "verdict a receipt: its esm_class says so",
            "id 38601fa (TLV 0x001E)",
            "state DELIVRD (final)",
            "error 000",
            "looked up as 38601fa, 59113978",
            "response id matches: they are the same",
        ):
            assert row in shown

    def test_it_says_why_there_is_no_receipt(self):
        assert "receipt_text = true takes it for a receipt" in " ".join(run(TEXT, "--esm-class", "0").stdout.split())
        assert "no receipt: enquire_link carries none" in run(pdu.pack(c.ENQUIRE_LINK, 0, 1).hex()).stdout

    def test_control_characters_and_markup_are_shown_and_not_obeyed(self):
        result = run("id:1 stat:DELIVRD err:0 text:\x1b[2J[bold]x")
        assert "\x1b" not in result.stdout
        assert "\\x1b[2J[bold]x" in result.stdout

    def test_a_problem_is_a_row(self):
        frame = pdu.pack(c.DELIVER_SM, 0, 9, pdu.Message(esm_class=4, short_message=TEXT.encode()).encode())
        cut = frame[:3] + bytes((len(frame) - 4,)) + frame[4:-4]
        assert "sm_length" in run(cut.hex()).stdout


class TestLines:
    def test_one_object_a_line_in_order_and_blank_lines_are_passed_over(self):
        found = run_json(
            stdin=lines({"text": "id:1 stat:DELIVRD"}, {"text": "hi"}) + "\n\n" + lines({"text": TEXT}) + "\n"
        )
        assert [line["id"] for line in found] == ["1", None, "0059113978"]

    @pytest.mark.parametrize("bad", ["{", "[1]", '"id:1"', "nul", "\\xff", "[" * 100_000])
    def test_a_bad_line_is_named_and_the_others_are_explained(self, bad):
        good = lines({"text": "id:1 stat:DELIVRD"})
        result = run("--json", stdin=f"{good}\n{bad}\n{good}")
        first, problem, last = map(json.loads, result.stdout.splitlines())
        assert result.exit_code == 1
        assert first["id"] == last["id"] == "1"
        assert problem["problem"].startswith("line 2: not")

    def test_bytes_that_are_no_utf8_are_a_bad_line(self):
        result = run("--json", stdin=b'{"text": "\xff"}\n')
        assert result.exit_code == 1
        assert "line 1: not JSON" in json.loads(result.stdout)["problem"]

    @pytest.mark.parametrize(
        "line",
        [
            {"text": 5},
            {"text": "x", "esm_class": "four"},
            {"text": "x", "esm_class": 256},
            {"text": "x", "esm_class": 1.5},
            {"text": "x", "data_coding": -1},
            {"text": "x", "tlv": [1]},
            {"text": "x", "tlv": {"id": "1"}},
            {"text": "x", "tlv": {"0x1001E": "1"}},
            {"text": "x", "tlv": {"0x001E": None}},
            {"text": "x", "tlv": {"0x001E": -1}},
            {"text": "x", "tlv": {"0x0424": "x" * 70_000}},
            {"pdu": "xyz"},
            {"text": "x" * 70_000},
        ],
    )
    def test_values_that_cannot_be_used_are_named(self, line):
        result = run("--json", stdin=json.dumps(line))
        assert result.exit_code == 1
        assert list(json.loads(result.stdout)) == ["problem"]

    def test_without_json_lines_become_tables_and_problems_go_to_stderr(self):
        result = run(stdin=lines({"text": "id:1 stat:DELIVRD"}) + "\n{")
        assert result.exit_code == 1
        assert "verdict" in result.stdout
        assert "explain: line 2: not JSON" in result.stderr

    def test_a_pdu_in_hex(self):
        frame = pdu.pack(c.DATA_SM, 0, 9, pdu.Message(esm_class=4, tlvs=((0x1E, b"12\0"),)).encode_data_sm())
        assert one(pdu=frame.hex())["id"] == "12"


class TestWhatALineMeans:
    @pytest.mark.parametrize(
        "line",
        [
            {"text": "stat:DELIVRD"},
            {"text": "id:1 stat:DELIVRD"},
            {"text": "  Id:1 err:000"},
            {"text": "sub:001 dlvrd:001 submit date:1 done date:2"},
            {"text": "submit date:110206193041"},
            {"text": "id:0123456789"},
            {"text": "message text:abc sub:001 dlvrd:0 stat:ACCEPTD err:000"},
            {"text": "", "tlv": {"0x001E": "1"}},
            {"text": "", "tlv": {"0x0427": 2}},
            {"tlv": {"0x0427": "2"}},
        ],
    )
    def test_without_esm_class_what_looks_like_a_receipt_is_one(self, line):
        assert one(**line)["is_receipt"] is True

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "  \t\n ",
            "Hi fikry",
            "Your identity has been verified.",
            "id:12345 is your code",
            "My stat: fine",
            "text:hi",
        ],
    )
    def test_without_esm_class_anything_else_is_an_mo(self, text):
        assert one(text=text)["is_receipt"] is False

    def test_esm_class_decides_where_it_is_given(self):
        assert one(text="hello", esm_class=4)["is_receipt"] is True
        assert one(text=TEXT, esm_class=0)["is_receipt"] is False
        assert one(text=TEXT, esm_class="0x20")["intermediate"] is True

    def test_ucs2(self):
        assert one(text=TEXT, data_coding=8)["id"] == "0059113978"
        assert one(text="id:7 stat:DELIVRD text:Привет")["id"] == "7"
        assert one(text="id:7 stat:DELIVRD text:\ud83d")["id"] == "7"

    def test_a_receipt_in_ascii_that_somebody_decoded_as_ucs2(self):
        mangled = TEXT.ljust(len(TEXT) + len(TEXT) % 2).encode().decode("utf-16-be")
        assert one(text=mangled, data_coding=8)["id"] == "0059113978"

    def test_a_text_too_long_for_short_message_goes_into_message_payload(self):
        assert one(text=TEXT + "." * 300)["id"] == "0059113978"

    def test_message_payload_may_be_given_as_a_tlv(self):
        assert one(text="", tlv={"0x0424": TEXT}, esm_class=4)["id"] == "0059113978"
        assert one(text=TEXT, tlv={"0x0424": TEXT}, esm_class=4)["id"] == "0059113978"

    def test_tlv_values_are_text_numbers_or_hex_as_the_tag_wants(self):
        frame = frame_of_line({"tlv": {"0x001E": "12", "0x0427": 8, "0x0423": "030015", "0x1454": "xyz", "0x20c": 258}})
        assert pdu.parse(frame).tlvs == (
            (0x1E, b"12"),
            (0x427, b"\x08"),
            (0x423, b"\x03\x00\x15"),
            (0x1454, b"xyz"),
            (0x20C, b"\x01\x02"),
        )

    def test_resp_id_is_judged_only_where_it_is_given(self):
        assert one(text=TEXT, resp_id="38601fa")["matches_resp_id"] is True
        assert one(text=TEXT, resp_id=59113978)["matches_resp_id"] is True
        assert one(text=TEXT, resp_id="38601fb")["matches_resp_id"] is False
        assert one(text="stat:DELIVRD", resp_id="1")["matches_resp_id"] is False
        assert "matches_resp_id" not in one(text=TEXT, resp_id=None)

    def test_it_says_why_ids_do_not_match(self):
        assert "only the same id would match" in one(text="id:HW-001 stat:DELIVRD", resp_id="hw-001")["match_why"]
        assert "different numbers" in one(text=TEXT, resp_id="1")["match_why"]


SCALARS = st.sampled_from(
    [None, True, 0, 4, -1, 256, 70_000, 1.5, "", "0x04", "id:1 stat:KO", "zz", "0x001E", "Привет"]
)
TLVS = st.dictionaries(st.sampled_from(["0x001E", "0x0424", "1063", "", "-1", "id"]), SCALARS, max_size=3)
FIELDS = st.sampled_from(["text", "esm_class", "data_coding", "tlv", "pdu", "other"])


@given(st.dictionaries(FIELDS, SCALARS | TLVS | st.lists(SCALARS, max_size=2)))
def test_any_object_is_explained_or_unusable(line):
    try:
        frame = frame_of_line(line)
    except UnusableInputError:
        return
    assert json.dumps(explain_frame(frame, resp_id=b"1").as_json())


@given(st.binary(max_size=120))
def test_any_pdu_is_explained(data):
    assert json.dumps(explain_frame(frame_of_hex(data.hex())).as_json())
