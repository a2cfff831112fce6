"""The requirements of a recipe against what a run measured."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgec.tools.judging import check_requirements, decibel, rounded

BASELINE = {"params": 1000, "macs": 5000, "weight_bytes": 4000}
COMPRESSED = {"params": 10, "macs": 2500, "weight_bytes": 40}


def check(
    asked: dict[str, float],
    *,
    metric: tuple[float | None, float | None, list[float | None]] | None = (0.95, 0.94, [0.93, 0.945]),
    sqnr: tuple[float | None, list[float | None]] = (40.0, [30.0, None]),
    higher: bool = True,
) -> dict[str, dict[str, Any]]:
    quality = {
        "sqnr_db": sqnr[0],
        "metric": None if metric is None else {"name": "m", "baseline": metric[0], "compressed": metric[1]},
    }
    values = [None, None] if metric is None else metric[2]
    pairs = enumerate(zip(values, sqnr[1], strict=False))
    targets = {f"t{i}": {"metric": value, "sqnr_db": level} for i, (value, level) in pairs}
    return check_requirements(asked, BASELINE, COMPRESSED, quality, targets, higher)


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("params_removed", 0.99),
        ("macs_removed", 0.5),
        ("weight_bytes_removed", 0.99),
        ("metric_drop", 0.02),
        ("metric_min", 0.93),
        ("sqnr_min", 30.0),
    ],
)
def test_each_requirement_is_met_up_to_what_was_got(name: str, got: float) -> None:
    upper = name == "metric_drop"
    assert check({name: got})[name] == {"asked": got, "got": got, "met": True}
    harder = got - 1e-5 if upper else got + 1e-5
    assert check({name: harder})[name] == {"asked": harder, "got": got, "met": False}


def test_the_worst_of_the_targets_counts() -> None:
    assert check({"metric_min": 0}, metric=(0.95, 0.94, [0.9, 0.96]))["metric_min"]["got"] == 0.9
    assert check({"metric_min": 0}, metric=(0.95, 0.84, [0.9, 0.96]))["metric_min"]["got"] == 0.84
    assert check({"sqnr_min": 0}, sqnr=(20.0, [30.0, 25.0]))["sqnr_min"]["got"] == 20.0


def test_a_metric_that_is_better_when_lower() -> None:
    found = check({"metric_drop": 0.1, "metric_max": 0.2}, metric=(0.1, 0.15, [0.25, 0.12]), higher=False)
    assert found["metric_drop"] == {"asked": 0.1, "got": 0.15, "met": False}
    assert found["metric_max"] == {"asked": 0.2, "got": 0.25, "met": False}


def test_a_better_network_drops_by_less_than_nothing() -> None:
    assert check({"metric_drop": 0}, metric=(0.9, 0.95, [0.95]))["metric_drop"]["got"] == -0.05


def test_infinity_is_met_where_higher_is_better_and_not_where_lower_is() -> None:
    equal = check({"sqnr_min": 60, "metric_min": 60}, metric=(None, None, [None]), sqnr=(None, [None]))
    assert [entry["met"] for entry in equal.values()] == [True, True]
    assert [entry["got"] for entry in equal.values()] == [None, None]
    assert check({"metric_drop": 0}, metric=(None, None, [None]))["metric_drop"] == {
        "asked": 0,
        "got": 0.0,
        "met": True,
    }
    lost = check({"metric_drop": 5}, metric=(None, 40.0, [None]))["metric_drop"]
    assert lost == {"asked": 5, "got": None, "met": False}
    worse = check({"metric_max": 5, "metric_drop": 5}, metric=(1.0, 2.0, [None]), higher=False)
    assert [entry["met"] for entry in worse.values()] == [False, False]


def test_only_what_was_asked_is_in_it_and_in_its_order() -> None:
    assert list(check({"sqnr_min": 1, "params_removed": 0.5}, metric=None)) == ["sqnr_min", "params_removed"]
    assert check({}) == {}


def test_a_network_without_weights_loses_none() -> None:
    quality = {"sqnr_db": None, "metric": None}
    found = check_requirements({"params_removed": 0.0}, {"params": 0}, {"params": 0}, quality, {}, True)
    assert found["params_removed"] == {"asked": 0.0, "got": 0.0, "met": True}


@pytest.mark.parametrize(
    ("value", "kept"), [(31.23456, 31.23), (math.inf, None), (-math.inf, -999.0), (math.nan, -999.0), (-0.004, 0.0)]
)
def test_decibel(value: float, kept: float | None) -> None:
    assert decibel(value) == kept


def test_rounded() -> None:
    assert rounded(0.12345678) == 0.123457
    assert rounded(math.inf) is None
    assert rounded(-math.inf) == -1e300
