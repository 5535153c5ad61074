"""The demo: its parts, and whole runs with real node processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
import trio
from attrs import evolve
from click.testing import CliRunner
from rich.console import Console

from dlrproxy.cli.demo import demo
from dlrproxy.config import Ring, load
from dlrproxy.demo import display, files, stage
from dlrproxy.demo.files import Addresses
from dlrproxy.demo.node_process import LogReader, NodeFailedError, NodeProcess
from dlrproxy.demo.plan import Plan
from dlrproxy.demo.ports import reserved
from dlrproxy.demo.routes import Routes
from dlrproxy.demo.stage import Stage
from dlrproxy.demo.summary import Balance, Summary, sum_up
from dlrproxy.simulator import ledger as events
from dlrproxy.simulator.judge import judge
from dlrproxy.simulator.ledger import Ledger

COMMAND = [sys.executable, "-m", "dlrproxy", "demo"]
PROMISED = {
    "submitted", "reports_sent", "delivered_to_owner", "delivered_elsewhere", "duplicates", "lost", "parked",
    "forwarded", "hop_histogram", "p50_ms", "p99_ms",
}  # fmt: skip


# Plan and ports


def test_every_message_has_one_gateway():
    plan = Plan(nodes=3, messages=100)
    assert [plan.share(name) for name in plan.names] == [34, 33, 33]


def test_only_a_node_of_the_plan_can_be_killed():
    assert Plan(nodes=3, kill="gw3").kill == "gw3"
    with pytest.raises(ValueError, match="gw4 is not one of the nodes: gw1, gw2, gw3"):
        Plan(nodes=3, kill="gw4")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets us keep a port for somebody else")
def test_reserved_ports_are_for_listeners_and_for_nobody_else():
    with reserved(5) as ports:
        assert len(set(ports)) == 5
        for port in ports:
            with closing(socket.create_server(("127.0.0.1", port))), pytest.raises(OSError, match="in use"):
                socket.create_server(("127.0.0.1", port))
            with closing(socket.create_server(("127.0.0.1", port))):
                pass  # and again, as after a kill


# The files


@pytest.fixture
def written(tmp_path):
    def write(plan):
        addresses = Addresses.of(plan, list(range(40000, 40000 + Addresses.count(plan))))
        paths, password = files.write(tmp_path, plan, addresses)
        return {name: load(path) for name, path in paths.items()}, password, addresses

    return write


def test_files_are_valid_and_fit_together(written):
    configs, password, addresses = written(Plan(nodes=4))
    assert list(configs) == ["gw1", "gw2", "gw3", "gw4"]
    for name, config in configs.items():
        operator = config.operators[0]
        assert not config.warnings
        assert (config.node.name, config.node_names) == (name, ("gw1", "gw2", "gw3", "gw4"))
        assert operator.addresses[0].port == addresses.operator
        assert operator.listen[name].port == addresses.gateways[name]
        assert config.ring_listen.port == addresses.links[name]
        assert operator.password.reveal() == password.encode()
        assert config.own_peer.tls
    assert len({config.ring.secret.reveal() for config in configs.values()}) == 1
    assert len({config.node.data_dir for config in configs.values()}) == 4


def test_timings_are_the_defaults_unless_a_node_is_killed(written, tmp_path):
    default = Ring()
    configs, _, _ = written(Plan())
    assert configs["gw1"].ring.claim_for_s == default.claim_for_s
    assert configs["gw1"].ring.lap_timeout_s == default.lap_timeout_s
    assert "Shortened" not in (tmp_path / "gw1.toml").read_text()


def test_shortened_timings_say_what_the_default_is(tmp_path):
    plan = Plan(kill="gw2")
    text = files.toml(plan, Addresses.of(plan, list(range(7))), "gw1")
    said = {
        key: re.search(rf"# \[(\d+)[^]]*\][^\n]*\n{key} = ", text)
        for key in ("claim_for_s", "lap_timeout_s", "retry_min_s")
    }
    assert {key: float(found[1]) for key, found in said.items()} == {key: getattr(Ring(), key) for key in said}


def test_what_is_to_be_changed_is_marked_and_lines_are_short():
    plan = Plan(kill="gw2")
    text = files.toml(plan, Addresses.of(plan, list(range(7))), "gw1")
    assert text.count("CHANGE") >= 6
    assert max(map(len, text.splitlines())) <= 100


def test_secrets_are_for_the_owner_alone(written, tmp_path):
    written(Plan())
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*.secret")} == {
        "acme.secret": 0o600,
        "ring.secret": 0o600,
    }


# What the logs tell


def line(node, event, millisecond, **fields):
    at = f"2026-01-01T00:00:00.{millisecond:03d}+00:00"
    return json.dumps({"timestamp": at, "level": "info", "event": event, "node": node, **fields}, separators=(",", ":"))


def journey(trace, message_id, *, hops=1, start=0, lap=1):
    """The route events of a report that gw1 gets and the last node claims, in the order of the nodes' logs."""
    common = {"trace": trace, "operator": "acme", "message_id": message_id, "lap": lap}
    owner = f"gw{hops + 1}"
    yield line("gw1", "dlr.missed", start, **{**common, "lap": 0}, hop=0)
    yield line("gw1", "dlr.received", start, **{**common, "lap": 0}, hop=0)
    for hop in range(1, hops + 1):
        yield line(f"gw{hop}", "dlr.forwarded", start + hop, **common, hop=hop, to=f"gw{hop + 1}")
    yield line("gw1", "dlr.settled", start + hops + 1, **common, hop=hops, by=owner, age_s=0.01)
    yield line(owner, "dlr.delivered", start + hops + 1, **common, hop=0, gateway=owner)
    yield line(owner, "dlr.claimed", start + hops + 1, **common, hop=hops, gateway=owner, origin="gw1")


