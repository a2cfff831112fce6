"""Least squares from normal equations, of any rank."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import linalg

# Added to the diagonal, relative to its mean; covariances in float32 are no better than that.
_RIDGE = 1e-7


class Regression:
    """The weights W (out, in) that minimise tr(W N W^T) - 2 tr(W B^T).

    Args:
        normal: N, (in, in), symmetric, positive but for rounding.
        right: B, (out, in).
    """

    def __init__(self, normal: np.ndarray, right: np.ndarray) -> None:
        self._lower = cholesky(normal)
        self._half = linalg.solve_triangular(self._lower, right.T.astype(np.float64), lower=True, check_finite=False)

    def weights(self) -> np.ndarray:
        """Of any rank: (out, in)."""
        return self._back(self._half)

    def reduced(self, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of a lower rank, by reduced-rank regression (Izenman 1975).

        Returns:
            ``last`` (out, rank) with orthonormal columns, ``core`` (rank, in), the weights being their product, and the
            standard deviation of each of the core's outputs (rank,).
        """
        values, vectors = self._directions
        last = vectors[:, :rank]
        return last, self._back(self._half @ last), np.sqrt(np.maximum(values[:rank], 0))

    @cached_property
    def _directions(self) -> tuple[np.ndarray, np.ndarray]:
        """What the full solution computes: variances, falling, and directions."""
        values, vectors = np.linalg.eigh(self._half.T @ self._half)
        return values[::-1], vectors[:, ::-1]

    def _back(self, half: np.ndarray) -> np.ndarray:
        return np.asarray(linalg.solve_triangular(self._lower, half, lower=True, trans=1, check_finite=False)).T


def cholesky(normal: np.ndarray, ridge: float = _RIDGE) -> np.ndarray:
    """The lower factor, with as much on the diagonal as float32's rounding of ``normal`` makes necessary.

    Args:
        normal: symmetric; only what is on and below its diagonal is read.
        ridge: added to its diagonal at least, relative to the mean of that.
    """
    mean = float(np.trace(normal, dtype=np.float64)) / len(normal) + 1e-30
    while True:
        held = normal.astype(np.float64, order="F")  # as LAPACK wants it: no other copy is made
        held[np.diag_indices(len(held))] += ridge * mean
        try:
            return np.asarray(linalg.cholesky(held, lower=True, overwrite_a=True, check_finite=False))
        except linalg.LinAlgError:
            if not np.isfinite(mean):
                raise
            ridge *= 10
