"""The driver of a pair: with servers that answer as a test says, and with two real ones."""

import contextlib

import attrs
import pytest
import structlog.testing
import trio
import trio.testing
from test_sql_replication import LONG_S, a_pair

from dlrproxy.modes import pair as p
from dlrproxy.modes.pair import Alone, PairSettings, Replica, Role, Server
from dlrproxy.modes.pair_driver import PairDriver, Two
from dlrproxy.store.sql.errors import UnknownOutcomeError, UnreachableError
from dlrproxy.store.sql.reading import Reading, SemiSync

SETTINGS = PairSettings(me="a", manage_database=True, fence_after_s=6.0, promote_after_s=9.0)
RECEIVING = Replica(receiving=True, applying=True, all_applied=True)


def a_server(**changes):
    server = Server(writable=True, epoch=1, holder="a", beat=0, alone=Alone.NO, position="0-1-1")
    return attrs.evolve(server, **changes)


PRIMARY = a_server()
STANDBY = a_server(writable=False, replica=RECEIVING)
SEMI_SYNC = SemiSync(enabled=True, on=True, replicas=1, acknowledged=0, unacknowledged=0, degraded=0)


class FakeDatabase:
    """Answers at once with `server`; None: it cannot be reached."""

    def __init__(self, server):
        self.server = server
        self.silent = False  # it never answers a question
        self.acknowledges = True  # else a beat does not return
        self.beats = 0
        self.fails = ()  # commands, by type
        self.done = []

    async def read(self):
        if self.silent:
            await trio.sleep_forever()
        if self.server is None:
            raise UnreachableError("away")
        return Reading(
            server=self.server,
            server_id=1,
            semi_sync=SEMI_SYNC,
            received=self.server.position,
            source_id=1,
            connected=True,
        )

    async def beat(self):
        if not self.acknowledges:
            with trio.move_on_after(5):
                await trio.sleep_forever()
            raise UnknownOutcomeError("no answer")
        self.beats += 1
        return True

    async def carry_out(self, command):
        if isinstance(command, self.fails):
            raise UnreachableError("away")
        self.done.append(command)
        match command:
            case p.StopReceiving():
                self.server = attrs.evolve(self.server, replica=attrs.evolve(RECEIVING, receiving=False))
            case p.BecomePrimary(epoch, alone):
                self.server = a_server(epoch=epoch, alone=alone)
            case p.GoPaired():
                self.server = attrs.evolve(self.server, alone=Alone.NO)
            case p.MakeReadOnly():
                self.server = attrs.evolve(self.server, writable=False)


class FakeService:
    def __init__(self):
        self.epoch = None
        self.calls = []

    async def serve(self, epoch):
        self.epoch = epoch
        self.calls.append((trio.current_time(), "serve", epoch))

    async def release(self, why):
        self.epoch = None
        self.calls.append((trio.current_time(), "release", why))


class Node:
    def __init__(self, own, peer, reach_s=2.0):
        self.own, self.peer, self.service = FakeDatabase(own), FakeDatabase(peer), FakeService()
        self.driver = PairDriver(SETTINGS, self.own, self.peer, self.service, heartbeat_s=1.0, reach_s=reach_s)

    @property
    def role(self):
        return self.driver.machine.role


@contextlib.asynccontextmanager
async def running(*args, **kwargs):
    node = Node(*args, **kwargs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.driver.run)
        yield node
        nursery.cancel_scope.cancel()


async def test_a_primary_whose_beats_are_acknowledged_serves(autojump_clock):
    async with running(PRIMARY, STANDBY) as node:
        await trio.sleep(30)
        assert (node.role, node.service.epoch) == (Role.ACTIVE, 1)
        assert node.own.beats > 25
    assert node.service.epoch is None  # it is stopped
    assert [call[1] for call in node.service.calls] == ["serve", "release"]


