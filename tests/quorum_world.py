"""Three nodes of a quorum and their database servers, one step at a time.

The servers keep one log of certified writes, of which each has applied a part. A write is executed on what its server
has applied; when it is certified later, and what it changes was changed meanwhile, it is executed again, as the node's
pool does after a deadlock. A server that is cut off certifies nothing, and calls itself Primary until it finds out. An
answer may come late, or never, and a write that was given up may be certified all the same. Nodes run the machines of
the product; a node may stop, go on, or die between any two steps.
"""

import random

from attrs import define, evolve, field

from dlrproxy.modes import cluster as c
from dlrproxy.modes.cluster import MasterRow, Member, Observation, QuorumSettings, Role, Rows, Server
from dlrproxy.modes.lease import Master
from dlrproxy.modes.quorum import Quorum

SETTINGS = QuorumSettings(me="", home=b"", fence_after_s=8.0, takeover_after_s=12.0, lease_s=6.0)
NAMES = ("a", "b", "c")
MASTER = ("master",)


def member(node):
    return ("member", node)


@define
class FakeServer:
    name: str
    applied: int = 0
    state: dict = field(factory=lambda: {MASTER: MasterRow()})
    up: bool = True
    paused: bool = False
    connected: bool = True  # to the two others, as far as they are
    claims_primary: bool = True


@define
class Write:
    """Under way: `execute(state)` gives the changes, or None where it changes no row."""

    server: FakeServer
    execute: object
    answered: object  # called with whether it changed a row; None: its server has died
    changes: dict | None = None
    snapshot: int = -1  # -1: not executed yet


@define
class Node:
    name: str
    server: FakeServer
    rate: float  # its clock's, against the world's
    origin: float  # and where that begins
    quorum: Quorum | None = None
    master: Master | None = None
    todo: list = field(factory=list)
    inbox: list = field(factory=list)  # answers that it has not looked at
    busy: dict = field(factory=dict)  # what it waits for an answer to
    serving: int = 0  # the epoch of its term
    known: dict = field(factory=dict)  # custody in memory: number -> "waiting" or "delivering"
    frozen: bool = False
    starts: int = 0


