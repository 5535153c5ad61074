"""`dlrproxy status`, and how every command that asks a node finds it."""

import json

import msgspec
import pytest
import trio
from admin_world import (
    STORE_ID,
    FakeNode,
    commanding,
    operator,
    pair_status,
    parked_row,
    peer,
    replica,
    server,
    standby_status,
    status,
)
from click.testing import CliRunner
from rich.console import Console

from dlrproxy.admin.client import Client
from dlrproxy.admin.pair_view import BehindStatus
from dlrproxy.admin.reach import Directory
from dlrproxy.admin.view import BindStatus, GatewayStatus, IdRule, NodeStatus, StoreStatus
from dlrproxy.cli import main
from dlrproxy.cli.showing import duration, size
from dlrproxy.cli.status import shown, watch_status

KEY = (STORE_ID + (1).to_bytes(8, "big")).hex()


@pytest.fixture
def node():
    return FakeNode()


def text(**changes):
    console = Console(width=200, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(shown(status(**changes)))
    return captured.get()


def line(shown_text, start):
    """The only line that starts so, with its columns one blank apart."""
    lines = [" ".join(each.split()) for each in shown_text.splitlines()]
    [found] = [each for each in lines if each.startswith(start)]
    return found


async def test_it_shows_the_node_that_is_asked(node, tmp_path):
    async with commanding(node, tmp_path) as run:
        result = await run("status")
    assert result.exit_code == 0
    assert result.output.startswith("gw1  serving  mode ring, version 1.2.3, up 1 d 2 h\n")


def test_who_was_turned_away_is_shown_by_reason():
    assert line(text(), "turned away") == "turned away wrong_secret 3"
    assert "turned away" not in text(turned_away={})


async def test_json_is_the_apis_answer(node, tmp_path):
    async with commanding(node, tmp_path) as run:
        result = await run("status", "--json")
    assert msgspec.json.decode(result.output, type=NodeStatus) == node.answer
    assert json.loads(result.output)["ring"][0]["name"] == "gw2"


def test_what_is_wrong_comes_first():
    store = StoreStatus(accepting=False, free_bytes=100 << 20, min_free_bytes=256 << 20, store_id="00")
    first, *_ = text(store=store, operators=()).splitlines()
    assert first.startswith("gw1  NOT SERVING: the store takes no writes; no operator bind is up")
    assert line(text(store=store), "store") == "store TAKES NO WRITES 100.0 MiB free; below 256.0 MiB MT are refused"


def test_binds():
    found = text()
    assert line(found, "acme 1 ") == "acme 1 transceiver up 2 h 3/10 smsc.acme.example:2775"
    assert line(found, "acme 2 ") == "acme 2 transceiver DOWN 1 min 5 s ESME_RALYBND, next in 240 s"


def test_what_comes_from_elsewhere_is_no_markup():
    bind = BindStatus(name="1", bind_type="transceiver", up=False, why="[Errno 111] Connection refused")
    assert "[Errno 111] Connection refused" in text(operators=(operator(binds=(bind,)),))


def test_an_operator_without_binds_is_not_overlooked():
    assert line(text(operators=(operator(binds=()),)), "acme -") == "acme - none"


def test_the_pace_where_there_is_one():
    assert "pace" not in text()
    assert line(text(operators=(operator(pace_per_s=12.5),)), "pace") == "pace 12.5 MT a second at most"


def test_gateways():
    found = text()
    assert line(found, "acme shop1") == "acme shop1 127.0.0.1:2775 127.0.0.1:40000 transceiver 1/100"
    assert line(found, "acme shop2") == "acme shop2 127.0.0.1:2776 not bound"


def test_the_ring():
    found = text()
    assert line(found, "gw2") == "gw2 alive 0.4 s ago 2 h 1.2.2 1 0 12 34"
    assert line(found, "gw3") == "gw3 dead, no link never - 1.2.2 - 0 12 34 connection refused"
    assert line(text(ring=(peer(release=""),)), "gw2") == "gw2 alive 0.4 s ago 2 h ? 1 0 12 34"
    assert "alive, draining" in text(ring=(peer(draining=True),))
    assert "Ring" not in text(ring=())


def test_custody_and_parked():
    found = text()
    assert line(found, "custody") == "custody 7 of 100,000 (2 walking, 3 waiting)"
    assert line(found, "parked") == "parked 4 of 1,000,000 (since the start: unclaimed 1, refused 3)"
    assert line(found, "not taken") == "not taken custody_full 2"
    custody = msgspec.structs.replace(status().custody, unreadable=2)
    assert line(text(custody=custody), "unreadable") == "unreadable 2, of a later release: kept, not delivered"


def test_summaries():
    told = "1,200 open messages told to 1 node, 900 known of 1 (7.6 KiB)"
    assert line(text(), "summaries") == f"summaries {told} first hops: right 95, wrong 2 7 left out"
    assert "summaries" not in text(summaries=None)


def test_the_join():
    frames = "(frames: sent_across 30, no_way 4)"
    assert line(text(), "join") == f"join ring south, 1 of 2 gates can be reached {frames}"
    down = msgspec.structs.replace(status().join, gates=())
    assert line(text(join=down), "join") == "join ring south cannot be reached"
    assert "south" not in text(join=None)


def test_for_whose_word_custody_waits():
    custody = msgspec.structs.replace(status().custody, awaiting={"gw2": {"held": 3, "granted": 1}})
    assert line(text(custody=custody), "waits for") == "waits for gw2: held 3, granted 1"


def test_traffic_and_every_other_counter_that_has_counted():
    found = text()
    assert line(found, "acme 1,000") == "acme 1,000 0 900 800 100 0 0 0 0 4"
    assert line(found, "also counted") == "also counted refused_busy 2"


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (
            IdRule(rule=None, pinned=False, evidence={"case": 2}),
            "no rule learned yet (reports that showed one: case 2)",
        ),
        (IdRule(rule="exact", pinned=True), "exact, pinned"),
        (IdRule(rule="zeros", pinned=False, contradictions=7), "zeros, learned 7 reports in a row spoke against it"),
    ],
)
def test_how_ids_match(ids, said):
    assert line(text(operators=(operator(message_id=ids),)), "message ids") == f"message ids {said}"


