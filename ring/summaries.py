"""Who owns what, at a glance: the machine that exchanges summaries with the other nodes (docs/summaries.md).

It has no I/O. The driver tells it what is opened and closed here, who can be reached and what they say, and carries out
what `tick` returns. The walk asks it whom to ask first (`likely`); what it does not know costs hops, and nothing else.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from attrs import frozen

from protocols.peer.frames import SINCE, SummaryPart, SummaryWanted
from ring.commands import Send
from ring.summary_copies import Copies
from ring.summary_telling import Telling
from ring.topology import Topology

MIB: Final = 1024 * 1024

_LEDGER_SHARE: Final = 4  # of the memory, a quarter
_LEDGER_BYTES: Final = 5.5  # a message at most, from some hundred on
_SUMMARY_BYTES: Final = 2.0


@frozen
class Known:
    """What is known of one other node, for people."""

    messages: int
    bytes_used: int
    current: bool  # it is told what changes, and has been told everything
    told: bool  # and has been told everything itself


class Summaries:
    def __init__(self, topology: Topology, memory_mb: int) -> None:
        self._memory = memory_mb * MIB
        self._topology = topology
        self._reachable: AbstractSet[str] = frozenset()
        others = topology.others
        self._telling = Telling(len(others), int(self._memory / _LEDGER_SHARE / _LEDGER_BYTES))
        self._copies = Copies(others, self._most_each())

    def _most_each(self) -> int:
        left = self._memory - self._memory // _LEDGER_SHARE
        return int(left / _SUMMARY_BYTES) // max(1, len(self._topology.others))

    # What is asked of it

    def likely(self, operator: str, message_id: bytes, nodes: Collection[str]) -> str | None:
        """The first of `nodes` that seems to own a message with this reported id; None if none does."""
        return self._copies.likely(operator, message_id, nodes)

    @property
    def own(self) -> int:
        """Open messages of this node that the others are told of."""
        return self._telling.count

    @property
    def own_bytes(self) -> int:
        return self._telling.bytes_used

    @property
    def left_out(self) -> int:
        """Messages that found no room, here or in the summaries of other nodes; their reports walk."""
        return self._telling.left_out + self._copies.left_out

    def known(self) -> dict[str, Known]:
        """By node. For people: slow."""
        told = self._telling.in_step()
        return {
            node: Known(copy.count, copy.bytes_used, copy.current, node in told)
            for node in self._topology.others
            if (copy := self._copies.of(node)) is not None
        }

    # Events

    def opened(self, operator: str, message_id: bytes) -> None:
        """An open message of this node; `message_id` as the operator's response has it."""
        self._telling.opened(operator, message_id)

    def closed(self, operator: str, message_id: bytes) -> None:
        """It is finished, or has expired."""
        self._telling.closed(operator, message_id)

    @property
    def behind(self) -> int:
        """What was opened and closed since the last `tick`."""
        return self._telling.behind

    def reachable(self, versions: Mapping[str, int], now: float) -> None:
        """The nodes that can be reached, and the version of the frames that each speaks."""
        nodes = {node for node, version in versions.items() if version >= SINCE[SummaryWanted]}
        lost, joined = self._reachable - nodes, nodes - self._reachable
        self._reachable = nodes
        self._telling.lost(lost)
        self._copies.lost(lost)
        self._copies.joined(sorted(joined), now)

    def frame(self, sender: str, frame: SummaryPart | SummaryWanted, now: float) -> None:
        match frame:
            case SummaryPart():
                self._copies.told(sender, frame, now)
            case SummaryWanted():
                self._telling.wanted(sender, now)

    def retopologize(self, topology: Topology) -> None:
        """The configured nodes have changed."""
        self._topology = topology
        self._telling.set_nodes(len(topology.others))
        self._copies.set_nodes(topology.others, self._most_each())

    def tick(self, now: float) -> list[Send]:
        """What is to be said now. Called every `summary_telling.TELL_S`."""
        return self._copies.tick(now) + self._telling.tick(now)
