"""The affine map of a node, one scale and one offset a channel, and how a linear layer takes it up.

``fold`` uses it for BatchNormalization and for arithmetic with constants on either side of a layer, ``normalize`` for
the preprocessing of an input. The arithmetic is in float64 and rounded once, to the weights' own type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Constant, Node, Tensor
from edgec.passes.framework.rewriter import Rewriter, quoted
from edgec.passes.layers.linear import (
    CONVOLUTIONS,
    LINEAR,
    bias,
    offset_outputs,
    output_channels,
    padding,
    scale_inputs,
    scale_outputs,
)

# Folding into weights that others read too makes a second copy of them; beyond this many bytes it is not worth it.
LARGEST_COPY = 16 << 20


@dataclass(frozen=True)
class Affine:
    """``y = scale * x + offset``; both float64, of length 1 or of one entry a channel."""

    scale: np.ndarray
    offset: np.ndarray

    @staticmethod
    def of(scale: object, offset: object) -> Affine:
        """From anything that numpy takes."""
        return Affine(np.ravel(np.asarray(scale, np.float64)), np.ravel(np.asarray(offset, np.float64)))

    def then(self, other: Affine) -> Affine:
        """This one first, ``other`` on its result."""
        return Affine(self.scale * other.scale, self.offset * other.scale + other.offset)

    def repeated(self, times: int) -> Affine:
        """For data in which each channel has become ``times`` neighbouring features."""
        wide = (values if values.size == 1 else np.repeat(values, times) for values in (self.scale, self.offset))
        return Affine(*wide)

    def part(self, start: int, end: int) -> Affine:
        """Of some of the channels."""
        return Affine(*(v if v.size == 1 else v[start:end] for v in (self.scale, self.offset)))

    @property
    def shifts(self) -> bool:
        """Whether the offset is anything but zero."""
        return bool(np.any(self.offset != 0))


def affine_of(rw: Rewriter, node: Node, axis: int = 1) -> tuple[Tensor, Affine] | None:
    """What a node computes as (x, affine map of its channels, which lie on ``axis``); ``None`` if it is not affine."""
    if node.op == "BatchNormalization":
        return _batch_normalization(rw, node) if axis == 1 else None
    if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    if rw.is_fixed(left) == rw.is_fixed(right):
        return None
    x, constant = (left, right) if rw.is_fixed(right) else (right, left)
    values = _channel_values(rw, x, constant, axis)
    if values is None:
        return None
    one, zero = np.ones(1), np.zeros(1)
    if node.op == "Add":
        return x, Affine(one, values)
    if node.op == "Mul":
        return x, Affine(values, zero)
    if node.op == "Sub":
        return x, Affine(one, -values) if x is left else Affine(-one, values)
    if x is right or np.any(values == 0):
        return None
    return x, Affine(1 / values, zero)


def is_inference(node: Node) -> bool:
    """Whether a BatchNormalization only applies its statistics and nobody reads its other outputs."""
    return not node.attrs.get("training_mode") and not any(t.name and t.outputs for t in list(node.outputs)[1:])


def take_up_after(rw: Rewriter, node: Node, affine: Affine, *, dry: bool = False) -> str | None:
    """Has a linear layer compute ``affine`` of what it computed. Returns why not, or ``None`` when it is done.

    Args:
        dry: only find out whether it can be done.
    """
    reason = _unfit(rw, node)
    if reason:
        return reason
    weights = rw.fixed(node.inputs[1])
    assert weights is not None
    if max(affine.scale.size, affine.offset.size) not in (1, output_channels(node, weights.shape)):
        return f"its constant has {max(affine.scale.size, affine.offset.size)} channels, not those of {quoted(node)}"
    if node.op == "MatMul" and affine.shifts:
        return f"{quoted(node)} is a MatMul, which has no bias"
    added = None
    if node.op != "MatMul" and (affine.shifts or bias(node) is not None):
        added = _old_bias(rw, node, weights)
        if added is None:
            return f"the bias of {quoted(node)} is computed when the network runs"
        added = added * affine.scale + affine.offset
    return _assign(rw, node, weights, ("out", affine.scale), added, dry=dry)


def take_up_before(rw: Rewriter, node: Node, affine: Affine, *, dry: bool = False) -> str | None:
    """Has a linear layer that read ``affine`` of x read x itself. Returns why not, or ``None`` when it is done.

    The caller rewires the input. Zeros of padding are zeros behind the map, not in front of it, so a Conv takes up an
    offset only where it has no padding.

    Args:
        dry: only find out whether it can be done.
    """
    reason = _unfit(rw, node)
    if reason:
        return reason
    weights = rw.fixed(node.inputs[1])
    assert weights is not None
    if affine.shifts:
        if node.op == "MatMul":
            return f"{quoted(node)} is a MatMul, which has no bias"
        if node.op == "ConvTranspose":
            return f"an offset in front of the ConvTranspose {quoted(node)} comes out unevenly at its borders"
        if node.op == "Conv" and any(padding(node, weights.ndim - 2) or [1]):
            return f"{quoted(node)} pads with zeros, which the offset would turn into other values"
    added = None
    if affine.shifts:
        added = _old_bias(rw, node, weights)
        if added is None:
            return f"the bias of {quoted(node)} is computed when the network runs"
        added = added + offset_outputs(node, weights, affine.offset)
    return _assign(rw, node, weights, ("in", affine.scale), added, dry=dry)


def _unfit(rw: Rewriter, node: Node) -> str | None:
    if node.op not in LINEAR or node.domain not in ("", "ai.onnx"):
        return f"{quoted(node)} ({node.op}) is no layer that could take it up"
    weights = node.inputs[1]
    if not isinstance(weights, Constant) or not rw.is_fixed(weights):
        return f"the weights of {quoted(node)} are computed when the network runs"
    if weights.dtype.kind != "f":
        return f"the weights of {quoted(node)} are {weights.dtype.name}"
    if node.op == "MatMul" and len(weights.shape) != 2:
        return f"the weights of {quoted(node)} are no matrix"
    if node.op == "Gemm" and node.attrs.get("transA"):
        return f"{quoted(node)} transposes its input"
    if len(weights.outputs) > 1 and weights.nbytes > LARGEST_COPY:
        return f"{quoted(node)} shares its {weights.nbytes >> 20} MiB of weights, which would have to be copied"
    return None


def _old_bias(rw: Rewriter, node: Node, weights: np.ndarray) -> np.ndarray | None:
    """The bias with Gemm's beta in it, in float64, its last axis being the channels; zeros where there is none."""
    tensor = bias(node)
    if tensor is None:
        return np.zeros(output_channels(node, weights.shape))
    values = rw.fixed(tensor)
    if values is None or values.dtype.kind != "f":
        return None
    values = values.astype(np.float64)
    return values * float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else values


