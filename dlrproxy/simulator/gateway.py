"""A gateway (ESME) that submits messages with a tag of their own and keeps account of every report that comes back.

    gateway = Gateway(GatewayOptions(port=port, name="gw1", messages=1000))
    await gateway.run()
    print(gateway.summary())

It behaves as Kannel does where gateways differ: sequence numbers continue over reconnects, what is unanswered when a
link is lost is submitted again, a submit with a temporary error is tried again later.
"""

import time
from collections import Counter
from collections.abc import Collection
from functools import partial
from random import Random

import trio
from attrs import evolve, frozen

from dlrproxy.simulator.agenda import Agenda
from dlrproxy.simulator.bodies import Delivered, submit_body
from dlrproxy.simulator.ledger import (
    GatewayStarted,
    Ledger,
    MoReceived,
    Reported,
    Responded,
    Submitted,
    new_run,
    wall_clock,
)
from dlrproxy.simulator.messages import Messages, Outgoing
from dlrproxy.simulator.options import BindType, GatewayOptions, Range
from dlrproxy.simulator.plan import seconds
from dlrproxy.simulator.session import Session
from dlrproxy.simulator.stream import SmppStream, flush_all
from protocols.smpp import constants as c
from protocols.smpp.constants import HEADER_SIZE
from protocols.smpp.framing import HEADER

PACE_S = 0.005  # how often a paced gateway submits
BURST_S = 0.25  # a paced gateway that was held up catches up on no more than this
CHECK_S = 0.05  # how often it looks whether it is done
UNBIND_S = 2.0  # how long `stop` waits for unbind_resp

_COMMANDS = {
    BindType.TRANSCEIVER: (c.BIND_TRANSCEIVER,),
    BindType.TRANSMITTER: (c.BIND_TRANSMITTER,),
    BindType.RECEIVER: (c.BIND_RECEIVER,),
    BindType.PAIR: (c.BIND_TRANSMITTER, c.BIND_RECEIVER),
}


@frozen
class GatewaySummary:
    """Counts of one run. `unfinished` messages, submitted or not, have neither a final report nor a permanent error."""

    name: str
    messages: int
    submitted: int  # submit_sm written, resubmissions included
    resubmitted: int  # because the link was lost before the response
    accepted: int
    errors: dict[str, int]  # responses by status
    reports: int  # received, answered ESME_ROK
    unmatched: int  # of these: no message of this gateway has that id, in no spelling
    matched_by_number: int  # of these: the id is spelled otherwise than in the response
    final: int  # messages with a final report
    unfinished: int
    mo: int
    reconnects: int
    seconds: float


