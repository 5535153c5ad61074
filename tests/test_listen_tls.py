"""TLS towards the gateways: who is let in, and certificates that are renewed while sessions go on."""

import os
import ssl
from contextlib import suppress

import pytest
import structlog
import trio
import trustme
from gateway_world import gateway_side
from relay_world import World, heads
from smpp_peer import bind_request

from dlrproxy.gateways import Gateways
from protocols.smpp import constants as c
from protocols.smpp.pdu import pack
from ring.tls import TlsError


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


class Files:
    """The certificate files of a listener."""

    def __init__(self, directory) -> None:
        self.cert, self.key, self.ca = (directory / name for name in ("listen.pem", "listen.key", "ca.pem"))
        self._renewals = 0

    def certify(self, authority: trustme.CA) -> None:
        issued = authority.issue_cert("127.0.0.1")
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.touch()

    def touch(self) -> None:
        """As if time had gone by: tests are faster than the file system's clock."""
        self._renewals += 1
        for file in (self.cert, self.key):
            os.utime(file, (1e9 + self._renewals, 1e9 + self._renewals))

    @property
    def settings(self) -> dict[str, object]:
        return {"listen_tls": True, "listen_cert_file": self.cert, "listen_key_file": self.key}


@pytest.fixture
def files(tmp_path, authority):
    files = Files(tmp_path)
    files.certify(authority)
    return files


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def refused(side, tls: ssl.SSLContext | None = None) -> None:
    """Somebody dials and tries to bind, and hears nothing but the end of the connection."""
    peer = await side.dial(tls=tls)
    heard = b""
    with trio.fail_after(100), suppress(trio.BrokenResourceError):
        await peer.send(bind_request())
        heard = await peer.stream.receive_some()
    await trio.aclose_forcefully(peer.stream)
    assert heard[:1] in (b"", b"\x15")  # a plain stream gets TLS's alert


async def test_a_session_over_tls(files, authority):
    async with gateway_side(**files.settings) as side:
        side.world.bind()
        peer = await side.bound(tls=trusting(authority))
        flood = [pack(c.ENQUIRE_LINK, 0, sequence) for sequence in range(2, 2000)]
        await peer.send(*flood)
        assert [await peer.receive() for _ in flood] == [pack(c.ENQUIRE_LINK_RESP, 0, n) for n in range(2, 2000)]
        await peer.send(pack(c.UNBIND, 0, 9))
        assert await peer.receive_until_end() == [pack(c.UNBIND_RESP, 0, 9)]  # with TLS's goodbye, or this raises
        await peer.aclose()
        await side.ended()


async def test_stop_says_goodbye_over_tls(files, authority):
    async with gateway_side(**files.settings) as side:
        side.world.bind()
        peer = await side.bound(tls=trusting(authority))
        side.nursery.start_soon(side.gateways.stop)
        assert heads([await peer.receive()]) == [("unbind", 0, 1)]
        await peer.send(pack(c.UNBIND_RESP, 0, 1))
        assert await peer.receive_until_end() == []
        await peer.aclose()
        await side.ended()


async def test_a_plain_gateway_is_told_apart(files):
    async with gateway_side(**files.settings) as side:
        side.world.bind()
        with structlog.testing.capture_logs() as logs:
            await refused(side)
            await side.ended()
        assert [log["event"] for log in logs] == ["gateway.tls_failed", "gateway.gone"]
        assert "WRONG_VERSION_NUMBER" in logs[0]["error"]
        assert (side.world.counters.tls_failed, side.world.relay.sessions) == (1, ())


async def test_one_who_says_nothing_has_as_long_as_a_bind(files):
    async with gateway_side(session_init_s=10, **files.settings) as side:
        peer = await side.dial()
        await trio.testing.wait_all_tasks_blocked(0.01)
        side.world.tick(10)
        assert await peer.receive() is None


async def test_an_old_version_of_tls_is_refused(files, authority):
    async with gateway_side(listen_tls_min="1.3", **files.settings) as side:
        side.world.bind()
        old = trusting(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        await refused(side, old)
        await side.bound(tls=trusting(authority))


@pytest.mark.parametrize("shown", [None, "another's"])
async def test_a_gateway_without_the_certificate_that_is_asked_for_is_refused(files, authority, shown):
    authority.cert_pem.write_to_path(str(files.ca))
    async with gateway_side(listen_ca_file=files.ca, **files.settings) as side:
        side.world.bind()
        stranger = trusting(authority)
        if shown is not None:
            trustme.CA().issue_cert("gw1").configure_cert(stranger)
        await refused(side, stranger)
        await side.ended()
        assert side.world.counters.tls_failed == 1
        known = trusting(authority)
        authority.issue_cert("gw1").configure_cert(known)
        await side.bound(tls=known)


async def test_a_renewed_certificate_counts_from_the_next_session_and_ends_none(files, authority):
    async with gateway_side(**files.settings) as side:
        side.world.bind()
        before = await side.bound(tls=trusting(authority))
        renewed = trustme.CA()
        files.certify(renewed)
        await side.bound(tls=trusting(renewed))
        await refused(side, trusting(authority))
        await before.send(pack(c.ENQUIRE_LINK, 0, 2))
        assert await before.receive() == pack(c.ENQUIRE_LINK_RESP, 0, 2)


async def test_a_broken_certificate_leaves_the_old_one_and_says_so_once(files, authority):
    async with gateway_side(**files.settings) as side:
        side.world.bind()
        files.key.write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())  # the certificate is yet to come
        files.touch()
        with structlog.testing.capture_logs() as logs:
            side.gateways.renew_certificates()
            await side.bound(tls=trusting(authority))
            files.cert.unlink()
            await side.bound(tls=trusting(authority))
            files.certify(authority)
            side.gateways.renew_certificates()
        named = [log["event"] for log in logs if "certificate" in log["event"]]
        assert named == ["gateway.certificate_unusable"] * 2 + ["gateway.certificate_renewed"]
        assert [log["log_level"] for log in logs if "detail" in log] == ["error"] * 2
        await side.bound(tls=trusting(authority))


async def test_it_does_not_start_with_a_certificate_that_cannot_be_used(files):
    files.cert.write_text("no certificate")
    world = World(**files.settings)
    with pytest.raises(TlsError, match=r"listen\.pem"):
        await Gateways(world.relay, structlog.get_logger()).run()
