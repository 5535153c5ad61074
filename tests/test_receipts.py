"""How receipts are recognised and read: a table of what is seen in the field, and properties over any bytes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocols.smpp import constants as c
from protocols.smpp import pdu
from protocols.smpp.receipt_text import fields_of, looks_like_receipt, values_of
from protocols.smpp.receipts import Sign, read, read_full

TEXT = b"id:0059113978 sub:001 dlvrd:001 submit date:1002101730 done date:1002101731 stat:DELIVRD err:000 text:hello"
TLV_ID = (c.TLV_RECEIPTED_MESSAGE_ID, b"38601fa\0")
TLV_DELIVERED = (c.TLV_MESSAGE_STATE, b"\x02")


def message(text=TEXT, esm_class=c.ESM_RECEIPT, tlvs=(), coding=0):
    return pdu.Message(
        source=b"+491700000001",
        destination=b"INFO7",
        esm_class=esm_class,
        data_coding=coding,
        short_message=text,
        tlvs=tuple(tlvs),
    )


def deliver_sm(text=TEXT, esm_class=c.ESM_RECEIPT, tlvs=(), coding=0):
    return pdu.pack(c.DELIVER_SM, 0, 7, message(text, esm_class, tlvs, coding).encode())


def data_sm(esm_class=c.ESM_RECEIPT, tlvs=(), coding=0):
    return pdu.pack(c.DATA_SM, 0, 7, message(b"", esm_class, tlvs, coding).encode_data_sm())


class TestRecognition:
    @pytest.mark.parametrize("esm_class", [0x04, 0x05, 0x07, 0x44, 0x84, 0xC4, 0x20, 0x24, 0x0C])
    def test_a_receipt_or_intermediate_bit_makes_a_report_whatever_the_other_bits(self, esm_class):
        assert read(deliver_sm(esm_class=esm_class)).text_id == b"0059113978"

    @pytest.mark.parametrize("esm_class", [0x00, 0x03, 0x40, 0x80])
    def test_an_ordinary_message_with_a_receipts_text_is_an_mo(self, esm_class):
        assert read(deliver_sm(esm_class=esm_class)) is None

    def test_an_ordinary_message_with_a_receipts_text_is_a_report_where_the_operator_sends_them_so(self):
        assert read(deliver_sm(esm_class=0), text_receipts=True).message_id == b"0059113978"

    @pytest.mark.parametrize(
        "text",
        [
            b"Hi fikry",
            b"",
            b"Your identity has been verified.",
            b"id:123456 is your code",
            b"my id:5 stat:DELIVRD",
            b"stat:DELIVRD",
            b"id: stat:DELIVRD",
            b"id:5 stat:cool",
            b"id:5 stat:",
        ],
    )
    def test_a_text_without_a_receipts_shape_is_an_mo_even_there(self, text):
        assert read(deliver_sm(text, esm_class=0), text_receipts=True) is None

    def test_an_unknown_state_needs_another_key_to_look_like_a_receipt(self):
        assert looks_like_receipt(b"id:5 stat:BUFFRED err:000")
        assert not looks_like_receipt(b"id:5 stat:BUFFRED")

    def test_an_ordinary_message_with_both_tlvs_is_a_report(self):
        report = read(deliver_sm(b"", 0, [TLV_ID, TLV_DELIVERED]))
        assert (report.message_id, report.state, report.final) == (b"38601fa", "DELIVRD", True)

    def test_receipted_message_id_without_a_state_is_an_mo(self):
        assert read(deliver_sm(b"thanks", 0, [TLV_ID])) is None
        assert read(deliver_sm(b"thanks", 0, [TLV_ID]), text_receipts=True) is None

    @pytest.mark.parametrize("esm_class", [c.ESM_DELIVERY_ACK, c.ESM_MANUAL_ACK, c.ESM_ABORT])
    def test_an_acknowledgement_is_a_report_only_if_it_names_its_message(self, esm_class):
        assert read(deliver_sm(b"I have read it", esm_class)) is None
        assert read(deliver_sm(b"I have read it", esm_class, [TLV_ID])).message_id == b"38601fa"
        assert read(deliver_sm(TEXT, esm_class)).message_id == b"0059113978"

    def test_other_commands_carry_no_report(self):
        body = message().encode()
        for command in (c.SUBMIT_SM, c.DELIVER_SM_RESP, c.ALERT_NOTIFICATION, 0x00010200):
            assert read(pdu.pack(command, 0, 1, body)) is None

    def test_a_data_sm_can_be_a_receipt_without_text(self):
        report = read(data_sm(tlvs=[(c.TLV_RECEIPTED_MESSAGE_ID, b"362d9701\0"), TLV_DELIVERED]))
        assert (report.message_id, report.text_id, report.state) == (b"362d9701", None, "DELIVRD")

    def test_a_data_sm_can_be_an_mo(self):
        assert read(data_sm(esm_class=0, tlvs=[(c.TLV_MESSAGE_PAYLOAD, b"Hi fikry")])) is None

    def test_a_data_sm_can_carry_its_text_in_message_payload(self):
        assert read(data_sm(tlvs=[(c.TLV_MESSAGE_PAYLOAD, TEXT)])).message_id == b"0059113978"


class TestFields:
    def test_a_usual_receipt(self):
        report = read(deliver_sm())
        assert report.message_id == report.text_id == b"0059113978"
        assert (report.state, report.error, report.final, report.intermediate) == ("DELIVRD", "000", True, False)
        assert (report.source, report.destination) == (b"491700000001", b"7")
        assert report.problem is None

    def test_the_tlvs_id_wins_over_the_texts(self):
        report = read(deliver_sm(tlvs=[(0x1454, b"\0\0\0\1"), TLV_ID]))
        assert (report.message_id, report.text_id) == (b"38601fa", b"0059113978")

    @pytest.mark.parametrize("value", [b"38601fa", b"38601fa\0", b" 38601fa \0", b"38601fa\0\0\0", b"38601fa\0junk"])
    def test_the_tlvs_id_with_or_without_nul_and_blanks(self, value):
        assert read(deliver_sm(tlvs=[(c.TLV_RECEIPTED_MESSAGE_ID, value)])).message_id == b"38601fa"

    @pytest.mark.parametrize("value", [b"", b"\0", b"  \0"])
    def test_an_empty_tlv_id_leaves_the_texts(self, value):
        assert read(deliver_sm(tlvs=[(c.TLV_RECEIPTED_MESSAGE_ID, value)])).message_id == b"0059113978"

    def test_the_texts_state_word_wins_and_the_tlv_fills_in(self):
        rejected = (c.TLV_MESSAGE_STATE, b"\x08")
        assert read(deliver_sm(b"id:1 stat:FAILED err:1", tlvs=[rejected])).state == "FAILED"
        assert read(deliver_sm(b"id:1 err:1", tlvs=[rejected])).state == "REJECTD"
        assert read(deliver_sm(b"id:1 stat: err:1", tlvs=[rejected])).state == "REJECTD"
        assert read(deliver_sm(b"id:1 err:1")).state is None

    @pytest.mark.parametrize(
        ("value", "state"),
        [
            (b"\x02", "DELIVRD"),
            (b"\x00", "SCHEDULED"),
            (b"\x09", "SKIPPED"),
            (b"2", "DELIVRD"),
            (b"\0\0\0\5", "UNDELIV"),
        ],
    )
    def test_message_state_in_the_widths_and_digits_that_are_sent(self, value, state):
        assert read(deliver_sm(b"id:1", tlvs=[(c.TLV_MESSAGE_STATE, value)])).state == state

    def test_a_reserved_message_state_is_no_state(self):
        report = read(deliver_sm(b"id:1", tlvs=[(c.TLV_MESSAGE_STATE, b"\x63")]))
        assert (report.state, report.final) == (None, False)

    @pytest.mark.parametrize("word", ["DELIVRD", "EXPIRED", "DELETED", "UNDELIV", "REJECTD", "SKIPPED", "FAILED"])
    def test_final_states(self, word):
        assert read(deliver_sm(b"id:1 stat:%b" % word.encode())).final

    @pytest.mark.parametrize("word", ["SCHEDULED", "ENROUTE", "ACCEPTD", "UNKNOWN", "BUFFRED", ""])
    def test_states_that_are_not_final(self, word):
        assert not read(deliver_sm(b"id:1 stat:%b" % word.encode())).final

    def test_the_tlvs_state_decides_whether_an_unknown_word_is_final(self):
        assert read(deliver_sm(b"id:1 stat:KO", tlvs=[(c.TLV_MESSAGE_STATE, b"\x05")])).final
        usual = TEXT.replace(b"DELIVRD", b"BUFFRED")
        assert read(deliver_sm(usual, tlvs=[(c.TLV_MESSAGE_STATE, b"\x05")])).final

    def test_an_intermediate_notification_is_never_final(self):
        report = read(deliver_sm(esm_class=c.ESM_INTERMEDIATE))
        assert report.intermediate
        assert not report.final

    def test_a_report_without_any_id(self):
        report = read(deliver_sm(b"stat:DELIVRD"))
        assert (report.message_id, report.state) == (None, "DELIVRD")

    def test_of_repeated_tlvs_the_first_with_a_value_counts(self):
        tlvs = [
            (c.TLV_RECEIPTED_MESSAGE_ID, b""),
            (c.TLV_RECEIPTED_MESSAGE_ID, b"a"),
            (c.TLV_RECEIPTED_MESSAGE_ID, b"b"),
        ]
        assert read(deliver_sm(tlvs=tlvs)).message_id == b"a"

    def test_message_payload_is_read_where_short_message_is_empty(self):
        report = read(deliver_sm(b"", tlvs=[(c.TLV_MESSAGE_PAYLOAD, TEXT + b"\0")]))
        assert (report.message_id, report.state) == (b"0059113978", "DELIVRD")

    def test_a_text_whose_length_octet_is_a_letter(self):
        text = TEXT.ljust(ord("q"), b".")
        assert len(text) == 113
        assert read(deliver_sm(text)).message_id == b"0059113978"
        assert read(deliver_sm(b" " + text[1:])).state == "DELIVRD"


class TestText:
    """Id, state and error of texts as they are sent."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (b"ID:123 STAT:DELIVRD ERR:000", (b"123", "DELIVRD", "000")),
            (b"Id: 123 Sub: 001 Stat: DELIVRD Err: 0", (b"123", "DELIVRD", "0")),
            (b"id :123 stat :DELIVRD", (b"123", "DELIVRD", None)),
            (b"id:123\tsub:001\tstat:UNDELIV\terr:27", (b"123", "UNDELIV", "27")),
            (b"id:123\r\nsub:001\r\nstat:DELIVRD\r\nerr:000\r\n", (b"123", "DELIVRD", "000")),
            (b"stat:DELIVRD err:000 id:123", (b"123", "DELIVRD", "000")),
            (b"sub:001 dlvrd:001 id:123 done date:1 stat:DELIVRD", (b"123", "DELIVRD", None)),
            (b"id:1 submitdate:180122230957 donedate:0 stat:REJECTD err:375", (b"1", "REJECTD", "375")),
            (b"id:1 submit_date:1 done_date:1 stat:DELIVRD err:0", (b"1", "DELIVRD", "0")),
            (b"id:1 submit date:1 done\ndate:2 stat:DELIVRD err:0", (b"1", "DELIVRD", "0")),
            (
                b"id:1 submit date:180711070003912+ done date:180711070000012+ stat:UNDELIV err:0",
                (b"1", "UNDELIV", "0"),
            ),
            (b"id:12 done date:1409131010stat:DELIVRD err:000", (b"12", "DELIVRD", "000")),
            (b"id:123,sub:001,dlvrd:001,stat:DELIVRD,err:000", (b"123", "DELIVRD", "000")),
            (b"id:123;stat:DELIVRD;err:000;", (b"123", "DELIVRD", "000")),
            (b'"id:123 stat:DELIVRD err:000"', (b"123", "DELIVRD", "000")),
            (b'id:"123" stat:"DELIVRD"', (b"123", "DELIVRD", None)),
            (b"\0id:1234 sub:001 stat:DELIVRD err:00", (b"1234", "DELIVRD", "00")),
            (b"id:1234\0 stat:DELIVRD\0", (b"1234", "DELIVRD", None)),
            (b"   id:TRIM-001 stat:DELIVRD err:000  ", (b"TRIM-001", "DELIVRD", "000")),
            (b"message_id:77 stat:DELIVRD", (b"77", "DELIVRD", None)),
            (b"msgid:76 id:77 stat:DELIVRD", (b"77", "DELIVRD", None)),
            (b"id:1 stat:DELIVRD err:-1", (b"1", "DELIVRD", "-1")),
            (b"id:1 stat:DELIVRD err:0x0B", (b"1", "DELIVRD", "0x0B")),
            (b"id:1 stat:UNDELIV err:001 IMSI: MSC: ORN:VipNet MCCMNC:", (b"1", "UNDELIV", "001")),
            (b"id:1 stat:UNDELIV err: IMSI: MSC:", (b"1", "UNDELIV", "")),
            (b"id:1 stat:DELIVRD err: text:", (b"1", "DELIVRD", "")),
            (b"id:1 stat:DELIVRD err:text:x", (b"1", "DELIVRD", "")),
            (b"id: sub:001 stat:UNDELIV err:001", (None, "UNDELIV", "001")),
            (b"id:1 stat: err:000", (b"1", "", "000")),
            (b"id:1 stat:2 err:0", (b"1", "DELIVRD", "0")),
            (b"id:1 stat:delivrd", (b"1", "DELIVRD", None)),
            (b"id:1 stat:RT:0148 err:148", (b"1", "RT:0148", "148")),
            (b"id:1 stat:... err:...", (b"1", "...", "...")),
            (b"id:ns:12345 stat:DELIVRD err:21b", (b"ns:12345", "DELIVRD", "21b")),
            (b"id:42\x85stat:DELIVRD\xa0err:000", (b"42", "DELIVRD", "000")),
            (b"id:77 mccmnc:61202 dlvrd:1 vendorRef:xyz stat:DELIVRD err:000 price:0.02", (b"77", "DELIVRD", "000")),
            (b"myid:7 xstat:DELIVRD id:9", (b"9", None, None)),
            (b"sub:001 id:74e0-a err:000 done date:1 submit date:2 text: stat:DELIVRD", (b"74e0-a", "DELIVRD", "000")),
            (b"id:1  sub:001  stat:DELIVRD  err:000  text: apiMsgId:abc err:9", (b"1", "DELIVRD", "000")),
            (b"i:0123456789 sub:002 stat:DELIVRD err:012", (None, "DELIVRD", "012")),
            (b"id:1 stat:FAILED err:002 Text:", (b"1", "FAILED", "002")),
            (b"id:1 sub:ND dlvrd:ND submit date:ND done date:ND stat:DELIVRD err:nul", (b"1", "DELIVRD", "nul")),
            (b"id:1 stat:DELIVRD text:id:9 stat:EXPIRED err:5", (b"1", "DELIVRD", "5")),
            (b"id:1 stat:DELIVRD err:0 text:id:9 stat:EXPIRED err:5", (b"1", "DELIVRD", "0")),
            (b"sub:001 stat:DELIVRD err:0 text:your id:9", (None, "DELIVRD", "0")),
            (b"id:f5c98a text: stat:DELIVRD err:000", (b"f5c98a", "DELIVRD", "000")),
            (b"text:id:8 stat:UNKNOWN id:9 stat:DELIVRD err:000", (b"9", "DELIVRD", "000")),
            (b"message text:abc sub:001 dlvrd:0 stat:ACCEPTD err:000", (None, "ACCEPTD", "000")),
            (b"\xff\x80 nothing \x00 readable", (None, None, None)),
            (b"", (None, None, None)),
        ],
    )
    def test_reads(self, text, expected):
        assert fields_of(text) == expected

    @pytest.mark.parametrize(
        "message_id",
        [
            b"577e505a-dbd7-46ab-a04c-5a927ffb85b1",
            b"04062581461644996000141",
            b"SAR-2347039245475-1EEDF843-2-1",
            b"1101c1-c9d03d-f000",
            b"2019.07.18/13:41",
            b"user@smsc+1",
            b"a_b.c/d#e",
            b"my-id:5",
            b"0x38601FA",
            b"{38601FA}",
            b"5342bce5cd49a0e96e149217386900d98646",
        ],
    )
    @pytest.mark.parametrize(
        "behind", [b" sub:001 dlvrd:001 stat:DELIVRD err:000", b" stat:DELIVRD", b"\tstat:DELIVRD", b""]
    )
    def test_an_id_of_any_shape_is_taken_whole(self, message_id, behind):
        assert read(deliver_sm(b"id:" + message_id + behind)).message_id == message_id

    def test_values_are_given_by_name_and_text_is_all_that_follows(self):
        assert values_of(b"id:1 Submitdate:2 Stat:DELIVRD Text: a id:2 b ") == {
            "id": b"1",
            "submit date": b"2",
            "stat": b"DELIVRD",
            "text": b" a id:2 b ",
        }


