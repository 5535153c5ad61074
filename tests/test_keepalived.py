"""contrib/keepalived: what the check says of a node, and what the notify script tells it, in whatever order."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

HERE = Path(__file__).parents[1] / "contrib" / "keepalived"
CHECK, NOTIFY = HERE / "dlrproxy-check", HERE / "dlrproxy-notify"
LONG_S = 100
PATIENCE_S = 30
START_S = 15

# Notes what it is told. Promoted, the node serves; but where there is a file "refuses" it is not.
COMMAND = """#!/bin/sh
echo "$1" >>{0}/calls
case $1 in
    promote) [ ! -e {0}/refuses ] || exit 1; echo "active 2" >{0}/state ;;
    demote) echo "standby 2" >{0}/state ;;
esac
"""


class Node:
    """A data directory as a node leaves it, and a command that stands for dlrproxy."""

    def __init__(self, directory):
        self.directory = directory
        self.command = directory / "dlrproxy"
        self.command.write_text(COMMAND.format(directory))
        self.command.chmod(0o755)

    def is_in(self, role, age_s=0):
        state = self.directory / "state"
        state.write_text(f"{role} 1 idle {int(time.time())}\n")
        self.age("state", age_s)

    def is_active(self, service, for_s):
        (self.directory / "state").write_text(f"active 1 {service} {int(time.time()) - for_s}\n")

    def age(self, name, age_s):
        then = time.time() - age_s
        os.utime(self.directory / name, (then, then))

    def check(self, what):
        return subprocess.run([CHECK, what, self.directory, str(PATIENCE_S), str(START_S)], check=False).returncode == 0

    def words(self, state):
        return [str(each) for each in (NOTIFY, self.command, "FILE", self.directory, "INSTANCE", "VI", state, "100")]

    def notify(self, state):
        subprocess.run(self.words(state), check=True, timeout=LONG_S)

    @property
    def calls(self):
        found = self.directory / "calls"
        return found.read_text().split() if found.exists() else []

    @property
    def record(self):
        found = self.directory / "vrrp"
        return found.read_text().split() if found.exists() else ["", ""]


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


@pytest.fixture
def hasty(node, monkeypatch):
    """Scripts do not sleep, and a node that is looked at lives."""
    (node.directory / "sleep").write_text(f"#!/bin/sh\ntouch -c {node.directory}/state\n")
    (node.directory / "sleep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{node.directory}:{os.environ['PATH']}")


async def until(holds):
    with trio.fail_after(LONG_S):
        while True:
            if holds():
                return
            await trio.sleep(0.02)


# The check


@pytest.mark.parametrize(
    ("role", "ready", "active"),
    [
        ("active", True, True),
        ("standby", True, False),
        ("catching-up", True, False),
        ("fenced", False, False),
        ("failed", False, False),
    ],
)
def test_a_node_is_ready_when_it_serves_or_could_be_promoted(node, role, ready, active):
    node.is_in(role)
    assert (node.check("ready"), node.check("active")) == (ready, active)


@pytest.mark.parametrize("age_s", [60, -60])
def test_a_node_that_does_not_touch_its_state_is_not_there(node, age_s):
    node.is_in("active", age_s)
    assert not node.check("ready")
    assert not node.check("active")


@pytest.mark.parametrize(
    ("service", "for_s", "has_it"),
    [
        ("serving", 10 * START_S, True),
        ("starting", 0, True),
        ("starting", START_S + 1, False),
        ("starting", -LONG_S, True),
        ("starting-alone", 10 * START_S, True),
    ],
)
def test_an_active_that_does_not_get_to_serve_gives_the_address_to_one_that_may(node, service, for_s, has_it):
    node.is_active(service, for_s)
    assert (node.check("ready"), node.check("active")) == (has_it, has_it)


def test_a_state_of_two_words_says_enough(node):
    (node.directory / "state").write_text("active 1\n")
    assert (node.check("ready"), node.check("active")) == (True, True)


def test_without_a_state_there_is_no_node(node):
    assert not node.check("ready")


def test_who_has_the_address_and_does_not_serve_gives_it_up_after_a_while(node):
    (node.directory / "refuses").touch()
    node.is_in("standby")
    (node.directory / "vrrp").write_text(f"{os.getpid()} MASTER boot 1 1\n")
    assert node.check("ready")
    node.age("vrrp", PATIENCE_S + 1)
    assert not node.check("ready")
    node.is_in("active")
    assert node.check("ready")
    node.is_in("standby")  # it has served until now
    assert node.check("ready")
    node.age("vrrp.served", PATIENCE_S + 1)
    assert not node.check("ready")


@pytest.mark.parametrize("record", ["1 MASTER boot 1 1", "{pid} BACKUP boot 1 1", "{pid} FAULT boot 1 1", ""])
def test_a_standby_is_ready_for_as_long_as_it_has_no_address(node, record):
    node.is_in("standby")
    (node.directory / "vrrp").write_text(record.format(pid=os.getpid()) + "\n")
    node.age("vrrp", 10 * PATIENCE_S)
    assert node.check("ready")


# The notify script


def test_who_gets_the_address_is_promoted(node):
    node.is_in("standby")
    node.notify("MASTER")
    assert node.calls == ["promote"]
    assert node.record[:2] == [str(os.getpid()), "MASTER"]


def test_who_serves_already_is_told_nothing(node):
    node.is_in("active")
    for state in ("MASTER", "BACKUP", "MASTER"):
        node.notify(state)
    assert node.calls == []


@pytest.mark.parametrize(("role", "calls"), [("standby", ["demote"]), ("failed", ["demote"]), ("fenced", [])])
def test_a_request_is_taken_back_when_the_address_is_gone(node, role, calls):
    node.is_in(role)
    node.notify("BACKUP")
    assert node.calls == calls


@pytest.mark.usefixtures("hasty")
def test_a_refused_promotion_is_asked_for_again_until_the_address_is_gone(node):
    async def play():
        node.is_in("standby")
        (node.directory / "refuses").touch()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.run_process, node.words("MASTER"))
            await until(lambda: node.calls.count("promote") > 2)
            await trio.run_process(node.words("BACKUP"))
        assert node.calls[-1] == "demote"  # and the first one has ended

    trio.run(play)


@pytest.mark.usefixtures("hasty")
def test_a_node_that_serves_on_without_the_address_hands_over(node):
    async def play():
        node.is_in("active")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.run_process, node.words("FAULT"))
            await until(lambda: node.calls == ["demote"])
            node.is_in("active")  # whatever has made it serve again, the fault is still there
            await until(lambda: node.calls == ["demote", "demote"])
            await trio.run_process(node.words("BACKUP"))

    trio.run(play)


@pytest.mark.usefixtures("hasty")
def test_a_keepalived_that_is_stopped_for_good_takes_the_service_with_it(node):
    node.is_in("active")
    node.notify("STOP")
    assert node.calls == ["demote"]


def test_a_fault_at_the_start_of_keepalived_ends_no_service(node):
    async def play():
        async with trio.open_nursery() as nursery:
            node.is_in("active")
            nursery.start_soon(trio.run_process, node.words("FAULT"))
            await until(lambda: node.record[1] == "FAULT")
            await trio.run_process(node.words("BACKUP"))
        assert node.calls == []
        node.notify("MASTER")
        assert node.calls == []

    trio.run(play)


def test_a_call_that_is_late_counts_for_nothing(node):
    node.is_in("standby")
    node.notify("BACKUP")
    keepalived, state, boot, born, pid = node.record
    (node.directory / "vrrp").write_text(f"{keepalived} {state} {boot} {int(born) + 10**9} {pid}\n")
    node.notify("MASTER")
    assert node.calls == ["demote"]
    assert node.record[1] == "BACKUP"


def test_a_record_of_before_a_reboot_counts_for_nothing(node):
    node.is_in("standby")
    (node.directory / "vrrp").write_text("1 BACKUP another-boot 999999999999 1\n")
    node.notify("MASTER")
    assert node.calls == ["promote"]


ENDING_PARENT = """
import pathlib, subprocess, sys, time
script = subprocess.Popen(sys.argv[2:])
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
"""


@pytest.mark.usefixtures("hasty")
def test_a_call_ends_with_the_keepalived_that_made_it(node):
    node.is_in("standby")
    (node.directory / "refuses").touch()
    words = [sys.executable, "-c", ENDING_PARENT, str(node.directory / "vrrp"), *node.words("MASTER")]
    subprocess.run(words, check=True, capture_output=True, timeout=LONG_S)  # until nobody has its pipes any more


@pytest.mark.parametrize("script", [CHECK, NOTIFY], ids=lambda script: script.name)
def test_the_scripts_are_for_any_shell(script):
    subprocess.run(["sh", "-n", script], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, script], check=True)
