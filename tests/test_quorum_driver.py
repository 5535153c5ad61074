"""The driver of a quorum's node, with a database that answers as a test says."""

from contextlib import asynccontextmanager

import attrs
import structlog.testing
import trio

from dlrproxy.modes.cluster import RATE_MARGIN, MasterRow, Member, Observation, QuorumSettings, Role, Rows, Server
from dlrproxy.modes.quorum_driver import QuorumDriver
from dlrproxy.store.sql.errors import UnknownOutcomeError, UnreachableError

SETTINGS = QuorumSettings(me="a", home=b"1", fence_after_s=8.0, takeover_after_s=12.0, lease_s=6.0)
SYNCED = Server(primary=True, ready=True, state="Synced", size=3, weight=3)


class FakeDatabase:
    """The rows as they are in the cluster, and one server of it."""

    def __init__(self):
        self.server = SYNCED  # None: it cannot be reached
        self.members = {}
        self.master = MasterRow()
        self.silent = False  # it never answers a question
        self.certifies = True  # else a write does not return
        self.swallowed = 0  # so many beats are never answered
        self.moved = []
        self.published = None

    async def read(self):
        if self.silent:
            await trio.sleep_forever()
        if self.server is None:
            raise UnreachableError("away")
        rows = Rows(members=dict(self.members), master=self.master) if self.server.ready else None
        return Observation(server=self.server, rows=rows)

    async def _write(self):
        with trio.move_on_after(7):
            while not self.certifies:  # noqa: ASYNC110 - as it is seen from here
                await trio.sleep(0.1)
            return
        raise UnknownOutcomeError("no answer")

    async def claim(self, seen):
        await self._write()
        epoch = 1 if seen is None else seen.epoch + 1
        self.members["a"] = Member(epoch=epoch, beat=1, home=b"1")
        return epoch

    async def publish(self, settings):
        await self._write()
        self.published = settings

    async def beat(self, epoch):
        if self.swallowed:
            self.swallowed -= 1
            await trio.sleep_forever()
        await self._write()
        row = self.members["a"]
        if (row.epoch, row.taken) != (epoch, False):
            return False
        self.members["a"] = attrs.evolve(row, beat=row.beat + 1)
        return True

    async def take_lease(self, seen):
        await self._write()
        if seen != self.master:
            return None
        self.master = MasterRow(epoch=seen.epoch + 1, holder="a", beat=seen.beat + 1)
        return self.master.epoch

    async def renew(self, epoch):
        await self._write()
        if (self.master.epoch, self.master.holder) != (epoch, "a"):
            return False
        self.master = attrs.evolve(self.master, beat=self.master.beat + 1)
        return True

    async def take(self, node, seen, heir):
        await self._write()
        self.members[node] = attrs.evolve(seen, epoch=seen.epoch + 1, taken=True, heir=heir)
        return True

    async def move(self, node, epoch):
        self.moved.append((node, epoch))
        return 0


class FakeService:
    def __init__(self):
        self.epoch = 0
        self.calls = []
        self.links, self.apart = set(), set()

    def linked(self):
        return self.links

    def set_apart(self, nodes):
        self.apart = nodes

    async def serve(self, epoch):
        self.epoch = epoch
        self.calls.append((trio.current_time(), "serve", epoch))

    async def release(self, why):
        self.epoch = 0
        self.calls.append((trio.current_time(), "release", why))

    async def adopt(self):
        self.calls.append((trio.current_time(), "adopt", ""))


class Node:
    def __init__(self, agreement=None):
        self.own, self.service = FakeDatabase(), FakeService()
        self.driver = QuorumDriver(SETTINGS, self.own, self.service, heartbeat_s=1.0, reach_s=3.0, agreement=agreement)

    @property
    def role(self):
        return self.driver.machine.role


@asynccontextmanager
async def running(agreement=None):
    node = Node(agreement)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.driver.run)
        yield node
        nursery.cancel_scope.cancel()


