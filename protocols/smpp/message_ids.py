"""Which message does a reported id mean? The id in a receipt and the id in the submit_sm_resp need not be equal bytes.

Operators write the same number in hex in one and in decimal in the other, pad it with zeros, change its case. The
rules by which two ids may still be one:

    rule          response id              reported id              of
    exact         the same bytes           the same bytes           any id
    case          hex digits               the same, other case     hex digits only
    zeros         hex digits               the same but for leading zeros (and case)
    hex-decimal   a number in hex          the number in decimal    any size
    decimal-hex   a number in decimal      the number in hex        any size

An id with anything but hex digits in it (a UUID, a ticket) is a string: only `exact` applies to it. An empty id means
no message. Which rule an operator follows is pinned by its setting, or learned (`Learner`); under no rule may two
messages be confused, so what is not certain is said to be so (`judge`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

from attrs import frozen

# SMPP 3.4 5.2.23 allows 64 octets and a NUL; a longer one is compared as a string, so that no peer makes us compute.
MAX_NUMBER_SIZE: Final = 65

# Reports that must agree before a rule is learned. One id related by chance to a message of the same subscriber is
# already rare; three such in a row without one against them are an operator's habit.
ENOUGH_EVIDENCE: Final = 3

# A learned rule is given up when so many reports in a row speak for other rules, none for it: the operator changed.
GIVE_UP_AFTER: Final = 20

# Two addresses whose shorter one has fewer digits than this (a short code) are the same only if they are equal.
MIN_COMMON_DIGITS: Final = 7

_hex_only = re.compile(rb"[0-9A-Fa-f]+").fullmatch
_NOT_DIGITS: Final = bytes(octet for octet in range(256) if not 0x30 <= octet <= 0x39)


class Rule(StrEnum):
    """How a response id and a reported id relate; the values are those of the operator setting `message_id`."""

    EXACT = "exact"
    CASE = "case"
    ZEROS = "zeros"
    HEX_DECIMAL = "hex-decimal"
    DECIMAL_HEX = "decimal-hex"


class Submitted(Protocol):
    """What `judge` needs to know of a record; `dlrproxy.store.port.OpenMessage` is one."""

    @property
    def message_id(self) -> bytes:
        """The very bytes of submit_sm_resp.message_id."""

    @property
    def destination(self) -> bytes:
        """Digits of the destination_addr that it was submitted to."""


Record = TypeVar("Record", bound=Submitted)


def normal(message_id: bytes) -> bytes:
    """The form under which an id is stored for lookups that are not exact.

    Hex digits: lower case, leading zeros dropped (of zeros alone one is kept). Anything else: unchanged.
    """
    if message_id.isdigit():  # most are; the same as below, in a fraction of the time
        return message_id.lstrip(b"0") or b"0"
    if not _hex_only(message_id):
        return message_id
    return message_id.lower().lstrip(b"0") or b"0"


def candidates(reported: bytes) -> tuple[bytes, ...]:
    """Every normal form that a response id meant by `reported` can have; the likeliest first, without repeats.

    Whenever `relation(response, reported)` is not None, `normal(response)` is among them.
    """
    if not _hex_only(reported):
        return (reported,) if reported else ()
    first = reported.lower().lstrip(b"0") or b"0"
    if len(reported) > MAX_NUMBER_SIZE:
        return (first,)
    as_decimal = b"%d" % int(reported, 16)
    if not reported.isdigit():
        return first, as_decimal
    if len(first) == 1:  # below ten a number reads the same in both
        return (first,)
    return first, b"%x" % int(reported), as_decimal


def _same_case_folded(response: bytes, reported: bytes) -> bool:
    return response.lower() == reported.lower() and _hex_only(response) is not None


def _same_but_padding(response: bytes, reported: bytes) -> bool:
    return normal(response) == normal(reported) and _hex_only(response) is not None and _hex_only(reported) is not None


def _hex_of_decimal(hexadecimal: bytes, decimal: bytes) -> bool:
    """The first in hex is the second in decimal."""
    return (
        len(hexadecimal) <= MAX_NUMBER_SIZE
        and len(decimal) <= MAX_NUMBER_SIZE
        and decimal.isdigit()
        and _hex_only(hexadecimal) is not None
        and int(hexadecimal, 16) == int(decimal)
    )


def _decimal_of_hex(decimal: bytes, hexadecimal: bytes) -> bool:
    return _hex_of_decimal(hexadecimal, decimal)


# In the order in which `relation` tries them: the strictest first.
_HOLDS: Final[Mapping[Rule, Callable[[bytes, bytes], bool]]] = MappingProxyType(
    {
        Rule.EXACT: bytes.__eq__,
        Rule.CASE: _same_case_folded,
        Rule.ZEROS: _same_but_padding,
        Rule.HEX_DECIMAL: _hex_of_decimal,
        Rule.DECIMAL_HEX: _decimal_of_hex,
    }
)

# Under zeros the case may change as well, so what shows `case` shows nothing against `zeros`.
_WIDER: Final = MappingProxyType({Rule.CASE: Rule.ZEROS})


def holds(rule: Rule, response: bytes, reported: bytes) -> bool:
    """Whether `rule` alone makes the two ids one. An empty id is never one with anything."""
    return bool(response) and bool(reported) and _HOLDS[rule](response, reported)


def relation(response: bytes, reported: bytes) -> Rule | None:
    """The strictest rule that makes the two ids one; None if there is none."""
    return next((rule for rule in _HOLDS if holds(rule, response, reported)), None)


def digits(address: bytes) -> bytes:
    """The digits of an address: without "+", blanks and whatever else is in it. Empty for a name."""
    return address if address.isdigit() else address.translate(None, _NOT_DIGITS)


def same_subscriber(one: bytes, other: bytes) -> bool:
    """Whether two addresses name one subscriber: equal digits, or one (a national number) ends the other."""
    shorter, longer = sorted((digits(one).lstrip(b"0"), digits(other).lstrip(b"0")), key=len)
    if not shorter:
        return False
    return shorter == longer or (len(shorter) >= MIN_COMMON_DIGITS and longer.endswith(shorter))


@frozen
class Match(Generic[Record]):
    """The report is this message's."""

    record: Record
    rule: Rule