async def test_it_stops_to_serve_within_its_time_though_every_question_hangs(autojump_clock):
    async with running(PRIMARY, STANDBY, reach_s=100.0) as node:
        await trio.sleep(10.5)
        node.own.acknowledges = False
        node.own.silent = node.peer.silent = True
        last = trio.current_time()
        await trio.sleep(20)
        when, what, _ = node.service.calls[-1]
        assert what == "release"
        assert last < when <= last + SETTINGS.fence_after_s


async def test_its_time_is_kept_as_well_once_it_is_no_longer_alone(autojump_clock):
    async with running(attrs.evolve(PRIMARY, alone=Alone.FREE), None, reach_s=100.0) as node:
        await trio.sleep(10)
        assert node.own.done == []
        node.peer.server = STANDBY
        await trio.sleep(5)
        assert node.own.done == [p.GoPaired()]
        node.own.acknowledges = False
        node.own.silent = node.peer.silent = True
        last = trio.current_time()
        await trio.sleep(20)
        when, what, _ = node.service.calls[-1]
        assert what == "release"
        assert when <= last + SETTINGS.fence_after_s


async def test_service_comes_back_with_the_beats(autojump_clock):
    async with running(PRIMARY, None) as node:
        await trio.sleep(10)
        node.own.acknowledges = False
        await trio.sleep(20)
        assert (node.role, node.service.epoch) == (Role.FENCED, None)
        node.own.acknowledges = True
        await trio.sleep(10)
        assert (node.role, node.service.epoch) == (Role.ACTIVE, 1)


async def test_a_silent_peer_does_not_keep_it_from_looking_at_its_own_server(autojump_clock):
    async with running(PRIMARY, STANDBY) as node:
        await trio.sleep(5)
        node.peer.silent = True
        await trio.sleep(30)
        assert node.service.epoch == 1
        node.own.server = attrs.evolve(PRIMARY, writable=False)
        await trio.sleep(5)
        assert (node.role, node.service.epoch) == (Role.FENCED, None)


async def test_a_standby_is_promoted_when_it_is_asked_for_and_not_before_its_time(autojump_clock):
    async with running(attrs.evolve(STANDBY, holder="b"), None) as node:
        await trio.sleep(5)
        assert (node.role, node.own.done) == (Role.STANDBY, [])
        node.driver.promote()
        await trio.sleep(2)
        assert node.own.done == []
        await trio.sleep(10)
        assert node.own.done == [p.StopReceiving(), p.BecomePrimary(2, Alone.FREE)]
        assert (node.role, node.service.epoch) == (Role.ACTIVE, 2)


async def test_the_steps_of_a_promotion_do_not_wait_for_heartbeats(autojump_clock):
    async with running(attrs.evolve(STANDBY, holder="b"), None) as node:
        await trio.sleep(0.1)
        node.driver.promote(force=True)
        await trio.testing.wait_all_tasks_blocked()
        assert node.own.done == [p.StopReceiving(), p.BecomePrimary(2, Alone.FREE)]
        assert (node.role, node.service.epoch) == (Role.ACTIVE, 2)


async def test_a_command_that_fails_ends_its_list_is_logged_and_done_again(autojump_clock):
    async with running(attrs.evolve(STANDBY, holder="b"), None) as node:
        node.own.fails = (p.BecomePrimary,)
        with structlog.testing.capture_logs() as logs:
            node.driver.promote(force=True)
            await trio.sleep(5)
        assert node.service.epoch is None
        assert "pair.command_failed" in {entry["event"] for entry in logs}
        node.own.fails = ()
        await trio.sleep(5)
        assert node.service.epoch == 2


async def test_it_releases_before_its_server_is_made_read_only(autojump_clock):
    order = []
    async with running(PRIMARY, STANDBY) as node:
        await trio.sleep(5)
        release, carry_out = node.service.release, node.own.carry_out

        async def noted_release(why):
            order.append("release")
            await release(why)

        async def noted(command):
            order.append(command)
            await carry_out(command)

        node.service.release, node.own.carry_out = noted_release, noted
        node.driver.demote()
        await trio.sleep(3)
    assert order[:2] == ["release", p.MakeReadOnly()]


