"""[database], [pair] and [quorum]: what they mean, and what is wrong with them, alone and together."""

import json
import ssl
from pathlib import Path

import pytest
import trustme
from attrs import evolve
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from test_config import OPERATOR, PEERS, problems, warnings

from dlrproxy.cli import main
from dlrproxy.config import Address, Secret, accounts, parse
from dlrproxy.modes.ring import custody_settings
from ring.settings import ClusterSettings
from ring.tls import TlsError

NODE = '[node]\nname = "gw1"\nmode = "{}"\ndata_dir = "data"\n'
TWO_PEERS = PEERS.partition('[[peers]]\nname = "gw3"')[0]
DATABASE = '[database]\npassword = "one"\n'
PEER = '[pair]\npeer_host = "10.0.0.2"\n'
PAIR = NODE.format("active-passive") + OPERATOR + TWO_PEERS
ANY_GATEWAY = OPERATOR.replace('"127.0.0.1:2775"', '{ gw1 = "127.0.0.1:2775", gw2 = "127.0.0.1:2776" }')
QUORUM = NODE.format("quorum") + ANY_GATEWAY + PEERS + DATABASE + "[quorum]\n"
ADMIN = 'admin_user = "boss"\nadmin_password = "two"\n'


def pair(database="", pair=""):
    return PAIR + DATABASE + database + PEER + pair


# What a file means


def test_a_pair_has_the_documented_defaults():
    read = parse(pair())
    database, settings = read.database, read.pair
    assert (database.host, database.port, database.socket, database.tls) == ("localhost", 3306, None, False)
    assert (database.user, database.schema, database.connections) == ("dlrproxy", "dlrproxy", 4)
    assert (database.connect_timeout_s, database.statement_timeout_s, database.journal_after_s) == (5.0, 5.0, 0.25)
    assert (settings.safety, settings.manage_database, settings.witness) == ("strict", False, None)
    assert (settings.fence_after_s, settings.promote_after_s, settings.heartbeat_s) == (6.0, 9.0, 1.0)
    assert (settings.peer_port, settings.clone_command) == (3306, ())
    assert (read.quorum, read.warnings) == (None, ())


def test_a_quorum_has_the_documented_defaults():
    quorum = parse(QUORUM).quorum
    assert (quorum.lease_s, quorum.takeover_after_s, quorum.maybe_delivered) == (6.0, 15.0, "park")
    assert (quorum.stand_in, quorum.weight("gw1")) == ({}, 1)


def test_custody_goes_by_what_quorum_says():
    read = parse(QUORUM + 'unmatched_for_s = 45.0\nmaybe_delivered = "deliver"\nstand_in = { gw1 = "gw2" }\n')
    cluster = custody_settings(read, {}).cluster
    assert cluster == ClusterSettings(
        unmatched_for_s=45.0, stand_in={"gw1": "gw2"}, stand_in_after_s=15.0, maybe_delivered="deliver"
    )
    assert custody_settings(parse(QUORUM), {}).cluster == ClusterSettings(stand_in_after_s=15.0)


def test_a_search_that_ends_before_an_id_may_have_come_is_warned_of():
    assert set(warnings(QUORUM + "unmatched_for_s = 9.0\n")) == {"quorum.unmatched_for_s"}
    assert not warnings(QUORUM + "unmatched_for_s = 10.0\n")


def test_a_quorum_that_survives_no_loss_is_warned_of():
    two = QUORUM.replace(PEERS, TWO_PEERS)
    assert "the loss of any one of gw1, gw2 stops all the others" in warnings(two)["quorum.arbitrators"]
    for mended in ("arbitrators = { garbd1 = 1 }\n", "weights = { gw1 = 2 }\n"):
        assert not warnings(two + mended)


def test_who_stands_at_no_site_is_named():
    found = warnings(QUORUM + 'arbitrators = { garbd1 = 1 }\nsites = { gw1 = "north", gw2 = "south" }\n')
    assert found == {"quorum.sites": "say nothing of gw3, garbd1: what is foretold of a site leaves that out"}


def test_a_node_that_no_other_gateway_can_dial_is_warned_of():
    assert set(warnings(QUORUM.replace(ANY_GATEWAY, OPERATOR))) == {"operators[0].listen"}
    assert not warnings(
        QUORUM.replace(ANY_GATEWAY, OPERATOR.replace('"127.0.0.1:2775"', '{ shop = "127.0.0.1:2775" }'))
    )


