"""Every contestant by its name, in the order of the report."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.contestants import Contestant, byte_relay, direct, haproxy, one_hop, one_node
from benchmarks.database_pair import active_passive
from benchmarks.database_quorum import quorum, quorum_hop
from dlrproxy.store.sql.store import JOURNAL_AFTER_S

Starter = Callable[[Path, int], Contestant]

STARTERS: Final[Mapping[str, Starter]] = {
    "direct": direct,
    "byte-relay": byte_relay,
    "haproxy": haproxy,
    "dlrproxy": one_node,
    "one-hop": one_hop,
    "active-passive": active_passive,
    "quorum": quorum,
    "quorum-hop": quorum_hop,
}


def slowed(factor: float) -> Mapping[str, Starter]:
    """The same for processors so much slower: a commit takes as much longer before it counts as late."""
    late_s = JOURNAL_AFTER_S * factor
    return {
        **STARTERS,
        "active-passive": partial(active_passive, journal_after_s=late_s),
        "quorum": partial(quorum, journal_after_s=late_s),
        "quorum-hop": partial(quorum_hop, journal_after_s=late_s),
    }


CROSSED: Final = frozenset({"one-hop", "quorum-hop"})
