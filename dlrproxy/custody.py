"""Custody: carries out what the pure machine (`ring/custody.py`) asks for, and tells it what happens.

The machine decides; this file writes, sends, delivers and logs. It is the one place in which the relays, the store and
the ring meet, all on one event loop, so nothing here waits. What does, because it reads the store, is beside it:
`keeping/lookups.py`, `keeping/inbox.py`, `keeping/parked.py`.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final, assert_never

import trio

from dlrproxy.clock import NodeClock
from dlrproxy.custody_port import Accepted, Deliveries
from dlrproxy.keeping.inbox import Inbox
from dlrproxy.keeping.lookups import Lookups
from dlrproxy.keeping.parked import Parked
from dlrproxy.logs import RouteLog, logger
from dlrproxy.store.port import OpenMessage, Store, Table
from dlrproxy.store.shared import SharedStore
from protocols.peer.frames import EnvelopeKey, Finished, Forgotten, Frame
from ring import commands
from ring.accepting import Offer
from ring.commands import Ask, Closed, Recall
from ring.custody import Custody as Machine
from ring.rows import CustodyRow, RowError, decode_custody
from ring.topology import Topology

_TICK_S = 0.1  # alarms are for seconds; ten wake-ups a second cost next to nothing
_SCAN = 1000  # rows read at a time while starting


_TABLES: Final = {table: Table(table.value) for table in commands.Table}


class Keeper:
    """Keeps what was answered ESME_ROK until a gateway has it. Implements `custody_port.Custody` for every relay."""

    def __init__(
        self,
        machine: Machine,
        store: Store,
        clock: NodeClock,
        route_log: RouteLog,
        shared: SharedStore | None = None,
    ) -> None:
        """`shared` is `store`, in a cluster: custody comes from other nodes and goes to them through it."""
        self._machine = machine
        self._store = store
        self._shared = shared
        self._clock = clock
        self._route_log = route_log
        self._log = logger("custody")
        self._send: Callable[[str, Frame], bool] = _unlinked
        self._relays: Mapping[str, Deliveries] = {}
        self._answers: dict[EnvelopeKey, tuple[str, Callable[[bool], None]]] = {}  # operator, answer
        self._with_session: dict[str, EnvelopeKey] = {}  # trace -> what a relay will say `answered` of
        self._todo: deque[commands.Command] = deque()
        self._working = False
        self._unhurried: dict[str, list[Frame]] = {}  # by node
        self._to_wrap_up: set[str] = set()  # operators whose relays have something to send
        self._tickets: list[int] = []  # of the writes that join the store's present group
        self._group = -1
        self._unread = 0  # rows of custody that `restore` has left alone
        self._emptied = trio.Event()
        self._handed_on: trio.Event | None = None  # somebody waits for it
        self.lookups = Lookups(machine, store, clock, shared, self._do)
        self.parked = Parked(machine, store, clock, self.lookups, self._do)
        self.inbox = None if shared is None else Inbox(machine, shared, clock, self._do)
        self.counts: Counter[str] = Counter()  # route events, by name; also "parked.REASON" and "summary.RESULT"
        self.hops: Counter[int] = Counter()  # reports of this node that others have claimed, by links travelled
        self.refused: Counter[str] = Counter()  # what was not taken into custody, by reason

    def attach(self, relays: Mapping[str, Deliveries], send: Callable[[str, Frame], bool]) -> None:
        """The relays, by operator, and how to send a frame to a node. Called before anything else.

        `send` says whether it could; what is lost is sent again by the machine.
        """
        self._relays = relays
        self._send = send
        self.lookups.attach(relays)

    # custody_port.Custody

    @property
    def watching(self) -> bool:
        return self._machine.watching

    def holds(self, operator: str, message_id: bytes) -> bool:
        return self._machine.holds(operator, message_id)

    def accept(self, report: Accepted, answer: Callable[[bool], None]) -> None:
        if not self._store.accepting:
            self._refuse(answer, "store_not_accepting")
            return
        offer = Offer(
            report.operator,
            report.kind,
            report.message_id,
            report.destination,
            report.pdu,
            report.final,
            report.trace,
            gateway=report.owner or report.designated,
            local=report.owner is not None,
            sent=report.session is not None,
            part=report.part,
        )
        key, out = self._machine.accept(offer, self._clock.now())
        if key is None:
            self._refuse(answer, "custody_full")
            return
        self._answers[key] = report.operator, answer
        if report.session is not None:
            self._with_session[report.trace] = key
        self._do(out)

    def _refuse(self, answer: Callable[[bool], None], reason: str) -> None:
        self.refused[reason] += 1
        answer(False)

    def answered(self, trace: str, status: int | None) -> None:
        if key := self._with_session.pop(trace, None):
            self._do(self._machine.answered(key, status, self._clock.now()))

    def gateway_bound(self, operator: str, gateway: str) -> None:
        self._do(self._machine.gateway_bound(operator, gateway, self._clock.now()))

    def gateway_gone(self, operator: str, gateway: str) -> None:
        self._do(self._machine.gateway_gone(operator, gateway, self._clock.now()))

    def open_message(self, message: OpenMessage) -> None:
        self._do(self._machine.appeared(message.operator, message.message_id, self._clock.now()))

    # The ring

    def frames(self, sender: str, frames: Sequence[Frame]) -> None:
        """Frames about custody from another node."""
        now = self._clock.now()
        taking = self._store.accepting
        self._do([command for frame in frames for command in self._machine.frame(sender, frame, now, taking=taking)])

    def reachable(self, nodes: Mapping[str, int]) -> None:
        """The nodes that can be reached, and which version of the frames each speaks."""
        self._do(self._machine.reachable(nodes, self._clock.now()))

    def retopologize(self, topology: Topology) -> None:
        """The configured nodes have changed."""
        self._do(self._machine.retopologize(topology, self._clock.now()))

    def joined(self, nodes: AbstractSet[str]) -> None:
        """The nodes that the other ring has, "cluster/node", where two are joined."""
        self._do(self._machine.joined(nodes, self._clock.now()))

    def leave(self) -> None:
        """This node is going to stop: hand on to others what they can deliver as well."""
        self._do(self._machine.leave(self._clock.now()))

    def stay(self) -> None:
        """It is not going to, after all."""
        self._do(self._machine.stay(self._clock.now()))

    async def handed_on(self) -> None:
        """After `leave`: wait until nothing is left that another node could take. `run` must be running."""
        self._handed_on = trio.Event()
        await self._handed_on.wait()

    # People

    def in_custody(self) -> int:
        """How many reports and MO this node holds a message of, or owes its peers a word on."""
        return self._machine.count().items

    async def empty(self) -> None:
        """Wait until nothing is in custody. `run` must be running."""
        while self.in_custody():
            if self._emptied.is_set():
                self._emptied = trio.Event()
            await self._emptied.wait()

    @property
    def unreadable(self) -> int:
        """Rows that this node has and cannot read, in custody or out of its inbox."""
        return self._unread + (0 if self.inbox is None else self.inbox.unreadable)

    @property
    def machine(self) -> Machine:
        return self._machine

    # What another node of a pair had, and this one has not

    def take_in(self, row: CustodyRow) -> bool:
        """Take custody of it, under a name of this node's own. False: there is no room, and nothing was done.

        Without an await: what the caller writes just before or after becomes durable with it.
        """
        envelope = row.envelope
        offer = Offer(
            envelope.operator,
            envelope.kind,
            envelope.message_id,
            envelope.destination,
            envelope.pdu,
            envelope.final,
            envelope.trace,
            gateway=row.gateway or envelope.gateway,
            local=row.gateway != "",
            part=envelope.part,
            more=envelope.more,
        )
        key, out = self._machine.accept(offer, self._clock.now())
        self._do(out)
        return key is not None

    # Tasks

    async def restore(self) -> None:
        """Read what an earlier run left on disk. Before anything else happens. Raises StoreError.

        What cannot be read stays there, for a release that can (docs/upgrading.md).
        """
        after = b""
        while rows := await self._store.scan(Table.CUSTODY, after, _SCAN):
            for name, value in rows:
                self._restore(name, value)
            after = rows[-1][0]
        self._do(self._machine.resume(self._clock.now()))

    def _restore(self, name: bytes, value: bytes) -> None:
        try:
            row = decode_custody(value)
        except RowError as error:
            self._unread += 1
            self._machine.leave_unread(name)
            self._log.error("custody.unreadable", name=name.hex(), bytes=len(value), detail=str(error))
        else:
            self._machine.restore(row, self._clock.now())

    async def run(self) -> None:
        """Tick, and look up what the machine asks for, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            nursery.start_soon(self.lookups.run)
            if self.inbox is not None:
                nursery.start_soon(self.inbox.run)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(_TICK_S)
            self.tick()

    def tick(self) -> None:
        """Do what is due. `run` calls it every tenth of a second."""
        self._do(self._machine.tick(self._clock.now()))
        for to in list(self._unhurried):
            self._send_unhurried(to)
        if not self.in_custody():
            self._emptied.set()
        if self._handed_on is not None and not self._machine.handing_on:
            self._handed_on.set()

    def next_due(self) -> float | None:
        """When `tick` has something to do, on the node's clock: for a driver that need not ask ten times a second."""
        return self._clock.now() if self._unhurried else self._machine.next_due()

    # Carrying out

    def _do(self, out: list[commands.Command]) -> None:
        """Carry commands out in order, also when one of them leads to more while it is carried out."""
        self._todo.extend(out)
        if self._working:
            return
        self._working = True
        try:
            while self._todo:
                self._carry_out(self._todo.popleft())
        finally:
            self._working = False
        while self._to_wrap_up:
            if relay := self._relays.get(self._to_wrap_up.pop()):
                relay.wrap_up()

    def _carry_out(self, command: commands.Command) -> None:
        match command:
            case commands.Write():
                self._write(command)
            case commands.Send(to=to, frame=Finished() | Forgotten() as frame):
                self._unhurried.setdefault(to, []).append(frame)
            case commands.Send():
                self._send_unhurried(command.to)
                self._send(command.to, command.frame)
            case commands.Deliver():
                self._deliver(command)
            case commands.Note():
                self._note(command)
            case commands.Accepted():
                self._answer(command.key)
            case Ask() if not (command.envelope.is_sought or command.only_finished):
                finding = self.lookups.bound_gateway(command)
                self._do(self._machine.asked(command.envelope.key, finding, self._clock.now()))
            case Ask() | Recall() | Closed():
                self.lookups.ask(command)
            case commands.Collect():
                if self.inbox is not None:
                    self.inbox.look()
            case _:
                assert_never(command)

    def _send_unhurried(self, to: str) -> None:
        """Frames that nobody waits for: they go in front of the next one that somebody does, or with the next tick.

        A frame that travels alone costs a hundred times one of a full batch.
        """
        for frame in self._unhurried.pop(to, ()):
            self._send(to, frame)

    def _write(self, write: commands.Write) -> None:
        for row in write.rows:
            table = _TABLES[row.table]
            if row.inbox:
                self._write_inbox(row)
            elif row.value is None:
                self._store.delete(table, row.key)
            else:
                self._store.put(table, row.key, row.value)
        if self._group == self._store.group:
            self._tickets.append(write.ticket)
        else:
            # One callback a group: what a commit releases is worked through, and sent, together.
            self._group = self._store.group
            self._tickets = [write.ticket]
            self._store.after_durable(partial(self._durable, self._tickets))

    def _write_inbox(self, row: commands.Row) -> None:
        if self._shared is None:
            raise TypeError("only a node of a cluster has an inbox")
        if row.value is None:
            self._shared.take_from_inbox(row.key)
        else:
            self._shared.put_into_inbox(row.inbox, row.key, row.value)

    def _durable(self, tickets: list[int]) -> None:
        now = self._clock.now()
        self._do([command for ticket in tickets for command in self._machine.durable(ticket, now)])

    def _answer(self, key: EnvelopeKey) -> None:
        operator, answer = self._answers.pop(key, ("", None))
        if answer is not None:
            self._to_wrap_up.add(operator)
            answer(True)

    def _deliver(self, deliver: commands.Deliver) -> None:
        envelope = deliver.envelope
        relay = self._relays.get(envelope.operator)
        done = partial(self._delivered, envelope.key)
        age_s = self._clock.now() - deliver.reported_at
        if relay is not None and envelope.kind == "dlr" and not envelope.final and envelope.message_id:
            # A final report that matched here goes past custody, and may be with the gateway at this moment.
            if relay.finished(envelope.message_id):
                self._do(self._machine.superseded(envelope.key, self._clock.now()))
                return
            if relay.under_way(envelope.message_id):
                self._do(self._machine.put_off(envelope.key, self._clock.now()))
                return
        if relay is None or not relay.deliver(deliver.gateway, envelope.message_id, envelope.pdu, done, age_s=age_s):
            self._do(self._machine.unsent(envelope.key, self._clock.now()))
        else:
            self._to_wrap_up.add(envelope.operator)

    def _delivered(self, key: EnvelopeKey, status: int | None) -> None:
        self._do(self._machine.answered(key, status, self._clock.now()))

    def _note(self, note: commands.Note) -> None:
        self.counts[note.event] += 1
        fields = dict(note.fields)
        if note.event == "parked":
            self.counts[f"parked.{fields['reason']}"] += 1
        envelope = note.envelope
        if note.event == "settled" and envelope.kind == "dlr":
            self.hops[note.hop] += 1
            if "summary" in fields:
                self.counts[f"summary.{fields['summary']}"] += 1
        self._route_log.event(
            envelope.kind,
            note.event,
            trace=envelope.trace,
            operator=envelope.operator,
            message_id=envelope.message_id,
            hop=note.hop,
            lap=note.lap,
            **fields,
        )


def _unlinked(peer: str, frame: Frame) -> bool:
    return False
