"""Slice and Split: STRIDED_SLICE and SPLIT along the stored dimensions. Integers are only moved."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Node


@lowers("Slice")
def slice_(low: Lowering, node: Node) -> None:
    """STRIDED_SLICE with begins and ends inside the tensor."""
    source = low.value(node.inputs[0])
    rank = len(source.shape)
    starts = low.static(node, 1, "start")
    ends = low.static(node, 2, "end")
    axes = low.static(node, 3, "axes")
    steps = low.static(node, 4, "steps")
    if starts is None or ends is None:
        starts, ends = np.asarray(node.attrs["starts"]), np.asarray(node.attrs["ends"])
        axes = np.asarray(node.attrs["axes"]) if "axes" in node.attrs else None
    along = range(len(starts)) if axes is None else [int(a) % rank for a in axes]
    cut = [slice(None)] * rank
    for place, axis in enumerate(along):
        step = 1 if steps is None else int(steps[place])
        end: int | None = int(ends[place])
        # An end before the first element is how ONNX says "through the first element" of a backward slice.
        if step < 0 and end is not None and end < -source.shape[axis]:
            end = None
        cut[axis] = slice(int(starts[place]), end, step)
    if source.is_constant:
        low.set(node.outputs[0], constant(source.name, source.known()[tuple(cut)], source.quantization))
        return
    taken = [range(*s.indices(size)) for s, size in zip(cut, source.shape, strict=True)]
    for axis, indices in enumerate(taken):
        if indices.step < 0 and len(indices) > 1:
            source = _reversed(low, source, axis)
            taken[axis] = range(source.shape[axis] - 1 - indices[0], source.shape[axis] - indices[-1], -indices.step)
    # The step behind the only element is free, and TFLite's are of 32 bits.
    taken = [range(t[0], t[0] + 1) if len(t) == 1 else t for t in taken]
    begin, end_, step_ = ([getattr(t, part) for t in taken] for part in ("start", "stop", "step"))
    if (begin, end_, step_) == ([0] * rank, list(source.shape), [1] * rank):
        low.set(node.outputs[0], source)
        return
    if any(b >= e for b, e in zip(begin, end_, strict=True)):
        raise refusal(node, "nothing is left of its input", "remove it from the model")
    permutation = held_permutation(low, source)
    low.set(node.outputs[0], strided_slice(low, source, permutation, begin, end_, step_, node.outputs[0].name))


def _reversed(low: Lowering, source: Value, axis: int) -> Value:
    """REVERSE_V2 along one dimension."""
    permutation = held_permutation(low, source)
    source = low.arranged(source, permutation)
    place = low.ints(f"{source.name}.reversed.axis", [permutation.index(axis)])
    options = schema.ReverseV2OptionsT()
    name = f"{source.name}.reversed{axis}"
    kept = source.quantization
    return low.emit("REVERSE_V2", [source, place], source.stored, source, options, quantization=kept, name=name)


@lowers("Split")
def split(low: Lowering, node: Node) -> None:
    """SPLIT into equal parts; a STRIDED_SLICE for each part otherwise (the Edge TPU has no SPLIT_V)."""
    source = low.value(node.inputs[0])
    axis = int(node.attrs.get("axis", 0)) % len(source.shape)
    count, size = len(node.outputs), source.shape[axis]
    given = low.static(node, 1, "split")
    if given is None and "split" in node.attrs:
        given = np.asarray(node.attrs["split"])
    share = -(-size // count)
    sizes = [min(share, size - share * i) for i in range(count)] if given is None else [int(s) for s in given]
    permutation = held_permutation(low, source)
    if len(set(sizes)) == 1:
        source = low.arranged(source, permutation)
        shape = tuple(sizes[0] if a == axis else s for a, s in enumerate(source.shape))
        stored = tuple(shape[a] for a in permutation)
        low.take_rank("SPLIT", len(stored))
        options = schema.SplitOptionsT()
        options.numSplits = count
        kind = source.dtype if source.quantization is None else np.int8
        places = [low.file.tensor(t.name, stored, kind, source.quantization) for t in node.outputs]
        low.file.operator(
            "SPLIT", [low.ints("axis", permutation.index(axis)), source.place], places, options, low.source
        )
        order = layout.permuted(shape, permutation)
        for tensor, place in zip(node.outputs, places, strict=True):
            made = Value(tensor.name, shape, order, stored, place, None, source.quantization, dtype=source.dtype)
            low.set(tensor, made)
        return
    start = 0
    for tensor, length in zip(node.outputs, sizes, strict=True):
        begin, end = [0] * len(source.shape), list(source.shape)
        begin[axis], end[axis] = start, start + length
        start += length
        made = strided_slice(low, source, permutation, begin, end, [1] * len(begin), tensor.name)
        low.set(tensor, made)


def held_permutation(low: Lowering, value: Value) -> tuple[int, ...]:
    """The stored order of a value's dimensions, or the one that it will be brought to."""
    found = layout.permutation_of(value.order, value.shape)
    return low.default_permutation(len(value.shape)) if found is None else found


def strided_slice(
    low: Lowering,
    source: Value,
    permutation: Sequence[int],
    begin: Sequence[int],
    end: Sequence[int],
    step: Sequence[int],
    name: str,
) -> Value:
    """A part of a value; ``begin``, ``end`` and ``step`` are by ONNX dimension and inside the shape."""
    source = low.arranged(source, permutation)
    image = tuple(permutation) == layout.CHANNELS_LAST and source.is_number
    if image and any(s > 1 for s in step[2:]) and list(step[:2]) == [1, 1]:
        return _subsampled(low, source, begin, end, step, name)
    shape = tuple(-(-(e - b) // s) for b, e, s in zip(begin, end, step, strict=True))
    assert prod(shape) > 0, name
    inputs: list[Value | int] = [
        source,
        *(
            low.ints(f"{name}.{what}", [numbers[axis] for axis in permutation])
            for what, numbers in (("begin", begin), ("end", end), ("strides", step))
        ),
    ]
    return low.emit(
        "STRIDED_SLICE",
        inputs,
        [shape[axis] for axis in permutation],
        source,
        schema.StridedSliceOptionsT(),
        shape=shape,
        permutation=permutation,
        quantization=source.quantization,
        name=name,
    )


def _subsampled(
    low: Lowering, source: Value, begin: Sequence[int], end: Sequence[int], step: Sequence[int], name: str
) -> Value:
    """Every so many rows and columns: a MAX_POOL_2D of single elements, because the Edge TPU's slices have no steps."""
    whole = [1] * len(step)
    part = source
    if (list(begin), list(end)) != ([0] * len(step), list(source.shape)):
        part = strided_slice(low, source, layout.CHANNELS_LAST, begin, end, whole, f"{name}.part")
    batch, channels, height, width = part.shape
    shape = (batch, channels, -(-height // step[2]), -(-width // step[3]))
    options = schema.Pool2DOptionsT()
    options.padding = schema.Padding.VALID
    options.filterHeight = options.filterWidth = 1
    options.strideH, options.strideW = step[2], step[3]
    return low.moved("MAX_POOL_2D", part, [], shape, options, name)