@pytest.mark.parametrize("which", [Role.ACTIVE, Role.STANDBY])
async def test_roles_are_logged_when_they_change(which, autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with running(PRIMARY if which is Role.ACTIVE else attrs.evolve(STANDBY, holder="b"), None):
            await trio.sleep(20)
    told = [entry["role"] for entry in logs if entry["event"] == "pair.role"]
    assert told[-1] == which.value
    assert len(told) <= 2


# --- with two real servers


async def serves(service, epoch):
    with trio.fail_after(LONG_S):
        while service.epoch != epoch:  # noqa: ASYNC110 - what real servers lead to
            await trio.sleep(0.02)


async def test_two_nodes_on_two_real_servers_one_takes_over_from_the_other():
    async with a_pair() as nodes, trio.open_nursery() as nursery:
        services = {name: FakeService() for name in "ab"}
        drivers, scopes = {}, {}
        for name, own, peer in (("a", nodes.a, nodes.peer_of_a), ("b", nodes.b, nodes.peer_of_b)):
            settings = attrs.evolve(SETTINGS, me=name, fence_after_s=2.0, promote_after_s=3.0)
            drivers[name] = PairDriver(settings, own, peer, services[name], heartbeat_s=0.5, reach_s=5.0)
            scopes[name] = trio.CancelScope()

            async def run(name=name):
                with scopes[name]:
                    await drivers[name].run()

            nursery.start_soon(run)
        await serves(services["a"], 1)
        assert services["b"].epoch is None
        scopes["a"].cancel()
        nodes.servers["a"].kill()
        drivers["b"].promote()
        await serves(services["b"], 2)
        assert services["a"].epoch is None
        nursery.cancel_scope.cancel()


TOLD = {"pair.may_be_two": "warning", "pair.two_primaries": "error", "pair.one_primary": "info"}


async def test_two_primaries_are_told_of_loudly(autojump_clock):
    settings = attrs.evolve(SETTINGS, safety=p.Safety.AVAILABLE)
    own, peer = FakeDatabase(PRIMARY), FakeDatabase(STANDBY)
    driver = PairDriver(settings, own, peer, FakeService(), heartbeat_s=1.0, reach_s=2.0)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.run)
            await trio.sleep(5)
            assert driver.two is Two.NO
            peer.server = None
            await trio.sleep(5)
            assert (driver.two, driver.machine.role) == (Two.MAY_BE, Role.ACTIVE)
            peer.server = a_server(epoch=2, holder="b")  # it was promoted meanwhile
            own.fails = p.MakeReadOnly  # for a moment
            await trio.sleep(5)
            assert (driver.two, driver.machine.role) == (Two.YES, Role.FENCED)
            own.fails = ()
            await trio.sleep(5)
            assert driver.two is Two.NO
            nursery.cancel_scope.cancel()
    told = [(log["event"], log["log_level"]) for log in logs if log["event"] in TOLD]
    assert told == list(TOLD.items())


async def test_why_a_server_is_out_of_reach_is_told_once_until_it_answers_again(autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with running(PRIMARY, None) as node:
            await trio.sleep(5)
            assert node.driver.out_of_reach == {"own": "", "peer": "away"}
            node.peer.silent = True
            await trio.sleep(10)
            node.peer.silent = False
            await trio.sleep(10)
            node.peer.server = STANDBY
            await trio.sleep(5)
            assert node.driver.out_of_reach["peer"] == ""
    told = [(each["event"], each["server"], each.get("why")) for each in logs if "reach" in each["event"]]
    assert told == [
        ("pair.unreachable", "peer", "away"),
        ("pair.unreachable", "peer", "it has not answered within 2 s"),
        ("pair.reachable", "peer", None),
    ]


async def test_in_strict_mode_a_peer_out_of_sight_is_not_feared(autojump_clock):
    async with running(PRIMARY, None) as node:
        await trio.sleep(3)
        assert node.driver.two is Two.NO
