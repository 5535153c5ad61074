"""Metrics as they are named and shown: every name begins with dlrproxy_."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Family = GaugeMetricFamily | CounterMetricFamily


def gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dlrproxy_{name}", meaning, labels=labels)


def counter(name: str, meaning: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"dlrproxy_{name}", meaning, labels=labels)


def single(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(f"dlrproxy_{name}", meaning, value=value)


def single_counter(name: str, meaning: str, value: float) -> CounterMetricFamily:
    """A counter without labels."""
    return CounterMetricFamily(f"dlrproxy_{name}", meaning, value=value)


def one_of(name: str, meaning: str, label: str, values: Iterable[str], present: str) -> GaugeMetricFamily:
    """1 for the value that holds, 0 for the others."""
    metric = gauge(name, meaning, label)
    for value in values:
        metric.add_metric([value], value == present)
    return metric
