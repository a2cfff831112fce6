"""Intervals cover the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.estimates import Hits, Means, Ranks, Whole, exact_share, worst_difference
from edgec.ir.execution import sqnr_db, stacked
from edgec.ir.signal import sqnr_scores

TRIALS = 200


def first(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def test_nine_of_ten_intervals_of_a_mean_hold_it() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(TRIALS):
        low, high = Means(random.normal(3, 1, (40, 1)), first).interval()
        assert low is not None and high is not None
        inside += low <= 3 <= high
    # 95 % are promised; a percentile bootstrap of 40 samples holds some 93 %.
    assert 0.88 <= inside / TRIALS <= 0.99


def test_nine_of_ten_intervals_of_an_area_hold_it() -> None:
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(TRIALS):
        low, high = Ranks(random.normal(0, 1, 25), random.normal(1, 1, 60)).interval()
        assert low is not None and high is not None
        inside += low <= 0.7602 <= high  # the normal distribution's value at 1 / sqrt(2)
    assert 0.88 <= inside / TRIALS <= 0.99


def test_fifty_hits_of_fifty_are_not_certain() -> None:
    estimate = Hits(np.ones(50, bool)).estimate()
    assert (estimate.value, estimate.samples, estimate.high) == (1.0, 50, 1.0)
    assert estimate.low == pytest.approx(0.025 ** (1 / 50))  # Clopper and Pearson, in closed form
    perfect = Ranks(np.arange(23.0), 100 + np.arange(109.0)).estimate()
    assert perfect.low == pytest.approx(0.025 ** (1 / 23))
    assert exact_share(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))


def test_ties_count_one_half() -> None:
    assert Ranks(np.ones(7), np.ones(6)).value() == 0.5
    with pytest.raises(ValueError, match="both classes"):
        Ranks(np.zeros(0), np.ones(3))


def test_a_bootstrap_of_an_area_counts_ties_as_the_area_does() -> None:
    random = np.random.default_rng(2)
    scores = Ranks(random.integers(0, 4, 12).astype(float), random.integers(1, 5, 9).astype(float))
    drawn = scores.resampled()
    assert drawn is not None
    assert drawn.mean() == pytest.approx(scores.value(), abs=0.02)


def test_networks_that_err_on_the_same_samples_differ_little() -> None:
    random = np.random.default_rng(3)
    hit = random.random(400) < 0.7
    other = hit.copy()
    other[np.flatnonzero(hit)[:2]] = False
    paired = worst_difference(Hits(hit), Hits(other), 0.95)
    assert paired is not None and 0.005 <= paired <= 0.015
    same = worst_difference(Hits(hit), Hits(hit), 0.95)
    assert same == pytest.approx(1 - 0.05 ** (1 / 400))


def test_too_few_samples_have_no_interval() -> None:
    assert Means(np.ones((4, 1)), first).interval() == (None, None)
    assert Whole(0.5, 100).estimate().low is None
    assert worst_difference(Whole(0.5, 9), Whole(0.5, 9), 0.95) is None


def test_sqnr_by_runs_is_the_sqnr_over_all() -> None:
    random = np.random.default_rng(4)
    exact = [{"a": random.normal(size=(2, 3)), "b": 1e3 * random.normal(size=5), "none": np.zeros(0)} for _ in range(9)]
    other = [{name: x + 0.01 * random.normal(size=x.shape) for name, x in run.items()} for run in exact]
    scores = sqnr_scores(exact, other, each=2)
    assert scores.value() == pytest.approx(sqnr_db(stacked(exact), stacked(other)), abs=1e-9)
    low, high = scores.interval()
    assert scores.samples == 18 and low is not None and high is not None and low < scores.value() < high
    assert sqnr_scores(exact, exact).value() == np.inf
    other[3]["a"] = other[3]["a"] * np.nan
    assert sqnr_scores(exact, other).value() == -np.inf


def test_outputs_of_any_size_are_compared_run_by_run() -> None:
    """How many boxes a detector finds depends on the image: what cannot be compared is left out and counted."""
    random = np.random.default_rng(5)
    exact = [{"boxes": random.normal(size=(n, 4)), "scores": random.normal(size=8)} for n in (3, 0, 5, 2)]
    noisy = [{name: x + 0.1 for name, x in run.items()} for run in exact]
    assert sqnr_scores(exact, exact).value() == np.inf
    whole = sqnr_scores(exact, noisy)
    assert (whole.mismatched, whole.in_words()) == ({}, [])
    other = [*noisy[:2], {**noisy[2], "boxes": noisy[2]["boxes"][:4]}, noisy[3]]
    part = sqnr_scores(exact, other)
    assert part.mismatched == {"boxes": 1}
    without = [{name: x for name, x in run.items() if name != "boxes" or place != 2} for place, run in enumerate(exact)]
    powers = [np.mean(run["boxes"] ** 2) for run in without if run.get("boxes", np.zeros(0)).size]
    noises = [0.01] * len(powers)
    scores = [np.mean(run["scores"] ** 2) for run in exact]
    expected = 10 * np.log10(2 / (np.sum(noises) / np.sum(powers) + 4 * 0.01 / np.sum(scores)))
    assert part.value() == pytest.approx(expected, abs=1e-9)
    assert part.in_words() == [
        "output 'boxes' has another shape than the original's in 1 of 4 runs: the SQNR leaves them out, and a metric of"
        " your own can judge them (data.eval: {metric: 'python:module:function'})"
    ]


def test_outputs_that_cannot_be_compared_at_all_are_not_called_equal() -> None:
    exact = [{"boxes": np.ones((3, 4))}, {"boxes": np.ones((2, 4))}]
    other = [{"boxes": np.ones((2, 4))}, {"boxes": np.ones((3, 4))}]
    nothing = sqnr_scores(exact, other)
    assert nothing.value() == -np.inf
    assert nothing.mismatched == {"boxes": 2}


def test_text_is_right_or_wrong() -> None:
    exact = [{"name": np.array(["cat", "dog", "eel", "fox"], object)}]
    assert sqnr_scores(exact, exact).value() == np.inf
    other = [{"name": np.array(["cat", "dog", "eel", "cat"], object)}]
    assert sqnr_scores(exact, other).value() == pytest.approx(10 * np.log10(4))
