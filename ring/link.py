"""The links of this node to every other one: a full mesh of WebSocket connections, kept up.

Of two nodes the one whose name sorts first dials. Frames to a peer go through a bounded outbox and arrive in order on
one link; what is queued or on the wire when a link breaks is lost, and custody repeats it. A link carries only frames
of the version that both ends speak. A peer has one link at a time: `on_up`, then its frames, then `on_down`, and never
two of them interleaved.
"""

import random
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

import attrs
import trio
from structlog.typing import FilteringBoundLogger
from trio_websocket import WebSocketConnection

from protocols.peer.frames import Frame, Heartbeat, speaks
from protocols.peer.hello import NONCE_BYTES, Hello
from ring import peer_table
from ring.connection import CLOSED_BY_PEER, LEAVING, STOPPED, Failure, Link, hold
from ring.entrance import Entrance
from ring.guarded_stream import GuardedStream
from ring.handshake import Agreed, DiallerHandshake, Terms, dials
from ring.link_settings import LinkSettings
from ring.membership import Membership, State
from ring.peer_status import PeerRecord, PeerStatus
from ring.peer_url import PeerUrl, bracketed
from ring.tls import RingTls
from ring.transport import TransportError, address_of, connect, listen

BOOT_BYTES: Final = 8
_EXPECTED: Final = {STOPPED, LEAVING, f"{CLOSED_BY_PEER}: {LEAVING}"}  # ends of a link that nobody need look into
_TICKS_IN_SUSPECT: Final = 4  # so a silent node is noticed at most a quarter later than the setting says


class LinkCallbacks(Protocol):
    """Who uses the links. All of it is called synchronously from the event loop and must not block."""

    def on_frames(self, peer: str, frames: list[Frame]) -> None:
        """Frames of one message, in the order in which the peer sent them; heartbeats are kept back."""

    def on_up(self, peer: str, hello: Hello) -> None:
        """There is a link, and `reachable()` names the peer already."""

    def on_down(self, peer: str, why: str) -> None:
        """The link is gone, with whatever was on its way; `reachable()` does not name the peer any more."""