@frozen
class Inexact(Generic[Record]):
    """One message could be meant, by `rule`, which is not in force: ask for an owner of the exact id first.

    `agrees`: the report also names the subscriber that the message went to, which makes a chance unlikely.
    """

    record: Record
    rule: Rule
    agrees: bool


@frozen
class Ambiguous:
    """`count` messages could be meant, and nothing decides between them."""

    count: int


@frozen
class NoMatch:
    """None of the records is meant.

    `dismissed` is the rule by which the one message to the same subscriber would have been meant, had it been in force:
    evidence that the rule in force is wrong (`Learner.note`).
    """

    dismissed: Rule | None = None


Verdict = Match[Record] | Inexact[Record] | Ambiguous | NoMatch


def judge(reported: bytes, destination: bytes, records: Sequence[Record], rule: Rule | None) -> Verdict[Record]:
    """Which of `records` (the newest first) does a report about `reported` mean, under the rule in force?

    `destination` are the digits of the subscriber that the report names. The exact id always wins; then only `rule`
    counts, and the destination decides between several. With no rule in force a hit is `Inexact`, never a match.
    """
    if not reported:
        return NoMatch()
    for record in records:
        if record.message_id == reported:
            return Match(record, Rule.EXACT)
    if rule is None:
        return _judge_without_rule(reported, destination, records)
    hits = [record for record in records if holds(rule, record.message_id, reported)]
    if not hits:
        hit = _judge_without_rule(reported, destination, records)
        return NoMatch(hit.rule if isinstance(hit, Inexact) and hit.agrees else None)
    chosen = _only(hits, destination)
    return Ambiguous(len(hits)) if chosen is None else Match(chosen, rule)


def _judge_without_rule(
    reported: bytes, destination: bytes, records: Sequence[Record]
) -> Inexact[Record] | Ambiguous | NoMatch:
    hits = [record for record in records if relation(record.message_id, reported)]
    if not hits:
        return NoMatch()
    record = _only(hits, destination)
    rule = relation(record.message_id, reported) if record is not None else None
    if record is None or rule is None:
        return Ambiguous(len(hits))
    return Inexact(record, rule, same_subscriber(record.destination, destination))


def _only(hits: Sequence[Record], destination: bytes) -> Record | None:
    """The only hit, or the only one to this subscriber."""
    if len(hits) == 1:
        return hits[0]
    agreeing = [record for record in hits if same_subscriber(record.destination, destination)]
    return agreeing[0] if len(agreeing) == 1 else None


@frozen
class Change:
    """The rule in force has changed; None: there was none, or there is none any more. To be logged, never silent."""

    before: Rule | None
    after: Rule | None


