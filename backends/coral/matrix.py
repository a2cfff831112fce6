"""Gemm and MatMul: FULLY_CONNECTED, a 1x1 CONV_2D where weights have a scale for each channel, or BATCH_MATMUL.

Kernels of FULLY_CONNECTED without per-channel support read such weights wrongly and say nothing, and the Edge TPU maps
it for a single row only; a convolution over an image of one row of pixels computes the same everywhere.

Where the rows are read from a flattened image, or reshaped into one, it is the weights that are permuted.
Sources: ONNX operators Gemm and MatMul; TFLite operators FULLY_CONNECTED (weights O, I) and BATCH_MATMUL.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout, weights
from edgec.backends.coral.lowering import Destination, Lowering, lowers, refusal
from edgec.backends.coral.value import Value
from edgec.backends.coral.weights import Weights
from edgec.ir.graph import Node
from edgec.passes.quantize.weights_only import FEWEST

# Dimensions of a product that every runtime takes.
_FEW = 4


@lowers("Gemm")
def gemm(low: Lowering, node: Node) -> None:
    """``alpha * A @ B + beta * C`` with known B and C."""
    source = low.value(node.inputs[0])
    if node.attrs.get("transA", 0):
        turned = layout.transposed(source.order, source.shape, (1, 0))
        if turned is None:
            source = low.arranged(source, (0, 1))
            turned = layout.permuted(source.shape[::-1], (1, 0))
        source = replace(source, shape=source.shape[::-1], order=turned)
    axis = 0 if node.attrs.get("transB", 0) else 1
    weight = low.value(node.inputs[1])
    bias = low.optional(node, 2)
    if bias is not None and bias.is_constant and prod(bias.shape) not in (1, weight.shape[axis]):
        raise refusal(
            node, f"its bias of shape {list(bias.shape)} differs by row", "add it with an Add behind the node"
        )
    to = low.destination(node)
    integer = _is_integer(low, node, source, to)
    read = weights.read(low, node, axis, integer, factor=float(node.attrs.get("alpha", 1.0)))
    beta = np.float32(node.attrs.get("beta", 1.0))
    data = read.data if axis == 0 else read.data.T
    scaled = replace(read, data=data, bias=None if read.bias is None else read.bias * beta)
    _dense(low, source, scaled, to, (source.shape[0], data.shape[0]))


@lowers("MatMul")
def matmul(low: Lowering, node: Node) -> None:
    """``A @ B``; B is known and has two dimensions, or both have the same leading dimensions."""
    source, other = low.value(node.inputs[0]), low.value(node.inputs[1])
    if len(source.shape) < 2 or len(other.shape) < 2:
        raise refusal(node, "one side is a vector", "reshape it to a matrix in the model")
    to = low.destination(node)
    if not other.is_constant or len(other.shape) > 2:
        _batched(low, node, source, other, to)
        return
    rows, depth = prod(source.shape[:-1]), source.shape[-1]
    integer = _is_integer(low, node, source, to)
    read = weights.read(low, node, 1, integer)
    read = replace(read, data=read.data.T, bias=None)
    _dense(low, source.reshaped((rows, depth)), read, to, (*source.shape[:-1], read.data.shape[0]))


def _is_integer(low: Lowering, node: Node, source: Value, to: Destination) -> bool:
    other = low.value(node.inputs[1])
    if not low.is_integer(node, [source, other], to.quantization):
        return False
    if other.quantization is None:
        low.notes.append(f"node '{node.name}' ({node.op}) runs in float: its weights are not quantized")
        return False
    return True


def _dense(low: Lowering, source: Value, filters: Weights, to: Destination, shape: tuple[int, ...]) -> None:
    """Rows times known weights ``(O, I)``; ``shape`` is the ONNX shape of the result."""
    count, depth = filters.data.shape
    rows, integer = source.shape[0], filters.integer
    if not integer:
        source = low.real(source)
    inputs = layout.inner_permutation(source.order, source.shape, (0,))
    if inputs is None:
        source = low.arranged(source, (0, 1))
    elif source.order != layout.row_major(source.shape):
        filters = replace(filters, data=filters.data[:, inputs])
    order = layout.row_major((rows, count))
    wanted = low.wanted_order(to.tensor, shape)
    outputs = None if wanted is None else layout.inner_permutation(wanted, (rows, count), (0,))
    if wanted is not None and outputs is not None and wanted != order:
        order = wanted
        filters = replace(
            filters,
            data=filters.data[outputs],
            scale=filters.scale[outputs] if filters.scale is not None and filters.scale.size > 1 else filters.scale,
            bias=None if filters.bias is None else filters.bias[outputs],
        )
    if filters.scale is not None and filters.scale.size > 1 and bool((filters.scale == filters.scale[0]).all()):
        filters = replace(filters, scale=filters.scale[:1])

    quantization = to.quantization if integer else None
    activation, left = low.activation(to.clamp, quantization)
    bias = filters.write_bias(low, source, count)
    kind: str
    stored: tuple[int, ...]
    options: Any
    if integer and (rows > 1 or (filters.scale is not None and filters.scale.size > 1)):
        kind, stored, options = "CONV_2D", (1, 1, rows, count), schema.Conv2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideH = options.strideW = 1
        seen = low.laid(source, source.order, (1, 1, rows, depth))
        weight = filters.write(low, filters.data.reshape(count, 1, 1, depth), 0)
    else:
        kind, stored, options = "FULLY_CONNECTED", (rows, count), schema.FullyConnectedOptionsT()
        # One row may lie in any shape: the kernel reads it flat.
        seen = source if rows == 1 else low.laid(source, source.order, (rows, depth))
        weight = filters.write(low, filters.data, 0)
    options.fusedActivationFunction = activation
    made = low.emit(
        kind,
        [seen, weight, bias],
        stored,
        seen,
        options,
        shape=(rows, count),
        quantization=quantization,
        name=to.tensor.name,
    )
    low.finish(to, replace(made, shape=shape, order=order), left)


def _batched(low: Lowering, node: Node, source: Value, other: Value, to: Destination) -> None:
    if len(source.shape) != len(other.shape) and not source.is_constant and not other.is_constant:
        rank = max(len(source.shape), len(other.shape))
        source = source.reshaped((*[1] * (rank - len(source.shape)), *source.shape))
        other = other.reshaped((*[1] * (rank - len(other.shape)), *other.shape))
    integer = low.is_integer(node, [source, other], to.quantization)
    sides = [low.operand(side) if integer else _real(low, side) for side in (source, other)]
    shape = (*np.broadcast_shapes(*(side.shape[:-2] for side in sides)), sides[0].shape[-2], sides[1].shape[-1])
    whole = shape
    if len(shape) > _FEW and sides[0].shape[:-2] == sides[1].shape[:-2]:
        # Any number of products is one stack of them.
        sides = [side.reshaped((prod(side.shape[:-2]), *side.shape[-2:])) for side in sides]
        shape = (prod(shape[:-2]), *shape[-2:])
    left, right = (low.arranged(side, range(len(side.shape))) for side in sides)
    made = low.emit(
        "BATCH_MATMUL",
        [left, right],
        shape,
        left,
        schema.BatchMatMulOptionsT(),
        shape=shape,
        permutation=range(len(shape)),
        quantization=to.quantization if integer else None,
        name=to.tensor.name,
    )
    low.finish(to, made.reshaped(whole), to.clamp)


def _real(low: Lowering, side: Value) -> Value:
    """A side in float32; known numbers that are stored as int8 or float16 stay so in the file."""
    if not side.is_constant or side.known().size < FEWEST or not (side.half or side.quantization is not None):
        return low.real(side)
    data, quantization = side.known(), side.quantization
    if quantization is None:
        data = data.astype(np.float16)
    elif data.dtype != np.int8:
        return low.real(side)
    order = layout.row_major(side.shape)
    place = low.unpacked(side.name, data, quantization)
    return Value(f"{side.name}.real", side.shape, order, side.shape, place)
