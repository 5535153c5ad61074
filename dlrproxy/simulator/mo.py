"""Mobile-originated messages that the operator makes up, at a rate, whole or in parts that go over different binds."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from random import Random

import trio

from dlrproxy.simulator.binds import Account
from dlrproxy.simulator.bodies import concatenation_udh, mo_body
from dlrproxy.simulator.dispatch import Dispatcher
from dlrproxy.simulator.ledger import Ledger, Mo
from dlrproxy.simulator.options import MoOptions, Spread

TICK_S = 0.01
_REMEMBERED = 1000  # submitted messages that may be answered


class MoSource:
    """Draws and offers MO. Has its own dice: MO do not change what befalls submitted messages."""

    __slots__ = ("_accounts", "_dispatcher", "_ledger", "_options", "_over", "_random", "_run", "_submitted", "made")

    def __init__(
        self,
        options: MoOptions,
        seed: int,
        run: str,
        accounts: Mapping[str, Account],
        dispatcher: Dispatcher,
        ledger: Ledger,
    ) -> None:
        self._options = options
        self._random = Random(f"{seed}/mo")
        self._run = run
        self._accounts = accounts
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._submitted: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)  # from, to
        self._over = False
        self.made = 0

    def submitted(self, source: str, destination: str) -> None:
        """A message has been accepted, and may be answered."""
        self._submitted.append((source, destination))

    def make_no_more(self) -> None:
        self._over = True

    async def run(self, flush: Callable[[], None], room: Callable[[], bool]) -> None:
        """Until `count` are made, or for ever. MO begin with so many receivers, and wait while there is no `room`."""
        while sum(len(account.receivers) for account in self._accounts.values()) < self._options.after_binds:  # noqa: ASYNC110 - a count
            await trio.sleep(TICK_S)
        due, before = 0.0, time.monotonic()
        while not self._made_enough():
            await trio.sleep(TICK_S)
            now = time.monotonic()
            due = min(due + (now - before) * self._options.rate, max(1.0, self._options.rate))
            before = now
            while due >= 1 and not self._made_enough() and room():
                due -= 1
                self.make()
            flush()

    def _made_enough(self) -> bool:
        return self._over or 0 < self._options.count <= self.made

    def make(self) -> None:
        """One MO for one of the accounts, all of its parts."""
        options, random = self._options, self._random
        self.made += 1
        account = self._accounts[sorted(self._accounts)[self.made % len(self._accounts)]]
        source, destination = f"4671{random.randrange(10_000_000):07d}", random.choice(options.destinations)
        if self._submitted and random.random() < options.answers:
            destination, source = random.choice(self._submitted)
        parts = options.parts if random.random() < options.concatenated else 1
        message = f"{self._run}-{self.made}"
        for part in range(1, parts + 1):
            tag = message if parts == 1 else f"{message}.{part}"
            udh = concatenation_udh(self.made, parts, part) if parts > 1 else b""
            body = mo_body(source, destination, f"{options.text} {tag}".encode("latin-1"), udh)
            # The turn of the binds takes the parts of one message to different binds.
            spread = Spread.ROUND_ROBIN if parts > 1 else Spread.RANDOM
            delivery = self._dispatcher.make(account, body, None, spread, random.random())
            self._ledger.add(Mo(time.monotonic(), delivery.number, tag, message, source, destination, part, parts))
            self._dispatcher.offer(delivery)
