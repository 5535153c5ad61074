"""What a setting of a database server should be, and what it puts at risk where it is not. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs

from dlrproxy.store.sql.schema import Finding


@attrs.frozen
class Rule:
    settings: tuple[str, ...]  # its names, MariaDB's first; a server that has none of them is passed over
    should: str
    holds: Callable[[str], bool]
    risk: str
    fatal: bool = True  # messages can be lost, or cannot be stored


def is_(*values: str) -> Callable[[str], bool]:
    """In capitals; "ON" is also 1 and "OFF" is 0."""
    allowed = {*values, *({"ON": "1", "OFF": "0"}.get(value, value) for value in values)}
    return lambda found: found.upper() in allowed


def at_least(number: int) -> Callable[[str], bool]:
    return lambda found: int(found) >= number


def at_most(number: int) -> Callable[[str], bool]:
    return lambda found: int(found) <= number


def broken(rules: Iterable[Rule], found: Mapping[str, str]) -> Iterator[Finding]:
    """`found`: settings by name, in small letters."""
    for rule in rules:
        setting = next((name for name in rule.settings if name in found), None)
        if setting is not None and not rule.holds(found[setting]):
            yield Finding(setting, found[setting], rule.should, rule.risk, rule.fatal)
