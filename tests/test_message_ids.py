import uuid
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp.message_ids import (
    ENOUGH_EVIDENCE,
    GIVE_UP_AFTER,
    Ambiguous,
    Change,
    Inexact,
    Learner,
    Match,
    NoMatch,
    Rule,
    candidates,
    digits,
    holds,
    judge,
    normal,
    relation,
    same_subscriber,
)

HANDSET = b"491700000001"


class Sent(NamedTuple):
    message_id: bytes
    destination: bytes = HANDSET


NUMBERS = st.integers(min_value=0, max_value=2**200)
STRINGS = st.one_of(
    st.binary(max_size=70),
    st.text("0123456789", max_size=70).map(str.encode),
    st.text("0123456789abcdefABCDEF", max_size=70).map(str.encode),
    st.text("0123456789abcdefgxyz-_.", max_size=40).map(str.encode),
)


@st.composite
def written(draw):
    """A number as an operator may write it."""
    number = draw(st.one_of(NUMBERS, st.integers(0, 300)))
    text = draw(st.sampled_from(["%d", "%x", "%X"])) % number
    return text.rjust(draw(st.integers(0, 64)), "0").encode()


IDS = st.one_of(STRINGS, written())


@pytest.mark.parametrize(
    ("response", "reported", "rule"),
    [
        (b"4", b"4", Rule.EXACT),
        (b"577e505a-dbd7-46ab-a04c-5a927ffb85b1", b"577e505a-dbd7-46ab-a04c-5a927ffb85b1", Rule.EXACT),
        (b"1d6a811", b"1D6A811", Rule.CASE),
        (b"000024", b"24", Rule.ZEROS),
        (b"24", b"0000000024", Rule.ZEROS),
        (b"B8BE19", b"00b8be19", Rule.ZEROS),
        (b"000", b"0", Rule.ZEROS),
        (b"38601fa", b"0059113978", Rule.HEX_DECIMAL),
        (b"33E95179", b"870928761", Rule.HEX_DECIMAL),
        (b"04000000086ECD50", b"288230376293190992", Rule.HEX_DECIMAL),
        (b"812FC7470000001B", b"9308878062554710043", Rule.HEX_DECIMAL),  # above 2**63
        (b"1" + b"0" * 20, b"%d" % 16**20, Rule.HEX_DECIMAL),  # above 64 bits
        (b"870928761", b"33E95179", Rule.DECIMAL_HEX),
        (b"0870928761", b"0033e95179", Rule.DECIMAL_HEX),
        (b"10", b"16", Rule.HEX_DECIMAL),
        (b"16", b"10", Rule.DECIMAL_HEX),
    ],
)
def test_ids_that_are_one(response, reported, rule):
    assert relation(response, reported) is rule
    assert normal(response) in candidates(reported)


@pytest.mark.parametrize(
    ("response", "reported"),
    [
        (b"4062581461565934000241", b"40625814615659340002410"),  # a digit more
        (b"04062581461644996000241", b"04062581461644996000141"),  # parts of one message
        (b"12", b"13"),
        (b"577e505a-dbd7-46ab-a04c-5a927ffb85b1", b"577E505A-DBD7-46AB-A04C-5A927FFB85B1"),  # case of a UUID
        (b"0e999f21-81ef-4974-a414-3de98174e3c7", b"e999f21-81ef-4974-a414-3de98174e3c7"),  # zeros of a UUID
        (b"HW-001", b"hw-001"),
        (b"00xyz", b"xyz"),
        (b"0x1a", b"26"),
        (b"1a ", b"1A"),
        (b"1a", b"-26"),
        (b"", b""),
        (b"", b"0"),
        (b"0", b""),
    ],
)
def test_near_misses_are_not_one(response, reported):
    assert relation(response, reported) is None


def test_a_number_too_long_to_be_one_is_compared_as_digits_only():
    long = b"f" * 66
    assert relation(long, b"%d" % int(long, 16)) is None
    assert relation(b"0" + long, long.upper()) is Rule.ZEROS
    assert candidates(long) == (long,)


