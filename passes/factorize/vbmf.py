"""How many singular values of a matrix rise above noise: empirical variational Bayesian matrix factorization.

Nakajima, Sugiyama, Babacan and Tomioka, "Global Analytic Solution of Fully-observed Variational Bayesian Matrix
Factorization", JMLR 14 (2013): with Gaussian noise of variance s2 on an L x M matrix (L <= M), the best rank is the
number of singular values above ``sqrt(s2 * M * (1 + t) * (1 + a / t))``, where a is L / M and t is the zero of
``phi(t) + phi(t / a)`` with ``phi(z) = log(z + 1) / z - 1 / 2``. The noise is what minimizes the free energy, which
depends on the singular values only: a search over one number.

Only squared singular values are needed, which are the eigenvalues of the Gram matrix of the smaller side.
"""

from __future__ import annotations

import numpy as np

# Points of the search for the noise: over its whole range, then twice around the best.
_COARSE, _FINE = 512, 64
# Noise is not looked for below this part of the mean square: an exact matrix of low rank has none.
_LEAST_NOISE = 1e-9


def rank_above_noise(matrices: np.ndarray) -> int:
    """The largest such rank of matrices (..., rows, columns); 0 where all are noise, or all zero."""
    work = np.asarray(matrices, np.float64)
    work = work.reshape(-1, *work.shape[-2:])
    if work.shape[1] > work.shape[2]:
        work = work.swapaxes(1, 2)
    squares = np.linalg.eigvalsh(work @ work.swapaxes(1, 2)).clip(min=0)[:, ::-1]
    return max(signals(values, work.shape[2]) for values in squares)


def signals(squares: np.ndarray, columns: int) -> int:
    """How many of the squared singular values (rows,), falling, of a matrix of that many columns are no noise.

    Args:
        squares: all of them, zeros included, as many as the shorter side is long.
        columns: the length of the longer side.
    """
    rows = len(squares)
    ratio = rows / columns
    total = float(squares.sum())
    if total <= 0:
        return 0
    zero = threshold(ratio)
    edge = (1 + zero) * (1 + ratio / zero)
    # The bounds of the noise: it explains everything, or only what no signal may explain.
    highest = total / (rows * columns)
    free = max(min(int(np.ceil(rows / (1 + ratio))) - 1, rows - 1), 0)
    rest = float(squares[free:].sum()) / (columns * (rows - free))
    lowest = max(float(squares[free]) / (columns * edge), rest, _LEAST_NOISE * highest)
    best = highest
    low, high, points = np.log(min(lowest, highest)), np.log(highest), _COARSE
    for _ in range(3):
        grid = np.linspace(low, high, points)
        at = int(np.argmin(_free_energy(squares / columns, np.exp(grid), ratio, edge)))
        best = float(np.exp(grid[at]))
        low, high, points = grid[max(at - 1, 0)], grid[min(at + 1, points - 1)], _FINE
    return int(np.count_nonzero(squares > best * columns * edge))


def _free_energy(squares: np.ndarray, noises: np.ndarray, ratio: float, edge: float) -> np.ndarray:
    """Of each noise variance, up to a constant; ``squares`` are divided by the number of columns."""
    x = squares / noises[:, None]
    energy = x.sum(axis=1) + len(squares) * np.log(noises)
    above = x > edge
    t = np.where(above, x - (1 + ratio), 2 * np.sqrt(ratio))
    t = (t + np.sqrt(np.maximum(t * t - 4 * ratio, 0))) / 2
    gain = np.log(t + 1) + ratio * np.log(t / ratio + 1) - t
    return energy + np.where(above, gain, 0).sum(axis=1)


def threshold(ratio: float) -> float:
    """The zero t of ``phi(t) + phi(t / ratio)``, which falls in t; ``ratio`` is rows by columns, at most 1."""
    low, high = 1e-6, 1e6
    for _ in range(200):
        middle = np.sqrt(low * high)
        value = np.log1p(middle) / middle + ratio * np.log1p(middle / ratio) / middle - 1
        low, high = (middle, high) if value > 0 else (low, middle)
    return float(np.sqrt(low * high))
