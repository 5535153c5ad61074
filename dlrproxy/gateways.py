"""The gateway side: this node's listeners for one operator, and the sessions of the gateways that dial them.

To a gateway we are the operator: it binds with the credentials it always used. Its bind is answered only when it is
known whether an operator bind is up, for what it sends before that would have nowhere to go.
"""

import hmac
import itertools
from collections.abc import Mapping
from functools import partial
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger

from dlrproxy.config.keys import Address
from dlrproxy.relay import Relay
from dlrproxy.sessions.connection import (
    CROWDED_OUT,
    GOODBYE_S,
    Connection,
    Incoming,
    TlsConnection,
    connection_over,
    converse,
    peer_of,
    secured,
)
from dlrproxy.sessions.links import GatewaySession
from dlrproxy.sessions.listen_tls import ListenTls, to_gateways
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER, FramingError
from protocols.smpp.pdu import Bind, BodyError, encode_tlvs, pack, parse_bind
from protocols.smpp.session import WITHOUT_RESPONSE, Side, response_to

MAX_SESSIONS: Final = 200  # bound, per operator; gateways open a handful
MAX_UNBOUND: Final = 50  # per operator; gateways bind at once, and probes of load balancers stay for a moment
BIND_WAIT_S: Final = 5.0  # for an operator bind to come up; gateways wait 10 s and more for their bind_resp
PARTING_S: Final = 3.0  # for a gateway to answer what it has, and unbind, when the node stops; as gateway_answer_s
_OWN_SYSTEM_ID: Final = b"dlrproxy"  # until the operator has told us its own
_TLV_SINCE: Final = 0x34  # interface_version below which a peer knows no TLVs


