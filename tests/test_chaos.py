"""`make chaos`: its schedule, the lines of its stage, what its judge lets pass, and a short run of it all."""

import errno
import signal
import subprocess
import sys
from itertools import pairwise

import msgspec
import pytest
import trio

from chaos.disk import FileLimit, SmallDisk, disks
from chaos.excuses import Episode, RingExcuses
from chaos.interruption import uninterrupted
from chaos.judgement import Evidence, Rest, judged
from chaos.lines import Line, Way
from chaos.plan import EXTENTS, Fault, Kind, Plan, held, schedule
from chaos.scenario import play
from chaos.told import Told
from dlrproxy.admin.parked import ParkedItem
from dlrproxy.demo.ports import LOOPBACK, reserved
from dlrproxy.simulator import ledger as events
from protocols.smpp import constants as c

# Schedules


def test_the_seed_decides_the_schedule():
    plan = Plan(seconds=600, seed=7)
    assert schedule(plan) == schedule(plan)
    assert schedule(plan) != schedule(Plan(seconds=600, seed=8))


def test_every_kind_comes_before_any_comes_again_as_far_as_places_are_free():
    faults = schedule(Plan(seconds=600, seed=7))
    assert {fault.kind for fault in faults} == set(Kind)
    rounds = [faults[at : at + len(Kind)] for at in range(0, len(faults) - len(Kind), len(Kind))]
    assert all(len({fault.kind for fault in each}) >= len(Kind) - 2 for each in rounds)


@pytest.mark.parametrize("seed", range(5))
def test_faults_in_one_place_come_one_after_the_other_and_are_over_in_time(seed):
    plan = Plan(seconds=300, seed=seed, every_s=1)
    faults = schedule(plan)
    places = {place for fault in faults for place in held(plan, fault.kind, fault.target)}
    for place in places:
        there = [fault for fault in faults if place in held(plan, fault.kind, fault.target)]
        assert all(before.ends_s < after.at_s for before, after in pairwise(there))
    assert all(0 < fault.lasts_s <= EXTENTS[fault.kind].longest_s for fault in faults)
    assert max(fault.ends_s for fault in faults) <= plan.seconds


# Lines


