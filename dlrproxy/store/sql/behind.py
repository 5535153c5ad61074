"""How far a replica is behind its source, in transactions and in bytes of the source's log. Pure.

What has not been received is lost if the source is lost now; what has not been applied waits for a promotion.
"""

from collections.abc import Sequence

import attrs

from dlrproxy.store.sql.dialect import lacking

LogPosition = tuple[str, int]  # the name of a log file of the source, and bytes in it


@attrs.frozen
class Behind:
    """None: not known."""

    transactions: int | None
    bytes: int | None


def behind(position: str, logs: Sequence[LogPosition], reached: str, reached_in_log: LogPosition | None) -> Behind:
    """`position` and `logs`, all its log files with their sizes in order, are the source's; the others the replica's.

    The two were asked one after the other, so a replica may be ahead of what its source has said: that is not behind.
    """
    return Behind(
        transactions=lacking(reached, position) if reached and position else None,
        bytes=None if reached_in_log is None else _bytes_after(logs, reached_in_log),
    )


def _bytes_after(logs: Sequence[LogPosition], reached: LogPosition) -> int | None:
    name, at = reached
    names = [each for each, _ in logs]
    if name not in names:
        return None  # removed by now, or it has not been connected yet
    first = names.index(name)
    return max(0, sum(size for _, size in logs[first:]) - at)