class World:
    """`check` after every step."""

    def __init__(self, seed=0, settings=SETTINGS, quorum=Quorum, master=Master):
        self.random = random.Random(seed)
        self.settings = settings
        self.make_quorum, self.make_master = quorum, master
        self.now = 0.0
        self.loss = 0.05  # of answers
        self.log = []
        self.truth = {MASTER: MasterRow()}
        self.writes = []
        self.servers = {name: FakeServer(name) for name in NAMES}
        self.nodes = {
            name: Node(name, self.servers[name], 1.0 + self.random.uniform(-0.02, 0.02), self.random.uniform(-5.0, 5.0))
            for name in NAMES
        }
        self.promised = set()  # numbers of what the operator was told that we have it
        self.sent = set()
        self.done = set()
        self.parked = set()
        self.numbers = 0
        self.trace = []
        for node in self.nodes.values():
            self.start(node)

    # Nodes

    def clock(self, node):
        return node.origin + self.now * node.rate

    def start(self, node):
        node.starts += 1
        settings = evolve(self.settings, me=node.name, home=node.name.encode())
        node.quorum, node.master = self.make_quorum(settings), self.make_master(settings)
        node.todo, node.inbox, node.busy, node.serving, node.known = [], [], {}, 0, {}

    def kill(self, node):
        node.quorum = node.master = None
        node.serving, node.frozen = 0, False
        node.todo, node.inbox, node.busy, node.known = [], [], {}, {}

    def runs(self, node):
        return node.quorum is not None and not node.frozen

    def serves(self, node):
        return self.runs(node) and node.serving and node.quorum.may_act(node.serving, self.clock(node))

    def note(self, *what):
        self.trace.append((round(self.now, 2), *what))

    # Database servers

    def in_quorum(self, server):
        together = [s for s in self.servers.values() if s.up and not s.paused and s.connected]
        return server in together and len(together) >= 2

    def apply(self, server, upto=None):
        upto = len(self.log) if upto is None else upto
        while server.applied < upto:
            _change(server.state, self.log[server.applied])
            server.applied += 1

    def write(self, node, execute, answered):
        """`answered` is called in the node's own time; never, if the answer is lost."""
        starts = node.starts

        def arrives(changed):
            if node.quorum is not None and node.starts == starts:
                node.inbox.append(lambda: answered(changed))

        self.writes.append(Write(node.server, execute, arrives))

    def execute(self, write):
        server = write.server
        if not server.up:
            self.writes.remove(write)
            write.answered(None)
        elif not server.paused and server.claims_primary:
            write.changes, write.snapshot = write.execute(server.state), server.applied
            if write.changes is None:
                self.writes.remove(write)
                write.answered(False)

    def certify(self, write, *, lose=False):
        """What a stalled cluster has not certified yet it certifies later, whoever has given it up."""
        server = write.server
        if not server.up:
            self.writes.remove(write)
            write.answered(None)
            return
        if not self.in_quorum(server):
            return
        if any(key in later for key in write.changes for later in self.log[write.snapshot :]):
            self.apply(server)
            write.snapshot = -1  # once more
            return
        self.log.append(write.changes)
        _change(self.truth, write.changes)
        self.apply(server)
        self.writes.remove(write)
        if not lose:
            write.answered(True)

    def step_write(self, write):
        if write.snapshot < 0:
            self.execute(write)
        else:
            self.certify(write, lose=self.random.random() < self.loss)

    # Steps of a node

    def view(self, node):
        server = node.server
        if not server.up or server.paused:
            return Observation(server=None)
        if not server.claims_primary:
            return Observation(server=Server(primary=False, ready=False, state="Initialized"))
        members = {key[1]: row for key, row in server.state.items() if key[0] == "member"}
        return Observation(
            server=Server(primary=True, ready=True, state="Synced"),
            rows=Rows(members=members, master=server.state[MASTER]),
        )

    def observe(self, node):
        """Not before the last commands are done, or given up."""
        if not self.runs(node) or node.todo or "command" in node.busy:
            return
        seen, now = self.view(node), self.clock(node)
        node.todo = node.quorum.observe(seen, now)
        if node.quorum.role is Role.SERVING and not node.serving and now < node.quorum.serve_until and not node.todo:
            node.todo = [c.Serve(node.quorum.epoch)]
        node.todo += node.master.observe(seen.rows, now, serving=node.quorum.role is Role.SERVING)
        if node.todo:
            self.note(node.name, node.quorum.role.value, *node.todo)

    def carry_out(self, node):
        """The next command; False when there is none, or it waits."""
        if not self.runs(node) or not node.todo or "command" in node.busy:
            return False
        command = node.todo.pop(0)
        sent_at, quorum, master = self.clock(node), node.quorum, node.master
        match command:
            case c.Serve(epoch):
                if quorum.may_act(epoch, sent_at):
                    node.serving = epoch
                    node.known = {}
                    self.adopt(node)
            case c.Release():
                node.serving, node.known = 0, {}
            case c.Adopt():
                self.adopt(node)
            case c.Claim(seen):
                row = Member(epoch=1, beat=1, home=node.name.encode())
                if seen is not None:
                    row = evolve(seen, epoch=seen.epoch + 1, beat=seen.beat + 1, taken=False, heir="", home=row.home)
                self.ask(
                    node,
                    "command",
                    lambda state: {member(node.name): row} if state.get(member(node.name)) == seen else None,
                    lambda changed: changed and quorum.vouched(row.epoch, sent_at),
                )
            case c.TakeLease(seen):
                row = MasterRow(epoch=seen.epoch + 1, holder=node.name, beat=seen.beat + 1)
                self.ask(
                    node,
                    "command",
                    lambda state: {MASTER: row} if state[MASTER] == seen else None,
                    lambda changed: changed and master.renewed(row.epoch, sent_at),
                )
            case c.Take(name, seen, heir):
                row = evolve(seen, epoch=seen.epoch + 1, taken=True, heir=heir)
                self.ask(
                    node, "command", lambda state: {member(name): row} if state.get(member(name)) == seen else None
                )
            case c.Move(name, epoch):
                self.ask(node, "command", lambda state: self.move(state, name, epoch))
        return True

    def ask(self, node, what, execute, answered=lambda changed: None):
        asked = object()
        node.busy[what] = asked

        def once(changed):
            if node.busy.get(what) is not asked:
                return
            del node.busy[what]
            if changed is not None:
                answered(changed)
            elif what == "command":
                node.todo.clear()  # one that fails ends the list it came in

        self.write(node, execute, once)

    def forget(self, node):
        """Give up what has not been answered: the deadline of a statement. One that fails ends the list it came in."""
        if "command" in node.busy:
            node.todo.clear()
        node.busy.clear()

    def move(self, state, name, epoch):
        row = state.get(member(name))
        items = {key: value for key, value in state.items() if key[:2] == ("item", name)}
        if row is None or row.epoch != epoch or not row.taken or not items:
            return None
        some = dict(self.random.sample(sorted(items.items()), self.random.randint(1, len(items))))
        return {
            member(name): evolve(row, moved=row.moved + 1),
            **dict.fromkeys(some),
            **{("item", row.heir, key[2]): value for key, value in some.items()},
        }

    def beat(self, node):
        if not self.runs(node) or not node.quorum.epoch or "beat" in node.busy:
            return
        sent_at, quorum, epoch = self.clock(node), node.quorum, node.quorum.epoch

        def execute(state):
            row = state.get(member(node.name))
            if row is None or row.epoch != epoch:
                return None
            return {member(node.name): evolve(row, beat=row.beat + 1)}

        def answered(changed):
            if changed:
                quorum.vouched(epoch, sent_at)
            else:
                quorum.refused(epoch)

        self.ask(node, "beat", execute, answered)

    def renew(self, node):
        if not self.runs(node) or "renew" in node.busy or not node.master.holds(self.clock(node)):
            return
        sent_at, master, epoch = self.clock(node), node.master, node.master.epoch

        def execute(state):
            row = state[MASTER]
            return {MASTER: evolve(row, beat=row.beat + 1)} if row.epoch == epoch else None

        self.ask(node, "renew", execute, lambda changed: master.renewed(epoch, sent_at) if changed else master.lost())

    def read_mail(self, node):
        if self.runs(node) and node.inbox:
            node.inbox.pop(0)()

    # Custody

    def adopt(self, node):
        for key, value in node.server.state.items():
            if key[:2] == ("item", node.name) and key[2] not in node.known:
                node.known[key[2]] = value
                if value == "delivering":
                    self.parked.add(key[2])

    def fenced(self, node, epoch, changes, number=None):
        def execute(state):
            row = state.get(member(node.name))
            if row is None or row.epoch != epoch or row.taken:
                return None
            if number is not None and ("item", node.name, number) not in state:
                return None
            return changes

        return execute

    def accept(self, node):
        if not self.serves(node):
            return
        self.numbers += 1
        number, epoch = self.numbers, node.serving

        def answered(changed):
            if changed and node.serving == epoch:
                node.known[number] = "waiting"
                self.promised.add(number)

        self.write(node, self.fenced(node, epoch, {("item", node.name, number): "waiting"}), answered)

    def deliver(self, node):
        """Mark it durably, then send it, then forget it."""
        waiting = [number for number, state in node.known.items() if state == "waiting"]
        if not self.serves(node) or not waiting:
            return
        number, epoch = self.random.choice(waiting), node.serving
        node.known[number] = "marking"

        def marked(changed):
            if not changed or node.serving != epoch:
                return
            if not self.serves(node):
                return  # as a process does that looks at its deadline before it sends
            assert number not in self.sent, f"{number} is sent twice\n{self.story()}"
            assert number not in self.parked, f"{number} is sent, and was parked\n{self.story()}"
            self.check()
            self.sent.add(number)
            self.write(node, self.fenced(node, epoch, {("item", node.name, number): None}), settled)

        def settled(changed):
            if changed:
                self.done.add(number)

        self.write(node, self.fenced(node, epoch, {("item", node.name, number): "delivering"}, number=number), marked)

    # What must hold

    def check(self):
        masters = [
            node.name
            for node in self.nodes.values()
            if self.runs(node) and node.quorum.role is Role.SERVING and node.master.holds(self.clock(node))
        ]
        assert len(masters) <= 1, f"masters: {masters}\n{self.story()}"
        for node in self.nodes.values():
            if self.serves(node):
                row = self.truth.get(member(node.name))
                held = row is not None and row.epoch == node.serving and not row.taken
                assert held, f"{node.name} serves on a stale word: {row}\n{self.story()}"

    def check_custody(self):
        """Each promised item is in exactly one part, or was sent."""
        places = [key[2] for key in self.truth if key[0] == "item"]
        assert len(places) == len(set(places)), f"in two parts: {sorted(places)}\n{self.story()}"
        lost = self.promised - set(places) - self.sent
        assert not lost, f"lost: {lost}\n{self.story()}"

    def story(self):
        return "\n".join(map(str, self.trace[-60:]))

    def advance(self, seconds):
        self.now += seconds


def _change(state, changes):
    for key, value in changes.items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
