"""A connection to an operator: TCP from the right address, and TLS where it is wanted, all within `connect_timeout_s`.

Certificates are read again for every connection, so that renewed ones count without a reload.
"""

import logging
import ssl

import trio

from dlrproxy.config.keys import Address
from dlrproxy.config.operator import Operator
from dlrproxy.sessions.connection import TlsStream
from ring.tls import MINIMUM_VERSIONS, TlsError, client_context


class UnreachableError(Exception):
    """There is no connection; the text says why."""

    event = "operator.unreachable"
    level = logging.WARNING


class TlsRefusedError(UnreachableError):
    """There is one, and it is not secure: one side refused the other, or a file of ours cannot be used."""

    event = "operator.tls_refused"
    level = logging.ERROR  # it does not pass by itself


async def dial(operator: Operator, address: Address) -> trio.SocketStream | TlsStream:
    """Raises UnreachableError."""
    try:
        with trio.fail_after(operator.connect_timeout_s):
            # Before the connection: files that cannot be used are no reason to bother the operator.
            context = await trio.to_thread.run_sync(_context, operator) if operator.tls else None
            stream = await _connect(operator, address)
            return stream if context is None else await _secure(stream, context, operator, address)
    except trio.TooSlowError as error:
        raise UnreachableError("no connection within connect_timeout_s") from error


async def _connect(operator: Operator, address: Address) -> trio.SocketStream:
    try:
        return await trio.open_tcp_stream(address.host, address.port, local_address=operator.source_ip)
    except OSError as error:
        raise UnreachableError(_every_cause(error)) from error
    except UnicodeError as error:  # raised where the name is encoded for the resolver
        raise UnreachableError(f"{address.host} is not a host name: {error}") from error


async def _secure(
    stream: trio.SocketStream, context: ssl.SSLContext, operator: Operator, address: Address
) -> TlsStream:
    # Operators close without TLS's goodbye, as HTTPS servers do.
    name = operator.tls_server_name or address.host
    try:
        secured = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise TlsRefusedError(_why(error)) from error
    except ValueError as error:
        await trio.aclose_forcefully(stream)
        raise TlsRefusedError(f"no certificate can hold the name {name}: {error}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


def _context(operator: Operator) -> ssl.SSLContext:
    try:
        context = client_context(operator.ca_file, (operator.cert_file, operator.key_file))
    except TlsError as error:
        raise TlsRefusedError(str(error)) from error
    context.minimum_version = MINIMUM_VERSIONS[operator.tls_min_version]
    return context


def _why(error: trio.BrokenResourceError) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the operator's certificate is refused: {cause.verify_message}"
    return f"no agreement on TLS: {cause or 'the operator closed the connection'}"


def _every_cause(error: OSError) -> str:
    """trio gathers the errors of all addresses of a name in a group."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(sorted({str(each) for each in cause.exceptions}))
    return str(cause or error)
