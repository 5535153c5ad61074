"""What secures the links: mutual TLS, or a shared secret over TLS with a certificate made up at start, or nothing.

With mutual TLS both ends check the other's certificate against `ca_file`; the handshake then checks the name in it.
With a shared secret nobody checks a certificate: TLS encrypts, and the handshake's proof covers the fingerprint of the
certificate that the server showed, so that a man in the middle, who must show his own, cannot pass the proof on.
"""

import datetime as dt
import secrets
import ssl
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# An active attacker gets one proof to try passwords against, at his leisure: a secret must not be guessable.
SHORTEST_SECRET: Final = 16  # bytes
# As settings name them, for SMPP links too.
MINIMUM_VERSIONS: Final = MappingProxyType({"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3})
_VALID_FOR: Final = dt.timedelta(days=3650)  # longer than a process runs; nobody checks it


class TlsError(ValueError):
    """Certificates, key or secret cannot be used; the text names the file and what is wrong with it."""


@attrs.frozen
class RingTls:
    """The TLS contexts of both roles and the shared secret. Make one with the functions below.

    `fingerprint` is the SHA-256 of the certificate that our server side shows.
    """

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None
    fingerprint: bytes = b""
    secret: bytes | None = attrs.field(default=None, repr=False)
    mutual: bool = False

    @property
    def authenticates(self) -> bool:
        """Whether a stranger can be told from a peer."""
        return self.mutual or self.secret is not None


def plain() -> RingTls:
    """No encryption and no authentication: for loopback only, which the link enforces."""
    return RingTls()


def mutual(ca_file: Path, cert_file: Path, key_file: Path, secret: bytes | None = None) -> RingTls:
    """Both ends show a certificate signed by `ca_file`; a secret, if given, is asked for as well. Raises TlsError."""
    server = new_context(ssl.PROTOCOL_TLS_SERVER)
    client = new_context(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # the handshake checks names, for both roles and by the same rule
    for context in (server, client):
        context.verify_mode = ssl.CERT_REQUIRED
        load_authority(context, ca_file)
        load_certificate(context, cert_file, key_file)
    return RingTls(server, client, _fingerprint_of(cert_file), _checked(secret), mutual=True)


def shared_secret(secret: bytes) -> RingTls:
    """TLS with a throw-away certificate, and the handshake's proof over it.

    Raises TlsError for a short secret, and when there is no room for a temporary file.
    """
    _checked(secret)
    server = new_context(ssl.PROTOCOL_TLS_SERVER)
    fingerprint = _load_throw_away_certificate(server)
    client = new_context(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE  # the proof takes its place
    return RingTls(server, client, fingerprint, secret)


def fingerprint(certificate: bytes) -> bytes:
    """Of a certificate in DER."""
    return sha256(certificate).digest()


def certificate_names(certificate: Mapping[str, Any]) -> frozenset[str]:
    """The names in a verified certificate, as `ssl.SSLSocket.getpeercert` gives it: every SAN, and every CN.

    In lower case, IP addresses in their shortest form. Wildcards stay as they are and so match nobody: a certificate
    must name its node.
    """
    names = {value for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}}
    names |= {value for rdn in certificate.get("subject", ()) for key, value in rdn if key == "commonName"}
    return frozenset(map(canonical_name, names))


def canonical_name(name: str) -> str:
    """A node's name or host as `certificate_names` spells it."""
    try:
        return str(ip_address(name))
    except ValueError:
        return name.lower().rstrip(".")


def new_context(protocol: int) -> ssl.SSLContext:
    """TLS 1.2 at least, and without what has been attacked before. It holds no certificates yet."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def client_context(
    ca_file: Path | None, certificate: tuple[Path | None, Path | None] = (None, None), prefix: str = ""
) -> ssl.SSLContext:
    """Checks the server's certificate and the name in it, and shows ours where both files of that are given.

    Without `ca_file` the system's authorities are trusted. Raises TlsError; `prefix` as in `load_authority`.
    """
    context = new_context(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is None:
        context.load_default_certs()
    else:
        load_authority(context, ca_file, prefix)
    cert_file, key_file = certificate
    if cert_file is not None and key_file is not None:
        load_certificate(context, cert_file, key_file, prefix)
    return context


def load_authority(context: ssl.SSLContext, ca_file: Path, prefix: str = "") -> None:
    """The certificates that sign those of the other side. Raises TlsError.

    `prefix` stands before "ca_file" in the key that names the file, and so in the error.
    """
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError as error:
        raise TlsError(f"{prefix}ca_file {ca_file} holds no certificate in PEM: {error.reason or error}") from error
    except OSError as error:
        raise TlsError(f"{prefix}ca_file {ca_file} cannot be read: {error.strerror}") from error


def load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path, prefix: str = "") -> None:
    """Our own certificate and its key. Raises TlsError; `prefix` as above."""
    for name, file in (("cert_file", cert_file), ("key_file", key_file)):
        try:
            file.open("rb").close()  # OpenSSL does not say which of the two it cannot read
        except OSError as error:
            raise TlsError(f"{prefix}{name} {file} cannot be read: {error.strerror}") from error
    try:
        # The empty password keeps OpenSSL from asking for one on the terminal when the key is encrypted.
        context.load_cert_chain(cert_file, key_file, password="")
    except ssl.SSLError as error:
        raise TlsError(
            f"{prefix}cert_file {cert_file} and {prefix}key_file {key_file} cannot be used together: "
            f"{error.reason or error}"
        ) from error
    except OSError as error:  # it was taken away since
        raise TlsError(
            f"{prefix}cert_file {cert_file} or {prefix}key_file {key_file} cannot be read: {error.strerror}"
        ) from error


def _fingerprint_of(cert_file: Path) -> bytes:
    """Of the first certificate in the file, which is the one that TLS shows. Raises TlsError."""
    try:
        certificate = x509.load_pem_x509_certificates(cert_file.read_bytes())[0]
    except OSError as error:  # it was taken away since it was loaded
        raise TlsError(f"cert_file {cert_file} cannot be read: {error.strerror}") from error
    except ValueError as error:  # or replaced, and is half written
        raise TlsError(f"cert_file {cert_file} holds no certificate in PEM: {error}") from error
    return fingerprint(certificate.public_bytes(serialization.Encoding.DER))


def _load_throw_away_certificate(context: ssl.SSLContext) -> bytes:
    """Make a key and a certificate, load them, and return the certificate's fingerprint.

    Python's ssl loads keys from files only, so they pass through a private directory, the key encrypted under a
    password that exists in this function alone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dlrproxy ring link")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + _VALID_FOR)
        .sign(key, hashes.SHA256())
    )
    password = secrets.token_bytes(32).hex()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    try:
        with tempfile.TemporaryDirectory(prefix="dlrproxy-") as directory:
            path = Path(directory) / "link.pem"
            path.write_bytes(pem)
            context.load_cert_chain(path, password=password)
    except OSError as error:  # a full disk, for instance
        raise TlsError(f"the links' certificate cannot be written to a temporary file: {error}") from error
    return fingerprint(certificate.public_bytes(serialization.Encoding.DER))


def _checked(secret: bytes | None) -> bytes | None:
    if secret is not None and len(secret) < SHORTEST_SECRET:
        raise TlsError(f"the ring's secret has {len(secret)} bytes; it must have {SHORTEST_SECRET} at least")
    return secret
