"""A reload: what counts at once, and what from the next start."""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
from attrs import evolve, fields

from dlrproxy.config import (
    Address,
    Admin,
    Config,
    Custody,
    Database,
    Mo,
    MoRule,
    Node,
    Operator,
    Pair,
    Peer,
    Quorum,
    Ring,
    Secret,
)
from dlrproxy.config.changes import IDENTITY, LIVE_KEYS, ReloadRefusedError, changes, check_identity, taken_over
from dlrproxy.config.keys import key_of

OPERATIONS = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()


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


def other_value(attribute, value):
    """Another value that the key's limits allow."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if choices := [choice for choice in get_args(attribute.type) if isinstance(choice, str)]:
        return next(choice for choice in choices if choice != value)
    if isinstance(value, Mapping):
        return {"gw9": 5} if get_args(attribute.type)[1] is int else {"gw9": "gw8"}
    if isinstance(value, Secret):
        return Secret(b"another")
    if isinstance(value, tuple):
        return (MoRule(gateway="gw9"),)
    if Address in (attribute.type, *get_args(attribute.type)):
        return Address("127.0.0.1", 1)
    if Path in (attribute.type, *get_args(attribute.type)):
        return Path("another")
    return "another"


OPTIONAL = {"database": Database, "pair": Pair, "quorum": Quorum}
SINGLE_TABLES = [
    (table.name, key)
    for table in fields(Config)
    if table.name not in {"operators", "peers", "warnings"}
    for key in fields(OPTIONAL.get(table.name, table.type))
    if key_of(key) is not None
]


@pytest.mark.parametrize(("table", "key"), SINGLE_TABLES, ids=[f"{table}.{key.name}" for table, key in SINGLE_TABLES])
def test_every_key_counts_at_once_or_makes_it_another_node_or_is_named(tmp_path, table, key):
    running = config(tmp_path, operator("acme"), **{name: cls() for name, cls in OPTIONAL.items()})
    values = getattr(running, table)
    wanted = evolve(running, **{table: evolve(values, **{key.name: other_value(key, getattr(values, key.name))})})
    path = f"{table}.{key.name}"
    if table == "node" and key.name in IDENTITY:
        with pytest.raises(ReloadRefusedError, match=path):
            check_identity(running, wanted)
    elif key.name in LIVE_KEYS.get(table, ()):
        assert changes(running, wanted).needs_restart == ()
        assert taken_over(running, wanted) == wanted
    else:
        assert changes(running, wanted).needs_restart == (path,)
        assert taken_over(running, wanted) == running


@pytest.mark.parametrize("path", [f"{table}.{key}" for table, keys in LIVE_KEYS.items() for key in sorted(keys)])
def test_what_counts_at_once_is_documented(path):
    table, _, key = path.partition(".")
    if key in {attribute.name for name, attribute in SINGLE_TABLES if name == table}:  # else it is read from a file
        assert f"`{path}`" in OPERATIONS.partition("## Reloading")[2].partition("\n## ")[0]


def test_a_secret_that_was_read_from_a_file_is_named_by_the_files_key(tmp_path):
    running = config(tmp_path, admin=Admin(token_file=Path("t"), token=Secret(b"before")))
    wanted = evolve(running, admin=Admin(token_file=Path("t"), token=Secret(b"after")))
    assert changes(running, wanted).needs_restart == ("admin.token_file",)
    both = evolve(running, admin=Admin(token_file=Path("u"), token=Secret(b"after")))
    assert changes(running, both).needs_restart == ("admin.token_file",)


def test_a_table_that_comes_or_goes_counts_from_the_next_start(tmp_path):
    without = config(tmp_path)
    assert changes(without, evolve(without, database=Database())).needs_restart == ("database",)
    assert changes(evolve(without, pair=Pair()), without).needs_restart == ("pair",)


def test_rules_for_mo_count_at_once_and_the_rest_of_their_table_does_not(tmp_path):
    running = config(tmp_path)
    wanted = evolve(running, mo=Mo(conversation_s=1.0, rules=(MoRule(gateway="gw2"),)))
    found = changes(running, wanted)
    assert (found.mo_rules, found.needs_restart) == (True, ("mo.conversation_s",))
    assert taken_over(running, wanted).mo == evolve(running.mo, rules=wanted.mo.rules)


def test_where_this_node_itself_listens_needs_a_restart(tmp_path):
    peers = (Peer(name="gw1", url="ws://127.0.0.1:1"), Peer(name="gw2", url="ws://127.0.0.1:2"))
    running = config(tmp_path, peers=peers)
    moved = evolve(running, peers=(Peer(name="gw1", url="ws://127.0.0.1:9"), peers[1]))
    assert changes(running, moved).needs_restart == ("peers.url",)
    assert (
        changes(running, evolve(running, peers=(peers[0], evolve(peers[1], url="ws://127.0.0.1:9")))).needs_restart
        == ()
    )
