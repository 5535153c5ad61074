"""ring/link.py over real loopback sockets: links come up, carry frames in order, and survive what happens to links."""

import contextlib
import itertools
import random
import ssl
from functools import partial

import attrs
import pytest
import structlog
import trio
import trustme
from scripted_peer import dialled
from trio_websocket import ConnectionClosed

from protocols.peer import frames
from protocols.peer.frames import Learned
from ring import tls as ring_tls
from ring.link import Links
from ring.link_settings import LinkSettings
from ring.peer_url import PeerUrl

SECRET = b"a secret of sixteen bytes or more"
NOBODY = "ws://127.0.0.1:1"
PATIENT = LinkSettings(  # a busy machine meets none of these time-outs
    heartbeat_s=0.05,
    suspect_after_s=30,
    dead_after_s=60,
    connect_timeout_s=60,
    handshake_s=60,
    reconnect_min_s=0.02,
    reconnect_max_s=0.1,
    goodbye_s=0.3,
)
FAST = attrs.evolve(PATIENT, suspect_after_s=0.5, dead_after_s=1.0)  # where silence is what it is about


class Recorder:
    """A node's callbacks and its log: what happened, in order, and a way to wait for it."""

    def __init__(self):
        self.ups, self.downs, self.frames, self.calls, self.events = [], [], [], [], []
        self._happened = trio.Event()

    def on_up(self, peer, hello):
        self.ups.append(hello)
        self._note("up", peer)

    def on_down(self, peer, why):
        self.downs.append((peer, why))
        self._note("down", peer)

    def on_frames(self, peer, frames):
        self.frames += [(peer, frame) for frame in frames]
        self._note("frames", peer)

    def on_reachable(self, nodes):
        self._note("reachable", nodes)

    def log(self, _logger, level, event):
        self.events.append(event | {"level": level})
        self._note("log", event["event"])
        raise structlog.DropEvent

    def _note(self, *call):
        self.calls.append(call)
        self._happened.set()
        self._happened = trio.Event()

    async def until(self, condition):
        """Wait until `condition()` holds; it is asked whenever something happened here."""
        with trio.fail_after(100):
            while not condition():
                await self._happened.wait()

    async def until_logged(self, event, **fields):
        await self.until(lambda: self.logged(event, **fields))
        return self.logged(event, **fields)[-1]

    def logged(self, event, **fields):
        wanted = fields | {"event": event}
        return [each for each in self.events if wanted.items() <= each.items()]


class Node:
    """Links under test with their recorder; `scope.cancel()` ends them as a killed process would."""

    def __init__(self, name, urls, *, tls, cluster, settings):
        self.name = name
        self.recorder = Recorder()
        self.links = Links(
            me=name,
            cluster=cluster,
            peers={peer: PeerUrl.parse(url) for peer, url in urls.items()},
            settings=settings,
            tls=tls,
            store_id=name.encode().ljust(8, b"."),
            callbacks=self.recorder,
            log=structlog.wrap_logger(None, processors=[self.recorder.log], wrapper_class=structlog.BoundLogger),
            on_reachable=self.recorder.on_reachable,
        )
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    async def run(self, task_status=trio.TASK_STATUS_IGNORED):
        with self.scope:
            await self.links.run(task_status=task_status)
        self.ended.set()

    async def kill(self):
        self.scope.cancel()
        await self.ended.wait()

    async def until_reaches(self, *peers):
        await self.recorder.until(lambda: self.links.reachable() == set(peers))

    def numbers_from(self, peer):
        return [frame.evidence for sender, frame in self.recorder.frames if sender == peer]

    def status_of(self, peer):
        return next(status for status in self.links.status() if status.name == peer)


