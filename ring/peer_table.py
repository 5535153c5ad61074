"""The node table as the links use it: what must hold of it, and what follows from it."""

from collections.abc import Mapping

from ring.far import node_of
from ring.peer_url import PeerUrl, leaves_the_machine
from ring.tls import RingTls, canonical_name


def check(me: str, peers: Mapping[str, PeerUrl], tls: RingTls) -> None:
    """Raises ValueError for a table without this node, or with a link that `tls` cannot secure."""
    if me not in peers:
        raise ValueError(f"{me} is not among the peers {', '.join(peers)}")
    for name, url in peers.items():
        if url.tls and not tls.authenticates:
            raise ValueError(f"{name}: {url} needs certificates or a secret")
        if not url.tls and leaves_the_machine(url):
            raise ValueError(f"{name}: {url} would leave this machine unencrypted; use wss://")
        if not url.tls and tls.mutual:
            raise ValueError(f"{name}: {url} would not use the certificates; use wss://")


def others(me: str, peers: Mapping[str, PeerUrl]) -> dict[str, PeerUrl]:
    """The peers of this node, in table order."""
    return {name: url for name, url in peers.items() if name != me}


def certificate_names(peers: Mapping[str, PeerUrl]) -> dict[str, frozenset[str]]:
    """The names of which each peer's certificate must carry one: the node's, or its url's host.

    In a certificate a gate goes by its node's name, without the cluster.
    """
    return {name: frozenset({canonical_name(node_of(name)), canonical_name(url.host)}) for name, url in peers.items()}
