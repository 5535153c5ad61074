"""`dlrproxy drain`: it says how far it is, and does not say done before it is."""

import pytest
from admin_world import FakeNode, commanding, operator
from msgspec.structs import replace

from dlrproxy.admin.client import AdminError, NotRunningError
from dlrproxy.admin.view import DrainState
from dlrproxy.cli import drain as drain_command
from dlrproxy.cli.drain import follow, pause


class Scripted:
    """A client whose node answers from a script: numbers in custody, in flight and of binds, or an error."""

    def __init__(self, *script):
        self.script = list(script)

    def get(self, path, wanted):
        assert path == "/status"
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return ScriptedStatus(*step)


class ScriptedStatus:
    draining = "custody"

    def __init__(self, custody, in_flight, binds_up=0):
        self.binds_up = binds_up
        self.custody = type("Custody", (), {"items": custody})
        self.in_flight = in_flight


def followed(mode, *script, wait=lambda: True):
    return follow(Scripted(*script), mode, DrainState(mode, 1, 1, 1200), wait)


def test_it_ends_when_custody_is_empty_and_nothing_in_flight(capsys):
    assert followed("custody", (1200, 0, 1), (3, 0), (0, 2), (0, 0, 1), (0, 0), AssertionError("asked again"))
    assert capsys.readouterr().out.splitlines() == [
        "in custody 1,200, in flight 1, operator binds up 1",
        "in custody 1,200, in flight 0, operator binds up 1",
        "in custody 3, in flight 0, operator binds up 0",
        "in custody 0, in flight 2, operator binds up 0",
        "in custody 0, in flight 0, operator binds up 1",
        "in custody 0, in flight 0, operator binds up 0",
        "custody is empty, and the operators have been let go",
    ]


def test_what_has_not_changed_is_not_said_again(capsys):
    assert followed("custody", (3, 0), (3, 0), (3, 0), (0, 0))
    assert capsys.readouterr().out.count("in custody 3") == 1


def test_it_ends_when_the_time_is_up():
    answers = iter([True, False])
    assert not followed("custody", (3, 0), wait=lambda: next(answers))


def test_a_node_that_ends_before_custody_is_empty_is_an_error():
    with pytest.raises(AdminError, match="the node has ended; 3 were in custody"):
        followed("custody", (3, 0), NotRunningError("gone"))


def test_any_other_trouble_is_an_error():
    with pytest.raises(AdminError, match="permission"):
        followed("custody", AdminError("permission denied"))


def test_stopping_ends_when_the_node_is_gone(capsys):
    assert followed("stop", (5, 0), AdminError("ended the conversation"), (4, 0), NotRunningError("gone"))
    assert capsys.readouterr().out.splitlines()[-1] == "the node has stopped; 4 in custody wait on disk"


def test_stopping_does_not_end_with_an_empty_custody():
    assert not followed("stop", (0, 0), wait=iter([True, False]).__next__)


@pytest.fixture
def node():
    return FakeNode()


async def test_the_command_drains_and_waits(node, tmp_path, monkeypatch):
    monkeypatch.setattr(drain_command, "POLL_S", 0.0)
    states = iter([(7, 4), (2, 0), (0, 0)])
    real = node.status

    def status():
        if node.drains:
            items, in_flight = next(states)
            node.change(
                custody=replace(node.answer.custody, items=items), operators=(operator(in_flight=in_flight, binds=()),)
            )
        return real()

    node.status = status
    async with commanding(node, tmp_path) as run:
        result = await run("drain")
    assert node.drains == ["custody"]
    assert (result.exit_code, result.output.splitlines()[-1]) == (
        0,
        "custody is empty, and the operators have been let go",
    )


async def test_the_command_gives_up_in_time_and_says_that_the_drain_goes_on(node, tmp_path):
    async with commanding(node, tmp_path) as run:
        result = await run("drain", "--stop", "--timeout", "0")
    assert node.drains == ["stop"]
    assert (result.exit_code, result.stderr) == (1, "not done in time; the drain goes on\n")


async def test_interrupting_the_command_does_not_stop_the_drain(node, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(drain_command, "pause", interrupted)
    async with commanding(node, tmp_path) as run:
        result = await run("drain")
    assert result.exit_code == 1
    assert "the drain goes on; see it with: dlrproxy status" in result.stderr


async def test_a_drain_is_undone(node, tmp_path):
    node.change(draining="custody")
    async with commanding(node, tmp_path) as run:
        result = await run("drain", "--undo")
    assert (node.undrains, node.drains) == (1, [])
    assert (result.exit_code, result.output) == (
        0,
        "the node is in service, or on its way back; see its binds with: dlrproxy status\n",
    )


async def test_a_stop_is_not_undone(node, tmp_path):
    node.change(draining="stop")
    async with commanding(node, tmp_path) as run:
        result = await run("drain", "--undo")
        mixed = await run("drain", "--undo", "--stop")
    assert (result.exit_code, result.stderr) == (1, "Error: the node is stopping; start it again\n")
    assert mixed.exit_code == 2
    assert node.drains == []


def test_pausing_ends_at_the_deadline(monkeypatch):
    slept = []
    monkeypatch.setattr(drain_command.time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(drain_command.time, "sleep", slept.append)
    assert pause(None)
    assert pause(100.25)
    assert not pause(100.0)
    assert slept == [1.0, 0.25]
