"""What the nodes' logs say of the ways of reports: when the stage has read it, on its own clock.

The logs' own times are of clocks that may differ. A line is read within READ_S of its being written, as a rule.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from attrs import define, field, frozen

from chaos.nodes import LogEvent

READ_S: Final = 2.0  # on a busy machine
_STOPPING: Final = "it is stopping"  # why a node lets go that was asked to


@frozen
class Step:
    """A report has come to `node` out of its inbox, from `origin`."""

    t: float
    node: str
    origin: str


@frozen
class Gone:
    """A node was given up, and its custody went to another one."""

    t: float
    node: str


@frozen
class Released:
    """A node has let go of everything, since it had lost its server or the quorum: not as it was asked to stop."""

    t: float
    node: str


@frozen
class Hurried:
    """A node was asked to stop, and drain_s was over before all that was in flight was answered."""

    t: float
    node: str


@define
class Hearing:
    """Of all nodes, over all their starts."""

    gone: list[Gone] = field(factory=list)
    released: list[Released] = field(factory=list)
    hurried: list[Hurried] = field(factory=list)
    ahead_s: dict[str, float] = field(factory=dict)  # by node: its wall clock, against this process's; never too much
    steps: defaultdict[str, list[Step]] = field(factory=lambda: defaultdict(list))  # by message id

    def hear(self, node: str, event: LogEvent) -> None:
        now = time.monotonic()
        ahead_s = datetime.fromisoformat(event["timestamp"]).timestamp() - time.time()
        self.ahead_s[node] = max(ahead_s, self.ahead_s.get(node, ahead_s))
        if event["event"] in {"dlr.arrived", "mo.arrived"}:
            self.steps[event["message_id"]].append(Step(now, node, event["origin"]))
        elif event["event"] == "quorum.node_gone":
            self.gone.append(Gone(now, event["gone"]))
        elif event["event"] == "node.drain_time_over":
            self.hurried.append(Hurried(now, node))
        elif event["event"] == "quorum.released" and event["why"] != _STOPPING:
            self.released.append(Released(now, node))

    def arrived(self, message_id: str) -> list[Step]:
        """All reports of the message, of any MO where that is empty: which of them a step is of, it does not say."""
        return self.steps.get(message_id, [])

    def gone_between(self, node: str, first: float, last: float) -> Iterator[Gone]:
        """The times at which it was given up, as exactly as they are known."""
        return (gone for gone in self.gone if gone.node == node and first - READ_S <= gone.t <= last + READ_S)