def routes_of(*lines):
    routes = Routes()
    for each in lines:
        routes.add(each.encode() + b"\n")
    return routes


def test_hops_are_counted_by_message():
    routes = routes_of(*journey("t1", "a", hops=1), *journey("t2", "b", hops=2), *journey("t3", "c", hops=2))
    assert routes.hop_histogram == {1: 1, 2: 2}
    assert routes.forwarded == {"a", "b", "c"}
    assert routes.claimed_by == Counter({"gw2": 1, "gw3": 2})


def test_a_trace_is_in_the_order_in_which_things_happened_on_all_nodes():
    trace = routes_of(*journey("t1", "a", hops=2)).examples()[0]
    assert [step.event.removeprefix("dlr.") for step in trace.steps] == [
        "missed", "received", "forwarded", "forwarded", "claimed", "settled", "delivered",
    ]  # fmt: skip
    assert [step.node for step in trace.steps] == ["gw1", "gw1", "gw1", "gw2", "gw3", "gw1", "gw3"]


def test_examples_are_an_ordinary_one_and_the_one_with_most_laps():
    routes = routes_of(
        *journey("t1", "a"),
        *journey("t2", "b"),
        *journey("t3", "c", hops=3),
        *journey("t4", "d", hops=2, lap=4),
        line("gw1", "dlr.received", 1, trace="t5", operator="acme", message_id="e"),
    )
    ordinary, longest = routes.examples()
    assert ordinary.message_id in "ab"
    assert longest.message_id == "d"
    assert not Routes().examples()


@pytest.mark.parametrize(
    ("after", "left"),
    [
        ([], {"a"}),
        ([line("gw1", "dlr.replayed", 2, trace="t1", message_id="a", reason="unclaimed")], set()),
        ([line("gw1", "dlr.settled", 2, trace="t1", message_id="a", by="gw2", parked="unclaimed")], set()),
        ([line("gw1", "dlr.delivered", 2, trace="other", message_id="a")], {"a"}),
    ],
)
def test_parked_is_what_nobody_took_back(after, left):
    parked = line("gw1", "dlr.parked", 1, trace="t1", message_id="a", reason="unclaimed")
    assert routes_of(parked, *after).parked == left


def test_links_go_with_the_process():
    routes = routes_of(
        line("gw1", "node.running", 1, nodes=["gw1", "gw2"], custody=0),
        line("gw1", "peer.up", 1, peer="gw2"),
        line("gw2", "peer.up", 1, peer="gw1"),
        "Traceback (most recent call last):",
    )
    assert routes.starts == {"gw1": 1}
    assert routes.peers == {"gw1": {"gw2"}, "gw2": {"gw1"}}
    routes.gone("gw2")
    assert routes.peers == {"gw1": set()}


def test_a_log_is_read_line_by_line_as_it_grows(tmp_path):
    log = tmp_path / "log"
    reader = LogReader(log)
    assert list(reader.new_lines()) == []
    log.write_bytes(b"one\ntw")
    assert list(reader.new_lines()) == [b"one\n"]
    log.write_bytes(b"one\ntwo\nthree\n")
    assert list(reader.new_lines()) == [b"two\n", b"three\n"]