@given(IDS, IDS)
def test_whatever_is_one_is_found_by_its_normal_form(response, reported):
    if relation(response, reported) is not None:
        assert normal(response) in candidates(reported)


@given(NUMBERS, st.integers(0, 60), st.booleans())
def test_a_number_is_found_in_both_directions(number, width, upper):
    as_hex, as_decimal = b"%x" % number, b"%d" % number
    padded = (as_hex.upper() if upper else as_hex).rjust(width, b"0")
    assert holds(Rule.HEX_DECIMAL, padded, as_decimal)
    assert holds(Rule.DECIMAL_HEX, as_decimal, padded)
    assert normal(padded) in candidates(as_decimal)
    assert normal(as_decimal) in candidates(padded)


MIRRORED = {
    Rule.EXACT: Rule.EXACT,
    Rule.CASE: Rule.CASE,
    Rule.ZEROS: Rule.ZEROS,
    Rule.HEX_DECIMAL: Rule.DECIMAL_HEX,
    Rule.DECIMAL_HEX: Rule.HEX_DECIMAL,
}


@given(IDS, IDS, st.sampled_from(Rule))
def test_a_rule_read_backwards_is_its_mirror(one, other, rule):
    assert holds(rule, one, other) == holds(MIRRORED[rule], other, one)


@given(IDS)
def test_an_id_is_itself(message_id):
    assert relation(message_id, message_id) is (Rule.EXACT if message_id else None)


@given(st.uuids(), st.uuids())
def test_uuids_are_one_only_if_they_are_equal(one, other):
    assert (relation(str(one).encode(), str(other).encode()) is not None) == (one == other)
    assert relation(str(one).encode(), str(one).upper().encode()) is None or str(one) == str(one).upper()


@given(IDS)
def test_a_normal_form_is_stable(message_id):
    assert normal(normal(message_id)) == normal(message_id)


def test_normal_forms():
    assert normal(b"0059113978") == b"59113978"
    assert normal(b"00B8BE19") == b"b8be19"
    assert normal(b"0000") == b"0"
    assert normal(b"007-AB") == b"007-AB"
    assert normal(b"") == b""


def test_candidates_are_few_and_the_reported_form_comes_first():
    assert candidates(b"0059113978") == (b"59113978", b"38601fa", b"1494301048")
    assert candidates(b"38601FA") == (b"38601fa", b"59113978")
    assert candidates(b"HW-001") == (b"HW-001",)
    assert candidates(b"007") == (b"7",)
    assert candidates(b"") == ()


def test_subscribers_are_compared_by_digits_and_a_national_number_ends_an_international_one():
    assert digits(b"+49 170-1") == b"491701"
    assert digits(b"INFO") == b""
    assert same_subscriber(b"+491700000001", b"491700000001")
    assert same_subscriber(b"01700000001", b"491700000001")
    assert not same_subscriber(b"7000", b"49177000")
    assert not same_subscriber(b"INFO", b"INFO")


