"""`dlrproxy parked` and `dlrproxy lookup`: what a person sees of what was given up on, and does about it."""

import json

import msgspec
import pytest
from admin_world import NOW, STORE_ID, FakeNode, commanding, custody_entry, operator, parked_row
from click.testing import CliRunner

from dlrproxy.admin.parked import Page
from dlrproxy.cli import main
from dlrproxy.cli import parked as parked_command
from dlrproxy.store.port import OpenMessage
from ring.rows import decode_key


@pytest.fixture
def node():
    node = FakeNode()
    node.park(parked_row(1), parked_row(2, "unclaimed"), parked_row(3, age_s=90_000))
    return node


@pytest.fixture
async def run(node, tmp_path):
    async with commanding(node, tmp_path) as run:
        yield run


def key(number):
    return (STORE_ID + number.to_bytes(8, "big")).hex()


def parked_numbers(node):
    return [decode_key(each).number for each in node.parked]


# list and show


async def test_list(run):
    result = await run("parked", "list")
    assert result.exit_code == 0
    rows = [" ".join(each.split()) for each in result.output.splitlines()[2:]]
    assert rows[0] == f"{key(1)} refused 1 h ago acme dlr 4F2A 4479******56 shop1 ESME_RSUBMITFAIL"
    assert len(rows) == 3
    assert "Secret" not in result.output


async def test_list_of_nothing(run):
    assert (await run("parked", "list", "--operator", "other")).output == "nothing\n"


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--reason", "unclaimed"], [2]),
        (["--id", "4F2B", "--operator", "acme", "--kind", "dlr"], [2]),
        (["--destination", "+447911123456"], [1, 2, 3]),
        (["--until", "2027-01-14 12:00+00:00"], [3]),
        (["--since", "2027-01-15 06:59:59+00:00", "--until", "2027-01-15 07:00:00+00:00"], [1, 2]),
    ],
)
async def test_list_narrowed(run, options, numbers):
    result = await run("parked", "list", "--json", *options)
    assert [item["key"] for item in json.loads(result.output)["items"]] == list(map(key, numbers))


async def test_an_age_is_meant_from_now(run, monkeypatch):
    monkeypatch.setattr(parked_command.time, "time", lambda: NOW)
    for age, numbers in (("2h", [1, 2]), ("26 h", [1, 2, 3]), ("2d", [1, 2, 3]), ("90s", []), ("59.5min", [])):
        result = await run("parked", "list", "--json", "--since", age)
        assert [item["key"] for item in json.loads(result.output)["items"]] == list(map(key, numbers)), age


async def test_list_in_pages(run):
    result = await run("parked", "list", "--limit", 2)
    assert result.output.splitlines()[-1] == f"there may be more: --after {key(2)}"
    result = await run("parked", "list", "--limit", 2, "--after", key(2), "--json")
    page = msgspec.json.decode(result.output, type=Page)
    assert ([item.key for item in page.items], page.next) == ([key(3)], None)


async def test_list_goes_on_until_it_has_as_many_as_wanted(node, run, monkeypatch):
    node.parked.clear()
    node.park(*map(parked_row, range(1, 8)))
    monkeypatch.setattr(parked_command, "MAX_LIMIT", 3)
    result = await run("parked", "list", "--limit", 5, "--json")
    assert [item["key"] for item in json.loads(result.output)["items"]] == list(map(key, range(1, 6)))


async def test_show(run):
    result = await run("parked", "show", key(1))
    rows = [" ".join(each.split()) for each in result.output.splitlines()]
    assert "reason refused" in rows
    assert "reports DELIVRD, final, error 000" in rows
    assert "gateway's answer ESME_RSUBMITFAIL" in rows
    assert "destination 4479******56" in rows
    assert "Secret" not in result.output


async def test_show_as_json(run):
    assert json.loads((await run("parked", "show", key(1), "--json")).output)["state"] == "DELIVRD"


@pytest.mark.parametrize(("name", "said"), [("00ff", "00ff is not parked here"), ("xyz", "a key is written in hex")])
async def test_show_of_what_is_not_there(run, name, said):
    result = await run("parked", "show", name)
    assert result.exit_code == 1
    assert said in result.stderr


# replay and drop


async def test_replay_round_the_ring(node, run):
    result = await run("parked", "replay", "--reason", "unclaimed", "--to", "ring")
    assert (result.exit_code, result.output) == (0, "1 replayed\n")
    assert node.replayed == [(2, "")]


async def test_replay_by_key_to_a_gateway(node, run):
    result = await run("parked", "replay", key(1), key(9), "--to", "shop2")
    assert result.output == "1 replayed\n1 not parked (any more)\n"
    assert node.replayed == [(1, "shop2")]


async def test_replay_leaves_what_the_gateway_does_not_dial(node, run):
    node.change(operators=(operator(), operator("other", gateways=())))
    node.park(parked_row(4, operator="other"))
    result = await run("parked", "replay", "--all", "--to", "shop1")
    assert result.stdout == "3 replayed\n1 left: of operators that this gateway does not dial\n"
    assert parked_numbers(node) == [4]


