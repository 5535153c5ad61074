"""Ring mode: every node keeps its own open messages and custody, and asks the others round the ring.

This file ties the links between nodes to custody and to summaries, and shares what is learned about an operator's
message ids.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

import attrs
import trio
from structlog.typing import FilteringBoundLogger

from dlrproxy.config import Config
from dlrproxy.custody import Keeper
from dlrproxy.modes.join import JoinMode
from dlrproxy.modes.link_security import link_security, link_settings
from dlrproxy.modes.summaries import SummaryExchange
from dlrproxy.release import RELEASE
from dlrproxy.store.port import Store
from protocols.peer.frames import SINCE, Frame, Joined, Learned, Relayed, SummaryPart, SummaryWanted
from protocols.peer.hello import Hello
from protocols.smpp.message_ids import Rule
from ring import peer_table
from ring.far import is_far
from ring.link import Links
from ring.peer_status import PeerStatus
from ring.peer_url import PeerUrl
from ring.settings import ClusterSettings, CustodySettings, OperatorPolicy
from ring.summaries import Summaries
from ring.topology import Topology

# Operators' rules as learned here, with the evidence for each; operators without one are left out.
Learnings = Callable[[], Mapping[str, tuple[Rule, int]]]
Adopt = Callable[[str, Rule, int], None]


def topology(config: Config) -> Topology:
    return Topology(config.node_names, config.node.name, tuple(gate.name for gate in config.far_gates))


def summaries(config: Config) -> Summaries | None:
    """None where they are off, or there is nobody to exchange them with."""
    if not config.other_peers or not config.ring.summary_mb:
        return None
    return Summaries(topology(config), config.ring.summary_mb)


def policies(config: Config) -> dict[str, OperatorPolicy]:
    return {
        operator.name: OperatorPolicy(operator.unclaimed, next(iter(operator.listen), ""))
        for operator in config.operators
    }


def custody_settings(config: Config, operators: Mapping[str, OperatorPolicy]) -> CustodySettings:
    """`operators` may change while the node runs."""
    ring, custody = config.ring, config.custody
    return CustodySettings(
        operators=operators,
        claim_for_s=ring.claim_for_s,
        # The active of a pair has every open message: what it does not know no other node does.
        sought_for_s=0.0 if config.node.mode == "active-passive" else math.inf,
        lap_timeout_s=ring.lap_timeout_s,
        walk_retry_min_s=ring.retry_min_s,
        walk_retry_max_s=ring.retry_max_s,
        deliver_retry_min_s=custody.retry_min_s,
        deliver_retry_max_s=custody.retry_max_s,
        repeat_s=custody.settle_retry_s,
        watch_s=max((operator.race_window_s for operator in config.operators), default=0.0),
        max_messages=custody.max_messages,
        max_parked=custody.max_parked,
        max_walking=ring.max_walking,
        conversations=config.mo.conversation_s > 0,
        concat_wait_s=config.mo.concat_wait_s,
        cluster=_cluster_settings(config),
    )


def _cluster_settings(config: Config) -> ClusterSettings | None:
    """None in every mode but quorum."""
    if config.node.mode != "quorum" or config.quorum is None:
        return None
    quorum = config.quorum
    return ClusterSettings(
        unmatched_for_s=quorum.unmatched_for_s,
        stand_in=quorum.stand_in,
        stand_in_after_s=quorum.takeover_after_s,
        maybe_delivered=quorum.maybe_delivered,
    )


def _peer_urls(config: Config) -> dict[str, PeerUrl]:
    """Empty for a node alone that has no [[peers]]."""
    return {peer.name: PeerUrl.parse(peer.url) for peer in config.peers}


class RingMode:
    """The links of this node, and what they carry. A node alone has none, and its walks end where they begin.

    Where a reload brings it the first other node it begins to link; its summaries count from the next start, for until
    then nothing follows what it owns.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        keeper: Keeper,
        summaries: Summaries | None,
        learnings: Learnings,
        adopt: Adopt,
        log: FilteringBoundLogger,
    ) -> None:
        """`learnings` gives what this node has learned of message ids, `adopt` takes what others have.

        Raises TlsError, ValueError: certificates or addresses that cannot be used.
        """
        self._keeper = keeper
        self._learnings = learnings
        self._adopt = adopt
        self._log = log
        self._store_id = store.store_id
        self._gates = topology(config).gates
        self._versions: Mapping[str, int] = {}  # of the frames, with each reachable node of this ring
        self._apart: AbstractSet[str] = frozenset()
        self._draining = False
        self._nursery: trio.Nursery | None = None
        self._join: JoinMode | None = None
        if config.join.gates:
            self._join = JoinMode(config, store.store_id, self._send_near, self._crossed, self._join_changed, log)
        self._links = self._make_links(config, _peer_urls(config)) if config.other_peers else None
        self._summaries = summaries
        self._exchange: SummaryExchange | None = None
        if summaries is not None:
            self._exchange = SummaryExchange(summaries, store, self.send, log)

    def _make_links(self, config: Config, peers: Mapping[str, PeerUrl]) -> Links:
        return Links(
            me=config.node.name,
            cluster=config.ring.cluster,
            peers=peers,
            settings=link_settings(config, config.ring_listen),
            tls=link_security(config),
            store_id=self._store_id,
            callbacks=self,
            log=self._log,
            on_reachable=self._reachable,
            release=RELEASE,
        )

    async def reload(self, config: Config) -> None:
        """Take another table of nodes, other certificates or another secret. `run` must be running.

        Raises TlsError, ValueError, and then nothing has changed.
        """
        if not config.other_peers:
            self._renew_certificates_of_join(config)
            self._reload_alone(config)
            return
        in_force = None if self._links is None else self._links.tls
        peers, security = _peer_urls(config), link_security(config, in_force)
        peer_table.check(config.node.name, peers, security)
        self._renew_certificates_of_join(config)
        if self._links is None:
            self._links = await self._begin_links(config, peers[config.node.name])
        self._links.set_tls(security)  # raises, too, where the table in force does not go with it
        self._links.set_peers(peers)
        self._retopologize(config)

    def _reload_alone(self, config: Config) -> None:
        """Its file need not say any more what the links were secured with, nor have [[peers]]."""
        if self._links is not None:
            self._links.set_peers({config.node.name: self._links.own_url})
            self._retopologize(config)

    def _retopologize(self, config: Config) -> None:
        nodes = attrs.evolve(topology(config), gates=self._gates)  # another join counts from the next start
        self._keeper.retopologize(nodes)
        if self._join is not None:
            self._join.retopologize(nodes.nodes)
        if self._summaries is not None:
            self._summaries.retopologize(nodes)

    async def _begin_links(self, config: Config, own: PeerUrl) -> Links:
        """For a node that was alone, and has nobody to link to yet: an address that is taken must not end it."""
        if self._nursery is None:
            raise AssertionError("a reload before `run`")
        links = self._make_links(config, {config.node.name: own})
        links.set_draining(draining=self._draining)
        await self._nursery.start(links.run)
        return links

    def _renew_certificates_of_join(self, config: Config) -> None:
        if self._join is not None and config.join.gates:  # without, it ends with this run
            self._join.renew_certificates(config)

    def _reachable(self, versions: Mapping[str, int]) -> None:
        self._versions = versions
        if self._join is not None:
            self._join.near(frozenset(node for node, version in versions.items() if version >= SINCE[Relayed]))
        self._tell_reachable()
        if self._summaries is not None:
            self._summaries.reachable(versions, trio.current_time())

    def _join_changed(self) -> None:
        self._tell_reachable()
        if self._join is not None:
            self._keeper.joined(self._join.far_nodes())

    def linked(self) -> AbstractSet[str]:
        """The other nodes of this ring that can be reached."""
        return self._versions.keys()

    def set_apart(self, nodes: AbstractSet[str]) -> None:
        """Custody is not to count on these nodes, though there are links to them."""
        if nodes != self._apart:
            self._apart = nodes
            self._tell_reachable()

    def _tell_reachable(self) -> None:
        near = {node: version for node, version in self._versions.items() if node not in self._apart}
        across = {} if self._join is None else self._join.reachable()
        self._keeper.reachable({**near, **across})

    def send(self, peer: str, frame: Frame) -> bool:
        """To a node of this ring, or to one "cluster/node" of the ring that this one is joined to."""
        if is_far(peer):
            return self._join is not None and self._join.send(peer, frame)
        return self._send_near(peer, frame)

    def _send_near(self, peer: str, frame: Frame) -> bool:
        return self._links is not None and self._links.send(peer, frame)

    def peers(self) -> list[PeerStatus]:
        """The nodes of this ring, and the gates of another one that this node has links to."""
        near = [] if self._links is None else self._links.status()
        return near if self._join is None else near + self._join.links()

    @property
    def join(self) -> JoinMode | None:
        """None where this ring is joined to no other."""
        return self._join

    def turned_away(self) -> Mapping[str, int]:
        """Incoming connections that did not become links, of this ring or of the join, by reason."""
        near = {} if self._links is None else self._links.turned_away
        across = {} if self._join is None else self._join.turned_away
        return Counter(near) + Counter(across)

    def learned(self, operator: str, rule: Rule, evidence: int) -> None:
        """This node has learned a rule: the others need not find out for themselves."""
        if self._links is not None:
            for peer in self._links.reachable():
                self._links.send(peer, Learned(operator, rule.value, evidence))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the links up until cancelled. Raises OSError when the listener cannot be bound."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if self._join is not None:
                await nursery.start(self._join.run)
            if self._exchange is not None:
                nursery.start_soon(self._exchange.run)
            if self._links is not None:
                await nursery.start(self._links.run)
            task_status.started()
            await trio.sleep_forever()

    def set_draining(self, *, draining: bool) -> None:
        self._draining = draining
        if self._links is not None:
            self._links.set_draining(draining=draining)
        if self._join is not None:
            self._join.set_draining(draining=draining)

    async def leave(self) -> None:
        async with trio.open_nursery() as nursery:
            if self._links is not None:
                nursery.start_soon(self._links.leave)
            if self._join is not None:
                nursery.start_soon(self._join.leave)

    def _crossed(self, sender: str, frame: Frame) -> None:
        self._keeper.frames(sender, [frame])

    # ring.link.LinkCallbacks

    def on_frames(self, peer: str, frames: list[Frame]) -> None:
        custody_frames = []
        for frame in frames:
            if isinstance(frame, Learned):
                self._take_over(peer, frame)
            elif isinstance(frame, SummaryPart | SummaryWanted):
                if self._summaries is not None:
                    self._summaries.frame(peer, frame, trio.current_time())
            elif isinstance(frame, Relayed | Joined):
                if self._join is not None:
                    self._join.from_near(peer, frame)
            else:
                custody_frames.append(frame)
        self._keeper.frames(peer, custody_frames)

    def _take_over(self, peer: str, frame: Learned) -> None:
        try:
            rule = Rule(frame.rule)
        except ValueError:  # a later version knows more rules than this one
            self._log.warning("ring.unknown_rule", peer=peer, operator=frame.operator, rule=frame.rule)
            return
        self._adopt(frame.operator, rule, frame.evidence)

    def on_up(self, peer: str, hello: Hello) -> None:
        for operator, (rule, evidence) in self._learnings().items():
            self.send(peer, Learned(operator, rule.value, evidence))

    def on_down(self, peer: str, why: str) -> None:
        """`_reachable` has said all that there is to know."""
