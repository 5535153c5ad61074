"""A node that is not there: what the HTTP API and the commands that ask it are tested against."""

from collections import Counter
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import structlog
import trio
from click.testing import CliRunner

from dlrproxy.admin.client import Client
from dlrproxy.admin.pair_view import BehindStatus, PairStatus, SemiSyncStatus, ServerStatus
from dlrproxy.admin.quorum_view import ClusterStatus, LossStatus, MemberStatus, QuorumStatus
from dlrproxy.admin.reach import Directory
from dlrproxy.admin.server import serve
from dlrproxy.admin.view import (
    BindStatus,
    CustodyEntry,
    CustodyStatus,
    GatewayStatus,
    IdRule,
    JoinStatus,
    NodeStatus,
    OperatorStatus,
    PeerSummary,
    SessionStatus,
    StoreStatus,
    SummaryStatus,
)
from dlrproxy.cli import main
from dlrproxy.config import parse
from protocols.peer.frames import Envelope, EnvelopeKey
from protocols.smpp.message_ids import normal
from ring.peer_status import PeerStatus
from ring.rows import CustodyRow, Kind, ParkedRow, decode_key, encode_key

NOW = 1_800_000_000.0
STORE_ID = b"\x01" * 8
SUBSCRIBER = b"447911123456"
TEXT = b"id:4F2A sub:001 dlvrd:001 submit date:2611220101 done date:2611220102 stat:DELIVRD err:000 text:Secret words"
PDU = (
    bytes(4) + b"\0\0\0\5" + bytes(8) + b"\0\1\1" + SUBSCRIBER + b"\0\1\1" + b"7000\0\4" + bytes(8)
    + bytes([len(TEXT)]) + TEXT
)  # fmt: skip


def peer(name="gw2", **changes):
    values = {
        "name": name, "url": f"wss://{name}.example:7301", "dials": True, "state": "alive", "linked": True,
        "address": "10.0.0.2:7301", "version": 1, "store_id": "02" * 8, "boot": "03" * 8, "draining": False,
        "up_s": 7200.0, "silent_s": 0.4, "outbox_frames": 0, "outbox_bytes": 0, "frames_in": 12, "frames_out": 34,
        "messages_in": 5, "messages_out": 6, "bytes_in": 700, "bytes_out": 800, "ups": 2, "outbox_full": 0,
        "frames_withheld": 0, "frames_skipped": 0, "failure": "", "release": "1.2.2",
    }  # fmt: skip
    return PeerStatus(**(values | changes))


def operator(name="acme", **changes):
    values = {
        "name": name,
        "system_id": "shop",
        "binds": (
            BindStatus(
                name="1", bind_type="transceiver", up=True, host="smsc.acme.example:2775", window_used=3,
                window_size=10, since_s=7200.0,
            ),
            BindStatus(name="2", bind_type="transceiver", up=False, since_s=65.0, why="ESME_RALYBND, next in 240 s"),
        ),
        "gateways": (
            GatewayStatus(
                name="shop1",
                listen="127.0.0.1:2775",
                sessions=(
                    SessionStatus(peer="127.0.0.1:40000", bind_type="transceiver", window_used=1, window_size=100),
                ),
            ),
            GatewayStatus(name="shop2", listen="127.0.0.1:2776"),
        ),
        "message_id": IdRule(rule="hex-decimal", pinned=False, evidence={"hex-decimal": 17}),
        "in_flight": 4,
        "counters": {"requests": 1000, "reports": 900, "matched": 800, "missed": 100, "refused_busy": 2},
    }  # fmt: skip
    return OperatorStatus(**(values | changes))


