"""Two operators in a row that are one: Slices, Pads, Concats, Casts, bounds, reductions, Reshapes."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Node, Tensor, Variable, producer
from edgec.passes.fold.matching import reduced_axes, with_number
from edgec.passes.fold.pad import pad_value, pads_of
from edgec.passes.fold.transposes import BROADCASTING, POINTWISE
from edgec.passes.framework.rewriter import Rewriter, quoted

# What an end of a Slice says that means all there is.
_ALL = 1 << 30
# Reductions of which two in a row are one.
REDUCTIONS = (
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp"),
)
# A chain that two Reshapes stand around is looked at up to this length.
_LONGEST_CHAIN = 16


def fold_slices(rw: Rewriter, node: Node) -> bool:
    """A Slice of a Slice along other axes is one Slice, and along the same one where both step forwards by 1."""
    first = producer(node.inputs[0])
    if first is None or first.op != "Slice" or not rw.owns(first):
        return False
    readers = rw.readers(node.inputs[0])
    if readers is None or any(reader.op != "Slice" for reader in readers):
        return False  # it stays for the sake of others
    inner, outer = cuts(rw, first), cuts(rw, node)
    if inner is None or outer is None or rw.shape(first.inputs[0]) is None:
        return False
    joined = dict(inner)
    for axis, (start, end, step) in outer.items():
        if axis not in joined:
            joined[axis] = (start, end, step)
            continue
        begin, stop, stride = joined[axis]
        if stride != 1 or step != 1 or min(begin, start, end) < 0:
            return False
        last = begin + end if end < _ALL else stop
        if stop < 0 < begin + end and end < _ALL:
            return False  # how far the first one goes is not known
        joined[axis] = (begin + start, min(last, stop) if stop >= 0 else last, 1)
    axes = sorted(joined)
    label = node.name or "slice"
    rw.did(node, f"joined with {quoted(first)}")
    columns = [[joined[axis][place] for axis in axes] for place in range(3)]
    for place, (name, values) in enumerate(zip(("starts", "ends", "steps"), columns, strict=True)):
        rw.set_input(node, (1, 2, 4)[place], rw.graph.const(f"{label}.{name}", np.array(values, np.int64)))
    rw.set_input(node, 3, rw.graph.const(f"{label}.axes", np.array(axes, np.int64)))
    rw.set_input(node, 0, first.inputs[0])
    return True


def fold_pads(rw: Rewriter, node: Node) -> bool:
    """A Pad of a Pad with the same value is one Pad; neither may crop."""
    first = producer(node.inputs[0])
    if first is None or first.op != "Pad" or not rw.single_use(node.inputs[0]):
        return False
    inner, outer = pads_of(rw, first), pads_of(rw, node)
    value = pad_value(rw, node)
    if inner is None or outer is None or value is None or pad_value(rw, first) != value or min(*inner, *outer) < 0:
        return False
    if "pads" in node.attrs or len(node.inputs) < 2:
        return False
    rw.did(node, f"joined with {quoted(first)}")
    total = np.array([a + b for a, b in zip(inner, outer, strict=True)], np.int64)
    rw.set_input(node, 1, rw.graph.const(f"{node.name or 'pad'}.pads", total))
    if len(node.inputs) > 3:
        del node.inputs[3]
    rw.set_input(node, 0, first.inputs[0])
    return True


def fold_concats(rw: Rewriter, node: Node) -> bool:
    """A Concat of Concats along one axis is one; one of all that a Split gave, in order, is what was split."""
    split = producer(node.inputs[0])
    axis = _axis(rw, node)
    if axis is None:
        return False
    whole = split is not None and split.op == "Split" and list(split.outputs) == list(node.inputs)
    if split is not None and whole and _axis(rw, split) == axis:
        rw.did(node, f"puts together what {quoted(split)} took apart: removed")
        rw.replace(node, split.inputs[0])
        return True
    inner = [producer(tensor) for tensor in node.inputs]
    joins = [
        source is not None and source.op == "Concat" and rw.single_use(tensor) and _axis(rw, source) == axis
        for source, tensor in zip(inner, node.inputs, strict=True)
    ]
    if not any(joins):
        return False
    inputs: list[Tensor] = []
    for source, tensor, flat in zip(inner, list(node.inputs), joins, strict=True):
        inputs += list(source.inputs) if flat and source is not None else [tensor]
    names = ", ".join(quoted(source) for source, flat in zip(inner, joins, strict=True) if flat and source is not None)
    rw.did(node, f"joined with {names}")
    rw.set_inputs(node, inputs)
    return True


def fold_casts(rw: Rewriter, node: Node) -> bool:
    """A Cast of a Cast is the second alone, where the first one loses nothing."""
    first = producer(node.inputs[0])
    if first is None or first.op != "Cast":
        return False
    start, middle = rw.dtype(first.inputs[0]), rw.dtype(node.inputs[0])
    if start is None or middle is None or not _holds(middle, start):
        return False
    rw.did(node, f"joined with {quoted(first)}")
    rw.set_input(node, 0, first.inputs[0])
    return True


def fold_bounds(rw: Rewriter, node: Node) -> bool:
    """A Min and a Max with numbers in a row, in either order, are one Clip."""
    first = producer(node.inputs[0]) or producer(node.inputs[-1])
    if len(node.inputs) != 2 or first is None or {node.op, first.op} != {"Min", "Max"} or len(first.inputs) != 2:
        return False
    x, outer = with_number(rw, node)
    if x is not first.outputs[0] or not rw.single_use(x):
        return False
    start, inner = with_number(rw, first)
    kind = None if start is None else rw.dtype(start)
    low, high = (inner, outer) if first.op == "Max" else (outer, inner)
    if start is None or kind is None or kind.kind != "f" or not low <= high:
        return False
    rw.did(node, f"became one Clip with {quoted(first)}")
    node.op = "Clip"
    bounds = [
        rw.graph.const(f"{node.name or 'clip'}.{label}", np.array(value, kind))
        for label, value in (("min", low), ("max", high))
    ]
    rw.set_inputs(node, [start, *bounds])
    return True


def fold_reductions(rw: Rewriter, node: Node) -> bool:
    """A mean of a mean, a sum of a sum, a maximum of a maximum, of one tensor along other axes: one reduction."""
    x = node.inputs[0]
    first = producer(x)
    if first is None or first.op != node.op or not rw.single_use(x):
        return False
    keeps = bool(node.attrs.get("keepdims", 1))
    if keeps != bool(first.attrs.get("keepdims", 1)):
        return False
    rank = rw.rank(first.inputs[0])
    inner, outer = reduced_axes(rw, first), reduced_axes(rw, node)
    if inner is None or outer is None or rank is None:
        return False
    left = list(range(rank)) if keeps else [axis for axis in range(rank) if axis not in inner]
    axes = sorted({*inner, *(left[axis] for axis in outer)})
    rw.did(node, f"joined with {quoted(first)}")
    if "axes" in node.attrs:
        node.attrs["axes"] = axes
    else:
        rw.set_input(node, 1, rw.graph.const(f"{node.name or 'reduce'}.axes", np.array(axes, np.int64)))
    rw.set_input(node, 0, first.inputs[0])
    return True


def fold_pooled_mean(rw: Rewriter, node: Node) -> bool:
    """The mean over all places needs no AveragePool in front of it that takes every place once."""
    pool = producer(node.inputs[0])
    if pool is None or pool.op != "AveragePool" or not rw.single_use(node.inputs[0]):
        return False
    shape, small = rw.static(pool.inputs[0]), rw.static(node.inputs[0])
    if shape is None or small is None:
        return False
    spatial = list(range(2, len(shape)))
    if node.op == "ReduceMean" and not set(spatial) <= set(reduced_axes(rw, node) or ()):
        return False
    kernel = [int(k) for k in pool.attrs["kernel_shape"]]
    if any(int(p) for p in pool.attrs.get("pads", [0])) or any(int(d) != 1 for d in pool.attrs.get("dilations", [1])):
        return False
    steps = [int(s) for s in pool.attrs.get("strides", [1] * len(kernel))]
    if steps != kernel or any(shape[axis] != small[axis] * k for axis, k in zip(spatial, kernel, strict=True)):
        return False
    rw.did(node, f"{quoted(pool)} in front of it is a mean of its own: not needed")
    rw.set_input(node, 0, pool.inputs[0])
    return True


def fold_reshapes_around(rw: Rewriter, node: Node) -> bool:
    """Of two Reshapes around operators that work value by value, the first one is not needed. ``node`` is the last."""
    target = rw.fixed(node.inputs[1])
    if target is None or np.any(target == 0):
        return False
    chain: list[Node] = []
    tensor = node.inputs[0]
    while (source := producer(tensor)) is not None and len(chain) < _LONGEST_CHAIN and rw.single_use(tensor):
        if source.op == "Reshape":
            return bool(chain) and _move_in_front(rw, node, source, chain)
        if not _is_by_value(rw, source):
            return False
        chain.append(source)
        tensor = _data_input(rw, source)
    return False


def _move_in_front(rw: Rewriter, node: Node, first: Node, chain: list[Node]) -> bool:
    shape = rw.shape(first.inputs[0])
    if shape is None or rw.is_fixed(first.inputs[0]):
        return False
    rw.did(node, f"{quoted(first)} in front of {len(chain)} nodes that work value by value is not needed")
    tensor: Tensor = first.inputs[0]
    for step in reversed(chain):
        place = next(i for i, t in enumerate(step.inputs) if t is _data_input(rw, step))
        for other, constant in enumerate(list(step.inputs)):
            if other != place and isinstance(constant, Constant) and step.op in BROADCASTING and constant.values.ndim:
                rw.set_constant(step, other, constant.values.reshape(()), f"{constant.name}.number")
        rw.set_input(step, place, tensor)
        tensor = rw.renew_output(step, 0, shape)
    rw.set_input(node, 0, tensor)
    return True


def _is_by_value(rw: Rewriter, node: Node) -> bool:
    if len(node.outputs) != 1 or node.domain not in ("", "ai.onnx"):
        return False
    if node.op in POINTWISE:
        return True
    return node.op in BROADCASTING - {"PRelu"} and len(node.inputs) == 2 and _data_input(rw, node).name != ""


def _data_input(rw: Rewriter, node: Node) -> Tensor:
    """What an operator works on value by value; an omitted tensor where it is not one tensor and a number."""
    if node.op in POINTWISE:
        return node.inputs[0]
    for place in (0, 1):
        values = rw.fixed(node.inputs[1 - place])
        rank = rw.rank(node.inputs[place])
        if values is not None and values.size == 1 and rank is not None and values.ndim <= rank:
            return node.inputs[place]
    return Variable.empty()


def cuts(rw: Rewriter, node: Node) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step by axis of a Slice; ``None`` where something of it is computed."""
    rank = rw.rank(node.inputs[0])
    if rank is None or len(node.inputs) < 3:
        return None
    values = [rw.fixed(tensor) if tensor.name else None for tensor in list(node.inputs)[1:]]
    values += [None] * (4 - len(values))
    starts, ends, axes, steps = values[:4]
    if starts is None or ends is None:
        return None
    if any(t.name and v is None for t, v in zip(list(node.inputs)[3:], values[2:], strict=False)):
        return None
    along = range(len(starts)) if axes is None else axes.reshape(-1).tolist()
    strides = [1] * len(starts) if steps is None else steps.reshape(-1).tolist()
    cuts = zip(starts.reshape(-1).tolist(), ends.reshape(-1).tolist(), strides, strict=True)
    return {int(axis) % rank: (int(a), int(b), int(s)) for axis, (a, b, s) in zip(along, cuts, strict=True)}


def _axis(rw: Rewriter, node: Node) -> int | None:
    rank = rw.rank(node.inputs[0])
    return None if rank is None else int(node.attrs.get("axis", 0)) % max(rank, 1)


def _holds(wide: np.dtype, narrow: np.dtype) -> bool:
    """Whether every value of one type is one of the other."""
    if "V" in (wide.kind, narrow.kind) or (narrow.kind in "iu" and narrow.itemsize == 8 and wide.kind == "f"):
        return False  # a float64 does not hold every integer of 64 bits, though numpy calls that safe
    return bool(np.can_cast(narrow, wide, "safe"))
