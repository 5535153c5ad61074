"""A real cluster whose prime site is lost goes on at one command."""

import attrs
import trio
from click.testing import CliRunner
from galera_cluster import Cluster
from test_galera import in_thread, until

from dlrproxy.cli import main
from dlrproxy.store.sql.galera import status_of
from dlrproxy.store.sql.pool import Pool

CONFIG = """
[node]
name = "gw3"
mode = "quorum"
data_dir = "{directory}"
[[operators]]
name = "acme"
host = "127.0.0.1"
port = 2775
system_id = "shop"
password = "secret"
listen = "127.0.0.1:2776"
[[peers]]
name = "gw1"
url = "ws://127.0.0.1:1"
[[peers]]
name = "gw3"
url = "ws://127.0.0.1:3"
[database]
socket = "{socket}"
user = "app"
password = "secret"
admin_user = "root"
[quorum]
weights = {{ gw1 = 2 }}
"""


def ask(file, *options):
    return CliRunner().invoke(main, ["db", "bootstrap", str(file), *options])


async def test_the_loss_of_the_prime_site_is_ended_by_one_command(tmp_path):
    cluster = Cluster(names=("a", "c"), weights={"a": 2})
    try:
        await in_thread(cluster.start)
        file = tmp_path / "gw3.toml"
        file.write_text(CONFIG.format(directory=tmp_path, socket=cluster.servers["c"].socket))
        refused = await in_thread(ask, file, "--yes")
        assert refused.exit_code == 1
        assert "there is nothing to do" in refused.output
        cluster.servers["a"].kill()
        account = attrs.evolve(cluster.account("c", "root"), schema=None, password="")
        pool = Pool(account, 1, 30.0)

        async def without_quorum():
            return not (await status_of(pool)).primary

        await until(without_quorum)
        done = await in_thread(ask, file, "--yes")
        assert done.exit_code == 0, done.output
        assert "the cluster goes on, with 1 servers of weight 1" in done.output
        assert (await status_of(pool)).primary
        await pool.close()
    finally:
        await trio.to_thread.run_sync(cluster.close)
