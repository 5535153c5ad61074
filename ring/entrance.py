"""The listening side: strangers come in here, and leave as links or not at all.

A stranger gets a bounded number of attempts, bytes and seconds (strangers.py, connection.py), and no answer that tells
it anything. Every connection that does not become a link is counted by its reason. The log has the details: a refusal
that is the same as the one before at debug level, and of those turned away unread one in `_QUIET_S`.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from secrets import token_bytes
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger
from trio_websocket import WebSocketConnection

from protocols.peer.hello import NONCE_BYTES
from ring.connection import Failure, WhenAgreed, hold
from ring.guarded_stream import GuardedStream
from ring.handshake import Agreed, ListenerHandshake, Terms
from ring.strangers import StrangerLimit
from ring.tls import RingTls
from ring.transport import TransportError, accept, source_address

_QUIET_S: Final = 10.0

Linked = Callable[[str, WebSocketConnection, GuardedStream, Agreed], Awaitable[None]]


class Entrance:
    """Gives every connection that proved to be a peer's to `linked`, with its address, and turns away the others."""

    def __init__(
        self,
        *,
        security: Callable[[], tuple[Terms, RingTls | None]],
        handshake_s: float,
        linked: Linked,
        log: FilteringBoundLogger,
    ) -> None:
        """`security` is asked for each connection, since a reload may change it; None means a plain listener."""
        self._security = security
        self._handshake_s = handshake_s
        self._linked = linked
        self._log = log
        self._strangers = StrangerLimit()
        self._logged_at = float("-inf")
        self._last_refusal: tuple[str, str, str | None] | None = None
        self.turned_away: Counter[str] = Counter()

    async def welcome(self, tcp: trio.SocketStream) -> None:
        """Serve one connection from its first byte to its last. Raises what `linked` raises, and nothing else."""
        address = source_address(tcp)
        if address is None:  # gone before it was accepted
            await trio.aclose_forcefully(tcp)
            return
        excess = self._strangers.admit(address, trio.current_time())
        if excess is not None:
            self._note_excess(excess, address)
            await trio.aclose_forcefully(tcp)
            return
        proven = False

        async def linked(websocket: WebSocketConnection, stream: GuardedStream, agreed: Agreed) -> None:
            nonlocal proven
            proven = True
            self._strangers.finished(address, proven=True)
            await self._linked(address, websocket, stream, agreed)

        try:
            failure = await self._shake_hands(tcp, linked)
        finally:
            if not proven:
                self._strangers.finished(address, proven=False)
        if failure is not None:
            self._turn_away(failure, address)

    async def _shake_hands(self, tcp: trio.SocketStream, linked: WhenAgreed) -> Failure | None:
        deadline = trio.current_time() + self._handshake_s
        terms, tls = self._security()
        try:
            with trio.fail_at(deadline):
                transport = await accept(tcp, tls)
        except trio.TooSlowError:
            return Failure("handshake_timeout", "it did not finish TLS in time")
        except TransportError as error:
            return Failure(error.reason, str(error))
        machine = ListenerHandshake(terms, transport.channel, token_bytes(NONCE_BYTES))
        return await hold(transport.stream, machine, terms.node, deadline, linked)

    def _turn_away(self, failure: Failure, address: str) -> None:
        self.turned_away[failure.reason] += 1
        refusal = (address, failure.reason, failure.node)
        again = refusal == self._last_refusal
        self._last_refusal = refusal
        log = self._log.debug if again else self._log.warning
        log("peer.refused", address=address, peer=failure.node, **failure.fields())

    def _note_excess(self, excess: str, address: str) -> None:
        self.turned_away[excess] += 1
        now = trio.current_time()
        if now - self._logged_at >= _QUIET_S:
            self._logged_at = now
            self._log.warning("peer.turned_away", address=address, reason=excess, total=self.turned_away[excess])
