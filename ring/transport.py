"""TCP and TLS under a link: connect, accept, listen; and the rule that nothing leaves the machine unencrypted."""

from typing import Any, Final

import attrs
import trio

from ring.handshake import Channel
from ring.peer_url import PeerUrl, is_loopback
from ring.tls import RingTls, certificate_names, fingerprint

_BACKLOG: Final = 128


class TransportError(Exception):
    """There is no usable stream. `reason` is one word for counters and the text says more, for our log only."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@attrs.frozen
class Transport:
    """A stream that is ready for the handshake, and what is known of its other end."""

    stream: trio.abc.Stream
    channel: Channel
    address: str


async def connect(url: PeerUrl, tls: RingTls) -> Transport:
    """Reach the listener of a peer. Raises TransportError; the caller sets the time limit."""
    try:
        tcp = await trio.open_tcp_stream(url.host, url.port)
    except (OSError, UnicodeError) as error:  # UnicodeError: no host name of DNS
        raise TransportError("unreachable", str(error)) from error
    return await _secure(tcp, tls if url.tls else None, server_hostname=url.host)


async def accept(tcp: trio.SocketStream, tls: RingTls | None) -> Transport:
    """Make the incoming connection ready; `tls` is None for a plain listener. Raises TransportError."""
    return await _secure(tcp, tls, server_hostname=None)


async def listen(host: str, port: int, *, plain: bool) -> list[trio.SocketListener]:
    """Bind every address of `host`. Raises OSError, and ValueError for a plain listener off loopback."""
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    if plain:
        exposed = [address for address, _ in map(address_of, listeners) if not is_loopback(address)]
        if exposed:
            for listener in listeners:
                await listener.aclose()
            raise ValueError(f"ws:// would listen on {', '.join(exposed)}, which is not loopback; use wss://")
    return listeners


def address_of(listener: trio.SocketListener) -> tuple[str, int]:
    """Host and port that it is bound to."""
    host, port, *_ = listener.socket.getsockname()
    return str(host), int(port)


def source_address(tcp: trio.SocketStream) -> str | None:
    """The IP address of the other end; None if it is gone already."""
    try:
        name: tuple[Any, ...] = tcp.socket.getpeername()
    except OSError:
        return None
    return str(name[0])


async def _secure(tcp: trio.SocketStream, tls: RingTls | None, *, server_hostname: str | None) -> Transport:
    """TLS as client with a `server_hostname`, else as server; plain without `tls`, on loopback. Closes on failure."""
    address = source_address(tcp)
    try:
        if address is None:
            raise TransportError("closed_in_handshake", "the other side closed at once")
        if tls is None:
            if not is_loopback(address):
                raise TransportError("plain_off_loopback", f"ws:// to or from {address}, which is not loopback")
            return Transport(tcp, Channel(), address)
        as_client = server_hostname is not None
        context = tls.client if as_client else tls.server
        if context is None:
            raise TransportError("tls_failed", "wss:// without certificates or a secret")
        stream = trio.SSLStream(
            tcp, context, server_hostname=server_hostname, server_side=not as_client, https_compatible=True
        )
        await stream.do_handshake()
        return Transport(stream, _channel(stream, tls, as_client=as_client), address)
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(tcp)
        raise TransportError("tls_failed", str(error.__cause__ or error)) from error
    except BaseException:
        await trio.aclose_forcefully(tcp)
        raise


def _channel(stream: trio.SSLStream[trio.SocketStream], tls: RingTls, *, as_client: bool) -> Channel:
    shown = fingerprint(stream.getpeercert(binary_form=True)) if as_client else tls.fingerprint
    names = certificate_names(stream.getpeercert()) if tls.mutual else None
    return Channel(shown, names)
