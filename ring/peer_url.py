"""Where a node is reached by the others: `wss://host:port`, or `ws://` on loopback."""

from ipaddress import ip_address
from urllib.parse import urlsplit

import attrs


@attrs.frozen
class PeerUrl:
    """A peer's url, taken apart. `host` is a name or an IP address without brackets, in lower case."""

    tls: bool
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> "PeerUrl":
        """Raises ValueError for anything but ws:// or wss:// with host and port."""
        parts = urlsplit(url)
        if parts.scheme not in {"ws", "wss"}:
            raise ValueError(f"{url!r} must begin with wss:// (or ws:// on loopback)")
        if not parts.hostname or parts.port is None:
            raise ValueError(f"{url!r} must name host and port, as in wss://10.0.0.1:7301")
        return cls(parts.scheme == "wss", parts.hostname, parts.port)

    def __str__(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://{bracketed(self.host)}:{self.port}"


def bracketed(host: str) -> str:
    """The host as it stands in front of a port."""
    return f"[{host}]" if ":" in host else host


def is_loopback(address: str) -> bool:
    """Whether this is an IP address of this machine's loopback; False for any name but localhost."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def leaves_the_machine(url: PeerUrl) -> bool:
    """Whether the host is an IP address off loopback. A name is judged when it has been resolved, by the link."""
    try:
        return not ip_address(url.host).is_loopback
    except ValueError:
        return False