def test_quorums_tables_of_names():
    read = parse(QUORUM + 'stand_in = { gw1 = "gw2" }\nweights = { gw1 = 3 }\nsites = { gw1 = "north" }\n').quorum
    assert (read.stand_in, read.sites) == ({"gw1": "gw2"}, {"gw1": "north"})
    assert [read.weight(name) for name in ("gw1", "gw2")] == [3, 1]
    with pytest.raises(TypeError):
        read.stand_in["gw2"] = "gw1"


def test_what_has_no_effect_in_a_pair_is_said(tmp_path):
    gates = [("dlrproxy/gw1", "ws://127.0.0.1:7401"), ("south/gw1", "ws://127.0.0.1:7402")]
    joined = "".join(f'[[join.gates]]\nname = "{name}"\nurl = "{url}"\n' for name, url in gates)
    assert warnings(PAIR + DATABASE + PEER + joined) == {
        "join.gates": 'has no effect with mode = "active-passive": the nodes of a pair have no links'
    }
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("witness secret, long")
    free = f'safety = "available"\nwitness = "10.0.0.3:7390"\nwitness_secret_file = "{secret}"\n'
    assert warnings(pair(pair=free)) == {"pair.witness": 'has no effect with safety = "available"'}


def test_a_ring_needs_none_of_it_and_says_that_it_has_no_effect():
    text = PAIR.replace("active-passive", "ring")
    assert parse(text).database is None
    assert warnings(text + DATABASE + PEER + "[quorum]\n") == dict.fromkeys(
        ("database", "pair", "quorum"), 'has no effect with mode = "ring"'
    )
    assert set(warnings(pair() + "[quorum]\n")) == {"quorum"}
    assert set(warnings(QUORUM + PEER)) == {"pair"}
    assert warnings(QUORUM + '[join]\nlisten = "127.0.0.1:7399"\n')["join"] == 'has no effect with mode = "quorum"'


def test_summaries_have_no_effect_in_a_quorum():
    assert warnings(QUORUM + "[ring]\nsummary_mb = 128\n") == {
        "ring.summary_mb": 'has no effect with mode = "quorum": every node has all open messages'
    }
    assert "ring.summary_mb" not in warnings(QUORUM + "[ring]\nsummary_mb = 0\n")
    assert "ring.summary_mb" not in warnings(pair("[ring]\nsummary_mb = 128\n"))


@pytest.mark.parametrize("policy", ["drop", "local"])
def test_a_policy_for_what_nobody_owns_is_warned_of_where_it_means_another_thing(policy):
    def said(text):
        found = warnings(text.replace("[[operators]]\n", f'[[operators]]\nunclaimed = "{policy}"\n'))
        return found.get("operators[0].unclaimed", "")

    assert "brought home from a journal" in said(pair())
    assert "quorum.unmatched_for_s (45 s)" in said(QUORUM + "unmatched_for_s = 45.0\n")
    assert not said(PAIR.replace("active-passive", "ring"))


def test_secrets_come_from_files_and_variables(tmp_path):
    for name in ("database", "admin", "copy", "witness"):
        (tmp_path / name).write_text(f"{name} secret, long\n")
        (tmp_path / name).chmod(0o600)
    text = (
        PAIR + '[database]\npassword_file = "database"\nadmin_user = "boss"\nadmin_password_env = "BOSS"\n' + PEER
    ) + 'replication_user = "copy"\nreplication_password_file = "copy"\nwitness = "10.0.0.3:7390"\n'
    read = parse(text + 'witness_secret_file = "witness"\n', base=tmp_path, environ={"BOSS": "from afar"})
    assert read.database.password == Secret(b"database secret, long")
    assert read.database.admin_password == Secret(b"from afar")
    assert read.pair.replication_password == Secret(b"copy secret, long")
    assert (read.pair.witness, read.pair.witness_secret) == (
        Address("10.0.0.3", 7390), Secret(b"witness secret, long"),
    )  # fmt: skip
    assert read.warnings == ()
    (tmp_path / "admin").chmod(0o644)
    exposed = text.replace('admin_password_env = "BOSS"', 'admin_password_file = "admin"')
    found = parse(exposed + 'witness_secret_file = "witness"\n', base=tmp_path).warnings
    assert [problem.path for problem in found] == ["database.admin_password_file"]


