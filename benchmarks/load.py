"""The gateways' end: keeps the window of submit_sm full or a pace, answers receipts, and counts every one of them.

A receipt must come once, to the session that submitted its message, after that message's submit_sm_resp and with
nothing else changed in its length. Anything else fails the run.
"""

import gc
import select
import socket
import time
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from benchmarks import messages
from benchmarks.wire import Wire, WireClosedError
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

BIND_WAIT_S: Final = 20.0  # a proxy that has just been started answers binds once its own are up
STALL_S: Final = 20.0  # no progress for so long fails the run


class RunFailedError(Exception):
    """A count is not what it must be, or nothing came any more."""


@frozen
class Order:
    """One run: warm up, wait for the word, measure."""

    addresses: tuple[tuple[str, int], ...]  # a gateway session to each
    system_id: str
    warm_up: int
    messages: int
    window: int  # unanswered submit_sm over all sessions
    per_s: float | None = None  # messages a second; None: as fast as the window allows


@frozen
class Spread:
    """Milliseconds."""

    p50: float
    p99: float


@frozen
class Outcome:
    seconds: float
    response: Spread  # from submit_sm written to its response read
    receipt: Spread  # from the receipt written by the SMSC to the receipt read


def spread(nanoseconds: "array[int]") -> Spread:
    ordered = sorted(nanoseconds)
    return Spread(*(ordered[int((len(ordered) - 1) * part)] / 1e6 for part in (0.50, 0.99)))


@define(eq=False)
class Session:
    """One bound connection. `stamps[sequence]` says when that submit_sm left."""

    wire: Wire
    window: int
    rest: bytes = b""
    in_flight: int = 0
    stamps: "array[int]" = field(factory=lambda: array("q", [0]))

    def submit(self, count: int, now: int) -> None:
        stamps, write = self.stamps, self.wire.write
        for sequence in range(len(stamps), len(stamps) + count):
            write(messages.submit(sequence))
        stamps.extend([now] * count)
        self.in_flight += count


