"""A node that is told to stop hands its custody on: with real processes, under load."""

from collections import Counter
from typing import Final
from unittest.mock import AsyncMock, Mock

import pytest
import structlog
import trio
from test_kill import play

from dlrproxy.leaving import wind_down

pytestmark = pytest.mark.processes

SETTINGS: Final = {"node": {"drain_s": 20}}  # none of it is needed where the machine has nothing else to do
TO_BE_HANDED_ON: Final = {"storing", "ready", "walking", "waiting", "handing"}


async def test_what_waits_for_a_dead_node_goes_to_another_one_and_is_delivered_while_the_leaver_is_away(tmp_path):
    async with play(tmp_path, nodes=3, messages=600, settings=SETTINGS) as job:
        leaver, heir, owner = (job.fleet[name] for name in ("gw1", "gw2", "gw3"))
        await job.under_way()
        await owner.kill()

        def of_known_owners(event):
            """Traces; without messages of which gw3 had claimed a report when it was killed: those wait for its origin.

            Of what gw3 had sent and had no id of by then, nobody knows the owner.
            """
            known = job.known_to("gw2") | job.known_to("gw3")
            claimed = {each["message_id"] for each in leaver.found("dlr.settled", by="gw3")}
            return {each["trace"] for each in leaver.found(event) if each["message_id"] in known - claimed}

        await job.until(lambda: bool(of_known_owners("dlr.waiting")), "something waits for gw3")
        await leaver.stop()
        [end] = leaver.found("node.custody_handed_on")
        assert end["count"] > 0
        assert not TO_BE_HANDED_ON & end["left"].keys()
        handed_on = {event["trace"] for event in leaver.found("dlr.handed_on", to="gw2")}
        assert len(handed_on) == end["count"]

        def inherited():
            return {event["trace"] for event in heir.found("dlr.inherited", origin="gw1")}

        await job.until(lambda: handed_on <= inherited(), "the heir has said so")
        assert handed_on == inherited()
        wanted = of_known_owners("dlr.handed_on")
        assert wanted

        def settled():
            over = {"dlr.delivered", "dlr.superseded"}
            return {event["trace"] for event in owner.events + heir.events if event["event"] in over}

        await job.fleet.start("gw3")
        await job.until(lambda: wanted <= settled(), "what was handed on is delivered")
        await job.fleet.start("gw1")
        await job.done(600)


async def test_the_last_node_that_goes_keeps_what_nobody_is_there_for(tmp_path):
    async with play(tmp_path, nodes=2, messages=300, settings=SETTINGS) as job:
        await job.under_way()
        await job.fleet["gw2"].kill()
        await job.fleet["gw1"].seen("dlr.waiting", complete=False)
        await job.fleet["gw1"].stop()
        [end] = job.fleet["gw1"].found("node.custody_handed_on")
        assert end["count"] == 0
        assert TO_BE_HANDED_ON & end["left"].keys()
        await job.fleet.start()
        await job.done(300)


@pytest.mark.parametrize(("waits_s", "said"), [(5.0, ["node.drain_time_over"]), (0.0, [])])
async def test_the_time_is_over_only_when_it_is_and_not_when_operators_send_more(autojump_clock, waits_s, said):
    async def quiet(deadline):
        await trio.sleep(waits_s)

    front = AsyncMock(quiet=quiet, relay=Mock(in_flight=2))
    keeper = Mock(handed_on=AsyncMock(), counts=Counter())
    keeper.machine.by_state.return_value = {}
    with structlog.testing.capture_logs() as logs:
        await wind_down({"acme": front}, keeper, Mock(), drain_s=5.0)
    assert [line["event"] for line in logs if line["event"] == "node.drain_time_over"] == said