class TestEncodings:
    @pytest.mark.parametrize("text", [TEXT, TEXT.replace(b"sub:001 ", b"")])
    @pytest.mark.parametrize("coding", [0, 3, 8])
    @pytest.mark.parametrize("codec", ["utf-16-be", "utf-16-le", "utf-16"])
    def test_ucs2_whatever_data_coding_says(self, text, coding, codec):
        payload = text.decode().encode(codec)
        report = read(deliver_sm(b"", tlvs=[(c.TLV_MESSAGE_PAYLOAD, payload)], coding=coding))
        assert (report.message_id, report.state, report.error) == (b"0059113978", "DELIVRD", "000")

    def test_ascii_where_data_coding_says_ucs2(self):
        assert read(deliver_sm(coding=8)).message_id == b"0059113978"
        assert read(deliver_sm(TEXT + b"\0", coding=8)).message_id == b"0059113978"

    def test_wide_blanks_in_ucs2_end_a_value(self):
        text = "\u2028id:42\u2028stat:DELIVRD\u00a0err:000".encode("utf-16-be")
        report = read(deliver_sm(text, coding=8))
        assert (report.message_id, report.state, report.error) == (b"42", "DELIVRD", "000")

    def test_ucs2_behind_a_user_data_header(self):
        text = b"\x05\x00\x03\x84\x01\x01" + "id:77 stat:DELIVRD text:Привет".encode("utf-16-be")
        report = read(deliver_sm(text, c.ESM_RECEIPT | c.ESM_UDHI, coding=8))
        assert (report.message_id, report.state) == (b"77", "DELIVRD")

    def test_a_user_data_header_is_skipped(self):
        report = read(deliver_sm(b"\x05\x00\x03\x84\x01\x01" + TEXT, c.ESM_RECEIPT | c.ESM_UDHI))
        assert report.message_id == b"0059113978"

    def test_a_header_announced_and_not_there_does_not_eat_the_id(self):
        text = TEXT.ljust(200, b".")  # longer than "i", read as a header's length
        assert read(deliver_sm(text, c.ESM_RECEIPT | c.ESM_UDHI)).message_id == b"0059113978"
        ucs2 = b"id:77 stat:DELIVRD".decode().encode("utf-16-be")
        assert read(deliver_sm(ucs2, c.ESM_RECEIPT | c.ESM_UDHI, coding=8)).message_id == b"77"

    def test_bytes_that_no_charset_decodes_are_carried(self):
        report = read(deliver_sm(TEXT + b"\xff\xfe\x00\x1a\x80", coding=8))
        assert (report.message_id, report.state) == (b"0059113978", "DELIVRD")


