"""The HTTP API over real sockets: who gets in, what the sockets are like, how it starts and ends."""

import contextlib
import gc
import json
import os
import socket
import stat
import struct

import h11
import hypercorn.config
import pytest
import structlog
import trio
from admin_world import FakeNode, asking, serving

from dlrproxy.admin import server
from dlrproxy.admin.client import AdminError, Client, NotRunningError
from dlrproxy.admin.reach import Directory
from dlrproxy.admin.view import NodeStatus

LISTEN = '[admin]\nlisten = "127.0.0.1:0"'


@pytest.fixture
def node():
    return FakeNode()


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text("open sesame\n")
    path.chmod(0o600)
    return f'{LISTEN}\ntoken_file = "{path}"'


async def fetch(address, path="/status", method="GET", **headers):
    """Status, headers and body, over TCP."""
    protocol = h11.Connection(h11.CLIENT)
    sent = {"host": "localhost", "connection": "close"} | {name.replace("_", "-"): it for name, it in headers.items()}
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        await stream.send_all(protocol.send(h11.Request(method=method, target=path, headers=list(sent.items()))))
        await stream.send_all(protocol.send(h11.EndOfMessage()))
        async for data in stream:
            protocol.receive_data(data)
        protocol.receive_data(b"")
    response, body = None, b""
    while not isinstance(event := protocol.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            body += event.data
        else:
            response = event
    return response.status_code, dict(response.headers), body


async def test_the_unix_socket_serves_this_user_alone(node, tmp_path):
    async with serving(node, tmp_path) as address:
        assert address is None
        found = (tmp_path / "admin.sock").stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert await asking(tmp_path, "get", "/status", NodeStatus) == node.answer
    assert list(tmp_path.iterdir()) == []


async def test_the_unix_socket_needs_no_token(node, tmp_path, token):
    async with serving(node, tmp_path, token):
        assert (await asking(tmp_path, "get", "/status", NodeStatus)).node == "gw1"


async def test_a_socket_that_a_killed_node_left_is_replaced(node, tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "admin.sock"))
    async with serving(node, tmp_path):
        assert (await asking(tmp_path, "get", "/status", NodeStatus)).node == "gw1"


async def test_what_somebody_else_put_in_its_place_stays(node, tmp_path):
    async with serving(node, tmp_path):
        (tmp_path / "admin.sock").unlink()
        (tmp_path / "admin.sock").write_text("not ours")
    assert (tmp_path / "admin.sock").read_text() == "not ours"


async def test_a_deep_data_directory_is_no_problem(node, tmp_path):
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    deep.mkdir(parents=True)
    async with serving(node, deep):
        assert (await asking(deep, "get", "/status", NodeStatus)).node == "gw1"
    assert list(deep.iterdir()) == []


async def test_it_cannot_start_without_its_directory(node, tmp_path):
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="admin.sock cannot be made: No such file")):
        async with serving(node, tmp_path / "absent"):
            pass


async def test_it_cannot_start_on_a_port_that_is_taken(node, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f'[admin]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"'
        with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="admin.listen: cannot listen on 127.0.0.1:")):
            async with serving(node, tmp_path, listen):
                pass
    assert list(tmp_path.iterdir()) == []


async def test_loopback_without_a_token_serves_programs_of_this_machine(node, tmp_path):
    async with serving(node, tmp_path, LISTEN) as address:
        for host in ("localhost", "127.0.0.1", f"localhost:{address.port}", f"[::1]:{address.port}"):
            code, headers, body = await fetch(address, host=host)
            assert code == 200
            assert json.loads(body)["node"] == "gw1"
            assert b"server" not in headers


async def test_loopback_without_a_token_serves_no_web_page(node, tmp_path):
    async with serving(node, tmp_path, LISTEN) as address:
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""):
            code, _, body = await fetch(address, host=host)
            assert code == 403, host
            assert "error" in json.loads(body)
        assert (await fetch(address, "/drain", "POST", content_type="text/plain"))[0] == 415
    assert node.drains == []


