"""Pooling and reductions.

Sources: ONNX operators MaxPool, AveragePool, GlobalAveragePool, GlobalMaxPool, ReduceMean, ReduceSum, ReduceMax,
ReduceMin, ReduceProd; TFLite operators MAX_POOL_2D and AVERAGE_POOL_2D (input and output share their scale), MEAN, SUM,
REDUCE_MAX, REDUCE_MIN, REDUCE_PROD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.convolution import pad
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.padding import Window, windows
from edgec.backends.coral.quantization import Quantization, exactly
from edgec.backends.coral.slicing import held_permutation
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Node, Tensor, producer

_REDUCTIONS = {
    "ReduceMean": "MEAN",
    "ReduceSum": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}
_NOT_NEGATIVE = frozenset(("Sigmoid", "Softmax"))
# Operators of one tensor whose result has no sign that their input has not, and how many of them are looked through.
_SIGN_KEPT = frozenset(
    ("QuantizeLinear", "DequantizeLinear", "Identity", "Dropout", "MaxPool", "AveragePool", "Reshape", "Transpose")
)
_REACH = 30


def _image(low: Lowering, node: Node) -> tuple[Value, int]:
    """The input as an image, and how many spatial dimensions it had."""
    source = low.value(node.inputs[0])
    rank = len(source.shape) - 2
    if rank not in (1, 2):
        raise refusal(
            node,
            f"it pools over {rank} dimensions, and TFLite over at most 2",
            low.cut_or_replace(node),
        )
    if rank == 1:
        source = source.reshaped((*source.shape[:2], 1, source.shape[2]))
    return source, rank


def _windows(low: Lowering, node: Node, source: Value, rank: int) -> list[Window]:
    if any(step != 1 for step in node.attrs.get("dilations") or ()):
        raise refusal(node, "its window is dilated, and TFLite's windows are not", low.cut_or_replace(node))
    made = windows(
        source.shape[4 - rank :],
        node.attrs["kernel_shape"],
        node.attrs.get("strides"),
        None,
        node.attrs.get("pads"),
        node.attrs.get("auto_pad", "NOTSET"),
        bool(node.attrs.get("ceil_mode", 0)),
    )
    return [Window(1, 1), *made] if rank == 1 else made


def _pool(low: Lowering, kind: str, source: Value, windowed: Sequence[Window], padding: int, name: str) -> Value:
    options = schema.Pool2DOptionsT()
    options.padding = padding
    options.filterHeight, options.filterWidth = (w.kernel for w in windowed)
    options.strideH, options.strideW = (w.stride for w in windowed)
    batch, channels = source.shape[:2]
    height, width = (w.output for w in windowed)
    return low.emit(
        kind,
        [source],
        (batch, height, width, channels),
        source,
        options,
        shape=(batch, channels, height, width),
        permutation=layout.CHANNELS_LAST,
        quantization=source.quantization,
        name=name,
    )


def _row(value: Value, rank: int) -> Value:
    """An image of one row back as a sequence."""
    return value.reshaped((*value.shape[:2], value.shape[3])) if rank == 1 else value


@lowers("MaxPool")
def max_pool(low: Lowering, node: Node) -> None:
    """MAX_POOL_2D in the integers of its input."""
    source, rank = _image(low, node)
    windowed = _windows(low, node, source, rank)
    source = low.arranged(source, layout.CHANNELS_LAST)
    padding = schema.Padding.VALID
    if not all(w.is_valid for w in windowed):
        if all(w.is_same for w in windowed):
            padding = schema.Padding.SAME
        else:
            before, after = [w.before for w in windowed], [w.needed_after for w in windowed]
            source = low.padded(source, before, after, low=not _is_not_negative(low, node.inputs[0], source))
    made = _pool(low, "MAX_POOL_2D", source, windowed, padding, node.outputs[0].name)
    low.set(node.outputs[0], _row(made, rank))


def _is_not_negative(low: Lowering, tensor: Tensor, source: Value) -> bool:
    """Whether no number of the input is below 0, so that a PAD with zeros never wins a maximum."""
    if source.quantization is not None and int(source.quantization.zero_point[0]) == -128:
        return True
    for _ in range(_REACH):
        maker = producer(tensor)
        if maker is None:
            return False
        bounds = low.bounds(maker)
        if maker.op in _NOT_NEGATIVE or (bounds is not None and bounds[0] >= 0):
            return True
        if maker.op not in _SIGN_KEPT:
            return False
        tensor = maker.inputs[0]
    return False


@lowers("AveragePool")
def average_pool(low: Lowering, node: Node) -> None:
    """AVERAGE_POOL_2D; on integers that change scale a DEPTHWISE_CONV_2D with equal weights, rounded once.

    Where a window counts fewer elements than it has, and TFLite's SAME does not say so, a MUL by the ratio follows. On
    integers that widens the rounding at such windows, to two steps for a 3x3 window in a corner.
    """
    source, rank = _image(low, node)
    windowed = _windows(low, node, source, rank)
    source = low.arranged(source, layout.CHANNELS_LAST)
    tensor = node.outputs[0]
    wanted = low.wanted_integers(tensor)
    rescaled = source.quantization is not None and wanted is not None and not wanted.same(source.quantization)
    including = bool(node.attrs.get("count_include_pad", 0))
    if not including and not rescaled and all(w.is_same for w in windowed):
        made = _pool(low, "AVERAGE_POOL_2D", source, windowed, schema.Padding.SAME, tensor.name)
        low.set(tensor, _row(made, rank))
        return
    if rescaled and wanted is not None:
        made = _averaging_convolution(low, node, source, windowed, wanted)
    else:
        padded = low.padded(source, [w.before for w in windowed], [w.needed_after for w in windowed])
        made = _pool(low, "AVERAGE_POOL_2D", padded, windowed, schema.Padding.VALID, tensor.name)
    rows, columns = (w.kernel / _counts(w, including) for w in windowed)
    ratio = np.outer(rows, columns).astype(np.float32)
    if bool((ratio != 1).any()):
        data = ratio[None, None]
        factor = constant(f"{node.name}.counted", data)
        if made.quantization is not None:
            best = exactly(data)
            factor = replace(factor, data=best.integers(data), quantization=best)
        factor = low.arranged(factor, layout.CHANNELS_LAST)
        made = low.emit("MUL", [made, factor], made.stored, made, schema.MulOptionsT(), quantization=made.quantization)
    low.set(tensor, _row(made, rank))


def _counts(window: Window, including: bool) -> np.ndarray:
    """How many elements each window's average is over: its own, without padding or without what passes its end."""
    starts = np.arange(window.output) * window.stride - window.before
    ends = starts + window.kernel
    if including:
        return np.minimum(ends, window.size + window.after) - starts
    return np.minimum(ends, window.size) - np.maximum(starts, 0)


