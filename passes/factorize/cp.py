"""The canonical polyadic decomposition of kernels, by regularized alternating least squares.

A tensor T with N modes is written as a sum of ``rank`` outer products::

    T[a, b, ...]  ~  sum over r of  A[a, r] * B[b, r] * ...

Each factor in turn is the least-squares solution for the others. A best approximation of a given rank need not exist:
components can grow without bound and cancel each other (de Silva and Lim, "Tensor rank and the ill-posedness of the
best low-rank approximation problem", 2008), which no quantizer survives. So every solution is held back by a ridge, at
first a strong one: components that are nearly alike cannot grow against each other while they still could part. The
norm of each component is shared out evenly between its factors.

The first two modes are first projected on as many of their leading directions as the components can span, where the
iteration costs a small part; the last sweeps run on the whole tensor.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.passes.factorize.low_rank import fixed_signs

# The ridge falls from the first to the last of these, relative to the mean diagonal of the normal equations.
_RIDGES = (1e-2, 1e-7)
_SEED = 20151113


@dataclass(frozen=True)
class Polyadic:
    """The factors of a tensor.

    Attributes:
        factors: one a mode, (size of the mode, rank); each component has the same norm in all of them.
        relative_error: Frobenius norm of what is missing, by that of the tensor.
    """

    factors: tuple[np.ndarray, ...]
    relative_error: float


def most_rank(shape: Sequence[int]) -> int:
    """A rank with which every tensor of that shape can be written: the product of all modes but the largest."""
    return math.prod(shape) // max(shape)


def polyadic(tensor: np.ndarray, rank: int, *, sweeps: int = 80, last_sweeps: int = 4) -> Polyadic:
    """A decomposition of that rank of a tensor with three modes or more, of which the first two may be large.

    Alternating least squares finds a good approximation, not always the best, and not always an exact one where
    there is one.

    Args:
        tensor: any float type; worked on in float32 once it has unit norm.
        rank: the number of components.
        sweeps: on the projected tensor.
        last_sweeps: on the whole tensor, where projecting lost anything.
    """
    from tensorly.tenalg import multi_mode_dot  # half a second: only where CP is asked for

    norm = math.sqrt(float(np.vdot(work := tensor.astype(np.float64), work)))
    if norm == 0:
        return Polyadic(tuple(np.zeros((size, rank)) for size in tensor.shape), 0.0)
    unit = np.ascontiguousarray(work / norm, np.float32)
    bases = [_leading(unit, mode, rank) for mode in (0, 1)]
    small = multi_mode_dot(unit, [basis.T for basis in bases], modes=[0, 1])
    factors = _iterate(np.ascontiguousarray(small), _start(small, rank), np.geomspace(*_RIDGES, sweeps))
    factors[:2] = [basis.astype(np.float64) @ factor for basis, factor in zip(bases, factors[:2], strict=True)]
    if small.shape != unit.shape:
        factors = _iterate(unit, factors, np.full(last_sweeps, _RIDGES[-1]))
    error = float(np.linalg.norm((unit - rebuild(factors)).reshape(-1).astype(np.float64)))
    scale = norm ** (1 / len(factors))
    return Polyadic(tuple(factor * scale for factor in factors), error)


def rebuild(factors: Sequence[np.ndarray]) -> np.ndarray:
    """The tensor that factors stand for."""
    rows = factors[0]
    columns = _products(factors[1:])
    return (rows @ columns.T).reshape([len(factor) for factor in factors])


def _products(factors: Sequence[np.ndarray]) -> np.ndarray:
    """The Khatri-Rao product: (product of the sizes, rank), the last mode running fastest."""
    result = factors[0]
    for factor in factors[1:]:
        result = (result[:, None] * factor).reshape(-1, factor.shape[1])
    return result


def _leading(tensor: np.ndarray, mode: int, rank: int) -> np.ndarray:
    """An orthonormal basis of the ``rank`` leading directions of a mode; of all of them where there are no more."""
    if rank >= tensor.shape[mode]:
        return np.eye(tensor.shape[mode], dtype=np.float32)
    flat = np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)
    basis = np.linalg.eigh((flat @ flat.T).astype(np.float64))[1][:, ::-1][:, :rank]
    return np.ascontiguousarray(basis * fixed_signs(basis), np.float32)


def _start(tensor: np.ndarray, rank: int) -> list[np.ndarray]:
    """Seeded noise, of a size at which the sum of the components has about the norm of the tensor, which is 1."""
    random = np.random.default_rng(_SEED)
    factors = []
    for size in tensor.shape:
        factor = random.standard_normal((size, rank))
        factors.append(factor / np.linalg.norm(factor, axis=0) * rank ** (-0.5 / tensor.ndim))
    return factors


def _iterate(tensor: np.ndarray, factors: list[np.ndarray], ridges: np.ndarray) -> list[np.ndarray]:
    """One sweep over all modes with each ridge."""
    rows = tensor.reshape(len(tensor), -1)
    letters = string.ascii_lowercase[: tensor.ndim - 2]
    for ridge in ridges:
        factors[0] = _solved(rows @ _products(factors[1:]).astype(np.float32), factors, 0, ridge)
        # What all the other modes need of the tensor, with the first mode summed out: one product for all of them.
        rest = (rows.T @ factors[0].astype(np.float32)).reshape(tensor.shape[1], -1, factors[0].shape[1])
        taps = _products(factors[2:]).astype(np.float32)
        factors[1] = _solved(np.einsum("itr,tr->ir", rest, taps), factors, 1, ridge)
        rest = np.einsum("itr,ir->tr", rest, factors[1].astype(np.float32)).reshape(*tensor.shape[2:], -1)
        for axis, letter in enumerate(letters):
            others = "".join(f",{other}r" for other in letters if other != letter)
            given = [factor for i, factor in enumerate(factors[2:]) if i != axis]
            factors[2 + axis] = _solved(
                np.einsum(f"{letters}r{others}->{letter}r", rest, *given), factors, 2 + axis, ridge
            )
        norms = np.stack([np.linalg.norm(factor, axis=0) for factor in factors])
        even = np.exp(np.log(np.maximum(norms, 1e-30)).mean(axis=0))
        factors = [factor * (even / np.maximum(norm, 1e-30)) for factor, norm in zip(factors, norms, strict=True)]
    return factors


def _solved(right: np.ndarray, factors: Sequence[np.ndarray], mode: int, ridge: float) -> np.ndarray:
    """The factor of a mode, the others being given: (size, rank), float64."""
    rank = right.shape[1]
    normal = np.ones((rank, rank))
    for other, factor in enumerate(factors):
        if other != mode:
            normal *= factor.T @ factor
    normal[np.diag_indices(rank)] += ridge * normal.trace() / rank
    return np.linalg.solve(normal, right.T.astype(np.float64)).T
