"""By how much the clocks of a cluster's nodes differ, and what that may do no harm to.

The clock of the node that submitted an open message says when that is over; the clock of another one decides, the
master's when it deletes it, and that of any node which looks it up. So it is over when it is so by the clock of every
node that is there: one whose clock is fast neither deletes nor overlooks what others still wait for. One whose clock
is slow keeps what is over in the table for as long as it is behind.

Each node writes its clock down every ten seconds (`housekeeping.py`). A reading is up to that old, and a difference
below APART_S says nothing.
"""

from collections.abc import Mapping
from typing import Final

import trio

from dlrproxy.clock import NodeClock
from dlrproxy.housekeeping import read_clocks
from dlrproxy.logs import logger
from dlrproxy.store.port import StoreError
from dlrproxy.store.shared import ClockedStore

EVERY_S: Final = 30.0
APART_S: Final = 60.0  # with time synchronisation they differ by milliseconds; by hand, by some seconds


class Clocks:
    """Of one term of service."""

    def __init__(self, store: ClockedStore, clock: NodeClock) -> None:
        # By how many seconds this node's clock is ahead of the other's, where they differ by APART_S at least.
        self.apart: Mapping[str, float] = {}
        self._readings: Mapping[str, float] = {}  # as of the last look
        self._store = store
        self._clock = clock
        self._log = logger("quorum")

    async def run(self) -> None:
        """Until cancelled. Those of other nodes may jump when they start again."""
        while True:
            await trio.sleep(EVERY_S)
            try:
                await self.compare()
            except StoreError as error:  # the store decides itself when it is lost (`Store.run`)
                self._log.warning("quorum.clocks_not_compared", detail=str(error))

    async def compare(self) -> None:
        """Before the term serves, and then now and then. Raises StoreError."""
        readings, now = await self._read(), self._clock.now()
        ahead = {node: now - reading for node, reading in readings.items()}
        self._store.ahead_s = max(0.0, *ahead.values()) if ahead else 0.0
        before, self.apart = self.apart, {node: by for node, by in ahead.items() if self._is_apart(node, readings, by)}
        self._readings = readings
        for node in self.apart.keys() - before.keys():
            self._log.error("quorum.clocks_apart", node=node, ahead_s=round(self.apart[node]))
        for node in before.keys() - self.apart.keys():
            self._log.info("quorum.clocks_agree", node=node)

    async def _read(self) -> Mapping[str, float]:
        readings = {}
        for node, reading in (await read_clocks(self._store)).items():
            if reading is None:
                self._log.error("quorum.clock_unreadable", node=node)
            else:
                readings[node] = reading
        return readings

    def _is_apart(self, node: str, readings: Mapping[str, float], ahead_s: float) -> bool:
        """A reading that has not changed since the last look is an old one, of a node that may be down."""
        if readings[node] == self._readings.get(node, readings[node]):
            return node in self.apart
        return abs(ahead_s) >= APART_S
