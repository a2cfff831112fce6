"""Products of matrices."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgec.ir.torch_module.lowering import Call, Site, lowers


@lowers("MatMul")
def matmul(at: Site) -> Call:
    return torch.matmul


@lowers("Gemm")
def gemm(at: Site) -> Call:
    """alpha A B + beta C; torch's linear where it is that."""
    alpha, beta = float(at.attr("alpha", 1.0)), float(at.attr("beta", 1.0))
    left, right = bool(at.attr("transA", 0)), bool(at.attr("transB", 0))
    bias = at.shape(2) if at.has(2) else None
    if not left and right and alpha == beta == 1.0 and (not at.has(2) or (bias is not None and len(bias) == 1)):
        return functional.linear
    if at.has(2):
        return lambda a, b, c: torch.addmm(c, a.T if left else a, b.T if right else b, beta=beta, alpha=alpha)
    if alpha == 1.0:
        return lambda a, b, c=None: torch.mm(a.T if left else a, b.T if right else b)
    return lambda a, b, c=None: alpha * torch.mm(a.T if left else a, b.T if right else b)


@lowers("Einsum")
def einsum(at: Site) -> Call:
    equation = str(at.attr("equation"))
    return lambda *operands: torch.einsum(equation, *operands)
