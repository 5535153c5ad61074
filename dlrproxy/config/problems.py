"""What is wrong with a configuration, each with the path of the key that it is about."""

import difflib
from collections.abc import Iterable, Sequence

from attrs import frozen


@frozen
class Problem:
    """`path` is as a user would write it, `operators[0].window`; of a syntax error its line and column; or empty."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has them all; `source` is the file's name."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        super().__init__(source, tuple(problems))
        self.source = source
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(f"{self.source}: {problem}" for problem in self.problems)


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?", or nothing when nothing known is like it."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def unknown_key(name: str, known: Iterable[str]) -> str:
    return f"unknown key{nearest(name, known)}"
