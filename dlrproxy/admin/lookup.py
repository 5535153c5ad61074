"""Where is the message with this id? The open messages that it may mean, and what is in custody or parked under it."""

from collections.abc import Sequence

import msgspec

from dlrproxy.admin.parked import Filter, Page, Parked, id_text
from dlrproxy.admin.view import NodeView, OperatorStatus
from dlrproxy.logs import mask
from dlrproxy.store.port import Lookup, OpenMessage
from protocols.smpp.message_ids import Ambiguous, Inexact, Match, Rule, candidates, judge, relation
from ring.rows import encode_key

_PARKED_SHOWN = 20


class FoundMessage(msgspec.Struct, frozen=True, kw_only=True):
    """An open message that the id may mean."""

    message_id: str  # of the submit_sm_resp
    owner: str  # the gateway that submitted it
    destination: str
    submitted_at: float
    expires_at: float
    final_at: float | None  # when a final report was delivered
    rule: str | None  # under which the two ids are one


class FoundInCustody(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    kind: str
    message_id: str  # as reported
    state: str
    destination: str
    origin: str
    gateway: str
    granted_to: str
    final: bool
    lap: int
    attempts: int
    accepted_at: float
    trace: str


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one operator's part of the node knows of the id."""

    operator: str
    candidates: tuple[str, ...]  # the normal forms under which a response id may be stored that this id may mean
    rule: str | None  # in force for this operator
    verdict: str  # match, inexact, ambiguous or none: what a report with this id would find now
    open_messages: tuple[FoundMessage, ...]
    custody: tuple[FoundInCustody, ...]
    parked: Page


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    node: str
    id: str
    now: float
    operators: tuple[Found, ...]

    @property
    def nothing(self) -> bool:
        return not any(found.open_messages or found.custody or found.parked.items for found in self.operators)


class Finder:
    """Looks ids up at one node."""

    def __init__(self, view: NodeView, parked: Parked, *, full_numbers: bool) -> None:
        self._view = view
        self._parked = parked
        self._full_numbers = full_numbers

    async def find(self, operators: Sequence[OperatorStatus], message_id: bytes, now: float, node: str) -> Answer:
        """Raises StoreError, RowError."""
        found = [await self._find(operator, message_id) for operator in operators]
        return Answer(node=node, id=id_text(message_id), now=now, operators=tuple(found))

    async def _find(self, operator: OperatorStatus, message_id: bytes) -> Found:
        forms = candidates(message_id)
        rule = None if operator.message_id.rule is None else Rule(operator.message_id.rule)
        records = await self._view.open_messages(Lookup(operator.name, message_id, forms))
        wanted = Filter(operator=operator.name, id=id_text(message_id))
        return Found(
            operator=operator.name,
            candidates=tuple(map(id_text, forms)),
            rule=operator.message_id.rule,
            verdict=_verdict(message_id, records, rule),
            open_messages=tuple(self._message(record, message_id) for record in records),
            custody=self._custody(operator.name, forms),
            parked=await self._parked.page(wanted, b"", _PARKED_SHOWN),
        )

    def _message(self, record: OpenMessage, message_id: bytes) -> FoundMessage:
        rule = relation(record.message_id, message_id)
        return FoundMessage(
            message_id=id_text(record.message_id),
            owner=record.owner,
            destination=self._shown(record.destination),
            submitted_at=record.submitted_at,
            expires_at=record.expires_at,
            final_at=record.final_at or None,
            rule=None if rule is None else rule.value,
        )

    def _custody(self, operator: str, forms: tuple[bytes, ...]) -> tuple[FoundInCustody, ...]:
        return tuple(
            FoundInCustody(
                key=encode_key((envelope := entry.row.envelope).key).hex(),
                kind=envelope.kind,
                message_id=id_text(envelope.message_id),
                state=entry.state,
                destination=self._shown(envelope.destination),
                origin=envelope.origin,
                gateway=entry.row.gateway,
                granted_to=entry.row.granted_to,
                final=envelope.final,
                lap=entry.lap,
                attempts=entry.attempts,
                accepted_at=entry.row.accepted_at,
                trace=envelope.trace,
            )
            for entry in self._view.custody_entries(operator, forms)
        )

    def _shown(self, number: bytes) -> str:
        text = id_text(number)
        return text if self._full_numbers else mask(text)


def _verdict(message_id: bytes, records: Sequence[OpenMessage], rule: Rule | None) -> str:
    """The destination is not known here, so what only it could decide stays ambiguous."""
    match judge(message_id, b"", records, rule):
        case Match():
            return "match"
        case Inexact():
            return "inexact"
        case Ambiguous():
            return "ambiguous"
        case _:
            return "none"
