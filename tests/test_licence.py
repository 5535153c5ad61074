"""Connections of a node whose licence to serve has lapsed: not a byte but goodbye."""

import socket
import ssl

import pytest
import trio
import trio.testing
import trustme
from test_connection import read_all

from dlrproxy.sessions.connection import LICENCE_LAPSED, PlainConnection, connection_over, converse
from dlrproxy.sessions.licence import Licence

GOODBYE = b"goodbye"


def forever():
    return float("inf")


async def licensed(licence):
    """A connection and its other end, which has read nothing."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    far = await listener.accept()
    await listener.aclose()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return PlainConnection(near, "peer", licence), far


async def heard(connection, far):
    """All that the other end gets, while the connection is run to its end."""

    async def read():
        await trio.sleep_forever()

    lost = []
    received = []
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(converse, connection, read, lambda: lost.append(True))
            received.append(await read_all(far))
            await far.aclose()
    assert lost == [True]
    return received[0]


async def test_it_holds_until_its_time_or_until_it_is_revoked(autojump_clock):
    now = trio.current_time()
    until = now + 10
    licence = Licence(lambda: until)
    assert licence.valid
    await trio.sleep(9.9)
    assert licence.valid
    await trio.sleep(0.2)
    assert not licence.valid
    until = trio.current_time() + 10
    assert licence.valid
    licence.revoke()
    assert not licence.valid


async def test_what_is_said_after_it_has_lapsed_ends_the_connection_and_is_not_heard():
    licence = Licence(forever)
    connection, far = await licensed(licence)
    connection.send(b"before")
    licence.revoke()
    connection.send(b"after")
    connection.send(b"after that")
    assert connection.ended == LICENCE_LAPSED
    assert await heard(connection, far) == b"before"


async def test_a_connection_that_is_cut_says_goodbye_and_nothing_else():
    licence = Licence(forever)
    connection, far = await licensed(licence)
    connection.send(b"before")
    licence.revoke()
    connection.cut("fenced", GOODBYE)
    connection.send(b"after")
    assert connection.ended == "fenced"
    assert await heard(connection, far) == b"before" + GOODBYE


@pytest.mark.parametrize("cut", [True, False])
async def test_what_the_socket_had_no_room_for_is_taken_back(cut):
    licence = Licence(forever)
    connection, far = await licensed(licence)
    while not connection._buffer:
        connection.send(b"x" * 4096)
    waiting = len(connection._buffer)
    connection.send(b"y" * 100_000)
    licence.revoke()
    if cut:
        connection.cut("fenced", GOODBYE)
    received = await heard(connection, far) if cut else await _heard_by_a_reader(connection, far)
    assert waiting
    assert set(received) == {ord("x")}  # half of a PDU may be there: nothing can follow it


async def _heard_by_a_reader(connection, far):
    """The writer finds out by itself."""
    received = await heard(connection, far)
    assert connection.ended == LICENCE_LAPSED
    return received


async def test_one_without_a_licence_may_always():
    connection, far = await licensed(None)
    connection.send(b"said")
    connection.end("done")
    assert await heard(connection, far) == b"said"


async def secured_pair(licence):
    """Both ends of a connection over TLS, after the handshake."""
    authority = trustme.CA()
    ours, theirs = (
        ssl.create_default_context(purpose) for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH)
    )
    authority.issue_cert("node.example").configure_cert(ours)
    authority.configure_trust(theirs)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    far = await listener.accept()
    await listener.aclose()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection = connection_over(trio.SSLStream(near, ours, server_side=True, https_compatible=True), "peer", licence)
    other = trio.SSLStream(far, theirs, server_hostname="node.example", https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.handshake)
        nursery.start_soon(other.do_handshake)
    return connection, other


async def test_over_tls_goodbye_is_all_that_is_said_as_well():
    licence = Licence(forever)
    connection, other = await secured_pair(licence)
    licence.revoke()
    connection.cut("fenced", GOODBYE)
    connection.send(b"after")
    assert await heard(connection, other) == GOODBYE


async def test_over_tls_what_waits_is_taken_back_and_nothing_can_follow_it():
    licence = Licence(forever)
    connection, other = await secured_pair(licence)
    connection.send(b"x" * 100_000)
    licence.revoke()
    connection.cut("fenced", GOODBYE)
    assert await heard(connection, other) == b""
