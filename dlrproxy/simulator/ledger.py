"""What a simulator saw, event by event: in memory, and in a file of JSON lines that outlives the process.

Events only ever get added; what they mean together is the judge's business. Times are time.monotonic() seconds, which
all processes of one machine share, so that an operator's and a gateway's times can be subtracted. Bytes of the wire
appear as latin-1 text. Adding an event costs well below a microsecond; the file is written in batches.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import trio

BATCH = 2000  # events before a write that the timer has not asked for: a few hundred KiB at most wait in memory
FLUSH_S = 0.2


class OperatorStarted(msgspec.Struct, tag="operator_started", gc=False):
    """The head of each run of an operator. Numbers of deliveries begin anew after it."""

    t: float
    run: str
    wall: float  # seconds since the epoch at `t`, to find the run again


class Bound(msgspec.Struct, tag="bound", gc=False):
    t: float
    bind: str
    system_id: str
    command: str
    node: str  # which gateway or proxy it belongs to, as far as the operator can tell


class Unbound(msgspec.Struct, tag="unbound", gc=False):
    t: float
    bind: str
    why: str


class Accepted(msgspec.Struct, tag="accepted", gc=False):
    """A submitted message that was given an id. `tag` is the first word of its text."""

    t: float
    id: str
    receipt_id: str
    tag: str
    source: str
    destination: str
    bind: str
    node: str


class Refused(msgspec.Struct, tag="refused", gc=False):
    """A submitted message that was answered with an error."""

    t: float
    tag: str
    bind: str
    status: int


class Report(msgspec.Struct, tag="report", gc=False):
    """A report was made; `n` numbers the deliveries of a run, `id` is its message's id in the response."""

    t: float
    n: int
    id: str
    destination: str
    state: str
    final: bool


class Mo(msgspec.Struct, tag="mo", gc=False):
    """A mobile-originated message, or one part of one, was made; `message` is the same for all parts."""

    t: float
    n: int
    tag: str
    message: str
    source: str
    destination: str
    part: int
    parts: int


class Sent(msgspec.Struct, tag="sent", gc=False):
    """A report or MO was written to a bind; `attempt` counts from 1."""

    t: float
    n: int
    bind: str
    attempt: int


class Answered(msgspec.Struct, tag="answered", gc=False):
    """The answer to a delivery; `late` when the operator had already given up waiting for it."""

    t: float
    n: int
    bind: str
    status: int
    late: bool = False


class Unanswered(msgspec.Struct, tag="unanswered", gc=False):
    """The operator no longer waits for this answer: `why` is `timeout` or `bind lost`."""

    t: float
    n: int
    bind: str
    why: str


class Abandoned(msgspec.Struct, tag="abandoned", gc=False):
    """The operator will not send this delivery again: the last status was permanent, or the attempts are used up."""

    t: float
    n: int
    status: int | None


class GatewayStarted(msgspec.Struct, tag="gateway_started", gc=False):
    """The head of each run of a gateway."""

    t: float
    name: str
    run: str
    wall: float


class Linked(msgspec.Struct, tag="linked", gc=False):
    t: float
    session: str


class Unlinked(msgspec.Struct, tag="unlinked", gc=False):
    t: float
    session: str
    why: str


class Submitted(msgspec.Struct, tag="submitted", gc=False):
    """A submit_sm was written; `attempt` above 1 says that the same message was submitted before."""

    t: float
    tag: str
    session: str
    sequence: int
    destination: str
    attempt: int


class Responded(msgspec.Struct, tag="responded", gc=False):
    """A submit_sm_resp came; `id` is empty unless `status` is 0."""

    t: float
    tag: str
    session: str
    status: int
    id: str


class Reported(msgspec.Struct, tag="reported", gc=False):
    """A report came and was answered with `status`, None being silence.

    `tag` is the first word of the report's own `text:`, whoever it belongs to. `match` says how the gateway found its
    message: `exact` id, the same `number` in another spelling, or `none`.
    """

    t: float
    id: str
    state: str
    tag: str
    source: str
    session: str
    status: int | None
    match: str


class MoReceived(msgspec.Struct, tag="mo_received", gc=False):
    """An MO came and was answered with `status`, None being silence; `tag` is the last word of its text."""

    t: float
    tag: str
    source: str
    destination: str
    session: str
    status: int | None


Event = (
    OperatorStarted | Bound | Unbound | Accepted | Refused | Report | Mo | Sent | Answered | Unanswered | Abandoned
    | GatewayStarted | Linked | Unlinked | Submitted | Responded | Reported | MoReceived
)  # fmt: skip

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Ledger:
    """Events in order. With a path they are appended to that file; with `keep` they stay in `events` as well."""

    __slots__ = ("_file", "_unwritten", "events", "keep")

    def __init__(self, path: Path | None = None, *, keep: bool = True) -> None:
        """Raises OSError where the file cannot be opened."""
        self.keep = keep
        self.events: list[Event] = []
        self._unwritten: list[Event] = []
        self._file: BinaryIO | None = path.open("ab", buffering=0) if path is not None else None

    def add(self, event: Event) -> None:
        if self.keep:
            self.events.append(event)
        if self._file is not None:
            self._unwritten.append(event)
            if len(self._unwritten) >= BATCH:
                self.write()

    def write(self) -> None:
        """Hand everything to the operating system. Raises OSError (a full disk, for instance)."""
        if self._file is None or not self._unwritten:
            return
        lines = memoryview(_ENCODER.encode_lines(self._unwritten))
        self._unwritten.clear()
        while lines:
            lines = lines[self._file.write(lines) :]

    async def keep_written(self) -> None:
        """Write every FLUSH_S, until cancelled."""
        while self._file is not None:
            await trio.sleep(FLUSH_S)
            self.write()

    def close(self) -> None:
        """Write what is left and close the file. Events may still be added to memory."""
        self.write()
        if self._file is not None:
            self._file.close()
            self._file = None


def read_ledger(path: Path) -> Iterator[Event]:
    """The events of a file. Raises OSError, or ValueError with the line's number where a line is no event."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _DECODER.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


def wall_clock() -> float:
    """Seconds since the epoch, for the head of a run."""
    return time.time()


def new_run() -> str:
    """A short name for a run: differs from those of runs that began in other seconds of the last 19 days."""
    number = int(wall_clock())
    digits = ""
    for _ in range(4):
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
