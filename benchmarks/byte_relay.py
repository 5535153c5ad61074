"""The floor: a relay that copies bytes and knows nothing of SMPP. One reader task a socket, as dlrproxy has.

python -m benchmarks.byte_relay LISTEN_PORT TARGET_PORT
"""

import socket
import sys

import trio

RECEIVE_SIZE = 256 * 1024


async def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends; a target that does not read stops the reading of its source."""
    while True:
        await trio.lowlevel.wait_readable(source)
        try:
            data = source.recv(RECEIVE_SIZE)
        except BlockingIOError:  # woken for nothing, as the operating system may
            continue
        if not data:
            return
        left = memoryview(data)
        while left:
            try:
                left = left[target.send(left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(target)


async def _pair(near: socket.socket, target_port: int) -> None:
    """Both directions, until either end is gone."""
    far = socket.create_connection(("127.0.0.1", target_port))  # loopback: done at once
    for end in (near, far):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            await _copy(source, target)
        except ConnectionError:
            print("a connection was reset", file=sys.stderr)
        nursery.cancel_scope.cancel()

    with near, far:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, near, far)
            nursery.start_soon(copy, far, near)


async def relay(port: int, target_port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                connected, _ = listener.accept()
                nursery.start_soon(_pair, connected, target_port)


if __name__ == "__main__":
    trio.run(relay, int(sys.argv[1]), int(sys.argv[2]))
