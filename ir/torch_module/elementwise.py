"""Arithmetic, comparison and logic, element by element with broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgec.ir.stored import numpy_dtype
from edgec.ir.torch_module.conversion import TYPES, is_float
from edgec.ir.torch_module.lowering import Call, Site, lowers

_SAME: dict[str, Call] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tan": torch.tan,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}


@lowers(*_SAME)
def same(at: Site) -> Call:
    """torch has the operator."""
    return _SAME[at.node.op]


@lowers("Identity")
def identity(at: Site) -> Call:
    return lambda x: x


@lowers("Dropout")
def dropout(at: Site) -> Call:
    """The identity: a node that was exported to drop in inference too cannot be trained here."""
    if at.has(2) and (at.known(2) is None or bool(at.known(2))):
        raise at.refusal("it drops values at random", "export the network in evaluation mode")
    at.take(0)
    if at.wanted(1):
        return lambda x: (x, torch.ones_like(x, dtype=torch.bool))
    return lambda x: x


@lowers("Div")
def divide(at: Site) -> Call:
    """Of integers: rounded towards zero."""
    kind = at.dtype(0)
    if kind is not None and kind.kind in "iu":
        return lambda x, y: torch.div(x, y, rounding_mode="trunc")
    return torch.div


@lowers("Mod")
def modulo(at: Site) -> Call:
    return torch.fmod if at.attr("fmod", 0) else torch.remainder


@lowers("Pow")
def power(at: Site) -> Call:
    """The result has the type of the base."""
    exponent = at.known(1)
    kind = at.dtype(0)
    whole = kind is not None and kind.kind in "iu"
    if exponent is not None and exponent.size == 1 and exponent.ndim <= at.rank(0) and not whole:
        at.take(0)
        number = float(exponent.reshape(()))
        return lambda x: torch.pow(x, number)
    if whole:
        return lambda x, y: torch.pow(x, y).to(x.dtype)
    return lambda x, y: torch.pow(x, y.to(x.dtype))


_MANY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Max": torch.maximum,
    "Mean": torch.add,
    "Min": torch.minimum,
    "Sum": torch.add,
}


@lowers(*_MANY)
def any_number(at: Site) -> Call:
    pair, count = _MANY[at.node.op], len(at.node.inputs)
    if at.node.op == "Mean":
        return lambda *xs: reduce(pair, xs) / count
    return pair if count == 2 else lambda *xs: reduce(pair, xs)


@lowers("Clip")
def clip(at: Site) -> Call:
    """Bounds are attributes before opset 11; either may be left out; where they cross, the upper one counts."""
    if at.opset < 11:
        return _clamp(at, at.attr("min"), at.attr("max"))
    low, high = at.known(1), at.known(2)
    if (at.has(1) and low is None) or (at.has(2) and high is None):
        return lambda x, low=None, high=None: x if low is None and high is None else torch.clamp(x, low, high)
    at.take(0)
    bounds = [None if bound is None else bound.reshape(()).item() for bound in (low, high)]
    return _clamp(at, *bounds)


def _clamp(at: Site, low: Any, high: Any) -> Call:
    """torch's hardtanh where it can be: its gradient takes one pass over the values, that of clamp four.

    At a bound itself its gradient is zero, as that of Relu is at zero.
    """
    if low is None and high is None:
        return lambda x: x
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    if is_float(at.dtype(0)) and least <= most:
        return lambda x: functional.hardtanh(x, least, most)
    return lambda x: torch.clamp(x, low, high)


@lowers("IsInf")
def is_infinite(at: Site) -> Call:
    up, down = bool(at.attr("detect_positive", 1)), bool(at.attr("detect_negative", 1))
    if up and down:
        return torch.isinf
    if not (up or down):
        return lambda x: torch.zeros_like(x, dtype=torch.bool)
    return torch.isposinf if up else torch.isneginf


@lowers("Cast")
def cast(at: Site) -> Call:
    kind = _torch_type(at, numpy_dtype(int(at.attr("to"))))
    return lambda x: x.to(kind)


@lowers("CastLike")
def cast_like(at: Site) -> Call:
    declared = at.dtype(1)
    if declared is None:
        return lambda x, like: x.to(like.dtype)
    kind = _torch_type(at, declared)
    at.take(0)
    return lambda x: x.to(kind)


def _torch_type(at: Site, kind: np.dtype) -> torch.dtype:
    source = at.dtype(0)
    if kind.name not in TYPES or (source is not None and source.name not in TYPES):
        raise at.refusal(f"it casts {source} to {kind}, and torch has no such elements", "cast to float32")
    return TYPES[kind.name]
