"""A reload: what counts at once, and what from the next start."""

from attrs import evolve

from dlrproxy.config import Address, Config, Custody, Node, Operator, Peer, Ring, Secret
from dlrproxy.config.changes import changes


def operator(name, **settings):
    return Operator(
        name=name,
        host="smsc.example",
        system_id="shop",
        password=Secret(b"secret"),
        listen={"gw1": Address("127.0.0.1", 2775)},
        **settings,
    )


def config(tmp_path, *operators, **tables):
    return Config(node=Node(name="gw1", data_dir=tmp_path), operators=operators, **tables)


def test_nothing_changed(tmp_path):
    same = config(tmp_path, operator("acme"))
    found = changes(same, config(tmp_path, operator("acme")))
    assert (found.added, found.changed, found.removed, found.peers, found.needs_restart) == ((), (), (), False, ())


def test_operators_come_change_and_go(tmp_path):
    running = config(tmp_path, operator("acme"), operator("beta"), operator("gone"))
    wanted = config(tmp_path, operator("acme"), operator("beta", window=20), operator("new"))
    found = changes(running, wanted)
    assert [each.name for each in found.added] == ["new"]
    assert [(each.name, each.window) for each in found.changed] == [("beta", 20)]
    assert found.removed == ("gone",)


def test_a_node_joins(tmp_path):
    peers = (Peer(name="gw1", url="ws://127.0.0.1:1"), Peer(name="gw2", url="ws://127.0.0.1:2"))
    running = config(tmp_path, operator("acme"), peers=peers)
    joined = (*peers, Peer(name="gw3", url="ws://127.0.0.1:3"))
    assert changes(running, evolve(running, peers=joined)).peers
    assert not changes(running, running).peers


def test_the_rest_counts_from_the_next_start(tmp_path):
    running = config(tmp_path, operator("acme"))
    wanted = evolve(
        running,
        node=Node(name="gw1", data_dir=tmp_path / "elsewhere"),
        custody=Custody(max_parked=5),
        ring=Ring(claim_for_s=5.0, secret=Secret(b"x" * 16)),
    )
    assert set(changes(running, wanted).needs_restart) == {"node.data_dir", "custody.max_parked", "ring.claim_for_s"}
