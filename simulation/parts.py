"""Judges concatenated MO: all parts of one must go to one gateway, or be said to have been split.

Unless those that decided could not tell each other (`meetings.py`).
"""

from collections import defaultdict
from collections.abc import Collection, Mapping

from ring.far import cluster_of
from simulation.cases import Case
from simulation.meetings import Decisions, Meetings
from simulation.site import host_name
from simulation.wrong import FoundError, Wrong


class Parts:
    def __init__(self, kept_s: float, notice_s: float) -> None:
        """A decision is kept for `kept_s`; two nodes that reach each other for `notice_s` have heard of both's."""
        self._kept_s = kept_s
        self._notice_s = notice_s
        self._cases: dict[bytes, list[Case]] = defaultdict(list)  # by message
        self._decisions: dict[bytes, Decisions] = {}
        self._splits: set[str] = set()
        self._meetings = Meetings()

    def sent(self, case: Case, message: bytes) -> None:
        self._cases[message].append(case)
        self._decisions.setdefault(message, Decisions(case.at))

    def reached(self, node: str, others: Collection[str], now: float) -> None:
        """As `Meetings.reached`."""
        self._meetings.reached(node, others, now)

    def split(self, trace: str) -> None:
        """A node has said that the message was split."""
        self._splits.add(trace)

    def gathered(self, case: Case, origin: str, fields: Mapping[str, str], now: float) -> None:
        """`origin` was told by the node fields["by"] to which gateway the part goes."""
        part = case.sent.arrival.part
        if part is None:
            raise TypeError(f"{case.trace} is no part of a concatenated MO")
        decider = host_name(cluster_of(origin), fields["by"])
        self._decisions[part.message].saw(decider, fields["gateway"], now)

    def conclude(self, *, excused: bool) -> None:
        """Raises FoundError. `excused`: something happened by which any node may not have heard of another's word."""
        for message, cases in self._cases.items():
            gateways = {one.gateway for case in cases if not case.replayed for one in case.deliveries}
            if len(gateways) < 2 or excused or any(case.trace in self._splits for case in cases):
                continue
            # The two that have decided must meet to say so, before one of them forgets, by its own clock, which may
            # jump at a start; and a frame that is lost on a link that stays is not repeated.
            if not self._meetings.may_be_silent(self._decisions[message], self._kept_s, self._notice_s):
                raise FoundError(Wrong.SPLIT, cases[0].trace, f"over {', '.join(sorted(gateways))}")
