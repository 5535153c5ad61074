"""Two servers and an arbitrator, all of them real: what `survival` says, and what they do."""

from click.testing import CliRunner
from galera_cluster import Cluster
from test_config import OPERATOR
from test_database_config import DATABASE, NODE, TWO_PEERS

from dlrproxy.cli import main
from dlrproxy.modes.survival import survives

FILE = NODE.format("quorum") + OPERATOR + TWO_PEERS + DATABASE + "[quorum]\narbitrators = { garbd1 = 1 }\n"


def goes_on(server):
    """It takes a write."""
    server.sql("CREATE TABLE dlrproxy.t (i INT PRIMARY KEY); INSERT INTO dlrproxy.t VALUES (1); DROP TABLE dlrproxy.t")
    return True


def test_the_loss_of_any_one_is_survived_and_of_another_one_after_it_is_not(tmp_path):
    (tmp_path / "gw1.toml").write_text(FILE)
    said = CliRunner().invoke(main, ["check-config", str(tmp_path / "gw1.toml")]).output
    for name in ("gw1", "gw2", "garbd1"):
        assert f"  survives the loss of {name}\n" in said
    cluster = Cluster(names=("a", "b"))
    try:
        cluster.start()
        cluster.arbitrator().kill()
        cluster.wait_size("a", 2)
        assert goes_on(cluster.servers["a"])
        arbitrator = cluster.arbitrator()
        cluster.servers["a"].kill()
        cluster.wait_size("b", 2)
        assert goes_on(cluster.servers["b"])
        assert not survives({"b": 1, "garbd": 1}, ["garbd"])
        arbitrator.kill()
        cluster.wait_size("b", 0)
    finally:
        cluster.close()