class Fleet:
    """Nodes on ports of the system's choosing: start the last name first, since each dials those behind it."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.urls = {}

    async def start(self, name, *others, tls=None, cluster="test", settings=PATIENT, scheme="ws", **urls):
        """A node that knows `others` (and every node started so far) besides itself; `urls` replace what it knows."""
        own = self.urls.get(name, f"{scheme}://127.0.0.1:0")
        known = dict.fromkeys(others, f"{scheme}://127.0.0.1:1") | self.urls | {name: own} | urls
        node = Node(
            name,
            dict(sorted(known.items())),
            tls=tls or ring_tls.plain(),
            cluster=cluster,
            settings=settings,
        )
        await self.nursery.start(node.run)
        if node.links.listening:
            self.urls[name] = f"{scheme}://127.0.0.1:{node.links.listening[1]}"
        return node

    async def pair(self, **options):
        """gw1, which dials, and gw2; linked."""
        two = await self.start("gw2", "gw1", **options)
        one = await self.start("gw1", **options)
        await one.until_reaches("gw2")
        await two.until_reaches("gw1")
        return one, two

    def port(self, name):
        return PeerUrl.parse(self.urls[name]).port


@pytest.fixture
async def fleet():
    async with trio.open_nursery() as nursery:
        yield Fleet(nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def certificates(tmp_path):
    """Mutual TLS for a name: a certificate of the ring's authority, which names nothing but that."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def issue(name, by=authority):
        issued = by.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        return ring_tls.mutual(tmp_path / "ca.pem", tmp_path / f"{name}.pem", tmp_path / f"{name}.key")

    return issue


async def let_pass(clock, seconds):
    """Let virtual time pass, and all that it sets off happen: loopback carries it at once."""
    for _ in range(round(seconds / FAST.heartbeat_s)):
        clock.jump(FAST.heartbeat_s)
        await trio.testing.wait_all_tasks_blocked()


def note(number):
    return Learned(operator="acme", rule="exact", evidence=number)


# Frames


async def exchange(one, two, count=100):
    for number in range(count):
        assert one.links.send("gw2", note(number))
        assert two.links.send("gw1", note(number))
    await one.recorder.until(lambda: len(one.numbers_from("gw2")) == count)
    await two.recorder.until(lambda: len(two.numbers_from("gw1")) == count)
    assert one.numbers_from("gw2") == two.numbers_from("gw1") == list(range(count))


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_two_nodes_with_a_secret_exchange_frames_in_order(fleet, scheme):
    two = await fleet.start("gw2", "gw1", tls=ring_tls.shared_secret(SECRET), scheme=scheme)
    one = await fleet.start("gw1", tls=ring_tls.shared_secret(SECRET), scheme=scheme)
    await one.until_reaches("gw2")
    await two.until_reaches("gw1")
    await exchange(one, two)


async def test_two_nodes_with_certificates_exchange_frames_in_order(fleet, certificates):
    two = await fleet.start("gw2", "gw1", tls=certificates("gw2"), scheme="wss")
    one = await fleet.start("gw1", tls=certificates("gw1"), scheme="wss")
    await one.until_reaches("gw2")
    await two.until_reaches("gw1")
    await exchange(one, two)


async def test_three_nodes_form_a_full_mesh(fleet):
    three = await fleet.start("gw3", "gw1", "gw2")
    two = await fleet.start("gw2", "gw1")
    one = await fleet.start("gw1")
    nodes = {node.name: node for node in (one, two, three)}
    for node in nodes.values():
        await node.until_reaches(*(nodes.keys() - {node.name}))
    for sender in nodes.values():
        for receiver in nodes.keys() - {sender.name}:
            assert sender.links.send(receiver, note(int(sender.name[-1])))
    for node in nodes.values():
        await node.recorder.until(lambda node=node: len(node.recorder.frames) == 2)
        for peer in nodes.keys() - {node.name}:
            assert node.numbers_from(peer) == [int(peer[-1])]
    assert one.links.listening is None  # nobody dials the first, so it opens no port


async def test_the_peer_is_told_before_its_frames_and_is_reachable_by_then(fleet):
    one, two = await fleet.pair()
    one.links.send("gw2", note(1))
    await two.recorder.until(lambda: two.recorder.frames)
    calls = [call for call in two.recorder.calls if call[0] != "log"]
    assert calls[:3] == [("reachable", {"gw1": 2}), ("up", "gw1"), ("frames", "gw1")]
    assert two.recorder.ups[0].node == "gw1"
    assert two.recorder.ups[0].store_id == b"gw1....."
    assert two.recorder.ups[0].boot == one.links.boot


