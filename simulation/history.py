"""What the outside saw: the operator, the gateways, people, and whoever looks at the disks. Nothing a machine says of
itself counts here but its route events, which are kept for whoever reads a failing trace.
"""

from typing import Final, Literal, NamedTuple, Protocol

What = Literal[
    "submitted",  # an MT was accepted by the operator for the gateway of a node; `detail`: the gateway
    "responded",  # and its submit_sm_resp, released by a durable write, is with the gateway
    "sent",  # the operator has sent a report or MO to a node
    "acknowledged",  # and was answered ESME_ROK
    "refused",  # and was answered with another status
    "unanswered",  # and the bind was lost before an answer
    "got",  # a gateway has it; `detail`: the gateway
    "answered",  # the gateway's status, seen by its node; `detail`: the status
    "cut",  # the session or the process ended between the two
    "replayed",  # by a person
    "dropped",  # by a person
    "crashed",  # a process; with what it had been answered and its disk does not know
    "started",
    "wiped",  # a node's data directory is gone
    "taken",  # in a cluster, another node gets what a node has in custody
    "retired",  # a node is configured no more
    "reached",  # what a node takes for reachable in its ring has changed; `detail`: all of it
    "jumped",  # the wall clock; `detail`: the seconds
    "fault",  # anything else that was done to the ring
    "said",  # a route event of a node
    "frame",  # a frame was sent; only with `wire`
]


class Event(NamedTuple):
    at: float
    what: What
    trace: str  # of the report or MO; or the message id of an MT; empty where it is about none
    node: str
    detail: object = None

    def __str__(self) -> str:
        about = f" {self.trace}" if self.trace else ""
        detail = "" if self.detail is None else f"  {self.detail}"
        return f"{self.at:9.3f}  {self.node:5}{self.what:13}{about}{detail}"


class Witness(Protocol):
    """Looks at every event as it happens."""

    def saw(self, event: Event) -> None: ...


MOST_KEPT: Final = 200_000


class History:
    def __init__(self, now: "Clock", *, frames: bool = False) -> None:
        """`frames`: keep every frame, too, for a trace that is read."""
        self.events: list[Event] = []
        self.frames = frames
        self._now = now
        self._witnesses: list[Witness] = []

    def shown_to(self, witness: Witness) -> None:
        self._witnesses.append(witness)

    def note(self, what: What, trace: str, node: str, detail: object = None) -> None:
        event = Event(self._now.now, what, trace, node, detail)
        if len(self.events) < MOST_KEPT:
            self.events.append(event)
        for witness in self._witnesses:
            witness.saw(event)


class Clock(Protocol):
    now: float
