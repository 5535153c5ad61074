"""The operator side: the binds that this node keeps at one operator.

`run` dials, binds, reads and dials again until it is cancelled, and then unbinds: so a node that must hold no binds
(promise 8) cancels it, and starts it again when it may.

    unreachable, lost    the other hosts at once, then again after a wait that doubles, with jitter
    refused              after refused_bind_s, with an error in the log: hammering gets accounts blocked
"""

import random
import ssl
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Final

import trio
from attrs import define, frozen
from structlog.typing import FilteringBoundLogger

from dlrproxy.config_keys import Address
from dlrproxy.config_operator import Operator
from dlrproxy.connection import Connection, Incoming, TlsStream, connection_over, converse
from dlrproxy.links import Bind
from dlrproxy.relay import Relay
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER, FramingError
from protocols.smpp.pdu import Bind as BindBody
from protocols.smpp.pdu import pack, response_id
from protocols.smpp.session import Side, response_to

UNBIND_S: Final = 3.0  # how long the operator has to answer unbind, and what is outstanding before it
STABLE_S: Final = 10.0  # a bind that lived so long makes the waits short again

# The account is wrong, blocked, or bound too often: trying again soon makes it worse.
REFUSALS: Final = frozenset({c.ESME_RBINDFAIL, c.ESME_RINVPASWD, c.ESME_RINVSYSID, c.ESME_RALYBND})

_BIND_TYPES: Final = {
    "transceiver": ((c.BIND_TRANSCEIVER, ""),),
    "transmitter": ((c.BIND_TRANSMITTER, "tx"),),
    "receiver": ((c.BIND_RECEIVER, "rx"),),
    "transmitter+receiver": ((c.BIND_TRANSMITTER, "tx"), (c.BIND_RECEIVER, "rx")),
}


class Ending(Enum):
    """How one attempt at a bind ended."""

    UNREACHABLE = auto()
    REFUSED = auto()  # by one of REFUSALS
    FAILED = auto()  # connected, and not bound
    LOST = auto()  # was bound


@define
class Slot:
    """One bind that is to be up, and what is known of its attempts."""

    name: str
    command: int
    host: int = 0  # index of the address to try next
    failures: int = 0  # attempts in a row that ended in no stable bind
    not_before: float = 0.0  # rebind_wait_s after the last bind ended
    address: str = ""  # bound at, or tried last
    bind: Bind | None = None  # while it is up
    since: float | None = None  # trio's clock: when it came up, or was last up
    why: str = "not tried yet"  # it is not up


@frozen
class Waits:
    """How long to wait before the next attempt. Pure: `draw` gives the jitter."""

    operator: Operator
    draw: Callable[[float, float], float] = random.SystemRandom().uniform

    def after(self, ending: Ending, failures: int) -> float:
        """Seconds. `failures`: attempts in a row without a stable bind, this one included if it was none."""
        operator = self.operator
        if ending is Ending.REFUSED:
            return self.draw(operator.refused_bind_s, 1.1 * operator.refused_bind_s)
        rounds, within = divmod(failures, len(operator.addresses))
        if within:
            return 0.0  # there is another host to try
        highest = min(operator.reconnect_max_s, operator.reconnect_min_s * 2.0 ** min(max(1, rounds), 30))
        return self.draw(min(operator.reconnect_min_s, highest), highest)


