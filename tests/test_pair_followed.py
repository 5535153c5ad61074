"""A pair whose servers another tool manages (`manage_database = false`): it promotes, and the nodes follow."""

import pytest
import trio
from one_node import receive, report, submit, take
from pair_scene import pair_scene
from relay_world import heads, receipt

from dlrproxy.store.sql.dialect import MARIADB
from protocols.smpp import constants as c

pytestmark = pytest.mark.processes

ACCOUNTS = ("admin@localhost", "admin@127.0.0.1")


def let_only_watch(server):
    """The rights that `dlrproxy db grants` gives for this."""
    rights = ",".join(MARIADB.to_watch)
    for account in ACCOUNTS:
        server.sql(f"SET sql_log_bin=0; REVOKE ALL ON *.* FROM {account}; GRANT {rights} ON *.* TO {account};")


def promote(servers, old, new):
    """As such a tool does it, when both servers run: the primary first takes no more writes."""
    servers[old].sql("SET GLOBAL read_only=ON")
    position = servers[old].sql("SELECT @@gtid_current_pos").strip()
    assert servers[new].sql(f"SELECT MASTER_GTID_WAIT('{position}', 60)").strip() == "0"
    servers[new].sql("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=OFF")


async def test_the_node_whose_server_was_promoted_serves_and_the_other_one_lets_go(tmp_path):
    async with pair_scene(tmp_path, pair={"manage_database": False, "promote_after_s": 3600.0}) as scene:
        servers = scene.servers.servers
        for server in servers.values():
            await trio.to_thread.run_sync(let_only_watch, server)
        await scene.start("a", "b")
        bind = await scene.bound()
        await scene.active("a")
        await scene.until(lambda: scene["a"].pair().own.alone == "no")
        gateway = await scene.bound_gateway("a")
        await submit(gateway, bind, b"0a1b2c")
        await submit(gateway, bind, b"0a1b2d")
        await bind.send(receipt(9, b"0a1b2d"))
        await receive(gateway)  # and it is not answered: it goes to custody
        assert heads([await receive(bind)]) == [("deliver_sm_resp", c.ESME_ROK, 9)]
        scene["b"].promote(force=True)
        await scene.until(lambda: "another tool promotes" in scene["b"].pair().refused)

        async with scene.parting(bind, gateway):
            await trio.to_thread.run_sync(promote, servers, "a", "b")
            bind = await scene.bound()
            await scene.until(lambda: scene["a"].term is None)
        await scene.active("b")
        assert not await scene.listens("a")
        gateway = await scene.bound_gateway("b")
        await take(gateway, b"0a1b2d")
        await report(gateway, bind, b"0a1b2c")

        await trio.to_thread.run_sync(scene.servers.replicate, "a", "b")
        await scene.until(lambda: scene["b"].pair().own.alone == "no")
        await scene.until(lambda: scene.role("a") == "standby")
        await submit(gateway, bind, b"0a1b2e")
        await report(gateway, bind, b"0a1b2e")
        assert scene.role("b") == "active"
