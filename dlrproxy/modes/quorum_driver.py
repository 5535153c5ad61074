"""Runs the machines of `quorum.py` and `lease.py`: looks at the own server, beats, and does what they want done.

Nothing is decided here. What it promises to the machines: an observation holds answers to questions that were sent
after the last one; a beat or a claim counts from when it was sent; a command that fails ends the list it came in, and
nothing is observed while one is carried out; and after `serve_until` nothing is served, whatever else hangs.
"""

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import trio

from dlrproxy.logs import logger
from dlrproxy.modes.agreement import Agreement, Difference
from dlrproxy.modes.apart import Apart
from dlrproxy.modes.cluster import (
    Adopt,
    Claim,
    Command,
    MasterRow,
    Member,
    Move,
    Observation,
    Publish,
    QuorumSettings,
    Release,
    Role,
    Serve,
    Take,
    TakeLease,
)
from dlrproxy.modes.inbox import Inbox
from dlrproxy.modes.lease import Master
from dlrproxy.modes.node_settings import NodeSettings
from dlrproxy.modes.pair_driver import Service as PairService
from dlrproxy.modes.quorum import Quorum
from dlrproxy.store.sql.errors import SqlError

RENEWALS: Final = 3  # in the time that a lease goes
# Of `fence_after_s`: so long a beat is waited for. Its connection may be one that swallows everything: another one is
# sent while there is time, but not while commits may wait, as servers come and go, for it ends the first one.
PATIENCE: Final = 2 / 3


class Service(PairService, Protocol):
    """What only a node that serves does."""

    async def adopt(self) -> None:
        """Rows of a node that is gone have come to the own part of custody: it returns at once."""

    def linked(self) -> AbstractSet[str]:
        """The other nodes to which there are links, while it serves."""

    def set_apart(self, nodes: AbstractSet[str]) -> None:
        """These nodes serve over another cluster: see `apart.py`. Said again after every look."""


class Owned(Protocol):
    """The node's own server. Everything raises SqlError."""

    async def read(self) -> Observation: ...

    async def claim(self, seen: Member | None) -> int | None: ...

    async def publish(self, settings: NodeSettings) -> None: ...

    async def beat(self, epoch: int) -> bool: ...

    async def take_lease(self, seen: MasterRow) -> int | None: ...

    async def renew(self, epoch: int) -> bool: ...

    async def take(self, node: str, seen: Member, heir: str) -> bool: ...

    async def move(self, node: str, epoch: int) -> int: ...


