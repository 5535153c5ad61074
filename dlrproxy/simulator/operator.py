"""An operator (SMSC) that takes messages and spreads their reports over all binds of an account.

    operator = Operator(OperatorOptions(port=0, spread=Spread.OTHER))
    port = await nursery.start(operator.run)

One reader task a socket; all PDUs of one receive are handled in one synchronous loop, and what they cause is written
at its end, a response before the reports on its message (unless `early` says otherwise).
"""

import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from hmac import compare_digest
from types import MappingProxyType

import trio
from attrs import frozen

from dlrproxy.simulator.agenda import Agenda
from dlrproxy.simulator.binds import Account, Bind
from dlrproxy.simulator.bodies import Submit, read_data_sm, read_submit, read_submit_multi
from dlrproxy.simulator.dispatch import EXPIRY_CHECK_S, Dispatcher
from dlrproxy.simulator.ledger import Accepted, Bound, Ledger, OperatorStarted, Refused, Unbound, new_run, wall_clock
from dlrproxy.simulator.mo import MoSource
from dlrproxy.simulator.options import OperatorOptions
from dlrproxy.simulator.plan import Fate, Plan
from dlrproxy.simulator.reporting import Reporter
from dlrproxy.simulator.stream import SmppStream, StreamEndedError, accept, flush_all, listening_socket
from protocols.smpp import constants as c
from protocols.smpp.constants import HEADER_SIZE
from protocols.smpp.framing import HEADER
from protocols.smpp.pdu import BodyError, pack, parse_bind

SESSION_INIT_S = 10.0  # a connection that has not bound by then is closed
UNBIND_S = 2.0  # how long `stop` waits for unbind_resp

_READERS: Mapping[int, Callable[[bytes], Submit]] = MappingProxyType(
    {c.SUBMIT_SM: read_submit, c.SUBMIT_MULTI: read_submit_multi, c.DATA_SM: read_data_sm}
)
_DELIVERY_ANSWERS = frozenset({c.DELIVER_SM_RESP, c.DATA_SM_RESP, c.GENERIC_NACK})
_INTERFACE_VERSION = b"\x02\x10\x00\x01\x34"  # sc_interface_version, in a bind response


@frozen
class OperatorSummary:
    """Counts of one run. `open` deliveries have not been accepted by a peer, nor abandoned."""

    submitted: int
    accepted: int
    refused: dict[str, int]  # by status
    reports: int
    mo: int
    deliveries_accepted: int
    retries: int
    abandoned: int
    open: int
    late_answers: int
    unknown_answers: int