class Gateway:
    """See the module. All state is touched from the event loop only."""

    def __init__(self, options: GatewayOptions, ledger: Ledger | None = None) -> None:
        self.options = options
        self.ledger = ledger if ledger is not None else Ledger()
        self.resubmitted = 0
        self.reconnects = 0
        self._run_id = options.run or new_run()
        self._random = Random(f"{options.seed}/{options.name}")
        self._messages = Messages(options, self._run_id, self._random)
        self._dirty: list[SmppStream] = []
        self._agenda = Agenda(self.flush)
        commands = _COMMANDS[options.bind_type] * options.binds
        self._sessions = [Session(f"s{number}", command, self) for number, command in enumerate(commands, 1)]
        self._before, self._between = submit_body(options.source, options.registered_delivery)
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._progress = self._began = time.monotonic()
        self._turn = 0
        self._answer_delay = seconds(options.answer_delay_ms)
        self._owed: dict[int, tuple[SmppStream, bytes]] = {}  # delayed answers, in the order of what they answer
        self._delayed = 0
        self._stop = trio.Event()
        self._changed = trio.Event()
        self._present = trio.Event()  # it keeps its binds up
        self._present.set()
        self._awake = trio.Event()  # it reads and submits
        self._awake.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until every message is done and every submit answered (then `linger_s` more), nothing has moved for
        `give_up_s`, or `stop`.

        With no messages to submit: until `stop`.
        """
        self._progress = self._began = time.monotonic()
        self.ledger.add(GatewayStarted(self._began, self.options.name, self._run_id, wall_clock()))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._agenda.run)
                nursery.start_soon(self.ledger.keep_written)
                for session in self._sessions:
                    nursery.start_soon(session.keep_up)
                if self.options.rate is not None:
                    nursery.start_soon(self._pace, self.options.rate)
                task_status.started()
                await self._until_over()
                await self._unbind()
                nursery.cancel_scope.cancel()
        finally:
            self.ledger.write()

    def stop(self) -> None:
        """Let `run` unbind and return."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    async def wait_bound(self) -> None:
        """Until all binds are up."""
        while not all(session.bound for session in self._sessions):
            self._changed = trio.Event()
            await self._changed.wait()

    def drop(self) -> None:
        """Cut every connection without a word. They come back."""
        for session in self._sessions:
            session.cut()

    def leave(self) -> None:
        """Go away as in a restart: connections are cut, and made again only after `come_back`. Messages are kept."""
        self._present = trio.Event()
        self.drop()

    def come_back(self) -> None:
        self._present.set()

    def freeze(self) -> None:
        """Get stuck: keep the connections, read nothing and submit nothing, until `thaw`."""
        self._awake = trio.Event()

    def thaw(self) -> None:
        self._awake.set()

    def answer_reports(
        self, *, silent: float = 0.0, refuse_temporary: float = 0.0, delay_ms: Range = (0.0, 0.0)
    ) -> None:
        """Answer reports in another way from now on; without arguments with ESME_ROK at once."""
        self.options = evolve(
            self.options,
            silent=silent,
            refuse_temporary=refuse_temporary,
            refuse_permanent=0.0,
            answer_delay_ms=delay_ms,
        )
        self._answer_delay = seconds(delay_ms)

    @property
    def finished(self) -> trio.Event:
        """Every message has a final report, or was refused for good."""
        return self._messages.finished

    @property
    def open(self) -> int:
        """Messages that were made, and have neither a final report nor a permanent error yet."""
        return self._messages.made - self._messages.done

    @property
    def unanswered(self) -> int:
        """Messages that were made, and have neither an id nor a permanent error yet."""
        return self._messages.made - self._messages.answered

    @property
    def message_ids(self) -> Collection[str]:
        """The ids that it was given for its messages."""
        return self._messages.ids

    def make_no_more(self) -> None:
        """Submit no new messages; those that were made are seen through."""
        self._messages.enough = True

    def summary(self) -> GatewaySummary:
        counts = self._counts
        return GatewaySummary(
            name=self.options.name,
            messages=self._messages.made,
            submitted=counts["submitted"],
            resubmitted=self.resubmitted,
            accepted=counts["accepted"],
            errors=dict(self._errors),
            reports=counts["reports"],
            unmatched=counts["unmatched"],
            matched_by_number=counts["matched_by_number"],
            final=counts["final"],
            unfinished=self.options.messages - self._messages.done,
            mo=counts["mo"],
            reconnects=self.reconnects,
            seconds=round(self._progress - self._began, 3),
        )

    # what sessions call

    @property
    def frozen(self) -> bool:
        return not self._awake.is_set()

    async def wait_awake(self) -> None:
        await self._awake.wait()

    @property
    def present(self) -> bool:
        return self._present.is_set()

    async def wait_present(self) -> None:
        """Until it is to have its binds."""
        await self._present.wait()

    def new_stream(self, session: Session) -> list[SmppStream]:
        """The list on which a session's stream notes that it has something to flush."""
        self.reconnects += session.connections > 1
        return self._dirty

    def flush(self) -> None:
        flush_all(self._dirty)

    def changed(self) -> None:
        """A session was bound or ended."""
        self._changed.set()

    def fill(self, session: Session) -> None:
        """Submit as much as the window of this session has room for, unless the pace is set elsewhere."""
        if self.options.rate is None:
            self._submit(session, session.room)

    def lost(self, unanswered: list[Outgoing]) -> None:
        """The link went before these were answered: they are submitted again, before anything else."""
        if self.stopping:
            return
        self.resubmitted += len(unanswered)
        self._messages.take_back(unanswered)

    def responded(self, session: Session, message: Outgoing, status: int, message_id: str, now: float) -> None:
        """A submit_sm_resp."""
        self.ledger.add(Responded(now, message.tag, session.name, status, message_id))
        self._progress = now
        if status == c.ESME_ROK:
            self._counts["accepted"] += 1
            self._messages.accepted(message, message_id)
            return
        self._errors[c.STATUS_NAMES.get(status, hex(status))] += 1
        if status in c.TEMPORARY:
            self._agenda.at(now + self.options.resubmit_ms / 1000, partial(self._release, message))
        else:
            self._messages.refused(message)

    def delivered(self, session: Session, message: Delivered, now: float) -> tuple[int | None, float]:
        """A report or MO came: the status to answer with, None for silence, and after how many seconds."""
        status = self._answer()
        if message.report:
            self._reported(session, message, status, now)
        else:
            self._counts["mo"] += status == c.ESME_ROK
            source, destination = message.source.decode("latin-1"), message.destination.decode("latin-1")
            self.ledger.add(MoReceived(now, message.tag, source, destination, session.name, status))
        low, high = self._answer_delay
        return status, low + self._random.random() * (high - low) if high else 0.0

    def answer_later(self, due: float, stream: SmppStream, pdu: bytes) -> None:
        """Write an answer when it is due, or before the unbind if that comes first, to the connection it belongs to:
        on the next one of the same session its sequence number means another delivery."""
        self._delayed += 1
        self._owed[self._delayed] = (stream, pdu)
        self._agenda.at(due, partial(self._answer_owed, self._delayed))

    # its own

    def _answer(self) -> int | None:
        options = self.options
        draw = self._random.random()
        if draw < options.silent:
            return None
        if draw < options.silent + options.refuse_temporary:
            return options.temporary_status
        if draw < options.silent + options.refuse_temporary + options.refuse_permanent:
            return options.permanent_status
        return c.ESME_ROK

    def _answer_owed(self, number: int) -> None:
        owed = self._owed.pop(number, None)
        if owed is not None:
            stream, pdu = owed
            stream.write(pdu)

    def _reported(self, session: Session, report: Delivered, status: int | None, now: float) -> None:
        message, match = self._messages.of_id(report.message_id)
        source = report.source.decode("latin-1")
        event = Reported(now, report.message_id, report.state, report.tag, source, session.name, status, match)
        self.ledger.add(event)
        if status != c.ESME_ROK:
            return
        self._counts["reports"] += 1
        self._counts["unmatched"] += match == "none"
        self._counts["matched_by_number"] += match == "number"
        message = self._messages.of_tag(report.tag) or message
        if message is None:
            return
        self._progress = now
        if report.state in c.FINAL_STATES and not message.done:
            self._counts["final"] += 1
            self._messages.finish(message)

    def _release(self, message: Outgoing) -> None:
        self._messages.put_off(message)
        for session in self._sessions:
            self.fill(session)

    def _submit(self, session: Session, limit: int) -> int:
        """Submit up to `limit` messages, and say how many there were. The caller flushes."""
        now = time.monotonic()
        for count in range(limit):
            message = self._messages.next()
            if message is None:
                return count
            message.attempts += 1
            text = f"{message.tag} {self.options.text}".encode("latin-1", "replace")[:254]
            body = b"%b%b\0%b%c%b" % (self._before, message.destination.encode(), self._between, len(text), text)
            sequence = session.expect(message, now)
            session.write(HEADER.pack(HEADER_SIZE + len(body), c.SUBMIT_SM, 0, sequence) + body)
            self._counts["submitted"] += 1
            event = Submitted(now, message.tag, session.name, sequence, message.destination, message.attempts)
            self.ledger.add(event)
        return limit

    async def _pace(self, rate: float) -> None:
        due, before = 0.0, time.monotonic()
        while True:
            await trio.sleep(PACE_S)
            now = time.monotonic()
            due = min(due + (now - before) * rate, max(1.0, rate * BURST_S))
            before = now
            due -= self._submit_evenly(int(due))
            self.flush()

    def _submit_evenly(self, limit: int) -> int:
        """Submit up to `limit` messages over the sessions in turn, as windows allow."""
        submitted = 0
        sessions = [session for session in self._sessions if session.room]
        while sessions and submitted < limit:
            self._turn += 1
            session = sessions[self._turn % len(sessions)]
            if not self._submit(session, 1):
                break
            submitted += 1
            if not session.room:
                sessions.remove(session)
        return submitted

    async def _until_over(self) -> None:
        endless = not self.options.messages
        while not self.stopping:
            if self.finished.is_set() and not self._outstanding():
                with trio.move_on_after(self.options.linger_s):
                    await self._stop.wait()
                return
            if not endless and time.monotonic() - self._progress > self.options.give_up_s:
                return
            with trio.move_on_after(CHECK_S):
                await self._stop.wait()

    def _outstanding(self) -> bool:
        """A report may come before the response to its message, which is then still to come."""
        return self._messages.waiting or any(session.unanswered for session in self._sessions)

    async def _unbind(self) -> None:
        """Every delivery that was received is answered first: an operator takes an unbind for the end of the bind,
        and what is unanswered then for not delivered."""
        self._stop.set()
        for number in list(self._owed):
            self._answer_owed(number)
        for session in self._sessions:
            session.unbind()
        self.flush()
        with trio.move_on_after(UNBIND_S):
            while any(session.bound for session in self._sessions):
                self._changed = trio.Event()
                await self._changed.wait()
