"""What the ledgers of a run say beside who has what: answers that did not come, sessions that ended, final reports."""

from collections.abc import Iterable, Mapping

from attrs import frozen

from dlrproxy.simulator import ledger as events
from protocols.smpp import constants as c

Delivery = tuple[str, str]  # of the operator: message id and state; of an MO its tag, and "MO"


@frozen
class Answer:
    """When it came, and how long after what it is for was sent."""

    t: float
    took_s: float


class Told:
    """Read once, when everybody has stopped."""

    def __init__(self, operator: Iterable[events.Event], gateways: Mapping[str, Iterable[events.Event]]) -> None:
        self.unanswered: dict[Delivery, list[events.Unanswered]] = {}
        self.sent: dict[tuple[Delivery, str], float] = {}  # and bind: when it was sent there last
        self.put_off: dict[Delivery, list[Answer]] = {}  # answered with an error
        self.abandoned: list[tuple[Delivery, int | None]] = []
        self.acknowledged: dict[Delivery, list[float]] = {}  # when it was answered ESME_ROK
        self.node_of_bind: dict[str, str] = {}
        self.ended: dict[str, list[float]] = {}  # by gateway: when its sessions did
        self.finals: dict[tuple[str, str], float] = {}  # by gateway and message id: when it took the final report first
        self._names: dict[int, Delivery] = {}
        for event in operator:
            self._hear_operator(event)
        for name, ledger in gateways.items():
            self._hear_gateway(name, ledger)

    def _hear_operator(self, event: events.Event) -> None:
        match event:
            case events.Bound():
                self.node_of_bind[event.bind] = event.node
            case events.Report():
                self._names[event.n] = event.id, event.state
            case events.Mo():
                self._names[event.n] = event.tag, "MO"
            case events.Sent():
                self.sent[self._names[event.n], event.bind] = event.t
            case events.Unanswered():
                self.unanswered.setdefault(self._names[event.n], []).append(event)
            case events.Answered(status=c.ESME_ROK):
                self.acknowledged.setdefault(self._names[event.n], []).append(event.t)
            case events.Answered():
                name = self._names[event.n]
                took_s = event.t - self.sent.get((name, event.bind), event.t)
                self.put_off.setdefault(name, []).append(Answer(event.t, took_s))
            case events.Abandoned():
                self.abandoned.append((self._names[event.n], event.status))
            case _:
                pass  # the judge's business

    def _hear_gateway(self, name: str, ledger: Iterable[events.Event]) -> None:
        ended = self.ended.setdefault(name, [])
        for event in ledger:
            if isinstance(event, events.Unlinked):
                ended.append(event.t)
            elif isinstance(event, events.Reported) and event.status == c.ESME_ROK and event.state in c.FINAL_STATES:
                self.finals.setdefault((name, event.id), event.t)
