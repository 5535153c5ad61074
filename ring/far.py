"""Names of nodes in another ring: "cluster/node". A name without a cluster is one of this ring."""

from typing import Final

_BETWEEN: Final = "/"  # no name of a node or a cluster has one


def far_name(cluster: str, node: str) -> str:
    return f"{cluster}{_BETWEEN}{node}"


def is_far(name: str) -> bool:
    return _BETWEEN in name


def cluster_of(name: str) -> str:
    """Empty for a node of this ring."""
    return name.rpartition(_BETWEEN)[0]


def node_of(name: str) -> str:
    """The name by which it goes in its own ring."""
    return name.rpartition(_BETWEEN)[2]
