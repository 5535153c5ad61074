"""Two nodes, two database servers, the links between them and a witness, one step at a time.

A server is a log of entries, and how much of it is applied; a replica fetches its source's entries and applies them. A
write through semi-synchronous replication returns when a replica has received it. The nodes run the machine of the
product; what it wants done is done command by command, so that a node may die between any two.
"""

import random
import zlib

from attrs import define, evolve, field

from dlrproxy.modes import pair as p
from dlrproxy.modes.pair import Alone, Observation, PairSettings, Replica, Server
from dlrproxy.modes.replication import Pair
from dlrproxy.store.sql.reading import Completeness, Reading, SemiSync

SETTINGS = PairSettings(me="", manage_database=True, fence_after_s=6.0, promote_after_s=9.0)
BEAT_S = 1.0
SEMI_SYNC = SemiSync(enabled=True, on=True, replicas=1, acknowledged=0, unacknowledged=0, degraded=0)
LEASE_S = 7.0  # longer than fence_after_s
BORN = ("row", 1, "a", 0, Alone.NO)


@define
class FakeServer:
    name: str
    log: list = field(factory=lambda: [BORN])  # what it has received or written, in order
    applied: int = 1
    writable: bool = False
    semi_sync: bool = True
    source: str | None = None  # configured to replicate from
    receiving: bool = False
    applying: bool = True
    up: bool = True
    heard: str = ""  # from this source, since it was started
    started_at: float = 0.0
    waiting: list = field(factory=list)  # semi-synchronous writes that have not returned: (length of the log, callback)

    @property
    def row(self):
        return next(self.log[i] for i in range(self.applied - 1, -1, -1) if self.log[i][0] == "row")

    def write(self, entry, returned=lambda: None):
        assert self.up
        self.log.append(entry)
        self.applied = len(self.log)
        if self.semi_sync and self.writable:
            self.waiting.append((len(self.log), returned))
        else:
            returned()

    def received_by_replica(self, length):
        done = [waiting for waiting in self.waiting if waiting[0] <= length]
        self.waiting = [waiting for waiting in self.waiting if waiting[0] > length]
        for _, returned in done:
            returned()

    def kill(self):
        self.up = False
        self.waiting = []
        self.receiving = False
        self.applying = False
        self.heard = ""

    def start(self, now):
        self.up = True
        self.started_at = now
        self.start_replication()

    def start_replication(self):
        """Whichever thread starts after both had stopped throws away what is not applied."""
        if not self.receiving and not self.applying and self.source is not None:
            self.throw_away()
        self.receiving = self.source is not None
        self.applying = True

    def throw_away(self):
        del self.log[self.applied :]


@define
class Node:
    name: str
    server: FakeServer
    rate: float  # its clock's, against the world's
    machine: Pair | None = None
    todo: list = field(factory=list)
    asked: str = ""  # by keepalived, which remembers over a restart of the node
    serving: bool = False
    frozen: bool = False
    starts: int = 0
    completeness: Completeness = field(factory=Completeness)


