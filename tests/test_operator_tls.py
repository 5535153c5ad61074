"""TLS to an operator: who is trusted, under which name, and what the log says when it is refused."""

import re
import socket
import ssl
from contextlib import suppress

import pytest
import structlog
import trio
import trio.testing
import trustme
from cryptography.hazmat.primitives import serialization
from operator_world import Smsc, operator_side
from relay_world import command_of, sequence_of, submit_sm_resp
from smpp_peer import Peer

from protocols.smpp import constants as c


class Strict(Smsc):
    """Refuses every handshake, and says why, as a TLS alert; trio's own streams say nothing when they refuse."""

    def __init__(self, context):
        super().__init__()
        self._context = context

    async def _serve(self, stream):
        await self._send.send(Peer(stream))
        plain = socket.socket(fileno=stream.socket.detach())
        plain.settimeout(60)
        await trio.to_thread.run_sync(self._refuse, plain)

    def _refuse(self, plain):
        with plain:
            with suppress(ssl.SSLError):
                self._context.wrap_socket(plain.dup(), server_side=True).close()
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(4096):  # closing with unread input would reset the connection, and the alert be lost
                pass


NAME = "smpp.acme.example"  # nothing that the test dials is called so


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger():
    return trustme.CA()


@pytest.fixture
def client(authority, tmp_path):
    """Settings that trust the authority and show a certificate of its own."""
    issued = authority.issue_cert("gw1.shop.example")
    issued.private_key_pem.write_to_path(tmp_path / "client.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    return {
        **trusting(authority, tmp_path),
        "cert_file": tmp_path / "client.pem",
        "key_file": tmp_path / "client.key",
    }


