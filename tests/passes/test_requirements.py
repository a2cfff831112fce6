"""One meaning of met, for what quantize tries and for what is reported."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.estimates import Hits, Means, Ranks, Scores, Whole
from edgec.passes.calibration.requirements import Reached, judge


def level(db: float) -> Scores:
    return Whole(db, 32)


def hits(share: float, count: int = 200) -> Hits:
    return Hits(np.arange(count) < share * count)


def test_the_worst_network_counts() -> None:
    networks = [Reached(level(40), hits(0.9)), Reached(level(30), hits(0.8))]
    verdicts = judge({"sqnr_min": 30, "metric_min": 0.85, "metric_drop": 0.1}, networks, baseline=hits(0.9))
    assert (verdicts["sqnr_min"].got, verdicts["sqnr_min"].met) == (30, True)
    assert (verdicts["metric_min"].got, verdicts["metric_min"].met) == (0.8, False)
    assert (verdicts["metric_drop"].got, verdicts["metric_drop"].met) == (pytest.approx(0.1), True)


def test_a_metric_that_is_better_when_lower() -> None:
    def error(value: float) -> Means:
        return Means(np.full((9, 1), value), lambda means: means[..., 0])

    networks = [Reached(level(40), error(0.15)), Reached(level(30), error(0.25))]
    asked = {"metric_drop": 0.1, "metric_max": 0.2}
    verdicts = judge(asked, networks, baseline=error(0.1), higher_is_better=False)
    assert (verdicts["metric_drop"].got, verdicts["metric_drop"].met) == (0.15, False)
    assert (verdicts["metric_max"].got, verdicts["metric_max"].met) == (0.25, False)


def test_what_is_shown_is_what_is_compared() -> None:
    baseline = Whole(0.9, 10)
    verdict = judge({"metric_drop": 0.01}, [Reached(None, Whole(0.9 - 0.0100000004, 10))], baseline=baseline)
    assert verdict["metric_drop"].met
    verdict = judge({"metric_drop": 0.01}, [Reached(None, Whole(0.9 - 0.010001, 10))], baseline=baseline)
    assert not verdict["metric_drop"].met


def test_sqnr_of_fitted_samples_meets_nothing() -> None:
    verdict = judge({"sqnr_min": 1}, [Reached(level(90)), Reached(None)])["sqnr_min"]
    assert (verdict.got, verdict.met) == (None, False)
    assert verdict.because == "no samples were left that nothing was fitted to"


def test_confidence_asks_for_enough_samples() -> None:
    """The same drop of two hits: certain enough among 2,000 samples, not among 60."""
    for count, met in ((2000, True), (60, False)):
        before, after = np.arange(count) < 0.9 * count, np.arange(count) < 0.9 * count
        after[:2] = False
        verdict = judge({"metric_drop": 0.05}, [Reached(None, Hits(after))], baseline=Hits(before), confidence=0.95)[
            "metric_drop"
        ]
        assert verdict.met is met
        assert verdict.bound is not None and verdict.got is not None and verdict.bound > verdict.got
    few = judge({"metric_min": 0.5}, [Reached(None, Whole(0.9, 3))], confidence=0.95)["metric_min"]
    assert not few.met and few.because == "too few samples to say with which confidence"


def test_an_area_of_132_pictures_is_not_known_to_a_hundredth() -> None:
    random = np.random.default_rng(0)
    ok, ng = random.normal(0, 1, 23), random.normal(1.6, 1, 109)
    low, high = Ranks(ok, ng).interval()
    assert low is not None and high is not None and high - low > 0.05


def test_shares_that_are_gone() -> None:
    verdicts = judge(
        {"params_removed": 0.99, "macs_removed": 0.5}, [], removed={"params_removed": 0.99, "macs_removed": 0.4}
    )
    assert verdicts["params_removed"].met and not verdicts["macs_removed"].met
