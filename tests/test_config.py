"""Configuration: what a file means, and that every problem is told at once with the path of its key."""

import os
import pickle
from pathlib import Path

import attrs
import pytest
import trustme

from dlrproxy.config import Address, Config, ConfigError, Node, Operator, Secret, load, parse

NODE = '[node]\nname = "gw1"\ndata_dir = "data"\n'
OPERATOR = """
[[operators]]
name = "acme"
host = "smsc.acme.example"
system_id = "shop"
password = "secret08"
listen = "127.0.0.1:2775"
"""
PEERS = """
[[peers]]
name = "gw1"
url = "ws://127.0.0.1:7301"
[[peers]]
name = "gw2"
url = "ws://127.0.0.1:7302"
[[peers]]
name = "gw3"
url = "ws://127.0.0.1:7303"
"""
MINIMAL = NODE + OPERATOR


def problems(text, **more):
    with pytest.raises(ConfigError) as caught:
        parse(text, **more)
    return {problem.path: problem.text for problem in caught.value.problems}


def warnings(text, **more):
    return {problem.path: problem.text for problem in parse(text, **more).warnings}


# What a file means


def test_a_minimal_file_has_the_documented_defaults(tmp_path):
    read = parse(MINIMAL, base=tmp_path)
    operator = read.operators[0]
    assert (read.node.mode, read.node.min_free_mb, read.node.drain_s) == ("ring", 256, 20.0)
    assert (operator.port, operator.binds, operator.window, operator.max_binds) == (2775, 1, 10, None)
    assert (operator.gateway_answer_s, operator.race_window_s, operator.operator_answer_s) == (3.0, 1.0, 8.0)
    assert (operator.retry_status, operator.busy_status, operator.no_bind_status) == (0x58, 0x58, 0x08)
    assert (operator.message_id, operator.track, operator.unclaimed) == ("auto", "all", "park")
    assert read.ring.claim_for_s == 259_200
    assert read.custody.max_messages == 100_000
    assert read.warnings == ()


def test_a_file_equals_what_code_builds(tmp_path):
    assert parse(MINIMAL, base=tmp_path) == Config(
        node=Node(name="gw1", data_dir=tmp_path / "data"),
        operators=(
            Operator(
                name="acme",
                host="smsc.acme.example",
                system_id="shop",
                password=Secret(b"secret08"),
                listen={"gw1": Address("127.0.0.1", 2775)},
            ),
        ),
    )


def test_relative_paths_are_meant_from_the_file(tmp_path):
    path = tmp_path / "dlrproxy.toml"
    path.write_text(MINIMAL + '[log]\nfile = "/var/log/dlrproxy.log"\n')
    read = load(path)
    assert read.node.data_dir == tmp_path / "data"
    assert read.log.file == Path("/var/log/dlrproxy.log")


def test_one_listen_address_is_for_the_gateway_named_as_the_node():
    assert parse(MINIMAL).operators[0].listen == {"gw1": Address("127.0.0.1", 2775)}


def test_several_gateways_listen_by_name():
    text = MINIMAL.replace('"127.0.0.1:2775"', '{ shop1 = "127.0.0.1:2775", shop2 = "[::1]:2776" }')
    listen = parse(text).operators[0].listen
    assert listen == {"shop1": Address("127.0.0.1", 2775), "shop2": Address("::1", 2776)}
    assert str(listen["shop2"]) == "[::1]:2776"


def test_a_table_cannot_be_changed_after_loading():
    operator = parse(MINIMAL).operators[0]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        operator.window = 5
    with pytest.raises(TypeError):
        operator.listen["other"] = Address("::", 1)


def test_host_and_port_or_hosts_say_where_to_dial():
    assert parse(MINIMAL).operators[0].addresses == (Address("smsc.acme.example", 2775),)
    several = MINIMAL.replace('host = "smsc.acme.example"', 'hosts = ["a.example:2775", "b.example:2776"]')
    assert parse(several).operators[0].addresses == (Address("a.example", 2775), Address("b.example", 2776))


