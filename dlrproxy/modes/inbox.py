"""What waits in a node's inbox, and for how long it has been seen there. Pure.

A row of an inbox is custody of nobody's until its node has taken it, and so it is in no count of custody. The row says
nothing of when it came: its age counts from when this process has seen it first, on its own monotonic clock.
"""

from collections.abc import Collection
from typing import Final

from attrs import frozen

MOST: Final = 1000  # rows that are looked at: ten commits' worth; a longer inbox is shown as this long


@frozen
class Waiting:
    """In the inbox at one moment."""

    rows: int  # MOST: so many at least
    oldest_s: float  # how long the one that was seen first has been seen; 0.0 with no rows


class Inbox:
    """Of one process. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._since: dict[bytes, float] = {}

    def observe(self, names: Collection[bytes] | None, now: float) -> None:
        """`names` of the rows that are there now, MOST at most; None: they could not be read, and count as before."""
        if names is not None:
            self._since = {name: self._since.get(name, now) for name in names}

    def waiting(self, now: float) -> Waiting:
        """As far as the last look goes."""
        return Waiting(len(self._since), now - min(self._since.values(), default=now))
