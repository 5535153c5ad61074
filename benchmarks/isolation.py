"""What the modes with databases cost against ring mode, where no process takes time from another: pure."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from attrs import frozen

from benchmarks.rounds import Measured

# What each is compared to: the ring that carries a report the same way.
BASES: Final[Mapping[str, str]] = {
    "active-passive": "dlrproxy",
    "quorum": "dlrproxy",
    "quorum-hop": "one-hop",
}


@frozen
class Ratios:
    """Of a contestant to its base, each taken within a round."""

    middle: float
    least: float
    most: float


@frozen
class Compared:
    """One contestant under one load: medians over the rounds."""

    load: str
    contestant: str
    per_s: float
    cpu_us: float  # a message, of all its nodes
    node_us: float  # of that, the node's that uses most
    server_us: float  # the database server's that uses most
    throughput: Ratios | None  # None: it is a base itself
    cpu: Ratios | None
    accounted: Ratios | None  # of the messages a second that its busiest process has time for


def compared(rounds: Sequence[Sequence[Measured]], server_processors: float) -> list[Compared]:
    """In the order of the measurements of a round. A server has so many processors for a node's one."""
    keyed = [{(found.load.name, found.contestant): found for found in measured} for measured in rounds]

    def ratios(own: Sequence[float], bases: Sequence[float]) -> Ratios | None:
        each = [mine / theirs for mine, theirs in zip(own, bases, strict=True)] if bases else []
        return Ratios(median(each), min(each), max(each)) if each else None

    def row(load: str, contestant: str) -> Compared:
        own = [found[load, contestant] for found in keyed]
        bases = [found[key] for found in keyed if (key := (load, BASES.get(contestant, ""))) in found]
        return Compared(
            load=load,
            contestant=contestant,
            per_s=median(found.per_s for found in own),
            cpu_us=median(found.cpu_us for found in own),
            node_us=median(found.node_us for found in own),
            server_us=median(found.server_us for found in own),
            throughput=ratios([found.per_s for found in own], [found.per_s for found in bases]),
            cpu=ratios([found.cpu_us for found in own], [found.cpu_us for found in bases]),
            accounted=ratios(
                [most_per_s(found, server_processors) for found in own],
                [most_per_s(found, server_processors) for found in bases],
            ),
        )

    return [row(load, contestant) for load, contestant in (keyed[0] if keyed else ())]


def most_per_s(found: Measured, server_processors: float) -> float:
    """Messages a second, if nothing but the time of its busiest process bounds them."""
    return 1e6 / max(found.node_us, found.server_us / server_processors)
