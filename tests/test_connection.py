"""Sending without waiting, over real sockets."""

import pytest
import trio
import trio.testing

from dlrproxy.sessions.connection import HIGH_WATER, MAX_BUFFERED, Connection, Incoming, PlainConnection, converse
from protocols.smpp import constants as c
from protocols.smpp.framing import FramingError
from protocols.smpp.pdu import pack


async def socket_pair() -> tuple[Connection, trio.SocketStream]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    far = await listener.accept()
    await listener.aclose()
    return PlainConnection(near, "peer"), far


async def read_all(stream: trio.SocketStream) -> bytes:
    data = b""
    while chunk := await stream.receive_some(1 << 20):
        data += chunk
    return data


async def test_what_the_socket_does_not_take_is_sent_in_order_afterwards():
    connection, far = await socket_pair()
    sent = bytearray()
    number = 0
    while len(connection._buffer) < 100_000:
        data = b"%08d" % number * 1000
        connection.send(data)
        sent += data
        number += 1

    async def read() -> None:
        connection.end("done")

    received = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, connection, read, lambda: None)
        received.append(await read_all(far))
        await far.aclose()
    assert received == [bytes(sent)]


async def test_congestion_begins_at_high_water_and_ends_with_reading():
    connection, far = await socket_pair()
    while not connection.congested:
        connection.send(bytes(50_000))
    assert len(connection._buffer) > HIGH_WATER
    async with far, trio.open_nursery() as nursery:
        nursery.start_soon(connection.write_behind)
        nursery.start_soon(read_all, far)
        with trio.fail_after(100):
            await connection.relieved()
        nursery.cancel_scope.cancel()
    await connection.aclose(linger=False)


async def test_a_peer_that_never_reads_is_given_up():
    connection, far = await socket_pair()
    while connection.ended is None:
        connection.send(bytes(1_000_000))
    assert connection.ended == "output_overflow"
    assert len(connection._buffer) < MAX_BUFFERED + 1_000_001
    connection.send(b"more")
    await far.aclose()
    await connection.aclose(linger=False)


async def test_sending_to_a_peer_that_is_gone_ends_the_connection():
    connection, far = await socket_pair()
    await far.aclose()
    with trio.fail_after(100):
        while connection.ended is None:
            connection.send(bytes(1000))
            await trio.lowlevel.checkpoint()
    assert connection.ended.startswith("send_failed")
    await connection.aclose(linger=True)


async def test_what_was_sent_last_is_read_although_the_peer_still_sends():
    connection, far = await socket_pair()
    await far.send_all(bytes(10_000))

    async def read() -> None:
        connection.send(b"goodbye")
        connection.end("done")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, connection, read, lambda: None)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await read_all(far) == b"goodbye"
        await far.aclose()


async def test_incoming_gives_whole_pdus_and_then_the_bad_length():
    connection, far = await socket_pair()
    incoming = Incoming(connection)
    one, two = pack(c.ENQUIRE_LINK, 0, 1), pack(c.ENQUIRE_LINK, 0, 2)
    await far.send_all(one + two[:7])
    assert await incoming.next() == [one]
    await far.send_all(two[7:] + b"GET / HTTP")
    assert await incoming.next() == [two]
    with pytest.raises(FramingError):
        await incoming.next()
    await far.aclose()
    await connection.aclose(linger=False)


async def test_incoming_ends_with_the_stream():
    connection, far = await socket_pair()
    incoming = Incoming(connection)
    await far.send_all(b"\0\0")
    await far.aclose()
    assert await incoming.next() == []
    assert connection.ended == "closed_by_peer"
    await connection.aclose(linger=False)