class Links:
    """Run it in a nursery; everything else is synchronous and may be called at any time.

    `on_reachable` is called whenever the reachable nodes, or the version of the frames that one of them speaks, have
    changed: with the versions, by name.

    Raises ValueError for a table that cannot be secured: wss:// without certificates or secret, ws:// off loopback.
    """

    def __init__(
        self,
        *,
        me: str,
        cluster: str,
        peers: Mapping[str, PeerUrl],
        settings: LinkSettings,
        tls: RingTls,
        store_id: bytes,
        callbacks: LinkCallbacks,
        log: FilteringBoundLogger,
        on_reachable: Callable[[Mapping[str, int]], None] | None = None,
        release: str = "",
    ) -> None:
        """`release` is that of the program, which is told to every peer."""
        peer_table.check(me, peers, tls)
        others = peer_table.others(me, peers)
        self._me = me
        self._own_url = peers[me]
        self._settings = settings
        self._tls = tls
        self._callbacks = callbacks
        self._log = log
        self._on_reachable = on_reachable
        self._told_reachable: Mapping[str, int] = {}
        self._peers = {name: PeerRecord(name, url) for name, url in others.items()}
        self._membership = Membership(
            others, suspect_after_s=settings.suspect_after_s, dead_after_s=settings.dead_after_s
        )
        self._terms = Terms(
            node=me,
            cluster=cluster,
            store_id=store_id,
            boot=secrets.token_bytes(BOOT_BYTES),
            peers=peer_table.certificate_names(others),
            secret=tls.secret,
            release=release,
        )
        self._entrance = Entrance(
            security=lambda: (self._terms, self._tls if self._own_url.tls else None),
            handshake_s=settings.handshake_s,
            linked=self._dialled_by_peer,
            log=log,
        )
        self._jitter = random.SystemRandom()
        self._draining = False
        self._leaving = False
        self._all_down = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._listening: tuple[str, int] | None = None

    # What the rest of the node uses

    def send(self, peer: str, frame: Frame) -> bool:
        """Queue a frame for `peer`; False when it has no link, speaks no such frame, or its outbox is full.

        True is no promise that it arrives: the link may break first.
        """
        record = self._peers.get(peer)
        if record is None or record.link is None:
            return False
        if not speaks(record.link.version, frame):
            record.frames_withheld += 1
            return False
        if record.link.outbox.put(frame):
            return True
        record.outbox_full += 1
        return False

    def reachable(self) -> frozenset[str]:
        """The other nodes that are linked and were heard of lately."""
        return self._membership.alive()

    def versions(self) -> dict[str, int]:
        """The version of the frames that each reachable node and this one both speak."""
        alive = self._membership.alive()
        return {name: peer.link.version for name, peer in self._peers.items() if peer.link and name in alive}

    @property
    def listening(self) -> tuple[str, int] | None:
        """Host and port of the listener; None when no node dials this one, or `run` has not started."""
        return self._listening

    @property
    def own_url(self) -> PeerUrl:
        """The one in force; a changed one counts from the next start."""
        return self._own_url

    @property
    def tls(self) -> RingTls:
        """What the links to come are secured with."""
        return self._tls

    @property
    def boot(self) -> bytes:
        """What tells this run of the process from the one before."""
        return self._terms.boot

    @property
    def turned_away(self) -> Mapping[str, int]:
        """Incoming connections that did not become links, by reason."""
        return self._entrance.turned_away

    def status(self) -> list[PeerStatus]:
        """One value a peer, in table order."""
        now = trio.current_time()
        return [
            peer.status(
                dials=dials(self._me, name),
                state=self._membership.state(name).value,
                silent_s=self._membership.silent_s(name, now),
                now=now,
            )
            for name, peer in self._peers.items()
        ]

    def set_draining(self, *, draining: bool) -> None:
        """Tell every peer, now and with each later heartbeat."""
        self._draining = draining
        for peer in self._peers.values():
            if peer.link is not None:
                peer.link.say(self._heartbeat())

    def set_peers(self, peers: Mapping[str, PeerUrl]) -> None:
        """Take a new table: links of nodes that stay as they are go on untouched.

        A changed url of this node itself counts from the next start. Raises ValueError as the constructor does, and
        then nothing has changed.
        """
        peer_table.check(self._me, peers, self._tls)
        if peers[self._me] != self._own_url:
            self._log.warning("ring.own_url_changed", url=str(peers[self._me]), counts_from="the next start")
        others = peer_table.others(self._me, peers)
        for peer in list(self._peers.values()):
            if others.get(peer.name) != peer.url:
                self._forget(peer)
        self._peers = {name: self._peers.get(name) or PeerRecord(name, url) for name, url in others.items()}
        self._terms = attrs.evolve(self._terms, peers=peer_table.certificate_names(others))
        self._membership.set_nodes(others)
        self._tick()
        if self._nursery is not None:
            self._start_what_is_missing(self._nursery)

    def set_tls(self, tls: RingTls) -> None:
        """Use other certificates or another secret for the links to come. Raises ValueError as the constructor does."""
        peer_table.check(
            self._me, {self._me: self._own_url} | {name: peer.url for name, peer in self._peers.items()}, tls
        )
        self._tls = tls
        self._terms = attrs.evolve(self._terms, secret=tls.secret)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, dial and keep links until cancelled; started when the listener is bound.

        Raises OSError when it cannot be bound, ValueError when it would be plain and off loopback.
        """
        listeners = await self._bind() if self._is_dialled() else []
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                if listeners:
                    await nursery.start(trio.serve_listeners, self._entrance.welcome, listeners)
                self._start_what_is_missing(nursery)
                task_status.started()
                await self._watch()
            finally:
                self._nursery = None

    async def leave(self) -> None:
        """Send what is queued, close every link and make no new one; takes `goodbye_s` at most."""
        self._leaving = True
        self._draining = True
        links = [peer.link for peer in self._peers.values() if peer.link is not None]
        for link in links:
            link.leave(self._heartbeat())
        if links:
            with trio.move_on_after(self._settings.goodbye_s):
                await self._all_down.wait()

    # The mesh

    def _is_dialled(self) -> bool:
        return any(dials(name, self._me) for name in self._peers)

    async def _bind(self) -> list[trio.SocketListener]:
        host, port = self._settings.listen or (self._own_url.host, self._own_url.port)
        try:
            listeners = await listen(host, port, plain=not self._own_url.tls)
        except OSError as error:
            hint = "" if self._settings.listen else "; ring.listen is for an address other than the peer url's"
            raise OSError(error.errno, f"cannot listen for peers at {bracketed(host)}:{port}: {error}{hint}") from error
        self._listening = address_of(listeners[0])
        self._log.info("ring.listening", host=self._listening[0], port=self._listening[1], tls=self._own_url.tls)
        return listeners

    async def _listen_later(self) -> None:
        """A reload brought the first node that dials this one. A port that is taken must not end a running node."""
        try:
            listeners = await self._bind()
        except (OSError, ValueError) as error:
            self._log.error("ring.cannot_listen", detail=str(error))
            return
        await trio.serve_listeners(self._entrance.welcome, listeners)

    def _start_what_is_missing(self, nursery: trio.Nursery) -> None:
        for name, peer in self._peers.items():
            if dials(self._me, name) and peer.dialling is None:
                peer.dialling = trio.CancelScope()
                nursery.start_soon(self._keep_dialling, peer, peer.dialling)
        if self._is_dialled() and self._listening is None:
            nursery.start_soon(self._listen_later)

    def _forget(self, peer: PeerRecord) -> None:
        """A node left the table, or moved: its link and its dialling end."""
        if peer.link is not None:
            self._drop(peer, peer.link, "the peer table has changed")
        elif peer.dialling is not None:
            peer.dialling.cancel()
        del self._peers[peer.name]  # a link that takes leave of the peer just now is not dialled again

    async def _watch(self) -> None:
        while True:
            await trio.sleep(self._settings.suspect_after_s / _TICKS_IN_SUSPECT)
            self._tick()

    def _tick(self) -> None:
        """Judge the silence of every peer; a link that was silent for too long is closed, however open it looks."""
        now = trio.current_time()
        for name, peer in self._peers.items():
            if peer.link is not None and peer.link.shows_life():
                self._membership.heard(name, now)
        for change in self._membership.tick(now):
            self._log.info("peer.state", peer=change.node, old=change.old.value, new=change.new.value)
            silent = self._peers.get(change.node)  # None while a reload takes it out
            if change.new is State.DEAD and silent is not None and silent.link is not None:
                self._drop(silent, silent.link, "silent", forced=True)
        reachable = self.versions()
        if reachable != self._told_reachable:
            self._told_reachable = reachable
            if self._on_reachable is not None:
                self._on_reachable(reachable)

    # Links

    async def _dialled_by_peer(
        self, address: str, websocket: WebSocketConnection, stream: GuardedStream, agreed: Agreed
    ) -> None:
        await self._run_link(address, agreed.hello.dial, websocket, stream, agreed)

    async def _run_link(
        self, address: str, dial: int, websocket: WebSocketConnection, stream: GuardedStream, agreed: Agreed
    ) -> None:
        link = Link(websocket, stream, agreed, self._settings, address=address, dial=dial)
        peer = self._adopt(link)
        if peer is None:
            self._log.info("peer.link_not_wanted", peer=link.peer, address=address)
            return
        try:
            await link.run(self._received, self._heartbeat)
        finally:
            self._drop(peer, link, STOPPED)

    def _adopt(self, link: Link) -> PeerRecord | None:
        """Make it the peer's link; None when the peer has a newer one, or none is wanted."""
        peer = self._peers.get(link.peer)
        if peer is None or self._leaving:
            return None
        if peer.link is not None:
            if not link.supersedes(peer.link):
                return None
            self._drop(peer, peer.link, "replaced by a newer link")
        peer.linked(link)
        if self._draining:
            link.say(self._heartbeat())
        self._log.info(
            "peer.up", peer=link.peer, address=link.address, version=link.version, release=link.hello.release
        )
        self._membership.linked(link.peer, trio.current_time())
        self._tick()
        self._callbacks.on_up(link.peer, link.hello)
        return peer

    def _drop(self, peer: PeerRecord, link: Link, why: str, *, forced: bool = False) -> None:
        """The one place where a link stops being its peer's link; nothing, if it is so no longer."""
        if peer.link is not link:
            return
        link.close(why, forced=forced)
        peer.unlinked(link)
        log = self._log.info if link.why in _EXPECTED else self._log.warning
        log("peer.down", peer=peer.name, address=link.address, why=link.why, unsent=len(link.outbox))
        self._membership.unlinked(peer.name, trio.current_time())
        self._tick()
        self._callbacks.on_down(peer.name, link.why or why)
        if not any(other.link for other in self._peers.values()):
            self._all_down.set()

    def _received(self, link: Link, frames: list[Frame]) -> None:
        peer = self._peers.get(link.peer)
        if peer is None or peer.link is not link:
            return  # it was replaced a moment ago
        self._membership.heard(link.peer, trio.current_time())
        if new := link.skipped.keys() - peer.tags_skipped:
            peer.tags_skipped |= new
            self._log.warning("peer.frames_skipped", peer=link.peer, tags=sorted(new), version=link.version)
        wanted: list[Frame] = []
        for frame in frames:
            if isinstance(frame, Heartbeat):
                link.draining = frame.draining
            else:
                wanted.append(frame)
        if wanted:
            self._callbacks.on_frames(link.peer, wanted)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(draining=self._draining)

    # Dialling

    async def _keep_dialling(self, peer: PeerRecord, scope: trio.CancelScope) -> None:
        """One link after the other, with a back-off that a link which lasted sets back."""
        settings = self._settings
        wait = settings.reconnect_min_s
        with scope:
            while not self._leaving and self._peers.get(peer.name) is peer:
                began = trio.current_time()
                failure = await self._dial(peer)
                if failure is not None:
                    self._note_failure(peer, failure)
                elif trio.current_time() - began > settings.reconnect_max_s:
                    wait = settings.reconnect_min_s
                await trio.sleep(wait * self._jitter.uniform(0.5, 1.0))
                wait = min(settings.reconnect_max_s, wait * 2)

    async def _dial(self, peer: PeerRecord) -> Failure | None:
        """One attempt, and the link that comes of it to its end; None if it came to a link."""
        peer.dial += 1
        try:
            with trio.fail_after(self._settings.connect_timeout_s):
                transport = await connect(peer.url, self._tls)
        except trio.TooSlowError:
            return Failure("unreachable", f"no connection within {self._settings.connect_timeout_s} s")
        except TransportError as error:
            return Failure(error.reason, str(error))
        machine = DiallerHandshake(
            self._terms, transport.channel, secrets.token_bytes(NONCE_BYTES), peer=peer.name, dial=peer.dial
        )
        host = f"{bracketed(peer.url.host)}:{peer.url.port}"
        deadline = trio.current_time() + self._settings.handshake_s
        return await hold(
            transport.stream, machine, host, deadline, partial(self._run_link, transport.address, peer.dial)
        )

    def _note_failure(self, peer: PeerRecord, failure: Failure) -> None:
        """Log the first failure of a kind, not each of the attempts that end like the one before."""
        told = f"{failure.reason}: {failure.detail}"
        log = self._log.debug if peer.failure == told else self._log.warning
        peer.failure = told
        log("peer.dial_failed", peer=peer.name, url=str(peer.url), **failure.fields())
