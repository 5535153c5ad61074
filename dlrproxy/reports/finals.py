"""What a final report ends: the open message, and every intermediate report of it.

Custody knows a report by the id in it; which open message its delivery ends takes a visit to the disk. A report that
arrives meanwhile must see that the message is finished (promise 4), and so must a lookup that had begun before: for
them `Finals` remembers the id at the gateway's answer.
"""

from typing import Final

from dlrproxy.store.port import MANY, OpenMessage, Store

KEPT_S: Final = 60.0  # far longer than a visit to the store, also under load
MAX_KEPT: Final = 10_000  # custody delivers a few thousand a second at most; beyond it the oldest goes


def close(store: Store, record: OpenMessage, now: float, grace_s: float) -> None:
    """A final report has been delivered: the message stays for duplicates and late reports only.

    One with many destinations stays for the reports of the others as well.
    """
    expires_at = now + grace_s
    if record.destination == MANY:
        expires_at = max(expires_at, record.expires_at)
    store.close_open(record.operator, record.message_id, now, expires_at, record)


class Finals:
    """One operator's, by reported id. Nothing is in it, as a rule."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at: dict[bytes, float] = {}  # when it was delivered; the oldest first; always the same object

    def note(self, message_id: bytes, now: float) -> None:
        """A final report of this id has been delivered."""
        self.at.pop(message_id, None)
        self.at[message_id] = now
        self._forget(now - KEPT_S)

    def finished(self, message_id: bytes, record: OpenMessage) -> bool:
        """See `OpenMessage.finished`."""
        return record.destination != MANY and self.finished_at(message_id, record) > 0

    def finished_at(self, message_id: bytes, record: OpenMessage) -> float:
        """When a final report of `record`, the message that a report of this id means, was delivered; 0 for never.

        A message that was submitted since is another one with the same id.
        """
        if record.final_at or record.destination == MANY:
            return record.final_at
        at = self.at.get(message_id, 0.0)
        return at if at >= record.submitted_at else 0.0

    def _forget(self, before: float) -> None:
        """The newest one stays."""
        oldest = next(iter(self.at))
        while self.at[oldest] < before or len(self.at) > MAX_KEPT:
            del self.at[oldest]
            oldest = next(iter(self.at))