def test_a_drain():
    assert "drains: in custody 7, in flight 4, operator binds up 1" in text(draining="custody")
    empty = msgspec.structs.replace(status().custody, items=0)
    assert "drained" in text(draining="custody", custody=empty, operators=(operator(in_flight=0, binds=()),))
    assert "stops" in text(draining="stop")


def test_a_node_that_has_nothing_yet_is_shown_as_well():
    assert "gw1" in text(operators=(), ring=())
    assert "acme" in text(operators=(operator(gateways=(GatewayStatus(name="gw1", listen="[::]:2775"),), counters={}),))


def pair_text(whole):
    console = Console(width=200, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(shown(whole))
    return captured.get()


def test_an_active_of_a_pair():
    said = text(pair=pair_status())
    role = line(said, "role")
    assert role.startswith(
        "role ACTIVE its database server is the primary (epoch 7, safety strict, held by gw1, may go"
    )
    assert role.endswith("for 5.5 s without another acknowledgement)")
    assert line(said, "own database") == "own database takes writes"
    assert line(said, "gw2's") == "gw2's replica"
    assert line(said, "replica") == "replica lacks 3 transactions, 1.2 KiB; has not applied 4 transactions, 2.0 KiB"
    assert "acknowledged by the replica" in line(said, "semi-sync")
    assert line(said, "witness") == "witness lends itself to this node"
    assert line(said, "journal") == "journal 5 open messages wait for the database"


def test_a_standby_shows_the_pair_and_nothing_that_it_does_not_have():
    said = pair_text(standby_status())
    assert said.startswith("gw1  standing by  mode active-passive")
    assert line(said, "promotion") == "promotion nobody has asked for it"
    assert "custody" not in said
    assert "Operator binds" not in said


def test_a_replica_that_has_everything():
    nothing = BehindStatus(transactions=0, bytes=0)
    said = text(pair=pair_status(not_received=nothing, not_applied=nothing))
    assert line(said, "replica") == "replica has received and applied everything"


def test_what_is_wrong_with_a_pair():
    both = text(pair=pair_status(other=server(holder="gw2", epoch=8)))
    assert "gw2's database takes writes as well" in line(both, "BOTH ACTIVE")
    alone = text(pair=pair_status(other=None, semi_sync=None))
    assert line(alone, "gw2's") == "gw2's cannot be reached"
    failed = pair_text(
        standby_status(pair=pair_status(role="failed", serving=False, own=replica(error="1950: diverged")))
    )
    assert failed.startswith("gw1  NOT SERVING: its role is failed")
    assert line(failed, "own database") == "own database replica, FAILED: 1950: diverged"


async def test_watching_goes_on_while_the_node_is_away(tmp_path, capsys):
    rounds = []

    def pause():
        rounds.append(capsys.readouterr().out)
        if len(rounds) == 3:
            raise KeyboardInterrupt

    watch_status(Client(Directory(tmp_path)), pause)
    assert len(rounds) == 3
    assert "is no data directory" in "".join([*rounds, capsys.readouterr().out])


# Which node is meant


@pytest.fixture
def invoke():
    return lambda *arguments: CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status"], "Say which node is meant: its CONFIG.toml, --data-dir DIR or --url URL."),
        (["status", "--data-dir", "d", "gw1.toml"], "Give CONFIG, --data-dir or --url, and nothing else."),
        (["lookup", "--data-dir", "d"], "Give ID behind CONFIG or with --data-dir or --url."),
        (["parked", "show", "--data-dir", "d", "1", "2"], "Give KEY behind CONFIG or with --data-dir or --url."),
    ],
)
def test_it_must_be_clear_which_node_and_what_is_meant(invoke, arguments, said):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