async def test_a_thousand_frames_travel_in_few_messages(fleet):
    one, two = await fleet.pair()
    before = two.status_of("gw1").messages_in
    for number in range(1000):
        assert one.links.send("gw2", note(number))
    await two.recorder.until(lambda: len(two.recorder.frames) == 1000)
    assert two.numbers_from("gw1") == list(range(1000))
    assert two.status_of("gw1").messages_in - before <= 4  # two of 500, and a heartbeat or so
    assert one.status_of("gw2").outbox_frames == 0


async def test_a_message_is_cut_by_bytes_too(fleet):
    one, two = await fleet.pair(settings=attrs.evolve(PATIENT, batch_bytes=10_000))
    before = two.status_of("gw1").messages_in
    for number in range(10):
        one.links.send("gw2", Learned(operator="x" * 4000, rule="exact", evidence=number))
    await two.recorder.until(lambda: len(two.recorder.frames) == 10)
    assert two.status_of("gw1").messages_in - before >= 5
    assert two.numbers_from("gw1") == list(range(10))


async def test_the_outbox_is_bounded_and_says_so(fleet):
    one, _ = await fleet.pair(settings=attrs.evolve(PATIENT, outbox_frames=5))
    assert [one.links.send("gw2", note(number)) for number in range(7)] == [True] * 5 + [False] * 2
    assert one.status_of("gw2").outbox_full == 2
    assert not one.links.send("gw1", note(0))  # itself
    assert not one.links.send("gw9", note(0))  # unknown


async def test_nothing_is_taken_for_a_peer_without_a_link(fleet):
    one = await fleet.start("gw1", "gw2")
    assert not one.links.send("gw2", note(1))
    assert not one.status_of("gw2").linked


async def test_heartbeats_stay_inside_and_tell_who_drains(fleet):
    one, two = await fleet.pair()
    one.links.set_draining(draining=True)
    one.links.send("gw2", note(1))
    await two.recorder.until(lambda: two.recorder.frames)
    assert two.status_of("gw1").draining
    assert [type(frame) for _, frame in two.recorder.frames] == [Learned]


CRAMPED = attrs.evolve(PATIENT, outbox_frames=3, batch_frames=1, heartbeat_s=20, goodbye_s=60)


def fill(node, peer):
    """How many frames its outbox takes."""
    count = 0
    while node.links.send(peer, note(count)):
        count += 1
    return count


async def test_who_drains_says_so_also_where_its_outbox_is_full_at_that_moment(fleet):
    one, two = await fleet.pair(settings=CRAMPED)
    count = fill(one, "gw2")
    one.links.set_draining(draining=True)
    while not one.links.send("gw2", note(count)):
        await trio.lowlevel.checkpoint()
    await two.recorder.until(lambda: len(two.recorder.frames) > count)
    assert two.status_of("gw1").draining


async def test_who_leaves_with_a_full_outbox_sends_all_of_it_first(fleet):
    one, two = await fleet.pair(settings=CRAMPED)
    count = fill(one, "gw2")
    await one.links.leave()
    await two.recorder.until(lambda: two.recorder.downs)
    assert two.numbers_from("gw1") == list(range(count))


# Who is refused


async def refused_pair(fleet, one_options, two_options):
    two = await fleet.start("gw2", "gw1", **two_options)
    one = await fleet.start("gw1", **one_options)
    refused = await two.recorder.until_logged("peer.refused")
    failed = await one.recorder.until_logged("peer.dial_failed")
    assert not one.links.reachable()
    assert not two.links.reachable()
    assert not one.recorder.ups
    assert not two.recorder.ups
    return refused, failed


async def test_another_secret_is_refused_without_a_word(fleet):
    refused, failed = await refused_pair(
        fleet,
        {"tls": ring_tls.shared_secret(b"another secret of enough bytes"), "scheme": "wss"},
        {"tls": ring_tls.shared_secret(SECRET), "scheme": "wss"},
    )
    assert refused["reason"] == "wrong_secret"
    assert refused["peer"] == "gw1"
    assert failed["reason"] == "closed_in_handshake"


