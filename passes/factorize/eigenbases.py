"""Bases of the leading eigenvectors of Gram matrices: exact for small ones, by subspace iteration for large ones.

Inside an alternating iteration a basis need not be exact, only better than the one before: what the iteration does next
changes the Gram matrix anyway. So a large matrix is never diagonalized. A block of vectors is multiplied by it, made
orthonormal, and sharpened by a Chebyshev polynomial that damps what lies below the smallest eigenvalue wanted
(Rutishauser, "Simultaneous iteration method for symmetric matrices", 1970). All of it is matrix products.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from edgec.passes.factorize.low_rank import fixed_signs

# Up to this side, and from this part of them on, all eigenvectors together cost no more than a block of some of them.
_SMALL, _MANY = 160, 0.375
# How much the polynomial may lift the largest eigenvalue over the smallest wanted, and its highest degree: far more
# would push the weakest vectors of the block under single precision.
_GAIN, _MOST_DEGREE = 1e4, 8
# Columns of unit length that add less than this to those before them are too nearly dependent for their inner products.
_INDEPENDENT = 1e-4
_SEED = 20161005


def gram(rows: np.ndarray) -> np.ndarray:
    """The inner products of rows: (rows, rows), in their own type."""
    return rows @ rows.T


def all_vectors(matrix: np.ndarray) -> np.ndarray:
    """All eigenvectors of a Gram matrix, largest eigenvalue first, each with a fixed sign."""
    work = matrix.astype(np.float64) if len(matrix) <= _SMALL else matrix
    # By divide and conquer, as numpy does it too, in half of numpy's time.
    vectors = linalg.eigh(work, driver="evd", check_finite=False)[1][:, ::-1]
    return np.ascontiguousarray(vectors * fixed_signs(vectors))


def is_exact(size: int, rank: int) -> bool:
    """Whether :func:`leading` starts from eigenvectors themselves: where a block of them would cost no less."""
    return size <= _SMALL or rank > _MANY * size


def leading(matrix: np.ndarray, rank: int, before: np.ndarray | None = None) -> np.ndarray:
    """An orthonormal basis (channels, rank) near the leading eigenvectors of a Gram matrix.

    Args:
        matrix: (channels, channels).
        rank: fewer than the channels.
        before: the basis of an earlier iteration to go on from.
    """
    if len(matrix) <= _SMALL or (before is None and is_exact(len(matrix), rank)):
        return np.ascontiguousarray(all_vectors(matrix)[:, :rank], matrix.dtype)
    if before is None:
        noise = np.random.default_rng(_SEED).standard_normal((len(matrix), rank))
        before, _ = _orthonormal(matrix @ noise.astype(matrix.dtype))
        before = _sharpened(matrix, before)
    return _sharpened(matrix, before)


def _sharpened(matrix: np.ndarray, before: np.ndarray) -> np.ndarray:
    """A basis multiplied by the matrix and by a polynomial of it."""
    basis, sizes = _orthonormal(matrix @ before)
    least, most = float(sizes.min()), float(sizes.max())
    if least <= 1e-6 * most:
        return basis
    reach = max(2 * most / least - 1, 1.001)
    degree = int(np.clip(np.log(2 * _GAIN) / np.arccosh(reach), 1, _MOST_DEGREE))
    # Chebyshev's recurrence for the matrix mapped so that [0, least] becomes [-1, 1].
    scaled = matrix * matrix.dtype.type(2 / least)
    scaled[np.diag_indices(len(scaled))] -= 1
    previous, current = basis, scaled @ basis
    for _ in range(degree - 1):
        following = scaled @ current
        following *= 2
        following -= previous
        previous, current = current, following
    return _orthonormal(current)[0]


def _orthonormal(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis of the columns, and the size of what each adds to those before it.

    By Cholesky's factor of their inner products in double precision, which is matrix products again; by Householder's
    reflections where the columns are too nearly dependent for that.
    """
    lengths = np.linalg.norm(block, axis=0).astype(np.float64)
    if lengths.min() > 0:
        scaled = block / lengths
        try:
            lower = np.linalg.cholesky(scaled.T @ scaled)
        except np.linalg.LinAlgError:
            lower = np.zeros((1, 1))
        added = np.diagonal(lower)
        if added.min() > _INDEPENDENT:
            return (scaled @ _inverse(lower).T).astype(block.dtype), added * lengths
    basis, triangle = np.linalg.qr(block)
    return basis.astype(block.dtype, copy=False), np.abs(np.diagonal(triangle)).astype(np.float64)


def _inverse(lower: np.ndarray) -> np.ndarray:
    """Of a triangular matrix, by halves: numpy's own would treat it as any other."""
    if len(lower) <= 64:
        return np.linalg.inv(lower)
    half = len(lower) // 2
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = _inverse(lower[:half, :half])
    inverse[half:, half:] = _inverse(lower[half:, half:])
    inverse[half:, :half] = -(inverse[half:, half:] @ (lower[half:, :half] @ inverse[:half, :half]))
    return inverse
