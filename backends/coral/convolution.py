"""Conv: CONV_2D, DEPTHWISE_CONV_2D, and one CONV_2D for each group of any other grouping.

Sources: ONNX operator Conv; TFLite operators CONV_2D (weights O, H, W, I), DEPTHWISE_CONV_2D (weights 1, H, W, O).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout, weights
from edgec.backends.coral.lowering import Destination, Lowering, lowers, refusal
from edgec.backends.coral.padding import Window, windows
from edgec.backends.coral.quantization import Quantization
from edgec.backends.coral.value import Value
from edgec.backends.coral.weights import Weights
from edgec.ir.graph import Node


@lowers("Conv")
def conv(low: Lowering, node: Node) -> None:
    """A convolution over one or two spatial dimensions."""
    source = low.value(node.inputs[0])
    rank = len(source.shape) - 2
    if rank not in (1, 2):
        raise refusal(
            node,
            f"it convolves over {rank} dimensions, and TFLite's integer kernels over at most 2",
            low.cut_or_replace(node),
        )
    to = low.destination(node)
    integer = low.is_integer(node, [source, low.value(node.inputs[1])], to.quantization)
    if integer and low.value(node.inputs[1]).quantization is None:
        low.notes.append(f"node '{node.name}' (Conv) runs in float: its weights are not quantized")
        integer = False
    filters = weights.read(low, node, 0, integer)
    windowed = windows(
        source.shape[2:],
        filters.data.shape[2:],
        node.attrs.get("strides"),
        node.attrs.get("dilations"),
        node.attrs.get("pads"),
        node.attrs.get("auto_pad", "NOTSET"),
    )
    if rank == 1:
        # A sequence is an image of one row.
        source = source.reshaped((*source.shape[:2], 1, source.shape[2]))
        filters = replace(filters, data=filters.data[:, :, None, :])
        windowed = [Window(1, 1), *windowed]
    source = low.arranged(source if integer else low.real(source), layout.CHANNELS_LAST)
    source, padding = pad(low, source, windowed)

    group = int(node.attrs.get("group", 1))
    channels = source.shape[1]
    final = (source.shape[0], filters.data.shape[0], *(w.output for w in windowed))
    quantization = to.quantization if integer else None
    call = _Call(low, node, to, quantization, windowed, padding, final)
    if group == 1:
        made, left = call.plain(source, filters, _channel_order(low, to, final, rank))
    elif group == channels:
        made, left = call.depthwise(source, filters)
    else:
        made, left = call.grouped(source, filters, group)
    low.finish(to, made.reshaped((final[0], final[1], final[3])) if rank == 1 else made, left)


def pad(low: Lowering, source: Value, windowed: Sequence[Window]) -> tuple[Value, int]:
    """The image that the windows slide over, and the padding for TFLite to add to it: SAME, or VALID after a PAD."""
    if all(w.is_valid for w in windowed):
        return source, schema.Padding.VALID
    if all(w.is_same for w in windowed):
        return source, schema.Padding.SAME
    before, after = [w.before for w in windowed], [w.needed_after for w in windowed]
    return low.padded(source, before, after), schema.Padding.VALID


def _channel_order(low: Lowering, to: Destination, shape: Sequence[int], rank: int) -> np.ndarray | None:
    """The order in which a later DepthToSpace wants the output channels; ``None`` for their own order."""
    if rank != 2:
        return None
    wanted = low.wanted_order(to.tensor, shape)
    if wanted is None or wanted == layout.permuted(shape, layout.CHANNELS_LAST):
        return None
    return layout.inner_permutation(wanted, shape, (0, 2, 3))


class _Call:
    """What the operators of one Conv have in common."""

    def __init__(
        self,
        low: Lowering,
        node: Node,
        to: Destination,
        quantization: Quantization | None,
        windowed: Sequence[Window],
        padding: int,
        shape: tuple[int, ...],
    ) -> None:
        self.low, self.node, self.to, self.quantization = low, node, to, quantization
        self.rows, self.columns = windowed
        self.padding, self.shape = padding, shape
        self.activation, self.left = low.activation(to.clamp, quantization)

    def emit(self, kind: str, inputs: Sequence[Value | int], channels: int, options: Any, name: str) -> Value:
        """Adds the operator and returns its output, an image."""
        batch, _, height, width = self.shape
        options.padding = self.padding
        options.strideH, options.strideW = self.rows.stride, self.columns.stride
        # Along one element any dilation is the same, and the Edge TPU wants it alike for both axes.
        rows = self.rows.dilation if self.rows.kernel > 1 else self.columns.dilation
        columns = self.columns.dilation if self.columns.kernel > 1 else rows
        options.dilationHFactor = rows
        options.dilationWFactor = columns
        options.fusedActivationFunction = self.activation
        assert isinstance(inputs[0], Value)
        return self.low.emit(
            kind,
            inputs,
            (batch, height, width, channels),
            inputs[0],
            options,
            shape=(batch, channels, height, width),
            permutation=layout.CHANNELS_LAST,
            quantization=self.quantization,
            name=name,
        )

    def plain(
        self, source: Value, filters: Weights, order: np.ndarray | None = None
    ) -> tuple[Value, tuple[float, float]]:
        """One CONV_2D; ``order`` lists the output channels as they are to be stored."""
        if order is not None:
            filters = replace(
                filters,
                data=filters.data[order],
                scale=filters.scale[order] if filters.scale is not None and filters.scale.size > 1 else filters.scale,
                bias=None if filters.bias is None else filters.bias[order],
            )
        count = filters.data.shape[0]
        weight = filters.write(self.low, filters.data.transpose(0, 2, 3, 1), 0)
        bias = filters.write_bias(self.low, source, count)
        options = schema.Conv2DOptionsT()
        made = self.emit("CONV_2D", [source, weight, bias], count, options, self.to.tensor.name)
        if order is not None:
            wanted = self.low.wanted_order(self.to.tensor, self.shape)
            assert wanted is not None
            made = replace(made, order=wanted)
        return made, self.left

    def depthwise(self, source: Value, filters: Weights) -> tuple[Value, tuple[float, float]]:
        """One DEPTHWISE_CONV_2D, each input channel giving as many output channels."""
        count = filters.data.shape[0]
        weight = filters.write(self.low, filters.data.transpose(1, 2, 3, 0), 3)
        bias = filters.write_bias(self.low, source, count)
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = count // source.shape[1]
        return (
            self.emit("DEPTHWISE_CONV_2D", [source, weight, bias], count, options, self.to.tensor.name),
            self.left,
        )

    def grouped(self, source: Value, filters: Weights, group: int) -> tuple[Value, tuple[float, float]]:
        """SPLIT, a CONV_2D for each group, CONCATENATION: the Edge TPU has no grouped CONV_2D."""
        size = filters.data.shape[0] // group
        outputs = []
        for number, part in enumerate(split_channels(self.low, source, group)):
            own = slice(number * size, (number + 1) * size)
            piece = replace(
                filters,
                name=f"{filters.name}.group{number}",
                data=filters.data[own],
                scale=filters.scale[own] if filters.scale is not None and filters.scale.size > 1 else filters.scale,
                bias=None if filters.bias is None else filters.bias[own],
                bias_name=f"{filters.bias_name}.group{number}",
            )
            weight = piece.write(self.low, piece.data.transpose(0, 2, 3, 1), 0)
            bias = piece.write_bias(self.low, part, size)
            name = f"{self.to.tensor.name}.group{number}"
            outputs.append(self.emit("CONV_2D", [part, weight, bias], size, schema.Conv2DOptionsT(), name))
        return join_channels(self.low, outputs, self.shape, self.quantization, self.to.tensor.name), self.left


def split_channels(low: Lowering, source: Value, parts: int) -> list[Value]:
    """An image stored channels last, in equal parts of its channels."""
    batch, channels, height, width = source.shape
    size = channels // parts
    stored = (batch, height, width, size)
    options = schema.SplitOptionsT()
    options.numSplits = parts
    kind = source.dtype if source.quantization is None else np.int8
    places = [
        low.file.tensor(f"{source.name}.group{number}", stored, kind, source.quantization) for number in range(parts)
    ]
    low.file.operator("SPLIT", [low.ints("axis", 3), source.place], places, options, low.source)
    shape = (batch, size, height, width)
    order = layout.permuted(shape, layout.CHANNELS_LAST)
    return [
        Value(low.file.tensors[place].name, shape, order, stored, place, None, source.quantization) for place in places
    ]


def join_channels(
    low: Lowering, parts: Sequence[Value], shape: Sequence[int], quantization: Quantization | None, name: str
) -> Value:
    """Images stored channels last, one behind the other along the channels."""
    batch, channels, height, width = shape
    options = schema.ConcatenationOptionsT()
    options.axis = 3
    return low.emit(
        "CONCATENATION",
        parts,
        (batch, height, width, channels),
        parts[0],
        options,
        shape=shape,
        permutation=layout.CHANNELS_LAST,
        quantization=quantization,
        name=name,
    )