@pytest.mark.parametrize(
    "credentials",
    [None, "", "Bearer", "Bearer x", "Bearer open", "Bearer open sesame!", "Basic open sesame", "Bearer ö"],
)
async def test_with_a_token_nothing_is_served_without_it(node, tmp_path, token, credentials):
    headers = {} if credentials is None else {"authorization": credentials.encode("latin-1")}
    async with serving(node, tmp_path, token) as address:
        for path in ("/status", "/metrics", "/health", "/nowhere"):
            code, answered, body = await fetch(address, path, **headers)
            assert code == 401
            assert answered[b"www-authenticate"] == b"Bearer"
            assert "open sesame" not in body.decode()
    assert node.calls["status"] == 0


async def test_with_the_token_any_host_name_will_do(node, tmp_path, token):
    async with serving(node, tmp_path, token) as address:
        for credentials in ("Bearer open sesame", "bearer open sesame"):
            assert (await fetch(address, host="gw1.example", authorization=credentials))[0] == 200


async def test_it_ends_at_once_though_clients_hang_on(node, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_IDLE_S", 3600)
    with trio.fail_after(100):
        async with serving(node, tmp_path, LISTEN) as address:
            idle = await trio.open_tcp_stream(address.host, address.port)
            half = await trio.open_tcp_stream(address.host, address.port)
            await half.send_all(b"GET /status HTTP/1.1\r\n")
            kept = await trio.open_tcp_stream(address.host, address.port)
            await kept.send_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await kept.receive_some()).startswith(b"HTTP/1.1 200")
        for stream in (idle, half, kept):
            await stream.aclose()
    gc.collect()