class Operators:
    """The binds at one operator."""

    def __init__(self, relay: Relay, log: FilteringBoundLogger) -> None:
        operator = relay.operator
        self._relay = relay
        self._operator = operator
        self._log = log.bind(operator=operator.name)
        self._waits = Waits(operator)
        self.slots: Sequence[Slot] = [
            Slot(f"{number}{suffix}", command)
            for number in range(1, operator.binds + 1)
            for command, suffix in _BIND_TYPES[operator.bind_type]
        ]

    async def run(self) -> None:
        """Keep the binds up until cancelled; then unbind, in a bounded time."""
        async with trio.open_nursery() as nursery:
            for slot in self.slots:
                nursery.start_soon(self._keep, slot)

    async def _keep(self, slot: Slot) -> None:
        log = self._log.bind(bind=slot.name)
        while True:
            await trio.sleep_until(slot.not_before)
            address = self._operator.addresses[slot.host % len(self._operator.addresses)]
            began = trio.current_time()
            ending = await self._attempt(slot, address, log.bind(host=str(address)))
            if ending is Ending.LOST and trio.current_time() - began >= STABLE_S:
                slot.failures = 0  # the same host again
            else:
                slot.failures += 1
                slot.host += 1
            wait_s = self._waits.after(ending, slot.failures)
            log.info("operator.waiting", wait_s=round(wait_s, 1))
            await trio.sleep(wait_s)

    async def _attempt(self, slot: Slot, address: Address, log: FilteringBoundLogger) -> Ending:
        """From dialling to the end of the connection."""
        slot.address = str(address)
        try:
            with trio.fail_after(self._operator.connect_timeout_s):
                stream = await self._dial(address)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            slot.why = f"unreachable: {_reason(error)}"
            log.warning("operator.unreachable", error=_reason(error))
            return Ending.UNREACHABLE
        connection = connection_over(stream, str(address))
        bind = self._relay.new_bind(connection, slot.name)
        endings = [Ending.FAILED]
        try:
            await converse(
                connection, partial(self._read, slot, bind, connection, endings, log), partial(self._relay.lost, bind)
            )
        finally:
            slot.not_before = trio.current_time() + self._operator.rebind_wait_s
            if slot.bind is not None:
                slot.bind, slot.since = None, trio.current_time()
                slot.why = connection.ended or "node_stops"
            log.warning("operator.bind_ended", reason=connection.ended or "node_stops")
        return endings[-1]

    async def _dial(self, address: Address) -> trio.SocketStream | TlsStream:
        """Certificates are read again for every connection, so that renewed ones count."""
        context = await trio.to_thread.run_sync(_tls_context, self._operator) if self._operator.tls else None
        stream = await trio.open_tcp_stream(address.host, address.port, local_address=self._operator.source_ip)
        if context is None:
            return stream
        # Operators close without TLS's goodbye, as HTTPS servers do.
        secured = trio.SSLStream(stream, context, server_hostname=address.host, https_compatible=True)
        try:
            await secured.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secured

    async def _read(
        self, slot: Slot, bind: Bind, connection: Connection, endings: list[Ending], log: FilteringBoundLogger
    ) -> None:
        """Bind, then hand what arrives to the relay. `endings` is given what to make of the end."""
        incoming = Incoming(connection)
        bind.put(self._bind_request(slot, bind))
        self._relay.wrap_up()
        try:
            frames = await self._until_bound(slot, bind, incoming, endings, log)
            while frames or (frames := await incoming.next()):
                self._relay.from_operator(bind, frames)
                frames = []
        except FramingError as error:
            self._relay.counters.unreadable_stream += 1
            log.warning("operator.unreadable_stream", error=str(error))
            bind.put(pack(c.GENERIC_NACK, c.ESME_RINVCMDLEN, 0))
            bind.flush()
            connection.end("unreadable_stream")
        except trio.Cancelled:
            if connection.ended is None and bind.session.bound:
                await self._unbind(bind, connection, incoming)
            raise

    def _bind_request(self, slot: Slot, bind: Bind) -> bytes:
        operator = self._operator
        body = BindBody(
            operator.system_id.encode(),
            operator.password.reveal(),
            operator.system_type.encode(),
            operator.interface_version_octet,
            operator.addr_ton,
            operator.addr_npi,
            operator.address_range.encode(),
        )
        return pack(slot.command, c.ESME_ROK, bind.window.next_sequence(), body.encode())

    async def _until_bound(
        self, slot: Slot, bind: Bind, incoming: Incoming, endings: list[Ending], log: FilteringBoundLogger
    ) -> list[bytes]:
        """Wait for the bind_resp. What came behind it in one receive; nothing when the connection ended."""
        expected = response_to(slot.command)
        while frames := await incoming.next():
            for at, frame in enumerate(frames):
                _, command, status, sequence = HEADER.unpack_from(frame)
                if command == expected and status == c.ESME_ROK:
                    endings.append(Ending.LOST)
                    # The body may be missing or have TLVs that do not parse (smpp-facts): only its start is looked at.
                    self._relay.system_id = response_id(frame)[:15]
                    bind.session.responded(command, status)
                    self._relay.bound(bind)
                    slot.bind, slot.since, slot.why = bind, trio.current_time(), ""
                    log.info("operator.bound", as_=c.COMMAND_NAMES[slot.command])
                    return frames[at + 1 :]
                if command in (expected, c.GENERIC_NACK):
                    slot.why = f"refused: {_status_name(status)}"
                    self._refused(status, endings, log)
                    bind.connection.end("bind_refused")
                    return []
                bind.control(Side.SMSC, command, status, sequence)
            self._relay.wrap_up()
        return []

    def _refused(self, status: int, endings: list[Ending], log: FilteringBoundLogger) -> None:
        name = _status_name(status)
        if status in REFUSALS:
            endings.append(Ending.REFUSED)
            log.error("operator.bind_refused", status=name, wait_s=self._operator.refused_bind_s)
        else:
            log.warning("operator.bind_failed", status=name)

    async def _unbind(self, bind: Bind, connection: Connection, incoming: Incoming) -> None:
        """The bounded goodbye of a bind that is released: what the operator still sends is handled."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + UNBIND_S):
            bind.retiring = True
            bind.put(pack(c.UNBIND, c.ESME_ROK, bind.window.next_sequence()))
            self._relay.wrap_up()
            try:
                while connection.ended is None and (frames := await incoming.next()):
                    self._relay.from_operator(bind, frames)
            except FramingError:
                connection.end("unreadable_stream")


def _status_name(status: int) -> str:
    return c.STATUS_NAMES.get(status, f"{status:#010x}")


def _tls_context(operator: Operator) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=operator.ca_file)
    if operator.cert_file is not None:
        context.load_cert_chain(operator.cert_file, operator.key_file)
    return context


def _reason(error: BaseException) -> str:
    """trio gathers the errors of all addresses of a name in a group."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(sorted({str(each) for each in cause.exceptions}))
    if isinstance(error, trio.TooSlowError):
        return "no connection within connect_timeout_s"
    return str(cause or error)