# The summary


def operator_ledger(*ids):
    """Every message reported on and every report answered ESME_ROK."""
    ledger = Ledger()
    ledger.add(events.OperatorStarted(0.0, "run", 0.0))
    for number, message_id in enumerate(ids, 1):
        ledger.add(events.Accepted(1.0, message_id, message_id, f"tag-{message_id}", "1", "2", "b1", "gw1"))
        ledger.add(events.Report(1.0, number, message_id, "2", "DELIVRD", final=True))
        ledger.add(events.Sent(1.0, number, "b1", 1))
        ledger.add(events.Answered(1.1, number, "b1", 0))
    return ledger


def gateway_ledger(*ids, told=(), received=()):
    ledger = Ledger()
    ledger.add(events.GatewayStarted(0.0, "gw1", "run", 0.0))
    for message_id in ids:
        ledger.add(events.Submitted(0.5, f"tag-{message_id}", "s1", 1, "2", 1))
    for message_id in told:
        ledger.add(events.Responded(1.0, f"tag-{message_id}", "s1", 0, message_id))
    for message_id in received:
        ledger.add(events.Reported(1.2, message_id, "DELIVRD", "", "2", "s1", 0, "exact"))
    return ledger


def summary_of(operator, gateways, routes, *, unfinished=0):
    balance = Balance(operator, list(gateways.values()))
    balance.update()
    verdict = judge(operator.events, {name: ledger.events for name, ledger in gateways.items()})
    return sum_up(Plan(), verdict, routes, balance, unfinished=unfinished)


def test_what_is_delivered_everywhere_passes():
    summary = summary_of(operator_ledger("a", "b"), {"gw1": gateway_ledger(*"ab", told="ab", received="ab")}, Routes())
    assert (summary.passed, summary.delivered_to_owner, summary.lost, summary.parked) == (True, 2, 0, 0)
    assert summary.matched_locally == 2
    assert summary.as_dict().keys() > PROMISED


def test_what_is_answered_and_nowhere_is_lost_whether_or_not_the_id_was_told():
    operator = operator_ledger("a", "b", "c")
    gateways = {"gw1": gateway_ledger(*"abc", told="ab", received="a")}
    summary = summary_of(operator, gateways, Routes())
    assert (summary.passed, summary.lost) == (False, 2)


def test_what_is_parked_is_not_lost():
    parked = routes_of(
        line("gw1", "dlr.parked", 1, trace="t1", message_id="b", reason="owner_unreachable"),
        line("gw1", "dlr.parked", 1, trace="t2", message_id="c", reason="unclaimed"),
    )
    gateways = {"gw1": gateway_ledger(*"abc", told="ab", received="a")}
    summary = summary_of(operator_ledger("a", "b", "c"), gateways, parked, unfinished=1)
    assert (summary.passed, summary.lost, summary.parked, summary.unfinished) == (True, 0, 2, 0)
    assert summary.parked_reasons == {"owner_unreachable": 1, "unclaimed": 1}


def test_a_parked_report_excuses_no_message_but_its_own():
    parked = routes_of(line("gw1", "dlr.parked", 1, trace="t2", message_id="c", reason="unclaimed"))
    gateways = {"gw1": gateway_ledger(*"ac", told="a", received="a")}
    summary = summary_of(operator_ledger("a", "c"), gateways, parked, unfinished=1)
    assert (summary.passed, summary.lost, summary.unfinished) == (False, 0, 1)


def test_a_parked_copy_of_what_was_delivered_excuses_nothing():
    parked = routes_of(line("gw1", "dlr.parked", 1, trace="t1", message_id="a", reason="unclaimed"))
    gateways = {"gw1": gateway_ledger(*"ab", told="ab", received="a")}
    summary = summary_of(operator_ledger("a", "b"), gateways, parked)
    assert (summary.passed, summary.lost, summary.parked) == (False, 1, 1)


def test_a_report_at_another_gateway_fails():
    gateways = {"gw1": gateway_ledger("a", told="a", received="a"), "gw2": gateway_ledger(received="a")}
    summary = summary_of(operator_ledger("a"), gateways, Routes())
    assert (summary.passed, summary.delivered_elsewhere) == (False, 1)


@pytest.mark.parametrize(("kill", "passed"), [(None, False), ("gw1", True)])
def test_what_is_out_of_order_fails_unless_a_node_was_killed(kill, passed):
    summary = summary_of(operator_ledger("a"), {"gw1": gateway_ledger("a", told="a", received="a")}, Routes())
    assert evolve(summary, order_violations=1, killed=kill).passed is passed


