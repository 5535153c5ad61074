"""The hot path: one `Relay` between one operator's binds and the sessions of this node's gateways for it.

It is synchronous. Whoever reads a socket hands over all PDUs of one receive (`from_gateway`, `from_operator`); what
they make us send is collected per link, and written once per link at the end (`wrap_up`). No task, await, event or log
call for a PDU. What takes time ends in a callback: the store's `after_durable`, custody's answer, a tick.

    mt/submissions.py    gateway -> operator, and the responses back  mt/responses.py      that wait for the disk
    reports/arrivals.py  reports and MO from the operator             reports/seeking.py   whose message is not known
    reports/owed.py      their answers, and custody                   reports/matching.py  ids, by the operator's rule
    reports/passing.py   what is written to gateway sessions          reports/renaming.py  the id that the gateway knows
    reports/hand_over.py what comes from custody
"""

import itertools
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio
from structlog.typing import FilteringBoundLogger

from dlrproxy.config.operator import Operator
from dlrproxy.config.tables import Mo
from dlrproxy.counters import Counters
from dlrproxy.custody_port import Custody
from dlrproxy.logs import RouteLog
from dlrproxy.mo.conversations import Conversations
from dlrproxy.mo.routing import MoRouting
from dlrproxy.mt.responses import Responses
from dlrproxy.mt.submissions import Submissions
from dlrproxy.reports.arrivals import Arrivals
from dlrproxy.reports.finals import Finals
from dlrproxy.reports.hand_over import HandOver
from dlrproxy.reports.matching import Matching
from dlrproxy.reports.passing import Passing
from dlrproxy.reports.renaming import Renaming
from dlrproxy.sessions.licence import Licence
from dlrproxy.sessions.links import Bind, GatewaySession, Link, Output
from dlrproxy.store.port import OpenMessage, Store
from dlrproxy.surroundings import Surroundings
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER
from protocols.smpp.message_ids import Change, Learner
from protocols.smpp.pdu import pack
from protocols.smpp.session import WITHOUT_RESPONSE, Side, response_to
from protocols.smpp.timers import Limits

TICK_S: Final = 0.25  # the grain of the timers, which are seconds; 0.04 % of a core

_header = HEADER.unpack_from


