"""The numbers that the machines of custody go by. Times in seconds; the TOML keys they come from stand beside them."""

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

Unclaimed = Literal["park", "local", "drop"]


@frozen
class OperatorPolicy:
    """What an operator's settings say of reports that nobody claims."""

    unclaimed: Unclaimed = "park"  # operators.unclaimed
    local_gateway: str = ""  # the first of operators.listen: takes what goes to "the local gateway"


@frozen
class ClusterSettings:
    """Of a cluster, where every node has the open messages of all (`sharing.py`)."""

    unmatched_for_s: float = 30.0  # quorum.unmatched_for_s: a report without an owner is looked for again so long
    stand_in: Mapping[str, str] = field(factory=dict)  # quorum.stand_in: who gets the reports of a gateway that is lost
    stand_in_after_s: float = 12.0  # quorum.takeover_after_s: that its node must be out of reach for so long
    maybe_delivered: Literal["park", "deliver"] = "park"  # quorum.maybe_delivered


@frozen
class CustodySettings:
    operators: Mapping[str, OperatorPolicy] = field(factory=dict)
    claim_for_s: float = 259_200.0  # ring.claim_for_s: three days, the validity period most operators cap at
    sought_for_s: float = float("inf")  # likewise of reports whose owner is sought; 0 where no other node can own them
    lap_timeout_s: float = 15.0  # ring.lap_timeout_s: above dead_after_s, so that a dead node is known before
    walk_retry_min_s: float = 5.0  # ring.retry_min_s
    walk_retry_max_s: float = 300.0  # ring.retry_max_s
    deliver_retry_min_s: float = 1.0  # custody.retry_min_s
    deliver_retry_max_s: float = 60.0  # custody.retry_max_s
    repeat_s: float = 5.0  # custody.settle_retry_s: Claimed and Finished are said again after this
    watch_s: float = 1.0  # the longest operators.race_window_s: how long a forwarder remembers what passed
    max_messages: int = 100_000  # custody.max_messages
    max_parked: int = 1_000_000  # custody.max_parked
    max_walking: int = 2_000  # ring.max_walking: bounds the frames in flight that this node has started
    max_passing: int = 10_000  # lookups under way, and envelopes remembered, for other nodes
    conversations: bool = False  # mo.conversation_s is above 0: before any gateway takes an MO, ask who converses
    concat_wait_s: float = 5.0  # mo.concat_wait_s
    decision_for_s: float = 600.0  # how long it is remembered where the parts of an MO go; they come within seconds
    max_decisions: int = 10_000  # of those; beyond it the oldest is forgotten, and a part that comes so late may split
    cluster: ClusterSettings | None = None  # None: each node keeps its own open messages, and asks the others
    delivery_window: int = 32  # unanswered deliveries from custody to one gateway; passing traffic has the rest

    @property
    def max_inherited(self) -> int:
        """Up to so many in custody, what another node hands on is taken: the rest is for this node's own operators."""
        return self.max_messages * 4 // 5

    def policy(self, operator: str) -> OperatorPolicy:
        return self.operators.get(operator, _DEFAULT_POLICY)


_DEFAULT_POLICY = OperatorPolicy()
