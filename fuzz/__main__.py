"""Run the targets under the fuzzer, one process each; print what was executed, how fast, and what crashed."""

import argparse
import hashlib
import importlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parent
CORPUS: Final = HERE / "corpus"
CRASHES: Final = HERE / "crashes"

# Shares of the executions: the more decisions a target has, the more.
TARGETS: Final[Mapping[str, int]] = {
    "framing": 2,
    "bodies": 3,
    "receipts": 5,
    "message_ids": 2,
    "peer_frames": 2,
    "handshake": 1,
    "rows": 1,
    "relay": 4,
}
DEFAULT_RUNS: Final = 2_000_000
LONGEST_INPUT: Final = 4096  # the relay's; shorter ones come first
MOST_MEMORY_MB: Final = 1024

_EXECUTED: Final = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)


class Outcome(NamedTuple):
    """What one target's process did."""

    target: str
    executed: int
    seconds: float
    failed: bool

    def __str__(self) -> str:
        rate = self.executed / self.seconds if self.seconds else 0.0
        return f"{self.target:12}{self.executed:>11,}{rate:>11,.0f}/s{'  FAILED' if self.failed else ''}"


def shares(runs: int, targets: Sequence[str]) -> dict[str, int]:
    """Executions of each target; together at least `runs`."""
    whole = sum(TARGETS[target] for target in targets)
    return {target: -(-runs * TARGETS[target] // whole) for target in targets}


def executed(output: str) -> int:
    """How many executions the fuzzer counted; 0 where it did not come to print it."""
    found = _EXECUTED.findall(output)
    return int(found[-1]) if found else 0


def fuzz(target: str, runs: int, seed: int, keep: Path | None) -> Outcome:
    """Run one target. An input that breaks its invariant is written to crashes/, one worth keeping to `keep`."""
    CRASHES.mkdir(exist_ok=True)
    options = [f"-runs={runs}", f"-seed={seed}", f"-artifact_prefix={CRASHES}/{target}-", "-print_final_stats=1"]
    with tempfile.TemporaryDirectory() as temporary:
        found, start = Path(temporary, "found"), Path(temporary, "seeds")
        found.mkdir()
        _write(start, _seeds(target))
        began = time.monotonic()
        done = _run(target, options, found, start, *_corpus(target))
        seconds = time.monotonic() - began
        if keep is not None:
            _write(keep / target, (path.read_bytes() for path in found.iterdir()))
    if done.returncode:
        print(done.stdout[-6000:])
    return Outcome(target, executed(done.stdout), seconds, bool(done.returncode))


def minimize(target: str, keep: Path) -> None:
    """Make a target's corpus the smallest inputs that reach what it, its seeds and `keep` reach together."""
    with tempfile.TemporaryDirectory() as temporary:
        fewest, start = Path(temporary, "fewest"), Path(temporary, "seeds")
        fewest.mkdir()
        _write(start, _seeds(target))
        _write(start, (path.read_bytes() for path in (keep / target).glob("*")))
        done = _run(target, ["-merge=1"], fewest, start, *_corpus(target))
        if done.returncode:
            raise SystemExit(f"{target}: the fuzzer could not merge\n{done.stdout[-4000:]}")
        kept = [path.read_bytes() for path in fewest.iterdir()]
    for path in (CORPUS / target).glob("*"):
        path.unlink()
    _write(CORPUS / target, kept)
    print(f"{target:12}{len(kept):>6} inputs{sum(map(len, kept)):>9,} bytes")


def _corpus(target: str) -> list[Path]:
    return [path for path in [CORPUS / target] if path.is_dir()]


def _seeds(target: str) -> Iterable[bytes]:
    return importlib.import_module(f"fuzz.{target}").seeds()


def _write(directory: Path, inputs: Iterable[bytes]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def _run(target: str, options: Sequence[str], *directories: Path) -> subprocess.CompletedProcess[str]:
    """See run_target.py."""
    limits = [f"-max_len={LONGEST_INPUT}", f"-rss_limit_mb={MOST_MEMORY_MB}", "-timeout=20"]
    command = [sys.executable, str(HERE / "run_target.py"), target, *limits, *options, *map(str, directories)]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=DEFAULT_RUNS, help="executions, over all targets")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; may be given again")
    parser.add_argument("--seed", type=int, default=0, help="0: another one every time")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write inputs that reached something new there")
    parser.add_argument("--minimize", action="store_true", help="take what --keep wrote into the corpus; no fuzzing")
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    if options.minimize:
        for target in targets:
            minimize(target, options.keep or CORPUS)
        return 0
    outcomes = []
    for target, runs in shares(options.runs, targets).items():
        outcomes.append(fuzz(target, runs, options.seed, options.keep))
        print(outcomes[-1], flush=True)
    total = Outcome(
        "total",
        sum(outcome.executed for outcome in outcomes),
        sum(outcome.seconds for outcome in outcomes),
        any(outcome.failed for outcome in outcomes),
    )
    print(total)
    if total.failed:
        print(f"inputs that failed are in {CRASHES}")
    return int(total.failed)


if __name__ == "__main__":
    sys.exit(main())