class Relay:
    """One operator at one node."""

    def __init__(
        self,
        operator: Operator,
        store: Store,
        custody: Custody,
        learner: Learner,
        *,
        routes: RouteLog,
        log: FilteringBoundLogger,
        now: Callable[[], float],
        learned: Callable[[Change], None] = lambda _: None,
        mo: MoRouting | None = None,
        nodes: int = 1,
        roaming: bool = False,
        licence: Licence | None = None,
    ) -> None:
        """`now` is the node's clock. `learned` is told when the rule for message ids has changed.

        Without `mo` every MO is for the gateways of this node, the first that is bound. `roaming`: the store has the
        messages of every node, and a gateway may be bound at any of them. Every connection is to have the `licence`.
        """
        self.licence = licence
        self.operator = operator
        self.counters = Counters()
        self.learner = learner
        self.system_id = b""  # how the operator named itself in its last bind_resp
        self.now = now
        self._log = log
        self._learned = learned
        self.store = store
        self._custody = custody
        self._dirty: list[Link[Any]] = []  # links with something to send
        self._links: dict[Link[Any], None] = {}  # every connection, bound or not
        self._binds: dict[Bind, None] = {}  # bound ones
        self._bind_up = trio.Event()
        self._alarm = trio.Event()
        self._alarm_at: float | None = None
        self._settled: trio.Event | None = None  # somebody waits for the end of all traffic
        self._in_batch = False  # whoever is at work wraps up at the end
        self._tokens = itertools.count(secrets.randbits(40) << 20)  # never one of an earlier run's
        self._traces = itertools.count(secrets.randbits(32) << 32)
        self.mo = mo or MoRouting(operator, Mo(), Conversations(0), alone=True)
        around = Surroundings(
            operator, store, custody, self.counters, self.mo, routes, now, self._new_trace, roaming, self.wrap_up
        )
        self._responses = Responses(around)
        self._submissions = Submissions(around, self._responses, self._opened, nodes)
        self._finals = Finals()
        self._passing = Passing(around, self._responses, self._finals)
        self._matching = Matching(around, learner, self._rule_changed)
        self._renaming = Renaming(around, self._passing, self._matching)
        self._arrivals = Arrivals(
            around,
            self._responses,
            self._submissions,
            self._passing,
            self._matching,
            self._renaming,
            self._finals,
        )
        self.hand_over = HandOver(around, self._arrivals, self._passing, self._renaming, self._matching, self._finals)

    @property
    def pace_per_s(self) -> float | None:
        """MT a second that may be sent now; None: as many as the window allows."""
        return self._submissions.pace.per_s

    def share_among(self, nodes: int) -> None:
        """So many nodes share the account's rate from now on."""
        self._submissions.pace.share_among(nodes, self.now())

    # Links come and go

    def new_bind(self, connection: Output, name: str) -> Bind:
        """A connection to the operator, not bound yet. Its timers run from now on."""
        operator = self.operator
        limits = Limits(
            operator.session_init_s,
            operator.enquire_link_s,
            operator.enquire_link_timeout_s,
            operator.bind_inactivity_s,
        )
        bind = Bind(connection, operator.window, limits, self._dirty, self.now(), name=name)
        self._links[bind] = None
        return bind

    def new_session(self, connection: Output, gateway: str) -> GatewaySession:
        """A connection from a gateway, not bound yet. Its timers run from now on."""
        operator = self.operator
        limits = Limits(
            operator.session_init_s, operator.enquire_link_s, operator.enquire_link_timeout_s, operator.inactivity_s
        )
        window, token = operator.gateway_window, next(self._tokens)
        session = GatewaySession(connection, window, limits, self._dirty, self.now(), gateway=gateway, token=token)
        self._links[session] = None
        return session

    def bound(self, link: Bind | GatewaySession) -> None:
        """Its bind was accepted; for a gateway's, that answer has been put on it."""
        link.timers.bound(self.now())
        if isinstance(link, Bind):
            self._binds[link] = None
            self._submissions.bind_up(link)
            self._bind_up.set()
        else:
            self._passing.session_up(link)
        self.wrap_up()

    def lost(self, link: Bind | GatewaySession) -> None:
        """Its connection is gone. What waited for it is answered, given up or taken into custody."""
        link.alive = False
        link.session.closed()
        self._links.pop(link, None)
        if isinstance(link, Bind):
            was_bound = link in self._binds
            self._binds.pop(link, None)
            self._submissions.bind_lost(link)
            self._arrivals.bind_lost(link, self.now())
            if was_bound and not self._binds:
                self._no_bind_left()
        else:
            self._submissions.session_lost(link)
            self._passing.session_lost(link, self.now())
        self.wrap_up()

    def cut(self, reason: str) -> None:
        """End every connection at once: nothing more is sent on any but unbind."""
        for link in list(self._links):
            link.cut(reason)

    def _no_bind_left(self) -> None:
        self._bind_up = trio.Event()
        if self.operator.no_bind == "close" and not self.draining:
            for session in list(self._passing.sessions.values()):
                session.unbind("no_operator_bind")

    @property
    def binds(self) -> Sequence[Bind]:
        """The operator binds that are up."""
        return tuple(self._binds)

    @property
    def sessions(self) -> Sequence[GatewaySession]:
        """The gateway sessions that are bound."""
        return tuple(self._passing.sessions.values())

    async def bind_is_up(self) -> None:
        """Wait until an operator bind is up."""
        await self._bind_up.wait()

    # The hot path

    def from_gateway(self, session: GatewaySession, frames: Sequence[bytes]) -> None:
        """All PDUs of one receive from a bound gateway session."""
        now = self.now()
        self._in_batch = True
        try:
            idle = self._work_through_gateways(session, frames, now)
        finally:
            self._in_batch = False
        session.timers.heard_at = now
        if idle < len(frames):
            session.timers.worked_at = now
        self.wrap_up()

    def _work_through_gateways(self, session: GatewaySession, frames: Sequence[bytes], now: float) -> int:
        """How many of the PDUs were no work, but concern the link alone."""
        state = session.session
        submissions = self._submissions
        idle = 0
        submissions.begin()
        for frame in frames:
            _, command, status, sequence = _header(frame)
            if command == c.SUBMIT_SM and state.transmits:
                submissions.submit(session, frame, command, sequence, now)
            elif command == c.DELIVER_SM_RESP:
                self._answered(session, frame, status, sequence, now)
            elif session.control(Side.ESME, command, status, sequence):
                idle += 1
            elif command & c.RESPONSE_BIT:
                self._answered(session, frame, status, sequence, now)
            elif refusal := state.refusal(Side.ESME, command):
                self._refuse_state(session, command, refusal, sequence)
            else:
                submissions.submit(session, frame, command, sequence, now)
        return idle

    def _answered(self, session: GatewaySession, frame: bytes, status: int, sequence: int, now: float) -> None:
        waiting = session.window.take(sequence)
        if waiting is None:
            self.counters.response_unknown += 1
        else:
            waiting.answered(frame, status, now)

    def from_operator(self, bind: Bind, frames: Sequence[bytes]) -> None:
        """All PDUs of one receive from an operator bind."""
        now = self.now()
        self._in_batch = True
        try:
            idle = self._work_through_operators(bind, frames, now)
        finally:
            self._in_batch = False
        bind.timers.heard_at = now
        if idle < len(frames):
            bind.timers.worked_at = now
        self.wrap_up()

    def _work_through_operators(self, bind: Bind, frames: Sequence[bytes], now: float) -> int:
        """As `_work_through_gateways`."""
        state = bind.session
        submissions, arrivals = self._submissions, self._arrivals
        idle = 0
        for frame in frames:
            _, command, status, sequence = _header(frame)
            if command == c.SUBMIT_SM_RESP:
                submissions.answered(bind, frame, status, sequence, now)
            elif command == c.DELIVER_SM and state.receives:
                arrivals.arrive(bind, frame, command, sequence, now)
            elif bind.control(Side.SMSC, command, status, sequence):
                idle += 1
            elif command & c.RESPONSE_BIT:
                submissions.answered(bind, frame, status, sequence, now)
            elif refusal := state.refusal(Side.SMSC, command):
                self._refuse_state(bind, command, refusal, sequence)
            elif command == c.DATA_SM:
                arrivals.arrive(bind, frame, command, sequence, now)
            else:
                self._passing.pass_other(bind, frame, command, sequence, now)
        return idle

    def _refuse_state(self, link: Link[Any], command: int, status: int, sequence: int) -> None:
        self.counters.refused_state += 1
        if command not in WITHOUT_RESPONSE:
            link.put(pack(response_to(command), status, sequence))

    def wrap_up(self) -> None:
        """The end of a batch, or of anything else that was done: what it set off is done as well, then all is sent."""
        if self._in_batch:
            return
        self._in_batch = True
        try:
            now = self.now()
            self._submissions.settle(now)
            self._arrivals.settle(now)
            while self._dirty:
                dirty = self._dirty[:]
                self._dirty.clear()
                for link in dirty:
                    link.flush()
        finally:
            self._in_batch = False
        if self._settled is not None and not self.in_flight:
            self._settled.set()
        due = self._next_due()
        if due is not None and (self._alarm_at is None or due < self._alarm_at):
            self._alarm.set()

    def _opened(self, messages: list[OpenMessage]) -> None:
        """New open messages, whose responses are on their way to the disk."""
        self._arrivals.seeking.opened(messages)
        if self._custody.watching:
            for message in messages:
                self._custody.open_message(message)

    def _new_trace(self) -> str:
        return f"{next(self._traces):016x}"

    def _rule_changed(self, change: Change) -> None:
        self._log.info("message_id.rule", before=change.before, after=change.after)
        self._learned(change)

    async def look_up(self) -> None:
        """Look for the messages of all reports that memory does not know now; `run` does so as they come."""
        await self._arrivals.seeking.look_up()
        await self._renaming.look_up()

    # Time

    async def run(self) -> None:
        """Timers, and lookups in the store, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._arrivals.seeking.run)
            nursery.start_soon(self._renaming.run)
            while True:
                await self._sleep()
                self.tick()

    async def _sleep(self) -> None:
        now = self.now()
        due = self._next_due()
        self._alarm = trio.Event()
        self._alarm_at = now + TICK_S if due is None else min(due, now + TICK_S)
        with trio.move_on_after(max(0.0, self._alarm_at - now)):
            await self._alarm.wait()

    def _next_due(self) -> float | None:
        """When something is due before the next tick; None if nothing is."""
        pace = self._submissions.next_due(self.now)
        later = self._passing.next_due()
        return later if pace is None else pace if later is None else min(pace, later)

    def tick(self) -> None:
        """Do what is due."""
        now = self.now()
        for link in list(self._links):
            link.tick(now)
        self._submissions.tick(now)
        self._passing.tick(now)
        self._arrivals.tick(now)
        self.wrap_up()

    # Drain

    @property
    def draining(self) -> bool:
        """MT are answered busy_status; responses and reports go on."""
        return self._submissions.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._submissions.draining = value

    @property
    def in_flight(self) -> int:
        """Requests of the gateways, of the operator and of custody that somebody still waits for an answer to."""
        submissions = self._submissions
        return (
            submissions.outstanding
            + submissions.queued
            + self._responses.waiting
            + len(self._arrivals)
            + self.hand_over.outstanding
            + self._passing.awaited
        )

    async def settled(self) -> None:
        """Wait until nothing is in flight; the caller sets the deadline."""
        while self.in_flight:
            if self._settled is None or self._settled.is_set():
                self._settled = trio.Event()
            await self._settled.wait()