@pytest.fixture
async def echo(nursery):
    """A line to somebody who sends everything back; as (line, dial)."""
    with reserved(1) as (port,):
        (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
        line = Line(port, listener.socket.getsockname()[1])
        dialled = []

        async def send_back(stream):
            async with stream:
                try:
                    async for data in stream:
                        await stream.send_all(data)
                except trio.BrokenResourceError:
                    pass  # cut, as the test wants it

        async def dial():
            dialled.append(await trio.open_tcp_stream(LOOPBACK, port))
            return dialled[-1]

        await nursery.start(trio.serve_listeners, send_back, [listener])
        await nursery.start(line.run)
        yield line, dial
        for stream in dialled:
            await trio.aclose_forcefully(stream)


async def said_back(stream, data):
    await stream.send_all(data)
    with trio.fail_after(100):
        assert await stream.receive_some() == data


async def ended(stream):
    with trio.fail_after(100):
        try:
            return await stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


async def silent(stream):
    with trio.move_on_after(0.05) as waited:
        await stream.receive_some()
    return waited.cancelled_caught


async def test_a_line_carries_bytes_until_it_is_cut_and_again_when_it_is_mended(echo):
    line, dial = echo
    stream = await dial()
    await said_back(stream, b"one")
    line.cut()
    assert await ended(stream)
    assert await ended(await dial())
    line.mend()
    await said_back(await dial(), b"two")


@pytest.mark.parametrize("ways", [tuple(Way), (Way.THERE,), (Way.BACK,)], ids=str)
async def test_what_was_sent_while_a_line_is_held_up_arrives_later(echo, ways):
    line, dial = echo
    stream = await dial()
    await said_back(stream, b"one")
    line.hold_up(ways)
    await stream.send_all(b"two")
    assert await silent(stream)
    line.resume()
    with trio.fail_after(100):
        assert await stream.receive_some() == b"two"


async def test_a_line_that_is_held_up_takes_connections_and_keeps_silent(echo):
    line, dial = echo
    line.hold_up()
    stream = await dial()
    await stream.send_all(b"one")
    assert await silent(stream)
    line.reset()
    assert await ended(stream)
    line.resume()
    await said_back(await dial(), b"two")


async def test_a_slow_line_loses_nothing(echo):
    line, dial = echo
    line.slow_down(0.01)
    await said_back(await dial(), b"one")


# Disks

_WRITER = """
import sys
for _ in sys.stdin:
    try:
        with open(sys.argv[1], "ab", buffering=0) as file:
            file.write(bytes(100))
    except OSError as error:
        print(error.errno, flush=True)
    else:
        print(0, flush=True)
"""


@pytest.mark.parametrize("mounts", [False, True])
def test_a_full_disk_fails_writes_until_there_is_room_again(tmp_path, mounts):
    with disks([tmp_path], mounts=mounts) as (disk,):
        assert isinstance(disk, SmallDisk | FileLimit)
        full = errno.ENOSPC if isinstance(disk, SmallDisk) else errno.EFBIG
        command = [sys.executable, "-c", _WRITER, str(tmp_path / "file")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:

            def tried():
                writer.stdin.write("\n")
                writer.stdin.flush()
                return int(writer.stdout.readline())

            assert tried() == 0
            disk.fill(writer.pid)
            # What is left of a block that a file has already may still be written.
            assert full in [tried() for _ in range(60)]
            disk.free(writer.pid)
            assert tried() == 0
            writer.stdin.close()


# Signals


def test_a_signal_ends_a_run_with_all_that_it_has_started():
    ended = []

    async def run():
        signal.raise_signal(signal.SIGTERM)
        try:
            await trio.sleep_forever()
        finally:
            ended.append("run")

    assert trio.run(uninterrupted, run) is None
    assert ended == ["run"]


def test_what_no_signal_ends_gives_its_result():
    async def run():
        return "result"

    assert trio.run(uninterrupted, run) == "result"


# The judge

REPORT = "1a"
OPERATOR = [
    events.OperatorStarted(0.0, "r", 0.0),
    events.Accepted(1.0, REPORT, REPORT, "gw1-r-1", "1", "2", "b1", "gw1"),
    events.Report(1.0, 1, REPORT, "2", "DELIVRD", final=True),
    events.Sent(2.0, 1, "b2", 1),
    events.Answered(3.0, 1, "b2", c.ESME_ROK),
]
SUBMITTED = [events.Submitted(0.5, "gw1-r-1", "s1", 1, "2", 1)]
TOLD = [*SUBMITTED, events.Responded(1.1, "gw1-r-1", "s1", c.ESME_ROK, REPORT)]


def received(t, state="DELIVRD"):
    return events.Reported(t, REPORT, state, "gw1-r-1", "2", "s1", c.ESME_ROK, "exact")


def parked(reason="unclaimed", message_id=REPORT):
    return ParkedItem(
        key="00", reason=reason, operator="acme", kind="dlr", message_id=message_id, destination="2", final=True,
        origin="gw2", gateway="", status="", accepted_at=0.0, parked_at=0.0, trace="t", pdu_bytes=1,
    )  # fmt: skip


def verdict(operator=OPERATOR, gw1=TOLD, gw2=(), *, where=None, replayed=(), episodes=(), **more):
    rest = Rest(unrest="", parked=where or {}, replayed=list(replayed))
    removed = {name for each in episodes if each.fault.kind is Kind.REMOVAL for name in each.fault.target}
    values = {"superseded": (), "unfinished": 0, "faults": {}, "removed": removed, **more}
    evidence = Evidence(operator=operator, gateways={"gw1": gw1, "gw2": gw2}, rest=rest, **values)
    told = Told(evidence.operator, evidence.gateways)
    return judged(evidence, told, RingExcuses(told, episodes))


def found(judgement):
    return [finding.what for finding in judgement.findings]


def test_a_report_at_its_owner_is_all_there_is():
    judgement = verdict(gw1=[*TOLD, received(4.0)])
    assert judgement.passed
    assert (judgement.messages, judgement.verdict.delivered_to_owner, judgement.lost) == (1, 1, 0)


def test_a_report_that_nobody_has_is_lost():
    judgement = verdict()
    assert found(judgement) == ["lost"]
    assert judgement.findings[0].message_id == REPORT
    assert judgement.lost == 1


def test_a_report_of_a_message_whose_id_nobody_was_told_must_be_parked_and_once():
    assert found(verdict(gw1=SUBMITTED)) == ["lost"]
    assert verdict(gw1=SUBMITTED, where={"gw2": [parked()]}).passed
    assert found(verdict(gw1=SUBMITTED, where={"gw2": [parked()], "gw1": [parked()]})) == ["parked more than once"]
    # Two nodes answered ESME_ROK, since the operator did not hear the first.
    again = [*OPERATOR, events.Unanswered(2.5, 1, "b2", "timeout"), events.Sent(2.6, 1, "b3", 2)]
    assert verdict(again, gw1=SUBMITTED, where={"gw2": [parked()], "gw1": [parked()]}).passed


def test_what_has_an_owner_must_not_stay_parked():
    assert found(verdict(where={"gw2": [parked()]})) == ["parked for good, and it has an owner"]


def test_what_is_delivered_must_not_stay_parked():
    judgement = verdict(gw1=[*TOLD, received(4.0)], where={"gw2": [parked()]})
    assert found(judgement) == ["parked, and delivered or never acknowledged"]


def test_what_has_an_owner_is_unclaimed_only_while_that_is_out_of_the_table():
    complete = {"gw1": [*TOLD, received(4.0)]}
    assert verdict(**complete, replayed=[parked("owner_unreachable")]).passed
    assert found(verdict(**complete, replayed=[parked()])) == ["unclaimed, and it had an owner"]
    removal = Episode(Fault(1, 0.0, 4.0, Kind.REMOVAL, ("gw1",), 0.0), 3.5, 7.5)
    assert verdict(**complete, replayed=[parked()], episodes=[removal]).passed


def test_a_report_at_another_gateway_is_elsewhere():
    assert found(verdict(gw2=[received(4.0)])) == ["elsewhere"]


MO = [
    *OPERATOR,
    events.Mo(1.0, 2, "r-1", "r-1", "4671", "7001", 1, 1),
    events.Sent(2.0, 2, "b2", 1),
    events.Answered(3.0, 2, "b2", c.ESME_ROK),
]
RULES = {"7001": "gw1"}


def mo(source="4671", destination="7001"):
    return events.MoReceived(4.0, "r-1", source, destination, "s1", c.ESME_ROK)


def test_an_mo_is_where_its_rule_says_and_nowhere_else():
    delivered = [*TOLD, received(4.0)]
    judgement = verdict(MO, gw1=[*delivered, mo()], rules=RULES)
    assert judgement.passed
    assert judgement.mo.by_rule == 1
    assert found(verdict(MO, gw1=delivered, gw2=[mo()], rules=RULES)) == ["MO elsewhere"]
    assert found(verdict(MO, gw1=[*delivered, mo()], gw2=[mo()], rules=RULES)) == ["MO elsewhere"]


def test_an_mo_that_nobody_has_is_lost_and_one_that_stays_parked_is_a_finding_as_well():
    delivered = [*TOLD, received(4.0)]
    judgement = verdict(MO, gw1=delivered, rules=RULES)
    assert found(judgement) == ["MO lost"]
    assert judgement.lost == 1
    stays = msgspec.structs.replace(parked(), kind="mo", message_id="")
    judgement = verdict(MO, gw1=delivered, rules=RULES, where={"gw2": [stays]})
    assert found(judgement) == ["MO parked for good"]
    assert judgement.lost == 0


def test_an_answer_to_a_message_is_in_conversation_or_where_it_could_go():
    operator = [
        event if not isinstance(event, events.Mo) else msgspec.structs.replace(event, source="2") for event in MO
    ]
    delivered = [*TOLD, received(4.0)]
    kept = verdict(operator, gw1=[*delivered, mo(source="2")])
    elsewhere = verdict(operator, gw1=delivered, gw2=[mo(source="2")])
    assert (kept.mo.in_conversation, kept.mo.out_of_conversation) == (1, 0)
    assert (elsewhere.mo.in_conversation, elsewhere.mo.out_of_conversation) == (0, 1)
    assert kept.passed
    assert elsewhere.passed


def test_a_permanent_answer_to_an_mo_is_found():
    refused = events.Abandoned(3.0, 2, c.ESME_RX_P_APPN)
    assert "refused for good" in found(verdict([*MO[:-1], refused], gw1=[*TOLD, received(4.0)], rules=RULES))


def test_an_intermediate_report_may_be_kept_back_for_the_final_one_that_arrived():
    operator = [
        *OPERATOR[:3],
        events.Report(1.0, 2, REPORT, "2", "ENROUTE", final=False),
        events.Sent(2.0, 2, "b2", 1),
        events.Answered(2.1, 2, "b2", c.ESME_ROK),
        events.Sent(2.2, 1, "b3", 1),
        events.Answered(2.3, 1, "b3", c.ESME_ROK),
    ]
    assert found(verdict(operator, gw1=[*TOLD, received(4.0)])) == ["lost"]
    kept_back = verdict(operator, gw1=[*TOLD, received(4.0)], superseded={REPORT})
    assert kept_back.passed
    assert kept_back.superseded == 1
    assert found(verdict(operator, superseded={REPORT})) == ["lost", "lost"]
    assert verdict(operator, gw1=[*TOLD, received(4.0)], lines_lost={"gw1"}).passed


def test_a_report_may_come_twice_only_if_something_failed_between():
    twice = [*TOLD, received(4.0), received(9.0)]
    assert found(verdict(gw1=twice)) == ["repeated without a reason"]
    sent_again = [*OPERATOR, events.Unanswered(4.5, 1, "b2", "bind lost"), events.Sent(4.6, 1, "b3", 2)]
    assert verdict(sent_again, gw1=twice).passed
    ended = events.Unlinked(4.5, "s1", "reset")
    assert verdict(gw1=[*TOLD, received(4.0), ended, received(9.0)]).passed


def test_an_intermediate_report_may_follow_the_final_one_only_if_its_node_was_killed_just_then():
    operator = [
        *OPERATOR,
        events.Report(1.0, 2, REPORT, "2", "ENROUTE", final=False),
        events.Sent(2.0, 2, "b2", 1),
        events.Answered(2.1, 2, "b2", c.ESME_ROK),
    ]
    late = [*TOLD, received(4.0), received(9.0, "ENROUTE")]
    assert found(verdict(operator, gw1=late)) == ["out of order"]

    def killed(kind, target, began):
        return verdict(operator, gw1=late, episodes=[Episode(Fault(1, 0.0, 1.0, kind, target, 0.0), began, began + 1)])

    for judgement in (killed(Kind.KILL, ("gw1",), 4.5), killed(Kind.POWER_CUT, (), 4.5)):
        assert judgement.passed
        assert sum(judgement.late.values()) == 1
    assert not killed(Kind.KILL, ("gw2",), 4.5).passed
    assert not killed(Kind.KILL, ("gw1",), 3.5).passed
    assert not killed(Kind.KILL, ("gw1",), 17.0).passed


def test_a_session_that_ends_long_after_a_report_explains_it_only_if_its_answer_was_held_up():
    twice = [*TOLD, received(4.0), events.Unlinked(18.0, "s1", "reset"), received(19.0)]
    assert found(verdict(gw1=twice)) == ["repeated without a reason"]

    def episode(kind, name):
        return Episode(Fault(1, 0.0, 14.0, kind, (name,), 0.0), 3.5, 17.5)

    assert verdict(gw1=twice, episodes=[episode(Kind.GATEWAY_STUCK, "gw1")]).passed
    assert not verdict(gw1=twice, episodes=[episode(Kind.GATEWAY_STUCK, "gw2")]).passed
    assert not verdict(gw1=twice, episodes=[episode(Kind.LINK_CUT, "gw1")]).passed


def test_a_permanent_answer_to_the_operator_is_found():
    operator = [*OPERATOR[:4], events.Answered(3.0, 1, "b2", 8), events.Abandoned(3.0, 1, c.ESME_RINVBNDSTS)]
    assert found(verdict(operator)) == ["refused for good"]


def test_what_is_not_about_one_report_is_found_as_well():
    complete = {"gw1": [*TOLD, received(4.0)]}
    assert found(verdict(**complete, failures=["Node gw1 ended by itself"])) == ["node failed"]
    assert found(verdict(**complete, unexpected_lines={"gw1": ["Traceback"]})) == ["said more than its log"]
    assert found(verdict(**complete, unfinished=1)) == ["unfinished"]


# All of it

SHORT = Plan(seconds=45, seed=6, rate=60, every_s=2)


def test_the_short_run_has_every_fault():
    assert {fault.kind for fault in schedule(SHORT)} == set(Kind)


@pytest.mark.processes
@pytest.mark.timeout(900)  # it waits for conditions, with limits that a very busy machine stays within
async def test_nothing_is_lost_in_a_short_run(tmp_path):
    said = []
    judgement = await play(SHORT, tmp_path, said.append, mounts=False)
    assert judgement.passed, "\n".join([*said, *map(str, judgement.findings)])
    assert sum(judgement.faults.values()) == len(schedule(SHORT))
    assert judgement.verdict.reports_sent > 0
    assert judgement.verdict.mo_sent > 0
    assert judgement.mo.by_rule > 0
