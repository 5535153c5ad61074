"""What holds for all tests."""

import pytest

PROCESSES_S = 300  # whole processes start, settle and end within seconds, but not on a machine that has much else to do


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """More time for tests of whole processes than pyproject.toml gives to every test."""
    for item in items:
        if item.get_closest_marker("processes") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(PROCESSES_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured, for people; nothing is asserted of it."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
