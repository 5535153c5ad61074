"""What the fuzzer found worth keeping, through every target without the fuzzer; and what its driver makes of a run."""

import importlib

import pytest

from fuzz.__main__ import CORPUS, DEFAULT_RUNS, TARGETS, Outcome, executed, shares

MOST_BYTES = 300 * 1024

STATISTICS = """#4	DONE   cov: 2 ft: 2 corp: 1/1b
stat::number_of_executed_units: 4
stat::average_exec_per_sec:     0
"""


@pytest.mark.parametrize("target", TARGETS)
def test_the_invariant_holds_for_the_seeds_and_the_corpus(target):
    module = importlib.import_module(f"fuzz.{target}")
    kept = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    assert kept
    for data in (b"", *module.seeds(), *kept):
        module.check(data)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_states_its_invariant_in_a_sentence(target):
    stated = importlib.import_module(f"fuzz.{target}").check.__doc__
    assert stated.partition("\n")[0].endswith((".", ","))


def test_the_corpus_is_small_and_has_no_other_targets():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) <= MOST_BYTES


def test_two_million_executions_are_the_default_and_every_target_gets_its_share():
    parts = shares(DEFAULT_RUNS, list(TARGETS))
    assert sum(parts.values()) >= DEFAULT_RUNS == 2_000_000
    assert set(parts) == set(TARGETS)
    assert shares(10, ["rows"]) == {"rows": 10}


@pytest.mark.parametrize(("output", "count"), [(STATISTICS, 4), ("Traceback", 0)])
def test_what_was_executed_is_read_from_the_fuzzers_own_count(output, count):
    assert executed(output) == count


def test_an_outcome_names_the_target_its_rate_and_a_failure():
    line = str(Outcome("relay", 3000, 2.0, failed=True))
    assert line.split() == ["relay", "3,000", "1,500/s", "FAILED"]