class TestTlvsBesides:
    """TLVs that have cost other software the whole PDU, the session or the receipt."""

    @pytest.mark.parametrize(
        "tlvs",
        [
            pytest.param([(c.TLV_NETWORK_ERROR_CODE, b"000")], id="network_error_code in ASCII"),
            pytest.param([(c.TLV_NETWORK_ERROR_CODE, b"\x03\x00\x00")], id="network_error_code"),
            pytest.param([(c.TLV_NETWORK_ERROR_CODE, b"")], id="network_error_code without value"),
            pytest.param([(0x1454, b"\0\0\0\1"), (0x1418, b"\0\0\0\x30")], id="vendor"),
            pytest.param([(0x000E, b"\1"), (0x060D, b"27201\0\0"), (0x060F, b"27201")], id="reserved tags"),
            pytest.param([(c.TLV_MORE_MESSAGES_TO_SEND, b"\1")], id="more_messages_to_send"),
            pytest.param([(c.TLV_USER_MESSAGE_REFERENCE, b"0000029095\0")], id="user_message_reference as text"),
            pytest.param([(0xFFFF, b"\xff" * 300)], id="long"),
        ],
    )
    def test_the_id_behind_them_is_found(self, tlvs):
        report = read(deliver_sm(tlvs=[*tlvs, TLV_ID, TLV_DELIVERED]))
        assert (report.message_id, report.state, report.error) == (b"38601fa", "DELIVRD", "000")

    def test_ucs2_behind_text_in_a_text_of_ascii(self):
        text = TEXT.replace(b"hello", "Привет".encode("utf-16-be"))
        report = read(deliver_sm(b"", tlvs=[TLV_ID, (c.TLV_MESSAGE_PAYLOAD, text)]))
        assert (report.message_id, report.text_id, report.state) == (b"38601fa", b"0059113978", "DELIVRD")

    def test_a_text_of_its_own_beside_the_tlvs(self):
        report = read(deliver_sm(b"362d9701 2", tlvs=[(c.TLV_RECEIPTED_MESSAGE_ID, b"362d9701"), TLV_DELIVERED]))
        assert (report.message_id, report.text_id, report.state, report.error) == (b"362d9701", None, "DELIVRD", None)


