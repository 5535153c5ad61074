"""`dlrproxy db`: against real servers, in every state that an administrator may leave them in, and against a script."""

import json
from functools import partial

import galera_cluster
import mariadb_pair
import mariadb_server
import pytest
import trio
from click.testing import CliRunner
from test_config import OPERATOR
from test_sql_connection import SWITCH_TO_SHA2, scripted

from dlrproxy.cli import main
from dlrproxy.config import accounts, load
from dlrproxy.modes.node_settings import NodeSettings, encode
from dlrproxy.modes.pair import Alone, GoPaired, TakeOver
from dlrproxy.store.sql import schema
from dlrproxy.store.sql.replication import Replication
from dlrproxy.store.sql.schema import Migration

NODES = '[[peers]]\nname = "gw1"\n[[peers]]\nname = "gw2"\n'
QUORUM_NODES = NODES.replace('"\n', '"\nurl = "ws://127.0.0.1:{}"\n').format(7301, 7302)


def db(*arguments, code=0):
    done = CliRunner().invoke(main, ["db", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def said(output):
    """Words, without the breaks of a table's cells."""
    return " ".join(output.split())


@pytest.fixture
def pair_file(tmp_path):
    """Makes the file of one node of a pair."""

    def made(name, own, peer, admin="boss", **settings):
        text = f'[node]\nname = "{name}"\nmode = "active-passive"\ndata_dir = "data"\n' + OPERATOR + NODES
        text += f'[database]\nsocket = "{own}"\npassword = "one"\nschema = "my_rows"\nconnect_timeout_s = 8\n'
        text += f'admin_user = "{admin}"\nadmin_password = "two"\n' if admin else ""
        text += f'[pair]\npeer_socket = "{peer}"\n' + "".join(f"{key} = {value}\n" for key, value in settings.items())
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return made


def quorum_file(tmp_path, server, name="gw1"):
    path = tmp_path / "quorum.toml"
    path.write_text(
        f'[node]\nname = "{name}"\nmode = "quorum"\ndata_dir = "data"\n[ring]\nsecret_file = "secret"\n'
        + OPERATOR + QUORUM_NODES + f'[database]\nsocket = "{server.socket}"\npassword = "one"\n'
    )  # fmt: skip
    (tmp_path / "secret").write_text("x" * 20)
    (tmp_path / "secret").chmod(0o600)
    return path


@pytest.fixture
def two():
    """Two servers with a pair's settings and nobody's accounts."""
    servers = [mariadb_server.new_server(server_id=str(number), **mariadb_pair.SETTINGS).start() for number in (1, 2)]
    yield servers
    for server in servers:
        server.kill()


COPY = {"manage_database": "true", "replication_user": '"copy"', "replication_password": '"three"'}


def replicate(server, source):
    """As an administrator would do it by hand."""
    server.sql(
        "SET GLOBAL gtid_slave_pos=''; SET GLOBAL read_only=ON;"
        f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={source.port}, MASTER_USER='copy',"
        "MASTER_PASSWORD='three', MASTER_USE_GTID=slave_pos; START SLAVE;"
        f"SELECT MASTER_GTID_WAIT('{source.sql('SELECT @@gtid_binlog_pos').strip()}', 60);"
    )


def test_a_pair_is_set_up_with_what_the_commands_print(two, pair_file):
    one, other = two
    gw1 = pair_file("gw1", one.socket, other.socket, **COPY)
    gw2 = pair_file("gw2", other.socket, one.socket, **COPY)
    for server, file in ((one, gw1), (other, gw2)):
        server.sql(db("grants", file))
        server.sql(db("grants", file))  # harmless
        assert server.sql("SELECT @@gtid_binlog_pos").strip() == ""
    shown = db("init", gw1)
    assert "the schema my_rows" in shown
    assert "is made" in shown
    assert "gw1 serves first" in shown
    assert "was there already" in db("init", gw1)
    refused = db("init", gw2, code=1)
    assert "other node's, has the schema already, held by gw1" in said(refused)
    replicate(other, one)
    again = db("init", gw2)
    assert "got it by replication" in again
    assert "it is up to date" in db("migrate", gw1)
    for file in (gw1, gw2):
        found = json.loads(db("check", file, "--json"))
        assert found["ok"]
        assert {finding["setting"] for finding in found["findings"]} <= {"rpl_semi_sync_master_enabled"}
    assert one.sql("SELECT CAST(holder AS CHAR),epoch FROM my_rows.pair").split() == ["gw1", "1"]
    assert "everything is as it should be" in db("check", gw2)


def test_a_replica_that_takes_writes_and_a_peer_that_is_away_are_found(two, pair_file):
    one, other = two
    gw1 = pair_file("gw1", one.socket, other.socket, **COPY)
    gw2 = pair_file("gw2", other.socket, one.socket, **COPY)
    for server in two:
        server.sql(db("grants", gw1))
    db("init", gw1)
    replicate(other, one)
    other.sql("SET GLOBAL read_only=OFF")
    found = {finding["setting"]: finding for finding in json.loads(db("check", gw2, "--json", code=1))["findings"]}
    assert found["read_only"]["fatal"]
    other.kill()
    found = {finding["setting"]: finding for finding in json.loads(db("check", gw1, "--json"))["findings"]}
    assert "cannot be reached" in found["the other node's server"]["value"]
    assert "cannot be reached" in db("check", gw2, code=1)


def test_a_read_only_server_without_the_schema_gets_it_by_replication(two, pair_file):
    one, other = two
    gw1 = pair_file("gw1", one.socket, other.socket)
    one.sql(db("grants", gw1) + "SET GLOBAL read_only=ON;")
    assert "the schema is made at the primary" in said(db("init", gw1, code=1))
    one.sql("CREATE TABLE my_rows.schema_version (id INT, version INT, compatible_from INT);")
    one.sql("INSERT INTO my_rows.schema_version VALUES (1, 99, 98)")
    assert "made by a newer dlrproxy" in said(db("init", gw1, code=1))
    assert "made by a newer dlrproxy" in said(db("migrate", gw1, code=1))
    found = {finding["setting"]: finding for finding in json.loads(db("check", gw1, "--json", code=1))["findings"]}
    assert "of version 99" in found["schema"]["value"]


async def test_the_rights_to_watch_let_a_node_follow_another_tool(two, pair_file):
    one, other = two
    copy = {key: value for key, value in COPY.items() if key != "manage_database"}
    gw1 = pair_file("gw1", one.socket, other.socket, **copy)

    def set_up():
        for server in two:
            server.sql(db("grants", gw1))
        db("init", gw1)
        replicate(other, one)

    await trio.to_thread.run_sync(set_up)
    config = load(gw1)
    followed = [
        Replication(account, "gw1", strict=True, timeout_s=60)
        for account in (accounts.admin(config), accounts.peer_admin(config))
    ]
    await followed[0].carry_out(TakeOver(2, Alone.FREE))
    await followed[0].carry_out(GoPaired())
    assert await followed[0].beat()
    assert (await followed[0].read()).server.epoch == 2
    assert (await followed[1].read()).server.replica.receiving
    for server in followed:
        await server.close()


def test_an_older_schema_is_migrated_at_the_primary_only(two, pair_file, monkeypatch):
    one, other = two
    gw1 = pair_file("gw1", one.socket, other.socket)
    one.sql(db("grants", gw1))
    db("init", gw1)
    monkeypatch.setattr(
        schema, "MIGRATIONS", (Migration(("ALTER TABLE pair ADD COLUMN IF NOT EXISTS extra INT NULL",)),)
    )
    monkeypatch.setattr(schema, "VERSION", 2)
    assert "run `dlrproxy db migrate`" in said(db("check", gw1, code=1))
    one.sql("SET GLOBAL read_only=ON")
    assert "is read-only: the schema is migrated at the primary" in said(db("migrate", gw1, code=1))
    one.sql("SET GLOBAL read_only=OFF")
    assert db("migrate", gw1) == "the schema is now of version 2\n"
    assert db("migrate", gw1) == "it is up to date\n"


def test_rights_that_are_missing_are_told_as_the_statement_that_grants_them(two, pair_file):
    server, _ = two
    file = pair_file("gw1", server.socket, "/nowhere", manage_database="true")
    assert "dlrproxy db grants" in db("init", file, code=1)
    assert "dlrproxy db grants" in db("check", file, code=1)
    server.sql(
        "CREATE USER dlrproxy@localhost IDENTIFIED BY 'one'; CREATE USER boss@localhost IDENTIFIED BY 'two';"
        "GRANT SELECT, INSERT ON `my\\_rows`.* TO dlrproxy@localhost;"
        "GRANT REPLICA MONITOR, PROCESS ON *.* TO boss@localhost; GRANT ALL ON my_rows.* TO boss@localhost;"
    )
    assert "GRANT UPDATE, DELETE, CREATE, ALTER, DROP, INDEX ON `my\\_rows`.*" in db("init", file, code=1)
    found = {finding["setting"]: finding for finding in json.loads(db("check", file, "--json", code=1))["findings"]}
    ordinary, admin = found["privileges of dlrproxy"], found["privileges of boss"]
    assert ordinary["should"] == (
        "GRANT UPDATE, DELETE, CREATE, ALTER, DROP, INDEX ON `my\\_rows`.* TO 'dlrproxy'@'localhost';"
    )
    assert admin["should"] == (
        "GRANT BINLOG MONITOR, REPLICATION MASTER ADMIN, REPLICATION SLAVE ADMIN, READ_ONLY ADMIN, "
        "CONNECTION ADMIN, RELOAD ON *.* TO 'boss'@'localhost';"
    )
    server.sql(ordinary["should"] + admin["should"])
    db("init", file)
    found = {finding["setting"] for finding in json.loads(db("check", file, "--json"))["findings"]}
    assert not [setting for setting in found if setting.startswith("privileges")]
    server.sql("SET PASSWORD FOR boss@localhost = PASSWORD('changed')")
    found = {finding["setting"]: finding for finding in json.loads(db("check", file, "--json", code=1))["findings"]}
    assert "Access denied" in found["account boss"]["value"]


def test_a_schema_that_could_not_be_replicated_is_not_made(pair_file):
    server = mariadb_server.shared_server()
    file = pair_file("gw1", server.socket, "/nowhere")
    server.sql(db("grants", file, "--from", "localhost"))
    try:
        assert "writes no binary log" in db("init", file, code=1)
        assert server.sql("SHOW TABLES FROM my_rows").strip() == ""
    finally:
        server.sql("DROP USER dlrproxy@localhost, boss@localhost; DROP DATABASE my_rows;")


def test_a_server_that_is_in_no_cluster_is_not_fit_for_a_quorum(tmp_path):
    server = mariadb_server.shared_server()
    file = quorum_file(tmp_path, server)
    statements = db("grants", file, "--from", "localhost")
    assert "sql_log_bin" not in statements
    server.sql(statements)
    try:
        assert "serves first" not in db("init", file)
        assert server.sql("SELECT COUNT(*) FROM dlrproxy.pair").strip() == "0"
        shown = db("check", file, code=1)
        assert "wrong" in shown
        found = {finding["setting"]: finding for finding in json.loads(db("check", file, "--json", code=1))["findings"]}
        assert found["wsrep_on"]["fatal"]
        assert {"binlog_format", "innodb_autoinc_lock_mode", "wsrep_sst_method"} <= set(found)
    finally:
        server.sql("DROP USER dlrproxy@localhost; DROP DATABASE dlrproxy;")


def test_the_statements_for_mysql_have_its_names(pair_file):
    statements = db("grants", pair_file("gw1", "/one", "/two", **COPY), "--server", "mysql", "--from", "10.0.0.%")
    assert "REPLICATION_SLAVE_ADMIN" in statements
    assert "READ_ONLY ADMIN" not in statements
    assert "'copy'@'10.0.0.%'" in statements
    assert "'one'" not in statements
    assert "three" not in statements


def test_no_account_is_made_that_lets_everybody_in(pair_file):
    settings = {key: value for key, value in COPY.items() if key != "replication_password"}
    assert "copy has no password" in db("grants", pair_file("gw1", "/one", "/two", **settings), code=1)


def test_a_ring_has_no_database_server(tmp_path):
    path = tmp_path / "ring.toml"
    path.write_text('[node]\nname = "gw1"\ndata_dir = "data"\n' + OPERATOR)
    for command in ("grants", "init", "migrate", "check"):
        assert "uses no database server" in db(command, path, code=1)


@pytest.mark.parametrize("command", ["init", "migrate", "check"])
async def test_an_account_that_cannot_be_used_is_told_how_to_be_changed(command, tmp_path):
    """MySQL 8's first choice, from a script."""
    serve = partial(scripted, plugin=b"caching_sha2_password", answers=[SWITCH_TO_SHA2])
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        path = tmp_path / "gw1.toml"
        path.write_text(
            '[node]\nname = "gw1"\nmode = "active-passive"\ndata_dir = "data"\n' + OPERATOR + NODES +
            f'[database]\nhost = "127.0.0.1"\nport = {port}\npassword = "one"\nconnect_timeout_s = 60\n'
            '[pair]\npeer_host = "127.0.0.1"\npeer_port = 1\n'
        )  # fmt: skip
        output = await trio.to_thread.run_sync(partial(db, command, path, code=1))
        assert "caching_sha2_password for dlrproxy" in output
        assert "ALTER USER" in output
        nursery.cancel_scope.cancel()


def test_a_node_of_a_cluster_is_found_sound(tmp_path):
    cluster = galera_cluster.shared_cluster()
    cluster.wait_synced()
    file = quorum_file(tmp_path, cluster.servers["a"])
    file.write_text(file.read_text().replace('password = "one"', 'user = "app"\npassword = "secret"'))
    cluster.servers["a"].sql("DROP DATABASE dlrproxy")
    assert "is made" in db("init", file)
    assert "was there already" in db("init", file)
    found = json.loads(db("check", file, "--json"))
    assert [(finding["setting"], finding["value"]) for finding in found["findings"]] == [("wsrep_sst_method", "rsync")]


def everywhere(cluster, statement):
    """Done at one server once it has caught up with the others, and until that of the commands has."""
    cluster.servers["b"].sql(f"SET wsrep_sync_wait=15; {statement}")
    cluster.servers["a"].sql("SET wsrep_sync_wait=15; SELECT COUNT(*) FROM dlrproxy.members")


def test_a_node_that_is_gone_is_forgotten_by_every_server_of_a_cluster(tmp_path):
    cluster = galera_cluster.shared_cluster()
    cluster.wait_synced()
    file = quorum_file(tmp_path, cluster.servers["a"])
    file.write_text(file.read_text().replace('password = "one"', 'user = "app"\npassword = "secret"'))
    cluster.servers["a"].sql("DROP DATABASE IF EXISTS dlrproxy")
    db("init", file)
    assert "the database knows no node gw9; it knows none" in db("forget", file, "gw9", code=1)
    everywhere(cluster, "INSERT INTO dlrproxy.members VALUES ('gw9',1,1,'',0,'',0)")
    told = encode(NodeSettings(fence_after_s=10.0, takeover_after_s=12.0)).hex()
    everywhere(cluster, f"INSERT INTO dlrproxy.items VALUES ('gw9','settings','',x'{told}')")  # noqa: S608
    found = {each["setting"]: each for each in json.loads(db("check", file, "--json", code=1))["findings"]}
    assert (found["takeover_after_s of gw9"]["value"], found["takeover_after_s of gw9"]["should"]) == ("12", "15")
    assert found["peers of gw9"]["value"] == "in the database"
    assert "does not fit quorum.takeover_after_s of gw9, 12" in found["fence_after_s"]["value"]
    assert [each["setting"] for each in found.values() if each["fatal"]] == ["fence_after_s"]
    assert "gw9 lives" in db("forget", file, "gw9", code=1)
    everywhere(cluster, "UPDATE dlrproxy.members SET epoch=2,taken=1,heir='gw1'")
    assert db("forget", file, "gw9") == "gw9 is forgotten\n"
    cluster.wait_synced()
    assert cluster.servers["c"].sql("SET wsrep_sync_wait=1; SELECT COUNT(*) FROM dlrproxy.members") == "0\n"
    assert cluster.servers["c"].sql("SELECT kind FROM dlrproxy.items WHERE node='gw9'") == "fence\n"