def trusting(authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return {"tls": True, "ca_file": tmp_path / "ca.pem"}


def certified(authority, name="127.0.0.1"):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


async def refusals(smsc, settings, count=2):
    """What the log says, and why the bind is down, when there is no agreement; it goes on trying."""
    async with operator_side(smsc, **settings) as side:
        with structlog.testing.capture_logs() as logs:
            for _ in range(count):
                await side.smsc.accept()
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert side.world.relay.binds == ()
        return [line for line in logs if line["event"] != "operator.waiting"], side.operators.slots[0].why


async def test_messages_pass_and_the_goodbye_does(authority, tmp_path):
    async with operator_side(Smsc(certified(authority)), **trusting(authority, tmp_path)) as side:
        peer = await side.smsc.bound()
        session = side.world.session()
        side.world.submit(session, 5)
        request = await peer.receive()
        await peer.send(submit_sm_resp(sequence_of(request), b"id1"))
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert session.connection.take() == [submit_sm_resp(5, b"id1")]
        side.release()
        assert command_of(await peer.receive()) == c.UNBIND


async def test_a_certificate_of_somebody_elses_is_refused_and_the_operator_named(authority, stranger, tmp_path):
    logs, why = await refusals(Smsc(certified(authority)), trusting(stranger, tmp_path))
    line = logs[0]
    assert (line["event"], line["operator"], line["log_level"]) == ("operator.tls_refused", "acme", "error")
    assert line["error"].startswith("the operator's certificate is refused: ")
    assert why == f"tls_refused: {line['error']}"


async def test_a_certificate_for_another_name_is_refused(authority, tmp_path):
    logs, _ = await refusals(Smsc(certified(authority, NAME)), trusting(authority, tmp_path))
    assert "127.0.0.1" in logs[0]["error"]


async def test_tls_server_name_is_asked_for_and_checked(authority, tmp_path):
    asked = []
    context = certified(authority, NAME)
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with operator_side(Smsc(context), **trusting(authority, tmp_path), tls_server_name=NAME) as side:
        await side.smsc.bound()
        assert asked == [NAME]


async def test_our_certificate_is_shown_to_an_operator_that_wants_one(authority, client):
    context = certified(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    async with operator_side(Smsc(context), **client) as side:
        peer = await side.smsc.bound()
        assert ("DNS", "gw1.shop.example") in peer.stream.getpeercert()["subjectAltName"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_operator_that_refuses_our_certificate_says_so_in_the_log(authority, stranger, client, version):
    """In TLS 1.3 the refusal comes when we believe the handshake done."""
    context = certified(authority)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    stranger.configure_trust(context)
    logs, why = await refusals(Strict(context), client)
    assert "unknown ca" in str(logs[0]).lower()
    assert "unknown ca" in why.lower()


async def test_an_operator_without_tls_is_not_spoken_to(authority, tmp_path):
    settings = trusting(authority, tmp_path)
    async with operator_side(**settings) as side:
        with structlog.testing.capture_logs() as logs:
            peer = await side.smsc.accept()
            await peer.stream.send_all(bytes(16))
            await side.smsc.accept()
        assert logs[0]["error"].startswith("no agreement on TLS: ")


async def test_the_oldest_version_is_a_setting(authority, tmp_path):
    context = certified(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    settings = trusting(authority, tmp_path)
    logs, _ = await refusals(Strict(context), {**settings, "tls_min_version": "1.3"})
    assert "protocol version" in logs[0]["error"].lower()
    async with operator_side(Smsc(context), **settings) as side:
        assert (await side.smsc.bound()).stream.version() == "TLSv1.2"


async def test_a_certificate_is_read_again_for_every_connection(authority, client, tmp_path):
    context = certified(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    async with operator_side(Smsc(context), **client) as side:
        peer = await side.smsc.bound()
        renewed = authority.issue_cert("renewed.shop.example")
        renewed.private_key_pem.write_to_path(tmp_path / "client.key")
        renewed.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
        await trio.aclose_forcefully(peer.stream)
        again = await side.smsc.bound()
        assert ("DNS", "renewed.shop.example") in again.stream.getpeercert()["subjectAltName"]


@pytest.fixture
def damage(client, tmp_path):
    """Ways to have files that cannot be used: what is done to them, and what the error says."""

    def encrypted():
        key = serialization.load_pem_private_key((tmp_path / "client.key").read_bytes(), None)
        kind = serialization.PrivateFormat.PKCS8
        secret = serialization.BestAvailableEncryption(b"phrase")
        (tmp_path / "client.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, secret))

    def swapped():
        (tmp_path / "client.key").write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())

    def directory():
        (tmp_path / "ca.pem").unlink()
        (tmp_path / "ca.pem").mkdir()

    together = r"cert_file .*client\.pem and key_file .*client\.key cannot be used together: "
    return {
        "no authority": ((tmp_path / "ca.pem").unlink, r"ca_file .*ca\.pem cannot be read: No such file"),
        "an empty authority": (lambda: (tmp_path / "ca.pem").write_text(""), r"ca_file .*ca\.pem holds no certificate"),
        "a directory": (directory, r"ca_file .*ca\.pem cannot be read: Is a directory"),
        "no certificate": ((tmp_path / "client.pem").unlink, r"^cert_file .*client\.pem cannot be read: No such file"),
        "no key": ((tmp_path / "client.key").unlink, r"^key_file .*client\.key cannot be read: No such file"),
        "not a certificate": (lambda: (tmp_path / "client.pem").write_text("x"), together),
        "not a key": (lambda: (tmp_path / "client.key").write_text("x"), together),
        "a key of another's": (swapped, together + "KEY_VALUES_MISMATCH"),
        "a key with a pass phrase": (encrypted, together),
    }


@pytest.mark.parametrize(
    "case",
    [
        "no authority", "an empty authority", "a directory", "no certificate", "no key", "not a certificate",
        "not a key", "a key of another's", "a key with a pass phrase",
    ],
)  # fmt: skip
async def test_files_that_cannot_be_used_are_named_with_their_keys_and_nothing_is_dialled(client, damage, case):
    act, said = damage[case]
    act()
    with structlog.testing.capture_logs() as logs:
        async with operator_side(**client) as side:
            with trio.fail_after(100):
                while not logs:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            assert side.smsc.peers == []
    assert (logs[0]["event"], logs[0]["log_level"]) == ("operator.tls_refused", "error")
    assert re.search(said, logs[0]["error"]), logs[0]["error"]


async def test_without_ca_file_the_systems_authorities_are_trusted(authority):
    logs, _ = await refusals(Smsc(certified(authority)), {"tls": True})
    assert logs[0]["error"].startswith("the operator's certificate is refused: ")