class TestBrokenBodies:
    def test_an_sm_length_beyond_the_body_is_named_and_the_text_still_read(self):
        frame = bytearray(deliver_sm())
        frame[-len(TEXT) - 1] = 250
        report = read(bytes(frame))
        assert report.message_id == b"0059113978"
        assert report.problem == f"sm_length 250, {len(TEXT)} octets left"

    def test_a_body_cut_behind_esm_class_is_a_report_without_id(self):
        whole = deliver_sm()
        report = read(whole[: whole.index(b"INFO7") + 7])
        assert report.message_id is None
        assert report.problem == "the body ends before its text"

    def test_a_body_cut_before_esm_class_is_no_report(self):
        assert read(deliver_sm()[:20]) is None
        assert read(deliver_sm()[:16]) is None

    def test_bytes_behind_the_last_whole_tlv_are_no_matter(self):
        assert read(deliver_sm(tlvs=[TLV_ID]) + b"\x00\x1e\x00\x08abc").message_id == b"38601fa"

    def test_a_payload_cut_by_its_length_is_not_read(self):
        frame = deliver_sm(b"", tlvs=[(c.TLV_MESSAGE_PAYLOAD, TEXT)])[:-5]
        assert read(frame).message_id is None

    @given(st.binary(max_size=400), st.booleans())
    @example(b"\0" * 16, True)
    def test_any_bytes_give_a_value(self, data, text_receipts):
        for command in (c.DELIVER_SM, c.DATA_SM):
            frame = pdu.pack(command, 0, 1, data)
            report = read(frame, text_receipts=text_receipts)
            assert read_full(frame, text_receipts=text_receipts).report == report
        assert read(data) is None or data[4:8] in (b"\0\0\0\5", b"\0\0\1\3")

    @given(st.integers(0, 255), st.binary(max_size=200), st.binary(max_size=60), st.integers(0, 255), st.booleans())
    def test_any_text_and_tlvs_give_a_value(self, esm_class, text, tlvs, coding, text_receipts):
        frame = deliver_sm(text, esm_class, coding=coding) + tlvs
        reading = read_full(frame, text_receipts=text_receipts)
        assert (reading.report is None) == (reading.sign is None)
        assert esm_class & 0x24 == 0 or reading.sign is Sign.TYPE

    @given(st.integers(0, 200), st.integers(0, 255))
    def test_any_octet_changed_gives_a_value(self, at, octet):
        frame = bytearray(deliver_sm(tlvs=[TLV_ID, TLV_DELIVERED]))
        frame[16 + at % (len(frame) - 16)] = octet
        read(bytes(frame))


WORDS = st.text("abcxyzABCXYZ0123456789-_.", min_size=1, max_size=20).map(str.encode)
TOKENS = st.text("abc0123456789.+", max_size=12).map(str.encode)


@given(
    WORDS, TOKENS, TOKENS, st.sampled_from([b"DELIVRD", b"UNDELIV", b"KO", b"enroute"]), WORDS, st.binary(max_size=60)
)
def test_the_usual_layout_reads_like_any_other(message_id, sub, date, state, error, rest):
    """The one-match reader and the reader that looks for keys agree; a changed data_coding cannot matter to ASCII."""
    error = error.replace(b"-", b"").replace(b".", b"")
    text = b"id:%b sub:%b dlvrd:1 submit date:%b done date:1 stat:%b err:%b text:%b" % (
        message_id, sub, date, state, error, rest,
    )  # fmt: skip
    report = read(deliver_sm(text))
    assert (report.text_id, report.state, report.error) == (message_id, state.decode().upper(), error.decode())
    assert report.text_id == read(deliver_sm(b" " + text)).text_id
