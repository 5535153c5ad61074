"""The log: what a line holds, what it never holds, and that nothing that happens to its reader stops the node."""

import json
import logging
import os
from typing import get_args

import pytest
import structlog

from dlrproxy.config import Log, Secret
from dlrproxy.log_sink import Sink
from dlrproxy.logs import ROUTE_EVENTS, ROUTE_FIELDS, RouteLog, Step, configure, logger, mask


@pytest.fixture(autouse=True)
def _untouched_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def configured(tmp_path):
    """Configure with settings; returns how to read the lines written so far."""
    sinks = []

    def start(**settings):
        file = tmp_path / "node.log"
        sinks.append(configure(Log(file=file, **settings), node="gw1"))
        return lambda: [json.loads(line) for line in file.read_text().splitlines()]

    yield start
    for sink in sinks:
        sink.close()


def test_a_line_is_one_json_object_with_what_matters_in_front(configured):
    lines = configured()
    logger("operators", operator="acme").info("bind.up", bind=1)
    (line,) = lines()
    assert list(line) == ["timestamp", "level", "event", "node", "component", "operator", "bind"]
    assert line["timestamp"].endswith("+00:00")
    del line["timestamp"]
    assert line == {
        "level": "info",
        "event": "bind.up",
        "node": "gw1",
        "component": "operators",
        "operator": "acme",
        "bind": 1,
    }


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_is_the_configured_one(configured, level, seen):
    lines = configured(level=level)
    log = logger("node")
    for method in ("debug", "info", "warning", "error"):
        getattr(log, method)("happened")
    assert [line["level"] for line in lines()] == seen


def test_a_filtered_call_does_not_even_look_at_its_values(configured):
    lines = configured(level="info")

    class Unlookable:
        def __str__(self):
            raise AssertionError("rendered")

    logger("relay").debug("pdu.seen", what=Unlookable())
    assert lines() == []


def test_secrets_and_texts_are_withheld(configured):
    lines = configured(full_numbers=True)
    logger("node").info(
        "x", account=Secret(b"hunter2"), password="hunter2", text="hunter2", pdu=b"hunter2", within=[Secret(b"hunter2")]
    )
    (line,) = lines()
    assert "hunter2" not in str(line)
    assert (line["account"], line["password"], line["within"]) == ("***", "***", ["***"])


def test_numbers_are_masked_unless_a_setting_says_otherwise(configured):
    lines = configured()
    logger("node").info("x", destination=b"447911123456", source="+4915112345678", reference="447911123456")
    masked = lines()[-1]
    assert (masked["destination"], masked["source"]) == ("4479******56", "+4915*******78")
    assert masked["reference"] == "447911123456"
    lines = configured(full_numbers=True)
    logger("node").info("x", destination=b"447911123456")
    assert lines()[-1]["destination"] == "447911123456"


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("447911123456", "4479******56"),
        (b"447911123456", "4479******56"),
        ("+447911123456", "+4479******56"),
        ("12345678", "123***78"),
        ("1234567", "12***67"),
        ("123456", "123456"),
        ("7000", "7000"),
        ("", ""),
        ("+", "+"),
        ("Shop", "Shop"),
        ("Shop4You24", "Shop4You24"),
        (b"\xff\xfe", "\\xff\\xfe"),
    ],
)
def test_mask(number, shown):
    assert mask(number) == shown


def test_values_that_json_has_no_word_for(configured, tmp_path):
    lines = configured()
    logger("node").info(
        "x", id=b"a\xff", error=OSError(28, "full"), path=tmp_path, names={"b", "a"}, big=2**70, odd="\ud800"
    )
    line = lines()[-1]
    assert line["id"] == "a\\xff"
    assert line["error"] == "OSError: [Errno 28] full"
    assert line["path"] == str(tmp_path)
    assert line["names"] == ["a", "b"]
    assert line["big"] == 2**70
    assert line["odd"] == "\ud800"


def test_an_exception_is_one_line_of_level_error(configured):
    lines = configured()
    try:
        raise ValueError("no")
    except ValueError:
        logger("node").exception("broke")
    (line,) = lines()
    assert line["level"] == "error"
    assert line["exception"].endswith("ValueError: no")


def test_warnings_of_other_packages_are_events_and_their_chatter_is_not(configured):
    lines = configured(level="debug")
    logging.getLogger("trio-websocket").info("message text of a frame")
    logging.getLogger("trio-websocket").warning("closed by %s", "peer")
    logging.getLogger("trio-websocket").error("%d", "not a number")
    assert [(line["level"], line["component"], line["said"]) for line in lines()] == [
        ("warning", "trio-websocket", "closed by peer"),
        ("error", "trio-websocket", "%d"),
    ]


# Route events


@pytest.fixture
def routed(tmp_path):
    """A route log with settings, and how to read the lines written so far."""
    file = tmp_path / "routes.log"
    sink = Sink(file)
    yield lambda **settings: (
        RouteLog.of(Log(**settings), "gw2", sink),
        lambda: [json.loads(line) for line in file.read_bytes().splitlines()],
    )
    sink.close()


