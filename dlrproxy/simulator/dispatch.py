"""The operator's deliveries: windows, time-outs, retries, what happens when a bind is lost or none is there.

A delivery is settled when a peer has answered it with ESME_ROK, or when it is abandoned: after a permanent error, or
when its attempts are used up. Until then it is somewhere: due later on the agenda, unanswered or waiting on a bind,
behind the report before it, or stranded at its account until a receiver binds.
"""

import time
from functools import partial

import trio

from dlrproxy.simulator.agenda import Agenda
from dlrproxy.simulator.binds import Account, Bind, Delivery, choose
from dlrproxy.simulator.ledger import Abandoned, Answered, Ledger, Sent, Unanswered
from dlrproxy.simulator.options import OperatorOptions, Spread
from protocols.smpp import constants as c
from protocols.smpp.constants import HEADER_SIZE
from protocols.smpp.framing import HEADER

# What a large provider tries again; every other error is the peer's last word.
RETRIED = frozenset({c.ESME_RTHROTTLED, c.ESME_RMSGQFUL, c.ESME_RSYSERR})

EXPIRY_CHECK_S = 0.1


class Dispatcher:
    """Sends deliveries over binds. Nothing here flushes a stream: the caller does, once per batch."""

    __slots__ = (
        "_agenda", "_idle", "_ledger", "_options", "abandoned", "accepted", "late_answers", "made", "retries",
        "unknown_answers",
    )  # fmt: skip

    def __init__(self, options: OperatorOptions, ledger: Ledger, agenda: Agenda) -> None:
        self._options = options
        self._ledger = ledger
        self._agenda = agenda
        self._idle = trio.Event()
        self.made = 0
        self.accepted = 0
        self.abandoned = 0
        self.retries = 0
        self.late_answers = 0
        self.unknown_answers = 0

    @property
    def open(self) -> int:
        """Deliveries that are not settled, those due later included."""
        return self.made - self.accepted - self.abandoned

    async def wait_idle(self) -> None:
        """Until no delivery is open."""
        while self.open:
            self._idle = trio.Event()
            await self._idle.wait()

    def make(self, account: Account, body: bytes, origin: Bind | None, spread: Spread, choice: float) -> Delivery:
        """A new delivery. It is open from now on; `offer` it when it is due."""
        self.made += 1
        return Delivery(self.made, account, body, origin, spread, choice)

    def offer(self, delivery: Delivery) -> None:
        """Its time has come: send it as soon as a window has room, and the report before it is settled."""
        before = delivery.before
        if before is not None and not before.settled:
            if not self._options.overlap:
                before.following = delivery
                return
            if before.last is not None and before.last.receives:  # one bind keeps the order of a message's reports
                self._give(before.last, delivery)
                return
        self._place(delivery)

    def _place(self, delivery: Delivery, avoid: Bind | None = None) -> None:
        """Onto a bind by its spread, or, to `avoid` one that failed, onto the next one of the others."""
        account = delivery.account
        receivers = account.receivers
        if not receivers:
            account.stranded.append(delivery)
            return
        account.turn += 1
        if avoid is None:
            bind = choose(delivery.spread, receivers, delivery.origin, delivery.choice, account.turn)
        else:
            others = [bind for bind in receivers if bind is not avoid] or receivers
            bind = others[account.turn % len(others)]
        self._give(bind, delivery)

    def _give(self, bind: Bind, delivery: Delivery) -> None:
        if bind.waiting or len(bind.unanswered) >= self._options.window:
            bind.waiting.append(delivery)
        else:
            self._send(bind, delivery)

    def _send(self, bind: Bind, delivery: Delivery) -> None:
        now = time.monotonic()
        sequence = bind.next_sequence()
        delivery.attempts += 1
        delivery.last = bind
        if delivery.attempts > 1:
            self.retries += 1
        bind.unanswered[sequence] = (delivery, now + self._options.answer_timeout_s)
        body = delivery.body
        bind.stream.write(HEADER.pack(HEADER_SIZE + len(body), c.DELIVER_SM, 0, sequence) + body)
        self._ledger.add(Sent(now, delivery.number, bind.name, delivery.attempts))

    def answered(self, bind: Bind, sequence: int, status: int, now: float) -> None:
        """A deliver_sm_resp, or a generic_nack in its place."""
        late = False
        entry = bind.unanswered.pop(sequence, None)
        if entry is not None:
            delivery = entry[0]
        elif sequence in bind.late:
            delivery = bind.late.pop(sequence)
            late = True
            self.late_answers += 1
        else:
            self.unknown_answers += 1
            return
        self._ledger.add(Answered(now, delivery.number, bind.name, status, late))
        if not delivery.settled:
            self._judge_answer(delivery, status, now, late=late)
        self._refill(bind)

    def _judge_answer(self, delivery: Delivery, status: int, now: float, *, late: bool) -> None:
        if status == c.ESME_ROK:
            self.accepted += 1
            self._settle(delivery)
        elif late:
            return  # it is already on its way again
        elif status in RETRIED:
            self._retry(delivery, status, now)
        else:
            self._abandon(delivery, status, now)

    def _retry(self, delivery: Delivery, status: int, now: float) -> None:
        if self._used_up(delivery, status, now):
            return
        options = self._options
        wait = min(options.retry_ms * 2 ** min(delivery.attempts - 1, 20), options.max_retry_ms) / 1000
        self._agenda.at(now + wait, partial(self._place_again, delivery, None))

    def _place_again(self, delivery: Delivery, avoid: Bind | None) -> None:
        if not delivery.settled:
            self._place(delivery, avoid)

    def _used_up(self, delivery: Delivery, status: int | None, now: float) -> bool:
        if not self._options.max_attempts or delivery.attempts < self._options.max_attempts:
            return False
        self._abandon(delivery, status, now)
        return True

    def _abandon(self, delivery: Delivery, status: int | None, now: float) -> None:
        self.abandoned += 1
        self._ledger.add(Abandoned(now, delivery.number, status))
        self._settle(delivery)

    def _settle(self, delivery: Delivery) -> None:
        delivery.settled = True
        delivery.body = b""
        if delivery.following is not None:
            self._place(delivery.following)
            delivery.following = None
        if not self.open:
            self._idle.set()

    def _refill(self, bind: Bind) -> None:
        waiting = bind.waiting
        while waiting and len(bind.unanswered) < self._options.window:
            delivery = waiting.popleft()
            if not delivery.settled:
                self._send(bind, delivery)

    def bound(self, account: Account) -> None:
        """A receiver has joined the account: what was stranded goes out."""
        stranded, account.stranded = account.stranded, type(account.stranded)()
        for delivery in stranded:
            self._place_again(delivery, None)

    def gone(self, bind: Bind) -> None:
        """The bind is no longer among the receivers: what it had goes out again on others, at once."""
        now = time.monotonic()
        unanswered, waiting = list(bind.unanswered.values()), list(bind.waiting)
        bind.unanswered.clear()
        bind.waiting.clear()
        bind.late.clear()
        for delivery, _ in unanswered:
            self._ledger.add(Unanswered(now, delivery.number, bind.name, "bind lost"))
            if not delivery.settled and not self._used_up(delivery, None, now):
                self._place(delivery, avoid=bind)
        for delivery in waiting:
            self._place_again(delivery, None)

    def expire(self, bind: Bind, now: float) -> None:
        """Stop waiting for answers that are overdue, and try another bind, for what waits here as well."""
        overdue = []
        for sequence, (_, deadline) in bind.unanswered.items():  # in the order of their deadlines
            if deadline > now:
                break
            overdue.append(sequence)
        if not overdue:
            return
        waiting = list(bind.waiting)
        bind.waiting.clear()
        for sequence in overdue:
            delivery, _ = bind.unanswered.pop(sequence)
            bind.late[sequence] = delivery
            self._ledger.add(Unanswered(now, delivery.number, bind.name, "timeout"))
            if not delivery.settled and not self._used_up(delivery, None, now):
                self._place(delivery, avoid=bind)
        for delivery in waiting:
            self._place_again(delivery, bind)
