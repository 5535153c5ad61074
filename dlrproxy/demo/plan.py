"""What one run of the demo plays. Values only."""

from attrs import field, frozen, validators

MOST_NODES = 16
MOST_MESSAGES = 100_000  # ledgers and route events of a run are kept in memory, some 3 KB a message

# The submitting part of a run takes about this long, whatever the number of messages, within these rates a second over
# all gateways: far enough below what two cores carry that the times shown are the ring's, not a queue's.
_SUBMIT_S = 10.0
_SLOWEST, _FASTEST = 100.0, 500.0


@frozen(kw_only=True)
class Plan:
    """`misroute` is the share of reports that the operator sends to another node than the one that submitted."""

    nodes: int = field(default=3, validator=[validators.ge(2), validators.le(MOST_NODES)])
    messages: int = field(default=3000, validator=[validators.ge(1), validators.le(MOST_MESSAGES)])
    misroute: float = field(default=0.7, validator=[validators.ge(0), validators.le(1)])
    seed: int = 1
    kill: str | None = None  # the name of a node

    def __attrs_post_init__(self) -> None:
        if self.kill is not None and self.kill not in self.names:
            raise ValueError(f"{self.kill} is not one of the nodes: {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nodes, and of the gateways that stand beside them."""
        return tuple(f"gw{number}" for number in range(1, self.nodes + 1))

    @property
    def rate(self) -> float:
        """Messages a second of one gateway."""
        return min(max(self.messages / _SUBMIT_S, _SLOWEST), _FASTEST) / self.nodes

    def share(self, name: str) -> int:
        """How many of the messages this gateway submits."""
        whole, rest = divmod(self.messages, self.nodes)
        return whole + (self.names.index(name) < rest)