async def test_it_claims_serves_and_becomes_master(autojump_clock):
    async with running() as node:
        await trio.sleep(5)
        assert (node.role, node.service.epoch) == (Role.SERVING, 1)
        assert node.driver.is_master
        assert node.own.members["a"].beat >= 4
        await trio.sleep(60)
        assert [what for _, what, _ in node.service.calls] == ["serve"]
        assert node.own.master.epoch == 1
    assert node.service.epoch == 0
    assert not node.driver.serving


async def test_it_ends_in_time_whatever_hangs(autojump_clock):
    async with running() as node:
        await trio.sleep(10.5)
        node.own.silent, node.own.certifies = True, False
        last = trio.current_time()
        await trio.sleep(30)
        when, what, _ = node.service.calls[-1]
        assert what == "release"
        assert last < when <= last + SETTINGS.fence_after_s
        assert not node.driver.is_master


async def test_it_serves_again_under_a_new_epoch_once_a_claim_returns(autojump_clock):
    async with running() as node:
        await trio.sleep(10)
        node.own.certifies = False
        await trio.sleep(20)
        assert node.service.epoch == 0
        node.own.certifies = True
        await trio.sleep(8)
        assert node.role is Role.SERVING
        assert node.service.epoch > 1  # by more than one, where a claim that nobody answered was made all the same


async def test_a_stall_shorter_than_the_fence_ends_nothing(autojump_clock):
    async with running() as node:
        await trio.sleep(10)
        node.own.certifies = False
        await trio.sleep(5)
        node.own.certifies = True
        await trio.sleep(20)
        assert [what for _, what, _ in node.service.calls] == ["serve"]


async def test_it_ends_in_time_also_while_what_it_does_as_master_hangs_and_serves_only_under_a_new_epoch(
    autojump_clock, monkeypatch
):
    hangs = trio.Event()

    async def take(node, seen, heir):
        hangs.set()
        await trio.sleep(40)
        return False

    async with running() as node:
        monkeypatch.setattr(node.own, "take", take)
        node.own.members["b"] = Member(epoch=4, beat=9)
        await hangs.wait()
        last, node.own.swallowed = trio.current_time(), 4
        await trio.sleep(SETTINGS.fence_after_s)
        assert [what for _, what, _ in node.service.calls] == ["serve", "release"]
        assert node.service.calls[1][0] < last + SETTINGS.fence_after_s
        await trio.sleep(60)
        assert node.service.calls[2][1:] == ("serve", 2)


async def test_a_term_whose_time_is_over_before_it_can_begin_does_not_begin(autojump_clock):
    async with running() as node:
        async with node.driver._changing:  # a former term is being ended
            node.own.swallowed = 4
            await trio.sleep(SETTINGS.fence_after_s + 1)
        await trio.sleep(20)
        assert node.service.calls[0][1:] == ("serve", 2)


async def test_what_it_serves_on_counts_from_when_it_was_sent(autojump_clock, monkeypatch):
    took_s = 2.0

    async def write():
        await trio.sleep(took_s)

    async with running() as node:
        monkeypatch.setattr(node.own, "_write", write)
        served = ruled = 0
        for _ in range(300):
            await trio.sleep(0.1)
            now = trio.current_time()
            assert node.driver.machine.serve_until - now <= SETTINGS.fence_after_s - took_s + 1e-6
            assert node.driver.master.hold_until - now <= RATE_MARGIN * SETTINGS.lease_s - took_s + 1e-6
            served += node.service.epoch
            ruled += node.driver.is_master
        assert served > 200
        assert ruled > 200


async def test_a_connection_that_swallows_a_beat_ends_nothing_where_another_one_answers(autojump_clock):
    async with running() as node:
        await trio.sleep(10)
        node.own.swallowed = 1
        await trio.sleep(SETTINGS.fence_after_s)
        assert node.driver.trouble == ""
        await trio.sleep(20)
        assert [what for _, what, _ in node.service.calls] == ["serve"]
        node.own.swallowed = 1_000
        await trio.sleep(SETTINGS.fence_after_s - 2)
        assert "not returned within 5.3 s" in node.driver.trouble


async def test_a_server_that_has_lost_the_quorum_ends_service_within_a_heartbeat(autojump_clock):
    async with running() as node:
        await trio.sleep(10)
        node.own.server = attrs.evolve(SYNCED, primary=False, ready=False)
        node.own.certifies = False
        at = trio.current_time()
        await trio.sleep(1.5)
        when, what, why = node.service.calls[-1]
        assert (what, when <= at + 1) == ("release", True)
        assert "half of the cluster" in why
        assert node.role is Role.NO_QUORUM


