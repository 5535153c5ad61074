"""Parked reports and MO: which ones a person means, what is shown of them, and what is done with them.

There may be a million, and the node works on meanwhile: a request looks at a bounded number of rows, in small scans,
and answers with where to go on (`after`). The text of a message is never shown.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import Final

import msgspec
import trio
from structlog.typing import FilteringBoundLogger

from dlrproxy.admin.aim import aim
from dlrproxy.admin.problems import RequestError
from dlrproxy.admin.view import NodeView
from dlrproxy.logs import mask
from protocols.smpp.constants import STATUS_NAMES
from protocols.smpp.message_ids import candidates, normal, same_subscriber
from protocols.smpp.receipts import read
from ring.commands import Reason
from ring.rows import ParkedRow

MAX_LIMIT: Final = 1000  # items in one answer, or rows that one request acts on
DEFAULT_LIMIT: Final = 100
MAX_SCANNED: Final = 20_000  # rows that one request looks at: some 0.1 s of work, in slices
_SLICE: Final = 200  # rows decoded between two turns of the node's loop: about a millisecond
_AT_ONCE: Final = 50  # rows that are replayed or dropped in one turn of the loop, with one commit: some 3 ms
_PAUSE_S: Final = 0.025  # between those of a replay: at most 2,000 a second, a third of what one core can do
# Replays of a series go on once no more than so many of the earlier ones are on their way: what is replayed keeps
# neither the memory nor the way to a gateway from what has just come.
_MOST_ON_THEIR_WAY: Final = 500
_PATIENCE_S: Final = 1.0  # for earlier replays that do not get on, such as those for a gateway that is not bound
_LONGEST_S: Final = 3.0  # who asks is answered then, and asks again: a command waits for half a minute
_LOOK_S: Final = 0.02
# A fifth of custody is for what operators bring, as with what other nodes hand on (`CustodySettings.max_inherited`).
_SHARE: Final = 0.8

Named = tuple[bytes, ParkedRow]  # a row under its key

_ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every criterion that is given must be met. Without any, it is all of them."""

    operator: str = ""
    reason: str = ""  # a `ring.commands.Reason`
    owner: str = ""  # this gateway owns it as far as is known here, or it was for this gateway
    kind: str = ""  # dlr or mo
    destination: str = ""  # the number as kept with the envelope: a report's subscriber, the number an MO was sent to
    id: str = ""  # the reported id, or one that it may mean
    since: float = 0.0  # parked then or later, in seconds since the epoch
    until: float = 0.0  # parked then or earlier; 0: whenever

    def __post_init__(self) -> None:
        reasons = [reason.value for reason in Reason]
        if self.reason and self.reason not in reasons:
            raise ValueError(f"reason: must be one of {', '.join(reasons)}; is {self.reason}")
        if self.kind and self.kind not in ("dlr", "mo"):
            raise ValueError(f"kind: must be dlr or mo; is {self.kind}")

    @property
    def takes_all(self) -> bool:
        """No criterion is given."""
        return not any(getattr(self, criterion) for criterion in Filter.__struct_fields__)

    def takes(self, row: ParkedRow) -> bool:
        envelope = row.envelope
        return (
            self.operator in ("", envelope.operator)
            and self.reason in ("", row.reason)
            and self.owner in ("", row.gateway or envelope.gateway)
            and self.kind in ("", envelope.kind)
            and self.since <= row.parked_at
            and (not self.until or row.parked_at <= self.until)
            and (not self.destination or _same_number(envelope.destination, self.destination))
            and (not self.id or normal(envelope.message_id) in candidates(id_bytes(self.id)))
        )


def _same_number(kept: bytes, wanted: str) -> bool:
    number = wanted.removeprefix("+").encode()
    return kept == number or same_subscriber(kept, number)


