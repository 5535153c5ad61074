"""A whole active-passive pair: two real database servers, two nodes in this process, both ends played by a test.

async with pair_scene(tmp_path) as scene:
    await scene.start("a", "b")
    bind = await scene.bound()              # the operator's end of the active's bind
    gateway = await scene.bound_gateway("a")
    await scene.node("a").demote()
"""

import contextlib
from functools import partial

import mariadb_pair
import trio
from one_node import part, receive
from relay_world import heads
from smpp_peer import Peer, bind_request
from tcp_relay import Relay

from dlrproxy.config import parse
from dlrproxy.config.accounts import ordinary
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.modes.active_passive import PairNode
from dlrproxy.store.sql import schema
from dlrproxy.store.sql.pool import Pool
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from protocols.smpp.pdu import pack

LONG_S = 100

# Waits that would only make a test long.
OPERATOR = {"reconnect_min_s": 0.05, "reconnect_max_s": 0.2, "race_window_s": 0.2, "enquire_link_s": 3600.0}
PAIR = {"manage_database": True, "heartbeat_s": 0.3, "fence_after_s": 8.0, "promote_after_s": 10.5}


class Scene:
    def __init__(self, servers, operator, texts, views, nursery):
        self.servers = servers  # a `mariadb_pair.Pair`
        self.texts = texts  # by name: the nodes' files
        self.configs = {name: parse(text) for name, text in texts.items()}
        self.views = views  # by server: the link by which the other node looks at it
        self.nodes = {}
        self._operator = operator
        self._nursery = nursery
        self._scopes, self._ends = {}, {}
        self._peers = []

    def __getitem__(self, name):
        return self.nodes[name]

    async def start(self, *names):
        """Until they look at the servers."""
        for name in names:
            self.nodes[name] = node = PairNode(self.configs[name])
            self._scopes[name], self._ends[name] = trio.CancelScope(), trio.Event()
            await self._nursery.start(partial(self._run, name, node))

    async def _run(self, name, node, *, task_status):
        try:
            with self._scopes[name]:
                await node.run(task_status=task_status)
        finally:
            self._ends[name].set()

    async def ended(self, name):
        with trio.fail_after(LONG_S):
            await self._ends[name].wait()

    def kill(self, name):
        """As far as one can within a process: no goodbye to the peer."""
        self._scopes[name].cancel()

    def cut(self):
        """No node and no server reaches the other one's server any more."""
        for links in (self.servers.links, self.views):
            for link in links.values():
                link.cut()

    def heal(self):
        for links in (self.servers.links, self.views):
            for link in links.values():
                link.heal()

    def role(self, name):
        return self.nodes[name].pair().role

    async def until(self, holds, what=""):
        with trio.move_on_after(LONG_S):
            while not holds():  # noqa: ASYNC110 - what real servers lead to
                await trio.sleep(0.02)
            return
        raise AssertionError(f"not {what or 'in time'}: {[node.pair() for node in self.nodes.values()]}")

    async def active(self, name):
        await self.until(lambda: self.role(name) == "active" and self.nodes[name].term is not None, f"active: {name}")

    # Both ends

    async def bound(self):
        """The operator's end of the next bind, accepted."""
        with trio.fail_after(LONG_S):
            peer = Peer(await self._operator.accept())
        self._peers.append(peer)
        _, command, _, sequence = HEADER.unpack_from(await receive(peer))
        assert command == c.BIND_TRANSCEIVER
        await peer.send(pack(c.BIND_TRANSCEIVER_RESP, c.ESME_ROK, sequence, b"smsc\0"))
        return peer

    def port(self, name):
        """Where the gateway dials this node."""
        (address,) = self.configs[name].operators[0].listen.values()
        return address.port

    async def bound_gateway(self, name):
        peer = Peer(await trio.open_tcp_stream(LOOPBACK, self.port(name)))
        self._peers.append(peer)
        await peer.send(bind_request())
        assert heads([await receive(peer)]) == [("bind_transceiver_resp", c.ESME_ROK, 1)]
        return peer

    async def listens(self, name):
        try:
            stream = await trio.open_tcp_stream(LOOPBACK, self.port(name))
        except OSError:
            return False
        await stream.aclose()
        return True

    @contextlib.asynccontextmanager
    async def parting(self, *peers):
        """They answer what unbinds them."""
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(part, peer)
            yield
            nursery.cancel_scope.cancel()

    async def close(self):
        for peer in self._peers:
            await trio.aclose_forcefully(peer.stream)


