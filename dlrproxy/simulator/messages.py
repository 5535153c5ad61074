"""What a gateway submits, and what has become of it."""

from collections import deque
from collections.abc import Collection, Sequence
from random import Random

import trio

from dlrproxy.simulator.ids import canonical, readings
from dlrproxy.simulator.options import GatewayOptions


class Outgoing:
    """One message: submitted once or more, answered, reported on."""

    __slots__ = ("attempts", "destination", "done", "tag")

    def __init__(self, tag: str, destination: str) -> None:
        self.tag = tag
        self.destination = destination
        self.attempts = 0
        self.done = False


class Messages:
    """All of one run. A message is done when it has a final report, a permanent error, or wants no report."""

    def __init__(self, options: GatewayOptions, run_id: str, choose: Random) -> None:
        """`run_id` tells the tags of this run from those of others."""
        self.made = 0
        self.answered = 0  # that have an id or a permanent error
        self.done = 0
        self.enough = False  # no new ones are made
        self.finished = trio.Event()  # as many as there are to be are done
        self._options = options
        self._run_id = run_id
        self._choose = choose
        self._again: deque[Outgoing] = deque()  # to be submitted again, before new ones
        self._by_id: dict[str, Outgoing] = {}
        self._by_number: dict[str, Outgoing] = {}
        self._by_tag: dict[str, Outgoing] = {}  # those that are not done

    def next(self) -> Outgoing | None:
        """To be submitted now; None: there is none."""
        if self._again:
            return self._again.popleft()
        if self.enough or self.made >= self._options.messages:
            return None
        self.made += 1
        tag = f"{self._options.name[-7:]}-{self._run_id}-{self.made}"
        destination = f"{self._options.destination_prefix}{self._choose.randrange(10_000_000):07d}"
        message = Outgoing(tag, destination)
        self._by_tag[tag] = message
        return message

    def take_back(self, unanswered: Sequence[Outgoing]) -> None:
        """They are submitted again, before anything else."""
        self._again.extendleft(reversed(unanswered))

    def put_off(self, message: Outgoing) -> None:
        """It is submitted again, after what else is."""
        self._again.append(message)

    @property
    def waiting(self) -> bool:
        """Some are to be submitted again."""
        return bool(self._again)

    def accepted(self, message: Outgoing, message_id: str) -> None:
        self.answered += 1
        self._by_id[message_id] = message
        self._by_number[canonical(message_id)] = message
        if not self._options.registered_delivery & 3:
            self.finish(message)

    def refused(self, message: Outgoing) -> None:
        """For good."""
        self.answered += 1
        self.finish(message)

    def finish(self, message: Outgoing) -> None:
        if message.done:
            return
        message.done = True
        self._by_tag.pop(message.tag, None)
        self.done += 1
        if self.done == self._options.messages:
            self.finished.set()

    @property
    def ids(self) -> Collection[str]:
        """That were given for them."""
        return self._by_id.keys()

    def of_id(self, message_id: str) -> tuple[Outgoing | None, str]:
        """The message that was given this id, and how that was told: "exact", "number" (another spelling), "none"."""
        message = self._by_id.get(message_id)
        if message is not None:
            return message, "exact"
        for reading in readings(message_id):
            message = self._by_number.get(reading)
            if message is not None:
                return message, "number"
        return None, "none"

    def of_tag(self, tag: str) -> Outgoing | None:
        """The one that is not done."""
        return self._by_tag.get(tag)