def _assign(
    rw: Rewriter,
    node: Node,
    weights: np.ndarray,
    scaling: tuple[str, np.ndarray],
    added: np.ndarray | None,
    dry: bool = False,
) -> str | None:
    side, scale = scaling
    shared = node.inputs[1]
    key = (side, id(weights), scale.tobytes(), node.op, node.attrs.get("group", 1), node.attrs.get("transB", 0))
    known = rw.made[key][1] if key in rw.made else None
    scaled = weights
    if known is None and np.any(scale != 1):
        scaled = scale_outputs(node, weights, scale) if side == "out" else scale_inputs(node, weights, scale)
        if not np.isfinite(scaled).all() and np.isfinite(weights).all():
            return f"the weights of {quoted(node)} would leave the range of {weights.dtype.name}"
    new_bias = None
    if added is not None:
        with np.errstate(over="ignore"):
            new_bias = added.astype(weights.dtype)
        if not np.isfinite(new_bias).all() and np.isfinite(added).all():
            return f"the bias of {quoted(node)} would leave the range of {weights.dtype.name}"
    if dry:
        return None
    if known is not None:
        rw.set_input(node, 1, known)
    elif scaled is not weights:
        alone = rw.single_use(shared)
        made = rw.set_constant(node, 1, scaled, shared.name)
        if not alone:
            rw.made[key] = (weights, made)  # the next reader with the same scale shares the copy
    if new_bias is not None:
        rw.set_constant(node, 2, _shaped(node, new_bias, weights), f"{node.name or node.op.lower()}.bias")
        if node.op == "Gemm":
            node.attrs.pop("beta", None)
    return None


def _shaped(node: Node, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    channels = output_channels(node, weights.shape)
    if node.op in CONVOLUTIONS:
        return np.ascontiguousarray(np.broadcast_to(values, (channels,)))
    return values


def _batch_normalization(rw: Rewriter, node: Node) -> tuple[Tensor, Affine] | None:
    if not is_inference(node):
        return None
    statistics = [rw.fixed(tensor) for tensor in list(node.inputs)[1:5]]
    if len(statistics) < 4 or any(s is None for s in statistics):
        return None
    gamma, beta, mean, variance = (np.asarray(s, np.float64) for s in statistics)
    scale = gamma / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    return node.inputs[0], Affine(scale, beta - mean * scale)


def _channel_values(rw: Rewriter, x: Tensor, constant: Tensor, axis: int) -> np.ndarray | None:
    """A constant operand as one value a channel, where it is that and does not broadcast x to a larger shape."""
    values = rw.fixed(constant)
    if values is None or values.dtype.kind != "f":
        return None
    if values.ndim == 0:
        return values.astype(np.float64).reshape(1)
    shape = rw.shape(x)
    if shape is None or values.ndim > len(shape):
        return None
    if values.size == 1:
        return values.astype(np.float64).reshape(1)
    aligned = (1,) * (len(shape) - values.ndim) + values.shape
    if axis >= len(aligned) or aligned[axis] != values.size or shape[axis] != values.size:
        return None
    return values.astype(np.float64).reshape(-1)
