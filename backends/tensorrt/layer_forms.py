"""Scatters that reduce, computed biases, parts of shapes and batch-first recurrent layers, as TensorRT reads them."""

from __future__ import annotations

import numpy as np

from edgec.backends.tensorrt.spelling import Writer, rewrites

_REDUCTIONS = {"add": "Add", "mul": "Mul", "max": "Max", "min": "Min"}


@rewrites("scatter-reduction")
def reduced(write: Writer) -> bool:
    """What is there is gathered, joined with the updates and put back; no place may be named twice."""
    node = write.node
    reduction = node.attrs.get("reduction", "none")
    if reduction == "none":  # named, which is enough for some parsers to refuse it
        del node.attrs["reduction"]
        return True
    indices, shape = write.fixed(1), write.shape()
    op = _REDUCTIONS.get(reduction)
    if op is None or indices is None or shape is None or not _apart(node.op, indices, shape, node.attrs):
        return False
    attrs = {name: value for name, value in node.attrs.items() if name != "reduction"}
    gather = "GatherND" if node.op == "ScatterND" else "GatherElements"
    there = write.op(gather, "there", node.inputs[0], node.inputs[1], **attrs)
    joined = write.op(op, "joined", there, node.inputs[2])
    return write.done(write.op(node.op, "scattered", node.inputs[0], node.inputs[1], joined, **attrs))


def _apart(op: str, indices: np.ndarray, shape: tuple[int, ...], attrs: dict[str, object]) -> bool:
    """Whether each place is written once."""
    if op == "ScatterND":
        rows = indices.reshape(-1, indices.shape[-1]) % np.array(shape[: indices.shape[-1]])
    else:
        axis = int(str(attrs.get("axis", 0))) % len(shape)
        places: list[np.ndarray] = list(np.indices(indices.shape))
        places[axis] = indices % shape[axis]
        rows = np.stack([place.reshape(-1) for place in places], axis=1)
    return len(np.unique(rows, axis=0)) == len(rows)


@rewrites("bias-computed")
def bias_behind(write: Writer) -> bool:
    """A bias that the network computes is added behind the layer."""
    node, bias = write.node, write.input(2)
    rank = write.dimensions(node.inputs[0])
    if bias is None or rank is None:
        return False
    layer = write.op(node.op, "unbiased", *node.inputs[:2], **node.attrs)
    column = write.op("Reshape", "bias", bias, write.integers("bias.shape", [-1] + [1] * (len(rank) - 2)))
    return write.done(write.op("Add", "biased", layer, column))


@rewrites("shape-part")
def shape_part(write: Writer) -> bool:
    """Shape, and a Slice of it."""
    node, rank = write.node, write.dimensions(write.node.inputs[0])
    if rank is None:
        return False
    start, end, _ = slice(node.attrs.get("start", 0), node.attrs.get("end")).indices(len(rank))
    bounds = [write.integers(name, [value]) for name, value in (("start", start), ("end", end), ("axis", 0))]
    return write.done(write.op("Slice", "part", write.op("Shape", "shape", node.inputs[0]), *bounds))


@rewrites("recurrent-layout")
def batch_first(write: Writer) -> bool:
    """A recurrent layer that has its batch first, between Transposes."""
    node = write.node
    names = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    for place, name in enumerate(names[: len(node.inputs)]):
        if name in ("X", "initial_h", "initial_c") and node.inputs[place].name:
            node.inputs[place] = write.op("Transpose", name.lower(), node.inputs[place], perm=[1, 0, 2])
    attrs = {name: value for name, value in node.attrs.items() if name != "layout"}
    made = write.graph.op(
        node.op, list(node.inputs), name=f"{node.name}.recurrent", outputs=len(node.outputs), before=node, **attrs
    )
    outputs = made if isinstance(made, list) else [made]
    orders = ([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])
    return write.done(*(write.op("Transpose", f"y{place}", tensor, perm=orders[place])
                        for place, tensor in enumerate(outputs)))  # fmt: skip