def test_a_route_event_says_who_what_and_where(routed):
    log, lines = routed()
    log.event("dlr", "forwarded", trace="t1", operator="acme", message_id=b"1a2b", hop=1, lap=2, to="gw3")
    (line,) = lines()
    assert line.pop("timestamp").endswith("+00:00")
    assert list(line.items()) == [
        ("level", "info"),
        ("event", "dlr.forwarded"),
        ("node", "gw2"),
        ("component", "route"),
        ("trace", "t1"),
        ("operator", "acme"),
        ("message_id", "1a2b"),
        ("hop", 1),
        ("lap", 2),
        ("to", "gw3"),
    ]


@pytest.mark.parametrize("settings", [{"route_events": False}, {"level": "warning"}])
def test_route_events_can_be_switched_off(routed, settings):
    log, lines = routed(**settings)
    log.event("dlr", "missed", trace="t", operator="acme", message_id=b"1")
    assert lines() == []


@pytest.mark.parametrize(("full_numbers", "seen"), [(False, "4479******56"), (True, "447911123456")])
def test_a_destination_in_a_route_event_is_masked(routed, full_numbers, seen):
    log, lines = routed(full_numbers=full_numbers)
    log.event("mo", "received", trace="t", operator="acme", message_id=b"", destination=b"447911123456")
    assert lines()[0]["destination"] == seen


def test_what_belongs_in_no_log_is_withheld_from_route_events_and_an_odd_id_is_still_readable(routed):
    log, lines = routed()
    log.event("dlr", "missed", trace="t", operator="acme", message_id=b"\xff\n1", text="hello")
    assert (lines()[0]["text"], lines()[0]["message_id"]) == ("***", "\\xff\n1")


def test_the_table_of_route_events_is_complete():
    steps = {step for alternative in get_args(Step) for step in get_args(alternative) or (alternative,)}
    assert set(ROUTE_EVENTS) == {f"{kind}.{step}" for kind in ("dlr", "mo") for step in steps}
    always = {"trace", "node", "operator", "message_id", "hop", "lap"}
    assert set(ROUTE_FIELDS) == always | {field for doc in ROUTE_EVENTS.values() for field in doc.fields}


# The sink


def test_the_file_is_appended_to_and_opened_again(tmp_path):
    file = tmp_path / "node.log"
    file.write_bytes(b"before\n")
    sink = Sink(file)
    sink.msg(b"one\n")
    file.rename(tmp_path / "node.log.1")
    sink.msg(b"two\n")
    sink.reopen()
    sink.msg(b"three\n")
    sink.close()
    assert (tmp_path / "node.log.1").read_bytes() == b"before\none\ntwo\n"
    assert file.read_bytes() == b"three\n"


def test_a_reopen_that_fails_goes_on_with_the_old_file(tmp_path):
    directory = tmp_path / "logs"
    directory.mkdir()
    sink = Sink(directory / "node.log")
    directory.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        sink.reopen()
    sink.msg(b"still here\n")
    sink.close()
    assert (tmp_path / "moved" / "node.log").read_bytes() == b"still here\n"


def test_a_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path):
    with pytest.raises(FileNotFoundError):
        configure(Log(file=tmp_path / "absent" / "node.log"), node="gw1")


def test_without_a_file_the_log_is_stderr(capfd):
    sink = configure(Log(), node="gw1")
    logger("node").info("started")
    sink.reopen()
    logger("node").info("running")
    sink.close()
    assert [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()] == ["started", "running"]


@pytest.fixture
def pipe_sink(tmp_path):
    """A sink whose lines go into a pipe, and the pipe's reading end."""
    reading, writing = os.pipe()
    sink = Sink(tmp_path / "unused")
    os.dup2(writing, sink._descriptor)
    os.close(writing)
    yield sink, reading
    sink.close()


def test_a_reader_that_is_gone_costs_lines_and_nothing_else(pipe_sink, tmp_path):
    sink, reading = pipe_sink
    os.close(reading)
    sink.msg(b"one\n")
    sink.msg(b"two\n")
    assert sink.lost == 2
    sink.reopen()
    sink.msg(b"three\n")
    assert sink.lost == 2
    said, after = (tmp_path / "unused").read_bytes().splitlines()
    assert json.loads(said) == {"level": "warning", "event": "log.lines_lost", "count": 2}
    assert after == b"three"


def test_a_line_torn_by_a_full_pipe_does_not_spoil_the_next(pipe_sink):
    sink, reading = pipe_sink
    os.set_blocking(sink._descriptor, False)
    sink.msg(b"x" * 1_000_000 + b"\n")
    assert sink.lost == 1
    os.set_blocking(reading, False)
    torn = os.read(reading, 1_000_000)
    assert set(torn) == {ord("x")}
    sink.msg(b"whole\n")
    assert os.read(reading, 1_000_000).splitlines()[2:] == [b"whole"]
    os.close(reading)
