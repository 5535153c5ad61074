"""What holds for all tests."""

import pytest
from hypothesis import HealthCheck, settings

# Whatever else the machine does, an example is not wrong because it was slow: by default it fails after 0.2 s.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

PROCESSES_S = 300  # whole processes start, settle and end within seconds, but not on a machine that has much else to do


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """More time for tests of whole processes than pyproject.toml gives to every test, and the longest files first.

    A file is run by one worker: where a long one began last, it would be waited for by all the others.
    """
    for item in items:
        if item.get_closest_marker("processes") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(PROCESSES_S))
    usual = float(config.getini("timeout"))
    limits: dict[object, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        limits[item.path] = max(limits.get(item.path, usual), marker.args[0] if marker else usual)
    items.sort(key=lambda item: -limits[item.path])  # the others stay in their order


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured, for people; nothing is asserted of it."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
