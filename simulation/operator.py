"""The operator: sends every report and MO on a bind, and again when it was refused or the bind broke before an answer.

Each sending has a trace of its own: what comes of an earlier one that was not answered is nobody's promise, and must
all the same never be in two custodies or at a wrong gateway.
"""

import random
from collections.abc import Mapping
from functools import partial
from typing import Final

from attrs import define, evolve, frozen

from simulation.history import History
from simulation.host import Host
from simulation.node import Process
from simulation.timeline import Timeline
from simulation.traffic import Arrival, Sending

_MOST_SENDINGS: Final = 8  # of one report; operators try for hours, a seed lasts minutes


@frozen
class Sent:
    """What `sent` events carry."""

    arrival: Arrival
    owner: str
    bind: int  # reports that come in on one bind keep their order


@define(eq=False)
class _Waiting:
    sending: Sending
    process: Process
    trace: str
    count: int


class Operator:
    def __init__(self, hosts: Mapping[str, Host], timeline: Timeline, choose: random.Random, history: History) -> None:
        self._hosts = hosts
        self._timeline = timeline
        self._choose = choose
        self._history = history
        self._waiting: dict[str, _Waiting] = {}
        self._to_send = 0
        self._binds: dict[str, int] = {}  # by node; another number for each new one

    @property
    def busy(self) -> bool:
        """Something is not answered, or is to be sent again."""
        return bool(self._waiting) or self._to_send > 0

    def send(self, sending: Sending, count: int = 0) -> None:
        self._to_send -= count > 0
        host = self._host_for(sending)
        if host is None or host.process is None:
            self._send_later(sending, count, self._choose.uniform(0.5, 2.0))
            return
        trace = f"{sending.arrival.trace}#{count}" if count else sending.arrival.trace
        arrival = evolve(sending.arrival, trace=trace)
        bind = self._binds.setdefault(host.name, 0)
        self._history.note("sent", trace, host.name, Sent(arrival, sending.owner, bind))
        self._waiting[trace] = _Waiting(sending, host.process, trace, count)
        process = host.process
        process.do(partial(process.arrive, arrival, partial(self._answered, trace, host.name)))

    def _host_for(self, sending: Sending) -> Host | None:
        """The one that was meant, or another that is bound; for an MO one of the same ring."""
        cluster = self._hosts[sending.node].site.cluster
        bound = [
            host
            for host in self._hosts.values()
            if host.process is not None and host.process.ready and not host.process.leaving
            if sending.arrival.kind == "dlr" or host.site.cluster == cluster
        ]
        return next((host for host in bound if host.name == sending.node), None) or (
            self._choose.choice(bound) if bound else None
        )

    def _answered(self, trace: str, node: str, taken: bool) -> None:
        waiting = self._waiting.pop(trace, None)
        if waiting is None:
            return  # the bind has gone, and with it the answer
        self._history.note("acknowledged" if taken else "refused", trace, node)
        if not taken:
            self._again(waiting)

    def bind_lost(self, node: str) -> None:
        """By the network, or because the process has ended."""
        self._binds[node] = self._binds.get(node, 0) + 1
        for waiting in [waiting for waiting in self._waiting.values() if waiting.process.host.name == node]:
            del self._waiting[waiting.trace]
            self._history.note("unanswered", waiting.trace, node)
            self._again(waiting)

    def _again(self, waiting: _Waiting) -> None:
        if waiting.count < _MOST_SENDINGS:
            self._send_later(waiting.sending, waiting.count + 1, self._choose.uniform(1.0, 5.0))

    def _send_later(self, sending: Sending, count: int, delay: float) -> None:
        self._to_send += count > 0
        self._timeline.after(delay, partial(self.send, sending, count))
