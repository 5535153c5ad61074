"""Every real receipt of tests/data/receipts-sample.jsonl, through `dlrproxy explain --json` and the relay's reader."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dlrproxy.cli.explain import explain
from dlrproxy.explanation import frame_of_line
from protocols.smpp.message_ids import candidates, normal, relation
from protocols.smpp.receipts import read

LINES = (Path(__file__).parent / "data" / "receipts-sample.jsonl").read_text(encoding="utf-8").splitlines()
SAMPLES = [pytest.param(line, id=f"{number}-{json.loads(line)['note'][:40]}") for number, line in enumerate(LINES, 1)]


@pytest.fixture(scope="module")
def explained():
    """Each line's object, from one run that reads them all."""
    result = CliRunner().invoke(explain, ["--json"], input="\n".join(LINES))
    assert result.exit_code == 0
    return dict(zip(LINES, map(json.loads, result.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("line", SAMPLES)
def test_explain_sees_what_the_sample_says(explained, line):
    sample, found = json.loads(line), explained[line]
    assert found["is_receipt"] is sample.get("is_receipt", True)
    assert found["id"] == sample["expected_id"]
    assert found["state"] == sample["expected_state"]
    assert found["error"] == sample["err"]


@pytest.mark.parametrize("line", SAMPLES)
def test_explain_matches_or_refuses_the_response_id(explained, line):
    sample, found = json.loads(line), explained[line]
    assert found.get("matches_resp_id") == (sample["should_match"] if sample["resp_id"] is not None else None)


@pytest.mark.parametrize("line", SAMPLES)
def test_a_response_id_that_should_match_is_among_the_keys_that_are_looked_up(line):
    sample = json.loads(line)
    if not sample.get("should_match"):
        return
    report = read(frame_of_line(sample))
    response = sample["resp_id"].encode()
    assert relation(response, report.message_id) is not None
    assert normal(response) in candidates(report.message_id)
