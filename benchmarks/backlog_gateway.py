"""The gateway's end of `make backlog`: a process with sessions that take what drains, beside traffic at a pace.

What drains is known by its id (`drained_id`) and counted by its number, so that one that comes twice is seen. The rest
must be the receipts of what this process has submitted.
"""

import gc
import select
import socket
import time
from array import array
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from benchmarks import messages
from benchmarks.wire import Wire, WireClosedError
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.sharedctypes import Synchronized

DRAINED: Final = b"9"  # how the ids of what waits begin; the SMSC's begin with 1
ANSWERS_S: Final = 60.0  # after the last submit_sm: what has not come then is missing
BIND_S: Final = 20.0


def drained_id(number: int) -> bytes:
    return DRAINED + b"%0*d" % (messages.ID_DIGITS - 1, number)


@frozen
class Bind:
    """Bind a session to this port, under this name."""

    name: str
    port: int
    system_id: str


@frozen
class Pace:
    """Submit at a pace on the session of that name."""

    name: str
    per_s: float
    seconds: float


@frozen
class Spread:
    """Milliseconds."""

    p50: float
    p99: float
    most: float


@frozen
class Heard:
    response: Spread  # from submit_sm written to its response read
    report: Spread  # from the receipt written by the SMSC to the receipt read
    missing: int
    strange: tuple[str, ...]


@define(eq=False)
class Session:
    wire: Wire
    rest: bytes = b""
    stamps: "array[int]" = field(factory=lambda: array("q", [0]))


def spread(nanoseconds: "array[int]") -> Spread:
    ordered = sorted(nanoseconds) or [0]
    return Spread(*(ordered[int((len(ordered) - 1) * part)] / 1e6 for part in (0.50, 0.99, 1.0)))


class Gateway:
    def __init__(
        self,
        control: "Connection[object, object]",
        expected: int,
        drained: "Synchronized[int]",
        last_at: "Synchronized[float]",
    ) -> None:
        """`drained` counts what has drained, each once; `last_at` is when the last came, on the monotonic clock."""
        self._control = control
        self._seen = bytearray(expected)
        self._drained = drained
        self._last_at = last_at
        self._sessions: dict[str, Session] = {}
        self._responses = array("q")
        self._reports = array("q")
        self._strange: list[str] = []

    def serve(self) -> None:
        """Until the control pipe ends."""
        while True:
            self._turn(None)
            if not self._control.poll():
                continue
            try:
                order = self._control.recv()
            except EOFError:
                return
            if isinstance(order, Bind):
                self._sessions[order.name] = self._bound(order)
                self._control.send("bound")
            elif isinstance(order, Pace):
                self._control.send(self._keep(order))

    def _bound(self, order: Bind) -> Session:
        """Tried again while the node answers that it has no operator bind yet."""
        until = time.monotonic() + BIND_S
        while True:
            connected = socket.create_connection(("127.0.0.1", order.port), timeout=BIND_S)
            connected.sendall(messages.bind(order.system_id))
            header = connected.recv(c.HEADER_SIZE, socket.MSG_WAITALL)
            length, command, status, _ = HEADER.unpack(header)
            connected.recv(length - c.HEADER_SIZE, socket.MSG_WAITALL)
            if (command, status) == (c.BIND_TRANSCEIVER_RESP, c.ESME_ROK):
                return Session(Wire(connected))
            connected.close()
            if time.monotonic() > until:
                raise RuntimeError(f"no bind at port {order.port}: {c.STATUS_NAMES.get(status, hex(status))}")
            time.sleep(0.1)

    def _keep(self, order: Pace) -> Heard:
        """Evenly spaced; then wait for what is outstanding."""
        self._responses, self._reports, self._strange = array("q"), array("q"), []
        session = self._sessions[order.name]
        count = int(order.per_s * order.seconds)
        begin = time.monotonic()
        for number in range(count):
            self._turn(0.0)
            while (left := begin + number / order.per_s - time.monotonic()) > 0:
                self._turn(left)
            session.stamps.append(time.monotonic_ns())
            session.wire.write(messages.submit(len(session.stamps) - 1))
            session.wire.flush()
        until = time.monotonic() + ANSWERS_S
        while (len(self._responses) < count or len(self._reports) < count) and time.monotonic() < until:
            self._turn(0.1)
        missing = 2 * count - len(self._responses) - len(self._reports)
        return Heard(spread(self._responses), spread(self._reports), missing, tuple(self._strange[:10]))

    def _turn(self, timeout: float | None) -> None:
        """Read and answer what is there, within the time; also ends when there is an order (with None: only then)."""
        wires = {session.wire.fileno(): session for session in self._sessions.values()}
        blocked = [fileno for fileno, session in wires.items() if session.wire.blocked]
        control = [self._control.fileno()] if timeout is None else []
        ready, writable, _ = select.select([*wires, *control], blocked, [], timeout)
        now = time.monotonic_ns()
        for fileno in {*ready, *writable} & wires.keys():
            session = wires[fileno]
            try:
                self._read(session, now)
                session.wire.flush()
            except WireClosedError as error:
                self._sessions = {name: each for name, each in self._sessions.items() if each is not session}
                self._strange.append(f"connection lost: {error}")

    def _read(self, session: Session, now: int) -> None:
        data = session.rest + session.wire.receive()
        start, drained = 0, 0
        id_at, id_end = messages.ID_AT, messages.ID_AT + messages.ID_DIGITS
        while len(data) - start >= c.HEADER_SIZE:
            length, command, status, sequence = HEADER.unpack_from(data, start)
            if start + length > len(data):
                break
            if command == c.DELIVER_SM:
                message_id = data[start + id_at : start + id_end]
                if message_id.startswith(DRAINED):
                    drained += self._count(message_id)
                else:
                    at = start + messages.STAMP_AT
                    self._reports.append(now - int(data[at : at + messages.STAMP_DIGITS]))
                session.wire.write(messages.receipt_response(sequence))
            elif command == c.SUBMIT_SM_RESP:
                self._responses.append(now - session.stamps[sequence])
                if status:
                    self._strange.append(c.STATUS_NAMES.get(status, hex(status)))
            elif command == c.ENQUIRE_LINK:
                session.wire.write(messages.header(c.ENQUIRE_LINK_RESP, sequence))
            else:
                self._strange.append(c.COMMAND_NAMES.get(command, hex(command)))
            start += length
        session.rest = data[start:]
        if drained:
            self._last_at.value = now / 1e9
            self._drained.value += drained

    def _count(self, message_id: bytes) -> int:
        number = int(message_id[len(DRAINED) :])
        if self._seen[number]:
            self._strange.append(f"{message_id.decode()} came twice")
            return 0
        self._seen[number] = 1
        return 1


def serve(
    control: "Connection[object, object]", expected: int, drained: "Synchronized[int]", last_at: "Synchronized[float]"
) -> None:
    """The process's main function."""
    gc.disable()
    Gateway(control, expected, drained, last_at).serve()
