"""Ledgers: what is added is what is read back."""

import pytest

from dlrproxy.simulator.ledger import (
    BATCH,
    Accepted,
    Answered,
    GatewayStarted,
    Ledger,
    MoReceived,
    Reported,
    Unanswered,
    new_run,
    read_ledger,
)

EVENTS = [
    GatewayStarted(1.5, "gw1", "r", 2.5),
    Accepted(2.0, "1a", "26", "tag\xff\n\0", "123", "467", "b1", "@1"),
    Answered(3.0, 1, "b1", 0x58, True),
    Unanswered(3.5, 1, "b1", "bind lost"),
    Reported(4.0, "26", "DELIVRD", "tag", "467", "s1", None, "number"),
    MoReceived(5.0, "m-1", "467", "7000", "s1", 0),
]


def test_round_trip(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for event in EVENTS:
        ledger.add(event)
    ledger.close()
    assert list(read_ledger(path)) == EVENTS == ledger.events


def test_runs_are_appended(tmp_path):
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        ledger = Ledger(path, keep=False)
        ledger.add(EVENTS[0])
        ledger.close()
        assert ledger.events == []
    assert list(read_ledger(path)) == [EVENTS[0]] * 2


def test_a_full_batch_is_written_without_being_asked(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, keep=False)
    for _ in range(BATCH):
        ledger.add(EVENTS[0])
    assert len(path.read_bytes().splitlines()) == BATCH
    ledger.close()


def test_a_line_that_is_no_event_is_named(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"type":"linked","t":1.0,"session":"s1"}\n{"type":"nonsense"}\n')
    with pytest.raises(ValueError, match="line 2"):
        list(read_ledger(path))


def test_runs_have_short_names():
    assert len(new_run()) == 4
