"""Which gateway an MO goes to by [[mo.rules]]. Pure.

The first rule that matches wins, and every key that it gives must match: operator, destination (the number that the
subscriber wrote to) and keyword (the first word of the text, in any case).

The keyword of a concatenated MO stands in its first part. For any other part it is not known, and so a choice may not
be certain: a rule by keyword, before the one that was chosen, might apply.
"""

from collections.abc import Iterable
from typing import NamedTuple

from attrs import frozen

from dlrproxy.config.tables import MoRule


class Choice(NamedTuple):
    gateway: str  # empty: no rule applies
    certain: bool = True


@frozen
class _Rule:
    destination: bytes | None
    keyword: str | None
    gateway: str


class MoRules:
    """The rules that can apply to one operator's MO."""

    __slots__ = ("_rules", "by_keyword")

    def __init__(self, rules: Iterable[MoRule], operator: str) -> None:
        self._rules = tuple(
            _Rule(
                None if rule.destination is None else address(rule.destination.encode("latin-1", "replace")),
                None if rule.keyword is None else rule.keyword.casefold(),
                rule.gateway,
            )
            for rule in rules
            if rule.operator in (None, operator)
        )
        self.by_keyword = any(rule.keyword is not None for rule in self._rules)

    def choose(self, destination: bytes, keyword: str | None) -> Choice:
        """`destination` is the MO's destination_addr; `keyword` as `keyword_of` gives it, None for not known."""
        destination = address(destination)
        certain = True
        for rule in self._rules:
            if rule.destination is not None and rule.destination != destination:
                continue
            if rule.keyword is not None and keyword is None:
                certain = False
            elif rule.keyword is None or rule.keyword == keyword:
                return Choice(rule.gateway, certain)
        return Choice("", certain)


def keyword_of(text: str) -> str:
    """The first word of a text; empty for a text without one."""
    words = text.split(maxsplit=1)
    return words[0].casefold() if words else ""


def address(value: bytes) -> bytes:
    """A number without its "+", or a name in lower case: as they are compared."""
    number = value.removeprefix(b"+")
    return number if number.isdigit() else value.lower()
