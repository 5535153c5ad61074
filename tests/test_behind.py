"""How far a replica is behind: in transactions, and in bytes of its source's log."""

import pytest

from dlrproxy.store.sql.behind import Behind, behind
from dlrproxy.store.sql.dialect import lacking

LOGS = (("binlog.000001", 1000), ("binlog.000002", 500), ("binlog.000003", 200))


@pytest.mark.parametrize(
    ("reached", "missing"), [("0-1-90", 10), ("0-1-100", 0), ("0-1-101", 0), ("1-1-5", 100), ("0-2-90,1-1-5", 10)]
)
def test_transactions_are_counted_by_their_numbers(reached, missing):
    assert lacking(reached, "0-1-100") == missing


@pytest.mark.parametrize(
    ("at", "missing"),
    [
        (("binlog.000003", 200), 0),
        (("binlog.000003", 150), 50),
        (("binlog.000001", 900), 100 + 500 + 200),
        (("binlog.000003", 260), 0),  # the source has written since it was asked
        (("binlog.000000", 4), None),  # removed there
        (None, None),
    ],
)
def test_bytes_are_those_of_the_log_behind_what_was_reached(at, missing):
    assert behind("0-1-100", LOGS, "0-1-100", at).bytes == missing


def test_what_is_not_known_is_said_not_to_be():
    assert behind("", (), "", None) == Behind(None, None)
