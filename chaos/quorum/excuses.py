"""What explains a report that came twice, late, or stays parked, in a quorum: what docs/quorum-custody.md allows.

A report may come twice if it was in flight when a fault touched the node that had sent it (by the schedule, or by its
own log): a gateway had it, and its answer was not durable. The ledgers show that. Either the operator had no answer and
sent it again; or the gateway's session ended with the answer on its way, and the same node sent it again, or gave it to
another one by itself. Whoever takes over from a node parks such a report, and never sends it.

Without a fault it may come twice if its node could not put it into custody within operator_answer_s, by the operator's
ledger, or, by the node's log, within drain_s when it was stopped: it was sent again, and both are delivered.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from chaos.quorum.configuration import ANSWER_S, FENCE_AFTER_S
from chaos.quorum.hearing import READ_S, Gone, Hearing
from chaos.quorum.inboxes import Stay
from chaos.quorum.stage import Episode
from chaos.quorum.turnstile import Turnstile
from chaos.told import Delivery, Told
from dlrproxy.admin.parked import ParkedItem
from dlrproxy.simulator.judge import Arrival, Named
from dlrproxy.simulator.ledger import Unanswered
from ring.commands import Reason

# From a gateway's answer to the commit that makes it durable: 10 ms, and some seconds on a busy machine.
ON_ITS_WAY_S: Final = 3.0
# For so long writes wait at every node while a server leaves the cluster or comes back (docs/quorum.md has 1.5 s).
REGROUPING_S: Final = 5.0
# A node looks into its inbox every five seconds, if no word reaches it; docs/quorum.md has an alert above ten.
LINGERING_S: Final = 10.0
# Where a machine has much else to do: a commit alone, of a hundred rows of an inbox, has been seen to take twelve.
LINGERING_BUSY_S: Final = 40.0

# A report that the operator sends just as its node unbinds is passed on, and its answer finds no bind any more.
CROSSING_S: Final = 0.5

CROSSED: Final = "the operator sent it as its bind ended, and sent it again"
HURRIED: Final = "its node had to stop before it could answer, and the operator sent it again"
RESENT: Final = "the operator had no answer, and sent it again"
SLOW: Final = "it was in custody too late for operator_answer_s, and the operator was told to send it again"
PUT_OFF: Final = "the operator was told to send it again, as its node failed"
SESSION_ENDED: Final = "the session ended with the answer on its way, as its node failed"
TAKEN_OVER: Final = "it was at a node that was taken over from"
FINAL_FORGOTTEN: Final = "the node that had delivered the final one failed before that was durable"
MAYBE_DELIVERED: Final = "its node was taken over from while it was being delivered"


class QuorumExcuses:
    """`judgement.Excuses` of a quorum with `maybe_delivered = "park"`."""

    def __init__(
        self, told: Told, episodes: Iterable[Episode], turnstiles: Mapping[str, Turnstile], hearing: Hearing
    ) -> None:
        self._told = told
        # A fault at one server may take another one, or all, out of the quorum for a moment, on a busy machine above
        # all: a node that says that it has let go may have had nothing certified for as long as fence_after_s.
        before_s = FENCE_AFTER_S + READ_S
        let_go = [Episode("", frozenset({each.node}), each.t - before_s, each.t) for each in hearing.released]
        self._episodes = sorted([*episodes, *let_go], key=lambda episode: episode.began)
        self._turnstiles = turnstiles
        self._hearing = hearing
        self._resent: set[tuple[Delivery, float]] = set()  # each sending again explains one more arrival

    def repeated(self, case: Named, first: Arrival, second: Arrival) -> str:
        name = case.message_id, case.state
        node = self._turnstiles[first.gateway].node_at(first.t)
        for unanswered in self._told.unanswered.get(name, ()):
            if unanswered.t > second.t or (name, unanswered.t) in self._resent:
                continue
            if why := self._unanswered(name, unanswered):
                self._resent.add((name, unanswered.t))
                return why
        if self._sent_again_as_too_slow(name, second.t):
            return SLOW
        until = self._durable_by(node, first.t)
        if not self._touched(node, first.t, until):
            return ""
        if name in self._told.put_off:
            return PUT_OFF
        ended = [t for t in self._told.ended[first.gateway] if first.t <= t <= min(second.t, until)]
        if not ended or any(first.t <= t < ended[0] for t in self._told.acknowledged.get(name, ())):
            return ""  # the operator had its answer, which is that of the gateway
        after = self._turnstiles[second.gateway].node_at(second.t)
        return SESSION_ENDED if after == node or self._gave_away(node, case, first.t, second.t) else ""

    def _unanswered(self, name: Delivery, event: Unanswered) -> str:
        """Why the operator had no answer; empty: nothing explains it."""
        at, owing = event.t, self._told.node_of_bind[event.bind].partition("@")[0]
        if at - self._told.sent[name, event.bind] <= CROSSING_S:
            return CROSSED
        if self._touched(owing, at - ON_ITS_WAY_S, at):
            return RESENT
        hurried = (each for each in self._hearing.hurried if each.node == owing)
        return HURRIED if any(each.t - READ_S <= at <= each.t + ON_ITS_WAY_S for each in hurried) else ""

    def _sent_again_as_too_slow(self, name: Delivery, until: float) -> bool:
        """On a busy machine a commit may take so long without any fault; what it has put into custody stays there."""
        for answer in self._told.put_off.get(name, ()):
            if answer.t <= until and answer.took_s >= ANSWER_S and (name, answer.t) not in self._resent:
                self._resent.add((name, answer.t))
                return True
        return False

    def disordered(self, case: Named) -> str:
        at = self._told.finals.get((case.owner or "", case.message_id))
        if case.final or case.owner is None or at is None or case.received[-1].t < at:
            return ""
        accepted = min(self._told.acknowledged.get((case.message_id, case.state), ()), default=at)
        if any(self._inherited(case.message_id, accepted, case.received[-1].t)):
            return TAKEN_OVER
        node = self._turnstiles[case.owner].node_at(at)
        return FINAL_FORGOTTEN if self._touched(node, at, self._durable_by(node, at)) else ""

    def parked(self, item: ParkedItem, case: Named | None) -> str:
        if item.reason != Reason.MAYBE_DELIVERED.value:
            return ""
        return MAYBE_DELIVERED if any(self._inherited(item.message_id, 0.0, float("inf"))) else ""

    def lingered(self, stays: Iterable[Stay], most_s: float = LINGERING_S) -> Iterator[Stay]:
        """Rows that were in an inbox for longer than `most_s` while nothing kept its node from taking them."""
        for stay in stays:
            free_from, longest = stay.began, 0.0
            for each in self._episodes:
                if stay.node in each.touched | each.restarted and each.began < stay.ended:
                    longest = max(longest, each.began - free_from)
                    free_from = max(free_from, each.ended)
            if max(longest, stay.ended - free_from) > most_s:
                yield stay

    # What the logs say

    def _inherited(self, message_id: str, since: float, until: float) -> Iterator[Gone]:
        """Nodes that had a report of the message, and were taken over from before another one had it."""
        for step in self._hearing.arrived(message_id):
            if step.t <= until + READ_S:
                yield from self._hearing.gone_between(step.origin, since, step.t)

    def _gave_away(self, node: str, case: Named, first: float, second: float) -> bool:
        """It put a report of the message into another node's inbox by itself, as nobody had taken over from it."""
        return any(
            step.origin == node
            and first <= step.t <= second + READ_S
            and not any(self._hearing.gone_between(node, first, step.t))
            for step in self._hearing.arrived(case.message_id)
        )

    # What the faults explain

    def _touched(self, node: str, first: float, last: float) -> bool:
        return any(node in each.touched and each.began <= last and first <= each.ended for each in self._episodes)

    def _durable_by(self, node: str, at: float) -> float:
        """An answer of that time, at this node: faults keep it from becoming durable, one after the other."""
        until = at + ON_ITS_WAY_S
        for each in self._episodes:
            ended = each.ended if node in each.touched else min(each.ended, each.began + REGROUPING_S)
            if each.began <= until and at <= ended:
                until = max(until, ended + ON_ITS_WAY_S)
        return until
