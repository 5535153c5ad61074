"""The machine that a node of the simulated ring runs on: its disk, its gateway, its clock, and a process at a time."""

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from attrs import frozen

from dlrproxy.store.port import Table
from ring.rows import decode_custody, decode_parked
from ring.settings import CustodySettings
from simulation.cluster import Part
from simulation.disk import Disk
from simulation.gateway import Gateway
from simulation.history import History
from simulation.network import Network
from simulation.node import Process
from simulation.site import Site
from simulation.timeline import Timeline

_REBIND_S: Final = 1.0
EPOCH: Final = 1_000_000_000.0


@frozen
class Crash:
    """What a disk does not know of what was answered, when its process ends."""

    held: list[str]  # traces whose messages it still has
    unmarked: frozenset[bytes]  # ids of open messages without a mark that their final report was delivered


class Host:
    """The machine that a node runs on."""

    def __init__(
        self,
        site: Site,
        nodes: Iterable[str],
        disk: Disk,
        gateway: Gateway,
        settings: CustodySettings,
        timeline: Timeline,
        network: Network,
        choose: random.Random,
        history: History,
        conversing: Callable[[str, str], bool],
        *,
        tells_summaries: bool,
        part: Part | None = None,
    ) -> None:
        """`nodes` are those of its ring, by the names they have there. `part`, in a cluster: what `disk` has on it."""
        self.part = part
        self.tells_summaries = tells_summaries
        self.site = site
        self.name = site.host
        self.nodes = list(nodes)
        self.disk = disk
        self.gateway = gateway
        self.gateway_up = True
        self.settings = settings
        self.timeline = timeline
        self.network = network
        self.choose = choose
        self.history = history
        self.conversing = partial(conversing, self.name)
        self.process: Process | None = None
        self.ended: Callable[[], None] = lambda: None  # the operator sees the bind break
        self.retired = False  # configured no more
        self.stopped_until = 0.0  # SIGSTOP: nothing that this process does happens before
        self.wall_ahead_s = choose.uniform(-2.0, 2.0)
        self._clock_from = choose.uniform(0.0, 1e6)
        self._clock_rate = 1.0 + choose.uniform(-1e-4, 1e-4)
        self._suspended_s = 0.0

    def monotonic(self) -> float:
        """It stands still while the machine is suspended, and goes a little wrong."""
        return self._clock_from + self.timeline.now * self._clock_rate - self._suspended_s

    def wall(self) -> float:
        return EPOCH + self.timeline.now + self.wall_ahead_s

    def start(self) -> None:
        if self.process is None and not self.retired:
            self.process = Process(self)
            self.process.start()

    def crash(self, *, power: bool) -> None:
        """kill -9, or the power of the machine goes, so that nobody closes its connections."""
        process, self.process = self.process, None
        if process is None:
            return
        process.alive = False
        self.disk.crash(process.store.under_way)
        held = sorted({trace for trace, _ in self.held()})
        opens = self.disk.rows.opens if self.part is None else self.part.database.opens.opens
        unmarked = {message_id for (_, message_id), one in opens.items() if not one.final_at}
        self.history.note("crashed", "", self.name, Crash(held, frozenset(unmarked)))
        self.gateway.end_session(tell=False)
        process.end(silently=power)
        self.stopped_until = 0.0
        self.ended()

    def wipe(self, store_id: bytes) -> None:
        """Its data directory is lost."""
        self.crash(power=False)
        self.history.note("wiped", "", self.name)
        self.disk.replace(store_id)

    def pause(self, seconds: float, *, suspended: bool) -> None:
        """The process stands still; with `suspended` its monotonic clock, too."""
        self.stopped_until = max(self.stopped_until, self.timeline.now + seconds)
        if suspended:
            self._suspended_s += seconds
            self.history.note("jumped", "", self.name, seconds)  # its clock is set by the wall at the next start

    def held(self) -> list[tuple[str, Table]]:
        """The traces whose message is on its disk."""
        found = []
        for table in (Table.CUSTODY, Table.PARKED):
            for value in self.disk.rows.tables[table].values():
                envelope = (decode_custody(value) if table is Table.CUSTODY else decode_parked(value)).envelope
                if envelope.pdu:
                    found.append((envelope.trace, table))
        return found

    @property
    def custody_rows(self) -> int:
        """On its disk; in a cluster, in its part and its inbox."""
        inbox = 0 if self.part is None else len(self.part.inbox)
        return inbox + len(self.disk.rows.tables[Table.CUSTODY])

    def set_gateway(self, *, up: bool) -> None:
        self.gateway_up = up
        process = self.process
        if process is None or not process.ready:
            return
        if not up:
            process.do(process.unbind_gateway)
        else:
            process.later(self.choose.uniform(0.0, _REBIND_S), process.bind_gateway)

    def lose_session(self) -> None:
        """The gateway's connection breaks, and it binds again."""
        if self.gateway.session is not None:
            up = self.gateway_up
            self.set_gateway(up=False)
            self.set_gateway(up=up)

    def reload(self, nodes: Iterable[str]) -> None:
        """Another table of nodes, now or with the next start."""
        self.nodes = list(nodes)
        if self.process is not None and self.process.ready:
            self.process.do(self.process.retopologize)