async def test_the_config_stands_before_what_is_asked_about(node, tmp_path, invoke):
    path = tmp_path / "gw1.toml"
    path.write_text('[node]\nname = "gw1"\ndata_dir = "data"\n')
    (tmp_path / "data").mkdir()
    node.park(parked_row(1))
    async with commanding(node, tmp_path / "data"):
        for arguments in (["status", path], ["lookup", path, "4F2A"], ["parked", "drop", path, KEY, "--yes"]):
            result = await trio.to_thread.run_sync(invoke, *arguments)
            assert result.exit_code == 0, result.output
    assert node.dropped == [1]


def test_the_config_says_where_the_node_is_even_if_the_rest_of_it_is_broken(invoke, tmp_path):
    path = tmp_path / "gw1.toml"
    path.write_text('[node]\nname = "gw1"\ndata_dir = "data"\n[operatrs]\n')
    result = invoke("status", path)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path / 'data'}: no such directory; is it this node's data_dir?\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[node]\nname = 'gw1'\n", "node.data_dir: missing; this key is required"),
        (b"[node\n", "line 1, column 6"),
        (b"\xff", "TOML is UTF-8, and this is not"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_config_that_does_not_say_it(invoke, tmp_path, content, said):
    path = tmp_path / "gw1.toml"
    if content is not None:
        path.write_bytes(content)
    result = invoke("status", path)
    assert result.exit_code == 2
    assert said in result.stderr


# Showing


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"), (-1, "0.0 s"), (0.44, "0.4 s"), (10, "10 s"), (65, "1 min 5 s"), (120, "2 min"), (3601, "1 h"),
        (93_784, "1 d 2 h"), (864_000, "10 d"),
    ],
)  # fmt: skip
def test_durations(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("octets", "said"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (256 << 20, "256.0 MiB"), (5 << 50, "5120.0 TiB")],
)
def test_sizes(octets, said):
    assert size(octets) == said
