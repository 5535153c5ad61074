"""Draws what goes wrong in one seed, and when; and mends everything in the end."""

import random
from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from typing import Final

from attrs import evolve

from dlrproxy.store.port import Table
from ring.rows import decode_parked
from ring.settings import CustodySettings
from simulation.gateway import Manners
from simulation.history import History
from simulation.host import Host
from simulation.network import Network, Weather
from simulation.node import Process
from simulation.operator import Operator
from simulation.profiles import Counts, Profile
from simulation.site import Site, gate_address
from simulation.timeline import Timeline

LONGEST_PAUSE_S: Final = 30.0


class Faults:
    def __init__(
        self,
        profile: Profile,
        hosts: Mapping[str, Host],
        network: Network,
        operator: Operator,
        timeline: Timeline,
        choose: random.Random,
        history: History,
    ) -> None:
        self._profile = profile
        self._hosts = hosts
        self._network = network
        self._operator = operator
        self._timeline = timeline
        self._choose = choose
        self._history = history
        self._mended = False

    def plan(self, lasts_s: float) -> None:
        profile = self._profile
        kinds: list[tuple[Counts, Callable[[], None]]] = [
            (profile.crashes, partial(self._crash, power=False)),
            (profile.crashes_at_writes, self._crash_at_write),
            (profile.power_cuts, partial(self._crash, power=True)),
            (profile.link_cuts, self._cut),
            (profile.partitions, partial(self._block, both=True)),
            (profile.one_way, partial(self._block, both=False)),
            (profile.slow_disks, self._slow_disk),
            (profile.full_disks, self._full_disk),
            (profile.failing_disks, self._failing_disk),
            (profile.pauses, self._pause),
            (profile.wall_jumps, self._jump),
            (profile.lost_sessions, self._lose_session),
            (profile.gateways_down, self._gateway_down),
            (profile.lost_binds, self._lose_bind),
            (profile.people, self._person),
            (profile.leaves, self._leave),
            (profile.reloads, self._reload),
            (profile.wipes, self._wipe),
            (profile.takeovers, self._take_over),
        ]
        for counts, fault in kinds:
            for _ in range(self._choose.randint(*counts)):
                self._timeline.at(self._choose.uniform(0.5, lasts_s), fault)

    def mend(self) -> None:
        """Everybody is back, and everything works; nothing that was begun goes wrong any more."""
        self._mended = True
        self._network.weather = Weather()
        self._network.free_all()
        for host in self._hosts.values():
            disk = host.disk
            disk.slow_until = disk.full_until = disk.failing_until = 0.0
            host.gateway.manners = Manners()
            host.start()
            if host.process is not None and host.process.leaving:
                self._stay(host, host.process)
            host.set_gateway(up=True)
            host.lose_session()  # what its gateway meant never to answer
            self._raise_quotas(host)

    def _raise_quotas(self, host: Host) -> None:
        """Somebody has seen that they are too small, which takes a restart."""
        plenty = CustodySettings()
        if host.settings.max_messages < plenty.max_messages or host.settings.max_parked < plenty.max_parked:
            host.settings = evolve(host.settings, max_messages=plenty.max_messages, max_parked=plenty.max_parked)
            host.crash(power=False)
            host.start()

    def _host(self) -> Host:
        return self._choose.choice([host for host in self._hosts.values() if not host.retired])

    def _two(self) -> tuple[str, str] | None:
        """The ends of a link: of one ring, or of the join."""
        there = [host.site for host in self._hosts.values() if not host.retired]
        links = [ends for one, other in combinations(there, 2) if (ends := _link(one, other))]
        if not links:
            return None
        one, other = self._choose.choice(links)
        return (one, other) if self._choose.random() < 0.5 else (other, one)

    def _note(self, node: str, what: str) -> None:
        self._history.note("fault", "", node, what)

    def _crash(self, *, power: bool) -> None:
        host = self._host()
        self._down(host, partial(host.crash, power=power))

    def _crash_at_write(self) -> None:
        host = self._host()

        def writing(takes_s: float) -> None:
            host.disk.at_next_write = None
            self._timeline.after(self._choose.uniform(0.0, takes_s), partial(self._crash_if, host))

        host.disk.at_next_write = writing

    def _crash_if(self, host: Host) -> None:
        if not self._mended:
            self._down(host, partial(host.crash, power=self._choose.random() < 0.2))

    def _down(self, host: Host, end: Callable[[], None]) -> None:
        end()
        self._timeline.after(self._choose.choice(self._profile.down_s) * self._choose.uniform(0.5, 1.5), host.start)

    def _cut(self) -> None:
        if pair := self._two():
            self._note(pair[0], f"link cut to {pair[1]}")
            self._network.cut(*pair)

    def _block(self, *, both: bool) -> None:
        if (pair := self._two()) is None:
            return
        one, other = pair
        ways = [(one, other), (other, one)][: 2 if both else 1]
        lasts_s = self._choose.choice((0.5, 3.0, 8.0, 25.0)) * self._choose.uniform(0.5, 1.5)
        self._note(one, f"nothing passes to {other}{' and back' if both else ''} for {lasts_s:.1f} s")
        for way in ways:
            self._network.block(*way)
            self._timeline.after(lasts_s, partial(self._network.free, *way))

    def _until(self, lasts_s: float) -> float:
        return self._timeline.now + lasts_s * self._choose.uniform(0.5, 1.5)

    def _slow_disk(self) -> None:
        host = self._host()
        host.disk.slow_until = self._until(8.0)
        self._note(host.name, f"disk slow until {host.disk.slow_until:.3f}")

    def _full_disk(self) -> None:
        host = self._host()
        host.disk.full_until = self._until(10.0)
        self._note(host.name, f"disk full until {host.disk.full_until:.3f}")
        self._judge_disk(host, host.disk.full_until)

    def _failing_disk(self) -> None:
        host = self._host()
        host.disk.failing_until = self._until(self._choose.choice((0.5, 5.0, 60.0)))
        self._note(host.name, f"disk fails until {host.disk.failing_until:.3f}")

    def _judge_disk(self, host: Host, until: float) -> None:
        """The node looks at its free space every second."""
        if host.process is not None:
            host.process.later(0.5, host.process.store.judge)
            host.process.later(until - self._timeline.now + 0.5, host.process.store.judge)

    def _pause(self) -> None:
        host = self._host()
        lasts_s = self._choose.choice((0.3, 2.0, 6.0, 15.0)) * self._choose.uniform(0.5, 1.5)
        suspended = self._choose.random() < 0.3
        self._note(host.name, f"{'suspended' if suspended else 'stopped'} for {lasts_s:.1f} s")
        host.pause(lasts_s, suspended=suspended)

    def _jump(self) -> None:
        host = self._host()
        jump_s = self._choose.choice((-86_400.0, -600.0, -5.0, 5.0, 600.0))
        host.wall_ahead_s += jump_s
        self._history.note("jumped", "", host.name, jump_s)

    def _lose_session(self) -> None:
        host = self._host()
        self._note(host.name, "the session of its gateway breaks")
        host.lose_session()

    def _gateway_down(self) -> None:
        host = self._host()
        self._note(host.name, "its gateway goes")
        host.set_gateway(up=False)
        self._timeline.after(self._choose.uniform(0.5, 20.0), partial(host.set_gateway, up=True))

    def _lose_bind(self) -> None:
        host = self._host()
        self._note(host.name, "the bind at the operator breaks")
        self._operator.bind_lost(host.name)

    def _person(self) -> None:
        host = self._host()
        rows = host.disk.rows.tables[Table.PARKED]
        if not rows or host.process is None or not host.process.ready:
            return
        key, value = self._choose.choice(sorted(rows.items()))
        trace = decode_parked(value).envelope.trace
        roll = self._choose.random()
        if roll < 0.3:
            host.process.drop(key, trace)
        else:
            host.process.replay(key, trace, host.gateway.name if roll < 0.5 else "")

    def _leave(self) -> None:
        """It lets go of the operator, hands its custody on, and stops after a while, done or not; or it stays."""
        host = self._host()
        process = host.process
        if process is None or not process.ready or process.leaving:
            return
        self._note(host.name, "leaves")
        process.leaving = True
        self._operator.bind_lost(host.name)
        process.do(process.keeper.leave)
        end = partial(self._stay, host, process) if self._choose.random() < 0.3 else partial(self._stop, host, process)
        self._timeline.after(self._choose.uniform(0.1, 10.0), end)

    def _stay(self, host: Host, process: Process) -> None:
        self._note(host.name, "stays")
        process.leaving = False
        process.do(process.keeper.stay)

    def _stop(self, host: Host, process: Process) -> None:
        if host.process is process and not self._mended:
            self._down(host, partial(host.crash, power=False))

    def _reload(self) -> None:
        """Every node hears of the new table at a time of its own."""
        there = [host for host in self._hosts.values() if not host.retired]
        spare = [host for host in self._hosts.values() if host.retired and not host.disk.rows.tables[Table.META]]
        if spare and self._choose.random() < 0.6:
            newcomer = spare[0]
            newcomer.retired = False
            there.append(newcomer)
            newcomer.nodes = [host.site.node for host in there]
            self._note(newcomer.name, "is new")
            newcomer.start()
        elif len(there) > 1:
            leaver = self._choose.choice(there)
            there.remove(leaver)
            leaver.crash(power=False)
            leaver.retired = True
            self._history.note("retired", "", leaver.name)
        else:
            return
        for host in there:
            self._timeline.after(self._choose.uniform(0.0, 3.0), partial(self._tell_table, host))

    def _tell_table(self, host: Host) -> None:
        """The newest one: nobody gives a node an older one than it has."""
        if not host.retired:
            host.reload(other.site.node for other in self._hosts.values() if not other.retired)

    def _take_over(self) -> None:
        """The master believes that a node is dead. It may end half way, and so may its heir."""
        hosts = [host for host in self._hosts.values() if not host.retired]
        gone = [host for host in hosts if host.process is None or host.stopped_until > self._timeline.now]
        dead = self._choose.choice(gone if gone and self._choose.random() < 0.8 else hosts)
        living = [host for host in hosts if host is not dead and host not in gone]
        if not living or dead.part is None:
            return
        heir = self._choose.choice(living)
        self._note(dead.name, f"is taken over from by {heir.name}")
        self._history.note("taken", "", dead.name)
        epoch = dead.part.database.begin(dead.name)
        self._move(dead, heir, epoch)

    def _move(self, dead: Host, heir: Host, epoch: int) -> None:
        """Unless it is back, or is taken over from once more."""
        if dead.part is None or dead.part.database.epochs[dead.name] != epoch:
            return
        done = dead.part.database.move(dead.name, heir.name, self._choose.randint(1, 4))
        if heir.process is not None and heir.process.ready:
            heir.process.do(heir.process.look_into_inbox)
        if not done and self._choose.random() < 0.9:
            self._timeline.after(self._choose.uniform(0.0, 0.5), partial(self._move, dead, heir, epoch))

    def _wipe(self) -> None:
        host = self._host()
        store_id = self._choose.randbytes(8)
        self._down(host, partial(host.wipe, store_id))


def _link(one: Site, other: Site) -> tuple[str, str] | None:
    if one.cluster == other.cluster:
        return one.host, other.host
    return (gate_address(one.host), gate_address(other.host)) if one.is_gate and other.is_gate else None