async def test_it_ends_at_once_in_the_middle_of_an_answer(node, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_IDLE_S", 3600)
    entered = trio.Event()

    async def forever(after, limit):
        entered.set()
        await trio.sleep_forever()

    node.parked_rows = forever
    with trio.fail_after(100):
        async with serving(node, tmp_path, LISTEN) as address:
            stream = await trio.open_tcp_stream(address.host, address.port)
            await stream.send_all(b"GET /parked HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await entered.wait()
        await stream.aclose()
    gc.collect()


async def test_what_is_not_http_is_refused_and_hurts_nobody(node, tmp_path):
    async with serving(node, tmp_path, LISTEN) as address:
        for garbage in (b"\0\0\0\x10\0\0\0\x15\0\0\0\0\0\0\0\1" * 4, b"GET / HTTP/1.1\r\n" + b"a" * 100_000):
            async with await trio.open_tcp_stream(address.host, address.port) as stream:
                await stream.send_all(garbage)
                with trio.fail_after(100):
                    try:
                        answer = await stream.receive_some()
                    except trio.BrokenResourceError:
                        answer = b""
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert (await fetch(address))[0] == 200


async def test_clients_that_misbehave_end_nothing_but_their_connection(node, tmp_path, monkeypatch):
    """Requests behind one another, cut short and broken off: hypercorn's own server ended on these."""
    monkeypatch.setattr(server, "_IDLE_S", 0.2)
    good = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    bad = [
        good + b"GET /status HTTP/1.1\r\nHost: local",
        good + b"\xff\xfe\xfd\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" + good,
        b"GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2 + b"GET http://[::1 HTTP/1.1\r\nHost: [\r\n\r\n",
        b"POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        b"POST /drain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + good,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    ]

    async def misbehave(address, number):
        for data in bad[number % len(bad) :] + bad[: number % len(bad)]:
            stream = await trio.open_tcp_stream(address.host, address.port)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # the end is a reset
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(data)
                if number % 2:
                    await stream.receive_some()
            await trio.aclose_forcefully(stream)

    async with serving(node, tmp_path, LISTEN) as address:
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                for number in range(3 * len(bad)):
                    nursery.start_soon(misbehave, address, number)
        assert (await fetch(address))[0] == 200
    assert node.drains == []


@pytest.mark.parametrize(
    "failure", [trio.BusyResourceError("sending"), ExceptionGroup("tasks", [trio.BusyResourceError("sending")])]
)
async def test_what_hypercorn_raises_ends_the_connection_and_is_said(node, tmp_path, monkeypatch, failure):
    class Failing:
        def __init__(self, *_):
            pass

        def __await__(self):
            return self.run().__await__()

        async def run(self):
            await trio.lowlevel.checkpoint()
            raise failure

    with structlog.testing.capture_logs() as logged:
        async with serving(node, tmp_path, LISTEN) as address:
            with monkeypatch.context() as patch:
                patch.setattr(server, "TCPServer", Failing)
                async with await trio.open_tcp_stream(address.host, address.port) as stream:
                    with contextlib.suppress(trio.BrokenResourceError):
                        assert await stream.receive_some() == b""
            assert (await fetch(address))[0] == 200
    [event] = [event for event in logged if event["event"] == "admin.connection_failed"]
    assert event["error"] == "BusyResourceError('sending')"


async def test_connections_are_bounded_and_the_unix_socket_has_its_own(node, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with serving(node, tmp_path, LISTEN) as address:
        held = []
        for _ in range(2):
            stream = await trio.open_tcp_stream(address.host, address.port)
            await stream.send_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await stream.receive_some()
            held.append(stream)
        one_more = await trio.open_tcp_stream(address.host, address.port)
        with trio.fail_after(100), contextlib.suppress(trio.BrokenResourceError):
            assert await one_more.receive_some() == b""
        await one_more.aclose()
        assert (await asking(tmp_path, "get", "/status", NodeStatus)).node == "gw1"
        for stream in held:
            await stream.send_eof()
            async for _ in stream:
                pass
            await stream.aclose()
        assert (await fetch(address))[0] == 200


async def test_a_bug_in_an_answer_is_500_and_the_server_goes_on(node, tmp_path):
    async with serving(node, tmp_path, LISTEN) as address:
        good, node.answer = node.answer, None
        assert (await fetch(address, "/health"))[0] == 500
        node.answer = good
        assert (await fetch(address, "/health"))[0] == 200


def test_every_setting_of_hypercorn_is_one_that_it_knows():
    known = dir(hypercorn.config.Config)
    assert [name for name in vars(server._settings()) if name not in known] == []


# The client's view of what can be wrong


def test_no_such_directory(tmp_path):
    with pytest.raises(AdminError, match="no such directory; is it this node's data_dir"):
        Client(Directory(tmp_path / "absent")).get("/status", NodeStatus)


def test_not_a_data_directory(tmp_path):
    with pytest.raises(AdminError, match="is no data directory"):
        Client(Directory(tmp_path)).get("/status", NodeStatus)


def test_a_file_instead_of_a_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AdminError, match="is not a directory"):
        Client(Directory(tmp_path / "file")).get("/status", NodeStatus)


def test_the_node_was_stopped(tmp_path):
    (tmp_path / "lock").touch()
    with pytest.raises(NotRunningError, match=r"is not running$"):
        Client(Directory(tmp_path)).get("/status", NodeStatus)


def test_the_node_was_killed(tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "admin.sock"))
    with pytest.raises(NotRunningError, match="not running; it was killed"):
        Client(Directory(tmp_path)).get("/status", NodeStatus)


def test_a_file_instead_of_the_socket(tmp_path):
    (tmp_path / "admin.sock").touch()
    with pytest.raises(AdminError, match="is no socket"):
        Client(Directory(tmp_path)).get("/status", NodeStatus)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_a_socket_of_another_user(tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "admin.sock"))
        other.listen()
        (tmp_path / "admin.sock").chmod(0)
        with pytest.raises(AdminError, match="permission denied"):
            Client(Directory(tmp_path)).get("/status", NodeStatus)


def test_a_node_that_does_not_answer(tmp_path):
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "admin.sock"))
        mute.listen()
        with pytest.raises(AdminError, match=r"did not answer within 0\.05 s"):
            Client(Directory(tmp_path), 0.05).get("/status", NodeStatus)


async def answered_with(tmp_path, content):
    """What the client says when it is answered so."""
    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(str(tmp_path / "admin.sock"))
        listener.listen()

        async def answer():
            connection, _ = await listener.accept()
            with connection:
                await connection.recv(10_000)
                await connection.send(content)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(AdminError) as caught:
                await asking(tmp_path, "get", "/status", NodeStatus)
    return str(caught.value)


async def test_an_end_without_an_answer(tmp_path):
    assert "closed the connection without an answer" in await answered_with(tmp_path, b"")


async def test_an_answer_that_breaks_off(tmp_path):
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    assert "ended the conversation" in await answered_with(tmp_path, cut)


async def test_an_answer_of_another_version(tmp_path):
    other = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    assert "are both of one version?" in await answered_with(tmp_path, other)
