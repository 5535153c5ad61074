"""Requests of the gateways that wait for room at the operator: a line for each gateway, served in turn.

So a gateway that sends more than the operator takes fills its own line, and delays the others by one request at a time.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from dlrproxy.sessions.links import GatewaySession

MAX_QUEUED: Final = 1_000  # of one gateway; more than the windows that gateways use


class Queued(NamedTuple):
    session: GatewaySession
    frame: bytes
    command: int
    sequence: int
    since: float


class MtQueue:
    """One operator's. Bounded by MAX_QUEUED for each gateway in the configuration."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[str, deque[Queued]] = {}  # none is empty; the first is served next

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, queued: Queued) -> bool:
        """False: its gateway has too many in here."""
        line = self._lines.setdefault(queued.session.gateway, deque())
        if len(line) >= MAX_QUEUED:
            return False
        line.append(queued)
        return True

    def take(self) -> Queued:
        """The next of the gateway whose turn it is. Only while there is one."""
        gateway = next(iter(self._lines))
        line = self._lines.pop(gateway)
        queued = line.popleft()
        if line:
            self._lines[gateway] = line
        return queued

    def take_since(self, moment: float) -> list[Queued]:
        """Remove and return those that have waited since `moment` or longer."""
        overdue = []
        for line in self._lines.values():
            while line and line[0].since <= moment:
                overdue.append(line.popleft())
        self._close_ranks()
        return overdue

    def take_if(self, condition: Callable[[Queued], bool]) -> list[Queued]:
        """Remove and return those; the others keep their order."""
        taken: list[Queued] = []
        for gateway, line in self._lines.items():
            taken += filter(condition, line)
            self._lines[gateway] = deque(queued for queued in line if not condition(queued))
        self._close_ranks()
        return taken

    def _close_ranks(self) -> None:
        self._lines = {gateway: line for gateway, line in self._lines.items() if line}