class World:
    """`check` after every step: at most one node serves, and never on a server that takes no writes."""

    def __init__(self, seed=0, settings=SETTINGS, machine=Pair):
        self.random = random.Random(seed)
        self.settings = settings
        self.make = machine
        self.now = 0.0
        self.linked = True  # between the machines: replication and questions both ways
        self.witness_linked = {"a": True, "b": True}
        self.lease = ("", -1.0)
        self.servers = {name: FakeServer(name) for name in "ab"}
        self.servers["a"].writable = True
        self.servers["b"].source = "a"
        self.servers["b"].receiving = True
        self.nodes = {
            "a": Node("a", self.servers["a"], rate=1.0),
            "b": Node("b", self.servers["b"], rate=1.0 + self.random.uniform(-0.01, 0.01)),
        }
        self.acknowledged = []  # data that a gateway was answered for, under paired replication
        self.epochs = {"a": 0, "b": 0}
        self.trace = []
        self.forced = False
        self.written = 0
        for node in self.nodes.values():
            self.start(node)

    # Nodes

    def other(self, name):
        return self.nodes["b" if name == "a" else "a"]

    def clock(self, node):
        return self.now * node.rate + 1000.0 * node.starts  # another start, another origin

    def start(self, node):
        node.starts += 1
        node.machine = self.make(evolve(self.settings, me=node.name), self.clock(node))
        node.todo = []
        node.completeness = Completeness()
        if node.asked == "promote":
            node.machine.promote()

    def kill(self, node):
        node.machine = None
        node.serving = False
        node.frozen = False

    def note(self, *what):
        self.trace.append((round(self.now, 2), *what))

    def reading(self, server, asker):
        if not server.up or (server.name != asker.name and not self.linked):
            return None
        _, epoch, holder, beat, alone = server.row
        replica = None
        if server.source is not None:
            replica = Replica(
                receiving=server.receiving,
                applying=server.applying,
                all_applied=server.applied == len(server.log),
            )
        fetching = self.servers["b" if server.name == "a" else "a"]
        has_replica = (
            fetching.up and fetching.source == server.name and fetching.receiving and self.linked
            and len(fetching.log) == len(server.log)
        )  # fmt: skip
        said = Server(
            writable=server.writable,
            epoch=epoch,
            holder=holder,
            beat=beat,
            alone=alone,
            position=f"0-{zlib.crc32(repr(server.log[server.applied - 1]).encode())}-{server.applied}",
            replica=replica,
            has_replica=has_replica,
        )
        return Reading(
            server=said,
            server_id=ord(server.name),
            semi_sync=SEMI_SYNC,
            received=f"0-0-{len(server.log)}",
            source_id=ord(server.heard or "\0"),
            connected=server.receiving and self.linked and server.source is not None and fetching.up,
            uptime_s=int(self.now - server.started_at),
        )

    def view(self, node):
        """Both servers, as the driver shows them to the machine of the node."""
        own, peer = self.reading(node.server, node), self.reading(self.other(node.name).server, node)
        if own is not None:
            own = node.completeness.judge(own, peer)
        return [None if one is None else one.server for one in (own, peer)]

    def observe(self, node):
        if node.machine is None or node.frozen:
            return
        now = self.clock(node)
        if now >= node.machine.serve_until:
            node.serving = False  # what a process does first when it wakes up
        if any(isinstance(command, p.Release) for command in node.todo):
            node.serving = False  # the driver does not look again before it has released; all else may fail
        own, peer = self.view(node)
        seen = Observation(own=own, peer=peer)
        node.todo = node.machine.observe(seen, now)
        if node.todo:
            self.note(node.name, node.machine.role.value, *node.todo)

    def carry_out(self, node):
        """The next command of the node; False when there is none."""
        if node.machine is None or node.frozen or not node.todo:
            return False
        command = node.todo.pop(0)
        if not isinstance(command, p.Serve | p.Release) and not node.server.up:
            node.todo = []
            return True
        self.command(node, command)
        return True

    def command(self, node, command):
        server = node.server
        match command:
            case p.StopReceiving():
                server.receiving = False
            case p.StartReceiving():
                server.start_replication()
            case p.BecomePrimary(epoch, alone):
                self.become_primary(node, epoch, alone, self.promotion_steps(node))
            case p.AcceptWrites():
                server.writable = True
                server.semi_sync = True
            case p.MakeReadOnly():
                self.row(node, Alone.NO)
                server.writable = False
            case p.GoAlone(alone):
                server.semi_sync = False
                self.row(node, alone)
            case p.GoPaired():
                server.semi_sync = True
                self.row(node, Alone.NO)
            case p.Serve(epoch):
                if self.clock(node) < node.machine.serve_until:
                    node.serving = True
                    assert epoch >= self.epochs[node.name], "an epoch went back"
                    self.epochs[node.name] = epoch
            case p.Release():
                node.serving = False
        self.note(node.name, "did", command)

    def promotion_steps(self, node):
        """How many of the three that a promotion takes are done before it is interrupted."""
        return self.random.choice([1, 2, 3, 3, 3])

    def become_primary(self, node, epoch, alone, how_many):
        """Step by step: a later call may find it anywhere in between."""
        server = node.server
        steps = ["row", "reset", "writable"]
        for step in steps[:how_many]:
            if step == "row":
                server.applying = False
                server.semi_sync = False
                if server.row[1:3] != (epoch, node.name):
                    del server.log[server.applied :]  # what it has received is not in its own log
                    server.write(("row", epoch, node.name, server.row[3] + 1, alone))
            elif step == "reset":
                del server.log[server.applied :]  # unapplied relay log is thrown away
                server.source = None
                server.receiving = False
            else:
                server.writable = True

    def row(self, node, alone):
        _, epoch, holder, beat, _ = node.server.row
        node.server.write(("row", epoch, holder, beat + 1, alone))

    def beat(self, node):
        """The driver does so every second where the own server takes writes and the row names this node."""
        server = node.server
        if node.machine is None or node.frozen or not server.up or not server.writable or server.source is not None:
            return
        _, epoch, holder, beat, alone = server.row
        if holder != node.name:
            return
        machine, sent_at, semi_sync = node.machine, self.clock(node), server.semi_sync

        def returned():
            if semi_sync and node.machine is machine:
                machine.acknowledged(sent_at)

        server.write(("row", epoch, holder, beat + 1, alone), returned)

    def ask_witness(self, node):
        if not self.settings.witness or node.machine is None or node.frozen or not self.witness_linked[node.name]:
            return
        holder, until = self.lease
        if not node.machine.wants_witness:
            if holder == node.name and not node.serving:
                node.machine.gives_back()
                self.lease = ("", -1.0)
        elif holder == node.name or until <= self.now:
            self.lease = (node.name, self.now + LEASE_S)
            node.machine.lent(self.clock(node))

    # Data

    def message(self, node):
        """A gateway's message: answered for once it is durable."""
        server = node.server
        if not node.serving or node.frozen or not server.up or not server.writable:
            return
        if self.clock(node) >= node.machine.serve_until:
            node.serving = False
            return
        self.written += 1
        entry = ("data", self.written)
        paired = server.semi_sync

        def returned():
            if paired:
                self.acknowledged.append(entry)

        server.write(entry, returned)

    def fetch(self, server):
        if server.up and server.receiving and server.source is not None and self.linked:
            source = self.servers[server.source]
            if source.up:
                server.heard = source.name
            length = len(server.log)
            same = len(source.log) > length and source.log[length - 1] is server.log[-1]  # no row is ever written twice
            if source.up and same:
                server.log.append(source.log[len(server.log)])
                source.received_by_replica(len(server.log))

    def apply(self, server):
        if server.up and server.applying and server.source is not None and server.applied < len(server.log):
            server.applied += 1

    def rejoin(self, name):
        """What `dlrproxy rejoin` does: the server becomes a copy of the other, and its replica."""
        server, source = self.servers[name], self.other(name).server
        node = self.nodes[name]
        if not server.up or not source.up or not source.writable or node.serving or not self.linked:
            return
        if source.row[1] < server.row[1]:
            return
        server.log = list(source.log)
        server.applied = len(server.log)
        server.writable = False
        server.waiting = []
        server.source, server.receiving, server.applying, server.heard = source.name, True, True, ""
        self.note("rejoin", name)

    # What must hold

    def check(self):
        active = [
            node.name
            for node in self.nodes.values()
            if node.serving and not node.frozen and self.clock(node) < node.machine.serve_until
        ]
        assert len(active) <= 1 or self.forced, f"both are active\n{self.story()}"
        for name in active:
            server = self.servers[name]
            assert server.writable or not server.up, f"{name} is active on a read-only server\n{self.story()}"
        for node in self.nodes.values():
            to_serve = node.machine is not None and node.todo and isinstance(node.todo[0], p.Serve)
            if to_serve and self.clock(node) < node.machine.serve_until:  # later it is not done
                assert node.server.writable or not node.server.up, f"{node.name} serves read-only\n{self.story()}"

    def check_nothing_lost(self):
        """What was acknowledged while paired is on the server of whoever serves."""
        for node in self.nodes.values():
            if node.serving and node.server.up and not self.forced:
                missing = set(self.acknowledged) - set(node.server.log)
                assert not missing, f"{node.name} has not {missing}\n{self.story()}"

    def story(self):
        return "\n".join(map(str, self.trace[-60:]))

    def advance(self, seconds):
        self.now += seconds
        for node in self.nodes.values():
            if node.machine is not None and not node.frozen and self.clock(node) >= node.machine.serve_until:
                node.serving = False
