"""What losses the servers of a cluster survive, by their weights: Galera's rule, said before it happens. Pure.

The servers that are left go on if together they weigh strictly more than half of what all of them weighed before. A
server that is stopped in good order leaves first, and is not counted as lost. An arbitrator (garbd) has a weight as a
server has.
"""

from collections.abc import Mapping, Sequence

import attrs

from dlrproxy.config.database import Quorum


@attrs.frozen
class Loss:
    """All of these at one moment, or all of a site, or the link to it."""

    of: str  # a node, or "site NAME"
    nodes: tuple[str, ...]
    survived: bool  # by the others


def losses(weights: Mapping[str, int], sites: Mapping[str, str]) -> list[Loss]:
    """Of each node, and of each site that has some of the nodes. `weights` names all servers."""
    by_site: dict[str, list[str]] = {}
    for node in sorted(weights):
        if node in sites:
            by_site.setdefault(sites[node], []).append(node)
    found = [Loss(node, (node,), survives(weights, (node,))) for node in sorted(weights)]
    if len(by_site) > 1:
        found += [
            Loss(f"site {site}", tuple(nodes), survives(weights, nodes)) for site, nodes in sorted(by_site.items())
        ]
    return found


def losses_of(nodes: Sequence[str], quorum: Quorum) -> list[Loss]:
    """As [quorum] has them."""
    weights = {**{node: quorum.weight(node) for node in nodes}, **quorum.arbitrators}
    return losses(weights, quorum.sites)


def survives(weights: Mapping[str, int], lost: Sequence[str]) -> bool:
    """Whether the others go on."""
    left = sum(weight for node, weight in weights.items() if node not in lost)
    return 2 * left > sum(weights.values())
