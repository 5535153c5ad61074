"""`dlrproxy run` as a process: which signals it hears when, and how it says that it has ended."""

import signal
import socket

import pytest
import trio
from node_process import THIS_DLRPROXY, open_fleet

from dlrproxy.demo.ports import LOOPBACK

pytestmark = pytest.mark.processes

UNREACHABLE = 9  # an operator's port: nobody listens on "discard"

# The command, with its node's start held up until a second SIGHUP has come, and a word when it can hear.
EARLY = """
import os, signal, sys
import dlrproxy.cli.run
held = signal.signal
def told(number, handler):
    was = held(number, handler)
    if number == signal.SIGHUP:
        signal.signal = held
        os.kill(os.getpid(), signal.SIGHUP)
    return was
signal.signal = told
from dlrproxy.cli import main
sys.argv[0] = "dlrproxy"
main()
"""

# A node whose disk never comes back from the last write.
HANGING = """
import threading, trio
from dlrproxy.store import rocks
async def hang(self):
    await trio.to_thread.run_sync(threading.Event().wait)
rocks.RocksBackend.close = hang
from dlrproxy.cli import main
main()
"""

# A node that fails by a mistake of ours once it runs.
BROKEN = """
import sys, trio
from dlrproxy import term
async def broken(self):
    raise LookupError("a mistake of ours")
term.Term._follow_drains = broken
from dlrproxy.cli import main
main()
"""


async def test_hangups_before_it_runs_are_reloads_after(tmp_path):
    command = (THIS_DLRPROXY[0], "-c", EARLY)
    async with open_fleet(tmp_path, {"gw1": UNREACHABLE}, command=command) as fleet:
        node = fleet["gw1"]
        await node.start()
        await node.seen("config.reloaded")
        await node.stop()


async def test_a_hangup_while_it_stops_changes_nothing(tmp_path):
    async with open_fleet(tmp_path, {"gw1": UNREACHABLE}) as fleet:
        node = fleet["gw1"]
        await node.start()
        node.send(signal.SIGHUP)
        await node.seen("config.reloaded")
        node.terminate()
        node.send(signal.SIGHUP)
        assert await node.ended() == 0, node.story("ended badly")


async def test_a_file_with_an_error_changes_nothing_and_the_log_says_why(tmp_path):
    async with open_fleet(tmp_path, {"gw1": UNREACHABLE}) as fleet:
        node = fleet["gw1"]
        await node.start()
        good = node.config.read_text()
        node.config.write_text(good.replace("reconnect_min_s", "reconnect_mn_s"))
        node.send(signal.SIGHUP)
        refused = await node.seen("config.reload_refused")
        assert refused["problems"] == [
            "operators[0].reconnect_mn_s: unknown key; did you mean reconnect_min_s?",
        ]
        assert node.found("config.reloaded") == []
        node.config.write_text(good)
        node.send(signal.SIGHUP)
        await node.seen("config.reloaded")
        await node.stop()


async def test_what_makes_a_start_impossible_is_said_without_a_traceback(tmp_path):
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"operators": {"listen": f"{LOOPBACK}:{port}"}}
        async with open_fleet(tmp_path, {"gw1": UNREACHABLE}, settings) as fleet:
            node = fleet["gw1"]
            await node.launch()
            assert await node.ended() == 1
            [event] = node.found("node.cannot_start")
            assert f"cannot listen on {LOOPBACK}:{port}" in event["detail"]
            assert "exception" not in event
            assert len(node.said) == 1
            assert node.said[0].startswith("Error: ")


async def test_a_second_signal_ends_a_node_whose_disk_hangs(tmp_path):
    command = (THIS_DLRPROXY[0], "-c", HANGING)
    async with open_fleet(tmp_path, {"gw1": UNREACHABLE}, command=command) as fleet:
        node = fleet["gw1"]
        await node.start()
        node.terminate()
        await node.seen("node.stopped")
        node.terminate()
        assert await node.ended() == 130
        assert node.found("node.second_signal")


async def test_a_mistake_of_ours_has_its_traceback_in_the_log_alone(tmp_path):
    command = (THIS_DLRPROXY[0], "-c", BROKEN)
    async with open_fleet(tmp_path, {"gw1": UNREACHABLE}, command=command) as fleet:
        node = fleet["gw1"]
        await node.launch()
        with trio.fail_after(100):
            assert await node.ended() == 1
        [event] = node.found("node.failed")
        assert (event["error"], event["detail"]) == ("LookupError", "a mistake of ours")
        assert "Traceback" in event["exception"]
        assert node.said == ["Error: LookupError('a mistake of ours'); see the log"]
