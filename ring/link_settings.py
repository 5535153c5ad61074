"""The settings of the links between nodes: times in seconds, sizes in bytes."""

import attrs
from attrs.validators import ge, gt


@attrs.frozen(kw_only=True)
class LinkSettings:
    """Raises ValueError for settings that cannot work together."""

    heartbeat_s: float = attrs.field(default=1.0, validator=gt(0))
    suspect_after_s: float = attrs.field(default=3.0, validator=gt(0))  # three heartbeats lost
    dead_after_s: float = attrs.field(default=10.0, validator=gt(0))  # TCP retransmits several times within this
    connect_timeout_s: float = attrs.field(default=5.0, validator=gt(0))  # name look-up, TCP and TLS
    handshake_s: float = attrs.field(default=5.0, validator=gt(0))  # what a stranger gets to prove itself
    reconnect_min_s: float = attrs.field(default=0.2, validator=gt(0))
    # Of two nodes only one dials, so a node that has restarted waits for a link this long at most. An attempt that is
    # refused costs less than the heartbeats of a link.
    reconnect_max_s: float = attrs.field(default=2.0, validator=gt(0))
    goodbye_s: float = attrs.field(default=0.5, validator=ge(0))  # for the closing handshake
    # A frame holds about 300 bytes, so the first bound is met first: 3 MB a peer, a second's worth at 10,000 misses/s.
    outbox_frames: int = attrs.field(default=10_000, validator=ge(1))
    outbox_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=ge(1))
    # A message is cut here: below a hundred frames the cost of a message shows, above a few hundred it does
    # not, and what comes behind waits for a whole message.
    batch_frames: int = attrs.field(default=500, validator=ge(1))
    batch_bytes: int = attrs.field(default=256 * 1024, validator=ge(1))
    listen: tuple[str, int] | None = None  # host and port; None: those of this node's own url

    def __attrs_post_init__(self) -> None:
        if not self.heartbeat_s < self.suspect_after_s <= self.dead_after_s:
            raise ValueError(
                f"heartbeat_s {self.heartbeat_s} must be below suspect_after_s {self.suspect_after_s}, "
                f"and that not above dead_after_s {self.dead_after_s}"
            )
        if self.reconnect_min_s > self.reconnect_max_s:
            raise ValueError(f"reconnect_min_s {self.reconnect_min_s} is above reconnect_max_s {self.reconnect_max_s}")