class Gateways:
    """One operator's listeners at this node."""

    def __init__(self, relay: Relay, log: FilteringBoundLogger) -> None:
        self._relay = relay
        self._operator = relay.operator
        self._log = log.bind(operator=relay.operator.name)
        self._tls: ListenTls | None = None
        self._sessions: dict[GatewaySession, Connection] = {}  # the oldest first
        self._listening = trio.CancelScope()
        self._all_gone = trio.Event()

    async def run(self, task_status: trio.TaskStatus[Mapping[str, Address]] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until cancelled or stopped. Started with the addresses listened on, by gateway.

        Raises OSError, which names the address, when one cannot be listened on, and TlsError for certificates.
        """
        if (shown := to_gateways(self._operator)) is not None:
            self._tls = ListenTls(shown, self._log)
        opened = await self._open()
        async with trio.open_nursery() as sessions:
            with self._listening:
                async with trio.open_nursery() as nursery:
                    for gateway, listeners in opened.items():
                        serve = partial(self._serve, gateway)
                        nursery.start_soon(partial(trio.serve_listeners, serve, listeners, handler_nursery=sessions))
                    task_status.started(
                        {
                            gateway: Address(address.host, opened[gateway][0].socket.getsockname()[1])
                            for gateway, address in self._operator.listen.items()
                        }
                    )

    async def _open(self) -> dict[str, list[trio.SocketListener]]:
        opened: dict[str, list[trio.SocketListener]] = {}
        for gateway, address in self._operator.listen.items():
            try:
                opened[gateway] = await trio.open_tcp_listeners(address.port, host=address.host)
            except OSError as error:
                for listener in itertools.chain.from_iterable(opened.values()):
                    await listener.aclose()
                raise OSError(
                    error.errno, f"operator {self._operator.name}: cannot listen on {address}: {error}"
                ) from error
            self._log.info("gateway.listening", gateway=gateway, address=str(address))
        return opened

    def renew_certificates(self) -> None:
        """Read them again if they have changed; sessions stay as they are."""
        if self._tls is not None:
            self._tls.renew()

    async def stop(self) -> None:
        """Take no new sessions, and end those there are, in a bounded time.

        They answer what they have before they are unbound: an answer that is not waited for is a report sent twice.
        """
        self.close_listeners()
        for session in list(self._sessions):
            if session.session.bound:
                session.retire()
            else:
                session.unbind("node_stops")
        with trio.move_on_after(PARTING_S):
            await self.gone()
        for session in list(self._sessions):
            session.dismiss("node_stops")
        with trio.move_on_after(2 * GOODBYE_S):
            await self.gone()

    def close_listeners(self) -> None:
        """Take no new sessions."""
        self._listening.cancel()

    async def gone(self) -> None:
        """Wait until there is no connection any more."""
        while self._sessions:
            self._all_gone = trio.Event()
            await self._all_gone.wait()

    async def _serve(self, gateway: str, stream: trio.SocketStream) -> None:
        peer = peer_of(stream)
        stream_or_tls = stream if self._tls is None else secured(stream, self._tls.context())
        connection = connection_over(stream_or_tls, peer, self._relay.licence)
        log = self._log.bind(gateway=gateway, peer=connection.peer)
        if len(self._relay.sessions) >= MAX_SESSIONS:
            log.warning("gateway.too_many_sessions", limit=MAX_SESSIONS)
            await connection.aclose(linger=False)
            return
        self._make_room()
        session = self._relay.new_session(connection, gateway)
        self._sessions[session] = connection
        try:
            await converse(
                connection, partial(self._read, session, connection, log), partial(self._relay.lost, session)
            )
        finally:
            del self._sessions[session]
            if not self._sessions:
                self._all_gone.set()
            log.info("gateway.gone", reason=connection.ended or "node_stops")

    def _make_room(self) -> None:
        """Whoever connects and does not bind keeps no gateway out: the oldest of them goes."""
        unbound = [
            connection
            for session, connection in self._sessions.items()
            if not session.session.bound and connection.ended is None
        ]
        if len(unbound) >= MAX_UNBOUND:
            self._log.warning("gateway.too_many_unbound", limit=MAX_UNBOUND, peer=unbound[0].peer)
            unbound[0].end(CROWDED_OUT)

    async def _read(self, session: GatewaySession, connection: Connection, log: FilteringBoundLogger) -> None:
        if isinstance(connection, TlsConnection) and not await self._agree(connection, log):
            return
        incoming = Incoming(connection)
        try:
            frames = await self._until_bound(session, incoming, log)
            while frames or (frames := await incoming.next()):
                self._relay.from_gateway(session, frames)
                session.part_when_done()
                frames = []
        except FramingError as error:
            self._relay.counters.unreadable_stream += 1
            log.warning("gateway.unreadable_stream", error=str(error))
            session.put(pack(c.GENERIC_NACK, c.ESME_RINVCMDLEN, 0))
            session.flush()
            connection.end("unreadable_stream")

    async def _agree(self, connection: TlsConnection, log: FilteringBoundLogger) -> bool:
        """The TLS handshake, for as long as the session may take to bind."""
        try:
            await connection.handshake()
        except trio.BrokenResourceError as error:
            self._relay.counters.tls_failed += 1
            log.warning("gateway.tls_failed", error=str(error.__cause__ or error))
            connection.end("tls_failed")
            return False
        return True

    async def _until_bound(self, session: GatewaySession, incoming: Incoming, log: FilteringBoundLogger) -> list[bytes]:
        """Serve the session up to its bind. What came behind that in one receive; nothing when the session ended."""
        while frames := await incoming.next():
            for at, frame in enumerate(frames):
                _, command, status, sequence = HEADER.unpack_from(frame)
                if command in c.BINDS:
                    accepted = await self._bind(session, frame, command, sequence, log)
                    return frames[at + 1 :] if accepted else []
                if session.control(Side.ESME, command, status, sequence) or command & c.RESPONSE_BIT:
                    continue
                self._relay.counters.refused_state += 1
                if command not in WITHOUT_RESPONSE:
                    session.put(pack(response_to(command), c.ESME_RINVBNDSTS, sequence))
            session.timers.heard_at = self._relay.now()
            self._relay.wrap_up()
        return []

    async def _bind(
        self, session: GatewaySession, frame: bytes, command: int, sequence: int, log: FilteringBoundLogger
    ) -> bool:
        """Answer a bind. One that is refused ends the session, when the answer is out."""
        version = 0
        try:
            bind = parse_bind(frame[c.HEADER_SIZE :])
        except BodyError as error:
            status, why = c.ESME_RINVMSGLEN, str(error)
        else:
            version = bind.interface_version
            status, why = self._check(bind)
        if status == c.ESME_ROK and not await self._operator_is_up():
            status, why = c.ESME_RBINDFAIL, "no operator bind is up"
        if status != c.ESME_ROK:
            log.warning("gateway.bind_refused", status=c.STATUS_NAMES[status], why=why)
            session.put(pack(response_to(command), status, sequence))
            session.flush()
            session.connection.end("bind_refused")
            return False
        session.put(pack(response_to(command), c.ESME_ROK, sequence, self._bind_resp_body(version)))
        session.session.responded(response_to(command), c.ESME_ROK)
        self._relay.bound(session)
        log.info("gateway.bound", bind=c.COMMAND_NAMES[command], interface_version=f"{version:#04x}")
        return True

    def _check(self, bind: Bind) -> tuple[int, str]:
        """Both are compared in constant time, whichever is wrong."""
        same_id = hmac.compare_digest(bind.system_id, self._operator.system_id.encode())
        same_password = hmac.compare_digest(bind.password, self._operator.password.reveal())
        if not same_id:
            return c.ESME_RINVSYSID, "system_id is not the operator's in the configuration"
        if not same_password:
            return c.ESME_RINVPASWD, "password is not the operator's in the configuration"
        return c.ESME_ROK, ""

    async def _operator_is_up(self) -> bool:
        """True at once while the node drains: it has no binds, and what is in custody waits for this gateway.

        And where this node makes no binds: the operator connects when it has something for the gateway (outbind).
        """
        if self._relay.draining or not self._operator.binds:
            return True
        with trio.move_on_after(min(BIND_WAIT_S, self._operator.session_init_s / 2)) as waiting:
            await self._relay.bind_is_up()
        return not waiting.cancelled_caught

    def _bind_resp_body(self, version: int) -> bytes:
        system_id = (self._relay.system_id or _OWN_SYSTEM_ID) + b"\0"
        if version < _TLV_SINCE:
            return system_id
        octet = bytes((self._operator.interface_version_octet,))
        return system_id + encode_tlvs(((c.TLV_SC_INTERFACE_VERSION, octet),))
