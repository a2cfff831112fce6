"""The corrections that prune fits, from sums that rounding or scale make difficult."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.layers.affine_regression import RIDGES, Sums, best


def sums(patches: np.ndarray, residual: np.ndarray) -> Sums:
    made = Sums([patches.shape[1]], residual.shape[1])
    made.add(0, patches.astype(np.float32), residual.astype(np.float32))
    return made


def test_features_that_are_all_the_same_have_a_solution_under_every_ridge() -> None:
    """Sums of float32 products of them have eigenvalues below zero, by more than the smallest ridge."""
    random = np.random.default_rng(0)
    patches = np.exp(3 * random.standard_normal((1, 1200))).repeat(256, axis=0)
    residual = np.full((256, 2), 3.0)
    made = sums(patches, residual)
    assert np.linalg.eigvalsh(made.xx[0])[0] < -RIDGES[0] * np.trace(made.xx[0]) / 1200
    for ridge in RIDGES:
        correction = made.solve(ridge)
        assert correction.weights is not None
        [weights] = correction.weights
        left = residual - patches @ weights - correction.bias
        assert np.linalg.norm(left) < 0.1 * np.linalg.norm(residual)


@pytest.mark.parametrize("scale", [1.0, 1e20])
def test_values_beyond_their_squares_are_fitted_too(scale: float) -> None:
    random = np.random.default_rng(1)
    weights = random.standard_normal((5, 3))
    patches = [random.standard_normal((200, 5)) * scale for _ in range(2)]
    correction, left = best(*(sums(rows, rows @ weights) for rows in patches))
    assert correction is not None
    assert correction.weights is not None
    np.testing.assert_allclose(correction.weights[0], weights, atol=1e-3)
    assert left < 1e-6
