"""How long rows stay in inboxes: in no node's custody, and so not delivered until their node takes them."""

import time
from collections.abc import Mapping, Sequence
from typing import Final, cast

import trio
from attrs import frozen

from dlrproxy.store.sql.connection import Account
from dlrproxy.store.sql.errors import SqlError
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import text

_LOOK_S: Final = 0.1
_ANSWER_S: Final = 1.0
_ROWS: Final = "SELECT node,name FROM items WHERE kind='inbox' AND content IS NOT NULL"

Row = tuple[str, bytes]  # whose inbox, and its name there


@frozen
class Stay:
    """In time.monotonic() seconds, as exact as the looks are often."""

    node: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Inboxes:
    """Looks into the database again and again, at whichever server answers."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self.stays: list[Stay] = []
        self.looked = -1.0  # the last time that a server said what there is; what it says is as new as that server is
        self._accounts = accounts
        self._since: dict[Row, float] = {}

    def now(self) -> Mapping[str, int]:
        """How many nobody has taken yet, by node."""
        return {node: sum(row[0] == node for row in self._since) for node, _ in self._since}

    async def run(self) -> None:
        """Until cancelled."""
        pools = [Pool(account, 1, _ANSWER_S) for account in self._accounts]
        try:
            while True:
                if (rows := await _look(pools)) is not None:
                    self.heard(rows, time.monotonic())
                await trio.sleep(_LOOK_S)
        finally:
            with trio.CancelScope(shield=True):
                for pool in pools:
                    await pool.close()

    def heard(self, rows: set[Row], now: float) -> None:
        """What is there now."""
        self.looked = now
        for row in [row for row in self._since if row not in rows]:
            self.stays.append(Stay(row[0], self._since.pop(row), now))
        for row in rows:
            self._since.setdefault(row, now)


async def _look(pools: Sequence[Pool]) -> set[Row] | None:
    for pool in pools:
        with trio.move_on_after(_ANSWER_S):
            try:
                return {(text(node), cast("bytes", name)) for node, name in (await pool.run(_ROWS)).rows}
            except SqlError:
                continue
    return None