def test_a_message_without_a_report_fails_though_nothing_was_lost():
    summary = summary_of(operator_ledger(), {"gw1": gateway_ledger("a")}, Routes(), unfinished=1)
    assert (summary.passed, summary.lost) == (False, 0)


def test_the_balance_follows_ledgers_while_they_grow():
    operator, gateway = operator_ledger("a", "b"), gateway_ledger(*"ab", received="b")
    balance = Balance(operator, [gateway])
    balance.update()
    assert (balance.undelivered, balance.answered, balance.delivered) == ({"a"}, 2, 1)
    gateway.add(events.Reported(1.2, "a", "DELIVRD", "", "2", "s1", 0, "exact"))
    balance.update()
    assert (balance.undelivered, balance.delivered) == (set(), 2)


# The display


def shown(summary, examples=()):
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with closing(console.file):
        display.show(console, summary, list(examples))
    return console.export_text()


def a_summary(**changed):
    given = {
        "nodes": 3, "messages": 3000, "misroute": 0.7, "seed": 1, "killed": "gw2", "in_flight_at_kill": 100,
        "submitted": 3009, "unfinished": 0, "reports_sent": 3009, "delivered_to_owner": 3004,
        "delivered_elsewhere": 0, "duplicates": 3, "resent": 1, "order_violations": 0, "unexpected": 0, "lost": 0,
        "p50_ms": 5.04, "p99_ms": 5123.4, "parked": 5, "forwarded": 2100, "claimed": 2100, "matched_locally": 904,
        "hop_histogram": {1: 1000, 2: 1100},
    }  # fmt: skip
    return Summary(**{**given, **changed})


def test_the_figures_fit_a_hundred_columns_without_breaking_a_line():
    text = shown(a_summary())
    assert "9 of them again, after a lost link" in text
    assert re.search(r"p50 +5\.0 ms", text)
    assert re.search(r"p99 +5,123\.4 ms +gw2 was away for a while", text)
    assert re.search(r"2 hops +1,100", text)
    assert "1 sent again by the operator, 2 when gw2 came back" in text
    assert "PASSED: 0 lost, 0 elsewhere, 5 parked" in text
    assert max(map(len, text.splitlines())) <= 100
    assert all(re.match(r" {0,6}\S|$", each) for each in text.splitlines())  # no line goes on in the next


def test_why_something_is_parked_is_said():
    assert "gw2 took the response to their messages with it" in shown(a_summary(parked_reasons={"unclaimed": 5}))
    both = shown(a_summary(parked_reasons={"unclaimed": 4, "owner_unreachable": 1}))
    assert re.search(r"Parked +5 +4 unclaimed, 1 owner_unreachable", both)


def test_a_failure_says_what_is_wrong():
    text = shown(a_summary(lost=2, delivered_elsewhere=1))
    assert "FAILED: 2 lost, 1 delivered to another gateway." in text


def test_laps_between_the_first_and_the_last_take_one_line():
    steps = routes_of(
        *(
            line("gw1", "dlr.waiting", lap, trace="t1", message_id="a", lap=lap, complete=False, nodes="gw2", wait_s=1)
            for lap in (1, 2, 3)
        ),
        *journey("t1", "a", start=10, lap=4),
    )
    text = shown(a_summary(), steps.examples())
    assert text.count("nobody claimed it; no answer from gw2: again in 1.0 s") == 1
    assert "laps 2 to 3 end likewise" in text
    assert "claimed for its gateway gw2 after 1 hop of lap 4" in text


def test_every_route_event_has_words():
    steps = [step for trace in routes_of(*journey("t1", "a", hops=2)).examples() for step in trace.steps]
    assert [display.told(step) for step in steps][2:5] == [
        "to gw2, hop 1",
        "to gw3, hop 2",
        "claimed for its gateway gw3 after 2 hops",
    ]


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kill", "gw9"], "gw9 is not one of the nodes: gw1, gw2, gw3"),
        (["--nodes", "1"], "not in the range"),
        (["--misroute", "1.5"], "not in the range"),
    ],
)
def test_wrong_options_are_named(arguments, message):
    result = CliRunner().invoke(demo, arguments)
    assert (result.exit_code, message in " ".join(result.output.split())) == (2, True)