@pytest.mark.parametrize(("written", "meant"), [('"ESME_RMSGQFUL"', 0x14), ("0x64", 0x64), ("1024", 0x400)])
def test_a_status_is_a_name_or_a_number(written, meant):
    assert parse(f"{MINIMAL}retry_status = {written}\n").operators[0].retry_status == meant


@pytest.mark.parametrize(("version", "octet"), [("3.3", 0x33), ("3.4", 0x34), ("5.0", 0x50)])
def test_interface_version_as_a_bind_carries_it(version, octet):
    read = parse(f'{MINIMAL}interface_version = "{version}"\n')
    assert read.operators[0].interface_version_octet == octet


def test_a_pair_of_transmitter_and_receiver_counts_as_two_connections():
    read = parse(f'{MINIMAL}bind_type = "transmitter+receiver"\nbinds = 2\n')
    assert read.operators[0].connections == 4


def test_a_node_alone_is_a_ring_of_one():
    read = parse(MINIMAL)
    assert read.node_names == ("gw1",)
    assert read.own_peer is None
    assert read.ring_listen is None


def test_the_ring_listens_at_its_own_url_unless_told_otherwise():
    read = parse(MINIMAL + PEERS)
    assert read.node_names == ("gw1", "gw2", "gw3")
    assert [peer.name for peer in read.other_peers] == ["gw2", "gw3"]
    assert read.ring_listen == Address("127.0.0.1", 7301)
    assert parse(MINIMAL + PEERS + '[ring]\nlisten = "[::]:7000"\n').ring_listen == Address("::", 7000)


def test_mo_rules_are_read_in_order():
    text = MINIMAL + '[mo]\nrules = [{destination = "7000", gateway = "gw1"}, {keyword = "WIN", gateway = "gw1"}]\n'
    assert [rule.destination for rule in parse(text).mo.rules] == ["7000", None]


# Problems


def test_every_problem_is_told_at_once_in_the_order_of_the_tables():
    text = """
        [node]
        moda = "ring"
        data_dir = 3
        [[operators]]
        name = "acme"
        host = "a"
        password = "x"
        system_id = "shop"
        listen = "127.0.0.1:2775"
        enquire_lnk_s = 3
        window = 0
        [[operators]]
        name = "beta"
        host = "b"
        password = "x"
        system_id = "shop"
        listen = "127.0.0.1:2776"
        gateway_answer_s = 7.5
        [log]
        level = "loud"
    """
    with pytest.raises(ConfigError) as caught:
        parse(text, source="gw1.toml")
    assert str(caught.value).splitlines() == [
        "gw1.toml: node.name: missing; this key is required",
        "gw1.toml: node.data_dir: must be a string in quotes, is 3",
        "gw1.toml: node.moda: unknown key; did you mean mode?",
        "gw1.toml: operators[0].window: must be between 1 and 10000, is 0",
        "gw1.toml: operators[0].enquire_lnk_s: unknown key; did you mean enquire_link_s?",
        "gw1.toml: operators[1].operator_answer_s: 8 must be more than race_window_s + gateway_answer_s (1 + 7.5)",
        'gw1.toml: log.level: must be one of "debug", "info", "warning", "error"; is "loud"',
    ]


