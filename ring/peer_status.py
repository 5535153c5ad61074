"""What is known of one peer over all its links, and how `status` shows it."""

import attrs
import trio

from protocols.peer.hello import Hello
from ring.connection import Link
from ring.peer_url import PeerUrl


@attrs.frozen
class PeerStatus:
    """A peer as `status` and the admin API show it. Counters are since start, over all links."""

    name: str
    url: str
    dials: bool  # this node dials it
    state: str  # alive, suspect, dead (ring/membership.py)
    linked: bool
    address: str  # of the other end; empty without a link
    version: int  # of the frames: the highest that both speak; 0 without a link
    store_id: str  # in hex; empty until it was met
    boot: str  # in hex; empty until it was met
    draining: bool
    up_s: float  # age of the link; 0 without one
    silent_s: float | None  # None: never heard
    outbox_frames: int
    outbox_bytes: int
    frames_in: int
    frames_out: int
    messages_in: int
    messages_out: int
    bytes_in: int  # of the WebSocket, without TLS
    bytes_out: int
    ups: int  # how many links there were
    outbox_full: int  # frames that `send` did not take
    frames_withheld: int  # not sent, since the peer is of an earlier version that does not know them
    frames_skipped: int  # from the peer, of a later version that this node does not know
    failure: str  # why there is no link, or why the last attempt or link ended
    release: str = ""  # of the program that it runs, or ran when it was last linked; empty: unknown


@attrs.define
class PeerRecord:
    """A peer of the table: its present link, and the counters of the earlier ones."""

    name: str
    url: PeerUrl
    link: Link | None = None
    hello: Hello | None = None  # of the newest link
    dialling: trio.CancelScope | None = None
    dial: int = 0
    ups: int = 0
    outbox_full: int = 0
    failure: str = ""
    frames_withheld: int = 0
    tags_skipped: set[int] = attrs.field(factory=set)  # those that were logged
    frames_skipped: int = 0
    frames_in: int = 0
    frames_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def linked(self, link: Link) -> None:
        self.link, self.hello = link, link.hello
        self.failure = ""
        self.ups += 1

    def unlinked(self, link: Link) -> None:
        self.link = None
        self.failure = link.why or ""
        self.frames_skipped += link.skipped.total()
        self.frames_in += link.frames_in
        self.frames_out += link.frames_out
        self.messages_in += link.messages_in
        self.messages_out += link.messages_out
        self.bytes_in += link.stream.bytes_in
        self.bytes_out += link.stream.bytes_out

    def status(self, *, dials: bool, state: str, silent_s: float | None, now: float) -> PeerStatus:
        link, hello = self.link, self.hello
        return PeerStatus(
            name=self.name,
            url=str(self.url),
            dials=dials,
            state=state,
            linked=link is not None,
            address=link.address if link else "",
            version=link.version if link else 0,
            store_id=hello.store_id.hex() if hello else "",
            boot=hello.boot.hex() if hello else "",
            draining=bool(link and link.draining),
            up_s=now - link.since if link else 0.0,
            silent_s=silent_s,
            outbox_frames=len(link.outbox) if link else 0,
            outbox_bytes=link.outbox.size if link else 0,
            frames_in=self.frames_in + (link.frames_in if link else 0),
            frames_out=self.frames_out + (link.frames_out if link else 0),
            messages_in=self.messages_in + (link.messages_in if link else 0),
            messages_out=self.messages_out + (link.messages_out if link else 0),
            bytes_in=self.bytes_in + (link.stream.bytes_in if link else 0),
            bytes_out=self.bytes_out + (link.stream.bytes_out if link else 0),
            ups=self.ups,
            outbox_full=self.outbox_full,
            frames_withheld=self.frames_withheld,
            frames_skipped=self.frames_skipped + (link.skipped.total() if link else 0),
            failure=self.failure,
            release=hello.release if hello else "",
        )
