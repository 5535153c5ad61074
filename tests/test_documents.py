"""The documents say what the code says: every name that a person may meet stands in them."""

import re
from pathlib import Path

import pytest
from attrs import fields

from dlrproxy.cli import COMMANDS
from dlrproxy.counters import Counters
from dlrproxy.logs import ROUTE_EVENTS
from protocols.smpp.constants import STATUS_NAMES
from ring.commands import Reason

ROOT = Path(__file__).parent.parent
ACTIVE_PASSIVE = (ROOT / "docs" / "active-passive.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
README = (ROOT / "README.md").read_text()

# Counters of what goes well, or of a wait that ends; the others count something that is given up.
NOT_GIVEN_UP = {
    "requests",
    "open_messages",
    "throttled",
    "slowed",
    "waited_for_room",
    "reports",
    "mo",
    "matched",
    "matched_elsewhere",
    "missed",
    "ambiguous",
    "inexact",
    "no_id",
    "mo_by_rule",
    "mo_in_conversation",
    "mo_parts",
    "passed",
    "answered_ok",
    "answered_error",
    "answered_temporary",
    "answered_late",
    "answer_timeout",
    "queued_behind",
    "before_response",
    "delayed",
    "race_held",
    "race_resolved",
    "to_custody",
    "from_custody",
    "others",
}


@pytest.mark.parametrize("name", [field.name for field in fields(Counters) if field.name not in NOT_GIVEN_UP])
def test_every_give_up_of_the_relay_is_explained(name):
    assert f"| `{name}` |" in OPERATIONS


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_for_parking_is_explained(reason):
    assert f"| parked `{reason.value}` |" in OPERATIONS


@pytest.mark.parametrize("name", sorted({event.partition(".")[2] for event in ROUTE_EVENTS}))
def test_every_route_event_is_explained_as_the_code_explains_it(name):
    doc = ROUTE_EVENTS[f"dlr.{name}"]
    assert f"| `{name}` | {doc.meaning} | {' '.join(f'`{field}`' for field in doc.fields)} |" in OPERATIONS


PAIR_EVENT = re.compile(
    r"""\.(?:info|warning|error)\(\s*f?"((?:pair|journal|witness|custody\.merge|\{self\._name\})[a-z_.]*)\""""
)


def pair_events():
    """What a pair logs, but for what is there for its developers."""
    found = {event for file in (ROOT / "dlrproxy").rglob("*.py") for event in PAIR_EVENT.findall(file.read_text())}
    return {event.replace("{self._name}", "pair") for event in found}


def test_every_event_of_a_pair_is_explained():
    assert len(pair_events()) > 30
    explained = {name for line in ACTIVE_PASSIVE.splitlines() if line.startswith("| `") for name in line.split("`")}
    assert pair_events() <= explained


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_stands_in_the_readme(command):
    assert f"`dlrproxy {command}" in README or f"`{command}" in README


def test_every_status_in_the_documents_exists():
    known = set(STATUS_NAMES.values())
    words = {word.strip("`,.;:()|") for word in (README + OPERATIONS).split()}
    assert {word for word in words if word.startswith("ESME_")} <= known
