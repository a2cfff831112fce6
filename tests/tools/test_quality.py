"""The requirements of a recipe against what a run measured, and the figures as reports keep them."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from edgec.ir.estimates import Means, Scores, Whole
from edgec.passes.calibration.requirements import Reached, decibel, rounded
from edgec.tools.quality import Quality, metric_entries, requirements, sqnr_entries

BASELINE = {"params": 1000, "macs": 5000, "weight_bytes": 4000}
COMPRESSED = {"params": 10, "macs": 2500, "weight_bytes": 40}


def check(
    asked: dict[str, float],
    *,
    metric: tuple[float, list[float]] | None = (0.95, [0.94, 0.93, 0.945]),
    sqnr: list[float] | None = None,
    higher: bool = True,
    failed: int = 0,
    confidence: float | None = None,
) -> dict[str, dict[str, Any]]:
    levels = [40.0, 30.0, math.inf] if sqnr is None else sqnr
    figures: list[float | None] = [None] * len(levels) if metric is None else [*metric[1]]
    reached = [
        Reached(Whole(level, 9), None if value is None else Whole(value, 9))
        for level, value in zip(levels, figures, strict=True)
    ]
    quality = SimpleNamespace(
        baseline=None if metric is None else Whole(metric[0], 9), metric=SimpleNamespace(higher_is_better=higher)
    )
    targets: dict[str, dict[str, Any]] = {f"t{index}": {} for index in range(len(levels) - 1)}
    targets |= {f"f{index}": {"error": "no"} for index in range(failed)}
    return requirements(asked, BASELINE, COMPRESSED, reached, cast(Quality, quality), targets, confidence)


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


def test_a_better_network_drops_by_less_than_nothing() -> None:
    assert check({"metric_drop": 0}, metric=(0.9, [0.95] * 3))["metric_drop"]["got"] == -0.05


def test_infinity_is_met_where_higher_is_better_and_not_where_lower_is() -> None:
    inf = math.inf
    equal = check({"sqnr_min": 60, "metric_min": 60}, metric=(inf, [inf]), sqnr=[inf])
    assert [entry["met"] for entry in equal.values()] == [True, True]
    assert [entry["got"] for entry in equal.values()] == [None, None]
    same = check({"metric_drop": 0}, metric=(inf, [inf]), sqnr=[inf])["metric_drop"]
    assert same == {"asked": 0, "got": 0.0, "met": True}
    lost = check({"metric_drop": 5}, metric=(inf, [40.0]), sqnr=[inf])["metric_drop"]
    assert lost == {"asked": 5, "got": None, "met": False}
    worse = check({"metric_max": 5, "metric_drop": 5}, metric=(1.0, [2.0, inf]), sqnr=[1, 1], higher=False)
    assert [entry["met"] for entry in worse.values()] == [False, False]


def test_only_what_was_asked_is_in_it_and_in_its_order() -> None:
    assert list(check({"sqnr_min": 1, "params_removed": 0.5}, metric=None)) == ["sqnr_min", "params_removed"]
    assert check({}) == {}


def test_a_target_that_is_missing_leaves_open_what_the_others_meet() -> None:
    judged = check({"sqnr_min": 30, "metric_min": 0.99, "params_removed": 0.9}, failed=1)
    assert judged["sqnr_min"] == {"asked": 30, "got": 30.0, "met": None, "unjudged": ["f0"]}
    assert judged["metric_min"]["met"] is False
    assert judged["params_removed"] == {"asked": 0.9, "got": 0.99, "met": True}


def test_confidence_stands_beside_what_is_measured() -> None:
    judged = check({"sqnr_min": 30, "params_removed": 0.9}, confidence=0.95)
    because = "too few samples to say with which confidence"
    assert judged["sqnr_min"] == {
        "asked": 30, "got": 30.0, "met": False, "confidence": 0.95, "bound": None, "because": because,
    }  # fmt: skip
    assert judged["params_removed"] == {"asked": 0.9, "got": 0.99, "met": True}


def level(rows: int) -> Scores:
    return Means(np.linspace(20, 30, rows)[:, None], lambda means: means[..., 0])


def test_samples_that_were_fitted_to_have_no_sqnr() -> None:
    assert sqnr_entries(level(4), unseen=False) == {"sqnr_db": None, "sqnr_interval": None, "sqnr_db_fitted": 25.0}
    assert sqnr_entries(level(4), unseen=True) == {"sqnr_db": 25.0, "sqnr_interval": None}
    low, high = sqnr_entries(level(30), unseen=True)["sqnr_interval"]
    assert 23 < low < 25 < high < 27
    assert metric_entries(None) == {"metric": None, "metric_interval": None}
    low, high = metric_entries(level(30))["metric_interval"]
    assert 23 < low < 25 < high < 27


@pytest.mark.parametrize(
    ("value", "kept"), [(31.23456, 31.23), (math.inf, None), (-math.inf, -999.0), (math.nan, -999.0), (-0.004, 0.0)]
)
def test_decibel(value: float, kept: float | None) -> None:
    assert decibel(value) == kept


def test_rounded() -> None:
    assert rounded(0.12345678) == 0.123457
    assert rounded(math.inf) is None
    assert rounded(-math.inf) == -1e300