async def test_a_node_that_was_taken_over_ends_its_term_and_begins_another(autojump_clock):
    async with running() as node:
        await trio.sleep(10)
        row = node.own.members["a"]
        node.own.members["a"] = attrs.evolve(row, epoch=2, taken=True, heir="b")
        await trio.sleep(3)
        assert [what for _, what, _ in node.service.calls] == ["serve", "release", "serve"]
        assert "taken over" in node.service.calls[1][2]
        assert node.service.epoch == 3


async def test_a_write_of_custody_that_is_refused_ends_the_term_as_well(autojump_clock):
    async with running() as node:
        await trio.sleep(10.5)  # between two looks
        at = trio.current_time()
        node.driver.refused(1)
        await trio.sleep(3)
        assert [what for _, what, _ in node.service.calls] == ["serve", "release", "serve"]
        assert node.service.calls[1][0] == at


async def test_while_it_lets_go_it_does_nothing_as_master(autojump_clock, monkeypatch):
    async with running() as node:
        await trio.sleep(10)
        there, go_on = trio.Event(), trio.Event()

        async def release(why):
            there.set()
            await go_on.wait()

        monkeypatch.setattr(node.service, "release", release)
        node.own.server = attrs.evolve(SYNCED, primary=False)
        await there.wait()
        assert not node.driver.is_master
        go_on.set()


async def test_the_master_takes_over_from_a_node_that_is_silent_and_moves_its_rows(autojump_clock):
    async with running() as node:
        node.own.members["b"] = Member(epoch=4, beat=9)
        await trio.sleep(SETTINGS.takeover_after_s - 2)
        assert not node.own.members["b"].taken
        await trio.sleep(5)
        assert node.own.members["b"] == Member(epoch=5, beat=9, taken=True, heir="a")
        assert ("b", 5) in node.own.moved
        assert (node.service.calls[-1][1], node.role) == ("adopt", Role.SERVING)


async def test_a_master_that_may_not_begin_again_renews_its_lease_no_more(autojump_clock):
    async with running() as node:
        await trio.sleep(10)
        assert node.driver.is_master
        node.own.server = attrs.evolve(SYNCED, state="Donor/Desynced")  # as one may that serves
        node.driver.refused(1)
        await trio.sleep(2)
        assert (node.role, node.driver.is_master) == (Role.JOINING, False)
        before = node.own.master
        await trio.sleep(60)
        assert node.own.master == before


async def test_what_its_server_does_not_do_is_shown_and_logged_once(autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with running() as node:
            await trio.sleep(10)
            assert node.driver.trouble == ""
            node.own.certifies = False
            await trio.sleep(7)
            assert node.driver.trouble == "a beat has not returned within 5.3 s"
            await trio.sleep(16)
            assert node.driver.trouble == "no answer"
            node.own.server = None
            await trio.sleep(30)
            assert node.driver.trouble == "away"
            node.own.server, node.own.certifies = SYNCED, True
            await trio.sleep(10)
            assert (node.role, node.driver.trouble) == (Role.SERVING, "")
            node.own.silent = True
            await trio.sleep(5)
            assert "within 3 s" in node.driver.trouble
    assert [entry["detail"] for entry in logs if entry["event"] == "quorum.database_trouble"] == [
        "away",
        "it has not answered within 3 s",
    ]


async def test_a_lease_that_another_one_has_taken_is_given_up_at_once(autojump_clock):
    async with running() as node:
        await trio.sleep(10)
        node.own.master = MasterRow(epoch=7, holder="b", beat=1)
        await trio.sleep(2.5)
        assert not node.driver.is_master
        await trio.sleep(10)
        assert node.own.master.holder == "a"  # for b does not renew it
        assert node.driver.is_master


async def test_roles_are_logged_when_they_change(autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with running():
            await trio.sleep(20)
    assert [entry["role"] for entry in logs if entry["event"] == "quorum.role"] == ["joining", "serving"]
