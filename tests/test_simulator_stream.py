"""The simulators' streams and agenda, over real sockets and in real time."""

import socket
import time

import pytest
import trio
import trio.testing

from dlrproxy.simulator.agenda import Agenda
from dlrproxy.simulator.stream import SmppStream, StreamEndedError, accept, connect, flush_all, listening_socket
from protocols.smpp import constants as c
from protocols.smpp.pdu import pack


@pytest.fixture
async def pair():
    """Two connected streams that share a list of what is to be flushed."""
    dirty = []
    left, right = (SmppStream(end, dirty) for end in tcp_pair())
    yield left, right, dirty
    left.close()
    right.close()


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    return left, right


async def test_whole_pdus_come_out_however_they_were_cut():
    plain, other = tcp_pair()
    stream = SmppStream(other, [])
    pdus = [pack(c.ENQUIRE_LINK, 0, number) for number in range(3)]
    data = b"".join(pdus)
    received = []
    for start, end in ((0, 5), (5, 20), (20, 48)):
        plain.sendall(data[start:end])
        received.append(await stream.receive())
    assert received == [[], pdus[:1], pdus[1:]]
    plain.close()
    stream.close()


async def test_what_the_socket_does_not_take_is_written_later(pair, nursery):
    left, right, dirty = pair
    nursery.start_soon(left.run_writer)
    pdus = [pack(c.SUBMIT_SM, 0, number, bytes(60_000)) for number in range(400)]  # 24 MB: above any socket buffer
    for pdu in pdus:
        left.write(pdu)
        flush_all(dirty)
    received = []
    while len(received) < len(pdus):
        received += await right.receive()
    assert received == pdus
    nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_read_is_not_read_from(pair, nursery):
    left, right, dirty = pair
    nursery.start_soon(left.run_writer)
    for number in range(400):
        left.write(pack(c.SUBMIT_SM, 0, number, bytes(60_000)))
    flush_all(dirty)
    right.write(pack(c.ENQUIRE_LINK, 0, 1))
    flush_all(dirty)
    with trio.move_on_after(0.1) as waiting:
        await left.receive()
    assert waiting.cancelled_caught
    total = 0
    while total < 400:
        total += len(await right.receive())
    assert await left.receive() == [pack(c.ENQUIRE_LINK, 0, 1)]
    nursery.cancel_scope.cancel()


async def test_pdus_before_a_bad_length_are_handled_and_then_the_stream_ends():
    plain, other = tcp_pair()
    stream = SmppStream(other, [])
    good = pack(c.ENQUIRE_LINK, 0, 1)
    plain.sendall(good + b"HTTP/1.1 200 OK\r\n\r\n")
    assert await stream.receive() == [good]
    with pytest.raises(StreamEndedError, match="not SMPP"):
        await stream.receive()
    plain.close()
    stream.close()


async def test_closing_ends_whoever_waits(pair, nursery):
    left, _, _ = pair
    ended = trio.Event()

    async def read():
        with pytest.raises(StreamEndedError):
            await left.receive()
        ended.set()

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked()
    left.close()
    await ended.wait()
    with pytest.raises(StreamEndedError):
        await left.receive()


async def test_closed_by_the_peer(pair):
    left, right, dirty = pair
    right.close()
    with pytest.raises(StreamEndedError, match="closed by the peer"):
        await left.receive()
    left.write(b"too late")
    flush_all(dirty)


async def test_connect_and_accept(nursery):
    listener = listening_socket("127.0.0.1", 0)
    plain = await connect("127.0.0.1", listener.getsockname()[1])
    connected, host = await accept(listener)
    assert host == "127.0.0.1"
    for each in (plain, connected, listener):
        each.close()


async def test_connection_refused():
    listener = listening_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(OSError, match="refused"):
        await connect("127.0.0.1", port)


async def test_agenda_keeps_order_and_is_woken_by_what_is_due_earlier(nursery):
    done = []
    batches = []
    over = trio.Event()
    agenda = Agenda(lambda: batches.append(len(done)))
    nursery.start_soon(agenda.run)
    await trio.testing.wait_all_tasks_blocked()
    began = time.monotonic()
    agenda.at(began + 0.05, lambda: (done.append("late"), over.set()))
    await trio.testing.wait_all_tasks_blocked()
    agenda.at(began, lambda: done.append("first"))
    agenda.at(began, lambda: done.append("second"))
    await over.wait()
    assert done == ["first", "second", "late"]
    assert batches[0] == 2
    assert time.monotonic() - began >= 0.05
    nursery.cancel_scope.cancel()
