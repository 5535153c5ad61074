"""Connections that an operator makes to us (SMPP 3.4 2.2.1 and 4.1.7): it introduces itself with outbind, then we bind.

From the bind on such a connection is like one that we made. There is no response to outbind: who is not the operator is
cut off, and the log says why. Whoever connects has `session_init_s` for all of it.
"""

import hmac
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger

from dlrproxy.config.keys import Address
from dlrproxy.relay import Relay
from dlrproxy.sessions.binding import Attempt, Slot
from dlrproxy.sessions.connection import Connection, Incoming, TlsConnection, connection_over, peer_of, secured
from dlrproxy.sessions.links import Bind
from dlrproxy.sessions.listen_tls import ListenTls, to_operator
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from protocols.smpp.pdu import BodyError, pack, parse_outbind
from protocols.smpp.session import Side, response_to

MAX_CONNECTIONS: Final = 8  # bound or not; operators make one or two, and strangers are to find a bound

# As an outbind is meant for receiving, a pair has no second half here.
_COMMANDS: Final = {"transceiver": c.BIND_TRANSCEIVER}
_BEFORE_OUTBIND: Final = frozenset({c.ENQUIRE_LINK, c.ENQUIRE_LINK_RESP})  # allowed at any time


class Outbinds:
    """One operator's, at this node."""

    def __init__(self, relay: Relay, listen: Address, log: FilteringBoundLogger) -> None:
        """`log` names the operator."""
        self._relay = relay
        self._operator = relay.operator
        self._listen = listen
        self._log = log
        self._tls: ListenTls | None = None
        self._slots: list[Slot] = []

    @property
    def slots(self) -> Sequence[Slot]:
        """Those that are bound."""
        return [slot for slot in self._slots if slot.bind is not None]

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; then unbind, in a bounded time. Started with the address that is listened on.

        Raises OSError, which names the address, when it cannot be listened on, and TlsError for certificates.
        """
        address = self._listen
        if (shown := to_operator(self._operator)) is not None:
            self._tls = ListenTls(shown, self._log)
        try:
            listeners = await trio.open_tcp_listeners(address.port, host=address.host)
        except OSError as error:
            raise OSError(
                error.errno, f"operator {self._operator.name}: cannot listen on {address} for outbind: {error}"
            ) from error
        self._log.info("outbind.listening", address=str(address))
        task_status.started(Address(address.host, listeners[0].socket.getsockname()[1]))
        await trio.serve_listeners(self._serve, listeners)

    def renew_certificates(self) -> None:
        """Read them again if they have changed; connections stay as they are."""
        if self._tls is not None:
            self._tls.renew()

    async def _serve(self, stream: trio.SocketStream) -> None:
        peer = peer_of(stream)
        name = self._free_name()
        if name is None:
            self._log.warning("outbind.too_many", host=peer, limit=MAX_CONNECTIONS)
            await trio.aclose_forcefully(stream)
            return
        log = self._log.bind(bind=name, host=peer)
        slot = Slot(name, _COMMANDS.get(self._operator.bind_type, c.BIND_RECEIVER), address=peer)
        self._slots.append(slot)
        stream_or_tls = stream if self._tls is None else secured(stream, self._tls.context())
        connection = connection_over(stream_or_tls, peer, self._relay.licence)
        try:
            await Attempt(self._relay, slot, connection, log, None, partial(self._meet, connection, log)).run()
        finally:
            self._slots.remove(slot)

    def _free_name(self) -> str | None:
        taken = {slot.name for slot in self._slots}
        names = (f"outbind{number}" for number in range(1, MAX_CONNECTIONS + 1))
        return next((name for name in names if name not in taken), None)

    async def _meet(
        self, connection: Connection, log: FilteringBoundLogger, bind: Bind, incoming: Incoming
    ) -> Sequence[bytes] | None:
        """A `binding.Introduction`."""
        if isinstance(connection, TlsConnection) and not await self._agree(connection, log):
            return None
        while frames := await incoming.next():
            for at, frame in enumerate(frames):
                _, command, status, sequence = HEADER.unpack_from(frame)
                if command in _BEFORE_OUTBIND:
                    bind.control(Side.SMSC, command, status, sequence)
                    continue
                why = self._wrong(frame) if command == c.OUTBIND else _not_outbind(bind, command, sequence)
                if why:
                    self._relay.counters.outbind_refused += 1
                    log.error("outbind.refused", why=why)
                    bind.flush()
                    bind.connection.end("outbind_refused")
                    return None
                log.info("outbind.accepted")
                return frames[at + 1 :]
            self._relay.wrap_up()
        return None

    async def _agree(self, connection: TlsConnection, log: FilteringBoundLogger) -> bool:
        """The TLS handshake, for as long as the outbind may take."""
        try:
            await connection.handshake()
        except trio.BrokenResourceError as error:
            self._relay.counters.tls_failed += 1
            log.warning("outbind.tls_failed", error=str(error.__cause__ or error))
            connection.end("tls_failed")
            return False
        return True

    def _wrong(self, frame: bytes) -> str:
        """Why this outbind is not the operator's; empty if it is. Both are compared in constant time."""
        try:
            system_id, password = parse_outbind(frame[c.HEADER_SIZE :])
        except BodyError as error:
            return str(error)
        wanted_id, wanted_password = self._operator.outbind_credentials
        same_id = hmac.compare_digest(system_id, wanted_id.encode())
        same_password = hmac.compare_digest(password, wanted_password.reveal())
        if not same_id:
            return "its system_id is not the one in the configuration"
        return "" if same_password else "its password is not the one in the configuration"


def _not_outbind(bind: Bind, command: int, sequence: int) -> str:
    if not command & c.RESPONSE_BIT:
        bind.put(pack(response_to(command), c.ESME_RINVBNDSTS, sequence))
    return f"its first PDU is {c.COMMAND_NAMES.get(command, f'{command:#010x}')}, not outbind"