class TestJudge:
    def test_the_exact_id_wins_against_the_rule_in_force(self):
        exact, related = Sent(b"1000"), Sent(b"3e8")
        assert judge(b"1000", HANDSET, [related, exact], Rule.HEX_DECIMAL) == Match(exact, Rule.EXACT)

    def test_the_newest_of_two_with_the_exact_id_wins(self):
        newest, oldest = Sent(b"7", b"1"), Sent(b"7", b"2")
        assert judge(b"7", b"2", [newest, oldest], None) == Match(newest, Rule.EXACT)

    def test_only_the_rule_in_force_counts(self):
        padded, hexadecimal = Sent(b"0000001000"), Sent(b"3e8")
        assert judge(b"1000", HANDSET, [padded, hexadecimal], Rule.HEX_DECIMAL) == Match(hexadecimal, Rule.HEX_DECIMAL)
        assert judge(b"1000", HANDSET, [padded, hexadecimal], Rule.ZEROS) == Match(padded, Rule.ZEROS)
        assert judge(b"1000", b"1", [padded, hexadecimal], Rule.EXACT) == NoMatch()

    def test_without_a_rule_a_hit_is_inexact(self):
        sent = Sent(b"3e8")
        assert judge(b"1000", HANDSET, [sent], None) == Inexact(sent, Rule.HEX_DECIMAL, agrees=True)
        assert judge(b"1000", b"1", [sent], None) == Inexact(sent, Rule.HEX_DECIMAL, agrees=False)

    def test_the_destination_decides_between_several(self):
        here, there = Sent(b"03e8", HANDSET), Sent(b"3E8", b"491700000002")
        assert judge(b"1000", b"01700000001", [there, here], Rule.HEX_DECIMAL) == Match(here, Rule.HEX_DECIMAL)
        assert judge(b"1000", HANDSET, [there, here], None) == Inexact(here, Rule.HEX_DECIMAL, agrees=True)

    def test_what_the_destination_does_not_decide_is_ambiguous(self):
        twice = [Sent(b"03e8"), Sent(b"3E8")]
        assert judge(b"1000", HANDSET, twice, Rule.HEX_DECIMAL) == Ambiguous(2)
        assert judge(b"1000", b"1", twice, None) == Ambiguous(2)

    def test_a_hit_by_another_rule_is_dismissed_and_said_to_be_if_the_subscriber_agrees(self):
        assert judge(b"1000", HANDSET, [Sent(b"3e8")], Rule.ZEROS) == NoMatch(dismissed=Rule.HEX_DECIMAL)
        assert judge(b"1000", b"1", [Sent(b"3e8")], Rule.ZEROS) == NoMatch()

    def test_under_hex_decimal_a_digit_that_reads_the_same_in_both_matches(self):
        sent = Sent(b"5")
        assert judge(b"0000000005", HANDSET, [sent], Rule.HEX_DECIMAL) == Match(sent, Rule.HEX_DECIMAL)

    def test_an_empty_id_means_no_message(self):
        assert judge(b"", HANDSET, [Sent(b"")], None) == NoMatch()

    @given(
        IDS,
        st.lists(st.builds(Sent, IDS, st.sampled_from([HANDSET, b"", b"1"])), max_size=6),
        st.sampled_from([None, *Rule]),
    )
    def test_no_record_is_chosen_that_is_not_related(self, reported, records, rule):
        verdict = judge(reported, HANDSET, records, rule)
        if isinstance(verdict, Match):
            assert verdict.rule is Rule.EXACT or verdict.rule is rule
        if isinstance(verdict, Match | Inexact):
            assert verdict.record in records
            assert relation(verdict.record.message_id, reported) is not None
            assert holds(verdict.rule, verdict.record.message_id, reported)

    @given(IDS, st.lists(st.builds(Sent, IDS), max_size=4), st.sampled_from([None, *Rule]))
    def test_an_exact_owner_is_never_passed_over(self, reported, records, rule):
        verdict = judge(reported, HANDSET, [*records, Sent(reported)], rule)
        assert isinstance(verdict, Match) == bool(reported)


