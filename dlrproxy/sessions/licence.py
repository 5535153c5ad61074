"""Until when a node may speak to operators and gateways: what every connection of a term of service asks.

A node of a ring may always. The active of a pair may for as long as the other node cannot be active, and must not say
a word after that, however late a frozen process wakes up.
"""

from collections.abc import Callable

import trio


class Licence:
    """Once it is revoked it stays so."""

    __slots__ = ("_revoked", "_until")

    def __init__(self, until: Callable[[], float]) -> None:
        """`until` gives a time of trio's clock. It may move while the licence is used."""
        self._until = until
        self._revoked = False

    @property
    def valid(self) -> bool:
        return not self._revoked and trio.current_time() < self._until()

    def revoke(self) -> None:
        self._revoked = True
