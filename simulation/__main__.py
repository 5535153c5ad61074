"""Run seeds in several processes; print how many a second, and the first that failed with its trace."""

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from simulation.profiles import PROFILES
from simulation.report import Failure, run_batch, story

_BATCH: Final = 50
_MOST_FAILURES: Final = 20


def parse_seeds(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        return range(int(first), int(last or first) + 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither FIRST-LAST nor one seed") from error


def _batches(seeds: range, profile: str | None) -> Iterator[tuple[range, str | None]]:
    for start in range(0, len(seeds), _BATCH):
        yield seeds[start : start + _BATCH], profile


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seeds", type=parse_seeds, default=range(1, 2001), metavar="FIRST-LAST")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--profile", choices=PROFILES, help="this one for every seed, instead of one by the seed")
    parser.add_argument("--trace", action="store_true", help="all that happened in a failing seed, not only its report")
    options = parser.parse_args()
    began = time.monotonic()
    done = 0
    failures: list[Failure] = []
    totals: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for results in pool.imap(run_batch, _batches(options.seeds, options.profile)):
            done += len(results)
            for result in results:
                if isinstance(result, Failure):
                    failures.append(result)
                else:
                    totals.update(reports=result.cases, delivered=result.delivered, events=result.events)
                    totals["seconds"] += round(result.virtual_s)
            if len(failures) >= _MOST_FAILURES:
                break
    took = time.monotonic() - began
    print(f"{done} seeds in {took:.1f} s: {done / took:.1f} seeds/s; {len(failures)} failed")
    print(
        f"{totals['reports']} reports and MO sent, {totals['delivered']} delivered; {totals['events']} events in "
        f"{totals['seconds'] / 3600:.1f} simulated hours"
    )
    for failure in failures[1:]:
        print(f"seed {failure.seed} ({failure.profile}): {failure.what.strip().splitlines()[-1]}")
    if failures:
        print(story(failures[0], whole=options.trace))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
