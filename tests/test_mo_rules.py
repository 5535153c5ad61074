import pytest

from dlrproxy.config.tables import MoRule
from dlrproxy.mo.rules import Choice, MoRules, keyword_of


def rules(*some, operator="acme"):
    return MoRules([MoRule(**rule) for rule in some], operator)


def test_without_rules_none_applies():
    assert rules().choose(b"7000", "win") == Choice("")


def test_the_first_rule_that_matches_wins():
    table = rules(
        {"destination": "7000", "keyword": "win", "gateway": "gw1"},
        {"destination": "7000", "gateway": "gw2"},
        {"gateway": "gw3"},
    )
    assert table.choose(b"7000", "win").gateway == "gw1"
    assert table.choose(b"7000", "lose").gateway == "gw2"
    assert table.choose(b"7001", "win").gateway == "gw3"


@pytest.mark.parametrize(
    ("destination", "keyword", "operator", "gateway"),
    [
        (b"7000", "win", "acme", "gw1"),
        (b"7001", "win", "acme", ""),
        (b"7000", "lose", "acme", ""),
        (b"7000", "win", "other", ""),
    ],
)
def test_every_key_that_is_given_must_match(destination, keyword, operator, gateway):
    table = rules({"destination": "7000", "keyword": "WIN", "operator": "acme", "gateway": "gw1"}, operator=operator)
    assert table.choose(destination, keyword).gateway == gateway


@pytest.mark.parametrize(
    ("written", "received"), [("447000", b"+447000"), ("+447000", b"447000"), ("Shop", b"SHOP"), ("7000", b"7000")]
)
def test_a_destination_is_the_same_with_a_plus_and_a_name_in_any_case(written, received):
    assert rules({"destination": written, "gateway": "gw1"}).choose(received, "").gateway == "gw1"


@pytest.mark.parametrize(("written", "received"), [("7000", b"70001"), ("7000", b"shop7000"), ("7000", b"")])
def test_another_destination_is_another(written, received):
    assert rules({"destination": written, "gateway": "gw1"}).choose(received, "").gateway == ""


@pytest.mark.parametrize(
    ("text", "keyword"),
    [("WIN a car", "win"), ("  win\n", "win"), ("", ""), (" \r\n", ""), ("ЖИЗНЬ!", "жизнь!"), ("Straße 1", "strasse")],
)
def test_the_keyword_is_the_first_word_in_any_case(text, keyword):
    assert keyword_of(text) == keyword


def test_a_keyword_is_a_whole_word():
    assert rules({"keyword": "win", "gateway": "gw1"}).choose(b"7000", keyword_of("WINNER takes all")).gateway == ""


# Parts other than the first: the keyword is not known


def test_a_rule_without_a_keyword_is_certain_without_the_text():
    table = rules({"destination": "7000", "gateway": "gw1"}, {"keyword": "win", "gateway": "gw2"})
    assert table.choose(b"7000", None) == Choice("gw1", certain=True)


def test_a_rule_by_keyword_that_could_apply_makes_the_choice_uncertain():
    table = rules({"keyword": "win", "gateway": "gw2"}, {"destination": "7000", "gateway": "gw1"})
    assert table.choose(b"7000", None) == Choice("gw1", certain=False)
    assert table.choose(b"7001", None) == Choice("", certain=False)


def test_a_rule_by_keyword_for_another_destination_or_operator_does_not():
    table = rules(
        {"destination": "7001", "keyword": "win", "gateway": "gw2"},
        {"operator": "other", "keyword": "win", "gateway": "gw2"},
    )
    assert table.choose(b"7000", None) == Choice("", certain=True)
    assert table.by_keyword
