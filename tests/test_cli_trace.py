"""`dlrproxy trace`: one report's route, put together from the logs of several nodes."""

import gzip
import json

import pytest
from click.testing import CliRunner

from dlrproxy.cli import main

TRACE = "00000000000000aa"


def event(step, node, at, trace=TRACE, kind="dlr", **fields):
    values = {
        "timestamp": f"2026-11-22T01:02:03.{at:03}+00:00", "level": "info", "event": f"{kind}.{step}", "node": node,
        "component": "route", "trace": trace, "operator": "acme", "message_id": "4F2A", "hop": 0, "lap": 0,
    }  # fmt: skip
    return values | fields


GW1 = [
    event("missed", "gw1", 1),
    event("received", "gw1", 5),
    event("forwarded", "gw1", 6, to="gw2", hop=1, lap=1),
    event("settled", "gw1", 40, by="gw3", age_s=0.035, lap=1),
]
GW2 = [event("forwarded", "gw2", 12, to="gw3", hop=2, lap=1)]
GW3 = [event("claimed", "gw3", 20, origin="gw1", gateway="shop3", hop=2, lap=1), event("delivered", "gw3", 60)]


@pytest.fixture
def logs(tmp_path):
    """Writes logs, by node, between lines that are of no interest."""

    def write(**by_node):
        paths = []
        for node, events in by_node.items():
            path = tmp_path / f"{node}.log"
            lines = [
                b"Traceback (most recent call last):",
                b"[1, 2]",
                b"\xff{",
                json.dumps(event("received", node, 0, "ff", message_id="5")).encode(),
            ]
            lines += [json.dumps(each).encode() for each in events]
            lines.append(json.dumps({"event": "bind.up", "node": node, "trace": TRACE}).encode())
            path.write_bytes(b"\n".join(lines) + b"\n")
            paths.append(path)
        return paths

    return write


def run(*arguments, **options):
    return CliRunner().invoke(main, ["trace", *map(str, arguments)], **options)


def rows(result):
    return [" ".join(each.split()) for each in result.output.splitlines()]


def test_the_route_in_order_of_time(logs):
    result = run(TRACE, *logs(gw3=GW3, gw2=GW2, gw1=GW1))
    assert result.exit_code == 0
    assert rows(result) == [
        f"{TRACE} operator acme, id 4F2A",
        "time (UTC) node event lap hop",
        "2026-11-22 01:02:03.001 gw1 dlr.missed",
        "2026-11-22 01:02:03.005 gw1 dlr.received",
        "2026-11-22 01:02:03.006 gw1 dlr.forwarded 1 1 to gw2",
        "2026-11-22 01:02:03.012 gw2 dlr.forwarded 1 2 to gw3",
        "2026-11-22 01:02:03.020 gw3 dlr.claimed 1 2 origin gw1 gateway shop3",
        "2026-11-22 01:02:03.040 gw1 dlr.settled 1 by gw3 age_s 0.035",
        "2026-11-22 01:02:03.060 gw3 dlr.delivered",
    ]


def test_events_of_one_millisecond_are_in_order_of_hops(logs):
    first, second = (
        event("forwarded", "gw1", 6, hop=1, lap=1, to="b"),
        event("forwarded", "gw2", 6, hop=2, lap=1, to="c"),
    )
    found = rows(run(TRACE, *logs(gw2=[second], gw1=[first])))
    assert [each.split()[2] for each in found[2:]] == ["gw1", "gw2"]


def test_a_log_that_is_given_twice_counts_once(logs):
    [path] = logs(gw1=GW1)
    assert run(TRACE, path, path).output == run(TRACE, path).output


def test_json_is_the_events_as_they_were_logged(logs):
    result = run("--json", TRACE, *logs(gw1=GW1, gw2=GW2))
    assert [json.loads(line) for line in result.output.splitlines()] == [*GW1[:3], *GW2, GW1[3]]


def test_by_message_id_every_report_that_may_mean_it(logs):
    other = [
        event("received", "gw1", 2, "bb", message_id="0004f2a"),
        event("received", "gw1", 3, "cc", message_id="99"),
    ]
    result = run("--message-id", "20266", *logs(gw1=GW1 + other))
    assert [each for each in rows(result) if "operator" in each] == [
        f"{TRACE} operator acme, id 4F2A",
        "bb operator acme, id 0004f2a",
    ]


def test_an_mo_has_no_id(logs):
    assert rows(run(TRACE, *logs(gw1=[event("received", "gw1", 1, kind="mo", message_id="")])))[0].endswith("acme, MO")


def test_a_clock_that_is_behind_is_pointed_out(logs):
    early = [event("claimed", "gw3", 0, origin="gw1")]
    assert "the clock of gw3 seems to be behind" in run(TRACE, *logs(gw1=GW1, gw3=early)).output
    assert "clock" not in run(TRACE, *logs(gw1=GW1, gw3=GW3)).output


def test_what_a_terminal_would_obey_is_shown_instead(logs):
    nasty = [event("received", "gw1", 1, message_id="\x1b[2J", gateway="[bold]shop")]
    result = run(TRACE, *logs(gw1=nasty))
    assert r"id \x1b[2J" in result.output
    assert "gateway [bold]shop" in result.output


def test_rotated_logs_and_standard_input(logs, tmp_path):
    [path] = logs(gw1=GW1)
    packed = tmp_path / "gw1.log.1.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    expected = run(TRACE, path).output
    assert run(TRACE, packed).output == expected
    assert run(TRACE, "-", input=path.read_bytes()).output == expected


def test_nothing_found(logs):
    result = run("0123", *logs(gw1=GW1))
    assert (result.exit_code, result.output) == (1, "nothing found\n")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", gzip.compress(b"x" * 1000, mtime=0)[:20], b"no gzip"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "cut.log.gz"
    path.write_bytes(content)
    result = run(TRACE, path)
    assert result.exit_code == 1
    assert result.output == "nothing found\n" or str(path) in result.output


def test_a_file_that_is_not_there_is_named(tmp_path):
    result = run(TRACE, tmp_path / "absent.log")
    assert result.output == f"Error: {tmp_path / 'absent.log'}: No such file or directory\n"


@pytest.mark.parametrize("arguments", [[], [TRACE], ["--message-id", "1"], ["--message-id", "", "gw1.log"]])
def test_without_files_or_an_id_it_is_a_usage_error(arguments):
    assert run(*arguments).exit_code == 2