@pytest.mark.parametrize(
    ("line", "path", "text"),
    [
        ("windw = 3", "windw", "unknown key; did you mean window?"),
        ("qqq = 3", "qqq", "unknown key"),
        ('binds = "3"', "binds", 'must be a whole number, is "3"'),
        ("binds = 1.5", "binds", "must be a whole number, is 1.5"),
        ("binds = true", "binds", "must be a whole number, is true"),
        ("tls = 1", "tls", "must be true or false, is 1"),
        ('response_s = "60"', "response_s", 'must be a number, is "60"'),
        ("response_s = inf", "response_s", "must be a finite number"),
        ("response_s = 0", "response_s", "must be more than 0, is 0.0"),
        ("race_window_s = -1", "race_window_s", "must be at least 0, is -1.0"),
        ("max_per_s = 0", "max_per_s", "must be more than 0, is 0.0"),
        ("system_type = {}", "system_type", "must be a string in quotes, is a table"),
        ('system_type = "averylongsystemtype"', "system_type", "must be at most 12 characters, has 19"),
        ('address_range = "é"', "address_range", "must be plain ASCII"),
        ("interface_version = 3.4", "interface_version", 'must be one of "3.3", "3.4", "5.0"; is 3.4'),
        ('source_ip = "here"', "source_ip", 'must be an IP address, is "here"'),
        ('ca_file = ""', "ca_file", "must not be empty"),
        (
            'retry_status = "ESME_RTHROTTLE"',
            "retry_status",
            'unknown status "ESME_RTHROTTLE"; did you mean ESME_RTHROTTLED?; or give a number',
        ),
        ("retry_status = 0", "retry_status", "must be an error status between 1 and 0xFFFFFFFF, is 0x0"),
        ("retry_status = 1.5", "retry_status", 'must be a number such as 0x58, or a name such as "ESME_RTHROTTLED"'),
    ],
)
def test_a_key_of_an_operator_that_is_wrong(line, path, text):
    assert problems(f"{MINIMAL}{line}\n") == {f"operators[0].{path}": text}


@pytest.mark.parametrize(
    ("written", "path", "text"),
    [
        ("2775", "listen", 'must be "host:port", or a table such as { shop1 = "127.0.0.1:2775" }'),
        ('"2775"', "listen", 'must be "host:port"; is "2775"'),
        ('"h:70000"', "listen", 'must be "host:port"; is "h:70000"'),
        ('"::1:2775"', "listen", 'an IPv6 address needs brackets, as in "[::1]:2775", is "::1:2775"'),
        ('{ shop1 = "h:1", shop2 = "h" }', "listen.shop2", 'must be "host:port"; is "h"'),
        ('{ "" = "h:1" }', "listen", "a gateway must have a name"),
        ("{}", "listen", 'must be "host:port", or a table such as { shop1 = "127.0.0.1:2775" }'),
    ],
)
def test_a_listen_address_that_is_wrong(written, path, text):
    assert problems(MINIMAL.replace('"127.0.0.1:2775"', written)) == {f"operators[0].{path}": text}


EMPTY_PART = "a part between dots is empty"


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("smsc..acme.example", EMPTY_PART),
        (".acme.example", EMPTY_PART),
        ("", EMPTY_PART),
        ("x" * 64 + ".example", "a part may have 63 characters, all of it 253"),
        ("smsc.acme.example:2775", "it takes no scheme and no port"),
        ("smpp://smsc.acme.example", "it takes no scheme and no port"),
        (" smsc", "a part has letters, digits, '-' and '_', and no '-' at its ends (other letters as xn--)"),
        ("10.0.0.256", "it looks like an address and is none"),
    ],
)
def test_a_host_that_cannot_be_asked_for(host, why):
    written = MINIMAL.replace("smsc.acme.example", host)
    assert problems(written) == {"operators[0].host": f'must be a host name or an IP address, is "{host}": {why}'}
    if host and ":" not in host:
        listen = problems(MINIMAL.replace("127.0.0.1:2775", f"{host}:2775"))
        assert listen == {"operators[0].listen": f'must be "host:port"; is "{host}:2775": {why}'}


@pytest.mark.parametrize(
    "host", ["smsc", "smsc.acme.example.", "xn--bcher-kva.example", "my_smsc", "10.0.0.1", "2001:db8::1"]
)
def test_a_host_that_can(host):
    assert parse(MINIMAL.replace("smsc.acme.example", host)).operators[0].addresses == (Address(host, 2775),)


def test_a_missing_key_of_a_table_within_a_table():
    found = problems(MINIMAL + '[[mo.rules]]\ngateway = "gw1"\n[[mo.rules]]\ndestinatio = "7000"\n')
    assert found == {
        "mo.rules[1].gateway": "missing; this key is required",
        "mo.rules[1].destinatio": "unknown key; did you mean destination?",
    }


