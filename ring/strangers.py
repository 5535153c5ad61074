"""How much those who have not yet proved who they are may ask of us: pure, given the time, and bounded.

Three bounds, and what happens at each: a source address that connects too often, a source with too many handshakes
open, too many handshakes open in all. The connection is closed at once, before TLS or any byte: no use to the one
who floods, and a peer dials again. A source that proved to be a peer gets its attempts back, so several nodes behind
one address, or one that restarts in a loop, are not locked out.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal

import attrs

Excess = Literal["too_often", "too_many_from_source", "too_many"]

BURST: Final = 20.0  # attempts at once; three nodes on one host that restart together need a handful
REFILL_PER_S: Final = 3.0  # four peers behind one address that are refused for good dial less often than this
MAX_OPEN_PER_SOURCE: Final = 16
MAX_OPEN: Final = 128  # each may hold a socket, a TLS state and 4 KiB for 5 s
MAX_SOURCES: Final = 4096  # about 1 MB


@attrs.define
class _Source:
    tokens: float
    at: float
    open: int = 0


class StrangerLimit:
    """A token bucket per source address, and counts of the handshakes that are open."""

    def __init__(
        self,
        *,
        burst: float = BURST,
        refill_per_s: float = REFILL_PER_S,
        max_open_per_source: int = MAX_OPEN_PER_SOURCE,
        max_open: int = MAX_OPEN,
        max_sources: int = MAX_SOURCES,
    ) -> None:
        self._burst = burst
        self._refill_per_s = refill_per_s
        self._max_open_per_source = max_open_per_source
        self._max_open = max_open
        self._max_sources = max_sources
        self._sources: OrderedDict[str, _Source] = OrderedDict()  # the longest unseen first
        self._open = 0

    def __len__(self) -> int:
        return len(self._sources)

    def admit(self, address: str, now: float) -> Excess | None:
        """None: go on, and call `finished` when the handshake is over. Otherwise close the connection."""
        if self._open >= self._max_open:
            return "too_many"
        source = self._source(address, now)
        if source.open >= self._max_open_per_source:
            return "too_many_from_source"
        if source.tokens < 1.0:
            return "too_often"
        source.tokens -= 1.0
        source.open += 1
        self._open += 1
        return None

    def finished(self, address: str, *, proven: bool) -> None:
        """The handshake of an admitted connection is over, one way or the other."""
        source = self._sources[source_of(address)]  # is there: a source with an open handshake is never forgotten
        source.open -= 1
        self._open -= 1
        if proven:
            source.tokens = self._burst

    def _source(self, address: str, now: float) -> _Source:
        name = source_of(address)
        source = self._sources.get(name)
        if source is None:
            self._make_room()
            source = self._sources[name] = _Source(self._burst, now)
        source.tokens = min(self._burst, source.tokens + max(0.0, now - source.at) * self._refill_per_s)
        source.at = now
        self._sources.move_to_end(name)
        return source

    def _make_room(self) -> None:
        """Forget the source that was not seen for the longest time; at most MAX_OPEN are passed over."""
        if len(self._sources) < self._max_sources:
            return
        for name, source in self._sources.items():
            if source.open == 0:
                del self._sources[name]
                return


def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 one, since a host has all of that."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))
