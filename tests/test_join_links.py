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


def gate(directory, own_port, far_port):
    """South's gate sorts behind north's, so that it listens, and north dials."""
    gates = {"north/gw1": far_port, "south/gw1": own_port}
    tables = "".join(f'[[join.gates]]\nname = "{name}"\nurl = "ws://{LOOPBACK}:{at}"\n' for name, at in gates.items())
    operator = 'name = "acme"\nhost = "localhost"\nport = 2775\nsystem_id = "shop"\npassword = "x"\n'
    return parse(
        f'[node]\nname = "gw1"\ndata_dir = "{directory}"\n[[operators]]\n{operator}listen = "127.0.0.1:2776"\n'
        f'[ring]\ncluster = "south"\n{tables}'
    )


async def test_who_is_turned_away_at_the_join_is_counted_with_who_is_at_the_ring(tmp_path, nursery):
    with reserved(2) as (own_port, far_port):
        config = gate(tmp_path, own_port, far_port)
        clock = NodeClock()
        store = MemoryStore(clock.now)
        machine = Custody(topology=ring.topology(config), store_id=store.store_id, run=1)
        keeper = Keeper(machine, store, clock, RouteLog("gw1"))
        mode = ring.RingMode(config, store, keeper, None, dict, lambda *_: None, logger("ring"))
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