def test_the_nodes_of_a_pair_need_no_links_and_one_of_them_has_all_the_binds():
    text = pair().replace('listen = "', 'max_binds = 1\naccount_max_per_s = 50\nlisten = "')
    peers = '[[peers]]\nname = "gw1"\n[[peers]]\nname = "gw2"\n'
    read = parse(text.replace(TWO_PEERS, peers))
    assert (read.node_names, read.serving_nodes, read.ring_listen) == (("gw1", "gw2"), 1, None)
    assert parse(text.replace(TWO_PEERS, peers.replace('"gw2"', '"gw2"\nurl = "wss://10.0.0.2:7301"'))).peers[1].tls
    assert set(problems(text.replace(TWO_PEERS, peers).replace("active-passive", "ring"))) == {
        "peers[0].url", "peers[1].url", "operators[0].max_binds",
    }  # fmt: skip


# Accounts


def test_the_accounts_at_both_servers():
    read = parse(pair(ADMIN))
    ordinary, admin = accounts.ordinary(read), accounts.admin(read)
    assert (ordinary.host, ordinary.port, ordinary.socket) == ("localhost", 3306, None)
    assert (ordinary.user, ordinary.password, ordinary.schema) == ("dlrproxy", "one", "dlrproxy")
    assert (ordinary.tls, ordinary.connect_timeout_s) == (None, 5.0)
    assert admin == evolve(ordinary, user="boss", password="two")
    assert accounts.peer_ordinary(read) == evolve(ordinary, host="10.0.0.2")
    assert accounts.peer_admin(read) == evolve(admin, host="10.0.0.2")


def test_without_an_admin_account_the_ordinary_one_looks():
    read = parse(pair())
    assert accounts.admin(read) == accounts.ordinary(read)
    assert accounts.peer_admin(read) == accounts.peer_ordinary(read)


def test_servers_on_sockets():
    text = PAIR + DATABASE + 'socket = "/run/one"\n[pair]\npeer_socket = "/run/other"\n'
    read = parse(text)
    assert accounts.ordinary(read).socket == "/run/one"
    assert accounts.peer_admin(read).socket == "/run/other"


def test_tls_by_tcp_and_not_by_socket(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("gw1.example")
    own.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
    own.private_key_pem.write_to_path(tmp_path / "own.key")
    (tmp_path / "own.key").chmod(0o600)
    text = pair('socket = "/run/one"\ntls = true\nca_file = "ca.pem"\ncert_file = "own.pem"\nkey_file = "own.key"\n')
    read = parse(text, base=tmp_path)
    assert accounts.ordinary(read).tls is None
    context = accounts.peer_ordinary(read).tls
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1
    key = serialization.load_pem_private_key((tmp_path / "own.key").read_bytes(), None)
    phrase = serialization.BestAvailableEncryption(b"phrase")
    pem, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "own.key").write_bytes(key.private_bytes(pem, kind, phrase))  # which nobody is asked for
    with pytest.raises(
        TlsError, match=r"^database\.cert_file .*own\.pem and database\.key_file .*own\.key cannot be used"
    ):
        accounts.peer_ordinary(read)


def test_a_configuration_without_the_tables_has_no_accounts():
    read = parse(PAIR.replace("active-passive", "ring"))
    with pytest.raises(ValueError, match=r"no \[database\]"):
        accounts.ordinary(read)
    with pytest.raises(ValueError, match=r"no \[pair\]"):
        accounts.peer_ordinary(parse(QUORUM))


# What is wrong


