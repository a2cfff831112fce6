"""Activation functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from edgec.ir.torch_module.lowering import Call, Site, lowers

_SAME: dict[str, Call] = {
    "HardSwish": functional.hardswish,
    "Mish": functional.mish,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Softsign": functional.softsign,
    "Tanh": torch.tanh,
}


@lowers(*_SAME)
def same(at: Site) -> Call:
    return _SAME[at.node.op]


@lowers("Softplus")
def softplus(at: Site) -> Call:
    """log(1 + exp(x)) without the threshold above which torch's own is the identity."""
    return lambda x: torch.logaddexp(x, torch.zeros_like(x))


@lowers("LeakyRelu")
def leaky_relu(at: Site) -> Call:
    slope = float(at.attr("alpha", 0.01))
    return lambda x: functional.leaky_relu(x, slope)


@lowers("Elu")
def elu(at: Site) -> Call:
    alpha = float(at.attr("alpha", 1.0))
    return lambda x: functional.elu(x, alpha)


@lowers("Celu")
def celu(at: Site) -> Call:
    alpha = float(at.attr("alpha", 1.0))
    return lambda x: functional.celu(x, alpha)


@lowers("Selu")
def selu(at: Site) -> Call:
    alpha, gamma = (
        float(at.attr("alpha", 1.67326319217681884765625)),
        float(at.attr("gamma", 1.05070102214813232421875)),
    )
    return lambda x: gamma * functional.elu(x, alpha)


@lowers("HardSigmoid")
def hard_sigmoid(at: Site) -> Call:
    alpha, beta = float(at.attr("alpha", 0.2)), float(at.attr("beta", 0.5))
    if beta == 0.5 and math.isclose(alpha, 1 / 6, rel_tol=1e-6):
        return functional.hardsigmoid
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


@lowers("Swish")
def swish(at: Site) -> Call:
    alpha = float(at.attr("alpha", 1.0))
    return functional.silu if alpha == 1.0 else lambda x: x * torch.sigmoid(alpha * x)


@lowers("Gelu")
def gelu(at: Site) -> Call:
    form = str(at.attr("approximate", "none"))
    return lambda x: functional.gelu(x, approximate=form)


@lowers("ThresholdedRelu")
def thresholded_relu(at: Site) -> Call:
    alpha = float(at.attr("alpha", 1.0))
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


@lowers("Shrink")
def shrink(at: Site) -> Call:
    bias, bound = float(at.attr("bias", 0.0)), float(at.attr("lambd", 0.5))
    return lambda x: torch.where(x < -bound, x + bias, torch.where(x > bound, x - bias, torch.zeros_like(x)))


@lowers("PRelu")
def prelu(at: Site) -> Call:
    """torch's own where there is one slope, or one a channel; otherwise by broadcasting."""
    slope, rank = at.shape(1), at.rank(0)
    if slope is not None and None not in slope:
        count = math.prod(int(d or 0) for d in slope)
        by_channel = len(slope) == rank - 1 and slope[0] == count
        by_channel |= len(slope) == rank and rank > 1 and slope[0] == 1 and slope[1] == count
        if rank > 1 and (count == 1 or by_channel):
            return lambda x, slope: functional.prelu(x, slope.reshape(-1).to(x.dtype))
    return lambda x, slope: torch.where(x < 0, x * slope, x)


def _from(at: Site) -> Call | None:
    """Before opset 13: the input as a matrix whose rows are normalized, from the axis on."""
    if at.opset >= 13:
        return None
    axis = int(at.attr("axis", 1))
    return lambda x: x.reshape(math.prod(x.shape[: axis % x.ndim]), -1)


@lowers("Softmax", "LogSoftmax")
def softmax(at: Site) -> Call:
    function = torch.softmax if at.node.op == "Softmax" else torch.log_softmax
    flat = _from(at)
    if flat is not None:
        return lambda x: function(flat(x), -1).reshape(x.shape)
    axis = int(at.attr("axis", -1))
    return lambda x: function(x, axis)


@lowers("Hardmax")
def hardmax(at: Site) -> Call:
    def one_at(x: Tensor, axis: int) -> Tensor:
        return torch.zeros_like(x).scatter_(axis, x.argmax(axis, keepdim=True), 1)

    flat = _from(at)
    if flat is not None:
        return lambda x: one_at(flat(x), -1).reshape(x.shape)
    axis = int(at.attr("axis", -1))
    return lambda x: one_at(x, axis)
