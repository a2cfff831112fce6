"""Operators that move numbers and compute none: Reshape and its kin, Transpose, Concat, Pad, SpaceToDepth.

Reshape, Flatten, Squeeze, Unsqueeze and Transpose add no operator of their own: they change how the same memory is
read (:mod:`edgec.backends.coral.layout`), and whoever needs it in another order asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.quantization import Quantization
from edgec.backends.coral.reading import depth_order
from edgec.backends.coral.slicing import held_permutation
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Node


@lowers("Reshape")
def reshape(low: Lowering, node: Node) -> None:
    """The same memory in another shape."""
    value = low.value(node.inputs[0])
    given = low.static(node, 1, "shape")
    wanted = [int(s) for s in (node.attrs["shape"] if given is None else given.reshape(-1))]
    if not node.attrs.get("allowzero", 0):
        wanted = [value.shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    known = prod(size for size in wanted if size != -1)
    shape = [prod(value.shape) // known if size == -1 else size for size in wanted]
    low.take_view(shape)
    low.set(node.outputs[0], value.reshaped(shape))


@lowers("Flatten")
def flatten(low: Lowering, node: Node) -> None:
    """The same memory as a matrix."""
    value = low.value(node.inputs[0])
    axis = int(node.attrs.get("axis", 1))
    axis = axis + len(value.shape) if axis < 0 else axis
    low.set(node.outputs[0], value.reshaped((prod(value.shape[:axis]), prod(value.shape[axis:]))))


@lowers("Squeeze", "Unsqueeze")
def squeeze(low: Lowering, node: Node) -> None:
    """The same memory with fewer or more dimensions of size 1."""
    value = low.value(node.inputs[0])
    given = low.static(node, 1, "axes")
    axes = node.attrs.get("axes") if given is None else [int(a) for a in given.reshape(-1)]
    if node.op == "Squeeze":
        rank = len(value.shape)
        gone = {a % rank for a in axes} if axes is not None else {a for a, s in enumerate(value.shape) if s == 1}
        shape = [size for axis, size in enumerate(value.shape) if axis not in gone]
    else:
        rank = len(value.shape) + len(axes or ())
        new = {a % rank for a in axes or ()}
        rest = iter(value.shape)
        shape = [1 if axis in new else next(rest) for axis in range(rank)]
    low.take_view(shape)
    low.set(node.outputs[0], value.reshaped(shape))


@lowers("Transpose")
def transpose(low: Lowering, node: Node) -> None:
    """The same memory with its dimensions named in another order."""
    value = low.value(node.inputs[0])
    rank = len(value.shape)
    permutation = list(node.attrs.get("perm") or range(rank - 1, -1, -1))
    shape = tuple(value.shape[axis] for axis in permutation)
    if value.is_constant:
        moved = value.known().transpose(permutation)
        turned = _turned(value.quantization, permutation)
        low.set(node.outputs[0], constant(value.name, moved, turned, half=value.half))
        return
    order = layout.transposed(value.order, value.shape, permutation)
    if order is None:
        value = low.arranged(value, range(rank))
        order = layout.permuted([value.shape[axis] for axis in permutation], np.argsort(permutation).tolist())
    low.set(node.outputs[0], replace(value, shape=shape, order=order))


def _turned(quantization: Quantization | None, permutation: list[int]) -> Quantization | None:
    if quantization is None or not quantization.per_channel:
        return quantization
    return replace(quantization, axis=permutation.index(quantization.axis % len(permutation)))


@lowers("Concat")
def concat(low: Lowering, node: Node) -> None:
    """CONCATENATION in the integers of its output; an input in others is requantized, with a note."""
    values = [low.value(t) for t in node.inputs]
    tensor = node.outputs[0]
    rank = len(values[0].shape)
    axis = int(node.attrs["axis"]) % rank
    if all(v.is_constant for v in values):
        low.set(tensor, constant(tensor.name, np.concatenate([low.real(v).known() for v in values], axis)))
        return
    lead = next(v for v in values if not v.is_constant)
    quantization = low.wanted_integers(tensor)
    if quantization is None and all(v.is_constant or v.quantization is not None for v in values):
        first = lead.quantization
        if first is not None and all(v.is_constant or first.same(v.quantization) for v in values):
            quantization = first
    if not low.is_integer(node, values, quantization):
        quantization = None
    permutation = held_permutation(low, lead)
    parts = []
    for value in values:
        value = low.real(value) if quantization is None else low.tied(node, value, quantization)
        parts.append(low.arranged(value, permutation))
    shape = list(lead.shape)
    shape[axis] = sum(v.shape[axis] for v in values)
    options = schema.ConcatenationOptionsT()
    options.axis = permutation.index(axis)
    low.set(
        tensor,
        low.emit(
            "CONCATENATION",
            parts,
            [shape[a] for a in permutation],
            lead,
            options,
            shape=shape,
            permutation=permutation,
            quantization=quantization,
            name=tensor.name,
        ),
    )


@lowers("Pad")
def pad(low: Lowering, node: Node) -> None:
    """PAD, PADV2 for another number than 0, MIRROR_PAD for reflections."""
    value = low.value(node.inputs[0])
    rank = len(value.shape)
    given = low.static(node, 1, "padding")
    amounts = [int(p) for p in (node.attrs["pads"] if given is None else given.reshape(-1))]
    axes = low.static(node, 3, "axes")
    along = list(range(rank)) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    pads = np.zeros((rank, 2), np.int64)
    for place, axis in enumerate(along):
        pads[axis] = amounts[place], amounts[place + len(along)]
    if (pads < 0).any():
        raise refusal(node, "it cuts rows off (negative padding)", "use a Slice in the model")
    tensor = node.outputs[0]
    if not pads.any():
        low.set(tensor, value)
        return
    mode = node.attrs.get("mode", "constant")
    number = low.static(node, 2, "fill")
    fill = float(node.attrs.get("value", 0.0)) if number is None or number.size == 0 else float(number.reshape(-1)[0])
    permutation = held_permutation(low, value)
    source = low.arranged(value, permutation)
    inputs: list[Value | int] = [source, low.ints(f"{node.name}.paddings", pads[list(permutation)])]
    kind, options = "PAD", schema.PadOptionsT()
    if mode == "edge":
        low.set(tensor, _edges(low, source, permutation, pads, tensor.name))
        return
    if mode == "reflect":
        kind, options = "MIRROR_PAD", schema.MirrorPadOptionsT()
        options.mode = schema.MirrorPadMode.REFLECT
    elif mode != "constant":
        raise refusal(node, f"TFLite does not pad with mode '{mode}'", low.cut_or_replace(node))
    elif fill != 0.0:
        kind, options = "PADV2", schema.PadV2OptionsT()
        number_ = constant(f"{node.name}.fill", np.array([fill], source.dtype))
        inputs.append(number_ if source.quantization is None else low.quantized(number_, source.quantization))
    shape = [int(size + before + after) for size, (before, after) in zip(value.shape, pads, strict=True)]
    low.set(
        tensor,
        low.emit(
            kind,
            inputs,
            [shape[a] for a in permutation],
            source,
            options,
            shape=shape,
            permutation=permutation,
            quantization=source.quantization,
            name=tensor.name,
        ),
    )


def _edges(low: Lowering, value: Value, permutation: Sequence[int], pads: np.ndarray, name: str) -> Value:
    """The edge repeated: a MIRROR_PAD of one row at a time, of which SYMMETRIC gives the edge itself."""
    while pads.any():
        now = np.minimum(pads, 1)
        pads = pads - now
        options = schema.MirrorPadOptionsT()
        options.mode = schema.MirrorPadMode.SYMMETRIC
        shape = [size + int(added) for size, added in zip(value.shape, now.sum(axis=1), strict=True)]
        value = low.emit(
            "MIRROR_PAD",
            [value, low.ints("paddings", now[list(permutation)])],
            [shape[axis] for axis in permutation],
            value,
            options,
            shape=shape,
            permutation=permutation,
            quantization=value.quantization,
            name=name,
        )
    return value


@lowers("DepthToSpace", "SpaceToDepth")
def depth_space(low: Lowering, node: Node) -> None:
    """DEPTH_TO_SPACE and SPACE_TO_DEPTH, whose channels have the block in front (ONNX's DCR)."""
    value = low.value(node.inputs[0])
    if node.op == "SpaceToDepth" and node.attrs.get("mode", "DCR") != "DCR":
        raise refusal(node, "its channels have the block behind (mode 'CRD')", low.cut_or_replace(node))
    block = int(node.attrs["blocksize"])
    batch, channels, height, width = value.shape
    if node.op == "DepthToSpace":
        stored = (batch, height, width, channels)
        crd = node.attrs.get("mode", "DCR") == "CRD"
        order = depth_order(value.shape, block) if crd else layout.permuted(value.shape, layout.CHANNELS_LAST)
        source = low.laid(value, order, stored)
        shape = (batch, channels // block**2, height * block, width * block)
        kind, options = "DEPTH_TO_SPACE", schema.DepthToSpaceOptionsT()
    else:
        source = low.arranged(value, layout.CHANNELS_LAST)
        shape = (batch, channels * block**2, height // block, width // block)
        kind, options = "SPACE_TO_DEPTH", schema.SpaceToDepthOptionsT()
    options.blockSize = block
    low.set(node.outputs[0], low.moved(kind, source, [], shape, options, node.outputs[0].name))
