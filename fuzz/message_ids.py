"""Which message a reported id means: `protocols.smpp.message_ids`."""

from collections.abc import Iterator

from attrs import frozen

from fuzz import pdus
from protocols.smpp.message_ids import (
    Ambiguous,
    Inexact,
    Learner,
    Match,
    Rule,
    candidates,
    holds,
    judge,
    normal,
    relation,
    same_subscriber,
)
from protocols.smpp.receipts import read

_RULES = (None, *Rule)


@frozen
class _Submitted:
    message_id: bytes
    destination: bytes


def check(data: bytes) -> None:
    """An id is only ever taken for one that a rule in force makes equal, and what could be meant is always looked up.

    The first byte chooses the rule in force; newlines part the reported id, the destination, and the records' ids.
    """
    if not data:
        return
    rule = _RULES[data[0] % len(_RULES)]
    reported, *others = data[1:].split(b"\n", 9)
    destination, ids = (others[0], others[1:]) if others else (b"", [])
    for message_id in (reported, *ids):
        _check_forms(message_id)
    for message_id in ids:
        _check_pair(message_id, reported)
    records = [_Submitted(message_id, destination[at:]) for at, message_id in enumerate(ids) if message_id]
    _check_verdict(reported, destination, records, rule)
    _check_learner(data)


def _check_forms(message_id: bytes) -> None:
    assert normal(normal(message_id)) == normal(message_id)
    forms = candidates(message_id)
    assert len(set(forms)) == len(forms)
    assert (normal(message_id) in forms) is bool(message_id)
    if message_id:
        assert relation(message_id, message_id) is Rule.EXACT


def _check_pair(response: bytes, reported: bytes) -> None:
    related = relation(response, reported)
    if related is None:
        assert not any(holds(rule, response, reported) for rule in Rule)
        return
    assert normal(response) in candidates(reported)
    if related in (Rule.CASE, Rule.ZEROS):
        assert relation(reported, response) is related


def _check_verdict(reported: bytes, destination: bytes, records: list[_Submitted], rule: Rule | None) -> None:
    verdict = judge(reported, destination, records, rule)
    exact = [record for record in records if record.message_id == reported and reported]
    if isinstance(verdict, Match):
        assert verdict.rule is Rule.EXACT or (verdict.rule is rule and not exact)
        assert holds(verdict.rule, verdict.record.message_id, reported)
        assert verdict.record is exact[0] if exact else verdict.record in records
    else:
        assert not exact
    if isinstance(verdict, Inexact):
        assert rule is None
        assert verdict.rule is relation(verdict.record.message_id, reported)
        assert verdict.agrees == same_subscriber(verdict.record.destination, destination)
    if isinstance(verdict, Ambiguous):
        assert verdict.count > 1


def _check_learner(data: bytes) -> None:
    """Whatever it is shown, in any order: it says when the rule in force changes, and only then."""
    learner = Learner()
    rules = tuple(Rule)
    for octet in data[:64]:
        before = learner.rule
        rule = rules[octet % len(rules)]
        change = learner.adopt(rule, octet >> 4) if octet & 8 else learner.note(rule, 1 + (octet >> 4))
        assert (change is None) == (learner.rule is before)
        if change is not None:
            assert (change.before, change.after) == (before, learner.rule)
        assert (learner.export() is None) == (learner.rule is None)


def seeds() -> Iterator[bytes]:
    for rule, (frame, response_id) in enumerate(pdus.receipts()):
        report = read(frame, text_receipts=True)
        reported = (report and report.message_id) or b""
        yield bytes((rule,)) + b"\n".join((reported, b"447700900001", response_id, reported[:-1], b"0" + reported))
    yield b"\4" + b"\n".join((b"59113978", b"4477009000010", b"38601fa", b"38601FA", b"038601fa", b"59113978"))
    yield b"\2" + b"\n".join((b"a29f6845-5556", b"", b"A29F6845-5556", b"0", b"00"))
    yield b"\0" + b"\n".join((b"9" * 65, b"1", b"9" * 66, b"f" * 65, b"0" * 64))
