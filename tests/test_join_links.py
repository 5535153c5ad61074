"""The links of a join, as a running ring mode holds them."""

import trio

from dlrproxy.clock import NodeClock
from dlrproxy.config import parse
from dlrproxy.custody import Keeper
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.logs import RouteLog, logger
from dlrproxy.modes import ring
from dlrproxy.store.memory import MemoryStore
from ring.custody import Custody

PATIENCE_S = 100.0


class Witness(Keeper):
    """Keeps what it is told of the other ring."""

    far_nodes: frozenset[str] = frozenset()

    def joined(self, nodes):
        super().joined(nodes)
        self.far_nodes = nodes


def gate(directory, cluster, ports, peers=()):
    """The gate gw1 of `cluster`, and the other nodes of its ring. `ports` of both gates, by cluster.

    South's gate sorts behind north's, so that it listens, and north dials.
    """
    gates = {f"{ring}/gw1": port for ring, port in ports.items()}
    tables = "".join(f'[[join.gates]]\nname = "{name}"\nurl = "ws://{LOOPBACK}:{at}"\n' for name, at in gates.items())
    others = "".join(f'[[peers]]\nname = "{name}"\nurl = "ws://{LOOPBACK}:{at}"\n' for name, at in dict(peers).items())
    operator = 'name = "acme"\nhost = "localhost"\nport = 2775\nsystem_id = "shop"\npassword = "x"\n'
    return parse(
        f'[node]\nname = "gw1"\ndata_dir = "{directory}"\n[[operators]]\n{operator}listen = "127.0.0.1:2776"\n'
        f'[ring]\ncluster = "{cluster}"\n{tables}{others}'
    )


def run_by(config):
    """A ring mode, and the keeper that it reports to."""
    clock = NodeClock()
    store = MemoryStore(clock.now)
    machine = Custody(topology=ring.topology(config), store_id=store.store_id, run=1)
    keeper = Witness(machine, store, clock, RouteLog("gw1"))
    return ring.RingMode(config, store, keeper, None, dict, lambda *_: None, logger("ring")), keeper


async def test_who_is_turned_away_at_the_join_is_counted_with_who_is_at_the_ring(tmp_path, nursery):
    with reserved(2) as (own_port, far_port):
        config = gate(tmp_path, "south", {"north": far_port, "south": own_port})
        mode, _ = run_by(config)
        await nursery.start(mode.run)
        stranger = await trio.open_tcp_stream(LOOPBACK, own_port)
        async with stranger:
            await stranger.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with trio.fail_after(PATIENCE_S):
                while await stranger.receive_some():
                    pass  # the refusal, to its end
                while not mode.turned_away():
                    await trio.lowlevel.checkpoint()
        assert sum(mode.turned_away().values()) == 1
        nursery.cancel_scope.cancel()


async def test_a_node_that_a_reload_takes_out_of_one_ring_is_known_to_be_gone_in_the_other(tmp_path, nursery):
    with reserved(4) as (north, south, own, missing):
        ports = {"north": north, "south": south}
        peers = {"gw1": own, "gw2": missing}
        changing, _ = run_by(gate(tmp_path, "south", ports, peers))
        told, keeper = run_by(gate(tmp_path, "north", ports))
        for mode in (changing, told):
            await nursery.start(mode.run)
        with trio.fail_after(PATIENCE_S):
            while keeper.far_nodes != {"south/gw1", "south/gw2"}:
                await trio.lowlevel.checkpoint()
            await changing.reload(gate(tmp_path, "south", ports))
            while keeper.far_nodes != {"south/gw1"}:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
