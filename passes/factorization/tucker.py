"""Tucker-2 of convolution kernels.

Tucker-2 (Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications",
ICLR 2016) writes a kernel K of shape (out, in, taps) as a core between two matrices::

    K[o, i, t]  ~  sum over a, b of  last[o, a] * core[a, b, t] * first[b, i]

The bases come from the eigenvectors of the Gram matrices of the unfoldings, the second mode's after the first has been
truncated (ST-HOSVD, Vannieuwenhoven et al. 2012), then refined by sweeps of higher-order orthogonal iteration
(De Lathauwer et al. 2000). A Gram matrix has the side of one mode only, so this costs a small part of an SVD of the
unfolding; what its squared condition loses lies far below the error of any truncation. Factors are orthonormal, so the
kernel is given back exactly at full rank.

Everything here is plain numpy and deterministic on one BLAS thread: eigenvectors get a fixed sign. A kernel that was
multiplied by a square root of its input's covariance is decomposed by the same functions; ``first`` then has to be
multiplied by the inverse of that root.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

# Where the largest number of a kernel lies in between, sums of its squares stay in the range of float32.
_LEAST_SQUARED, _LARGEST_SQUARED = 1e-15, 1e15


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
    kernel = _working(kernel)
    last, first = (_basis(_gram(kernel, mode)) for mode in (0, 1))
    core = _project(_project(kernel, last, 0), first, 1)
    energy = np.einsum("abt,abt->ab", core, core, dtype=np.float64)
    kept = energy.cumsum(axis=0).cumsum(axis=1)
    return kept / kept[-1, -1] if kept[-1, -1] else np.ones_like(kept)


def tucker2(kernel: np.ndarray, rank_out: int, rank_in: int, *, sweeps: int = 2) -> Tucker:
    """Tucker-2 of a kernel of shape (out, in, taps).

    Args:
        kernel: any float type; it is worked on in float32, in float64 where it is that or its squares want it.
        rank_out, rank_in: from 1 to the number of channels; at the number itself that mode is left as it is.
        sweeps: rounds of higher-order orthogonal iteration behind the truncation.
    """
    work = _working(kernel)
    out, into, _ = work.shape
    last = first = None
    if rank_in < into:
        first = _basis(_gram(work, 1), rank_in)
    if rank_out < out:
        last = _basis(_gram(work if first is None else _project(work, first, 1), 0), rank_out)
    if first is not None and last is not None:
        for _ in range(sweeps):
            first = _basis(_gram(_project(work, last, 0), 1), rank_in)
            last = _basis(_gram(_project(work, first, 1), 0), rank_out)
    core = work
    for basis, mode in ((first, 1), (last, 0)):
        core = core if basis is None else _project(core, basis, mode)
    factors = Tucker(None if first is None else first.T, core, last, 0.0)
    return replace(factors, relative_error=_relative_error(work, core, lambda: reconstruct(factors)))


def reconstruct(factors: Tucker) -> np.ndarray:
    """The kernel (out, in, taps) that the factors of :func:`tucker2` stand for."""
    kernel = factors.core
    if factors.first is not None:
        kernel = _project(kernel, factors.first.T, 1, transposed=True)
    if factors.last is not None:
        kernel = _project(kernel, factors.last, 0, transposed=True)
    return kernel


def _working(kernel: np.ndarray) -> np.ndarray:
    squarable = _LEAST_SQUARED < float(np.abs(kernel).max(initial=0.0)) < _LARGEST_SQUARED
    return np.ascontiguousarray(kernel, np.float32 if squarable and kernel.dtype != np.float64 else np.float64)


def _gram(kernel: np.ndarray, mode: int) -> np.ndarray:
    """Of the unfolding of ``kernel`` (out, in, taps) along a mode: (channels, channels), in float64."""
    flat = kernel.reshape(len(kernel), -1) if mode == 0 else kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1)
    return (flat @ flat.T).astype(np.float64)


def _basis(gram: np.ndarray, rank: int | None = None) -> np.ndarray:
    """The eigenvectors of the largest eigenvalues, (channels, rank), largest first, each with a fixed sign."""
    vectors = np.linalg.eigh(gram)[1][:, ::-1][:, :rank]
    heaviest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[heaviest, np.arange(vectors.shape[1])])
    return np.ascontiguousarray(vectors * signs)


def _project(kernel: np.ndarray, basis: np.ndarray, mode: int, *, transposed: bool = False) -> np.ndarray:
    """``kernel`` with the channels of a mode exchanged for coordinates in ``basis``; back again with ``transposed``."""
    matrix = basis.astype(kernel.dtype, copy=False)
    matrix = matrix if transposed else matrix.T
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