def test_unknown_tables_and_tables_of_the_wrong_shape():
    assert problems(MINIMAL + "[operator]\n") == {"operator": "unknown key; did you mean operators?"}
    assert problems(NODE + "[operators]\n") == {"operators": "must be an array of tables: [[operators]]"}
    assert problems(MINIMAL + '[mo]\nrules = "none"\n') == {"mo.rules": 'must be a list, is "none"'}
    assert problems("ring = 3\n" + MINIMAL) == {"ring": "must be a table, is 3"}


def test_nothing_at_all_says_what_is_needed():
    assert problems("") == {
        "node.name": "missing; this key is required",
        "node.data_dir": "missing; this key is required",
        "operators": "at least one [[operators]] table is required",
    }


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[node]\nname = "gw1\n', "line 2, column 12"),
        ("[node\n", "line 1, column 6"),
        ("[node]\nname = ", "line 2, column 8"),
    ],
)
def test_a_syntax_error_has_line_and_column(text, where):
    assert list(problems(text)) == [where]


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml: byte 5: TOML is UTF-8"):
        load(tmp_path / "latin.toml")


def test_keys_of_which_one_is_wanted():
    assert problems(MINIMAL + 'hosts = ["a:1"]\n') == {
        "operators[0].hosts": "excludes host; give only one of host, hosts",
    }
    none = MINIMAL.replace('password = "secret08"\n', "").replace('host = "smsc.acme.example"\n', "")
    with pytest.raises(ConfigError) as caught:
        parse(none)
    assert [str(problem) for problem in caught.value.problems] == [
        "operators[0]: one of host, hosts is required",
        "operators[0]: one of password, password_file, password_env is required",
    ]
    ports = MINIMAL.replace('host = "smsc.acme.example"', 'hosts = ["a:1"]\nport = 2775')
    assert "operators[0].port" in problems(ports)


def test_an_empty_password_is_a_password():
    assert parse(MINIMAL.replace("secret08", "")).operators[0].password == Secret(b"")


# Tables against tables


def test_the_node_is_one_of_the_peers():
    found = problems((MINIMAL + PEERS).replace('[node]\nname = "gw1"', '[node]\nname = "gw9"'))
    assert found == {"node.name": '"gw9" is not among the [[peers]]: gw1, gw2, gw3'}


def test_a_peer_that_cannot_be_read_hides_nothing_and_adds_nothing():
    found = problems((MINIMAL + PEERS).replace('url = "ws://127.0.0.1:7301"', ""))
    assert found == {"peers[0].url": "missing; this key is required"}


def test_names_and_addresses_are_unique():
    assert problems(MINIMAL + OPERATOR.replace("2775", "2776")) == {
        "operators[1].name": '"acme" is the name of operators[0] already'
    }
    assert problems(MINIMAL + PEERS.replace("gw3", "gw2").replace("7303", "7302")) == {
        "peers[2].name": '"gw2" is the name of peers[1] already',
        "peers[2].url": "127.0.0.1:7302 is the address of peers[1] already",
    }


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:1",
        "wss://10.0.0.1",
        "wss://:7301",
        "wss://h:99999",
        "wss://h:1/path",
        "wss://u@h:1",
        "wss://a..b:1",
        "x",
    ],
)
def test_a_url_that_is_no_peer(url):
    assert list(problems(MINIMAL + PEERS.replace("ws://127.0.0.1:7303", url))) == ["peers[2].url"]


def test_plain_websockets_stay_on_loopback():
    found = problems(MINIMAL + PEERS.replace("127.0.0.1:7303", "10.0.0.3:7303"))
    assert found == {"peers[2].url": "ws:// is not encrypted and allowed on loopback only; use wss://"}


def test_encrypted_links_need_credentials(tmp_path):
    peers = MINIMAL + PEERS.replace("ws://127.0.0.1", "wss://10.0.0.1")
    assert problems(peers) == {"ring": "wss:// peers need ca_file, cert_file and key_file, or secret_file"}
    assert list(problems(peers + '[ring]\nca_file = "ca"\n', base=tmp_path)) == [
        "ring.cert_file",
        "ring.key_file",
        "ring.ca_file",
    ]
    (tmp_path / "ring.secret").write_text("0123456789abcdef\n")
    (tmp_path / "ring.secret").chmod(0o600)
    read = parse(peers + '[ring]\nsecret_file = "ring.secret"\n', base=tmp_path)
    assert read.ring.secret == Secret(b"0123456789abcdef")


