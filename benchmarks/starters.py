"""Every contestant by its name, in the order of the report."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.contestants import Contestant, byte_relay, direct, haproxy, one_hop, one_node
from benchmarks.database_pair import active_passive
from benchmarks.database_quorum import quorum, quorum_hop

STARTERS: Final[Mapping[str, Callable[[Path, int], Contestant]]] = {
    "direct": direct,
    "byte-relay": byte_relay,
    "haproxy": haproxy,
    "dlrproxy": one_node,
    "one-hop": one_hop,
    "active-passive": active_passive,
    "quorum": quorum,
    "quorum-hop": quorum_hop,
}
CROSSED: Final = frozenset({"one-hop", "quorum-hop"})
