"""QuantizeLinear and DequantizeLinear with the straight-through gradient.

A quantized tensor is held as floats that are whole numbers, so that gradients pass through whatever stands between
quantizing and dequantizing. The gradient of QuantizeLinear is that of ``x / scale`` inside the range of the integers
and 0 outside; dequantizing multiplies by the scale, so that a pair passes it on unchanged (Bengio, Léonard and
Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013). A scale that is learnt gets the
gradient of such a pair with respect to it: what rounding moved a value by, in steps, inside the range, and the integer
at its end outside (Esser et al., "Learned Step Size Quantization", ICLR 2020). Zero-points stay as they are. Whatever
precision autocast chose for the input, the arithmetic is in the scale's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgec.ir.graph import Constant, Node
from edgec.ir.stored import numpy_dtype
from edgec.ir.torch_module.conversion import TYPES, is_float, to_numpy, to_torch
from edgec.ir.torch_module.lowering import Call, Site, lowers
from edgec.ir.torch_module.trained import INTEGERS


class _Quantized(torch.autograd.Function):
    """round(x / scale) + zero_point within the range, halves to even."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int) -> Tensor:
        whole = torch.round(x / scale)
        if zero_point is not None:
            whole += zero_point
        inside = (whole >= low) & (whole <= high)
        ctx.save_for_backward(inside, scale, x if scale.requires_grad else None)
        return whole.clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inside, scale, x = ctx.saved_tensors
        passed = gradients[0] * inside / scale
        learnt = None if x is None else -(passed * x / scale).sum_to_size(scale.shape)
        return passed, learnt, None, None, None


def _aligned(values: Tensor, rank: int, axis: int) -> Tensor:
    """One number for the tensor, or one for each index of ``axis``, so that it broadcasts."""
    if values.ndim == 0 or values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _check(at: Site, kind: str) -> None:
    if kind not in INTEGERS:
        raise at.refusal(f"it quantizes to {kind}", "quantize to integers of 8 or 16 bits")
    if at.attr("block_size") or len(at.shape(1) or ()) > 1:
        raise at.refusal("it has a scale for each block", "quantize with one scale for a tensor or a channel")


@lowers("QuantizeLinear")
def quantize(at: Site) -> Call:
    declared = at.attr("output_dtype", 0)
    kind = numpy_dtype(int(declared)).name if declared else "uint8"
    if at.has(2):
        found = at.dtype(2)
        kind = kind if found is None else found.name
    _check(at, kind)
    if at.dtype(0) is not None and not is_float(at.dtype(0)):
        raise at.refusal(f"it quantizes {at.dtype(0)}", "cast to float32 before it")
    bounds = np.iinfo(np.dtype(kind))
    low, high, axis = int(bounds.min), int(bounds.max), int(at.attr("axis", 1))
    zero = at.known(2)
    shifted = at.has(2) and (zero is None or bool(zero.any()))
    at.take(0, 1, *([2] if shifted else []))

    def call(x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
        scale = _aligned(scale, x.ndim, axis)
        if zero_point is not None:
            zero_point = _aligned(zero_point, x.ndim, axis).to(scale.dtype)
        return _Quantized.apply(x.to(scale.dtype), scale, zero_point, low, high)

    return call


@lowers("DequantizeLinear")
def dequantize(at: Site) -> Call:
    """Of a trained weight: its float is rounded to the integers that the graph will hold, and back."""
    found = at.dtype(0)
    _check(at, at.latent or ("int32" if found is None else found.name))
    axis = int(at.attr("axis", 1))
    zero = at.known(2)
    shifted = at.has(2) and (zero is None or bool(zero.any()))
    at.take(0, 1, *([2] if shifted else []))
    bounds = np.iinfo(np.dtype(at.latent)) if at.latent is not None else None

    def call(x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
        scale = _aligned(scale, x.ndim, axis)
        if zero_point is not None:
            zero_point = _aligned(zero_point, x.ndim, axis).to(scale.dtype)
        if bounds is not None:
            whole = _Quantized.apply(x.to(scale.dtype), scale, zero_point, int(bounds.min), int(bounds.max))
        else:
            whole = x.to(scale.dtype)
        return (whole if zero_point is None else whole - zero_point) * scale

    return call


def _parameters(node: Node, rank: int) -> tuple[Tensor, Tensor]:
    scale = node.inputs[1]
    assert isinstance(scale, Constant)
    axis, scales = int(node.attrs.get("axis", 1)), to_torch(scale.values)
    zeros = torch.zeros((), dtype=scales.dtype)
    if len(node.inputs) > 2 and isinstance(node.inputs[2], Constant):
        zeros = _aligned(to_torch(node.inputs[2].values).to(scales.dtype), rank, axis)
    return _aligned(scales, rank, axis), zeros


def dequantized(integers: Tensor, node: Node) -> Tensor:
    """The floats that ``integers`` stand for in front of the DequantizeLinear ``node`` of constant operands."""
    scale, zeros = _parameters(node, integers.ndim)
    return (integers.to(scale.dtype) - zeros) * scale


def quantized(values: Tensor, node: Node, kind: np.dtype) -> np.ndarray:
    """The integers of type ``kind`` that ``node`` rounds ``values`` to."""
    scale, zeros = _parameters(node, values.ndim)
    bounds = np.iinfo(kind)
    # An int32's largest number is none that a float32 has: it would round to one beyond the range.
    whole = torch.round(values.to(scale.device, scale.dtype) / scale) + zeros
    return to_numpy(whole.double().clamp(int(bounds.min), int(bounds.max)).to(TYPES[kind.name]))