class Operator:
    """See the module. Needs a trio run to itself or shares one; all state is touched from the event loop only."""

    def __init__(self, options: OperatorOptions, ledger: Ledger | None = None) -> None:
        self.options = options
        self.ledger = ledger if ledger is not None else Ledger()
        self.port = options.port
        self._run_id = options.run or new_run()
        self._dirty: list[SmppStream] = []
        self._agenda = Agenda(self._flush)
        self._dispatcher = Dispatcher(options, self.ledger, self._agenda)
        self._plan = Plan(options)
        self._reporter = Reporter(options, self.ledger, self._agenda, self._dispatcher)
        self._accounts: dict[str, Account] = {}
        self._mo = MoSource(options.mo, options.seed, self._run_id, self._accounts, self._dispatcher, self.ledger)
        self._connections: dict[str, Bind] = {}
        self._connected = 0
        self._accepted = 0
        self._refused: Counter[str] = Counter()
        self._stopping = False
        self._changed = trio.Event()  # a bind came or went
        self._scope = trio.CancelScope()
        self._accepting = trio.CancelScope()
        self._open = trio.Event()  # it takes connections
        self._open.set()
        self._requests: dict[int, Callable[[Bind, bytes, int], None]] = {
            c.BIND_TRANSMITTER: self._bind,
            c.BIND_RECEIVER: self._bind,
            c.BIND_TRANSCEIVER: self._bind,
            c.UNBIND: self._unbind,
            c.ENQUIRE_LINK: self._acknowledge,
            c.QUERY_SM: self._query,
            c.CANCEL_SM: self._acknowledge,
            c.REPLACE_SM: self._acknowledge,
        }

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until `stop` or cancelled. Starts with the port. Raises OSError where it cannot listen."""
        listener = listening_socket(self.options.host, self.options.port)
        self.port = listener.getsockname()[1]
        self.ledger.add(OperatorStarted(time.monotonic(), self._run_id, wall_clock()))
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._agenda.run)
                    nursery.start_soon(self._expire)
                    nursery.start_soon(self.ledger.keep_written)
                    if self.options.mo.rate:
                        nursery.start_soon(self._mo.run, self._flush, self._has_room)
                    task_status.started(self.port)
                    while True:
                        with self._accepting, listener:
                            await self._welcome(listener, nursery)
                        while not self._open.is_set():
                            await self._open.wait()
                        self._accepting = trio.CancelScope()
                        listener = listening_socket(self.options.host, self.port)
        finally:
            listener.close()
            self.ledger.write()

    async def _welcome(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            connected, host = await accept(listener)
            self._connected += 1
            bind = Bind(f"b{self._connected}", host, SmppStream(connected, self._dirty))
            nursery.start_soon(self._serve, bind)

    async def stop(self) -> None:
        """Unbind everybody, wait UNBIND_S at most for them to go, and end `run`."""
        self._stopping = True
        for bind in self._connections.values():
            if bind.live:
                bind.stream.write(pack(c.UNBIND, 0, bind.next_sequence()))
        self._flush()
        with trio.move_on_after(UNBIND_S):
            while any(bind.live for bind in self._connections.values()):
                await self._wait_change()
        self._scope.cancel()

    def drop(self, name: str | None = None) -> None:
        """Cut the connection of one bind, or of all, without a word."""
        for bind in list(self._connections.values()):
            if name in (None, bind.name):
                bind.stream.close()

    def shut(self) -> None:
        """Go away as in a restart: every connection is cut, and no new one is taken until `reopen`.

        What is not delivered is kept meanwhile, as an SMSC keeps it on disk, and goes out when receivers bind again.
        `run` ends with OSError if somebody else has taken the port by then.
        """
        if self._open.is_set():
            self._open = trio.Event()
            self._accepting.cancel()
            self.drop()

    def reopen(self) -> None:
        """Be there again, after `shut`."""
        self._open.set()

    def make_no_more_mo(self) -> None:
        """What has been made is delivered all the same."""
        self._mo.make_no_more()

    async def wait_idle(self) -> None:
        """Until every report and MO made so far is accepted or abandoned."""
        await self._dispatcher.wait_idle()

    async def wait_bound(self, receivers: int) -> None:
        """Until that many binds receive."""
        while sum(len(account.receivers) for account in self._accounts.values()) < receivers:
            await self._wait_change()

    @property
    def binds(self) -> dict[str, str]:
        """The live binds: name to node."""
        return {bind.name: bind.node for bind in self._connections.values() if bind.live}

    def summary(self) -> OperatorSummary:
        dispatcher = self._dispatcher
        return OperatorSummary(
            submitted=self._accepted + sum(self._refused.values()),
            accepted=self._accepted,
            refused=dict(self._refused),
            reports=self._reporter.made,
            mo=self._mo.made,
            deliveries_accepted=dispatcher.accepted,
            retries=dispatcher.retries,
            abandoned=dispatcher.abandoned,
            open=dispatcher.open,
            late_answers=dispatcher.late_answers,
            unknown_answers=dispatcher.unknown_answers,
        )

    def _flush(self) -> None:
        flush_all(self._dirty)

    def _has_room(self) -> bool:
        return self._dispatcher.open < self.options.max_queue

    async def _wait_change(self) -> None:
        self._changed = trio.Event()
        await self._changed.wait()

    async def _expire(self) -> None:
        while True:
            await trio.sleep(EXPIRY_CHECK_S)
            now = time.monotonic()
            for bind in list(self._connections.values()):
                self._dispatcher.expire(bind, now)
            self._flush()

    async def _serve(self, bind: Bind) -> None:
        self._connections[bind.name] = bind
        self._agenda.at(time.monotonic() + SESSION_INIT_S, partial(self._close_unbound, bind))
        why = "stopped"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bind.stream.run_writer)
                try:
                    while True:
                        self._handle(bind, await bind.stream.receive())
                except StreamEndedError as error:
                    why = str(error)
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            bind.stream.close()
            self._connections.pop(bind.name)
            self._leave(bind, why)
            self._flush()

    def _close_unbound(self, bind: Bind) -> None:
        if bind.account is None:
            bind.stream.close()

    def _handle(self, bind: Bind, frames: list[bytes]) -> None:
        now = time.monotonic()
        unpack = HEADER.unpack_from
        for frame in frames:
            _, command, status, sequence = unpack(frame)
            if command in _DELIVERY_ANSWERS:
                self._dispatcher.answered(bind, sequence, status, now)
            elif command in _READERS:
                self._submit(bind, frame, command, sequence, now)
            elif command == c.UNBIND_RESP:
                self._flush()  # the responses to what came just before
                bind.stream.close()
            elif not command & c.RESPONSE_BIT:
                self._request(bind, frame, command, sequence)
        self._flush()

    def _request(self, bind: Bind, frame: bytes, command: int, sequence: int) -> None:
        answer = self._requests.get(command)
        if answer is None:
            bind.stream.write(pack(c.GENERIC_NACK, c.ESME_RINVCMDID, sequence))
        elif bind.live or command in c.BINDS or command == c.ENQUIRE_LINK:
            answer(bind, frame, sequence)
        else:
            bind.stream.write(pack(command | c.RESPONSE_BIT, c.ESME_RINVBNDSTS, sequence))

    def _acknowledge(self, bind: Bind, frame: bytes, sequence: int) -> None:
        _, command, _, _ = HEADER.unpack_from(frame)
        bind.stream.write(pack(command | c.RESPONSE_BIT, c.ESME_ROK, sequence))

    def _query(self, bind: Bind, frame: bytes, sequence: int) -> None:
        """query_sm_resp (SMPP 3.4 4.8.2): the state that the message's final report has, or will have."""
        message_id = frame[HEADER_SIZE:].split(b"\0", 1)[0]
        state = self._reporter.state(message_id.decode("latin-1"))
        if state is None:
            bind.stream.write(pack(c.QUERY_SM_RESP, c.ESME_RINVMSGID, sequence))
        else:
            bind.stream.write(pack(c.QUERY_SM_RESP, c.ESME_ROK, sequence, b"%b\0\0%c\0" % (message_id, state)))

    def _bind(self, bind: Bind, frame: bytes, sequence: int) -> None:
        _, command, _, _ = HEADER.unpack_from(frame)
        answer = command | c.RESPONSE_BIT
        try:
            request = parse_bind(frame[HEADER_SIZE:])
        except BodyError:
            bind.stream.write(pack(answer, c.ESME_RINVCMDLEN, sequence))
            return
        system_id = request.system_id.decode("latin-1")
        status = self._bind_status(bind, system_id, request.password)
        if status:
            bind.stream.write(pack(answer, status, sequence))
            return
        account = self._accounts.setdefault(system_id, Account(system_id))
        bind.account = account
        bind.command = command
        bind.node = f"{request.system_type.decode('latin-1')}@{bind.host}"
        bind.tlvs = request.interface_version >= 0x34
        bind.live = True
        account.binds.append(bind)
        body = b"simulator\0" + (_INTERFACE_VERSION if bind.tlvs else b"")
        bind.stream.write(pack(answer, c.ESME_ROK, sequence, body))
        self.ledger.add(Bound(time.monotonic(), bind.name, system_id, c.COMMAND_NAMES[command], bind.node))
        if bind.receives:
            account.receivers.append(bind)
            self._dispatcher.bound(account)
        self._changed.set()

    def _bind_status(self, bind: Bind, system_id: str, password: bytes) -> int:
        accounts = self.options.accounts
        if bind.live:
            return c.ESME_RALYBND
        if accounts and system_id not in accounts:
            return c.ESME_RINVSYSID
        if accounts and not compare_digest(accounts[system_id].encode(), password):
            return c.ESME_RINVPASWD
        if self._stopping:
            return c.ESME_RBINDFAIL
        known = self._accounts.get(system_id)
        if self.options.max_binds and known is not None and len(known.binds) >= self.options.max_binds:
            return c.ESME_RALYBND
        return c.ESME_ROK

    def _unbind(self, bind: Bind, frame: bytes, sequence: int) -> None:
        bind.stream.write(pack(c.UNBIND_RESP, c.ESME_ROK, sequence))
        self._leave(bind, "unbind")  # the peer closes the connection, after what we still owe it

    def _leave(self, bind: Bind, why: str) -> None:
        if not bind.live or bind.account is None:
            return
        bind.live = False
        bind.account.binds.remove(bind)
        if bind in bind.account.receivers:
            bind.account.receivers.remove(bind)
        self.ledger.add(Unbound(time.monotonic(), bind.name, why))
        self._dispatcher.gone(bind)
        self._changed.set()

    def _submit(self, bind: Bind, frame: bytes, command: int, sequence: int, now: float) -> None:
        answer = command | c.RESPONSE_BIT
        if not bind.submits:
            bind.stream.write(pack(answer, c.ESME_RINVBNDSTS, sequence))
            return
        try:
            submit = _READERS[command](frame)
        except BodyError:
            self._refuse(bind, answer, sequence, c.ESME_RINVMSGLEN, "", now)
            return
        fate = self._plan.next()
        status = fate.status if self._has_room() else c.ESME_RMSGQFUL
        if status:
            self._refuse(bind, answer, sequence, status, submit.tag, now)
            return
        self._take(bind, submit, fate, answer, sequence, now)

    def _refuse(self, bind: Bind, answer: int, sequence: int, status: int, tag: str, now: float) -> None:
        self._refused[c.STATUS_NAMES.get(status, hex(status))] += 1
        self.ledger.add(Refused(now, tag, bind.name, status))
        bind.stream.write(HEADER.pack(HEADER_SIZE, answer, status, sequence))

    def _take(self, bind: Bind, submit: Submit, fate: Fate, answer: int, sequence: int, now: float) -> None:
        """Accept the message: the response and the first report, in the order that its fate says."""
        self._accepted += 1
        message_id, receipt_id = self._reporter.ids(fate.number)
        source = submit.source[2:].decode("latin-1")
        destination = submit.destinations[0][2:].decode("latin-1") if submit.destinations else ""
        self.ledger.add(Accepted(now, message_id, receipt_id, submit.tag, source, destination, bind.name, bind.node))
        if destination:
            self._mo.submitted(source, destination)
        body = b"%b\0" % message_id.encode()
        if answer == c.SUBMIT_MULTI_RESP:
            body += b"\0"  # no_unsuccess
        response = HEADER.pack(HEADER_SIZE + len(body), answer, 0, sequence) + body
        if fate.early:
            self._reporter.report(bind, submit, fate, now)
            gap = self.options.early_gap_ms / 1000
            self._agenda.at(now + gap, partial(bind.stream.write, response))
        else:
            bind.stream.write(response)
            self._reporter.report(bind, submit, fate, now)