def test_a_short_ring_secret_is_refused(tmp_path):
    (tmp_path / "ring.secret").write_text("short")
    found = problems(MINIMAL + '[ring]\nsecret_file = "ring.secret"\n', base=tmp_path)
    assert found == {"ring.secret_file": "holds fewer than 16 bytes"}


def test_binds_are_added_up_over_all_nodes():
    text = MINIMAL + "max_binds = 2\n" + PEERS
    assert problems(text) == {
        "operators[0].max_binds": "the operator allows 2, but 3 nodes with 1 each make 3",
    }
    assert parse(MINIMAL + "max_binds = 3\n" + PEERS).operators[0].max_binds == 3
    assert "operators[0].max_binds" in problems(MINIMAL + 'max_binds = 1\nbind_type = "transmitter+receiver"\n')


def test_check_config_says_when_a_tls_name_has_no_effect():
    text = MINIMAL + 'tls_server_name = "smpp.acme.example"\n'
    assert warnings(text) == {"operators[0].tls_server_name": "has no effect without tls = true"}
    assert warnings(text + "tls = true\n") == {}
    assert "operators[0].tls_server_name" in problems(MINIMAL + 'tls_server_name = "smpp.acme.example:2776"\n')


OUTBIND = 'outbind_listen = "127.0.0.1:2776"\n'


def test_an_operator_may_introduce_itself_with_the_accounts_credentials_or_its_own(tmp_path):
    (tmp_path / "outbind.secret").write_text("fromfile\n")
    (tmp_path / "outbind.secret").chmod(0o600)
    [account] = parse(MINIMAL + OUTBIND).operators
    assert (account.outbind_credentials[0], account.outbind_credentials[1].reveal()) == ("shop", b"secret08")
    text = MINIMAL + OUTBIND + 'outbind_system_id = "acme"\n'
    for line in (
        'outbind_password = "fromfile"',
        'outbind_password_file = "outbind.secret"',
        'outbind_password_env = "OUTBIND"',
    ):
        [own] = parse(text + line, base=tmp_path, environ={"OUTBIND": "fromfile"}).operators
        assert (own.outbind_credentials[0], own.outbind_credentials[1].reveal()) == ("acme", b"fromfile")
        assert own.password.reveal() == b"secret08"


def test_outbind_keys_that_do_not_fit(tmp_path):
    two = 'outbind_password = "a"\noutbind_password_env = "B"\n'
    assert problems(MINIMAL + OUTBIND + two, environ={"B": "b"}) == {
        "operators[0].outbind_password_env": "excludes outbind_password; "
        "give only one of outbind_password, outbind_password_file, outbind_password_env"
    }
    assert "operators[0].outbind_password_env" in problems(
        MINIMAL + OUTBIND + 'outbind_password_env = "B"\n', environ={}
    )
    assert "operators[0].outbind_listen" in problems(MINIMAL + OUTBIND + 'bind_type = "transmitter"\n')
    assert "operators[0].outbind_listen" in problems(MINIMAL + 'outbind_listen = "127.0.0.1:2775"\n')  # is listen
    assert warnings(MINIMAL + 'outbind_password = "a"\n') == {
        "operators[0].outbind_password": "has no effect without outbind_listen"
    }


def test_an_operator_that_is_never_dialled_needs_no_host():
    text = (MINIMAL + OUTBIND + "binds = 0\n").replace('host = "smsc.acme.example"\n', "")
    [operator] = parse(text).operators
    assert (operator.addresses, operator.connections) == ((), 0)
    assert problems(MINIMAL + "binds = 0\n") == {
        "operators[0].binds": "0 needs outbind_listen: there would never be a bind"
    }


