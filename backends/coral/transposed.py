"""ConvTranspose: TRANSPOSE_CONV, with the output cut to size where TFLite's paddings do not do it.

Sources: ONNX operator ConvTranspose; TFLite operator TRANSPOSE_CONV (weights O, H, W, I), version 3 with a bias and
without a fused activation, which is the newest that the Edge TPU compiler takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout, weights
from edgec.backends.coral.convolution import join_channels, split_channels
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.padding import Spread, spreads
from edgec.backends.coral.quantization import Quantization
from edgec.backends.coral.slicing import strided_slice
from edgec.backends.coral.value import Value
from edgec.backends.coral.weights import Weights
from edgec.ir.graph import Node


@lowers("ConvTranspose")
def conv_transpose(low: Lowering, node: Node) -> None:
    """A transposed convolution over one or two spatial dimensions; each group by an operator of its own."""
    source = low.value(node.inputs[0])
    rank = len(source.shape) - 2
    if rank not in (1, 2):
        raise refusal(node, f"it runs over {rank} dimensions, and TFLite's over 2", low.cut_or_replace(node))
    group = int(node.attrs.get("group", 1))
    to = low.destination(node)
    integer = low.is_integer(node, [source, low.value(node.inputs[1])], to.quantization)
    if integer and low.value(node.inputs[1]).quantization is None:
        low.notes.append(f"node '{node.name}' (ConvTranspose) runs in float: its weights are not quantized")
        integer = False
    channels = low.value(node.inputs[1]).shape[1] * group
    filters = weights.read(low, node, 1, integer, channels=channels)
    kernel, dilations = filters.data.shape[2:], node.attrs.get("dilations") or [1] * rank
    spread = spreads(
        source.shape[2:],
        kernel,
        node.attrs.get("strides"),
        dilations,
        node.attrs.get("pads"),
        node.attrs.get("output_padding"),
        (node.attrs.get("output_shape") or [])[-rank:] or None,
        node.attrs.get("auto_pad", "NOTSET"),
    )
    data = dilated(filters.data, dilations)
    if rank == 1:
        source = source.reshaped((*source.shape[:2], 1, source.shape[2]))
        data, spread = data[:, :, None, :], [Spread(1, 1, 1, 0, 1), *spread]
    source = low.arranged(source if integer else low.real(source), layout.CHANNELS_LAST)
    quantization = to.quantization if integer else None

    name = to.tensor.name
    if group == 1:
        made = _spread(low, source, replace(filters, data=data), spread, quantization, name)
    else:
        size, taken = channels // group, source.shape[1] // group
        parts = []
        for number, part in enumerate(split_channels(low, source, group)):
            bias = None if filters.bias is None else filters.bias[number * size : (number + 1) * size]
            own = replace(
                filters,
                name=f"{filters.name}.group{number}",
                data=data[number * taken : (number + 1) * taken],
                bias=bias,
                bias_name=f"{filters.bias_name}.group{number}",
            )
            parts.append(_spread(low, part, own, spread, quantization, f"{name}.group{number}"))
        shape = (source.shape[0], channels, spread[0].output, spread[1].output)
        made = join_channels(low, parts, shape, quantization, name)
    if rank == 1:
        made = made.reshaped((made.shape[0], made.shape[1], made.shape[3]))
    low.finish(to, made, to.clamp)


def dilated(data: np.ndarray, dilations: Sequence[int]) -> np.ndarray:
    """A kernel with its gaps filled by zeros: TRANSPOSE_CONV has no dilation."""
    if all(step == 1 for step in dilations):
        return data
    spatial = [(size - 1) * step + 1 for size, step in zip(data.shape[2:], dilations, strict=True)]
    wide = np.zeros((*data.shape[:2], *spatial), data.dtype)
    gaps = tuple(slice(None, None, step) for step in dilations)
    wide[(slice(None), slice(None), *gaps)] = data
    return wide


def _spread(
    low: Lowering,
    source: Value,
    filters: Weights,
    spread: Sequence[Spread],
    quantization: Quantization | None,
    name: str,
) -> Value:
    """One TRANSPOSE_CONV and the STRIDED_SLICE that it may need; weights as ONNX has them: (I, O, H, W)."""
    data = filters.data
    # Where more is asked for than the kernel reaches, zeros behind the kernel reach it.
    extra = [max(0, axis.before + axis.output - axis.full) for axis in spread]
    if any(extra):
        data = np.pad(data, [(0, 0), (0, 0), *((0, more) for more in extra)])
        spread = [replace(axis, kernel=axis.kernel + more) for axis, more in zip(spread, extra, strict=True)]
    same = all(axis.is_same for axis in spread) and not all(axis.is_valid for axis in spread)
    batch, count = source.shape[0], data.shape[1]
    height, width = (axis.output if same else axis.full for axis in spread)

    options = schema.TransposeConvOptionsT()
    options.padding = schema.Padding.SAME if same else schema.Padding.VALID
    options.strideH, options.strideW = spread[0].stride, spread[1].stride
    stored = (batch, height, width, count)
    inputs: list[Value | int] = [
        low.ints(f"{name}.shape", stored),
        filters.write(low, data.transpose(1, 2, 3, 0), 0),
        source,
    ]
    if filters.bias is not None:
        inputs.append(filters.write_bias(low, source, count))
    made = low.emit(
        "TRANSPOSE_CONV",
        inputs,
        stored,
        source,
        options,
        shape=(batch, count, height, width),
        permutation=layout.CHANNELS_LAST,
        quantization=quantization,
        name=name,
    )
    if same or all(axis.is_valid for axis in spread):
        return made
    begin = [0, 0, *(axis.before for axis in spread)]
    end = [batch, count, *(axis.before + axis.output for axis in spread)]
    return strided_slice(low, made, layout.CHANNELS_LAST, begin, end, [1, 1, 1, 1], name)
