"""Runs the machine of `replication.py`: looks at both database servers, beats, and does what the machine wants done.

Nothing is decided here. What it promises to the machine: an observation holds answers to questions that were sent after
the last observation; a beat counts from when it was sent; a command that fails ends the list it came in; and after
`serve_until` nothing is served, whatever else hangs.
"""

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import Protocol

import trio

from dlrproxy.logs import logger
from dlrproxy.modes.pair import Command, Observation, PairSettings, Release, Role, Serve
from dlrproxy.modes.replication import Pair
from dlrproxy.modes.witness_link import Lender
from dlrproxy.store.sql.errors import SqlError
from dlrproxy.store.sql.reading import Completeness, Reading, with_replica


class Service(Protocol):
    """What only the active node does."""

    async def serve(self, epoch: int) -> None:
        """Begin to open the store, to bind and to listen; it returns at once."""

    async def release(self, why: str) -> None:
        """From the first moment nothing is sent or answered any more; it returns when binds and listeners are closed.

        That takes a bounded time. It does no harm to a service that does not run.
        """


class Watched(Protocol):
    """A database server that is only looked at."""

    async def read(self) -> Reading: ...


class Owned(Watched, Protocol):
    """The node's own."""

    async def beat(self) -> bool: ...

    async def carry_out(self, command: Command) -> None: ...


class Two(StrEnum):
    """Whether the other node serves at the same time, or has a primary of its own."""

    NO = "no"
    MAY_BE = "may-be"  # `safety = "available"`: it cannot be seen
    YES = "yes"  # both servers take writes, each under another node's name


