"""Which losses a cluster survives, as Galera counts."""

import pytest

from dlrproxy.modes.survival import losses, survives

THREE = {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("weights", "lost", "goes_on"),
    [
        (THREE, ["a"], True),
        (THREE, ["a", "b"], False),
        ({"a": 1, "b": 1}, ["a"], False),
        ({"a": 1, "b": 1, "garbd": 1}, ["a"], True),
        ({"a": 2, "b": 1, "c": 1}, ["b", "c"], False),  # exactly half is not enough
        ({"a": 3, "b": 1, "c": 1}, ["b", "c"], True),
        ({"a": 3, "b": 1, "c": 1}, ["a"], False),
        ({"a": 1, "b": 0}, ["b"], True),
    ],
)
def test_more_than_half_of_the_weight_goes_on(weights, lost, goes_on):
    assert survives(weights, lost) is goes_on


def test_a_prime_site_survives_the_other_one_and_not_the_other_way_round():
    found = {loss.of: loss.survived for loss in losses({"a": 1, "b": 1, "c": 1}, {"a": "x", "b": "x", "c": "y"})}
    assert found == {"a": True, "b": True, "c": True, "site x": False, "site y": True}


def test_one_site_is_not_told_apart_from_its_nodes():
    assert [loss.of for loss in losses(THREE, dict.fromkeys(THREE, "x"))] == ["a", "b", "c"]
