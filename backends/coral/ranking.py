"""ArgMax, ArgMin and TopK, whose results are indices.

Sources: ONNX operators of these names; TFLite operators ARG_MAX, ARG_MIN and TOPK_V2. Of equal numbers both take the
first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.slicing import held_permutation
from edgec.backends.coral.value import Value
from edgec.ir.graph import Node

_INDEX = np.dtype(np.int64)


@lowers("ArgMax", "ArgMin")
def extreme_index(low: Lowering, node: Node) -> None:
    """ARG_MAX or ARG_MIN over a stored dimension; integers have the order of what they stand for."""
    if node.attrs.get("select_last_index", 0):
        raise refusal(node, "of equal numbers it takes the last", "set select_last_index to 0 in the model")
    source = low.value(node.inputs[0])
    axis = int(node.attrs.get("axis", 0)) % len(source.shape)
    permutation = held_permutation(low, source)
    source = low.arranged(source, permutation)
    kept = [a for a in permutation if a != axis]
    shape = tuple(1 if a == axis else size for a, size in enumerate(source.shape))
    options = schema.ArgMaxOptionsT() if node.op == "ArgMax" else schema.ArgMinOptionsT()
    options.outputType = schema.TensorType.INT64
    made = low.emit(
        "ARG_MAX" if node.op == "ArgMax" else "ARG_MIN",
        [source, low.ints(f"{node.name}.axis", permutation.index(axis))],
        [source.shape[a] for a in kept],
        source,
        options,
        shape=shape,
        permutation=permutation,
        name=node.outputs[0].name,
        dtype=_INDEX,
    )
    keep = node.attrs.get("keepdims", 1)
    low.set(node.outputs[0], made if keep else made.reshaped([s for a, s in enumerate(shape) if a != axis]))


@lowers("TopK")
def largest(low: Lowering, node: Node) -> None:
    """TOPK_V2 over the last stored dimension; the smallest are the largest of the negated."""
    source = low.value(node.inputs[0])
    count = low.static(node, 1, "number of results")
    number = int(node.attrs["k"]) if count is None else int(count.reshape(-1)[0])
    axis = int(node.attrs.get("axis", -1)) % len(source.shape)
    turned = not node.attrs.get("largest", 1)
    if turned:
        source = _negated(low, low.real(source))
    permutation = held_permutation(low, source)
    permutation = (*(a for a in permutation if a != axis), axis)
    source = low.arranged(source, permutation)
    shape = tuple(number if a == axis else size for a, size in enumerate(source.shape))
    stored = tuple(shape[a] for a in permutation)
    order = layout.permuted(shape, permutation)
    tensors = [t if t is not None and t.name else None for t in (*node.outputs, None)[:2]]
    names = [
        f"{node.name}.{label}" if t is None else t.name for t, label in zip(tensors, ("values", "indices"), strict=True)
    ]
    values = low.file.tensor(names[0], stored, np.int8 if source.quantization else source.dtype, source.quantization)
    indices = low.file.tensor(names[1], stored, np.int32)
    options = schema.TopKV2OptionsT()
    low.file.operator(
        "TOPK_V2", [source.place, low.ints(f"{node.name}.count", number)], [values, indices], options, low.source
    )
    best = Value(names[0], shape, order, stored, values, None, source.quantization, dtype=source.dtype)
    where = Value(names[1], shape, order, stored, indices, dtype=np.dtype(np.int32))
    if tensors[0] is not None:
        low.set(tensors[0], replace(_negated(low, best), name=names[0]) if turned else best)
    if tensors[1] is not None:
        low.set(tensors[1], low.cast(where, _INDEX))


def _negated(low: Lowering, value: Value) -> Value:
    return low.emit("NEG", [value], value.stored, value, schema.NegOptionsT(), name=f"{value.name}.negated")
