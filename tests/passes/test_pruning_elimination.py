"""The order of elimination, and the errors that it foretells, against least squares."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.prune.elimination import eliminate, ranked


def observations(rows: int, width: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_normal((rows, width)) @ random.standard_normal((width, width))


def reading(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    return weights.T @ weights, np.cov(x.T, bias=True), 10**9  # as if from so many that no ridge is needed


def least_squares_error(x: np.ndarray, weights: np.ndarray, kept: np.ndarray) -> float:
    """The relative error of the best linear function of the kept channels and a constant."""
    y = (x - x.mean(0)) @ weights.T
    found, *_ = np.linalg.lstsq(x[:, kept] - x[:, kept].mean(0), y, rcond=None)
    left = y - (x[:, kept] - x[:, kept].mean(0)) @ found
    return float((left**2).sum() / (y**2).sum())


def test_foretold_errors_are_those_of_least_squares() -> None:
    x, weights = observations(500, 6), np.random.default_rng(1).standard_normal((4, 6))
    found = eliminate([reading(x, weights)], np.zeros(6, bool))
    for gone in range(1, 6):
        kept = np.setdiff1d(np.arange(6), found.order[:gone])
        wanted = least_squares_error(x, weights, kept)
        assert 1 - np.exp(-found.loss[gone]) == pytest.approx(wanted, rel=0.02, abs=1e-3)


def test_the_first_to_go_is_the_best_single_one() -> None:
    x, weights = observations(500, 6), np.random.default_rng(1).standard_normal((4, 6))
    errors = [least_squares_error(x, weights, np.setdiff1d(np.arange(6), [unit])) for unit in range(6)]
    assert eliminate([reading(x, weights)], np.zeros(6, bool)).order[0] == int(np.argmin(errors))


def test_a_copy_of_a_channel_goes_for_nothing() -> None:
    x = observations(300, 5)
    x[:, 3] = 2 * x[:, 1]
    found = eliminate([reading(x, np.ones((2, 5)))], np.zeros(5, bool))
    assert found.order[0] in (1, 3)
    assert found.loss[1] < 1e-3
    assert found.loss[2] > 1e-2


def test_losses_of_several_readers_add_up() -> None:
    x, weights = observations(300, 4), np.eye(4)
    one = eliminate([reading(x, weights)], np.zeros(4, bool))
    two = eliminate([reading(x, weights), reading(x, 3 * weights)], np.zeros(4, bool))
    np.testing.assert_array_equal(one.order, two.order)
    np.testing.assert_allclose(two.loss, 2 * one.loss)


def test_units_that_must_stay_are_not_in_the_order() -> None:
    stay = np.array([True, False, False, True])
    found = eliminate([reading(observations(100, 4), np.eye(4))], stay)
    assert sorted(found.order) == [1, 2]
    assert len(found.loss) == 3


def test_a_reader_without_variance_costs_nothing() -> None:
    found = eliminate([(np.eye(3), np.zeros((3, 3)), 10)], np.array([True, False, False]))
    assert found.order.tolist() == [1, 2]
    assert found.loss.tolist() == [0, 0, 0]


def test_a_wide_group_goes_in_rounds() -> None:
    x = observations(2000, 300)
    found = eliminate([reading(x, np.eye(300))], np.zeros(300, bool))
    assert sorted(found.order) == list(range(300))
    assert (np.diff(found.loss) >= 0).all()


def test_a_score_that_adds_up_goes_from_the_lowest() -> None:
    found = ranked(np.array([4.0, 1.0, 3.0, 2.0]), np.array([False, False, True, False]))
    assert found.order.tolist() == [1, 3, 0]
    np.testing.assert_allclose(np.exp(-found.loss), [1, 0.9, 0.7, 0.3])
