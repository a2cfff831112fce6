"""Tucker-2 of convolution kernels.

Tucker-2 (Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications",
ICLR 2016) writes a kernel K of shape (out, in, taps) as a core between two matrices::

    K[o, i, t]  ~  sum over a, b of  last[o, a] * core[a, b, t] * first[b, i]

The bases are those of the Gram matrices of the unfoldings, the second mode's after the first has been truncated
(ST-HOSVD, Vannieuwenhoven et al. 2012), then refined by higher-order orthogonal iteration (De Lathauwer et al. 2000),
in which large modes are not diagonalized (:mod:`.eigenbases`). A Gram matrix has the side of one mode only, so this
costs a small part of an SVD of the unfolding; what its squared condition loses lies far below the error of any
truncation. Bases are orthonormal, so the kernel is given back exactly at full rank.

Deterministic on one BLAS thread. A kernel that was multiplied by a square root of its input's covariance is decomposed
by the same functions; ``first`` then has to be multiplied by the inverse of that root.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgec.passes.factorize.eigenbases import all_vectors, gram, is_exact, leading

# Where the largest number of a kernel lies in between, sums of its squares stay in the range of float32.
_LEAST_SQUARED, _LARGEST_SQUARED = 1e-15, 1e15
# Refinement ends when a step removes less than this part of the squared error, at the latest after so many steps. The
# first step is worth several of those that follow it, so it is held to less.
_ENOUGH_AT_FIRST, _ENOUGH, _MOST_STEPS = 7.5e-3, 4e-3, 8
# Where truncation by eigenvectors loses less than this part of the squared norm, refinement has nothing to win: on
# decaying spectra it took 0.2 % off the error there, and 0.4 % off an error that was ten times that.
_LITTLE = 1e-2


@dataclass(frozen=True)
class Tucker:
    """The factors of a kernel of shape (out, in, taps).

    Attributes:
        first: (rank_in, in), what the input goes through first; ``None`` where that mode has full rank.
        core: (rank_out, rank_in, taps).
        last: (out, rank_out); ``None`` where that mode has full rank.
        relative_error: Frobenius norm of what is missing, by that of the kernel.
    """

    first: np.ndarray | None
    core: np.ndarray
    last: np.ndarray | None
    relative_error: float


def tucker2_spectrum(kernel: np.ndarray) -> np.ndarray:
    """What every pair of ranks keeps of a kernel (out, in, taps), from one decomposition.

    Returns:
        (out, in), float64; at [a - 1, b - 1] the part of the squared norm that is kept with ranks a (out) and b (in)
        when the bases of the whole kernel are truncated. Refinement can only keep more.
    """
    work = _working(kernel)
    rows, columns = _unfolded(work)
    last, first = all_vectors(gram(rows)), all_vectors(gram(columns))
    turned = _turned(last.T @ rows, kernel.shape[2])
    core = (first.T @ turned).reshape(first.shape[1], last.shape[1], -1)
    energy = np.einsum("iot,iot->io", core, core).astype(np.float64)
    kept = energy.T.cumsum(axis=0).cumsum(axis=1)
    return kept / kept[-1, -1] if kept[-1, -1] else np.ones_like(kept)


def tucker2(kernel: np.ndarray, rank_out: int, rank_in: int) -> Tucker:
    """Tucker-2 of a kernel of shape (out, in, taps).

    Args:
        kernel: any float type; it is worked on in float32, in float64 where it is that or its squares want it.
        rank_out, rank_in: from 1 to the number of channels; at the number itself that mode is left as it is.
    """
    work = _working(kernel)
    out, into, taps = work.shape
    rows, columns = _unfolded(work)
    last = first = None
    core = work
    if rank_in < into:
        first = leading(gram(columns), rank_in)
        if rank_out == out:
            core = _turned(first.T @ columns, taps).reshape(out, rank_in, taps)
    if rank_out < out and first is None:
        last = leading(gram(rows), rank_out)
        core = (last.T @ rows).reshape(rank_out, into, taps)
    elif rank_out < out and first is not None:
        first, last, core = _refined(rows, columns, taps, first, rank_out)
    factors = Tucker(None if first is None else first.T, core, last, 0.0)
    return replace(factors, relative_error=_relative_error(work, core, lambda: reconstruct(factors)))


def _refined(
    rows: np.ndarray, columns: np.ndarray, taps: int, first: np.ndarray, rank_out: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bases (in, rank_in) and (out, rank_out), each improved in turn for the other, and their core."""
    missing = total = _energy(rows)
    exact = is_exact(len(columns), first.shape[1]) and is_exact(len(rows), rank_out)
    last: np.ndarray | None = None
    for step in range(_MOST_STEPS):
        # What is left of the kernel in one basis, unfolded along the mode whose turn it is.
        if last is None or step % 2 == 0:
            half = _turned(first.T @ columns, taps)
            matrix = gram(half)
            basis = last = leading(matrix, rank_out, last)
        else:
            half = _turned(last.T @ rows, taps)
            matrix = gram(half)
            basis = first = leading(matrix, first.shape[1], first)
        before, missing = missing, max(total - float(np.vdot(basis, matrix @ basis)), 0.0)
        enough = _ENOUGH if step > 1 else _ENOUGH_AT_FIRST
        if (step and before - missing <= enough * before) or (exact and missing < _LITTLE * total):
            break
    assert last is not None
    core = (basis.T @ half).reshape(basis.shape[1], -1, taps)
    return first, last, core if basis is last else core.transpose(1, 0, 2)


def reconstruct(factors: Tucker) -> np.ndarray:
    """The kernel (out, in, taps) that the factors of :func:`tucker2` stand for."""
    kernel = factors.core
    if factors.first is not None:
        kernel = _project(kernel, factors.first, 1)
    if factors.last is not None:
        kernel = _project(kernel, factors.last.T, 0)
    return kernel


def _working(kernel: np.ndarray) -> np.ndarray:
    squarable = _LEAST_SQUARED < float(np.abs(kernel).max(initial=0.0)) < _LARGEST_SQUARED
    return np.ascontiguousarray(kernel, np.float32 if squarable and kernel.dtype != np.float64 else np.float64)


def _unfolded(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A kernel (out, in, taps) as (out, in x taps) and as (in, out x taps)."""
    return kernel.reshape(len(kernel), -1), kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1)


def _turned(unfolding: np.ndarray, taps: int) -> np.ndarray:
    """(a, b x taps) as (b, a x taps)."""
    rows = len(unfolding)
    return unfolding.reshape(rows, -1, taps).transpose(1, 0, 2).reshape(-1, rows * taps)


def _project(kernel: np.ndarray, basis: np.ndarray, mode: int) -> np.ndarray:
    """``kernel`` with the channels of a mode exchanged for coordinates in the columns of ``basis``."""
    matrix = basis.T.astype(kernel.dtype, copy=False)
    if mode == 0:
        return (matrix @ kernel.reshape(len(kernel), -1)).reshape(len(matrix), *kernel.shape[1:])
    return np.matmul(matrix, kernel)


def _relative_error(kernel: np.ndarray, coordinates: np.ndarray, rebuild: Callable[[], np.ndarray]) -> float:
    """Of an orthogonal projection of ``kernel`` with these coordinates."""
    total = _energy(kernel)
    if total == 0:
        return 0.0
    missing = 1 - _energy(coordinates) / total
    if missing < 1e-4:
        # The difference of two nearly equal norms says little: look at what is missing itself.
        missing = _energy(kernel - rebuild()) / total
    return float(np.sqrt(missing))


def _energy(values: np.ndarray) -> float:
    flat = values.reshape(-1)
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))