class Learner:
    """Which rule one operator follows, from what its matched reports show. Pure; one instance per operator and node.

    - A pinned rule is in force from the start and never changes.
    - Without one, a rule is learned when `ENOUGH_EVIDENCE` reports have shown it and none has contradicted it.
      `case` does not contradict `zeros`. Nothing contradicts `exact`, nor does it contradict anything, for an exact id
      always matches: `exact` is learned like the others, and gives way to any of them.
    - What contradicts the evidence before anything is learned starts the count again: no rule comes from a mixture.
    - A learned rule is given up only after `GIVE_UP_AFTER` contradictions without a confirmation between them; that is
      a `Change`, as learning is.
    """

    __slots__ = ("_against", "_evidence", "_learned", "_pinned")

    def __init__(self, pinned: Rule | None = None) -> None:
        self._pinned = pinned
        self._learned: Rule | None = None
        self._evidence: dict[Rule, int] = {}
        self._against = 0

    @property
    def rule(self) -> Rule | None:
        """The rule in force, for `judge`; None while nothing is learned."""
        return self._pinned or self._learned

    @property
    def pinned(self) -> bool:
        return self._pinned is not None

    @property
    def evidence(self) -> Mapping[Rule, int]:
        """How many reports have shown each rule since it was last contradicted: for status and for other nodes."""
        return MappingProxyType(self._evidence)

    @property
    def contradictions(self) -> int:
        """Reports in a row that spoke against the learned rule."""
        return self._against

    def note(self, rule: Rule, count: int = 1) -> Change | None:
        """`count` reports showed `rule`: by a `Match`, an `Inexact` that agrees, or a dismissed one. Returns what that
        changed."""
        if self._pinned is not None:
            return None
        if self._contradicts(rule):
            return self._note_against(rule, count)
        self._evidence[rule] = self._evidence.get(rule, 0) + count
        if rule is not Rule.EXACT or self._learned is Rule.EXACT:
            self._against = 0
        return self._settle()

    def adopt(self, rule: Rule, count: int) -> Change | None:
        """Take over what another node (or the last run) learned. A rule learned here is kept against it."""
        if self._pinned is not None or count < 1 or self._contradicts(rule):
            return None
        self._evidence[rule] = max(self._evidence.get(rule, 0), count)
        return self._settle()

    def export(self) -> tuple[Rule, int] | None:
        """The learned rule with its evidence, for `adopt` on another node or after a restart."""
        if self._learned is None:
            return None
        return self._learned, self._weight(self._learned)

    def _contradicts(self, rule: Rule) -> bool:
        """Whether what is learned or noted so far speaks against `rule`."""
        if rule is Rule.EXACT:
            return False
        if self._learned is not None and self._learned is not Rule.EXACT:
            return not _agree(rule, self._learned)
        return any(not _agree(rule, shown) for shown in self._evidence)

    def _note_against(self, rule: Rule, count: int) -> Change | None:
        self._against += count
        if self._learned in (None, Rule.EXACT):
            exact = self._evidence.get(Rule.EXACT)
            self._evidence = {rule: count} if exact is None else {Rule.EXACT: exact, rule: count}
            self._against = 0
            return self._settle()
        if self._against < GIVE_UP_AFTER:
            return None
        before, self._learned = self._learned, None
        self._evidence, self._against = {}, 0
        return Change(before, None)

    def _settle(self) -> Change | None:
        """Learn the rule with enough evidence, the wider before the stricter, `exact` last."""
        found = next((rule for rule in _PREFERENCE if self._evidence.get(rule) and self._enough(rule)), None)
        if found is None or found is self._learned:
            return None
        before, self._learned = self._learned, found
        return Change(before, found)

    def _enough(self, rule: Rule) -> bool:
        return self._weight(rule) >= ENOUGH_EVIDENCE

    def _weight(self, rule: Rule) -> int:
        """Evidence for a rule, that for narrower ones included."""
        narrower = sum(self._evidence.get(narrow, 0) for narrow, wide in _WIDER.items() if wide is rule)
        return self._evidence.get(rule, 0) + narrower


_PREFERENCE: Final = (Rule.ZEROS, Rule.CASE, Rule.HEX_DECIMAL, Rule.DECIMAL_HEX, Rule.EXACT)


def _agree(one: Rule, other: Rule) -> bool:
    return one is other or Rule.EXACT in (one, other) or _WIDER.get(one) is other or _WIDER.get(other) is one
