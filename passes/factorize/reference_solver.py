"""Tucker-2 and CP as tensorly solves them, for who compares with published results; edgec's own are the default.

``tensorly.decomposition.partial_tucker`` iterates on singular vectors of the unfoldings, ``parafac`` by alternating
least squares without a ridge (https://tensorly.org). Ranks, chains and the fit to data are edgec's in either case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from edgec.passes.factorize.cp import Polyadic
from edgec.passes.factorize.methods import CpMethod, Method, TuckerMethod
from edgec.passes.factorize.tucker import Tucker

Solver = Literal["edgec", "tensorly"]


class TensorlyTucker(TuckerMethod):
    """Tucker-2 by higher-order orthogonal iteration until it no longer improves."""

    def solve(self, kernel: np.ndarray, ranks: tuple[int, ...]) -> Tucker:
        """The factors of one group's kernel, (out, in, taps)."""
        from tensorly import norm
        from tensorly.decomposition import partial_tucker
        from tensorly.tenalg import multi_mode_dot

        (rank_out, rank_in), taps = ranks, kernel.shape[2]
        if not kernel.any() or rank_out > rank_in * taps or rank_in > rank_out * taps:  # it warns, and fills up
            return super().solve(kernel, ranks)
        kernel = kernel.astype(np.promote_types(kernel.dtype, np.float32), copy=False)
        (core, (last, first)), _ = partial_tucker(kernel, rank=list(ranks), modes=[0, 1], init="svd", random_state=0)
        missing = norm(kernel - multi_mode_dot(core, [last, first], modes=[0, 1]))
        out, into, _ = kernel.shape
        if rank_in == into:  # the basis of a whole mode is a rotation: the mode stays as it is
            core, first = np.einsum("abt,ib->ait", core, first), None
        if rank_out == out:
            core, last = np.einsum("abt,oa->obt", core, last), None
        return Tucker(None if first is None else first.T, core, last, float(missing / norm(kernel)))


class TensorlyCp(CpMethod):
    """CP by alternating least squares."""

    def solve(self, tensor: np.ndarray, rank: int) -> Polyadic:
        """The factors of one group's kernel, (out, in, *long taps), each component of one norm in all of them."""
        from tensorly import cp_to_tensor, norm
        from tensorly.decomposition import parafac

        if not tensor.any():
            return super().solve(tensor, rank)
        tensor = tensor.astype(np.float64)
        least = min(min(size, tensor.size // size) for size in tensor.shape)
        start = "svd" if rank <= least else "random"
        weights, factors = parafac(tensor, rank, init=start, random_state=0, n_iter_max=200)
        norms = np.stack([np.linalg.norm(factor, axis=0) for factor in factors])
        each = np.abs(weights * norms.prod(axis=0)) ** (1 / len(factors))
        even = [factor / np.maximum(of_mode, 1e-30) * each for factor, of_mode in zip(factors, norms, strict=True)]
        even[0] = even[0] * np.sign(weights)
        missing = norm(tensor - cp_to_tensor((None, even)))
        return Polyadic(tuple(even), float(missing / norm(tensor)))


_SOLVED = {"tucker": TensorlyTucker(), "cp": TensorlyCp()}


def solved_by(solver: Solver, methods: Sequence[Method]) -> list[Method]:
    """The same methods with another solver, where there is one: the SVD is numpy's in either case."""
    return [_SOLVED.get(method.name, method) if solver == "tensorly" else method for method in methods]
