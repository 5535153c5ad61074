"""From rounds of measurements to rows, ratios and the budget's verdicts: pure."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final

from attrs import frozen

from benchmarks.load import Spread
from benchmarks.rounds import Load, Measured

FLOOR: Final = "byte-relay"
BASE: Final = "direct"


@frozen
class Row:
    """One contestant under one load: medians over the rounds; differences and ratios are taken within a round."""

    load: str
    contestant: str
    cpu_us: float | None  # a message, all processes of the contestant; None where nothing stands between
    cpu_us_min: float | None
    cpu_us_max: float | None
    ratio: float | None  # of CPU, to the byte relay
    database_us: float | None  # a message, of the database servers behind the contestant
    per_s: float
    response_ms: Spread
    receipt_ms: Spread
    added_response_ms: Spread | None  # against direct
    added_receipt_ms: Spread | None


@frozen
class Verdict:
    """A line of the budget. `measured` is None where this run did not measure it."""

    what: str
    unit: str
    budget: float
    measured: float | None

    @property
    def holds(self) -> bool | None:
        return None if self.measured is None else self.measured <= self.budget


def rows(rounds: Sequence[Sequence[Measured]]) -> list[Row]:
    """In the order of the measurements of a round."""
    keyed = [{(found.load.name, found.contestant): found for found in measured} for measured in rounds]
    return [_row(load, contestant, keyed) for load, contestant in (keyed[0] if keyed else ())]


def _row(load: str, contestant: str, rounds: Sequence[Mapping[tuple[str, str], Measured]]) -> Row:
    own = [found[load, contestant] for found in rounds]
    floor = [found.get((load, FLOOR)) for found in rounds]
    base = [found.get((load, BASE)) for found in rounds]
    cpu = [found.cpu_us for found in own] if contestant != BASE else []
    database = [found.database_us for found in own if found.database_us is not None]
    ratios = [found.cpu_us / under.cpu_us for found, under in zip(own, floor, strict=True) if under and cpu]

    def spread(of: Callable[[Measured], Spread]) -> Spread:
        return Spread(median(of(found).p50 for found in own), median(of(found).p99 for found in own))

    def added(of: Callable[[Measured], Spread]) -> Spread | None:
        pairs = [(of(found), of(under)) for found, under in zip(own, base, strict=True) if under is not None]
        if not pairs or contestant == BASE:
            return None
        return Spread(
            median(mine.p50 - theirs.p50 for mine, theirs in pairs),
            median(mine.p99 - theirs.p99 for mine, theirs in pairs),
        )

    return Row(
        load=load,
        contestant=contestant,
        cpu_us=median(cpu) if cpu else None,
        cpu_us_min=min(cpu, default=None),
        cpu_us_max=max(cpu, default=None),
        ratio=median(ratios) if ratios else None,
        database_us=median(database) if database else None,
        per_s=median(found.per_s for found in own),
        response_ms=spread(lambda found: found.outcome.response),
        receipt_ms=spread(lambda found: found.outcome.receipt),
        added_response_ms=added(lambda found: found.outcome.response),
        added_receipt_ms=added(lambda found: found.outcome.receipt),
    )


def verdicts(found: Sequence[Row], paced: Load, fsync_ms: float) -> list[Verdict]:
    """What the design aims at, and what was measured. Latency is judged at the pace: with a window kept full it only
    says how long the queue is that the load generator made."""
    by_key = {(row.load, row.contestant): row for row in found}
    matched = by_key.get(("W=100", "dlrproxy"))
    hop = by_key.get(("W=100", "one-hop"))
    at_pace = by_key.get((paced.name, "dlrproxy"))
    response = at_pace.added_response_ms if at_pace else None
    receipt = at_pace.added_receipt_ms if at_pace else None
    return [
        Verdict("CPU, message with a matched report, W=100", "us", 15.0, matched.cpu_us if matched else None),
        Verdict("CPU, report travels one hop, both nodes, W=100", "us", 40.0, hop.cpu_us if hop else None),
        Verdict(
            f"added to the response beyond one fsync, p50, {paced.name}",
            "ms",
            1.0,
            response.p50 - fsync_ms if response else None,
        ),
        Verdict(f"added to a matched report, p50, {paced.name}", "ms", 1.0, receipt.p50 if receipt else None),
    ]