async def test_replay_to_a_gateway_that_is_not_there(node, run):
    result = await run("parked", "replay", "--all", "--to", "shop9")
    assert result.exit_code == 1
    assert "shop9 is no gateway of this node" in result.stderr
    assert node.replayed == []


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--older-than", "2h"], [1, 2]),
        (["--older-than", "30min", "--newer-than", "1d"], [3]),
        (["--older-than", "2h", "--until", "2d"], [1, 2, 3]),
        (["--until", "2h"], [1, 2]),
        (["--owner", "shop1", "--newer-than", "2h"], [3]),
        (["--owner", "shop2"], [1, 2, 3]),
    ],
)
async def test_drop_by_age_and_owner(node, run, monkeypatch, options, left):
    monkeypatch.setattr(parked_command.time, "time", lambda: NOW)
    assert (await run("parked", "drop", "--yes", *options)).exit_code == 0
    assert parked_numbers(node) == left


async def test_replay_into_a_full_custody(node, run):
    node.change(custody=msgspec.structs.replace(node.answer.custody, items=7, max_items=10))
    result = await run("parked", "replay", "--all", "--to", "ring")
    assert (result.exit_code, result.stdout) == (1, "1 replayed\n")
    assert "custody is full" in result.stderr


async def test_many_are_acted_on_in_several_requests(node, run):
    node.park(*map(parked_row, range(1, 1501)))
    result = await run("parked", "drop", "--all", "--yes")
    assert result.stdout == "1,500 dropped\n"
    assert result.stderr == "1,000 dropped so far\n"
    assert node.parked == {}


async def test_drop_asks_before(node, run):
    result = await run("parked", "drop", "--reason", "refused", "--since", "2027-01-01", input="n\n")
    assert result.exit_code == 1
    assert result.stderr.startswith("Drop all with reason refused, since 2027-01-01 00:00:00")
    assert parked_numbers(node) == [1, 2, 3]
    result = await run("parked", "drop", "--all", input="y\n")
    assert "Drop ALL that are parked for good?" in result.stderr
    assert node.parked == {}


async def test_drop_by_key_with_yes(node, run):
    assert (await run("parked", "drop", key(2), "--yes")).output == "1 dropped\n"
    assert parked_numbers(node) == [1, 3]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--all", "--reason", "refused"],
        ["00", "--all"],
        ["00", "--operator", "acme"],
        ["--all", "--until", "2h"],
        ["--all", "--older-than", "2h"],
    ],
)
def test_it_must_be_clear_which_are_meant(options, tmp_path):
    for command in (["replay", "--to", "ring"], ["drop", "--yes"]):
        result = CliRunner().invoke(main, ["parked", *command, *options, "--data-dir", str(tmp_path)])
        assert result.exit_code == 2, result.output


@pytest.mark.parametrize(
    "options",
    [["--since", "tomorrow"], ["--since", "2 weeks"], ["--reason", "refusd"], ["--older-than", "2027-01-01"]],
)
def test_criteria_that_make_no_sense(options, tmp_path):
    result = CliRunner().invoke(main, ["parked", "list", *options, "--data-dir", str(tmp_path)])
    assert result.exit_code == 2


# lookup


async def test_lookup_shows_every_place(node, run):
    node.messages = [OpenMessage("acme", b"4F2A", "shop1", b"447911123456", b"7000", 0, NOW - 90, NOW + 100_000)]
    node.custody = [custody_entry(1, "granted")]
    result = await run("lookup", "20266")
    rows = [" ".join(each.split()) for each in result.output.splitlines()]
    assert result.exit_code == 0
    assert rows[0] == "acme 20266 at node gw1: a report with this id finds its message here"
    assert rows[1] == "rule hex-decimal; looked up as 20266, 4f2a, 131686"
    [message] = [each for each in rows if each.startswith("4F2A hex-decimal")]
    assert message.endswith("1 min 30 s ago open for another 1 d 3 h")
    assert "4F2A granted 1 min from gw1 2 1 0000000000000001" in rows
    assert any(each.startswith(f"{key(1)} refused 1 h ago") for each in rows)
    assert "447911123456" not in result.output


async def test_lookup_of_a_message_with_its_final_report(node, run):
    node.messages = [OpenMessage("acme", b"77", "shop1", b"447911123456", b"", 0, NOW - 90, NOW + 9, NOW - 60)]
    assert "final report delivered 1 min ago" in (await run("lookup", "77")).output


async def test_lookup_of_nothing_fails(run):
    result = await run("lookup", "nothing-like-it")
    assert result.exit_code == 1
    assert "a report with this id finds no message here" in result.output


async def test_lookup_as_json(run):
    result = await run("lookup", "4F2B", "--operator", "acme", "--json")
    assert [item["key"] for item in json.loads(result.output)["operators"][0]["parked"]["items"]] == [key(2)]


async def test_lookup_at_an_operator_that_is_not_there(run):
    result = await run("lookup", "1", "--operator", "acne")
    assert (result.exit_code, result.stderr) == (1, "Error: operator: this node has no acne; it has acme\n")
