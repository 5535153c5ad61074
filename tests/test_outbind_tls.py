"""TLS on connections that the operator makes: who is let in, and certificates that are renewed meanwhile."""

import os
import ssl
from contextlib import suppress

import pytest
import structlog
import trio
import trio.testing
import trustme
from relay_world import World, command_of
from test_outbind import LISTEN, listening, outbind

from dlrproxy.operators import Operators
from protocols.smpp import constants as c
from protocols.smpp.pdu import pack
from ring.tls import TlsError


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


class Files:
    """What the listener for outbind shows."""

    def __init__(self, directory):
        self.cert, self.key, self.ca = (directory / name for name in ("outbind.pem", "outbind.key", "ca.pem"))
        self._renewals = 0

    def certify(self, authority):
        issued = authority.issue_cert("127.0.0.1")
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.cert.write_bytes(issued.cert_chain_pems[0].bytes())
        self._renewals += 1
        for file in (self.cert, self.key):  # as if time had gone by
            os.utime(file, (1e9 + self._renewals, 1e9 + self._renewals))

    @property
    def settings(self):
        return {"outbind_tls": True, "outbind_cert_file": self.cert, "outbind_key_file": self.key}


@pytest.fixture
def files(tmp_path, authority):
    files = Files(tmp_path)
    files.certify(authority)
    return files


def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def turned_away(side, tls):
    """Somebody connects, sends outbind, and hears nothing but the end: what the log says of it."""
    with structlog.testing.capture_logs() as logs:
        peer = await side.connect(tls)
        heard = b""
        with suppress(trio.BrokenResourceError):
            await peer.send(outbind())
            heard = await peer.stream.receive_some()
        assert heard[:1] in (b"", b"\x15")  # a plain stream gets TLS's alert
        await trio.aclose_forcefully(peer.stream)
        while not any(line["event"] == "operator.bind_ended" for line in logs):
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert side.world.relay.binds == ()
    return [line for line in logs if line["event"] == "outbind.tls_failed"]


async def test_outbind_and_our_bind_over_tls(files, authority):
    async with listening(**files.settings) as side:
        peer = await side.bound(tls=trusting(authority))
        assert peer.stream.version() == "TLSv1.3"
        await peer.send(pack(c.ENQUIRE_LINK, 0, 7))
        assert await peer.receive() == pack(c.ENQUIRE_LINK_RESP, 0, 7)
        [slot] = side.operators.slots
        assert slot.name == "outbind1"
        side.scope.cancel()
        with trio.CancelScope(shield=True):
            assert command_of(await peer.receive()) == c.UNBIND
            await peer.aclose()


async def test_who_speaks_no_tls_is_cut_off_and_counted(files):
    async with listening(**files.settings) as side:
        [line] = await turned_away(side, None)
        assert line["operator"] == "acme"
        assert side.world.counters.tls_failed == 1


async def test_who_says_nothing_has_as_long_as_an_outbind(files):
    async with listening(session_init_s=10, **files.settings) as side:
        peer = await side.connect()
        await trio.testing.wait_all_tasks_blocked(0.01)
        side.world.tick(10)
        assert await peer.stream.receive_some() == b""


async def test_an_old_version_of_tls_is_refused(files, authority):
    async with listening(outbind_tls_min="1.3", **files.settings) as side:
        old = trusting(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        [line] = await turned_away(side, old)
        assert "UNSUPPORTED_PROTOCOL" in line["error"]
        await side.bound(tls=trusting(authority))


@pytest.mark.parametrize("shown", ["nothing", "another's"])
async def test_an_operator_without_the_certificate_that_is_asked_for_is_refused(files, authority, shown):
    authority.cert_pem.write_to_path(files.ca)
    async with listening(outbind_ca_file=files.ca, **files.settings) as side:
        stranger = trusting(authority)
        if shown == "another's":
            trustme.CA().issue_cert("smsc").configure_cert(stranger)
        assert len(await turned_away(side, stranger)) == 1
        known = trusting(authority)
        authority.issue_cert("smsc").configure_cert(known)
        await side.bound(tls=known)


async def test_a_renewed_certificate_counts_from_the_next_connection_and_ends_none(files, authority):
    async with listening(**files.settings) as side:
        before = await side.bound(tls=trusting(authority))
        renewed = trustme.CA()
        files.certify(renewed)
        with structlog.testing.capture_logs() as logs:
            side.operators.renew_certificates()
        assert [line["event"] for line in logs] == ["outbind.certificate_renewed"]
        await side.bound(tls=trusting(renewed))
        await before.send(pack(c.ENQUIRE_LINK, 0, 2))
        assert await before.receive() == pack(c.ENQUIRE_LINK_RESP, 0, 2)


async def test_a_broken_certificate_leaves_the_old_one_and_names_the_keys(files, authority):
    async with listening(**files.settings) as side:
        files.key.write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
        with structlog.testing.capture_logs() as logs:
            side.operators.renew_certificates()
        assert [line["event"] for line in logs] == ["outbind.certificate_unusable"]
        assert f"outbind_key_file {files.key}" in logs[0]["detail"]
        await side.bound(tls=trusting(authority))


async def test_it_does_not_start_with_a_certificate_that_cannot_be_used(files):
    files.cert.write_text("no certificate")
    world = World(binds=0, outbind_listen=LISTEN, **files.settings)
    with pytest.RaisesGroup(pytest.RaisesExc(TlsError, match=r"outbind_cert_file .*outbind\.pem")):
        await Operators(world.relay, structlog.get_logger()).run()