async def test_another_cluster_is_refused_without_a_word(fleet):
    refused, failed = await refused_pair(fleet, {"cluster": "prod"}, {"cluster": "test"})
    assert refused["reason"] == "other_cluster"
    assert refused["detail"] == "its cluster is 'prod', ours is 'test'"
    assert failed["reason"] == "closed_in_handshake"


async def test_the_certificate_of_another_node_is_refused(fleet, certificates):
    refused, _ = await refused_pair(
        fleet,
        {"tls": certificates("gw3"), "scheme": "wss"},
        {"tls": certificates("gw2"), "scheme": "wss"},
    )
    assert refused["reason"] == "certificate_names_another"
    assert "must name 127.0.0.1 or gw1; it names gw3" in refused["detail"]


async def test_a_listener_with_the_certificate_of_another_node_is_refused(fleet, certificates):
    two = await fleet.start("gw2", "gw1", tls=certificates("gw3"), scheme="wss")
    one = await fleet.start("gw1", tls=certificates("gw1"), scheme="wss")
    failed = await one.recorder.until_logged("peer.dial_failed")
    assert failed["reason"] == "certificate_names_another"
    assert not two.recorder.ups


async def test_a_certificate_of_another_authority_is_refused(fleet, certificates):
    refused, failed = await refused_pair(
        fleet,
        {"tls": certificates("gw1", by=trustme.CA()), "scheme": "wss"},
        {"tls": certificates("gw2"), "scheme": "wss"},
    )
    assert refused["reason"] == "tls_failed"
    assert failed["reason"] in {"tls_failed", "closed_in_handshake"}


async def test_the_same_failure_is_logged_once(fleet):
    one = await fleet.start("gw1", gw2=NOBODY)
    await one.recorder.until(lambda: len(one.recorder.logged("peer.dial_failed")) >= 4)
    assert [event["level"] for event in one.recorder.logged("peer.dial_failed")][:4] == ["warning"] + ["debug"] * 3
    assert one.status_of("gw2").failure.startswith("unreachable")


async def test_a_web_server_that_never_says_the_same_is_logged_once(fleet):
    dates = itertools.count()

    async def answer(stream):
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nDate: %d\r\nContent-Length: 0\r\n\r\n" % next(dates))

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        one = await fleet.start("gw1", gw2=f"ws://127.0.0.1:{port}")
        await one.recorder.until(lambda: len(one.recorder.logged("peer.dial_failed")) >= 3)
        nursery.cancel_scope.cancel()
    failed = one.recorder.logged("peer.dial_failed")[:3]
    assert [event["level"] for event in failed] == ["warning", "debug", "debug"]
    assert failed[0]["detail"] == "it answered with HTTP status 404"


async def closed_by_peer(websocket):
    """Read to the end, and say what the peer gave as its reason."""
    with trio.fail_after(100):
        while True:
            try:
                await websocket.get_message()
            except ConnectionClosed as closed:
                return closed.reason


async def test_a_peer_of_another_version_is_told_ours_and_both_logs_name_both(fleet):
    two = await fleet.start("gw2", "gw1")
    async with dialled(fleet.port("gw2"), oldest=8, newest=9) as (_, _, outcome):
        assert outcome.reason == "no_common_version"
        assert outcome.detail == "gw1 speaks the versions 8 to 9, gw2 speaks 1 to 2"
        refused = await two.recorder.until_logged("peer.refused")
    assert refused["reason"] == "no_common_version"
    assert refused["detail"] == "gw2 speaks the versions 1 to 2, gw1 speaks 8 to 9"


