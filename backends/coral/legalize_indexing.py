"""Gather and Expand as operators that every kernel library has: Slice, Squeeze and Add."""

from __future__ import annotations

import numpy as np

from edgec.backends.coral.legalize import known, rewrites, shaped
from edgec.ir.graph import Constant, Graph, Node, consumers, static_shape

#: Operators that broadcast by themselves.
_BROADCAST = frozenset(["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])


@rewrites("Gather")
def gather(graph: Graph, node: Node) -> bool:
    """A single index, or indices at an even distance, are a Slice."""
    indices, x = known(node.inputs[1]), node.inputs[0]
    if indices is None or isinstance(x, Constant) or x.shape is None or indices.ndim > 1 or indices.size == 0:
        return False
    axis = int(node.attrs.get("axis", 0)) % len(x.shape)
    size = x.shape[axis]
    if not isinstance(size, int):
        return False
    taken = np.where(indices.reshape(-1) < 0, indices.reshape(-1) + size, indices.reshape(-1))
    steps = np.unique(np.diff(taken))
    if steps.size > 1 or (steps.size and steps[0] < 1):
        return False
    step = int(steps[0]) if steps.size else 1
    bounds = [
        graph.const(f"{node.name}.{what}", np.array([number], np.int64))
        for what, number in (("start", taken[0]), ("end", taken[-1] + 1), ("axis", axis), ("step", step))
    ]
    made = graph.op("Slice", [x, *bounds], name=f"{node.name}.slice")
    made.dtype, made.shape = x.dtype, [taken.size if a == axis else s for a, s in enumerate(x.shape)]
    if indices.ndim == 0:
        made = graph.op(
            "Squeeze", [made, graph.const(f"{node.name}.axes", np.array([axis], np.int64))], name=f"{node.name}.squeeze"
        )
    graph.replace(node, shaped(made, node.outputs[0]))
    return True


@rewrites("Pad")
def crop(graph: Graph, node: Node) -> bool:
    """Negative padding is a Slice, and what is left of it a Pad behind that."""
    x = node.inputs[0]
    pads = known(node.inputs[1]) if len(node.inputs) > 1 else None
    if pads is None or not (pads < 0).any() or x.shape is None or node.attrs.get("mode", "constant") != "constant":
        return False
    if (len(node.inputs) > 3 and node.inputs[3].name) or not all(isinstance(s, int) for s in x.shape):
        return False
    before, after = (half.astype(np.int64) for half in np.split(pads.reshape(-1), 2))
    starts, ends = np.maximum(-before, 0), np.array(x.shape, np.int64) - np.maximum(-after, 0)
    bounds = [graph.const(f"{node.name}.{what}", numbers) for what, numbers in (("start", starts), ("end", ends))]
    made = graph.op("Slice", [x, *bounds], name=f"{node.name}.slice")
    made.dtype, made.shape = x.dtype, (ends - starts).tolist()
    if (pads > 0).any():
        kept = graph.const(f"{node.name}.kept", np.maximum(pads, 0))
        attrs = dict(node.attrs)
        made = graph.op("Pad", [made, kept, *node.inputs[2:3]], name=f"{node.name}.pad", **attrs)
    graph.replace(node, shaped(made, node.outputs[0]))
    return True


@rewrites("Expand")
def expand(graph: Graph, node: Node) -> bool:
    """Nothing where readers broadcast by themselves, else an addition of zeros of the missing dimensions."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or y.shape is None or not all(isinstance(s, int) for s in (*x.shape, *y.shape)):
        return False
    readers = consumers(y)
    if readers and y not in graph.outputs and all(_broadcasts(reader, node) for reader in readers):
        graph.replace(node, x)
        return True
    if x.dtype != np.float32:
        return False
    held = [1] * (len(y.shape) - len(x.shape)) + list(x.shape)
    zeros = np.zeros(
        [1 if size == whole else whole for size, whole in zip(held, static_shape(y), strict=True)], np.float32
    )
    made = graph.op("Add", [x, graph.const(f"{node.name}.zeros", zeros)], name=f"{node.name}.add")
    graph.replace(node, shaped(made, y))
    return True


def _broadcasts(reader: Node, node: Node) -> bool:
    """Whether a reader has the same result when it reads what the Expand reads."""
    y = node.outputs[0]
    if reader.op not in _BROADCAST or len(reader.inputs) != 2 or all(t is y for t in reader.inputs):
        return False
    other = next(t for t in reader.inputs if t is not y)
    whole = reader.outputs[0].shape
    return other.shape is not None and whole is not None and list(other.shape) == list(whole)