def test_a_directory_that_is_in_use_is_left_alone(tmp_path):
    (tmp_path / "gw1.toml").write_text("mine")
    result = CliRunner().invoke(demo, ["--config-dir", str(tmp_path)])
    assert (result.exit_code, "is not empty" in result.output) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["gw1.toml"]


# Whole runs


def processes_of(directory):
    """The command lines of all processes that run on files of this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has just ended
            continue
        if f"run {directory}" in command:
            found.append(command)
    return found


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.processes
def test_a_run_loses_nothing_and_sends_nothing_elsewhere(tmp_path):
    kept = tmp_path / "kept"
    result = run("--json", "--messages", "300", "--seed", "7", "--config-dir", str(kept))
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary.keys() > PROMISED
    assert summary["submitted"] == summary["reports_sent"] == summary["delivered_to_owner"] == 300
    assert not any(summary[name] for name in ("lost", "delivered_elsewhere", "parked", "unfinished", "unexpected"))
    assert 0 < summary["claimed"] == sum(summary["hop_histogram"].values())
    assert summary["claimed"] + summary["matched_locally"] == 300
    assert 0 < summary["p50_ms"] <= summary["p99_ms"]
    names = {path.name for path in kept.iterdir()}
    assert names == {
        "acme.secret",
        "ring.secret",
        "ledgers",
        *(f"gw{n}.{end}" for n in (1, 2, 3) for end in ("toml", "log")),
    }
    judged = subprocess.run(
        [sys.executable, "-m", "dlrproxy", "simulate", "judge", "--json", kept / "ledgers" / "operator.jsonl",
         *(kept / "ledgers" / f"gw{n}.jsonl" for n in (1, 2, 3))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(judged.stdout)["delivered_to_owner"] == 300


@pytest.mark.processes
def test_a_node_killed_with_messages_in_flight_loses_nothing():
    result = run("--json", "--messages", "300", "--misroute", "0.9", "--kill", "gw2")
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["in_flight_at_kill"] > 0
    assert (summary["lost"], summary["delivered_elsewhere"], summary["unfinished"]) == (0, 0, 0)
    assert summary["delivered_to_owner"] >= 300
    assert "gw2 is up and linked again" in result.stderr


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_leaves_no_node_behind(tmp_path):
    kept = tmp_path / "kept"
    with subprocess.Popen([*COMMAND, "--config-dir", str(kept)], stdout=subprocess.PIPE, text=True) as running:
        for said in running.stdout:
            if "nodes are up" in said:
                break
        assert len(processes_of(kept)) == 3
        running.send_signal(signal.SIGINT)
        assert "Interrupted" in running.stdout.read()
        assert running.wait(200) == 130
    assert processes_of(kept) == []


@pytest.mark.processes
def test_a_node_that_cannot_start_is_named_with_the_end_of_its_log(monkeypatch, tmp_path):
    good = files.toml
    monkeypatch.setattr(
        files, "toml", lambda plan, addresses, name: good(plan, addresses, name) + ("[no]\n" if name == "gw2" else "")
    )
    result = CliRunner().invoke(demo, ["--config-dir", str(tmp_path / "kept")])
    assert result.exit_code == 2
    assert "Error: Node gw2 ended by itself, with exit status 2. The end of its log:" in result.stderr
    assert "unknown key" in result.stderr or "no: " in result.stderr
    assert processes_of(tmp_path) == []


@pytest.mark.processes
async def test_a_node_that_dies_ends_the_demo(tmp_path):
    playing = Stage(Plan(messages=3000), tmp_path, [].append)

    async def murder():
        await playing._until(lambda: playing.view().delivered)
        playing._nodes["gw2"]._process.send_signal(signal.SIGSEGV)

    async def play():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(murder)
            await playing.run()

    with pytest.RaisesGroup(
        pytest.RaisesExc(NodeFailedError, match=r"Node gw2 was ended by SIGSEGV\. The end of its log:"),
        flatten_subgroups=True,
    ):
        await play()
    assert processes_of(tmp_path) == []


@pytest.mark.processes
async def test_a_node_that_hangs_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_UP_S", 0.5)

    class Asleep(NodeProcess):
        async def run(self):
            self.log.touch()
            await trio.sleep_forever()

    monkeypatch.setattr(stage, "NodeProcess", Asleep)
    with pytest.RaisesGroup(
        pytest.RaisesExc(NodeFailedError, match=r"Node gw1 did not come up within"), flatten_subgroups=True
    ):
        await Stage(Plan(), tmp_path, [].append).run()
