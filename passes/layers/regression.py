"""Least squares from normal equations, of any rank, for a stack of layers' groups at once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import linalg

# Added to the diagonal, relative to its mean; covariances in float32 are no better than that.
_RIDGE = 1e-7


class Regression:
    """The weights W (groups, out, in) that minimize tr(W N W^T) - 2 tr(W B^T) in each group.

    Args:
        normal: N, (groups, in, in), symmetric, positive but for rounding.
        right: B, (groups, out, in).
    """

    def __init__(self, normal: np.ndarray, right: np.ndarray) -> None:
        self._lower = cholesky(normal)
        self._half = _forward(self._lower, right.swapaxes(1, 2).astype(np.float64))

    def weights(self) -> np.ndarray:
        """Of any rank: (groups, out, in)."""
        return _backward(self._lower, self._half).swapaxes(1, 2)

    def reduced(self, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of a lower rank, by reduced-rank regression (Izenman 1975).

        Returns:
            ``last`` (groups, out, rank) with orthonormal columns, ``core`` (groups, rank, in), the weights being their
            product, and the standard deviation of each of the core's outputs (groups, rank).
        """
        values, vectors = self._directions
        last = vectors[:, :, :rank]
        core = _backward(self._lower, self._half @ last).swapaxes(1, 2)
        return last, core, np.sqrt(np.maximum(values[:, :rank], 0))

    def explained(self) -> np.ndarray:
        """What the solution of each rank explains of what that of full rank does, all groups together: (out,)."""
        values = np.maximum(self._directions[0], 0).sum(axis=0)
        total = float(values.sum())
        return values.cumsum() / total if total else np.ones_like(values)

    @cached_property
    def _directions(self) -> tuple[np.ndarray, np.ndarray]:
        """What the full solution computes: variances, falling, and directions."""
        values, vectors = np.linalg.eigh(self._half.swapaxes(1, 2) @ self._half)
        return values[:, ::-1], vectors[:, :, ::-1]


def cholesky(normal: np.ndarray, ridge: float = _RIDGE) -> np.ndarray:
    """The lower factors, with as much on the diagonals as float32's rounding of ``normal`` makes necessary.

    Args:
        normal: (groups, n, n), each symmetric; only what is on and below the diagonals is read.
        ridge: added to a diagonal at least, relative to the mean of that.
    """
    if len(normal) > 1:
        diagonal = np.einsum("gii->g", normal, dtype=np.float64) / normal.shape[1] + 1e-30
        held = normal.astype(np.float64)
        np.einsum("gii->gi", held)[:] += ridge * diagonal[:, None]
        try:
            return np.linalg.cholesky(held)
        except np.linalg.LinAlgError:  # one of them wants more, which the others do without
            return np.stack([_cholesky(part, ridge) for part in normal])
    return _cholesky(normal[0], ridge)[None]


def _cholesky(normal: np.ndarray, ridge: float) -> np.ndarray:
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


def _forward(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
    """L^-1 B; one large triangle at its own price, many small ones as the general matrices that numpy stacks."""
    if len(lower) > 1:
        return np.linalg.solve(lower, right)
    return np.asarray(linalg.solve_triangular(lower[0], right[0], lower=True, check_finite=False))[None]


def _backward(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
    """L^-T B."""
    if len(lower) > 1:
        return np.linalg.solve(lower.swapaxes(1, 2), right)
    return np.asarray(linalg.solve_triangular(lower[0], right[0], lower=True, trans=1, check_finite=False))[None]