class QuorumDriver:
    """One node of a quorum, from its start to its end. Used inside trio."""

    def __init__(
        self,
        settings: QuorumSettings,
        own: Owned,
        service: Service,
        *,
        heartbeat_s: float,
        reach_s: float,
        agreement: Agreement | None = None,
    ) -> None:
        """A server that has not answered within `reach_s` counts as out of reach. Beats and looks are `heartbeat_s`
        apart, which is less than `fence_after_s`. `agreement` is the machine's."""
        self.machine = Quorum(settings, agreement)
        self.master = Master(settings)
        self.seen = Observation(server=None)  # the last one
        self.inbox = Inbox()
        self.apart: frozenset[str] = frozenset()  # nodes that serve over another cluster
        self._watching = Apart(settings)
        self._settings = settings
        self._own = own
        self._service = service
        self._heartbeat_s = heartbeat_s
        self._reach_s = reach_s
        self._serving = 0  # the epoch of the term that is served
        self._changing = trio.Lock()
        self._look = trio.Event()
        self._looked = trio.Event()
        self._served = trio.Event()
        self._told: tuple[Role, str] | None = None  # what the log has been told
        self._told_trouble = ""  # likewise
        self._differing: set[Difference] = set()  # likewise
        self._not_written = ""  # why the last write of its own row was not done
        self._log = logger("quorum")

    # What it tells

    @property
    def is_master(self) -> bool:
        """What is to be done once is this node's to do, at this moment."""
        return self.machine.role is Role.SERVING and self.master.holds(trio.current_time())

    @property
    def serving(self) -> int:
        """The epoch of the term that the service was told to serve, and not to release; 0: none."""
        return self._serving

    @property
    def trouble(self) -> str:
        """What its database server has not done for it, the last time; empty: it does everything. For people."""
        return self.seen.trouble or self._not_written

    async def looked(self) -> None:
        """Wait until it has looked at its server again, and done what follows from that."""
        await self._looked.wait()

    # What it is told

    def refused(self, epoch: int) -> None:
        """A write of the term under `epoch` was refused: it is over."""
        self.machine.refused(epoch)
        self._look.set()

    def look(self) -> None:
        """Something may have changed: look at the server at once."""
        self._look.set()

    # What it does

    async def run(self) -> None:
        """Until it is cancelled; then nothing is served any more."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._observe)
                nursery.start_soon(self._repeat, self._beat, self._heartbeat_s)
                nursery.start_soon(self._repeat, self._renew, self._settings.lease_s / RENEWALS)
                nursery.start_soon(self._end_in_time)
        finally:
            with trio.CancelScope(shield=True):  # bounded by what the service promises
                await self._release("it is stopping")

    async def _observe(self) -> None:
        while True:
            self._look = trio.Event()
            self.seen = await self._see()
            self.inbox.observe(self.seen.inbox, trio.current_time())
            await self._decide(self.seen)
            self._looked.set()
            self._looked = trio.Event()
            with trio.move_on_after(self._heartbeat_s):
                await self._look.wait()

    async def _see(self) -> Observation:
        try:
            with trio.move_on_after(self._reach_s):
                return await self._own.read()
        except SqlError as error:
            return Observation(server=None, trouble=str(error))
        return Observation(server=None, trouble=f"it has not answered within {self._reach_s:g} s")

    async def _decide(self, seen: Observation) -> None:
        commands = self.machine.observe(seen, trio.current_time())
        self._tell()
        self._tell_differences()
        await self._carry_out(commands)
        serving = self.machine.role is Role.SERVING
        await self._carry_out(self.master.observe(seen.rows, trio.current_time(), serving=serving))
        self._look_for_two_clusters(seen)

    def _look_for_two_clusters(self, seen: Observation) -> None:
        members = None if seen.rows is None else seen.rows.members
        before, now = self.apart, trio.current_time()
        self.apart = self._watching.observe(self._service.linked(), members, now)
        self._service.set_apart(self.apart)
        if self.apart - before:
            uuid = "" if seen.server is None else seen.server.uuid
            self._log.error("quorum.two_clusters", nodes=sorted(self.apart), uuid=uuid)
        elif before and not self.apart:
            self._log.info("quorum.one_cluster")

    async def _carry_out(self, commands: Sequence[Command]) -> None:
        for command in commands:
            try:
                await self._do(command)
            except SqlError as error:
                self._log.warning("quorum.command_failed", command=str(command), error=str(error))
                if isinstance(command, Claim):
                    self._not_written = str(error)
                return

    async def _do(self, command: Command) -> None:
        sent_at = trio.current_time()
        match command:
            case Serve(epoch):
                await self._serve(epoch)
            case Release(why):
                await self._release(why)
            case Adopt():
                await self._service.adopt()
            case Claim(seen):
                if (claimed := await self._own.claim(seen)) is not None:
                    self._not_written = ""
                    self._log.info("quorum.claimed", epoch=claimed)
                    self.machine.vouched(claimed, sent_at)
                    self._look.set()
            case Publish(settings):
                await self._own.publish(settings)
            case TakeLease(seen):
                if (taken := await self._own.take_lease(seen)) is not None:
                    self.master.renewed(taken, sent_at)
                    self._log.info("quorum.master", epoch=taken, before=seen.holder)
            case Take(node, seen, heir):
                if await self._own.take(node, seen, heir):
                    self._log.warning("quorum.node_gone", gone=node, epoch=seen.epoch, heir=heir)
                    self._look.set()
            case Move(node, epoch):
                if rows := await self._own.move(node, epoch):
                    self._log.warning("quorum.custody_moved", gone=node, rows=rows)

    # Leases

    async def _repeat(self, what: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            began_at = trio.current_time()
            await what()
            await trio.sleep_until(began_at + every_s)

    async def _beat(self) -> None:
        epoch, sent_at, held = self.machine.epoch, trio.current_time(), None
        if not epoch:
            return
        within_s = PATIENCE * self._settings.fence_after_s
        failure = f"a beat has not returned within {within_s:.1f} s"
        try:
            with trio.move_on_after(within_s):
                held = await self._own.beat(epoch)
                failure = ""
        except SqlError as error:
            failure = str(error)
        self._not_written = failure
        if held is None:
            self._log.warning("quorum.beat_failed", error=failure)
        elif held:
            self.machine.vouched(epoch, sent_at)
        else:
            self.refused(epoch)

    async def _renew(self) -> None:
        epoch, sent_at = self.master.epoch, trio.current_time()
        if not self.master.holds(sent_at):
            return
        try:
            held = await self._own.renew(epoch)
        except SqlError as error:
            self._log.warning("quorum.lease_not_renewed", error=str(error))
            return
        if held:
            self.master.renewed(epoch, sent_at)
        else:
            self.master.lost()

    # Serving

    async def _serve(self, epoch: int) -> None:
        async with self._changing:
            if self.machine.may_act(epoch, trio.current_time()):
                self._serving = epoch
                self._served.set()
                await self._service.serve(epoch)
            else:
                self.machine.ran_out(epoch)

    async def _release(self, why: str) -> None:
        """Return when nothing is served any more, whoever has begun to end it."""
        async with self._changing:
            if self._serving:
                await self._service.release(why)
                self._serving = 0

    async def _end_in_time(self) -> None:
        while True:
            if not self._serving:
                self._served = trio.Event()
                await self._served.wait()
            epoch = self._serving
            # It may also come nearer, but never within a heartbeat: `fence_after_s` is longer.
            await trio.sleep_until(min(self.machine.settle_from, trio.current_time() + self._heartbeat_s))
            if epoch and (epoch != self.machine.epoch or trio.current_time() >= self.machine.settle_from):
                self.machine.ran_out(epoch)
                await self._release(self.machine.ended)
                self._look.set()

    def _tell(self) -> None:
        """Every change of the role, and of what is wrong with its server, once."""
        told = self.machine.role, self.machine.why
        if told != self._told:
            self._told = told
            # A person has to do something about these.
            serious = self.seen.misfit or (self.machine.agreement and self.machine.agreement.objected)
            log = self._log.error if serious else self._log.info
            log("quorum.role", role=told[0].value, why=told[1], epoch=self.machine.epoch)
        if self.seen.trouble != self._told_trouble:
            self._told_trouble = self.seen.trouble
            if self._told_trouble:
                self._log.warning("quorum.database_trouble", detail=self._told_trouble)

    def _tell_differences(self) -> None:
        """Each that lasts, once, and its end."""
        if (agreement := self.machine.agreement) is None:
            return
        lasting = agreement.lasting(self._settings.takeover_after_s, trio.current_time())
        for new in lasting - self._differing:
            self._log.warning("quorum.settings_differ", node=new.node, key=new.key, here=new.here, there=new.there)
        there = {(difference.node, difference.key) for difference in agreement.differences}
        for old in self._differing - lasting:
            if (old.node, old.key) not in there:
                self._log.info("quorum.settings_agree", node=old.node, key=old.key)
        self._differing = lasting