class PairDriver:
    """One node of a pair, from its start to its end. Used inside trio."""

    def __init__(
        self,
        settings: PairSettings,
        own: Owned,
        peer: Watched,
        service: Service,
        *,
        heartbeat_s: float,
        reach_s: float,
        witness: Lender | None = None,
    ) -> None:
        """A server that has not answered within `reach_s` counts as out of reach. Beats and looks are `heartbeat_s`
        apart, which is less than `fence_after_s`. `witness` goes with `settings.witness`."""
        self.machine = Pair(settings, trio.current_time())
        self._me = settings.me
        self._strict = settings.strict
        self._own = own
        self._peer = peer
        self._service = service
        self._heartbeat_s = heartbeat_s
        self._reach_s = reach_s
        self._witness = witness
        self._lent: bool | None = None  # what the log has been told of the witness
        self.own: Reading | None = None  # what the servers have said last; None: they cannot be reached
        self.peer: Reading | None = None
        self.out_of_reach = {"own": "", "peer": ""}  # why; empty for one that has answered last, or was not asked yet
        self._told_why: dict[str, set[str]] = {"own": set(), "peer": set()}  # what the log has been told of that
        self._completeness = Completeness()
        self._looked = trio.Event()
        self._serving = False
        self._changing = trio.Lock()
        self._look = trio.Event()
        self._last: Sequence[Command] = ()  # what was to be done last
        self._served = trio.Event()
        self._told: tuple[Role, str] | None = None  # what the log has been told
        self.two = Two.NO
        self._log = logger("pair")

    # What it is told

    def promote(self, *, force: bool = False) -> None:
        self.machine.promote(force=force)
        self._look.set()

    def demote(self) -> None:
        self.machine.demote()
        self._look.set()

    # What it tells

    @property
    def serving(self) -> bool:
        """The service has been told to serve, and not to release."""
        return self._serving

    async def looked(self) -> None:
        """Wait until it has looked at both servers again, and done what follows from that."""
        await self._looked.wait()

    # What it does

    async def run(self) -> None:
        """Until it is cancelled; then nothing is served any more."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._observe)
                nursery.start_soon(self._beat)
                nursery.start_soon(self._end_in_time)
                if self._witness is not None:
                    nursery.start_soon(self._borrow, self._witness)
        finally:
            with trio.CancelScope(shield=True):  # bounded by what the service promises
                await self._release("it is stopping")

    async def _observe(self) -> None:
        while True:
            self._look = trio.Event()
            await self._decide(await self._see())
            self._looked.set()
            self._looked = trio.Event()
            with trio.move_on_after(self._heartbeat_s):
                await self._look.wait()

    async def _see(self) -> Observation:
        """Both at once, so that neither keeps the other waiting for longer than `reach_s`."""
        seen: dict[str, Reading] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(self._ask, self._own, "own", seen))
            nursery.start_soon(partial(self._ask, self._peer, "peer", seen))
        own, peer, before = seen.get("own"), seen.get("peer"), self.own
        if own is not None:
            own = self._completeness.judge(own, peer)
        self.own, self.peer = own, peer
        return Observation(
            own=with_replica(own, before, peer) if own is not None else None,
            peer=peer.server if peer is not None else None,
        )

    async def _ask(self, server: Watched, which: str, seen: dict[str, Reading]) -> None:
        why = f"it has not answered within {self._reach_s:g} s"
        try:
            with trio.move_on_after(self._reach_s):
                seen[which] = await server.read()
                why = ""
        except SqlError as error:
            why = str(error)
        self._note_reach(which, why)

    def _note_reach(self, which: str, why: str) -> None:
        """Each reason is logged once, until the server answers again."""
        self.out_of_reach[which] = why
        told = self._told_why[which]
        if why and why not in told:
            told.add(why)
            self._log.warning("pair.unreachable", server=which, why=why)
        elif told and not why:
            told.clear()
            self._log.info("pair.reachable", server=which)

    async def _decide(self, seen: Observation) -> None:
        commands = self.machine.observe(seen, trio.current_time())
        self._tell()
        self._tell_of_two(seen)
        await self._carry_out(commands)
        steps = [command for command in commands if not isinstance(command, Serve | Release)]
        if steps and steps != self._last:
            self._look.set()  # what follows need not wait; but what is to be done again must
        self._last = steps
        if self.machine.role is Role.ACTIVE:
            await self._serve(self.machine.epoch)  # again, if its time ran out and a beat has come back since

    async def _carry_out(self, commands: Sequence[Command]) -> None:
        for command in commands:
            try:
                match command:
                    case Serve(epoch):
                        await self._serve(epoch)
                    case Release(why):
                        await self._release(why)
                    case _:
                        self._log.info("pair.command", command=str(command))
                        await self._own.carry_out(command)
            except SqlError as error:
                self._log.warning("pair.command_failed", command=str(command), error=str(error))
                return

    async def _beat(self) -> None:
        while True:
            if self._holds():
                sent_at = trio.current_time()
                try:
                    if await self._own.beat():
                        self.machine.acknowledged(sent_at)
                except SqlError as error:
                    self._log.warning("pair.beat_failed", error=str(error))
            await trio.sleep(self._heartbeat_s)

    def _holds(self) -> bool:
        if self.own is None:
            return False
        server = self.own.server
        return server.writable and server.replica is None and server.holder == self._me

    # The witness

    async def _borrow(self, witness: Lender) -> None:
        """Keep it while the machine wants it; give it back once nothing is served any more."""
        borrowed = False
        while True:
            if self.machine.wants_witness:
                borrowed = await self._renew(witness) or borrowed
            elif borrowed and not self._serving:
                self.machine.gives_back()
                borrowed = not await witness.give_back(self._heartbeat_s)
            await trio.sleep(self._heartbeat_s)

    async def _renew(self, witness: Lender) -> bool:
        sent_at = await witness.borrow(self._heartbeat_s)
        if sent_at is not None:
            self.machine.lent(sent_at)
        if self._lent != (sent_at is not None):
            self._lent = sent_at is not None
            self._log.info("pair.witness", lent=self._lent, why=witness.refused)
        return self._lent

    @property
    def lent(self) -> bool | None:
        """Whether the witness has granted the last request; None: there is none, or it was not asked yet."""
        return self._lent

    # Serving

    async def _serve(self, epoch: int) -> None:
        async with self._changing:
            if not self._serving and trio.current_time() < self.machine.serve_until:
                self._serving = True
                self._served.set()
                await self._service.serve(epoch)

    async def _release(self, why: str) -> None:
        """Return when nothing is served any more, whoever has begun to end it."""
        async with self._changing:
            if self._serving:
                await self._service.release(why)
                self._serving = False

    async def _end_in_time(self) -> None:
        while True:
            if not self._serving:
                self._served = trio.Event()
                await self._served.wait()
            # It may also come nearer, but never within a heartbeat: `fence_after_s` is longer.
            await trio.sleep_until(min(self.machine.serve_until, trio.current_time() + self._heartbeat_s))
            if trio.current_time() >= self.machine.serve_until:  # no later one has been given since
                await self._release("its time has run out")
                self._look.set()

    def _tell(self) -> None:
        """Every change of the role, once."""
        told = self.machine.role, self.machine.why
        if told != self._told:
            self._told = told
            self._log.info(
                "pair.role", role=told[0].value, why=told[1], epoch=self.machine.epoch, refused=self.machine.refused
            )

    def _tell_of_two(self, seen: Observation) -> None:
        """Loudly, once for each change: what two nodes take at a time has to be merged."""
        before, self.two = self.two, self._how_many(seen)
        if self.two is Two.MAY_BE and before is Two.NO:
            self._log.warning("pair.may_be_two", why="the other node cannot be seen, and may be active as well")
        elif self.two is Two.YES and before is not Two.YES:
            self._log.error("pair.two_primaries", why="`dlrproxy rejoin` at the node that lets go merges their rows")
        elif self.two is Two.NO and before is not Two.NO:
            self._log.info("pair.one_primary")

    def _how_many(self, seen: Observation) -> Two:
        own, peer = seen.own, seen.peer
        if own is not None and peer is not None:
            both = all(server.writable and server.replica is None for server in (own, peer))
            return Two.YES if both and own.holder != peer.holder else Two.NO
        active = self.machine.role is Role.ACTIVE
        return Two.MAY_BE if active and peer is None and not self._strict else Two.NO