def test_the_time_budget_fits_the_operator():
    found = problems(MINIMAL + "operator_answer_s = 4\n")
    assert found == {"operators[0].operator_answer_s": "4 must be more than race_window_s + gateway_answer_s (1 + 3)"}


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("reconnect_min_s = 90", "operators[0].reconnect_max_s"),
        ("[ring]\nretry_min_s = 301", "ring.retry_max_s"),
        ("[ring]\nheartbeat_s = 4", "ring.suspect_after_s"),
        ("[ring]\nsuspect_after_s = 11", "ring.dead_after_s"),
        ("[ring]\nclaim_for_s = 10", "ring.claim_for_s"),
        ("[custody]\nretry_min_s = 61", "custody.retry_max_s"),
    ],
)
def test_times_that_are_out_of_order(line, path):
    assert list(problems(f"{MINIMAL}{line}\n")) == [path]


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        (OPERATOR.replace("acme", "beta"), "operators[1].listen"),
        (OPERATOR.replace("acme", "beta").replace("127.0.0.1", "0.0.0.0"), "operators[1].listen"),
        (PEERS + '[ring]\nlisten = "0.0.0.0:2775"\n', "ring.listen"),
        (PEERS.replace("7301", "2775"), "peers[0].url"),
        ('[admin]\nlisten = "127.0.0.1:2775"\n', "admin.listen"),
    ],
)
def test_two_listeners_on_one_address(extra, path):
    found = problems(MINIMAL + extra)
    assert list(found) == [path]
    assert found[path].endswith("is taken by operators[0].listen (127.0.0.1:2775)")


def test_ipv4_and_ipv6_listeners_share_a_port():
    text = MINIMAL + OPERATOR.replace("acme", "beta").replace("127.0.0.1", "[::]")
    assert len(parse(text).operators) == 2


def test_ports_that_the_system_chooses_do_not_collide():
    text = (MINIMAL + OPERATOR.replace("acme", "beta")).replace(":2775", ":0")
    assert len(parse(text).operators) == 2


def test_an_api_off_loopback_needs_a_token(tmp_path):
    assert list(problems(MINIMAL + '[admin]\nlisten = "0.0.0.0:7380"\n')) == ["admin.token_file"]
    (tmp_path / "token").write_text("a-token\n")
    read = parse(MINIMAL + '[admin]\nlisten = "0.0.0.0:7380"\ntoken_file = "token"\n', base=tmp_path)
    assert read.admin.token == Secret(b"a-token")


def test_mo_rules_name_what_is_known():
    rule = '[[mo.rules]]\noperator = "acne"\ngateway = "shop9"\n'
    expected = {
        "mo.rules[0].operator": 'no operator "acne" is known here',
        "mo.rules[0].gateway": 'no gateway "shop9" is known here',
    }
    assert problems(MINIMAL + rule) == expected
    assert warnings(MINIMAL + PEERS + rule) == expected  # another node may have them
    assert warnings(MINIMAL + PEERS + '[[mo.rules]]\noperator = "acme"\ngateway = "gw2"\n') == {}


def test_a_rule_that_hides_the_others():
    text = MINIMAL + '[[mo.rules]]\ngateway = "gw1"\n[[mo.rules]]\nkeyword = "WIN"\ngateway = "gw1"\n'
    assert warnings(text) == {"mo.rules[0]": "matches every MO, so the rules after it never apply"}


# Against the machine


def test_the_password_comes_from_a_file_without_its_line_ending(tmp_path):
    (tmp_path / "acme.secret").write_bytes(b"s3cr et\r\n")
    (tmp_path / "acme.secret").chmod(0o600)
    text = MINIMAL.replace('password = "secret08"', 'password_file = "acme.secret"')
    assert parse(text, base=tmp_path).operators[0].password.reveal() == b"s3cr et"


def test_the_password_comes_from_the_environment():
    text = MINIMAL.replace('password = "secret08"', 'password_env = "ACME"')
    assert parse(text, environ={"ACME": "s3cret"}).operators[0].password.reveal() == b"s3cret"
    assert problems(text, environ={}) == {"operators[0].password_env": "the environment has no variable ACME"}


def test_secret_files_that_are_no_use(tmp_path):
    text = MINIMAL.replace('password = "secret08"', 'password_file = "acme.secret"')
    file = tmp_path / "acme.secret"
    assert problems(text, base=tmp_path) == {
        "operators[0].password_file": f"cannot read {file}: No such file or directory"
    }
    file.write_text("\n")
    assert problems(text, base=tmp_path) == {"operators[0].password_file": f"{file} is empty"}
    file.write_bytes(bytes(70_000))
    assert "larger than" in problems(text, base=tmp_path)["operators[0].password_file"]