def _toml(table):
    def value(each):
        return str(each).lower() if isinstance(each, bool) else f'"{each}"' if isinstance(each, str) else str(each)

    return "\n".join(f"{name} = {value(each)}" for name, each in table.items())


def text_of(name, data_dir, servers, views, operator_port, gateway_port, operator, pair, database):
    """A node's file."""
    other = {"a": "b", "b": "a"}[name]
    return f"""
        [node]
        name = "{name}"
        mode = "active-passive"
        data_dir = "{data_dir}"
        min_free_mb = 16
        drain_s = 5
        [[operators]]
        name = "acme"
        host = "{LOOPBACK}"
        port = {operator_port}
        system_id = "shop"
        password = "secret"
        listen = {{ shop = "{LOOPBACK}:{gateway_port}" }}
        {_toml(OPERATOR | operator)}
        [custody]
        retry_min_s = 0.1
        retry_max_s = 0.3
        [[peers]]
        name = "a"
        url = "ws://{LOOPBACK}:1"
        [[peers]]
        name = "b"
        url = "ws://{LOOPBACK}:2"
        [database]
        socket = "{servers.servers[name].socket}"
        user = "app"
        password = "secret"
        admin_user = "admin"
        admin_password = "secret"
        {_toml({"connect_timeout_s": 2.0} | database)}
        [pair]
        peer_host = "{LOOPBACK}"
        peer_port = {views[other].port}
        {_toml(PAIR | pair)}
    """


def _let_in_by_tcp(servers):
    for server in servers.servers.values():
        server.sql(
            "SET sql_log_bin=0; CREATE USER app@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT ALL ON dlrproxy.* TO "
            "app@'127.0.0.1'; CREATE USER admin@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT ALL ON dlrproxy.* TO "
            f"admin@'127.0.0.1'; GRANT {mariadb_pair.ADMIN} ON *.* TO admin@'127.0.0.1';"
        )


@contextlib.asynccontextmanager
async def pair_scene(directory, *, operator=None, pair=None, database=None):
    """No node is started; a's server is the primary, b's its replica, and the row of the pair names a."""
    servers = await trio.to_thread.run_sync(mariadb_pair.Pair)
    views = {}
    try:
        await trio.to_thread.run_sync(servers.start)
        await trio.to_thread.run_sync(_let_in_by_tcp, servers)
        views = {name: Relay(server.port) for name, server in servers.servers.items()}
        (smsc,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
        with reserved(2) as ports:
            texts = {
                name: text_of(
                    name,
                    directory / name,
                    servers,
                    views,
                    smsc.socket.getsockname()[1],
                    port,
                    operator or {},
                    pair or {},
                    database or {},
                )
                for name, port in zip("ab", ports, strict=True)
            }
            await _make_schema(parse(texts["a"]))
            async with smsc, trio.open_nursery() as nursery:
                scene = Scene(servers, smsc, texts, views, nursery)
                try:
                    yield scene
                finally:
                    await scene.close()
                    nursery.cancel_scope.cancel()
    finally:
        for view in views.values():
            view.close()
        await trio.to_thread.run_sync(servers.close)


async def _make_schema(config):
    pool = Pool(ordinary(config), 1, LONG_S)
    try:
        await schema.init(pool, config.node.name)
    finally:
        with trio.CancelScope(shield=True):
            await pool.close()
