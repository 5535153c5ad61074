"""TLS of our listeners: the certificate that one shows, read again when it is renewed.

Connections keep what they were made with. A new certificate counts from the next connection: the files are compared
with what was read (modification time, size, inode) at every one, which costs three `stat` calls, and so on SIGHUP.
Files that cannot be used change nothing but the log: the certificate in use stays.
"""

import ssl
from pathlib import Path
from typing import Literal

from attrs import frozen
from structlog.typing import FilteringBoundLogger

from dlrproxy.config.operator import Operator
from dlrproxy.config.tables import Admin
from ring.tls import MINIMUM_VERSIONS, TlsError, load_authority, load_certificate, new_context

_Stamp = tuple[tuple[int, int, int] | None, ...]  # of each file; None for one that is not there


@frozen
class Shown:
    """What a listener shows to who connects, and asks for."""

    listener: str  # names it in events: gateway, outbind, admin
    prefix: str  # what stands before cert_file, key_file and ca_file in the keys that name the files
    cert_file: Path | None
    key_file: Path | None
    ca_file: Path | None  # who connects must show a certificate that it has signed
    oldest: Literal["1.2", "1.3"]


def to_gateways(operator: Operator) -> Shown | None:
    """None: without TLS."""
    if not operator.listen_tls:
        return None
    files = operator.listen_cert_file, operator.listen_key_file, operator.listen_ca_file
    return Shown("gateway", "listen_", *files, operator.listen_tls_min)


def to_operator(operator: Operator) -> Shown | None:
    """On connections that the operator makes (outbind); None: without TLS."""
    if not operator.outbind_tls:
        return None
    files = operator.outbind_cert_file, operator.outbind_key_file, operator.outbind_ca_file
    return Shown("outbind", "outbind_", *files, operator.outbind_tls_min)


def to_administrators(admin: Admin) -> Shown | None:
    """Of the HTTP API on TCP; None: without TLS."""
    if not admin.tls:
        return None
    return Shown("admin", "admin.", admin.cert_file, admin.key_file, admin.ca_file, admin.tls_min_version)


class ListenTls:
    """The certificate in use."""

    def __init__(self, shown: Shown, log: FilteringBoundLogger) -> None:
        """Raises TlsError when the files cannot be used."""
        self._shown = shown
        self._log = log
        self._stamp = self._stamp_now()
        self._context = self._read()

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        self.renew()
        return self._context

    def renew(self) -> None:
        """Read the files again if they have changed."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp  # also of files that cannot be used: they are tried again when they change again
        shown = self._shown
        try:
            self._context = self._read()
        except TlsError as error:
            self._log.error(
                f"{shown.listener}.certificate_unusable", detail=str(error), consequence="the one in use stays"
            )
        else:
            self._log.info(f"{shown.listener}.certificate_renewed", file=str(shown.cert_file))

    def _stamp_now(self) -> _Stamp:
        shown = self._shown
        return tuple(_stamp_of(file) for file in (shown.cert_file, shown.key_file, shown.ca_file) if file is not None)

    def _read(self) -> ssl.SSLContext:
        shown = self._shown
        if shown.cert_file is None or shown.key_file is None:
            raise TlsError(f"TLS needs {shown.prefix}cert_file and {shown.prefix}key_file")
        context = new_context(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = MINIMUM_VERSIONS[shown.oldest]
        load_certificate(context, shown.cert_file, shown.key_file, shown.prefix)
        if shown.ca_file is not None:
            load_authority(context, shown.ca_file, shown.prefix)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
