"""Where an MO goes: a value, from the rules, the conversations of this node and the gateways that are bound here.

observe = true                                as without a ring: a bound gateway of this node
a part of a concatenated MO, and there is
  another place that a part may go to         custody: all parts follow one decision (ring/coordinator.py)
a rule applies                                its gateway: passed if bound here; else custody, for wherever it is
a conversation with the sender here           its gateway, if bound here
there are other nodes                         custody: the ring is asked for a conversation, then for any gateway
else                                          a bound gateway of this node; custody while there is none
"""

from collections.abc import Collection
from enum import Enum, auto

from attrs import frozen

from dlrproxy.config.operator import Operator
from dlrproxy.config.tables import Mo
from dlrproxy.mo.conversations import Conversations
from dlrproxy.mo.rules import MoRules, address, keyword_of
from dlrproxy.routing import Step
from protocols.peer.frames import PartOf
from protocols.smpp.concat import Part, part_of
from protocols.smpp.receipts import Body, read_body
from protocols.smpp.text import text_in
from ring.coordinator import name_of


class Why(Enum):
    DEFAULT = auto()
    PART = auto()
    RULE = auto()
    CONVERSATION = auto()


@frozen
class Placing:
    step: Step  # PASS to `gateway`, LOCAL or KEEP
    why: Why = Why.DEFAULT
    gateway: str = ""  # with KEEP: wherever it is bound; empty: for the ring to find
    part: PartOf | None = None


_LOCAL = Placing(Step.LOCAL)
_KEEP = Placing(Step.KEEP)


class MoRouting:
    """One operator's MO at this node."""

    def __init__(self, operator: Operator, mo: Mo, conversations: Conversations, *, alone: bool) -> None:
        """`alone`: this node has no peers."""
        self._operator = operator.name
        self._observe = operator.observe
        self._one_gateway = len(operator.listen) <= 1
        self.conversations = conversations
        self.reload(mo, alone=alone)

    def reload(self, mo: Mo, *, alone: bool) -> None:
        """Other rules, and whether there are other nodes. Parts of a message that was begun follow what was decided."""
        self._rules = MoRules(mo.rules, self._operator)
        self._alone = alone
        self._one_place = alone and self._one_gateway  # parts cannot be split

    def place(self, frame: bytes, bound: Collection[str], now: float) -> Placing:
        """`frame` is a deliver_sm or data_sm that is no report; `bound` the gateways that are bound here."""
        body = None if self._observe else read_body(frame)
        if body is None:  # cut short: nothing in it decides
            return _LOCAL if bound else _KEEP
        part = None if self._one_place else part_of(frame)
        choice = self._rules.choose(body[1], self._keyword(frame, body, part))
        if part is not None:
            name = name_of(self._operator, part.key)
            return Placing(Step.KEEP, Why.PART, part=PartOf(name, choice.gateway, choice.certain))
        if choice.gateway:
            return Placing(Step.PASS if choice.gateway in bound else Step.KEEP, Why.RULE, choice.gateway)
        if self.conversations.enabled:
            gateway = self._conversing(body, now)
            if gateway in bound:
                return Placing(Step.PASS, Why.CONVERSATION, gateway or "")
            if not self._alone:
                return _KEEP
        return _LOCAL if bound else _KEEP

    def _keyword(self, frame: bytes, body: Body, part: Part | None) -> str | None:
        if part is not None and part.number != 1:
            return None
        return keyword_of(text_in(frame, body)) if self._rules.by_keyword else ""

    def conversing(self, frame: bytes, now: float) -> str | None:
        """The gateway of this node that is in conversation with the sender of an MO."""
        body = read_body(frame)
        return None if body is None else self._conversing(body, now)

    def _conversing(self, body: Body, now: float) -> str | None:
        return self.conversations.gateway(address(body[1]), address(body[0]), now)
