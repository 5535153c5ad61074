"""Which open message does a reported id mean? The store's records, judged under the rule that the operator follows."""

from collections.abc import Callable, Sequence

from dlrproxy.custody_port import Wanted
from dlrproxy.store.port import Lookup, OpenMessage
from dlrproxy.surroundings import Surroundings
from protocols.smpp.message_ids import Change, Inexact, Learner, Match, NoMatch, Rule, Verdict, candidates, judge


class Matching:
    """One operator's ids. Every match is noted for the learner; `exact` ones are counted, and noted by the batch."""

    def __init__(self, around: Surroundings, learner: Learner, learned: Callable[[Change], None]) -> None:
        """`learned` is told when the rule in force has changed."""
        self._operator = around.operator.name
        self._store = around.store
        self._learner = learner
        self._learned = learned
        self.exact = 0  # matches by the exact id since the last `settle`

    def settle(self) -> None:
        """The end of a batch."""
        if self.exact:
            if self._learner.rule is None:
                self._note(Rule.EXACT, self.exact)
            self.exact = 0

    def forms(self, message_id: bytes) -> tuple[bytes, ...]:
        """Under which normal forms the response id may be stored; none where only the exact id counts."""
        if self._learner.pinned and self._learner.rule is Rule.EXACT:
            return ()
        return candidates(message_id)

    async def judge(self, wanted: Sequence[Wanted], *, note: bool = True) -> list[Verdict[OpenMessage]]:
        """One verdict for each, in one visit to the store, or none where memory is sure of the exact id of all.

        With `note` they are evidence. Raises StoreError.
        """
        known = [self._store.recent(self._operator, each.message_id) for each in wanted]
        found = iter(await self._find([each for each, record in zip(wanted, known, strict=True) if record is None]))
        verdicts: list[Verdict[OpenMessage]] = []
        for each, record in zip(wanted, known, strict=True):
            records = next(found) if record is None else (self._store.recent(*record.key) or record,)
            verdict = judge(each.message_id, each.destination, records, self._learner.rule)
            if note and (rule := _shown_by(verdict)) is not None:
                self._note(rule, 1)
            verdicts.append(verdict)
        return verdicts

    async def _find(self, wanted: Sequence[Wanted]) -> list[list[OpenMessage]]:
        """What each may mean. Where memory has a hint the exact id is enough, as a rule: that always wins."""
        hinted = [self._store.remembered(self._operator, each.message_id) is not None for each in wanted]
        lookups = [
            Lookup(self._operator, each.message_id, () if hint else self.forms(each.message_id))
            for each, hint in zip(wanted, hinted, strict=True)
        ]
        found = await self._store.find(lookups)
        if misled := [at for at, hint in enumerate(hinted) if hint and not found[at]]:
            ids = [wanted[at].message_id for at in misled]
            again = await self._store.find([Lookup(self._operator, name, self.forms(name)) for name in ids])
            for at, records in zip(misled, again, strict=True):
                found[at] = records
        return found

    def _note(self, rule: Rule, count: int) -> None:
        change = self._learner.note(rule, count)
        if change is not None:
            self._learned(change)


def _shown_by(verdict: Verdict[OpenMessage]) -> Rule | None:
    """The rule that a verdict is evidence for."""
    if isinstance(verdict, Match):
        return verdict.rule
    if isinstance(verdict, Inexact) and verdict.agrees:
        return verdict.rule
    return verdict.dismissed if isinstance(verdict, NoMatch) else None