class TestLearner:
    def test_a_rule_is_learned_after_enough_evidence(self):
        learner = Learner()
        for _ in range(ENOUGH_EVIDENCE - 1):
            assert learner.note(Rule.HEX_DECIMAL) is None
            assert learner.rule is None
        assert learner.note(Rule.HEX_DECIMAL) == Change(None, Rule.HEX_DECIMAL)
        assert learner.rule is Rule.HEX_DECIMAL
        assert learner.note(Rule.HEX_DECIMAL) is None

    def test_a_pinned_rule_is_in_force_at_once_and_stays(self):
        learner = Learner(Rule.ZEROS)
        assert learner.rule is Rule.ZEROS
        assert learner.pinned
        assert learner.note(Rule.HEX_DECIMAL, 1000) is None
        assert learner.adopt(Rule.HEX_DECIMAL, 1000) is None
        assert learner.rule is Rule.ZEROS
        assert learner.export() is None

    def test_no_rule_is_learned_from_a_mixture(self):
        learner = Learner()
        for _ in range(10):
            assert learner.note(Rule.HEX_DECIMAL, ENOUGH_EVIDENCE - 1) is None
            assert learner.note(Rule.DECIMAL_HEX, ENOUGH_EVIDENCE - 1) is None
        assert learner.rule is None

    def test_case_is_evidence_for_zeros_and_gives_way_to_it(self):
        learner = Learner()
        assert learner.note(Rule.CASE, ENOUGH_EVIDENCE) == Change(None, Rule.CASE)
        assert learner.note(Rule.ZEROS) == Change(Rule.CASE, Rule.ZEROS)
        assert learner.note(Rule.CASE, GIVE_UP_AFTER) is None
        assert learner.rule is Rule.ZEROS

    def test_exact_is_learned_too_and_gives_way_to_any_other(self):
        learner = Learner()
        assert learner.note(Rule.EXACT, 1000) == Change(None, Rule.EXACT)
        assert learner.note(Rule.HEX_DECIMAL, ENOUGH_EVIDENCE - 1) is None
        assert learner.note(Rule.HEX_DECIMAL) == Change(Rule.EXACT, Rule.HEX_DECIMAL)

    def test_exact_matches_neither_confirm_nor_contradict_a_learned_rule(self):
        learner = Learner()
        learner.note(Rule.HEX_DECIMAL, ENOUGH_EVIDENCE)
        learner.note(Rule.ZEROS, 5)
        assert learner.note(Rule.EXACT, 1000) is None
        assert learner.rule is Rule.HEX_DECIMAL
        assert learner.contradictions == 5

    def test_a_learned_rule_survives_contradictions_with_a_confirmation_between_them(self):
        learner = Learner()
        learner.note(Rule.HEX_DECIMAL, ENOUGH_EVIDENCE)
        for _ in range(5):
            assert learner.note(Rule.ZEROS, GIVE_UP_AFTER - 1) is None
            assert learner.note(Rule.HEX_DECIMAL) is None
        assert learner.rule is Rule.HEX_DECIMAL

    def test_a_learned_rule_is_given_up_aloud_and_another_can_be_learned(self):
        learner = Learner()
        learner.note(Rule.HEX_DECIMAL, ENOUGH_EVIDENCE)
        learner.note(Rule.ZEROS, GIVE_UP_AFTER - 1)
        assert learner.note(Rule.ZEROS) == Change(Rule.HEX_DECIMAL, None)
        assert learner.rule is None
        assert learner.note(Rule.ZEROS, ENOUGH_EVIDENCE) == Change(None, Rule.ZEROS)

    def test_what_one_node_learned_another_adopts(self):
        one, other = Learner(), Learner()
        one.note(Rule.DECIMAL_HEX, 7)
        assert one.export() == (Rule.DECIMAL_HEX, 7)
        assert other.adopt(*one.export()) == Change(None, Rule.DECIMAL_HEX)
        assert other.export() == one.export()

    def test_what_was_learned_here_is_kept_against_another_node(self):
        learner = Learner()
        learner.note(Rule.DECIMAL_HEX, ENOUGH_EVIDENCE)
        assert learner.adopt(Rule.ZEROS, 1000) is None
        assert learner.rule is Rule.DECIMAL_HEX

    def test_nothing_learned_exports_nothing(self):
        learner = Learner()
        learner.note(Rule.ZEROS, ENOUGH_EVIDENCE - 1)
        assert learner.export() is None
        assert dict(learner.evidence) == {Rule.ZEROS: ENOUGH_EVIDENCE - 1}

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(Rule), st.integers(1, 25)), max_size=60))
    def test_the_rule_in_force_changes_only_aloud(self, evidence):
        learner = Learner()
        for own, rule, count in evidence:
            before = learner.rule
            change = learner.note(rule, count) if own else learner.adopt(rule, count)
            assert learner.rule is (before if change is None else change.after)
            assert change is None or (change.before is before and change.after is not before)


def test_a_uuid_without_dashes_is_hex_and_may_change_case():
    message_id = uuid.uuid5(uuid.NAMESPACE_DNS, "smsc.example").hex.encode()
    assert relation(message_id, message_id.upper()) is Rule.CASE