def test_each_mode_needs_its_tables():
    assert set(problems(PAIR)) == {"database", "pair"}
    assert set(problems(PAIR + DATABASE)) == {"pair"}
    assert set(problems(QUORUM.replace(DATABASE, ""))) == {"database"}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (pair('socket = "/run/one"\nhost = "localhost"\n'), "database.host"),
        (pair('socket = "/run/one"\nport = 3306\n'), "database.port"),
        (pair(pair='peer_socket = "/run/other"\n'), "pair.peer_host"),
        (PAIR + DATABASE + "[pair]\n", "pair.peer_host"),
        (pair('password_file = "database.secret"\n'), "database.password_file"),
        (pair('admin_password = "two"\n'), "database.admin_password"),
        (pair(pair='replication_password_env = "COPY"\n'), "pair.replication_password_env"),
        (pair('admin_user = "dlrproxy"\n'), "database.admin_user"),
        (pair('schema = "my-schema"\n'), "database.schema"),
        (pair('user = ""\n'), "database.user"),
        (pair('cert_file = "own.pem"\ntls = true\n'), "database.key_file"),
        (pair(pair="manage_database = true\n"), "database.admin_user"),
        (pair(pair="promote_after_s = 7.9\n"), "pair.promote_after_s"),
        (pair(pair="heartbeat_s = 2.1\n"), "pair.heartbeat_s"),
        (pair(pair='safety = "reckless"\n'), "pair.safety"),
        (pair(pair='witness = "10.0.0.3:7390"\n'), "pair.witness_secret_file"),
        (pair(pair='clone_command = "ssh"\n'), "pair.clone_command"),
        (pair('host = "10.0.0.2"\n'), "pair.peer_host"),
        (pair().replace(TWO_PEERS, PEERS), "peers"),
        (pair().replace(TWO_PEERS, ""), "peers"),
        (QUORUM + "takeover_after_s = 13.0\n", "quorum.takeover_after_s"),
        (QUORUM + "heartbeat_s = 2.0\n", "quorum.heartbeat_s"),
        (QUORUM + "unmatched_for_s = 0\n", "quorum.unmatched_for_s"),
        (QUORUM + 'stand_in = { gw1 = "gw9" }\n', "quorum.stand_in"),
        (QUORUM + 'stand_in = { gw1 = "gw1" }\n', "quorum.stand_in"),
        (QUORUM + 'stand_in = "gw2"\n', "quorum.stand_in"),
        (QUORUM + "stand_in = { gw1 = 2 }\n", "quorum.stand_in"),
        (QUORUM + "weights = { gw9 = 2 }\n", "quorum.weights"),
        (QUORUM + "weights = { gw1 = 256 }\n", "quorum.weights"),
        (QUORUM + "weights = { gw1 = true }\n", "quorum.weights"),
        (QUORUM + "weights = { gw1 = 0, gw2 = 0, gw3 = 0 }\n", "quorum.weights"),
        (QUORUM + 'sites = { gw9 = "north" }\n', "quorum.sites"),
    ],
)
def test_a_wrong_key_is_named(text, path):
    assert path in problems(text)


def test_a_pair_on_one_server_is_refused():
    text = PAIR + DATABASE + 'socket = "/run/one"\n[pair]\npeer_socket = "/run/one"\n'
    assert set(problems(text)) == {"pair.peer_socket"}


def test_a_witness_needs_a_secret_that_cannot_be_guessed(tmp_path):
    (tmp_path / "short").write_text("short")
    text = pair(pair='witness = "10.0.0.3:7390"\nwitness_secret_file = "short"\n')
    assert set(problems(text, base=tmp_path)) == {"pair.witness_secret_file"}


def test_what_cannot_be_read_is_named_by_its_file():
    found = problems(pair('admin_user = "boss"\nadmin_password_file = "nowhere"\ntls = true\nca_file = "gone.pem"\n'))
    assert set(found) == {"database.admin_password_file", "database.ca_file"}
    assert "No such file" in found["database.ca_file"]


def test_a_password_is_text(tmp_path):
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    text = pair().replace('password = "one"', 'password_file = "secret"')
    assert problems(text, base=tmp_path) == {"database.password": "must be text in UTF-8"}


def test_keys_without_effect_are_warned_of(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "secret").write_text("x" * 16)
    (tmp_path / "secret").chmod(0o600)
    text = pair('ca_file = "ca.pem"\n', 'witness_secret_file = "secret"\n')
    assert set(warnings(text, base=tmp_path)) == {"database.ca_file", "pair.witness_secret_file"}


def test_relative_paths_are_meant_from_the_file(tmp_path):
    read = parse(pair('socket = "one.sock"\n'), base=tmp_path)
    assert read.database.socket == tmp_path / "one.sock"
    assert read.pair.server_data_dir is None
    assert parse(pair(pair='server_data_dir = "/srv"\n')).pair.server_data_dir == Path("/srv")


def test_check_config_says_where_the_rows_are_and_who_changes_the_replication(tmp_path):
    file = tmp_path / "gw1.toml"

    def said(text, *options):
        file.write_text(text)
        return CliRunner().invoke(main, ["check-config", str(file), *options]).output

    shown = said(pair(ADMIN, "manage_database = true\n"))
    assert "database server at localhost:3306, schema dlrproxy, as dlrproxy; boss for the replication" in shown
    assert "replicates with the one at 10.0.0.2:3306; strict; this node changes it" in shown
    assert "another tool changes it" in said(pair())
    assert json.loads(said(pair('socket = "/run/one"\n'), "--json"))["database"] == {
        "server": "/run/one", "schema": "dlrproxy", "user": "dlrproxy",
    }  # fmt: skip
    ring = PAIR.replace("active-passive", "ring") + DATABASE
    assert "  database" not in said(ring)
    assert "database" not in json.loads(said(ring, "--json"))
