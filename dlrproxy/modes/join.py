"""The join of this ring to another one, as one node holds it: its links, if it is a gate, and what they carry.

The links are ring links between nodes named "cluster/node", under a cluster name made of both, so that a handshake on
the wrong port is refused as one of another cluster, whichever side is mistaken.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger

from dlrproxy.config import Config
from dlrproxy.modes.link_security import join_security, link_settings
from dlrproxy.release import RELEASE
from protocols.peer.frames import SINCE, Frame, Joined, Relayed
from protocols.peer.hello import Hello
from ring.join import Join, Send
from ring.link import Links
from ring.peer_status import PeerStatus
from ring.peer_url import PeerUrl

_TELL_S: Final = 1.0  # between the times that a gate says what it reaches: as often as a heartbeat, and in its place


class JoinMode:
    """Raises TlsError, ValueError: certificates or addresses that cannot be used."""

    def __init__(
        self,
        config: Config,
        store_id: bytes,
        send: Send,
        receive: Callable[[str, Frame], None],
        changed: Callable[[], None],
        log: FilteringBoundLogger,
    ) -> None:
        """`send` takes frames for nodes of this ring; `receive` is given what came for this one; `changed` is called
        when other gates of the other ring can be reached, or that has other nodes."""
        self._changed = changed
        self._log = log
        self._carrier = Join(
            cluster=config.ring.cluster,
            me=config.node.name,
            gates=[gate.name for gate in config.join.gates],
            nodes=config.node_names,
            send=send,
            send_across=self._send_across,
            receive=receive,
        )
        self._links = self._make_links(config, store_id)

    def _make_links(self, config: Config, store_id: bytes) -> Links | None:
        own = config.own_gate
        if own is None:
            return None
        return Links(
            me=own.name,
            cluster="+".join(sorted((config.ring.cluster, self._carrier.other))),
            peers={gate.name: PeerUrl.parse(gate.url) for gate in (own, *config.far_gates)},
            settings=link_settings(config, config.join.listen or own.address),
            tls=join_security(config),
            store_id=store_id,
            callbacks=self,
            log=self._log,
            on_reachable=self._linked,
            release=RELEASE,
        )

    def renew_certificates(self, config: Config) -> None:
        """Raises TlsError, ValueError, and then nothing has changed."""
        if self._links is not None:
            self._links.set_tls(join_security(config, self._links.tls))

    def retopologize(self, nodes: Collection[str]) -> None:
        """The configured nodes of this ring have changed."""
        self._carrier.retopologize(nodes)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the links up until cancelled. Raises OSError when the listener cannot be bound."""
        async with trio.open_nursery() as nursery:
            if self._links is not None:
                await nursery.start(self._links.run)
            task_status.started()
            while True:
                await trio.sleep(_TELL_S)
                self._carrier.tell()

    def set_draining(self, *, draining: bool) -> None:
        if self._links is not None:
            self._links.set_draining(draining=draining)

    async def leave(self) -> None:
        if self._links is not None:
            await self._links.leave()

    # What can be reached

    @property
    def other(self) -> str:
        """The cluster of the other ring."""
        return self._carrier.other

    @property
    def counts(self) -> Mapping[str, int]:
        return self._carrier.counts

    def reachable(self) -> dict[str, int]:
        """The gates of the other ring that a report gets to from this node, and the version spoken with each."""
        return self._carrier.reachable(SINCE[Relayed])

    def far_nodes(self) -> frozenset[str]:
        """The nodes of the other ring, "cluster/node"; none while its table is not known."""
        return self._carrier.far_nodes()

    def links(self) -> list[PeerStatus]:
        return [] if self._links is None else self._links.status()

    @property
    def turned_away(self) -> Mapping[str, int]:
        """Incoming connections that did not become links to gates of the other ring, by reason."""
        return {} if self._links is None else self._links.turned_away

    def near(self, nodes: frozenset[str]) -> None:
        """The nodes of this ring that can be reached, and know what crosses, have changed."""
        self._carrier.near(nodes)

    def _linked(self, versions: Mapping[str, int]) -> None:
        self._carrier.linked(versions)
        self._changed()

    # Frames

    def send(self, to: str, frame: Frame) -> bool:
        """For a node of the other ring."""
        return self._carrier.send(to, frame)

    def _send_across(self, gate: str, frame: Frame) -> bool:
        return self._links is not None and self._links.send(gate, frame)

    def from_near(self, sender: str, frame: Relayed | Joined) -> None:
        """From a node of this ring."""
        if isinstance(frame, Relayed):
            self._carrier.from_near(sender, frame)
        elif self._carrier.heard(sender, frame):
            self._changed()

    # ring.link.LinkCallbacks

    def on_frames(self, peer: str, frames: list[Frame]) -> None:
        for frame in frames:
            if isinstance(frame, Relayed):
                self._carrier.from_across(frame)
            elif isinstance(frame, Joined):
                if self._carrier.heard_across(peer, frame):
                    self._changed()
            else:
                self._log.warning("join.frame_refused", peer=peer, frame=type(frame).__name__)

    def on_up(self, peer: str, hello: Hello) -> None:
        """`_linked` has said all that there is to know."""

    def on_down(self, peer: str, why: str) -> None:
        """Likewise."""
