"""The truncated singular value decomposition of matrices, stacks of them at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LowRank:
    """The factors of matrices of shape (..., out, in).

    Attributes:
        first: (..., rank, in).
        last: (..., out, rank).
        relative_error: Frobenius norm of what is missing in all of them, by that of all of them.
    """

    first: np.ndarray
    last: np.ndarray
    relative_error: float


def svd_spectrum(matrix: np.ndarray) -> np.ndarray:
    """At [r - 1] the part of the squared norm that rank r keeps of matrices (..., out, in), for every r; float64.

    Of a stack, the part that all keep together with rank r each.
    """
    work = matrix.astype(np.float64)
    values = np.linalg.eigvalsh(_smaller_gram(work)).clip(min=0)
    values = values.reshape(-1, values.shape[-1]).sum(axis=0)[::-1]
    kept = values.cumsum()
    return kept / kept[-1] if kept[-1] else np.ones_like(kept)


def truncated_svd(matrix: np.ndarray, rank: int) -> LowRank:
    """The best approximation of that rank of matrices (..., out, in), in float64.

    The singular values are shared out evenly between the factors, so that neither is much larger than the other when
    both are quantized later.
    """
    # In double precision: squared singular values of single precision would leave no room below 1e-4 of the largest.
    work = matrix.astype(np.float64)
    tall = work.shape[-2] >= work.shape[-1]
    basis = np.linalg.eigh(_smaller_gram(work))[1][..., ::-1][..., :rank]
    basis = basis * fixed_signs(basis)
    other = work @ basis if tall else work.swapaxes(-1, -2) @ basis
    values = np.linalg.norm(other, axis=-2, keepdims=True)
    strengths = np.sqrt(values)
    strengths[strengths == 0] = 1
    # The side that is orthonormal gains what the other one gives up.
    other, basis = other / strengths, basis * strengths
    last, first = (other, basis) if tall else (basis, other)
    first = first.swapaxes(-1, -2)
    return LowRank(first, last, _relative_error(work, float((values**2).sum()), last, first))


def fixed_signs(basis: np.ndarray) -> np.ndarray:
    """(..., 1, vectors): the signs that make the largest entry of each column of ``basis`` positive."""
    heaviest = np.abs(basis).argmax(axis=-2)[..., None, :]
    return np.sign(np.take_along_axis(basis, heaviest, axis=-2))


def _smaller_gram(work: np.ndarray) -> np.ndarray:
    flipped = work.swapaxes(-1, -2)
    return flipped @ work if work.shape[-2] >= work.shape[-1] else work @ flipped


def _relative_error(work: np.ndarray, kept: float, last: np.ndarray, first: np.ndarray) -> float:
    total = float(np.vdot(work, work))
    if total == 0:
        return 0.0
    missing = 1 - kept / total
    if missing < 1e-4:
        # The difference of two nearly equal norms says little: look at what is missing itself.
        difference = work - last @ first
        missing = float(np.vdot(difference, difference)) / total
    return float(np.sqrt(missing))
