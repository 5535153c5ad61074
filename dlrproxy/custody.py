"""Custody: carries out what the pure machine (`ring/custody.py`) asks for, and tells it what happens.

The machine decides; this file looks up, writes, sends, delivers and logs. It is the one place in which the relays, the
store and the ring meet, all on one event loop, so nothing here waits but the lookups, which go to the disk in batches.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final, assert_never

import trio
from msgspec import structs

from dlrproxy.clock import NodeClock
from dlrproxy.custody_port import Accepted, Deliveries, Wanted
from dlrproxy.logs import RouteLog, logger
from dlrproxy.set_aside import SetAside
from dlrproxy.store.port import OpenMessage, Store, StoreError, Table
from dlrproxy.store.shared import SharedStore
from protocols.peer.frames import Envelope, EnvelopeKey, Finished, Forgotten, Frame
from protocols.smpp.message_ids import Inexact, Match, Verdict, digits
from ring import commands
from ring.accepting import Offer
from ring.commands import Ask, Closed, Finding, Reason, Recall
from ring.custody import Custody as Machine
from ring.rows import CustodyRow, ParkedRow, RowError, decode_custody, encode_key, read_parked
from ring.topology import Topology

_TICK_S = 0.1  # alarms are for seconds; ten wake-ups a second cost next to nothing
_LOOK_AGAIN_S = 0.5  # after the store could not be read
_SCAN = 1000  # rows read at a time while starting
_COLLECT_EVERY_S = 5.0  # as a rule another node says that it has put something into the inbox; its frame may be lost
_COLLECTED = 100  # rows of an inbox in one commit: as many as move at a time (`ring.sharing`)
_AT_ONCE = 50  # rows replayed in one turn of the loop: some 3 ms

_NOT_OWNED: Final = frozenset({Reason.UNCLAIMED.value, Reason.OWNER_UNREACHABLE.value})

_TABLES: Final = {table: Table(table.value) for table in commands.Table}

Lookup = Ask | Recall | Closed


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
        self._set_aside = None if shared is None else SetAside(shared)
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
        self._lookups: list[Lookup] = []
        self._lookups_wanted = trio.Event()
        self._looking_up = trio.Lock()
        self._collect_wanted = trio.Event()
        self._unread = 0  # rows of custody that `restore` has left alone
        self._recount = False  # parked rows have come that the machine does not know of
        self._emptied = trio.Event()
        self._handed_on: trio.Event | None = None  # somebody waits for it
        self._replayed: dict[EnvelopeKey, None] = {}  # what may still be on its way
        self._parked_rows = trio.Lock()  # reading a parked row and deciding about it are one step
        self.counts: Counter[str] = Counter()  # route events, by name; also "parked.REASON" and "summary.RESULT"
        self.hops: Counter[int] = Counter()  # reports of this node that others have claimed, by links travelled
        self.refused: Counter[str] = Counter()  # what was not taken into custody, by reason

    def attach(self, relays: Mapping[str, Deliveries], send: Callable[[str, Frame], bool]) -> None:
        """The relays, by operator, and how to send a frame to a node. Called before anything else.

        `send` says whether it could; what is lost is sent again by the machine.
        """
        self._relays = relays
        self._send = send

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
        return self._unread + (0 if self._set_aside is None else self._set_aside.unreadable)

    @property
    def machine(self) -> Machine:
        return self._machine

    async def replay(self, keys: Sequence[bytes], gateway: str, *, node: str = "") -> int:
        """Take parked rows back into custody, for a gateway of this node or (with "") for the ring; how many.

        With `node`: for that gateway of that node or (with "") any that is bound there.

        Left out are those that are not there, and those that a late claim has just taken. One visit to the disk and one
        commit are for all of them, and so is one turn of the loop. Raises StoreError.
        """
        count = 0
        async with self._parked_rows:
            for row in await self._parked(keys):
                taken, out = self._machine.replay(row, gateway, self._clock.now(), node=node)
                self._do(out)
                if taken is not None:
                    self._replayed[taken] = None
                    count += 1
        return count

    async def _parked(self, keys: Sequence[bytes]) -> list[ParkedRow]:
        values = await self._store.get_many(Table.PARKED, keys)
        return [row for value in values if value is not None and (row := read_parked(value)) is not None]

    def replaying(self) -> int:
        """How many that were replayed are on their way now: not those that wait, nor those that a gateway has."""
        self._replayed = {key: None for key in self._replayed if self._machine.is_on_its_way(key)}
        return len(self._replayed)

    async def drop(self, keys: Sequence[bytes]) -> int:
        """A person drops parked rows. As for `replay`. Raises StoreError."""
        count = 0
        async with self._parked_rows:
            for row in await self._parked(keys):
                out = self._machine.drop_parked(row, self._clock.now())
                self._do(out)
                count += bool(out)
        return count

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

    def take_in_parked(self, row: ParkedRow) -> bool:
        """Likewise, of a parked item."""
        taken, out = self._machine.adopt_parked(row, self._clock.now())
        self._do(out)
        return taken

    async def look_again_at_parked(self) -> int:
        """Take back into custody what nobody owned, and whose open message is known now; returns how many.

        Raises StoreError.
        """
        async with self._looking_up:
            pass  # what was looked up before that message came is parked by now, and seen below
        count, after = 0, b""
        while rows := await self._store.scan(Table.PARKED, after, _SCAN):
            parked = {name: read_parked(value) for name, value in rows}
            sought = {name: row.envelope for name, row in parked.items() if row and row.reason in _NOT_OWNED}
            owned = await self._owned(sought)
            for begin in range(0, len(owned), _AT_ONCE):
                count += await self.replay(owned[begin : begin + _AT_ONCE], "")
            after = rows[-1][0]
        return count

    async def _owned(self, sought: Mapping[bytes, Envelope]) -> list[bytes]:
        """Those whose open message is here. Raises StoreError."""
        found = []
        for operator, relay in self._relays.items():
            names = [name for name, envelope in sought.items() if envelope.operator == operator and envelope.is_sought]
            wanted = [Wanted(sought[name].message_id, sought[name].destination) for name in names]
            verdicts = await relay.find_owners(wanted)
            found += [name for name, verdict in zip(names, verdicts, strict=True) if isinstance(verdict, Match)]
        return found

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
            self._log.error("custody.unreadable", name=name.hex(), bytes=len(value), detail=str(error))
        else:
            self._machine.restore(row, self._clock.now())

    async def run(self) -> None:
        """Tick, and look up what the machine asks for, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            nursery.start_soon(self._look_up)
            if self._shared is not None:
                nursery.start_soon(self._collect_now_and_then)

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

    async def _look_up(self) -> None:
        while True:
            await self._lookups_wanted.wait()
            self._lookups_wanted = trio.Event()
            if not await self.look_up():
                await trio.sleep(_LOOK_AGAIN_S)
                self._lookups_wanted.set()

    @property
    def wants_lookup(self) -> bool:
        """The machine has asked for something that `look_up` has not found yet."""
        return bool(self._lookups)

    async def look_up(self) -> bool:
        """Look up what the machine has asked for. False: the store could not be read, and the rest still waits."""
        async with self._looking_up:
            wanted, self._lookups = self._lookups, []
            try:
                await self._look_up_all(wanted)
            except StoreError as error:
                # The store itself decides when it is lost (`Store.run`); until then it is asked again.
                self._log.warning("custody.lookup_failed", waiting=len(wanted), detail=str(error))
                self._lookups = wanted + self._lookups
                return False
        return True

    async def _collect_now_and_then(self) -> None:
        self.look_into_inbox()  # what came while this node did not serve: nobody says so again
        while True:
            with trio.move_on_after(_COLLECT_EVERY_S):
                await self._collect_wanted.wait()
            if not await self.collect():
                await trio.sleep(_LOOK_AGAIN_S)

    @property
    def wants_collecting(self) -> bool:
        """Something is said to be in this node's inbox."""
        return self._collect_wanted.is_set()

    def look_into_inbox(self) -> None:
        """Something may have come there. Cheap."""
        self._collect_wanted.set()

    def take_over(self) -> None:
        """Custody of a node that is gone has come into the inbox, and its parked items among those of this node."""
        self._recount = True
        self.look_into_inbox()

    async def collect(self) -> bool:
        """Take over what is in this node's inbox, as much as one commit carries; the rest once that is durable.

        What cannot be read is set aside. False: the store could not be read. `run` does this by itself.
        """
        if self._shared is None or self._set_aside is None:
            return True
        self._collect_wanted = trio.Event()
        try:
            rows = await self._shared.inbox(_COLLECTED)
            if self._recount:
                self._recount = False
                self._machine.recount(await count_rows(self._store, Table.PARKED))
            page = await self._set_aside.next_page()
        except StoreError as error:
            self._log.warning("custody.collecting_failed", detail=str(error))
            self.take_over()
            return False
        # From here to the end without an await: a row leaves its place in the commit in which it comes to another.
        if arrived := self._set_aside.taken_back(page) + self._set_aside.readable(rows):
            self._do(self._machine.arrived(arrived, self._clock.now()))
        if page or rows:
            self._store.after_durable(self.look_into_inbox)
        return True

    async def _look_up_all(self, wanted: list[Lookup]) -> None:
        """What is done is taken out of `wanted`. Raises StoreError."""
        by_operator: dict[str, list[Ask | Closed]] = {}
        for lookup in wanted[:]:
            if isinstance(lookup, Recall):
                await self._recall(lookup)
                wanted.remove(lookup)
            else:
                by_operator.setdefault(lookup.envelope.operator, []).append(lookup)
        for operator, lookups in by_operator.items():
            await self._find_owners(operator, lookups)
            wanted[:] = [
                lookup for lookup in wanted if isinstance(lookup, Recall) or lookup.envelope.operator != operator
            ]

    async def _recall(self, recall: Recall) -> None:
        value = await self._store.get(Table.PARKED, encode_key(recall.key))
        row = None if value is None else read_parked(value)
        self._do(self._machine.recalled(recall.key, row, self._clock.now()))

    async def _find_owners(self, operator: str, lookups: list[Ask | Closed]) -> None:
        relay = self._relays.get(operator)
        verdicts: Sequence[Verdict[OpenMessage] | None] = [None] * len(lookups)
        if relay is not None:
            wanted = [Wanted(lookup.envelope.message_id, lookup.envelope.destination) for lookup in lookups]
            verdicts = await relay.find_owners(wanted)
        finished = await self._finished_elsewhere(lookups, verdicts)
        out: list[commands.Command] = []
        for lookup, verdict in zip(lookups, verdicts, strict=True):
            if isinstance(lookup, Ask):
                finding = _finding(verdict, lookup, taking=self._store.accepting)
                if finding is not None and lookup.envelope.key in finished:
                    finding = structs.replace(finding, finished=True)
                out += self._machine.asked(lookup.envelope.key, finding, self._clock.now())
            elif relay is not None and isinstance(verdict, Match | Inexact):
                relay.close(verdict.record)
        self._do(out)

    async def _finished_elsewhere(
        self, lookups: list[Ask | Closed], verdicts: Sequence[Verdict[OpenMessage] | None]
    ) -> set[EnvelopeKey]:
        """Whose message's final report another node has delivered, which memory does not know of. Raises StoreError."""
        if self._shared is None:
            return set()
        asked = {
            lookup.envelope.key: verdict.record.key
            for lookup, verdict in zip(lookups, verdicts, strict=True)
            if isinstance(lookup, Ask) and lookup.only_finished and isinstance(verdict, Match | Inexact)
        }
        finished = await self._shared.finished(list(asked.values())) if asked else set()
        return {key for key, message in asked.items() if message in finished}

    def _find_bound_gateway(self, ask: Ask) -> Finding | None:
        relay = self._relays.get(ask.envelope.operator)
        if relay is None:
            return None
        bound, envelope = relay.bound_gateways(), ask.envelope
        if envelope.gateway:
            gateway: str | None = envelope.gateway
        elif ask.inexact:
            gateway = next(iter(bound), None)
        else:
            gateway = relay.conversing(envelope.pdu)
        if gateway is None or gateway not in bound:
            return None
        return Finding(gateway, exact=True, taking=self._store.accepting)

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
                finding = self._find_bound_gateway(command)
                self._do(self._machine.asked(command.envelope.key, finding, self._clock.now()))
            case Ask() | Recall() | Closed():
                self._lookups.append(command)
                self._lookups_wanted.set()
            case commands.Collect():
                self._collect_wanted.set()
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


def _finding(verdict: Verdict[OpenMessage] | None, ask: Ask, *, taking: bool) -> Finding | None:
    """By a rule that is not in force a message counts only if its subscriber is the report's, as far as both are known.

    Two ids are soon related by chance, and a report at the wrong gateway is worse than one that is parked.
    """
    match verdict:
        case Match(record=record):
            return Finding(record.owner, exact=True, finished=record.finished, taking=taking)
        case Inexact(record=record, agrees=agrees) if ask.inexact and (
            agrees or not ask.envelope.destination or not digits(record.destination)
        ):
            return Finding(record.owner, exact=False, finished=record.finished, taking=taking)
        case _:
            return None


async def count_rows(store: Store, table: Table) -> int:
    """Raises StoreError."""
    count, after = 0, b""
    while rows := await store.scan(table, after, _SCAN):
        count += len(rows)
        after = rows[-1][0]
    return count
