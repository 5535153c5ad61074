"""The operator's end: one process, one listener, any number of binds, told apart by system_id.

It answers every submit_sm, and sends its receipt with the next thing that happens on any bind (or after `hold_s`),
never in the same write as the answer of its own message. Receipts go down the bind that submitted, or, for an account
in `crossed`, down another bind of that account. At most `window` receipts of an account are unanswered at one time.
"""

import gc
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from benchmarks import messages
from benchmarks.wire import Wire, WireClosedError
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from protocols.smpp.pdu import parse_bind

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

IDLE_S: Final = 0.001  # with nothing else happening, a receipt follows its response after this long

Waiting = tuple[float, bytes, bytes, "Bind"]  # when it may leave, message id, mark of the number, submitter's bind


@frozen
class Settings:
    """For every account, from now on."""

    window: int
    hold_s: float | None = None  # None: as soon as anything happens, at the latest after IDLE_S


@frozen
class Counts:
    """Of one account, since the start."""

    submits: int
    receipts: int
    answered: int
    refused: int  # answered, with another status than ESME_ROK
    unexpected: tuple[str, ...]  # what no benchmark peer should have sent


@define(eq=False)
class Account:
    system_id: str
    crossed: bool
    binds: list["Bind"] = field(factory=list)
    waiting: deque[Waiting] = field(factory=deque)
    outstanding: int = 0
    submits: int = 0
    receipts: int = 0
    answered: int = 0
    refused: int = 0
    unexpected: list[str] = field(factory=list)

    def counts(self) -> Counts:
        return Counts(self.submits, self.receipts, self.answered, self.refused, tuple(self.unexpected[:10]))

    def path_of(self, submitter: "Bind") -> "Bind | None":
        """The bind that a receipt goes down; None when the account has none that it may use."""
        others = [bind for bind in self.binds if bind is not submitter]
        if self.crossed:
            return others[0] if others else None
        return submitter if submitter in self.binds else (others[0] if others else None)


@define(eq=False)
class Bind:
    """One connection; `account` once it is bound."""

    wire: Wire
    account: Account | None = None
    rest: bytes = b""
    sequence: int = 0
    outstanding: int = 0


class Smsc:
    def __init__(self, listener: socket.socket, control: "Connection[object, object]", crossed: frozenset[str]) -> None:
        self._listener = listener
        self._control = control
        self._crossed = crossed
        self._settings = Settings(window=1000)
        self._accounts: dict[str, Account] = {}
        self._binds: dict[int, Bind] = {}
        self._next_id = 10 ** (messages.ID_DIGITS - 1)

    def serve(self) -> None:
        """Until the control pipe says None, or ends."""
        listener, control = self._listener.fileno(), self._control.fileno()
        while True:
            blocked = [fileno for fileno, bind in self._binds.items() if bind.wire.blocked]
            ready, _, _ = select.select([listener, control, *self._binds], blocked, [], self._timeout())
            now = time.monotonic()
            self._release(now, idle=not ready)
            for fileno in ready:
                if fileno == listener:
                    self._accept()
                elif fileno == control:
                    if not self._obey():
                        return
                else:
                    self._read(fileno, now)
            for fileno, bind in list(self._binds.items()):
                try:
                    bind.wire.flush()
                except WireClosedError:
                    self._drop(fileno)

    def _timeout(self) -> float | None:
        dues = [
            account.waiting[0][0]
            for account in self._accounts.values()
            if account.waiting and account.outstanding < self._settings.window
        ]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _accept(self) -> None:
        connected, _ = self._listener.accept()
        self._binds[connected.fileno()] = Bind(Wire(connected))

    def _obey(self) -> bool:
        try:
            order = self._control.recv()
        except EOFError:
            return False
        if isinstance(order, Settings):
            self._settings = order
        elif isinstance(order, str):
            account = self._accounts.get(order)
            self._control.send(account.counts() if account else Counts(0, 0, 0, 0, ()))
        return order is not None

    def _release(self, now: float, *, idle: bool) -> None:
        """Write the receipts whose time has come; without `hold_s` that is whenever something happens."""
        stamp = b"%019d" % time.monotonic_ns()
        for account in self._accounts.values():
            waiting = account.waiting
            room = self._settings.window - account.outstanding
            while waiting and room > 0:
                if self._settings.hold_s is not None and waiting[0][0] > now:
                    break
                path = account.path_of(waiting[0][3])
                if path is None:
                    break
                _, message_id, mark, _ = waiting.popleft()
                path.sequence += 1
                path.wire.write(messages.receipt(path.sequence, mark, stamp, message_id))
                path.outstanding += 1
                account.outstanding += 1
                account.receipts += 1
                room -= 1

    def _read(self, fileno: int, now: float) -> None:
        bind = self._binds.get(fileno)
        if bind is None:
            return
        try:
            data = bind.rest + bind.wire.receive()
        except WireClosedError:
            self._drop(fileno)
            return
        account, write, unpack = bind.account, bind.wire.write, HEADER.unpack_from
        due = now + (IDLE_S if self._settings.hold_s is None else self._settings.hold_s)
        start, end = 0, len(data)
        mark_at, mark_end = messages.MARK_AT, messages.MARK_AT + messages.MARK_DIGITS
        while end - start >= c.HEADER_SIZE:
            length, command, status, sequence = unpack(data, start)
            stop = start + length
            if stop > end:
                break
            if command == c.SUBMIT_SM and account is not None and length == messages.SUBMIT_SIZE:
                message_id = b"%d" % self._next_id
                self._next_id += 1
                account.submits += 1
                write(messages.submit_response(sequence, message_id))
                account.waiting.append((due, message_id, data[start + mark_at : start + mark_end], bind))
            elif command == c.DELIVER_SM_RESP and account is not None:
                account.answered += 1
                account.outstanding -= 1
                bind.outstanding -= 1
                if status:
                    account.refused += 1
            else:
                self._rare(bind, command, sequence, data[start:stop])
                account = bind.account
            start = stop
        bind.rest = data[start:]

    def _rare(self, bind: Bind, command: int, sequence: int, frame: bytes) -> None:
        if command == c.BIND_TRANSCEIVER:
            system_id = parse_bind(frame[c.HEADER_SIZE :]).system_id.decode()
            account = self._accounts.setdefault(system_id, Account(system_id, system_id in self._crossed))
            account.binds.append(bind)
            bind.account = account
            bind.wire.write(messages.bind_response(sequence))
        elif command in (c.ENQUIRE_LINK, c.UNBIND):
            bind.wire.write(messages.header(command | c.RESPONSE_BIT, sequence))
        elif command != c.ENQUIRE_LINK_RESP and bind.account is not None:
            name = c.COMMAND_NAMES.get(command, hex(command))
            bind.account.unexpected.append(f"{name} of {len(frame)} bytes")

    def _drop(self, fileno: int) -> None:
        bind = self._binds.pop(fileno, None)
        if bind is None:
            return
        bind.wire.close()
        if bind.account is not None:
            bind.account.binds.remove(bind)
            bind.account.outstanding -= bind.outstanding


def serve(listener: socket.socket, control: "Connection[object, object]", crossed: frozenset[str]) -> None:
    """The process's main function."""
    gc.disable()  # no cycles are made, and a collection in mid-run would look like the proxy's latency
    Smsc(listener, control, crossed).serve()