class ParkedItem(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of a parked report or MO."""

    key: str  # its name, in hex
    reason: str
    operator: str
    kind: str
    message_id: str
    destination: str
    final: bool
    origin: str  # the node that took it from the operator
    gateway: str  # the owner, where it is known, or the gateway that it was for
    status: str  # what the gateway answered, where it did
    accepted_at: float
    parked_at: float
    trace: str
    pdu_bytes: int


class ParkedDetail(ParkedItem, frozen=True, kw_only=True):
    """The same with what the report says."""

    state: str | None  # of the message; None: not said, or an MO
    error: str | None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    now: float
    items: tuple[ParkedItem, ...]
    next: str | None  # ask again with this as `after`; None: there are no more
    unreadable: int = 0  # rows between that a later release has written, or that are damaged: they stay where they are


class Bulk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which ones: by `keys`, or by `filter`. A filter without any criterion needs `all`."""

    keys: tuple[str, ...] | None = None
    filter: Filter | None = None
    all: bool = False
    after: str = ""
    limit: int = MAX_LIMIT
    until: float = 0.0  # by filter, only what was parked by then: `Done.until` of the first request of a series

    def __post_init__(self) -> None:
        if (self.keys is None) == (self.filter is None):
            raise ValueError("give either keys or filter")
        if self.keys is not None and len(self.keys) > MAX_LIMIT:
            raise ValueError(f"keys: at most {MAX_LIMIT} at a time")
        if self.filter is not None and self.filter.takes_all and not self.all:
            raise ValueError("this filter takes everything that is parked; say all: true if that is meant")
        check_limit(self.limit)


class Replay(Bulk, frozen=True, kw_only=True, forbid_unknown_fields=True):
    to: str  # "ring", a gateway of this node, or another node (any gateway that is bound there), or NODE/GATEWAY


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request for many."""

    done: int
    gone: int  # not parked (any more) when their turn came
    unfit: int  # of an operator that the gateway does not dial: left as they are
    until: float  # `until` of the next request: what is parked again meanwhile is not taken again
    next: str | None  # go on with this as `after`, also where `done` is 0; None: that was all
    stopped: str = ""  # why it ended before its limit, where something is in the way


class Outcome(Enum):
    """What became of one row."""

    DONE = auto()
    GONE = auto()
    UNFIT = auto()


def check_limit(limit: int) -> None:
    """Raises ValueError."""
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit: must be from 1 to {MAX_LIMIT}; is {limit}")


def id_bytes(text: str) -> bytes:
    r"""An id as logs and this API show it, as bytes: an octet that is no printable ASCII is written as \xff."""
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())


def id_text(message_id: bytes) -> str:
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else f"\\x{octet:02x}" for octet in message_id)


def key_bytes(text: str) -> bytes:
    """Raises RequestError."""
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise RequestError(400, f"{text}: a key is written in hex, as the list shows it") from error


class Parked:
    """The parked rows of one node, for everybody who uses its API."""

    def __init__(self, view: NodeView, log: FilteringBoundLogger, *, full_numbers: bool) -> None:
        self._view = view
        self._log = log
        self._full_numbers = full_numbers
        self._acting = trio.Lock()  # no row is replayed or dropped twice

    async def page(self, wanted: Filter, after: bytes, limit: int) -> Page:
        """Raises StoreError."""
        rows, following, unreadable = await self._scan(wanted, after, limit)
        items = tuple(msgspec.convert(self._fields(key, row), ParkedItem) for key, row in rows)
        return Page(
            now=self._view.status().now,
            items=items,
            next=following.hex() if following is not None else None,
            unreadable=unreadable,
        )

    async def detail(self, key: bytes) -> ParkedDetail:
        """Raises RequestError, StoreError, RowError."""
        row = await self._view.parked_row(key)
        if row is None:
            raise RequestError(404, f"{key.hex()} is not parked here")
        # It came as a report, whatever the setting receipt_text was then.
        report = read(row.envelope.pdu, text_receipts=True) if row.envelope.kind == "dlr" else None
        said = {"state": report.state if report else None, "error": report.error if report else None}
        return msgspec.convert(self._fields(key, row) | said, ParkedDetail)

    async def replay(self, wanted: Replay) -> Done:
        """Raises RequestError, StoreError, RowError."""
        target = aim(wanted.to, self._view.status())
        if not await self._earlier_are_on() and wanted.keys is None:
            until = wanted.until or self._view.status().now
            return Done(done=0, gone=0, unfit=0, until=until, next=wanted.after)
        status = self._view.status()

        async def replayed(rows: Sequence[Named]) -> Counter[Outcome]:
            fit = [key for key, row in rows if target.fits(row.envelope.operator)]
            done = await self._view.replay(fit, target.gateway, node=target.node)
            await trio.sleep(_PAUSE_S)
            return _counted(done, gone=len(fit) - done, unfit=len(rows) - len(fit))

        custody = status.custody
        room = 0 if custody is None else max(0, int(custody.max_items * _SHARE) - custody.items)
        return await self._act("admin.replayed", wanted, replayed, room, to=wanted.to)

    async def _earlier_are_on(self) -> bool:
        """Wait while enough of what was replayed before is on its way. False: it gets on, and there still is."""
        began = trio.current_time()
        fewest, fewest_at = self._view.replaying(), began
        while (under_way := self._view.replaying()) > _MOST_ON_THEIR_WAY:
            now = trio.current_time()
            if under_way < fewest:
                fewest, fewest_at = under_way, now
            if now >= fewest_at + _PATIENCE_S:
                return True  # they are held up, by a gateway that is not bound for instance; others need not be
            if now >= began + _LONGEST_S:
                return False
            await trio.sleep(_LOOK_S)
        return True

    async def drop(self, wanted: Bulk) -> Done:
        """Raises RequestError, StoreError, RowError."""

        async def dropped(rows: Sequence[Named]) -> Counter[Outcome]:
            done = await self._view.drop([key for key, _ in rows])
            return _counted(done, gone=len(rows) - done)

        return await self._act("admin.dropped", wanted, dropped, MAX_LIMIT)

    async def _act(
        self,
        event: str,
        wanted: Bulk,
        act: Callable[[Sequence[Named]], Awaitable[Counter[Outcome]]],
        room: int,
        **fields: str,
    ) -> Done:
        """Act on what is wanted, but on no more than `room`; what was done is logged, also where an error ends it."""
        counts = Counter[Outcome]()
        async with self._acting:
            try:
                until = wanted.until or self._view.status().now
                rows, following = await self._meant(wanted, until, counts)
                stopped = len(rows) > room
                for begin in range(0, min(room, len(rows)), _AT_ONCE):
                    counts += await act(rows[begin : min(room, begin + _AT_ONCE)])
            finally:
                meant = msgspec.to_builtins(wanted.filter) if wanted.filter else {"keys": len(wanted.keys or ())}
                self._log.info(event, count=counts[Outcome.DONE], **_given(meant), **fields)
        if stopped:
            following = rows[room - 1][0] if room else key_bytes(wanted.after)
        return Done(
            done=counts[Outcome.DONE],
            gone=counts[Outcome.GONE],
            unfit=counts[Outcome.UNFIT],
            until=until,
            next=following.hex() if following is not None and wanted.filter is not None else None,
            stopped="custody_full" if stopped else "",
        )

    async def _meant(self, wanted: Bulk, until: float, counts: Counter[Outcome]) -> tuple[list[Named], bytes | None]:
        if wanted.filter is not None:
            earliest = min(until, wanted.filter.until or until)
            limited = msgspec.structs.replace(wanted.filter, until=earliest)
            rows, following, _ = await self._scan(limited, key_bytes(wanted.after), wanted.limit)
            return rows, following
        rows = []
        for key in map(key_bytes, dict.fromkeys(wanted.keys or ())):
            row = await self._view.parked_row(key)
            if row is None:
                counts[Outcome.GONE] += 1
            else:
                rows.append((key, row))
        return rows, None

    async def _scan(self, wanted: Filter, after: bytes, limit: int) -> tuple[list[Named], bytes | None, int]:
        """Up to `limit` rows behind `after`, and behind which key to go on; None if that was the last row.

        At last how many between could not be read.
        """
        found: list[Named] = []
        scanned = unreadable = 0
        while len(found) < limit and scanned < MAX_SCANNED:
            rows = await self._view.parked_rows(after, _SLICE)
            scanned += len(rows)
            for key, row in rows:
                after = key
                if row is None:
                    unreadable += 1
                elif wanted.takes(row):
                    found.append((key, row))
                    if len(found) == limit:
                        break
            else:
                if len(rows) < _SLICE:
                    return found, None, unreadable
        return found, after, unreadable

    def _fields(self, key: bytes, row: ParkedRow) -> dict[str, object]:
        envelope = row.envelope
        destination = id_text(envelope.destination)
        return {
            "key": key.hex(),
            "reason": row.reason,
            "operator": envelope.operator,
            "kind": envelope.kind,
            "message_id": id_text(envelope.message_id),
            "destination": destination if self._full_numbers else mask(destination),
            "final": envelope.final,
            "origin": envelope.origin,
            "gateway": row.gateway or envelope.gateway,
            "status": STATUS_NAMES.get(row.status, f"0x{row.status:08X}") if row.status else "",
            "accepted_at": row.accepted_at,
            "parked_at": row.parked_at,
            "trace": envelope.trace,
            "pdu_bytes": len(envelope.pdu),
        }


def _counted(done: int, *, gone: int, unfit: int = 0) -> Counter[Outcome]:
    return Counter({Outcome.DONE: done, Outcome.GONE: gone, Outcome.UNFIT: unfit})


def _given(fields: dict[str, object]) -> dict[str, object]:
    """The criteria that were given, under names that the log masks where they are numbers."""
    return {name if name != "id" else "message_id": value for name, value in fields.items() if value}