def status(**changes):
    values = {
        "node": "gw1",
        "version": "1.2.3",
        "mode": "ring",
        "now": NOW,
        "uptime_s": 93_784.0,
        "draining": None,
        "store": StoreStatus(accepting=True, free_bytes=50 << 30, min_free_bytes=256 << 20, store_id=STORE_ID.hex()),
        "operators": (operator(),),
        "ring": (peer(), peer("gw3", state="dead", linked=False, silent_s=None, failure="connection refused")),
        "turned_away": {"wrong_secret": 3},
        "custody": CustodyStatus(
            items=7, max_items=100_000, walking=2, waiting=3, parked=4, max_parked=1_000_000,
            events={
                "received": 20, "claimed": 5, "parked": 4, "parked.refused": 3, "parked.unclaimed": 1,
                "summary.right": 95, "summary.wrong": 2,
            },
            hops={1: 95, 2: 2, 31: 1},
            refused={"custody_full": 2},
        ),
        "summaries": SummaryStatus(
            own=1200, own_bytes=6000, left_out=7,
            peers={
                "gw2": PeerSummary(messages=900, bytes_used=1700, current=True, told=True),
                "gw3": PeerSummary(messages=0, bytes_used=36, current=False, told=False),
            },
        ),
        "join": JoinStatus(
            cluster="south", gates=("south/gw1",), configured=2, frames={"sent_across": 30, "no_way": 4}
        ),
    }  # fmt: skip
    return NodeStatus(**(values | changes))


def server(**changes):
    """A primary's."""
    values = {"writable": True, "epoch": 7, "holder": "gw1", "alone": "no", "position": "0-1-100", "replicates": False}
    return ServerStatus(**(values | changes))


def replica(**changes):
    values = {"writable": False, "replicates": True, "receiving": True, "applying": True, "all_applied": True}
    return server(**(values | changes))


def quorum_status(**changes):
    """Of a node that serves, and is the master; one of the others is gone."""
    server = ClusterStatus(primary=True, ready=True, state="Synced", size=2, weight=2, conf_id=7, uuid="u")
    status = QuorumStatus(
        role="serving",
        why="its database server is in the quorum, and has certified its claim",
        epoch=3,
        serving=True,
        serves_for_s=7.5,
        master="gw1",
        is_master=True,
        master_epoch=2,
        site="north",
        server=server,
        members={"gw1": MemberStatus(epoch=3, taken=False), "gw2": MemberStatus(epoch=5, taken=True, heir="gw3")},
        losses=(
            LossStatus(of="gw1", nodes=("gw1",), survived=True),
            LossStatus(of="site north", nodes=("gw1", "gw2"), survived=False),
        ),
        servers=3,
        weight=3,
        journal_rows=2,
    )
    return msgspec.structs.replace(status, **changes)


def pair_status(**changes):
    """Of an active whose replica is a little behind."""
    values = {
        "role": "active", "why": "its database server is the primary", "refused": "nobody has asked for it", "epoch": 7,
        "holder": "gw1", "serving": True, "serves_for_s": 5.5, "safety": "strict", "manages_database": True,
        "peer": "gw2", "own": server(), "other": replica(),
        "semi_sync": SemiSyncStatus(enabled=True, on=True, replicas=1, acknowledged=90, unacknowledged=2, degraded=1),
        "not_received": BehindStatus(transactions=3, bytes=1200),
        "not_applied": BehindStatus(transactions=4, bytes=2048), "journal_rows": 5, "witness_lends": True,
    }  # fmt: skip
    return PairStatus(**(values | changes))


def standby_status(**changes):
    """All of a standby's."""
    pair = pair_status(
        role="standby", why="its database server is a replica", holder="gw2", serving=False, serves_for_s=None,
        own=replica(holder="gw2"), other=server(holder="gw2"), journal_rows=0,
    )  # fmt: skip
    nothing = {"store": None, "custody": None, "operators": (), "ring": (), "summaries": None, "join": None}
    return status(**({"mode": "active-passive", "pair": pair} | nothing | changes))


def envelope(number=1, **changes):
    values = {
        "key": EnvelopeKey(STORE_ID, number), "origin": "gw1", "operator": "acme", "kind": "dlr",
        "message_id": b"%X" % (0x4F29 + number), "destination": SUBSCRIBER, "pdu": PDU, "trace": f"{number:016x}",
        "final": True,
    }  # fmt: skip
    return Envelope(**(values | changes))


def parked_row(number=1, reason="refused", age_s=3600.0, **changes):
    return ParkedRow(envelope(number, **changes), reason, NOW - age_s - 10, NOW - age_s, "shop1", 0x45)