def test_a_secret_that_everybody_can_read_is_a_warning(tmp_path):
    file = tmp_path / "acme.secret"
    file.write_text("s3cret")
    file.chmod(0o644)
    text = MINIMAL.replace('password = "secret08"', 'password_file = "acme.secret"')
    assert warnings(text, base=tmp_path) == {
        "operators[0].password_file": f"{file} can be read by every user of this machine; chmod o-r"
    }


def test_a_password_that_smpp_has_no_room_for_is_a_warning():
    assert warnings(MINIMAL.replace("secret08", "secret009")) == {
        "operators[0].password": "has 9 octets; SMPP 3.4 allows 8"
    }
    assert list(problems(MINIMAL.replace("secret08", "a\\u0000b"))) == ["operators[0].password"]


@pytest.fixture
def certificates(tmp_path):
    authority = trustme.CA()
    node, other = authority.issue_cert("gw1"), authority.issue_cert("gw2")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    node.cert_chain_pems[0].write_to_path(tmp_path / "node.pem")
    node.private_key_pem.write_to_path(tmp_path / "node.key")
    other.private_key_pem.write_to_path(tmp_path / "other.key")
    for file in tmp_path.iterdir():
        file.chmod(0o600)
    return tmp_path


RING_FILES = '[ring]\nca_file = "ca.pem"\ncert_file = "node.pem"\nkey_file = "node.key"\n'


def test_certificates_that_fit(certificates):
    peers = PEERS.replace("ws://127.0.0.1", "wss://10.0.0.1")
    assert warnings(MINIMAL + peers + RING_FILES, base=certificates) == {}


def test_certificates_that_do_not_fit(certificates):
    other = RING_FILES.replace("node.key", "other.key")
    assert "does not belong to the certificate" in problems(MINIMAL + other, base=certificates)["ring.cert_file"]
    no_authority = RING_FILES.replace("ca.pem", "node.key")
    assert "holds no certificate" in problems(MINIMAL + no_authority, base=certificates)["ring.ca_file"]
    absent = RING_FILES.replace("node.key", "absent.key")
    assert "cannot read" in problems(MINIMAL + absent, base=certificates)["ring.key_file"]
    swapped = RING_FILES.replace('cert_file = "node.pem"', 'cert_file = "ca.txt"')
    (certificates / "ca.txt").write_text("no certificate")
    assert "unencrypted key" in problems(MINIMAL + swapped, base=certificates)["ring.cert_file"]


def test_certificates_and_a_secret_exclude_each_other(certificates):
    (certificates / "ring.secret").write_text("0123456789abcdef")
    both = RING_FILES + 'secret_file = "ring.secret"\n'
    assert sorted(problems(MINIMAL + both, base=certificates)) == ["ring.ca_file", "ring.cert_file", "ring.key_file"]


def test_client_certificates_of_an_operator(certificates):
    found = problems(MINIMAL + 'tls = true\ncert_file = "node.pem"\n', base=certificates)
    assert found == {"operators[0].key_file": "is required with cert_file"}
    unused = warnings(MINIMAL + 'cert_file = "node.pem"\nkey_file = "node.key"\n', base=certificates)
    assert list(unused) == ["operators[0].cert_file", "operators[0].key_file"]


def test_certificates_towards_the_gateways(certificates):
    assert problems(MINIMAL + "listen_tls = true\n") == {
        "operators[0].listen_cert_file": "is required with listen_tls",
        "operators[0].listen_key_file": "is required with listen_tls",
    }
    files = 'listen_cert_file = "node.pem"\nlisten_key_file = "{}"\nlisten_ca_file = "ca.pem"\n'
    assert list(warnings(MINIMAL + files.format("node.key"), base=certificates)) == [
        "operators[0].listen_ca_file",
        "operators[0].listen_cert_file",
        "operators[0].listen_key_file",
    ]
    found = problems(MINIMAL + "listen_tls = true\n" + files.format("other.key"), base=certificates)
    assert "does not belong to the certificate" in found["operators[0].listen_cert_file"]


