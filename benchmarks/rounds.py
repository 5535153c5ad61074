"""The measuring: load generator and SMSC in their processes, contestants taking turns in every round."""

import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

from benchmarks import load, smsc
from benchmarks.contestants import AbsentError, Contestant
from benchmarks.cpu import cpu_ns, settled_cpu_ns
from benchmarks.load import Order, Outcome, RunFailedError
from benchmarks.smsc import Counts, Settings
from benchmarks.starters import CROSSED, STARTERS, Starter

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

ANSWERS_S: Final = 5.0  # the last receipts' answers are still on their way when the load generator has finished
PACED_HOLD_S: Final = 0.0055  # a receipt at a pace comes between two submissions, not with one
WARM_UP_SHARE: Final = 0.2


@frozen
class Load:
    """A row of the table for every contestant."""

    window: int
    messages: int
    per_s: float | None = None
    hold_s: float = 0.0  # a receipt comes so long after its response

    @property
    def name(self) -> str:
        pace = "" if self.per_s is None else f" at {self.per_s:,.0f}/s"
        return f"W={self.window}{pace}"

    def for_share(self, share: float) -> "Load":
        """The same with a part of its messages; a pace is kept, and so its messages."""
        return self if self.per_s is not None else evolve(self, messages=max(1, int(self.messages * share)))


@frozen
class Measured:
    """One contestant under one load, once."""

    contestant: str
    load: Load
    cpu_us: float  # a message
    per_s: float
    outcome: Outcome
    database_us: float | None = None  # CPU a message of the database servers behind it
    node_us: float = 0.0  # of `cpu_us`, that of the process that uses most
    server_us: float = 0.0  # likewise of `database_us`


class Rig:
    """The two ends, as processes. Use `rig()`."""

    def __init__(
        self, port: int, operator: "Connection[object, object]", gateway: "Connection[object, object]"
    ) -> None:
        self.port = port
        self._operator = operator
        self._gateway = gateway

    def settle(self, settings: Settings) -> None:
        """How the SMSC behaves from now on, where `measure` does not say so."""
        self._operator.send(settings)

    def measure(self, contestant: Contestant, load: Load) -> Measured:
        """Raises RunFailedError when a message, receipt or answer is missing or too many."""
        warm_up = max(1, int(load.messages * WARM_UP_SHARE))
        hold_s = load.hold_s or (None if load.per_s is None else PACED_HOLD_S)
        self._operator.send(Settings(window=load.window, hold_s=hold_s))
        before = self._counts(contestant.name)
        self._gateway.send(
            Order(contestant.addresses, contestant.name, warm_up, load.messages, load.window, load.per_s)
        )
        self._hear()  # warm
        settled_cpu_ns(contestant.pids)
        before_it = _used(contestant)
        self._gateway.send("go")
        outcome = self._hear()
        if not isinstance(outcome, Outcome):
            raise TypeError(f"the load generator said {outcome!r}")
        settled_cpu_ns(contestant.pids)
        us = [(after - ago) / 1000 / load.messages for after, ago in zip(_used(contestant), before_it, strict=True)]
        nodes, servers = us[: len(contestant.pids)], us[len(contestant.pids) :]
        self._reconcile(contestant.name, before, warm_up + load.messages)
        return Measured(
            contestant=contestant.name,
            load=load,
            cpu_us=sum(nodes),
            per_s=load.messages / (outcome.seconds - load.hold_s),
            outcome=outcome,
            database_us=sum(servers) if servers else None,
            node_us=max(nodes, default=0.0),
            server_us=max(servers, default=0.0),
        )

    def _hear(self) -> object:
        try:
            said = self._gateway.recv()
        except EOFError:
            raise RunFailedError("the load generator has ended; what it said is above") from None
        if isinstance(said, RunFailedError):
            raise said
        return said

    def _counts(self, account: str) -> Counts:
        self._operator.send(account)
        counts = self._operator.recv()
        if not isinstance(counts, Counts):
            raise TypeError(f"the SMSC said {counts!r}")
        return counts

    def _reconcile(self, account: str, before: Counts, expected: int) -> None:
        """The SMSC's own counts say the same as the load generator's."""
        until = time.monotonic() + ANSWERS_S
        while True:
            now = self._counts(account)
            seen = (now.submits - before.submits, now.receipts - before.receipts, now.answered - before.answered)
            if seen == (expected,) * 3 or time.monotonic() > until:
                break
            time.sleep(0.02)
        refused = now.refused - before.refused
        if seen != (expected,) * 3 or refused or now.unexpected:
            raise RunFailedError(
                f"of {expected} messages the SMSC saw {seen[0]} submitted, sent {seen[1]} receipts, got "
                f"{seen[2]} answers, {refused} of them errors; unexpected: {', '.join(now.unexpected) or 'nothing'}"
            )


def _used(contestant: Contestant) -> list[int]:
    """Nanoseconds of CPU of each node, then of each database server."""
    return [cpu_ns([pid]) for pid in (*contestant.pids, *contestant.database_pids)]


@contextmanager
def rig() -> Iterator[Rig]:
    """The two ends, for as long as the block runs."""
    processes = multiprocessing.get_context("spawn")
    operator, operator_far = processes.Pipe()
    gateway, gateway_far = processes.Pipe()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        port: int = listener.getsockname()[1]
        ends = (
            processes.Process(target=smsc.serve, args=(listener, operator_far, CROSSED), daemon=True),
            processes.Process(target=load.serve, args=(gateway_far,), daemon=True),
        )
        for end in ends:
            end.start()
    operator_far.close()
    gateway_far.close()
    try:
        yield Rig(port, operator, gateway)
    finally:
        operator.close()
        gateway.close()
        for end in ends:
            end.join(2)
            if end.is_alive():
                end.terminate()
                end.join()


@contextmanager
def field_of(
    names: Sequence[str], work: Path, port: int, starters: Mapping[str, Starter] = STARTERS
) -> Iterator[tuple[list[Contestant], Mapping[str, str]]]:
    """The contestants of these names, started; and why those are absent that are."""
    started: list[Contestant] = []
    absent: dict[str, str] = {}
    try:
        for name in names:
            try:
                started.append(starters[name](work, port))
            except AbsentError as error:
                absent[name] = str(error)
        yield started, absent
    finally:
        for contestant in started:
            contestant.stop()


def run(
    rig: Rig, contestants: Sequence[Contestant], loads: Sequence[Load], repeat: int, progress: Callable[[str], None]
) -> list[list[Measured]]:
    """Rounds; in each, every load with every contestant in turn, so that what else the machine does hits all alike.

    Raises RunFailedError.
    """
    rounds: list[list[Measured]] = []
    for number in range(1, repeat + 1):
        measured: list[Measured] = []
        for load_ in loads:
            for contestant in contestants:
                progress(f"round {number} of {repeat}: {load_.name}, {contestant.name}")
                try:
                    measured.append(rig.measure(contestant, load_.for_share(contestant.share)))
                except (RunFailedError, ProcessLookupError) as error:
                    raise RunFailedError(f"{contestant.name}: {error}{contestant.last_words()}") from error
        rounds.append(measured)
    return rounds
