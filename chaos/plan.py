"""Which faults come when. Pure: the same seed gives the same schedule."""

from collections import deque
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import combinations
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple

from attrs import field, frozen, validators

FEWEST_NODES: Final = 3
MOST_NODES: Final = 9  # names stay in order, and a machine has only so many cores

# A half-open or stopped neighbour is given up after this; faults come shorter and longer.
DEAD_AFTER_S: Final = 4.0

# An MO to this number is for no gateway by rule, and all parts of it are for one.
UNRULED: Final = "7000"

SLOW_S: Final = 4.0  # the longest that a slow gateway takes to answer: beyond gateway_answer_s


class Scope(Enum):
    """What a fault holds, so that no other comes over it."""

    NODE = "node"
    ALL_NODES = "all nodes"
    LINK = "link"  # between two nodes
    UPLINK = "uplink"  # between a node and the operator
    OPERATOR = "operator"
    GATEWAY = "gateway"  # with its connection to its node


class Kind(Enum):
    """The faults. The text is what the schedule and the table say."""

    KILL = "kill -9, restart"
    POWER_CUT = "kill -9 of all nodes, restart"
    STOP = "SIGTERM, restart"
    PAUSE = "SIGSTOP, short"
    LONG_PAUSE = "SIGSTOP, taken for dead"
    DISK_FULL = "disk full"
    DRAIN = "drained, and put back"
    REMOVAL = "drained, out of the table, back"
    LINK_CUT = "link cut"
    LINK_HALF_OPEN = "link half-open"
    LINK_ONE_WAY = "link half-open, one way"
    LINK_SLOW = "link slow"
    OPERATOR_RESTART = "operator restarts"
    UPLINK_CUT = "operator's line cut"
    UPLINK_HALF_OPEN = "operator's line half-open"
    GATEWAY_RESTART = "gateway restarts"
    GATEWAY_STUCK = "gateway reads nothing"
    GATEWAY_SLOW = "gateway answers slowly"
    GATEWAY_REFUSES = "gateway cannot take reports"
    GATEWAY_HALF_OPEN = "gateway's line half-open"


class Extent(NamedTuple):
    """Where a fault happens, and for how many seconds."""

    scope: Scope
    shortest_s: float
    longest_s: float


EXTENTS: Final[Mapping[Kind, Extent]] = MappingProxyType(
    {
        Kind.KILL: Extent(Scope.NODE, 0.1, 6),
        Kind.POWER_CUT: Extent(Scope.ALL_NODES, 0.1, 3),
        Kind.STOP: Extent(Scope.NODE, 0.1, 4),
        Kind.PAUSE: Extent(Scope.NODE, 0.2, DEAD_AFTER_S - 1),
        Kind.LONG_PAUSE: Extent(Scope.NODE, DEAD_AFTER_S + 1, DEAD_AFTER_S + 5),
        Kind.DISK_FULL: Extent(Scope.NODE, 1, 8),
        Kind.DRAIN: Extent(Scope.NODE, 0.1, 8),
        Kind.REMOVAL: Extent(Scope.NODE, 2, 8),
        Kind.LINK_CUT: Extent(Scope.LINK, 0.1, 6),
        Kind.LINK_HALF_OPEN: Extent(Scope.LINK, 1, DEAD_AFTER_S + 5),
        Kind.LINK_ONE_WAY: Extent(Scope.LINK, 1, DEAD_AFTER_S + 5),
        Kind.LINK_SLOW: Extent(Scope.LINK, 2, 8),
        Kind.OPERATOR_RESTART: Extent(Scope.OPERATOR, 0.1, 5),
        Kind.UPLINK_CUT: Extent(Scope.UPLINK, 0.1, 4),
        Kind.UPLINK_HALF_OPEN: Extent(Scope.UPLINK, 1, 9),
        Kind.GATEWAY_RESTART: Extent(Scope.GATEWAY, 0.1, 6),
        Kind.GATEWAY_STUCK: Extent(Scope.GATEWAY, 1, 9),
        Kind.GATEWAY_SLOW: Extent(Scope.GATEWAY, 2, 8),
        Kind.GATEWAY_REFUSES: Extent(Scope.GATEWAY, 2, 8),
        Kind.GATEWAY_HALF_OPEN: Extent(Scope.GATEWAY, 1, 9),
    }
)

