"""TLS towards the gateways: the certificate that the listeners of one operator show, read again when it is renewed.

Sessions keep what they were made with. A new certificate counts from the next connection: the files are compared with
what was read (modification time, size, inode) at every one, which costs three `stat` calls, and so on SIGHUP. Files
that cannot be used change nothing but the log: the certificate in use stays.
"""

import ssl
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from dlrproxy.config.operator import Operator
from ring.tls import MINIMUM_VERSIONS, TlsError, load_authority, load_certificate, new_context

_Stamp = tuple[tuple[int, int, int] | None, ...]  # of each file; None for one that is not there


class ListenTls:
    """Certificate and key of an operator with `listen_tls`."""

    def __init__(self, operator: Operator, log: FilteringBoundLogger) -> None:
        """Raises TlsError when the files cannot be used."""
        self._operator = operator
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
        try:
            self._context = self._read()
        except TlsError as error:
            self._log.error("gateway.certificate_unusable", detail=str(error), consequence="the one in use stays")
        else:
            self._log.info("gateway.certificate_renewed", file=str(self._operator.listen_cert_file))

    def _files(self) -> tuple[Path | None, ...]:
        operator = self._operator
        return operator.listen_cert_file, operator.listen_key_file, operator.listen_ca_file

    def _stamp_now(self) -> _Stamp:
        return tuple(_stamp_of(file) for file in self._files() if file is not None)

    def _read(self) -> ssl.SSLContext:
        cert_file, key_file, ca_file = self._files()
        if cert_file is None or key_file is None:
            raise TlsError("listen_tls needs listen_cert_file and listen_key_file")
        context = new_context(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = MINIMUM_VERSIONS[self._operator.listen_tls_min]
        load_certificate(context, cert_file, key_file)
        if ca_file is not None:
            load_authority(context, ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
