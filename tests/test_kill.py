"""The main job under load, with real processes, and everything breaks once: nothing lost, nothing at the wrong gateway.

The judge believes the simulators' ledgers alone. A report may come twice only if the answer to it was on its way when a
link was lost, and the ledgers show that too.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final

import pytest
import trio
from node_process import PASSWORD, SYSTEM_ID, THIS_DLRPROXY, Fleet, open_fleet

from dlrproxy.demo.ports import reserved
from dlrproxy.simulator.gateway import Gateway
from dlrproxy.simulator.judge import Verdict, examine, judge
from dlrproxy.simulator.ledger import (
    Answered,
    Ledger,
    OperatorStarted,
    Report,
    Reported,
    Responded,
    Submitted,
    Unanswered,
    Unlinked,
)
from dlrproxy.simulator.operator import Operator
from dlrproxy.simulator.options import GatewayOptions, OperatorOptions, Spread
from protocols.smpp import constants as c

pytestmark = pytest.mark.processes

ReportKey = tuple[str, str]  # message id and state

LOOK_S: Final = 0.05  # between looks at the ledgers
SETTLE_S: Final = 60.0  # for a job to end; a few seconds where the machine has nothing else to do
# A report whose answer was on its way came to the gateway this long before at most: time for the answer and a group
# commit on a machine that may be very busy.
ON_ITS_WAY_S: Final = 10.0
RATE: Final = 300.0  # messages a second of all gateways together
SETTINGS: Final = {"node": {"drain_s": 40}}


class Job:
    """An operator, nodes, and a gateway beside each. Messages flow from the moment it is made."""

    def __init__(self, fleet: Fleet, nursery: trio.Nursery, operator_port: int) -> None:
        self.fleet = fleet
        self.operator_ledger = Ledger()
        self.ledgers = {name: Ledger() for name in fleet.nodes}
        self.gateways: dict[str, Gateway] = {}
        self._nursery = nursery
        self._port = operator_port
        self._running: dict[str, trio.CancelScope] = {}
        self._runs = 0
        self._given_up: set[str] = set()  # tags of messages that a gateway took with it

    # Who plays

    async def start_operator(self) -> None:
        """A new life of the operator: nothing is left of an earlier one but the ledger."""
        self._runs += 1
        options = OperatorOptions(
            port=self._port,
            accounts={SYSTEM_ID: PASSWORD},
            spread=Spread.OTHER,
            misroute=0.7,
            enroute=0.2,
            delay_ms=(10, 300),
            retry_ms=200,
            seed=self._runs,  # ids of its own
        )
        self.operator = Operator(options, self.operator_ledger)
        await self._nursery.start(self._run, "operator", self.operator)

    async def start_gateway(self, name: str, messages: int, silent: float = 0.0) -> None:
        """A new life of a gateway, likewise. Its messages have tags of their own."""
        self._runs += 1
        self.gateways[name] = Gateway(
            GatewayOptions(
                port=self.fleet.gateway_ports[name],
                name=name,
                system_id=SYSTEM_ID,
                password=PASSWORD,
                messages=messages,
                resubmit_ms=200,
                reconnect_ms=(100, 500),
                give_up_s=SETTLE_S,
                linger_s=SETTLE_S,
                rate=RATE / len(self.ledgers),
                run=str(self._runs),
                silent=silent,
            ),
            self.ledgers[name],
        )
        await self._nursery.start(self._run, name, self.gateways[name])
        await self.gateways[name].wait_bound()

    async def _run(self, name: str, player: Operator | Gateway, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self._running[name]:
            await player.run(task_status=task_status)

    def end(self, name: str) -> None:
        """The operator, or a gateway, is gone without a word."""
        self._running.pop(name).cancel()
        if name in self.ledgers:
            self._given_up |= {tag for tag in self.unanswered if tag.startswith(f"{name}-")}

    # What the ledgers say

    @property
    def submitted(self) -> int:
        return len({event.tag for event in self._gateway_events(Submitted)})

    @property
    def reported(self) -> int:
        return len(self._gateway_events(Reported))

    def _gateway_events(self, kind: type) -> list:
        return [event for ledger in self.ledgers.values() for event in ledger.events if isinstance(event, kind)]

    @property
    def unanswered(self) -> set[str]:
        """Tags of messages that were submitted, have no id yet, and whose gateway still waits for one."""
        answered = {event.tag for event in self._gateway_events(Responded) if event.status == c.ESME_ROK}
        return {event.tag for event in self._gateway_events(Submitted)} - answered - self._given_up

    def known_to(self, name: str) -> set[str]:
        """The ids of messages that this gateway has got an answer for."""
        return {event.id for event in self.ledgers[name].events if isinstance(event, Responded) and event.id}

    def _of_reports(self, kind: type) -> list[tuple[ReportKey, Any]]:
        """The operator's events of this kind, each with the report that it is about."""
        reports: dict[int, ReportKey] = {}
        found = []
        for event in self.operator_ledger.events:
            if isinstance(event, OperatorStarted):
                reports.clear()  # numbers begin anew
            elif isinstance(event, Report):
                reports[event.n] = event.id, event.state
            elif isinstance(event, kind):
                found.append((reports[event.n], event))
        return found

    @property
    def _received(self) -> set[ReportKey]:
        """Reports that a gateway has taken."""
        reported = self._gateway_events(Reported)
        return {(event.id, event.state) for event in reported if event.status == c.ESME_ROK}

    @property
    def missing(self) -> set[ReportKey]:
        """Reports that were answered ESME_ROK and are at no gateway."""
        taken = {report for report, answer in self._of_reports(Answered) if answer.status == c.ESME_ROK}
        return taken - self._received

    def _in_custody(self) -> int:
        """As the nodes said when they stopped."""
        return sum(node.found("node.stopped")[-1]["custody"] for node in self.fleet.nodes.values())

    @property
    def overtaken(self) -> int:
        """How many intermediate reports a node had and kept back, as the final one was at its gateway by then.

        To the judge they are lost where the operator had sent the final one later: they waited, it did not.
        """
        final = {message_id for message_id, state in self._received if state in c.FINAL_STATES}
        intermediate = {message_id for message_id, state in self.missing if state not in c.FINAL_STATES}
        logged = [event for node in self.fleet.nodes.values() for event in node.found("dlr.superseded", since=0)]
        return len(intermediate & final & {event["message_id"] for event in logged})

    @property
    def repeated(self) -> dict[ReportKey, list[tuple[float, str]]]:
        """When and where reports were taken, of those that were taken more than once."""
        taken = defaultdict(list)
        for name, ledger in self.ledgers.items():
            for event in ledger.events:
                if isinstance(event, Reported) and event.status == c.ESME_ROK:
                    taken[event.id, event.state].append((event.t, name))
        return {report: arrivals for report, arrivals in taken.items() if len(arrivals) > 1}

    def verdict(self) -> Verdict:
        return judge(self.operator_ledger.events, {name: ledger.events for name, ledger in self.ledgers.items()})

    # What is waited for

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Look until it holds; a node that ends by itself ends the wait."""
        with trio.move_on_after(SETTLE_S):
            while not holds():
                for node in self.fleet.nodes.values():
                    node.check()
                await trio.sleep(LOOK_S)
            return
        raise AssertionError(f"not within {SETTLE_S:.0f} s: {what}\n" + "\n".join(self._state()))

    def _state(self) -> Iterator[str]:
        yield from (str(self.verdict()), str(self.operator.summary()), f"missing: {self.missing}")
        yield from (str(gateway.summary()) for gateway in self.gateways.values())
        ids = {message_id for message_id, _ in self.missing}
        for node in self.fleet.nodes.values():
            yield from (f"{node.name}: {e}" for e in node.events if e.get("message_id") in ids)

    async def under_way(self, share: float = 0.3) -> None:
        """So much of the job is done, and things are in flight."""
        wanted = share * sum(gateway.options.messages for gateway in self.gateways.values())
        await self.until(lambda: self.reported >= wanted and self.operator.summary().open > 0, "some reports")

    async def done(self, submitted: int) -> Verdict:
        """All is submitted and answered, all reports are where they belong; then everybody goes in good order."""
        await self.until(lambda: self.submitted >= submitted and not self.unanswered, "all is submitted")
        await self.until(
            lambda: not self.operator.summary().open and self.verdict().lost <= self.overtaken, "all is delivered"
        )
        await self.fleet.stop()
        verdict = self.verdict()
        assert self._in_custody() >= verdict.ownerless  # nobody knows whose they are, and they are not forgotten
        assert verdict.lost <= self.overtaken, verdict
        assert verdict.delivered_elsewhere == verdict.unexpected == 0, verdict
        self._check_order()
        self._check_repeated()
        return verdict

    def _check_order(self) -> None:
        """Nothing is out of order, but for a killed node that had not on its disk that a final report was delivered."""
        _, cases = examine(self.operator_ledger.events, {name: ledger.events for name, ledger in self.ledgers.items()})
        finals = {
            (event.id, gateway): event.t
            for gateway, ledger in self.ledgers.items()
            for event in ledger.events
            if isinstance(event, Reported) and event.state != "ENROUTE"
        }
        for case in cases.disordered:
            assert case.owner is not None
            final_at = finals.get((case.message_id, case.owner), float("inf"))
            was_late = not case.final and final_at < case.received[-1].t
            excused = was_late and self.fleet[case.owner].was_killed
            assert excused, "\n".join((str(case), *self._state()))

    def _check_repeated(self) -> None:
        """What a gateway took twice had an answer on its way when a link was lost.

        Either the operator's bind went before the answer came, and it sent the report again; or the gateway's session
        went before the node had made the answer durable.
        """
        sent_again = {report for report, event in self._of_reports(Unanswered) if event.why == "bind lost"}
        for report, arrivals in self.repeated.items():
            for (first, gateway), (second, _) in pairwise(arrivals):
                lost = [event.t for event in self.ledgers[gateway].events if isinstance(event, Unlinked)]
                on_its_way = any(first <= at <= second and at - first < ON_ITS_WAY_S for at in lost)
                assert report in sent_again or on_its_way, (report, arrivals, lost)


@asynccontextmanager
async def play(directory, nodes: int, messages: int, settings=SETTINGS, stuck="", command=THIS_DLRPROXY):
    """A job that runs: `messages` in all, an equal share at each gateway. `stuck` is one that answers no report."""
    names = [f"gw{number}" for number in range(1, nodes + 1)]
    with reserved(1) as (operator_port,):
        async with (
            open_fleet(directory, dict.fromkeys(names, operator_port), settings, command) as fleet,
            trio.open_nursery() as nursery,
        ):
            job = Job(fleet, nursery, operator_port)
            await job.start_operator()
            await fleet.start()
            for name in names:
                await job.start_gateway(name, messages // nodes, silent=float(name == stuck))
            yield job
            nursery.cancel_scope.cancel()


async def test_a_node_is_killed_and_comes_back(tmp_path):
    async with play(tmp_path, nodes=3, messages=900) as job:
        await job.under_way()
        await job.fleet["gw2"].kill()
        await job.fleet.start("gw2")
        verdict = await job.done(900)

        resubmitted = {name: gateway.resubmitted for name, gateway in job.gateways.items()}
        # A message whose id was lost with the node has one report or, with an intermediate one, two.
        assert verdict.ownerless <= 2 * resubmitted["gw2"]
        assert resubmitted["gw1"] == resubmitted["gw3"] == 0
        assert not any(gateway.summary().unfinished for gateway in job.gateways.values())


async def test_all_nodes_are_killed_at_once(tmp_path):
    async with play(tmp_path, nodes=2, messages=600) as job:
        await job.under_way()
        async with trio.open_nursery() as nursery:
            for node in job.fleet.nodes.values():
                nursery.start_soon(node.kill)
        await job.fleet.start()
        verdict = await job.done(600)

        assert verdict.ownerless <= 2 * sum(gateway.resubmitted for gateway in job.gateways.values())
        assert not any(gateway.summary().unfinished for gateway in job.gateways.values())


async def test_the_operator_is_gone_and_comes_back(tmp_path):
    async with play(tmp_path, nodes=2, messages=600) as job:
        await job.under_way()
        job.end("operator")
        for node in job.fleet.nodes.values():
            await node.seen("operator.bind_ended")
        await job.start_operator()
        await job.done(600)

        # What the operator had not sent went with it; all that it had sent reached its owner.
        assert {node.starts for node in job.fleet.nodes.values()} == {1}


async def test_a_gateway_is_gone_and_comes_back(tmp_path):
    async with play(tmp_path, nodes=2, messages=600) as job:
        await job.under_way()
        job.end("gw1")
        mark = job.fleet["gw1"].mark()
        await job.fleet["gw1"].seen("dlr.claimed", since=mark, gateway="gw1")  # for a gateway that is not there
        before = job.submitted
        await job.start_gateway("gw1", 100)
        verdict = await job.done(before + 100)

        assert verdict.ownerless == 0  # its node took down the ids of the responses that it could not give it


async def test_a_gateway_that_never_answers_costs_nothing(tmp_path):
    """It accepts every connection and is silent to every report; then its node is killed and it is started again."""
    impatient = {"gateway_answer_s": 0.3, "gateway_window": 20}
    settings = {**SETTINGS, "operators": impatient, "only:gw1": {"operators": {"response_s": 5}}}
    async with play(tmp_path, nodes=2, messages=400, settings=settings, stuck="gw1") as job:
        await job.until(lambda: job.submitted == 400 and not job.unanswered, "all is submitted")
        await job.until(lambda: not job.operator.summary().open, "all is taken from the operator")
        await job.until(lambda: not job.gateways["gw2"].summary().unfinished, "its neighbour has not felt it")
        assert job.gateways["gw1"].summary().unfinished == 200
        await job.fleet["gw1"].seen("gateway.gone", reason="unresponsive_gateway")

        job.end("gw1")
        await job.fleet["gw1"].kill()
        await job.fleet.start("gw1")
        await job.start_gateway("gw1", 20)
        verdict = await job.done(420)
        assert verdict.ownerless == 0
        assert job.repeated == {}


async def test_a_node_that_is_told_to_stop_under_load_finishes_what_it_has(tmp_path):
    async with play(tmp_path, nodes=2, messages=600) as job:
        await job.under_way()
        await job.fleet["gw1"].stop()
        assert job.fleet["gw1"].found("node.stopped")
        assert job.fleet["gw1"].found("node.drain_time_over") == []
        await job.fleet.start("gw1")
        verdict = await job.done(600)

        assert not any(gateway.summary().unfinished for gateway in job.gateways.values())
        assert verdict.ownerless == 0
        assert verdict.duplicates == verdict.resent  # by the operator, which did not wait for what it was owed
        assert verdict.submitted == 600  # no MT was taken by the operator without its gateway being told