Target = tuple[str, ...]  # a node or its gateway; two nodes for a link; nothing for the operator and all nodes


@frozen
class Fault:
    """One fault of a schedule."""

    number: int
    at_s: float  # from the start of the schedule
    lasts_s: float
    kind: Kind
    target: Target
    choice: float  # in [0, 1): where a fault has several forms

    @property
    def where(self) -> str:
        return "-".join(self.target) or EXTENTS[self.kind].scope.value

    def __str__(self) -> str:
        return f"{self.number:>4}  {self.where:9} {self.kind.value}, {self.lasts_s:.1f} s"

    @property
    def ends_s(self) -> float:
        return self.at_s + self.lasts_s


@frozen(kw_only=True)
class Plan:
    """What one run plays."""

    seconds: float = field(validator=validators.gt(0))  # of faults; the way up and the way back to rest are extra
    seed: int = 1
    nodes: int = field(default=5, validator=[validators.ge(FEWEST_NODES), validators.le(MOST_NODES)])
    rate: float = field(default=100.0, validator=validators.gt(0))  # messages a second over all gateways
    every_s: float = field(default=3.0, validator=validators.gt(0))  # a fault begins, on average

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nodes, and of the gateways that stand beside them."""
        return tuple(f"gw{number}" for number in range(1, self.nodes + 1))

    @property
    def numbers(self) -> Mapping[str, str]:
        """What subscribers write to, and the gateway to which a rule sends that."""
        return {f"70{number:02d}": name for number, name in enumerate(self.names, start=1)}

    @property
    def pairs(self) -> tuple[Target, ...]:
        """The links: of two nodes the one named first dials."""
        return tuple(combinations(self.names, 2))


def schedule(plan: Plan) -> list[Fault]:
    """The faults, in order of time. No kind comes again before all have come, as far as places are free."""
    random = Random(plan.seed)
    deck: deque[Kind] = deque()
    faults: list[Fault] = []
    now = 0.0
    while True:
        now += random.uniform(0.2, 1.8) * plan.every_s
        if now >= plan.seconds:
            return faults
        if not deck:
            deck.extend(random.sample(list(Kind), len(Kind)))
        busy = [fault for fault in faults if fault.ends_s + SPACE_S > now]
        for _ in range(len(deck)):
            kind = deck.popleft()
            lasts_s = min(random.uniform(*EXTENTS[kind][1:]), plan.seconds - now)
            places = [place for place in _places(plan, kind) if not _taken(plan, kind, place, busy)]
            if places:
                target = random.choice(places)
                faults.append(Fault(len(faults) + 1, now, lasts_s, kind, target, random.random()))
                break
            deck.append(kind)


SPACE_S: Final = 1.0  # between the end of a fault and the next one in the same place


def _places(plan: Plan, kind: Kind) -> list[Target]:
    match EXTENTS[kind].scope:
        case Scope.LINK:
            return list(plan.pairs)
        case Scope.OPERATOR | Scope.ALL_NODES:
            return [()]
        case _:
            return [(name,) for name in plan.names]


def _taken(plan: Plan, kind: Kind, target: Target, busy: list[Fault]) -> bool:
    wanted = set(held(plan, kind, target))
    return any(wanted & set(held(plan, fault.kind, fault.target)) for fault in busy)


def held(plan: Plan, kind: Kind, target: Target) -> Iterator[tuple[Scope, Target]]:
    """What a fault holds for itself."""
    scope = EXTENTS[kind].scope
    if scope is Scope.ALL_NODES:
        yield from ((Scope.NODE, (name,)) for name in plan.names)
    else:
        yield scope, target
    if kind is Kind.REMOVAL:
        yield Scope.ALL_NODES, ()  # one at a time, since all tables change
