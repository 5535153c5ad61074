"""The links of one run of a node to others of its ring, or to gates of another: what `ring/link.py` does with sockets,
done with the fake network.

Membership is the machine that ships; who dials, when it dials again, what is closed when somebody is silent, and which
of two links stays are done as `ring/link.py` does them, since that file is trio and sockets throughout.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from protocols.peer.frames import VERSION, Frame, Heartbeat
from ring.handshake import dials
from ring.link_settings import LinkSettings
from ring.membership import Membership, State
from simulation.network import Connection, Network

SETTINGS: Final = LinkSettings()
_TICKS_IN_SUSPECT: Final = 4  # ring/link.py

Later = Callable[[float, Callable[[], None]], None]


class Mesh:
    """`name`, `node`, `cluster` and the methods `reached`, `heard` and `hung_up` are what the network knows of it
    (`network.End`)."""

    def __init__(
        self,
        node: str,
        cluster: str,
        nodes: Iterable[str],
        address: Callable[[str], str],
        network: Network,
        choose: random.Random,
        monotonic: Callable[[], float],
        later: Later,
        do: Callable[[Callable[[], None]], None],
        on_frames: Callable[[str, list[Frame]], None],
        on_reachable: Callable[[Mapping[str, int]], None],
    ) -> None:
        """`address` gives the name by which the network knows a node.

        `later` plans for as long as the process lives; `do` does something now, or after a pause of the process.
        """
        self.name = address(node)
        self.node = node
        self.cluster = cluster
        self._address = address
        self._network = network
        self._choose = choose
        self._monotonic = monotonic
        self._later = later
        self._do = do
        self._on_frames = on_frames
        self._on_reachable = on_reachable
        self._others = [other for other in nodes if other != node]
        self._membership = Membership(
            self._others, suspect_after_s=SETTINGS.suspect_after_s, dead_after_s=SETTINGS.dead_after_s
        )
        self._links: dict[str, Connection] = {}
        self._reached: set[int] = set()  # connections that have come to this end
        self._early: dict[int, list[Frame]] = {}  # what has come on one before
        self._spoke: set[str] = set()  # since the last heartbeat
        self._waits_s: dict[str, float] = {}  # by node that is being dialled: the wait after this attempt
        self._told: frozenset[str] = frozenset()
        self.draining = False

    def start(self) -> None:
        self._network.appeared(self)
        self._beat()
        self._watch()
        for node in self._others:
            self._dial_soon(node)

    def vanish(self, *, silently: bool) -> None:
        self._network.vanished(self, silently=silently)

    def set_nodes(self, nodes: Iterable[str]) -> None:
        """A reload."""
        self._others = [node for node in nodes if node != self.node]
        for node in [node for node in self._links if node not in self._others]:
            self._drop(node)
        self._membership.set_nodes(self._others)
        self._tick()
        for node in self._others:
            self._dial_soon(node)

    def send(self, to: str, frame: Frame) -> bool:
        link = self._links.get(to)
        if link is None:
            return False
        self._spoke.add(to)
        self._network.send(link, self.name, frame)
        return True

    def _beat(self) -> None:
        for node in self._links:
            if node not in self._spoke:
                self.send(node, Heartbeat(draining=self.draining))
        self._spoke.clear()
        self._later(SETTINGS.heartbeat_s, self._beat)

    def _watch(self) -> None:
        self._tick()
        self._later(SETTINGS.suspect_after_s / _TICKS_IN_SUSPECT, self._watch)

    def _tick(self) -> None:
        for change in self._membership.tick(self._monotonic()):
            if change.new is State.DEAD and change.node in self._links:
                self._drop(change.node)
                self._dial_soon(change.node)
        reachable = self._membership.alive()
        if reachable != self._told:
            self._told = reachable
            self._on_reachable(dict.fromkeys(sorted(reachable), VERSION))

    # Dialling: one attempt or wait at a time for each node that this one dials and has no link to

    def _dial_soon(self, node: str) -> None:
        if dials(self.node, node) and node not in self._waits_s and node not in self._links:
            self._waits_s[node] = SETTINGS.reconnect_min_s
            self._dial(node)

    def _dial(self, node: str) -> None:
        if node in self._others:
            self._network.dial(self, self._address(node), lambda: self._do(lambda: self._dial_again(node)))
        else:
            del self._waits_s[node]

    def _dial_again(self, node: str) -> None:
        wait_s = self._waits_s.get(node, SETTINGS.reconnect_min_s)
        self._waits_s[node] = min(SETTINGS.reconnect_max_s, wait_s * 2)
        self._later(wait_s * self._choose.uniform(0.5, 1.0), lambda: self._dial(node))

    # network.End

    def reached(self, connection: Connection) -> None:
        self._do(lambda: self._adopt(connection))

    def _adopt(self, connection: Connection) -> None:
        node = connection.other(self.name).node
        self._waits_s.pop(node, None)
        present = self._links.get(node)
        if self.name not in connection.open:
            self._dial_soon(node)
        elif node not in self._others or (present is not None and present.number > connection.number):
            self._network.close(connection, self)
        else:
            if present is not None:
                self._drop(node)
            self._links[node] = connection
            self._membership.linked(node, self._monotonic())
            self._tick()
        self._reached.add(connection.number)
        for frame in self._early.pop(connection.number, ()):
            self._received(connection, frame)

    def heard(self, connection: Connection, frame: Frame) -> None:
        self._do(lambda: self._received(connection, frame))

    def _received(self, connection: Connection, frame: Frame) -> None:
        node = connection.other(self.name).node
        if connection.number not in self._reached:
            self._early.setdefault(connection.number, []).append(frame)  # the other end was ready before this one
            return
        if self._links.get(node) is not connection:
            return  # it was replaced a moment ago
        self._membership.heard(node, self._monotonic())
        if not isinstance(frame, Heartbeat):
            self._on_frames(node, [frame])

    def hung_up(self, connection: Connection) -> None:
        self._do(lambda: self._gone(connection))

    def _gone(self, connection: Connection) -> None:
        node = connection.other(self.name).node
        if self._links.get(node) is connection:
            self._drop(node)
            self._later(SETTINGS.reconnect_min_s * self._choose.random(), lambda: self._dial_soon(node))

    def _drop(self, node: str) -> None:
        connection = self._links.pop(node)
        self._network.close(connection, self)
        self._membership.unlinked(node, self._monotonic())
        self._tick()