class Load:
    """The sessions of one run."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sessions
        self._by_fileno = {session.wire.fileno(): session for session in sessions}
        self._open: dict[bytes, Session] = {}  # answered, and its receipt not yet here
        self._responses = array("q")
        self._receipts = array("q")

    def run(self, count: int, per_s: float | None) -> Outcome:
        """Submit `count` messages and return when the last receipt is answered. Raises RunFailedError."""
        self._responses, self._receipts = array("q"), array("q")
        begin = progress = time.monotonic_ns()
        sent, seen = 0, -1
        while len(self._receipts) < count or len(self._responses) < count:
            now = time.monotonic_ns()
            due = count if per_s is None else min(count, 1 + int((now - begin) * per_s / 1e9))
            if sent < due:
                sent += self._fill(due - sent, now)
            self._flush()
            timeout = STALL_S if sent == count or per_s is None else max(0.0, (sent / per_s) - (now - begin) / 1e9)
            blocked = [fileno for fileno, session in self._by_fileno.items() if session.wire.blocked]
            ready, _, _ = select.select(list(self._by_fileno), blocked, [], timeout)
            now = time.monotonic_ns()
            for fileno in ready:
                self._read(self._by_fileno[fileno], now)
            done = len(self._receipts) + len(self._responses)
            if done != seen:
                seen, progress = done, now
            elif now - progress > STALL_S * 1e9:
                raise RunFailedError(f"nothing came for {STALL_S:.0f} s: {self._tally(sent, count)}")
        self._flush()
        if self._open or len(self._receipts) != count:
            raise RunFailedError(f"wrong counts: {self._tally(sent, count)}")
        return Outcome((time.monotonic_ns() - begin) / 1e9, spread(self._responses), spread(self._receipts))

    def _tally(self, sent: int, count: int) -> str:
        return f"{sent} of {count} submitted, {len(self._responses)} responses, {len(self._receipts)} receipts"

    def _fill(self, most: int, now: int) -> int:
        """Submit what the windows have room for, shared evenly; how many."""
        filled = 0
        for left, session in zip(range(len(self._sessions), 0, -1), self._sessions, strict=True):
            share = min(-(-(most - filled) // left), session.window - session.in_flight)
            if share > 0:
                session.submit(share, now)
                filled += share
        self._sessions = (*self._sessions[1:], self._sessions[0])
        return filled

    def _flush(self) -> None:
        for session in self._by_fileno.values():
            session.wire.flush()

    def _read(self, session: Session, now: int) -> None:
        data = session.rest + session.wire.receive()
        open_, stamps, write, unpack = self._open, session.stamps, session.wire.write, HEADER.unpack_from
        responses, receipts = self._responses, self._receipts
        id_at, id_end = messages.ID_AT, messages.ID_AT + messages.ID_DIGITS
        stamp_at, stamp_end = messages.STAMP_AT, messages.STAMP_AT + messages.STAMP_DIGITS
        start, end, answered = 0, len(data), 0
        while end - start >= c.HEADER_SIZE:
            length, command, status, sequence = unpack(data, start)
            stop = start + length
            if stop > end:
                break
            if command == c.SUBMIT_SM_RESP:
                if status:
                    raise RunFailedError(f"a submit_sm was answered with {c.STATUS_NAMES.get(status, hex(status))}")
                open_[data[start + c.HEADER_SIZE : stop - 1]] = session
                responses.append(now - stamps[sequence])
                answered += 1
            elif command == c.DELIVER_SM:
                self._judge(session, data[start + id_at : start + id_end], length)
                receipts.append(now - int(data[start + stamp_at : start + stamp_end]))
                write(messages.receipt_response(sequence))
            elif command == c.ENQUIRE_LINK:
                write(messages.header(c.ENQUIRE_LINK_RESP, sequence))
            else:
                raise RunFailedError(f"the gateway got {c.COMMAND_NAMES.get(command, hex(command))}")
            start = stop
        session.rest = data[start:]
        session.in_flight -= answered

    def _judge(self, session: Session, message_id: bytes, length: int) -> None:
        owner = self._open.pop(message_id, None)
        if owner is session and length == messages.RECEIPT_SIZE:
            return
        what = "changed" if owner is session else "early, twice or for nobody" if owner is None else "elsewhere"
        raise RunFailedError(f"a receipt of {length} bytes for id {message_id.decode(errors='replace')} came {what}")


def _connect(address: tuple[str, int], system_id: str, window: int) -> Session:
    """A bound session; tried again while the proxy says that it has no operator bind yet."""
    until = time.monotonic() + BIND_WAIT_S
    while True:
        try:
            connected = socket.create_connection(address, timeout=BIND_WAIT_S)
            connected.sendall(messages.bind(system_id))
            reply = connected.recv(1024)
        except OSError as error:
            status = str(error)
        else:
            if len(reply) >= c.HEADER_SIZE and HEADER.unpack_from(reply)[1:3] == (c.BIND_TRANSCEIVER_RESP, 0):
                return Session(Wire(connected), window)
            connected.close()
            status = f"answered {reply[:16].hex() or 'by closing'}"
        if time.monotonic() > until:
            raise RunFailedError(f"no bind at {address[0]}:{address[1]}: {status}")
        time.sleep(0.1)


def perform(order: Order, control: "Connection[object, object]") -> None:
    """Say "warm" when warmed up, wait for the word, send the Outcome. Raises RunFailedError."""
    windows = [
        order.window // len(order.addresses) + (index < order.window % len(order.addresses))
        for index in range(len(order.addresses))
    ]
    sessions = [
        _connect(address, order.system_id, window) for address, window in zip(order.addresses, windows, strict=True)
    ]
    try:
        load = Load(sessions)
        load.run(order.warm_up, order.per_s)
        control.send("warm")
        control.recv()
        control.send(load.run(order.messages, order.per_s))
    except WireClosedError as error:
        raise RunFailedError(f"connection lost: {error}") from error
    finally:
        for session in sessions:
            session.wire.close()


def serve(control: "Connection[object, object]") -> None:
    """The process's main function: orders until None."""
    gc.disable()
    while True:
        try:
            order = control.recv()
        except EOFError:
            return
        if not isinstance(order, Order):
            return
        try:
            perform(order, control)
        except RunFailedError as error:
            control.send(error)
        gc.collect()