def test_certificates_where_the_operator_connects(certificates):
    listen = 'outbind_listen = "127.0.0.1:2800"\noutbind_tls = true\n'
    assert problems(MINIMAL + listen) == {
        "operators[0].outbind_cert_file": "is required with outbind_tls",
        "operators[0].outbind_key_file": "is required with outbind_tls",
    }
    files = 'outbind_cert_file = "node.pem"\noutbind_key_file = "{}"\noutbind_ca_file = "ca.pem"\n'
    assert warnings(MINIMAL + listen + files.format("node.key"), base=certificates) == {}
    assert list(warnings(MINIMAL + files.format("node.key"), base=certificates)) == [
        "operators[0].outbind_ca_file",
        "operators[0].outbind_cert_file",
        "operators[0].outbind_key_file",
    ]
    found = problems(MINIMAL + listen + files.format("other.key"), base=certificates)
    assert "does not belong to the certificate" in found["operators[0].outbind_cert_file"]
    lonely = MINIMAL + "outbind_tls = true\n" + files.format("node.key")
    assert warnings(lonely, base=certificates) == {"operators[0].outbind_tls": "has no effect without outbind_listen"}


def test_certificates_of_the_api(certificates):
    admin = MINIMAL + '[admin]\nlisten = "0.0.0.0:7380"\n'
    assert list(problems(admin + "tls = true\n")) == ["admin.cert_file", "admin.key_file", "admin.token_file"]
    files = 'cert_file = "node.pem"\nkey_file = "node.key"\n'
    assert list(problems(admin + "tls = true\n" + files, base=certificates)) == ["admin.token_file"]
    authority = 'ca_file = "ca.pem"\n'
    assert list(problems(admin + files + authority, base=certificates)) == ["admin.token_file"]
    assert warnings(admin + "tls = true\n" + files + authority, base=certificates) == {}
    other = files.replace("node.key", "other.key")
    found = problems(admin + "tls = true\n" + other + authority, base=certificates)
    assert "does not belong to the certificate" in found["admin.cert_file"]
    local = admin.replace("0.0.0.0", "127.0.0.1")
    assert list(warnings(local + files, base=certificates)) == ["admin.cert_file", "admin.key_file"]


def test_the_data_directory_is_a_directory(tmp_path):
    (tmp_path / "data").write_text("a file")
    assert problems(MINIMAL, base=tmp_path) == {"node.data_dir": f"{tmp_path / 'data'} is not a directory"}


def test_a_data_directory_that_this_user_cannot_write_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert warnings(MINIMAL, base=tmp_path) == {"node.data_dir": f"{tmp_path / 'data'} is not writable for this user"}


# Secrets


def test_a_secret_is_never_shown():
    secret = Secret(b"hunter2")
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", f"{parse(MINIMAL)!r}"):
        assert "hunter2" not in shown
        assert "secret08" not in shown
    with pytest.raises(TypeError, match="not serialised"):
        pickle.dumps(secret)
    assert not hasattr(secret, "__dict__")


def test_no_problem_repeats_a_secret():
    for written in ('password = ["hunter2"]', "password = { hunter2 = 1 }", 'password = "hunter2\\u0000"'):
        found = problems(MINIMAL.replace('password = "secret08"', written))
        assert "hunter2" not in str(found)


def test_secrets_compare_by_content_for_reloads():
    assert Secret(b"a") == Secret(b"a") != Secret(b"b")
    assert hash(Secret(b"a")) == hash(Secret(b"a"))
    assert not Secret(b"")


# The classes keep their limits in code too


def test_code_cannot_build_what_a_file_may_not_say():
    with pytest.raises(ValueError, match="must be between 1 and 10000"):
        Operator(name="acme", system_id="shop", listen={}, window=0)
    with pytest.raises(TypeError, match="enquire_lnk_s"):
        Operator(name="acme", system_id="shop", listen={}, enquire_lnk_s=3)