def _averaging_convolution(
    low: Lowering, node: Node, source: Value, windowed: Sequence[Window], wanted: Quantization
) -> Value:
    source, padding = pad(low, source, windowed)
    rows, columns = windowed
    batch, channels = source.shape[:2]
    options = schema.DepthwiseConv2DOptionsT()
    options.padding, options.depthMultiplier = padding, 1
    options.strideH, options.strideW = rows.stride, columns.stride
    scale = np.full(channels, 1 / (127 * rows.kernel * columns.kernel), np.float32)
    zeros = np.zeros(channels, np.int64)
    data = np.full((1, rows.kernel, columns.kernel, channels), 127, np.int8)
    weight = low.file.constant(f"{node.name}.average", data, Quantization(scale, zeros, 3))
    assert source.quantization is not None
    bias_scale = (source.quantization.scale * scale).astype(np.float32)
    bias = low.file.constant(f"{node.name}.zero", np.zeros(channels, np.int32), Quantization(bias_scale, zeros, 0))
    return low.emit(
        "DEPTHWISE_CONV_2D",
        [source, weight, bias],
        (batch, rows.output, columns.output, channels),
        source,
        options,
        shape=(batch, channels, rows.output, columns.output),
        permutation=layout.CHANNELS_LAST,
        quantization=wanted,
        name=node.outputs[0].name,
    )


@lowers("GlobalAveragePool", "GlobalMaxPool")
def global_pool(low: Lowering, node: Node) -> None:
    """MEAN or REDUCE_MAX over the pixels."""
    source = low.value(node.inputs[0])
    kind = "MEAN" if node.op == "GlobalAveragePool" else "REDUCE_MAX"
    _reduce(low, node, kind, source, list(range(2, len(source.shape))), True)


@lowers(*_REDUCTIONS)
def reduction(low: Lowering, node: Node) -> None:
    """MEAN, SUM (on integers MEAN and MUL), REDUCE_MAX, REDUCE_MIN over stored dimensions."""
    source = low.value(node.inputs[0])
    given = low.static(node, 1, "axes")
    axes = node.attrs.get("axes") if given is None else [int(a) for a in given.reshape(-1)]
    if not axes and node.attrs.get("noop_with_empty_axes", 0):
        low.set(node.outputs[0], source)
        return
    rank = len(source.shape)
    along = sorted({a % rank for a in axes}) if axes else list(range(rank))
    _reduce(low, node, _REDUCTIONS[node.op], source, along, bool(node.attrs.get("keepdims", 1)))


def _reduce(low: Lowering, node: Node, kind: str, source: Value, axes: Sequence[int], keep: bool) -> None:
    moves_only = kind in ("REDUCE_MAX", "REDUCE_MIN")
    if moves_only:
        tensor, quantization, integer = node.outputs[0], source.quantization, source.quantization is not None
        to = None
    else:
        to = low.destination(node)
        tensor, quantization = to.tensor, to.quantization
        integer = kind != "REDUCE_PROD" and low.is_integer(node, [source], quantization)
    if not integer:
        source, quantization = low.wide(low.real(source)), None
    permutation = held_permutation(low, source)
    source = low.arranged(source, permutation)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(source.shape))
    count = prod(source.shape[axis] for axis in axes)
    as_mean = kind == "SUM" and quantization is not None
    final = quantization
    if as_mean:
        # LiteRT's reference SUM gives wrong integers: the mean in steps a count smaller is the same integers.
        assert quantization is not None
        kind, quantization = "MEAN", replace(quantization, scale=(quantization.scale / count).astype(np.float32))
    options = schema.ReducerOptionsT()
    options.keepDims = True
    places = sorted(permutation.index(axis) for axis in axes)
    made = low.emit(
        kind,
        [source, low.ints("axes", places)],
        [shape[axis] for axis in permutation],
        source,
        options,
        shape=shape,
        permutation=permutation,
        quantization=quantization,
        name=tensor.name,
    )
    if as_mean:
        factor = low.operand(constant(f"{node.name}.count", np.full((1,) * len(shape), count, np.float32)))
        made = low.emit("MUL", [made, factor], made.stored, made, schema.MulOptionsT(), quantization=final)
    if not keep:
        made = made.reshaped([size for axis, size in enumerate(made.shape) if axis not in axes])
    made = low.narrow(made, low.value(node.inputs[0]))
    if to is None:
        low.set(tensor, made)
    else:
        low.finish(to, made, to.clamp)
