"""Reductions along axes."""

from __future__ import annotations

import torch
from torch import Tensor

from edgec.ir.torch_module.conversion import to_numpy
from edgec.ir.torch_module.lowering import Call, Site, lowers


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keep, dtype=x.dtype)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def _extreme(largest: bool) -> Call:
    function = torch.amax if largest else torch.amin

    def call(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if x.numel():
            return function(x, axes, keep)
        bounds: torch.finfo | torch.iinfo
        if x.dtype == torch.bool:
            return _sum(x.int(), axes, keep).bool() if largest else ~_sum(x.int(), axes, keep).bool()
        if x.is_floating_point():
            fill = float("-inf") if largest else float("inf")
        else:
            bounds = torch.iinfo(x.dtype)
            fill = bounds.min if largest else bounds.max
        return torch.full_like(_sum(x, axes, keep), fill)

    return call


def _norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if not x.is_floating_point():
        return torch.sqrt(_sum(x * x, axes, keep).double()).to(x.dtype)
    return torch.linalg.vector_norm(x, 2, axes, keep)


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.logsumexp(x, axes, keep)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.mean(x, axes, keep)


_REDUCTIONS: dict[str, Call] = {
    "ReduceL1": lambda x, axes, keep: _sum(torch.abs(x), axes, keep),
    "ReduceL2": _norm,
    "ReduceLogSum": lambda x, axes, keep: torch.log(_sum(x, axes, keep)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _extreme(True),
    "ReduceMean": _mean,
    "ReduceMin": _extreme(False),
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
}


@lowers(*_REDUCTIONS)
def reduction(at: Site) -> Call:
    """Axes are an attribute or an input; without any, all of them or, where the node says so, none.

    None still squares or takes the logarithm of each element.
    """
    function, keep = _REDUCTIONS[at.node.op], bool(at.attr("keepdims", 1))
    nothing = bool(at.attr("noop_with_empty_axes", 0))

    def over(x: Tensor, axes: list[int]) -> Tensor:
        if axes:
            return function(x, axes, keep)
        if nothing:
            return function(x.unsqueeze(0), [0], False)
        return function(x, list(range(x.ndim)), keep)

    if at.has(1) and at.known(1) is None:
        return lambda x, axes: over(x, [int(a) for a in to_numpy(axes)])
    found = at.known(1)
    axes = [int(a) for a in (at.attr("axes", []) if found is None else found.reshape(-1))]
    at.take(0)
    if axes:
        return lambda x: function(x, axes, keep)
    return lambda x: over(x, axes)


@lowers("ArgMax", "ArgMin")
def arg_reduction(at: Site) -> Call:
    """Of several extremes the first, or the last where the node says so."""
    axis, keep = int(at.attr("axis", 0)), bool(at.attr("keepdims", 1))
    function = torch.argmax if at.node.op == "ArgMax" else torch.argmin
    if not at.attr("select_last_index", 0):
        return lambda x: function(x, axis, keep)
    return lambda x: x.shape[axis] - 1 - function(x.flip(axis), axis, keep)
