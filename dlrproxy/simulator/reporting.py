"""Which reports the operator makes on a message, and when."""

import time
from functools import partial

from dlrproxy.simulator.agenda import Agenda
from dlrproxy.simulator.binds import Bind, Delivery
from dlrproxy.simulator.bodies import Submit, receipt_body, receipt_tlvs
from dlrproxy.simulator.dispatch import Dispatcher
from dlrproxy.simulator.ids import spelling
from dlrproxy.simulator.ledger import Ledger, Report
from dlrproxy.simulator.options import OperatorOptions, Receipts
from dlrproxy.simulator.plan import Fate
from protocols.smpp import constants as c

# registered_delivery bits 0 and 1 (SMPP 3.4 5.2.17; 3 is SMPP 5.0's): which final states are asked for.
_NEVER, _ALWAYS, _ON_FAILURE, _ON_SUCCESS = range(4)

QUERYABLE = 100_000  # messages whose state query_sm finds; the oldest are forgotten

_STATE_NUMBERS = {name: number for number, name in c.MESSAGE_STATES.items()}


class Reporter:
    """Makes reports and puts them on the agenda, or offers them at once where no delay is asked for."""

    __slots__ = (
        "_agenda", "_date", "_date_until", "_dispatcher", "_ledger", "_options", "_receipt_id", "_response_id",
        "_states", "_tlv_id", "made",
    )  # fmt: skip

    def __init__(self, options: OperatorOptions, ledger: Ledger, agenda: Agenda, dispatcher: Dispatcher) -> None:
        self._options = options
        self._ledger = ledger
        self._agenda = agenda
        self._dispatcher = dispatcher
        self._response_id = spelling(options.response_id)
        self._receipt_id = spelling(options.receipt_id or options.response_id)
        self._tlv_id = spelling(options.tlv_id or options.receipt_id or options.response_id)
        self._states: dict[str, int] = {}
        self._date = b""
        self._date_until = 0.0
        self.made = 0

    def ids(self, number: int) -> tuple[str, str]:
        """The id as responses and as the text of receipts spell it."""
        return self._response_id(number), self._receipt_id(number)

    def state(self, message_id: str) -> int | None:
        """The final message_state of a recent message, None where it is not known."""
        return self._states.get(message_id)

    def report(self, bind: Bind, submit: Submit, fate: Fate, now: float) -> None:
        """Make the reports on an accepted message. What is due now is offered before this returns."""
        message_id = self._response_id(fate.number)
        self._remember(message_id, fate.state)
        if not self._asked(submit.registered_delivery, fate.state):
            return
        for destination in submit.destinations:
            due = now if fate.early else now + fate.delay_s
            before = None
            if fate.enroute:
                before = self._make(bind, submit, destination, fate, "ENROUTE", now)
                self._offer(before, due, now)
                due += fate.delay_s
            report = self._make(bind, submit, destination, fate, fate.state, now)
            report.before = before
            self._offer(report, due, now)

    def _asked(self, registered_delivery: int, state: str) -> bool:
        if self._options.receipts is Receipts.ALL:
            return True
        asked = registered_delivery & 3
        return asked == _ALWAYS or asked == (_ON_SUCCESS if state == "DELIVRD" else _ON_FAILURE)

    def _offer(self, delivery: Delivery, due: float, now: float) -> None:
        if due <= now:
            self._dispatcher.offer(delivery)
        else:
            self._agenda.at(due, partial(self._dispatcher.offer, delivery))

    def _make(self, bind: Bind, submit: Submit, destination: bytes, fate: Fate, state: str, now: float) -> Delivery:
        account = bind.account
        if account is None:
            raise RuntimeError("a report for a connection that never bound")
        self.made += 1
        final = state in c.FINAL_STATES
        tlvs = b""
        if self._options.tlv and bind.tlvs:
            tlvs = receipt_tlvs(self._tlv_id(fate.number).encode(), _STATE_NUMBERS[state])
        receipt_id = self._receipt_id(fate.number).encode()
        body = receipt_body(submit, destination, receipt_id, state.encode(), self._today(now), tlvs, final=final)
        delivery = self._dispatcher.make(account, body, bind, fate.spread, fate.choice)
        message_id = self._response_id(fate.number)
        self._ledger.add(Report(now, delivery.number, message_id, destination[2:].decode("latin-1"), state, final))
        return delivery

    def _remember(self, message_id: str, state: str) -> None:
        self._states[message_id] = _STATE_NUMBERS[state]
        if len(self._states) > QUERYABLE:
            del self._states[next(iter(self._states))]

    def _today(self, now: float) -> bytes:
        """YYMMDDhhmm, looked up once a second."""
        if now >= self._date_until:
            self._date_until = now + 1
            self._date = time.strftime("%y%m%d%H%M", time.gmtime()).encode()
        return self._date