class FakeNode:
    """A `NodeView` whose rows are in dicts, and which remembers what it was asked to do."""

    def __init__(self):
        self.answer = status()
        self.messages = []
        self.custody = []
        self.parked = {}
        self.replayed = []
        self.on_their_way = lambda: 0
        self.dropped = []
        self.drains = []
        self.undrains = 0
        self.promotions = []  # "promote", "force", "demote"
        self.no_service = ""
        self.calls = Counter()
        self.failure = None

    def park(self, *rows):
        self.parked.update({encode_key(row.envelope.key): row for row in rows})

    def link(self, name, **changes):
        """Another node is there."""
        peers = [each for each in self.answer.ring if each.name != name]
        self.change(ring=(*peers, peer(name, **({"version": 2} | changes))))

    def change(self, **changes):
        self.answer = msgspec.structs.replace(self.answer, **changes)

    def status(self):
        self.calls["status"] += 1
        return self.answer

    async def open_messages(self, lookup):
        await self._disk()
        return [message for message in self.messages if message.operator == lookup.operator]

    def custody_entries(self, operator, forms):
        return [
            entry
            for entry in self.custody
            if entry.row.envelope.operator == operator and normal(entry.row.envelope.message_id) in forms
        ]

    async def parked_rows(self, after, limit):
        await self._disk()
        return sorted((key, row) for key, row in self.parked.items() if key > after)[:limit]

    async def parked_row(self, key):
        await self._disk()
        return self.parked.get(key)

    async def replay(self, keys, gateway, *, node=""):
        await self._disk()
        self.replayed += [(decode_key(key).number, f"{node}/{gateway}" if node else gateway) for key in keys]
        return sum(self.parked.pop(key, None) is not None for key in keys)

    def replaying(self):
        return self.on_their_way()

    async def drop(self, keys):
        await self._disk()
        self.dropped += [decode_key(key).number for key in keys]
        return sum(self.parked.pop(key, None) is not None for key in keys)

    def drain(self, mode):
        self.drains.append(mode)
        self.change(draining=mode)

    def undrain(self):
        self.undrains += 1
        if self.answer.draining == "stop":
            return False
        self.change(draining=None)
        return True

    def why_no_service(self):
        return self.no_service

    def promote(self, *, force):
        self.promotions.append("force" if force else "promote")
        return self.answer.pair is not None

    def demote(self):
        self.promotions.append("demote")
        return self.answer.pair is not None

    def look(self):
        self.calls["look"] += 1
        return self.answer.quorum is not None

    async def _disk(self):
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure


def custody_entry(number=1, state="walking", **changes):
    return CustodyEntry(
        row=CustodyRow(Kind.ORIGIN, envelope(number, **changes), NOW - 60), state=state, lap=2, attempts=1
    )


def config(data_dir, extra=""):
    return parse(
        f"""
        [node]
        name = "gw1"
        data_dir = "{data_dir}"
        [[operators]]
        name = "acme"
        host = "smsc.acme.example"
        system_id = "shop"
        password = "secret"
        listen = "127.0.0.1:2775"
        {extra}
        """
    )


@asynccontextmanager
async def serving(node, data_dir, extra="", log=None):
    """The API of that node on a real unix socket, and on TCP if `extra` says so; gives the TCP address."""
    log = log or structlog.get_logger()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve, node, config(data_dir, extra), log))
        try:
            yield address
        finally:
            nursery.cancel_scope.cancel()


async def asking(data_dir, method, *arguments):
    """A request of the synchronous client, from a thread."""
    return await trio.to_thread.run_sync(getattr(Client(Directory(data_dir), 5), method), *arguments)


@asynccontextmanager
async def commanding(node, data_dir):
    """Gives a function that runs a `dlrproxy` command, with this node's data directory as its last argument."""
    silent = structlog.wrap_logger(structlog.ReturnLogger())

    async def run(*arguments, **options):
        invoke = partial(CliRunner().invoke, main, [*map(str, arguments), "--data-dir", str(data_dir)], **options)
        return await trio.to_thread.run_sync(invoke)

    async with serving(node, data_dir, log=silent):
        yield run
