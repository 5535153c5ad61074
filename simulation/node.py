"""One run of a node of the simulated ring (what lasts is its `Host`).

It is put together as `dlrproxy/term.py` does it, from the code that ships: the custody machine and its keeper,
membership, the node's clock, the run counter and what is restored from disk. Around them stand the fake store, links
and relay.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from dlrproxy.clock import NodeClock
from dlrproxy.custody import Keeper
from dlrproxy.housekeeping import next_run, read_clock, write_clock
from dlrproxy.logs import RouteLog
from dlrproxy.store.counting import count_rows
from dlrproxy.store.port import StoreError, Table
from protocols.peer.frames import Frame, Joined, Relayed, SummaryPart, SummaryWanted
from ring.custody import Custody
from ring.far import is_far
from ring.summaries import Summaries
from ring.topology import Topology
from simulation.cluster import ClusterStore
from simulation.disk import DiskStore
from simulation.front import Front
from simulation.history import History
from simulation.joining import Joining
from simulation.mesh import Mesh
from simulation.site import host_name
from simulation.tasks import Task
from simulation.traffic import OPERATOR, Arrival

if TYPE_CHECKING:
    from simulation.host import Host

_TICK_S: Final = 0.1  # dlrproxy/custody.py
_LEAST_TICKS_S: Final = 1.0  # what machines do now and then without an alarm (ring/presence.py)
_CLOCK_EVERY_S: Final = 10.0  # dlrproxy/housekeeping.py
_COLLECT_EVERY_S: Final = 5.0  # dlrproxy/keeping/inbox.py
_LOOK_AGAIN_S: Final = 0.5  # dlrproxy/keeping/lookups.py
_REBIND_S: Final = 1.0
_TELL_S: Final = 0.5  # ring/summary_telling.py says 0.1; it is the half of a seed's events then, and shows no more
_START_AGAIN_S: Final = 5.0  # by whatever supervises it


class Routes(RouteLog):
    """Route events go into the history."""

    def __init__(self, node: str, history: History) -> None:
        super().__init__(node)
        self._where = node
        self._history = history

    def event(self, kind: str, step: str, *, trace: str, **fields: Any) -> None:
        self._history.note("said", trace, self._where, (step, fields))


class Process:
    """One run of a node. Everything that it does, it does through `later` and `do`, which end with it."""

    def __init__(self, host: "Host") -> None:
        self.host = host
        self.alive = True
        self.ready = False  # it has restored what was on disk, and dials, listens and binds
        self.summaries: Summaries | None = None
        self.joining: Joining | None = None
        self._versions: Mapping[str, int] = {}  # of the frames, with each node of its ring that can be reached
        self.leaving = False  # it holds no bind
        self._tick_at = float("inf")
        self._looking = False
        self._collecting = False
        self.shared: ClusterStore | None = None
        self._person_here = False
        self._tasks: list[Task[Any]] = []
        self._held_back: deque[Callable[[], None]] = deque()  # while the process is stopped
        self.clock = NodeClock(wall=host.wall, monotonic=host.monotonic)
        self.store = self._store()

    def _store(self) -> DiskStore:
        host, timeline = self.host, self.host.timeline
        if host.part is None:
            return DiskStore(host.disk, self.clock.now, lambda: timeline.now, self.later, self._store_lost)
        self.shared = ClusterStore(
            host.name, host.part, host.disk, self.clock.now, lambda: timeline.now, self.later, self._store_lost
        )
        return self.shared

    # Life

    def start(self) -> None:
        self.run(self._try_to_begin(), self._began)

    async def _try_to_begin(self) -> bool:
        try:
            await self._begin()
        except StoreError:
            return False
        return True

    async def _begin(self) -> None:
        """The order of `dlrproxy.term.Term.run`."""
        host = self.host
        if host.tells_summaries:
            self.summaries = Summaries(self._topology, memory_mb=1)
            for message in self.store.open_messages():
                self.summaries.opened(message.operator, message.message_id)
        self.clock.not_before(await read_clock(self.store))
        machine = Custody(
            topology=self._topology,
            store_id=self.store.store_id,
            run=await next_run(self.store),
            settings=host.settings,
            parked=await count_rows(self.store, Table.PARKED),
            owners=self.summaries,
        )
        self.keeper = Keeper(machine, self.store, self.clock, Routes(host.name, host.history), self.shared)
        self.front = Front(
            [host.gateway], self.store, self.keeper, self.clock.now, self.later, host.conversing, self.summaries
        )
        site = host.site
        self.mesh = Mesh(
            site.node, site.cluster, host.nodes, site.near_address, host.network, host.choose, host.monotonic,
            self.later, self.do, self._on_frames, self._reachable,
        )  # fmt: skip
        if site.gates:
            self.joining = Joining(
                site, host.nodes, host.network, host.choose, host.monotonic, self.later, self.do,
                self.mesh.send, self._crossed, self._join_changed,
            )  # fmt: skip
        self.keeper.attach({OPERATOR: self.front}, self._send)
        self.store.starting = False
        await self.keeper.restore()

    def _began(self, begun: bool) -> None:
        if not begun:
            self.host.crash(power=False)
            self.host.timeline.after(_START_AGAIN_S, self.host.start)
            return
        self.host.history.note("started", "", self.host.name)
        self.ready = True
        self.mesh.start()
        if self.joining is not None:
            self.joining.start()
        self._tell()
        self._write_clock()
        if self.shared is not None:
            self._collect_now_and_then()
        if self.host.gateway_up:
            self.later(self.host.choose.uniform(0.0, _REBIND_S), self.bind_gateway)

    def end(self, *, silently: bool) -> None:
        """It is gone, between one instruction and the next."""
        self.alive = False
        self.abandon_tasks()
        if self.ready:
            self.mesh.vanish(silently=silently)
            if self.joining is not None:
                self.joining.vanish(silently=silently)

    def abandon_tasks(self) -> None:
        for task in self._tasks:
            task.abandon()

    def _store_lost(self) -> None:
        """`Store.run` has raised: the node stops."""
        self.host.crash(power=False)
        self.host.timeline.after(_START_AGAIN_S, self.host.start)

    # Time

    def later(self, delay: float, act: Callable[[], None]) -> None:
        self.host.timeline.after(delay, partial(self.do, act))

    def do(self, act: Callable[[], None]) -> None:
        """At once, or in its turn when the process is let go on; not at all when it has ended."""
        if not self.alive:
            return
        if self._held_back or self._stopped:
            self._held_back.append(act)
            if len(self._held_back) == 1:
                self.host.timeline.at(self.host.stopped_until, self._go_on)
            return
        self._do(act)

    @property
    def _stopped(self) -> bool:
        return self.host.timeline.now < self.host.stopped_until

    def _go_on(self) -> None:
        while self.alive and self._held_back and not self._stopped:
            self._do(self._held_back.popleft())
        if self.alive and self._held_back:
            self.host.timeline.at(self.host.stopped_until, self._go_on)

    def _do(self, act: Callable[[], None]) -> None:
        act()
        if self.alive and self.ready:
            self._follow_up()

    def _follow_up(self) -> None:
        """The tasks of `Keeper.run`, each as soon as it has something to do."""
        if self.keeper.lookups.waiting and not self._looking:
            self._looking = True
            self.run(self.keeper.lookups.look_up(), self._looked)
        inbox = self.keeper.inbox
        if inbox is not None and inbox.wanted and not self._collecting:
            self._collecting = True
            self.run(inbox.collect(), self._collected)
        now = self.host.timeline.now
        if self._tick_at <= now + _TICK_S:
            return
        due = self.keeper.next_due()
        delay = _LEAST_TICKS_S if due is None else min(max(due - self.clock.now(), 0.0) + _TICK_S / 2, _LEAST_TICKS_S)
        if now + delay < self._tick_at:
            self._tick_at = now + delay
            self.host.timeline.at(self._tick_at, partial(self.do, partial(self._tick, self._tick_at)))

    def _tick(self, planned_at: float) -> None:
        if planned_at == self._tick_at:
            self._tick_at = float("inf")
            self.keeper.tick()

    def _looked(self, found: bool) -> None:
        if found:
            self._looking = False
        else:
            self.later(_LOOK_AGAIN_S, self._look_again)

    def _collected(self, _: bool) -> None:
        self._collecting = False

    def _collect_now_and_then(self) -> None:
        self.look_into_inbox()
        self.later(_COLLECT_EVERY_S, self._collect_now_and_then)

    def look_into_inbox(self) -> None:
        """Something may have come there."""
        if self.keeper.inbox is not None:
            self.keeper.inbox.look()

    def _look_again(self) -> None:
        self._looking = False

    def run(self, coroutine: Any, done: Callable[[Any], None]) -> None:
        """Carry out an asynchronous part of the node."""
        task: Task[Any] = Task(coroutine, self.later, partial(self._done, done))
        self._tasks.append(task)
        task.step()

    def _done(self, done: Callable[[Any], None], value: Any) -> None:
        done(value)
        if len(self._tasks) > 50:
            self._tasks = [task for task in self._tasks if not task.over]

    def _write_clock(self) -> None:
        write_clock(self.store, self.clock)
        self.later(_CLOCK_EVERY_S, self._write_clock)

    def _tell(self) -> None:
        """What is owned here, to the others."""
        if self.summaries is not None:
            for send in self.summaries.tick(self.clock.now()):
                self.mesh.send(send.to, send.frame)
            self.later(_TELL_S, self._tell)

    # What comes in

    def _on_frames(self, peer: str, frames: list[Frame]) -> None:
        """As `dlrproxy/modes/ring.py` hands them out."""
        for frame in frames:
            if isinstance(frame, SummaryPart | SummaryWanted):
                if self.summaries is not None:
                    self.summaries.frame(peer, frame, self.clock.now())
            elif isinstance(frame, Relayed | Joined):
                if self.joining is not None:
                    self.joining.from_near(peer, frame)
            else:
                self.keeper.frames(peer, [frame])

    def _crossed(self, sender: str, frame: Frame) -> None:
        self.keeper.frames(sender, [frame])

    def _send(self, to: str, frame: Frame) -> bool:
        if is_far(to):
            return self.joining is not None and self.joining.send(to, frame)
        return self.mesh.send(to, frame)

    def _reachable(self, versions: Mapping[str, int]) -> None:
        self._versions = versions
        host = self.host
        host.history.note("reached", "", host.name, [host_name(host.site.cluster, node) for node in versions])
        if self.joining is not None:
            self.joining.near(frozenset(versions))
        self._tell_reachable()
        if self.summaries is not None:
            self.summaries.reachable(versions, self.clock.now())

    def _join_changed(self) -> None:
        self._tell_reachable()
        if self.joining is not None:
            self.keeper.joined(self.joining.far_nodes())

    def _tell_reachable(self) -> None:
        across = {} if self.joining is None else self.joining.reachable()
        self.keeper.reachable({**self._versions, **across})

    @property
    def _topology(self) -> Topology:
        return self.host.site.topology(self.host.nodes)

    def bind_gateway(self) -> None:
        if self.host.gateway_up and self.host.gateway.session is None:
            self.front.bind(self.host.gateway)

    def unbind_gateway(self) -> None:
        if self.host.gateway.session is not None:
            self.front.unbind(self.host.gateway)

    def arrive(self, arrival: Arrival, answer: Callable[[bool], None]) -> None:
        self.front.arrive(arrival, answer)

    def retopologize(self) -> None:
        self.mesh.set_nodes(self.host.nodes)
        if self.summaries is not None:
            self.summaries.retopologize(self._topology)
        self.keeper.retopologize(self._topology)

    # People

    def replay(self, key: bytes, trace: str, gateway: str) -> None:
        def replayed(taken: int) -> None:
            self._person_here = False
            if taken:
                self.host.history.note("replayed", trace, self.host.name, gateway)

        self._ask(partial(self.keeper.parked.replay, [key], gateway), replayed)

    def drop(self, key: bytes, trace: str) -> None:
        def dropped(taken: int) -> None:
            self._person_here = False
            if taken:
                self.host.history.note("dropped", trace, self.host.name)

        self._ask(partial(self.keeper.parked.drop, [key]), dropped)

    def _ask(self, ask: Callable[[], Coroutine[Any, Any, int]], done: Callable[[int], None]) -> None:
        """One person at a time."""
        if not self._person_here:
            self._person_here = True
            self.do(lambda: self.run(self._patiently(ask), done))

    async def _patiently(self, ask: Callable[[], Coroutine[Any, Any, int]]) -> int:
        try:
            return await ask()
        except StoreError:
            return 0  # they are told, and try again
