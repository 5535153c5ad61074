"""Ring mode: every node keeps its own open messages and custody, and asks the others round the ring.

This file ties the links between nodes to custody and to summaries, and shares what is learned about an operator's
message ids.
"""

from collections.abc import Callable, Mapping

import trio
from structlog.typing import FilteringBoundLogger

from dlrproxy.config import Config
from dlrproxy.custody import Keeper
from dlrproxy.modes.summaries import SummaryExchange
from dlrproxy.store.port import Store
from protocols.peer.frames import Frame, Learned, SummaryPart, SummaryWanted
from protocols.peer.hello import Hello
from protocols.smpp.message_ids import Rule
from ring import peer_table, tls
from ring.link import Links
from ring.link_settings import LinkSettings
from ring.peer_status import PeerStatus
from ring.peer_url import PeerUrl
from ring.settings import CustodySettings, OperatorPolicy
from ring.summaries import Summaries
from ring.topology import Topology

# Operators' rules as learned here, with the evidence for each; operators without one are left out.
Learnings = Callable[[], Mapping[str, tuple[Rule, int]]]
Adopt = Callable[[str, Rule, int], None]


def topology(config: Config) -> Topology:
    return Topology(config.node_names, config.node.name)


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
    )


def link_settings(config: Config) -> LinkSettings:
    ring = config.ring
    listen = config.ring_listen
    return LinkSettings(
        heartbeat_s=ring.heartbeat_s,
        suspect_after_s=ring.suspect_after_s,
        dead_after_s=ring.dead_after_s,
        listen=None if listen is None else (listen.host, listen.port),
    )


def link_security(config: Config, in_force: tls.RingTls | None = None) -> tls.RingTls:
    """Raises TlsError.

    What was made up for a secret is good for as long as the secret: another certificate would take a temporary file,
    and a reload must not fail because a disk is full.
    """
    ring = config.ring
    secret = None if ring.secret is None else ring.secret.reveal()
    if ring.ca_file and ring.cert_file and ring.key_file:
        return tls.mutual(ring.ca_file, ring.cert_file, ring.key_file, secret)
    if secret is not None:
        made_up = in_force is not None and not in_force.mutual and in_force.secret == secret
        return in_force if in_force is not None and made_up else tls.shared_secret(secret)
    return tls.plain()


def _peer_urls(config: Config) -> dict[str, PeerUrl]:
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
        self._draining = False
        self._nursery: trio.Nursery | None = None
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
            settings=link_settings(config),
            tls=link_security(config),
            store_id=self._store_id,
            callbacks=self,
            log=self._log,
            on_reachable=self._reachable,
        )

    async def reload(self, config: Config) -> None:
        """Take another table of nodes, other certificates or another secret. `run` must be running.

        Raises TlsError, ValueError, and then nothing has changed.
        """
        if self._links is None and not config.other_peers:
            return
        in_force = None if self._links is None else self._links.tls
        nodes, peers, security = topology(config), _peer_urls(config), link_security(config, in_force)
        peer_table.check(config.node.name, peers, security)
        if self._links is None:
            self._links = await self._begin_links(config, peers[config.node.name])
        self._links.set_tls(security)  # raises, too, where the table in force does not go with it
        self._links.set_peers(peers)
        self._keeper.retopologize(nodes)
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

    def _reachable(self, versions: Mapping[str, int]) -> None:
        self._keeper.reachable(versions)
        if self._summaries is not None:
            self._summaries.reachable(versions, trio.current_time())

    def send(self, peer: str, frame: Frame) -> bool:
        return self._links is not None and self._links.send(peer, frame)

    def peers(self) -> list[PeerStatus]:
        return [] if self._links is None else self._links.status()

    def turned_away(self) -> Mapping[str, int]:
        """Incoming connections that did not become links, by reason."""
        return {} if self._links is None else self._links.turned_away

    def learned(self, operator: str, rule: Rule, evidence: int) -> None:
        """This node has learned a rule: the others need not find out for themselves."""
        if self._links is not None:
            for peer in self._links.reachable():
                self._links.send(peer, Learned(operator, rule.value, evidence))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the links up until cancelled. Raises OSError when the listener cannot be bound."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
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

    async def leave(self) -> None:
        if self._links is not None:
            await self._links.leave()

    # ring.link.LinkCallbacks

    def on_frames(self, peer: str, frames: list[Frame]) -> None:
        custody_frames = []
        for frame in frames:
            if isinstance(frame, Learned):
                self._take_over(peer, frame)
            elif isinstance(frame, SummaryPart | SummaryWanted):
                if self._summaries is not None:
                    self._summaries.frame(peer, frame, trio.current_time())
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