async def answers_to(port, parts):
    """What a stranger gets who sends one part after the other, each after an answer, and then reads to the end."""
    received = b""
    with trio.fail_after(100):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            try:
                for number, part in enumerate(parts):
                    if number:
                        received += await stream.receive_some()
                    await stream.send_all(part)
                async for chunk in stream:
                    received += chunk
            except trio.BrokenResourceError:
                pass  # it was shown out before it had said everything
    return received


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
MASK = b"\x00\x00\x00\x00"
STRANGERS = {  # what they send, waiting for an answer in between; and what the log calls it
    "garbage": ([b"\x00\x01\x02\xff" * 50 + b"\r\n\r\n"], "not_a_websocket"),
    "SMPP": ([bytes.fromhex("000000210000000200000000000000017368") + b"op\0secret\0\0\x34\0\0\0"], "not_a_websocket"),
    "HTTP": ([b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"], "not_a_websocket"),
    "a header that no charset has": ([UPGRADE + b"Sec-WebSocket-Protocol: \xff\r\n\r\n"], "unexpected_bytes"),
    "endless headers": ([b"GET / HTTP/1.1\r\n" + b"X-Pad: " + b"x" * 10_000], "oversize"),
    "a browser": ([UPGRADE + b"Origin: http://evil.example\r\n\r\n"], "browser"),
    "a second request": ([UPGRADE + b"\r\n", UPGRADE + b"\r\n"], "closed_in_handshake"),
    "a text message": ([UPGRADE + b"\r\n", b"\x81\x82" + MASK + b"hi"], "not_a_handshake"),
    "a message of nothing": ([UPGRADE + b"\r\n", b"\x82\x80" + MASK], "not_a_handshake"),
    "a message too large": ([UPGRADE + b"\r\n", b"\x82\xfe\x20\x00" + MASK + b"x" * 8192], "oversize"),
    "fragments without end": ([UPGRADE + b"\r\n", b"\x02\x80" + MASK + (b"\x00\x80" + MASK) * 800], "oversize"),
    "pings without end": ([UPGRADE + b"\r\n", (b"\x89\x80" + MASK) * 800], "oversize"),
    "an unmasked frame": ([UPGRADE + b"\r\n", b"\x82\x01x"], "closed_in_handshake"),
    "a goodbye": ([UPGRADE + b"\r\n", b"\x88\x80" + MASK], "closed_in_handshake"),
    "silence": ([], "handshake_timeout"),
    "silence after the upgrade": ([UPGRADE + b"\r\n"], "handshake_timeout"),
}


@pytest.mark.parametrize("case", STRANGERS)
async def test_a_stranger_is_shown_out_and_the_node_goes_on(fleet, case):
    parts, reason = STRANGERS[case]
    two = await fleet.start(
        "gw2",
        "gw1",
        settings=attrs.evolve(PATIENT, handshake_s=0.3 if reason == "handshake_timeout" else 60),
        tls=ring_tls.shared_secret(SECRET),
    )
    answer = await answers_to(fleet.port("gw2"), parts)
    refused = await two.recorder.until_logged("peer.refused")
    assert refused["reason"] == reason
    assert refused["address"] == "127.0.0.1"
    assert b"gw2" not in answer
    assert b"test" not in answer
    assert sum(two.links.turned_away.values()) == 1
    one = await fleet.start("gw1", tls=ring_tls.shared_secret(SECRET))
    await two.until_reaches("gw1")
    await one.until_reaches("gw2")


async def test_a_stranger_is_shown_out_of_tls_too(fleet, certificates):
    two = await fleet.start("gw2", "gw1", tls=certificates("gw2"), scheme="wss")
    await answers_to(fleet.port("gw2"), [b"GET / HTTP/1.1\r\n\r\n"])
    await two.recorder.until_logged("peer.refused", reason="tls_failed")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", fleet.port("gw2"), ssl_context=context)
    said = b""
    with contextlib.suppress(trio.BrokenResourceError):  # an alert, or an end: Python's versions differ
        said = await stream.receive_some()
    assert said == b""
    await trio.aclose_forcefully(stream)
    assert two.links.turned_away["tls_failed"] == 2


async def test_a_stranger_who_never_begins_with_tls_is_shown_out(fleet, certificates):
    quick = attrs.evolve(PATIENT, handshake_s=0.3)
    two = await fleet.start("gw2", "gw1", tls=certificates("gw2"), scheme="wss", settings=quick)
    assert await answers_to(fleet.port("gw2"), []) == b""
    await two.recorder.until_logged("peer.refused", reason="handshake_timeout")


async def test_strangers_who_come_too_often_are_turned_away_unread(fleet, mock_clock):
    two = await fleet.start("gw2", "gw1")
    for _ in range(30):
        await answers_to(fleet.port("gw2"), [b"junk\r\n\r\n"])
    assert (await two.recorder.until_logged("peer.turned_away"))["reason"] == "too_often"
    assert two.links.turned_away["too_often"] == 10
    assert len(two.recorder.logged("peer.turned_away")) == 1


async def test_plain_links_stay_on_loopback():
    def links(urls, tls=None, **settings):
        return Node(
            "gw2",
            urls,
            tls=tls or ring_tls.plain(),
            cluster="test",
            settings=attrs.evolve(FAST, **settings),
        ).links

    with pytest.raises(ValueError, match=r"gw1: ws://10\.0\.0\.1:7301 would leave this machine unencrypted"):
        links({"gw1": "ws://10.0.0.1:7301", "gw2": "ws://127.0.0.1:0"})
    with pytest.raises(ValueError, match=r"gw1: wss://10\.0\.0\.1:7301 needs certificates or a secret"):
        links({"gw1": "wss://10.0.0.1:7301", "gw2": "ws://127.0.0.1:0"})
    with pytest.raises(ValueError, match="gw2 is not among the peers gw1"):
        links({"gw1": "ws://127.0.0.1:7301"})
    exposed = links({"gw1": NOBODY, "gw2": "ws://127.0.0.1:0"}, listen=("0.0.0.0", 0))
    with pytest.raises(ValueError, match=r"ws:// would listen on 0\.0\.0\.0, which is not loopback"):
        await exposed.run()


# What happens to links


async def test_a_killed_peer_is_down_at_once_and_up_again_after_its_restart(fleet):
    one, two = await fleet.pair()
    await two.kill()
    await one.recorder.until(lambda: one.recorder.downs)
    assert one.links.reachable() == frozenset()
    assert not one.links.send("gw2", note(0))
    again = await fleet.start("gw2", "gw1")
    await one.until_reaches("gw2")
    await again.until_reaches("gw1")
    assert one.recorder.ups[0].boot != one.recorder.ups[1].boot
    await exchange(one, again)
    assert one.status_of("gw2").ups == 2


async def test_a_killed_dialler_comes_back_too(fleet):
    one, two = await fleet.pair()
    await one.kill()
    await two.recorder.until(lambda: two.recorder.downs)
    again = await fleet.start("gw1")
    await two.until_reaches("gw1")
    await again.until_reaches("gw2")
    await exchange(again, two)


async def test_a_restarted_peer_displaces_the_link_of_its_former_life(fleet):
    two = await fleet.start("gw2", "gw1")
    async with dialled(fleet.port("gw2"), boot=b"first") as (_, former, _):
        await two.until_reaches("gw1")
        async with dialled(fleet.port("gw2"), boot=b"second") as (_, latter, _):
            assert (await closed_by_peer(former)).reason == "replaced by a newer link"
            await two.recorder.until(lambda: len(two.recorder.ups) == 2)
            calls = [name for name, _ in two.recorder.calls if name in {"up", "down"}]
            assert calls == ["up", "down", "up"]
            await former_is_mute(two, latter)


async def former_is_mute(two, latter):
    await latter.send_message(frames.encode([note(2)]))
    await two.recorder.until(lambda: two.recorder.frames)
    assert two.numbers_from("gw1") == [2]


async def test_a_late_attempt_of_the_same_process_displaces_nothing(fleet):
    two = await fleet.start("gw2", "gw1")
    async with dialled(fleet.port("gw2"), dial=5) as (_, newer, _):
        await two.until_reaches("gw1")
        async with dialled(fleet.port("gw2"), dial=4) as (_, older, _):
            await closed_by_peer(older)
            await former_is_mute(two, newer)
        assert two.recorder.downs == []


@pytest.mark.parametrize("junk", [b"junk", "text", b"\x91\x92\x01\xa1\xff", frames.encode([note(1)]) + b"x"])
async def test_bad_frames_close_the_link_and_the_log_names_the_peer(fleet, junk):
    two = await fleet.start("gw2", "gw1")
    async with dialled(fleet.port("gw2")) as (_, websocket, _):
        await websocket.send_message(junk)
        assert (await closed_by_peer(websocket)).reason.startswith("bad frames")
        event = await two.recorder.until_logged("peer.down", peer="gw1")
    assert event["why"].startswith("bad frames")
    assert two.recorder.downs[0][0] == "gw1"


async def test_a_message_above_the_limit_closes_the_link(fleet):
    two = await fleet.start("gw2", "gw1")
    async with dialled(fleet.port("gw2")) as (_, websocket, _):
        await two.until_reaches("gw1")
        await websocket.send_message(b"x" * (frames.MAX_MESSAGE_BYTES + 1))
        await two.recorder.until_logged("peer.down", peer="gw1")
    assert two.recorder.frames == []


class Relay:
    """A TCP relay between two nodes that can go dumb: it takes every byte and passes none, as a dead route does."""

    def __init__(self, target):
        self.target = target
        self.dumb = False
        self.connections = 0

    async def run(self, task_status=trio.TASK_STATUS_IGNORED):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        await trio.serve_listeners(self._serve, [listener], task_status=task_status)

    async def _serve(self, client):
        self.connections += 1
        try:
            async with (
                await trio.open_tcp_stream("127.0.0.1", self.target) as server,
                client,
                trio.open_nursery() as both,
            ):
                both.start_soon(self._pass, client, server)
                both.start_soon(self._pass, server, client)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _pass(self, source, target):
        async for data in source:
            if not self.dumb:
                await target.send_all(data)
        if not self.dumb:
            await target.aclose()


async def test_a_half_open_link_is_found_by_both_ends_and_made_anew(fleet, mock_clock):
    two = await fleet.start("gw2", "gw1", settings=FAST)
    relay = Relay(fleet.port("gw2"))
    await fleet.nursery.start(relay.run)
    one = await fleet.start("gw1", gw2=f"ws://127.0.0.1:{relay.port}", settings=FAST)
    await one.until_reaches("gw2")
    await two.until_reaches("gw1")
    relay.dumb = True
    await let_pass(mock_clock, 2 * FAST.dead_after_s)
    for node, peer in ((one, "gw2"), (two, "gw1")):
        await node.recorder.until_logged("peer.state", peer=peer, new="suspect")
        await node.recorder.until(lambda node=node: node.recorder.downs)
        assert node.recorder.downs == [(peer, "silent")]
        assert node.links.reachable() == frozenset()
    relay.dumb = False
    await let_pass(mock_clock, FAST.handshake_s)  # the last attempt came to nothing
    await one.until_reaches("gw2")
    await two.until_reaches("gw1")
    await exchange(one, two, 10)
    assert relay.connections >= 2


async def test_leaving_sends_what_is_queued_and_tells_the_peer(fleet):
    one, two = await fleet.pair()
    for number in range(700):
        one.links.send("gw2", note(number))
    with trio.fail_after(100):
        await one.links.leave()
    await two.recorder.until(lambda: two.recorder.downs)
    assert two.numbers_from("gw1") == list(range(700))
    assert two.recorder.downs == [("gw1", "closed by peer: leaving")]
    assert not one.links.send("gw2", note(0))
    await trio.testing.wait_all_tasks_blocked()
    assert one.links.reachable() == frozenset()


async def test_a_new_table_changes_only_what_it_changes(fleet):
    three = await fleet.start("gw3", "gw1", "gw2")
    two = await fleet.start("gw2", "gw1")
    one = await fleet.start("gw1")
    await one.until_reaches("gw2", "gw3")
    urls = {name: PeerUrl.parse(url) for name, url in fleet.urls.items()} | {"gw1": PeerUrl.parse("ws://127.0.0.1:0")}
    one.links.set_peers({name: urls[name] for name in ("gw1", "gw2")})
    await one.until_reaches("gw2")
    await three.until_reaches("gw2")
    await three.recorder.until(lambda: three.recorder.downs)
    assert three.recorder.downs == [("gw1", "closed by peer: the peer table has changed")]
    one.links.set_peers(urls)
    await one.until_reaches("gw2", "gw3")
    assert [peer for peer, _ in one.recorder.downs] == ["gw3"]
    assert two.recorder.downs == []
    with pytest.raises(ValueError, match="unencrypted"):
        one.links.set_peers(urls | {"gw4": PeerUrl.parse("ws://10.0.0.4:7301")})
    assert [status.name for status in one.links.status()] == ["gw3", "gw2"]  # the order of the table given last


async def test_a_node_that_was_alone_begins_to_listen_when_a_peer_appears(fleet):
    two = await fleet.start("gw2")
    assert two.links.listening is None
    own = PeerUrl.parse("ws://127.0.0.1:0")
    two.links.set_peers({"gw1": PeerUrl.parse(NOBODY), "gw2": own})
    await two.recorder.until_logged("ring.listening")
    fleet.urls["gw2"] = f"ws://127.0.0.1:{two.links.listening[1]}"
    one = await fleet.start("gw1")
    await one.until_reaches("gw2")


async def test_stopping_tells_the_callbacks_that_links_are_down(fleet):
    one, two = await fleet.pair()
    await one.kill()
    assert one.recorder.downs == [("gw2", "stopped")]
    await two.recorder.until(lambda: two.recorder.downs)
    assert two.recorder.downs[0][0] == "gw1"


async def test_an_error_in_the_nodes_own_code_is_not_taken_for_the_peers(fleet):
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            inner = Fleet(nursery)
            one, two = await inner.pair()
            two.recorder.on_frames = lambda _peer, _frames: 1 / 0
            one.links.send("gw2", note(1))
            await trio.sleep_forever()


async def test_a_port_that_is_taken_is_named(fleet):
    (taken,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with taken:
        port = taken.socket.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen for peers at 127.0.0.1:{port}: .*; ring.listen is for"):
            await Node(
                "gw2",
                {"gw1": NOBODY, "gw2": f"ws://127.0.0.1:{port}"},
                tls=ring_tls.plain(),
                cluster="test",
                settings=FAST,
            ).links.run()


async def test_a_host_that_is_no_name_is_a_peer_that_cannot_be_reached(fleet):
    one = await fleet.start("gw1", gw2=f"ws://{'x' * 70}.example:7301")
    assert (await one.recorder.until_logged("peer.dial_failed"))["reason"] == "unreachable"


async def test_a_message_that_takes_longer_than_silence_may_last_is_no_silence(fleet, mock_clock):
    two = await fleet.start("gw2", "gw1", settings=FAST)
    message = frames.encode([note(1)] * 100)
    async with dialled(fleet.port("gw2")) as (stream, _, _):
        await two.until_reaches("gw1")
        await stream.send_all(b"\x82\xfe" + len(message).to_bytes(2, "big") + MASK)
        for byte in message[: len(message) // 2]:
            await stream.send_all(bytes([byte]))
            await let_pass(mock_clock, 0.1)
        assert two.recorder.downs == []
        assert two.links.reachable() == {"gw1"}
        await stream.send_all(message[len(message) // 2 :])
        await two.recorder.until(lambda: len(two.recorder.frames) == 100)


@pytest.mark.parametrize("seed", range(30))
async def test_no_bytes_of_a_proven_peer_end_the_node(fleet, seed):
    chaos = random.Random(seed)
    two = await fleet.start("gw2", "gw1")
    async with dialled(fleet.port("gw2")) as (stream, _, _):
        await two.until_reaches("gw1")
        try:
            for _ in range(20):
                opcode = chaos.choice([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, chaos.randrange(256)])
                length = chaos.randrange(126)
                data = bytes([opcode, 0x80 | length]) + MASK + chaos.randbytes(length)
                await stream.send_all(data[: chaos.randrange(1, len(data) + 8)])
        except trio.BrokenResourceError:
            pass  # shown the door
        await trio.aclose_forcefully(stream)
        await two.recorder.until(lambda: two.recorder.downs)
    one = await fleet.start("gw1")
    await one.until_reaches("gw2")
