"""The timers of one SMPP session (SMPP 3.4 7.2), as a function of `now`; the same for both sides.

    session_init     from the connection to the bind
    enquire_link     from the last thing heard to asking whether the peer is there, and from there to giving it up
    inactivity       from the last PDU that was more than enquire_link

The fourth, the response timer, belongs to each request: `window.Window.sent_until`.
"""

from enum import Enum

from attrs import frozen


@frozen
class Limits:
    """Seconds; 0 for `inactivity_s` means never."""

    session_init_s: float
    enquire_link_s: float
    enquire_link_timeout_s: float
    inactivity_s: float = 0.0


class Due(Enum):
    """What is to be done now. All but the first end the session; their values are the reasons that are logged."""

    ENQUIRE_LINK = "enquire_link"
    NOT_BOUND = "session_init_expired"
    SILENT = "enquire_link_unanswered"
    INACTIVE = "inactive"


class Timers:
    """Set `heard_at` to the time of every receive, and `worked_at` where it held more than enquire_link."""

    __slots__ = ("_bound", "_enquired_at", "_limits", "_started_at", "heard_at", "worked_at")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._started_at = now
        self._bound = False
        self._enquired_at: float | None = None
        self.heard_at = now
        self.worked_at = now

    def bound(self, now: float) -> None:
        """The session is bound: session_init is over, inactivity begins."""
        self._bound = True
        self.heard_at = self.worked_at = now

    def tick(self, now: float) -> Due | None:
        """At most one thing is due at a time; after one that ends the session, do not ask again.

        Anything heard answers an enquire_link, for it shows the same.
        """
        limits = self._limits
        if not self._bound:
            # Before the bind nothing resets the clock, or a peer could hold a connection for ever by talking.
            return Due.NOT_BOUND if now - self._started_at >= limits.session_init_s else None
        if limits.inactivity_s and now - self.worked_at >= limits.inactivity_s:
            return Due.INACTIVE
        if self._enquired_at is not None:
            if self.heard_at < self._enquired_at:
                return Due.SILENT if now - self._enquired_at >= limits.enquire_link_timeout_s else None
            self._enquired_at = None
        if now - self.heard_at >= limits.enquire_link_s:
            self._enquired_at = now
            return Due.ENQUIRE_LINK
        return None
