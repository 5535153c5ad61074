"""ring/tls.py: what secures the links, and what cannot."""

import ssl
from types import SimpleNamespace

import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization

from dlrproxy.config.tables import Ring
from dlrproxy.modes.link_security import link_security
from dlrproxy.secret import Secret
from ring import tls
from ring.peer_url import PeerUrl, is_loopback, leaves_the_machine

SECRET = b"a secret of sixteen bytes or more"


@pytest.fixture
def files(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("gw1", "10.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "node.pem")
    issued.private_key_pem.write_to_path(tmp_path / "node.key")
    return tmp_path


async def handshake(server, client):
    """Both ends of a TLS connection in memory, after the handshake."""
    left, right = trio.testing.memory_stream_pair()
    serving = trio.SSLStream(left, server, server_side=True)
    dialling = trio.SSLStream(right, client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serving.do_handshake)
        await dialling.do_handshake()
    return serving, dialling


async def test_a_shared_secret_needs_no_certificate_and_shows_the_fingerprint_that_it_binds():
    mine, other = tls.shared_secret(SECRET), tls.shared_secret(SECRET)
    assert mine.authenticates
    assert not mine.mutual
    assert mine.fingerprint != other.fingerprint  # made up anew
    _, dialling = await handshake(mine.server, other.client)
    assert tls.fingerprint(dialling.getpeercert(binary_form=True)) == mine.fingerprint
    assert dialling.version() == "TLSv1.3"


async def test_certificates_are_checked_by_both_ends(files):
    ring = tls.mutual(files / "ca.pem", files / "node.pem", files / "node.key")
    assert ring.authenticates
    assert ring.mutual
    serving, dialling = await handshake(ring.server, ring.client)
    for end in (serving, dialling):
        assert tls.certificate_names(end.getpeercert()) >= {"gw1", "10.0.0.1"}
    assert tls.fingerprint(dialling.getpeercert(binary_form=True)) == ring.fingerprint


@pytest.mark.parametrize("role", ["server", "client"])
def test_nothing_below_tls_1_2(files, role):
    for ring in (tls.shared_secret(SECRET), tls.mutual(files / "ca.pem", files / "node.pem", files / "node.key")):
        assert getattr(ring, role).minimum_version is ssl.TLSVersion.TLSv1_2


def test_plain_authenticates_nobody_unless_there_is_a_secret():
    assert not tls.plain().authenticates


def test_a_secret_that_could_be_guessed_is_refused():
    with pytest.raises(tls.TlsError, match="the ring's secret has 6 bytes; it must have 16 at least"):
        tls.shared_secret(b"secret")


def test_the_secret_is_not_shown():
    assert SECRET.decode() not in repr(tls.shared_secret(SECRET))


def broken(files, name, content):
    path = files / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ca.pem", None, r"ca_file .*ca\.pem cannot be read: No such file"),
        ("ca.pem", b"no certificate", r"ca_file .*ca\.pem holds no certificate in PEM"),
        ("node.pem", None, r"cert_file .*node\.pem cannot be read: No such file"),
        ("node.pem", b"no certificate", r"cert_file .*node\.pem and key_file .*node\.key cannot be used"),
        ("node.key", None, r"cannot be read: No such file"),
        ("node.key", b"no key", r"cert_file .*node\.pem and key_file .*node\.key cannot be used"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(files, name, content, message):
    broken(files, name, content)
    with pytest.raises(tls.TlsError, match=message):
        tls.mutual(files / "ca.pem", files / "node.pem", files / "node.key")


def test_a_key_of_another_certificate_is_refused(files):
    trustme.CA().issue_cert("gw1").private_key_pem.write_to_path(files / "node.key")
    with pytest.raises(tls.TlsError, match="cannot be used"):
        tls.mutual(files / "ca.pem", files / "node.pem", files / "node.key")


def test_an_encrypted_key_is_refused_without_asking_for_its_password(files):
    key = serialization.load_pem_private_key((files / "node.key").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    (files / "node.key").write_bytes(encrypted)
    with pytest.raises(tls.TlsError, match=r"key_file .*node\.key cannot be used"):
        tls.mutual(files / "ca.pem", files / "node.pem", files / "node.key")


def test_names_are_those_of_san_and_cn_in_one_spelling():
    certificate = {
        "subject": ((("organizationName", "Shop"),), (("commonName", "GW1"),)),
        "subjectAltName": (("DNS", "Gw1.Example.COM"), ("IP Address", "2001:DB8:0:0:0:0:0:1"), ("URI", "x:y")),
    }
    assert tls.certificate_names(certificate) == {"gw1", "gw1.example.com", "2001:db8::1"}
    assert tls.certificate_names({}) == frozenset()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("wss://10.0.0.1:7301", PeerUrl(tls=True, host="10.0.0.1", port=7301)),
        ("ws://localhost:1", PeerUrl(tls=False, host="localhost", port=1)),
        ("wss://[2001:db8::1]:7301", PeerUrl(tls=True, host="2001:db8::1", port=7301)),
    ],
)
def test_a_peer_url_reads_and_writes_the_same(text, url):
    assert PeerUrl.parse(text) == url
    assert str(url) == text


@pytest.mark.parametrize(
    "text", ["http://a:1", "wss://a", "wss://:7301", "a:7301", "", "wss://a:port", "wss://a:99999"]
)
def test_anything_else_is_no_peer_url(text):
    with pytest.raises(ValueError, match=r"must|[Pp]ort"):
        PeerUrl.parse(text)


def test_what_is_loopback():
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "example.org"]))
    assert leaves_the_machine(PeerUrl.parse("ws://10.0.0.1:1"))
    assert not leaves_the_machine(PeerUrl.parse("ws://[::1]:1"))
    assert not leaves_the_machine(PeerUrl.parse("ws://some.name:1"))  # known when it is resolved


def test_a_certificate_that_cannot_be_written_is_told_as_such(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(tls.TlsError, match="temporary file"):
        tls.shared_secret(SECRET)


def test_a_reload_makes_no_new_certificate_for_the_secret_that_is_in_force(monkeypatch, tmp_path):
    config = SimpleNamespace(ring=Ring(secret=Secret(SECRET)))
    in_force = link_security(config)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert link_security(config, in_force) is in_force
    with pytest.raises(tls.TlsError):
        link_security(SimpleNamespace(ring=Ring(secret=Secret(SECRET + b"2"))), in_force)


def test_a_certificate_that_is_taken_away_while_it_is_read_is_named(files):
    """Who renews it removes the old one first: a moment ago it could be opened."""

    class Vanishing(type(files)):
        def open(self, *args):
            found = super().open(*args)
            self.unlink()
            return found

    context = tls.new_context(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(tls.TlsError, match=r"listen_cert_file .*node\.pem"):
        tls.load_certificate(context, Vanishing(files / "node.pem"), files / "node.key", "listen_")


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nhalf"])
def test_a_certificate_that_changes_between_loading_and_naming_it(files, content, monkeypatch):
    load, loaded = tls.load_certificate, []

    def load_and_lose(context, cert_file, key_file):
        load(context, cert_file, key_file)
        loaded.append(context)
        if len(loaded) < 2:
            return  # the server's; the client's is the last
        if content is None:
            cert_file.unlink()
        else:
            cert_file.write_bytes(content)

    monkeypatch.setattr(tls, "load_certificate", load_and_lose)
    with pytest.raises(tls.TlsError, match=r"cert_file .*node\.pem"):
        tls.mutual(files / "ca.pem", files / "node.pem", files / "node.key")
