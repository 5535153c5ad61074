"""The [join] table: what is wrong with it, and what follows from it."""

import pytest
from test_config import MINIMAL, PEERS, problems

from dlrproxy.config import Address, parse
from dlrproxy.modes import ring
from dlrproxy.modes.link_security import join_security, link_security

RING = MINIMAL + PEERS


def gates(*named):
    return "".join(f'[[join.gates]]\nname = "{name}"\nurl = "{url}"\n' for name, url in named)


BOTH = gates(("dlrproxy/gw1", "ws://127.0.0.1:7401"), ("south/gw1", "ws://127.0.0.1:7402"))


def test_without_gates_there_is_no_join():
    read = parse(RING)
    assert read.join.gates == read.far_gates == ()
    assert ring.topology(read).gates == ()
    assert ring.topology(read).joined == ""


def test_both_rings_stand_in_one_table_and_a_node_knows_which_gate_it_is():
    read = parse(RING + BOTH)
    assert read.own_gate.address == Address("127.0.0.1", 7401)
    assert [gate.name for gate in read.far_gates] == ["south/gw1"]
    assert ring.topology(read).gates == ("south/gw1",)
    assert ring.topology(read).joined == "south"
    other = parse(RING.replace('name = "gw1"\ndata_dir', 'name = "gw2"\ndata_dir') + BOTH)
    assert other.own_gate is None


def test_names_of_gates():
    assert problems(RING + gates(("gw1", "ws://127.0.0.1:7401"))) == {
        "join.gates[0].name": 'must be "cluster/node", as in "north/gw1"; is \'gw1\''
    }
    assert problems(RING + gates(("dlrproxy/gw1", "ws://127.0.0.1:7401"))) == {
        "join.gates": "gates of one other ring are wanted, not none"
    }
    found = problems(RING + BOTH + gates(("south/gw1", "ws://127.0.0.1:7402"), ("dlrproxy/gw9", "ws://127.0.0.1:7409")))
    assert found == {
        "join.gates[2].name": '"south/gw1" is the name of join.gates[1] already',
        "join.gates[2].url": "127.0.0.1:7402 is the address of join.gates[1] already",
        "join.gates[3].name": '"gw9" is not among the nodes of this ring',
    }


def test_what_leaves_the_machine_is_encrypted():
    away = gates(("dlrproxy/gw1", "ws://10.0.0.1:7401"), ("south/gw1", "wss://10.0.0.2:7401"))
    assert problems(RING + away) == {
        "join.gates[0].url": "ws:// is not encrypted and allowed on loopback only; use wss://",
        "join": "wss:// gates need ca_file, cert_file and key_file, or secret_file",
    }


def test_the_rings_secret_does_for_the_join_unless_that_has_its_own(tmp_path):
    for name, content in (("ring", "the secret of the ring"), ("join", "the secret of the join"), ("short", "short")):
        (tmp_path / name).write_text(content)
    away = gates(("dlrproxy/gw1", "wss://127.0.0.1:7401"), ("south/gw1", "wss://127.0.0.1:7402"))
    shared = f'[ring]\nsecret_file = "{tmp_path}/ring"\n'
    from_ring = parse(RING + shared + away)
    assert join_security(from_ring).secret == b"the secret of the ring"
    own = parse(RING + shared + f'[join]\nsecret_file = "{tmp_path}/join"\n' + away)
    assert join_security(own).secret == b"the secret of the join"
    assert link_security(own).secret == b"the secret of the ring"
    assert problems(RING + f'[join]\nsecret_file = "{tmp_path}/short"\n' + away) == {
        "join.secret_file": "holds fewer than 16 bytes"
    }


@pytest.mark.parametrize(
    ("listen", "path"), [("", "join.gates[0].url"), ('[join]\nlisten = "0.0.0.0:2775"\n', "join.listen")]
)
def test_the_join_has_a_port_of_its_own(listen, path):
    taken = RING + listen + gates(("dlrproxy/gw1", "ws://127.0.0.1:2775"), ("south/gw1", "ws://127.0.0.1:7402"))
    [(where, text)] = problems(taken).items()
    assert where == path
    assert "is taken by operators[0].listen" in text
