"""The join of one run of a node, put together as `dlrproxy/modes/join.py` and `modes/ring.py` do it with sockets: the
carrier that ships (`ring/join.py`), and at a gate its links to the gates of the other ring.
"""

import random
from collections.abc import Callable, Collection, Mapping
from typing import Final

from protocols.peer.frames import VERSION, Frame, Joined, Relayed
from ring.join import Join
from simulation.mesh import Later, Mesh
from simulation.network import Network
from simulation.site import Site, gate_address

_TELL_S: Final = 1.0  # dlrproxy/modes/join.py

Send = Callable[[str, Frame], bool]


class Joining:
    def __init__(
        self,
        site: Site,
        nodes: Collection[str],
        network: Network,
        choose: random.Random,
        monotonic: Callable[[], float],
        later: Later,
        do: Callable[[Callable[[], None]], None],
        send: Send,
        receive: Callable[[str, Frame], None],
        changed: Callable[[], None],
    ) -> None:
        """`send`, `receive` and `changed` as for `JoinMode`; `later` and `do` as for `Mesh`."""
        self._later = later
        self._changed = changed
        self._carrier = Join(
            cluster=site.cluster,
            me=site.node,
            gates=site.gates,
            nodes=nodes,
            send=send,
            send_across=self._send_across,
            receive=receive,
        )
        self._links: Mesh | None = None
        if site.is_gate:
            self._links = Mesh(
                site.host, site.cluster, site.far_gates, gate_address, network, choose, monotonic, later, do,
                self._on_frames, self._linked,
            )  # fmt: skip

    def start(self) -> None:
        if self._links is not None:
            self._links.start()
        self._tell()

    def _tell(self) -> None:
        self._carrier.tell()
        self._later(_TELL_S, self._tell)

    def vanish(self, *, silently: bool) -> None:
        if self._links is not None:
            self._links.vanish(silently=silently)

    def near(self, nodes: frozenset[str]) -> None:
        self._carrier.near(nodes)

    def reachable(self) -> dict[str, int]:
        return self._carrier.reachable(VERSION)

    def far_nodes(self) -> frozenset[str]:
        return self._carrier.far_nodes()

    def _linked(self, versions: Mapping[str, int]) -> None:
        self._carrier.linked(versions)
        self._changed()

    def send(self, to: str, frame: Frame) -> bool:
        return self._carrier.send(to, frame)

    def _send_across(self, gate: str, frame: Frame) -> bool:
        return self._links is not None and self._links.send(gate, frame)

    def from_near(self, sender: str, frame: Relayed | Joined) -> None:
        if isinstance(frame, Relayed):
            self._carrier.from_near(sender, frame)
        elif self._carrier.heard(sender, frame):
            self._changed()

    def _on_frames(self, peer: str, frames: list[Frame]) -> None:
        """What does not cross is never sent (`law.py`)."""
        for frame in frames:
            if isinstance(frame, Relayed):
                self._carrier.from_across(frame)
            elif isinstance(frame, Joined) and self._carrier.heard_across(peer, frame):
                self._changed()
