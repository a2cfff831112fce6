"""Operators on whole numbers, truths and masks that are a few of those that TFLite has.

Sources: the definitions in ONNX's operator specification.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx.helper import tensor_dtype_to_np_dtype

from edgec.backends.coral.legalize import known, rewrites
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.steps import Steps, is_float, sizes
from edgec.ir.graph import Graph, Node, Tensor

#: Elements along the axis of a product that is written out.
_MOST_PRODUCTS = 64


@rewrites("Trilu")
def triangle(graph: Graph, node: Node) -> bool:
    """What lies above or below a diagonal stays; the rest is 0."""
    shape = sizes(node.inputs[0])
    offset = known(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1].name else np.zeros(1, np.int64)
    if shape is None or len(shape) < 2 or offset is None or 0 in shape:
        return False
    part = np.triu if node.attrs.get("upper", 1) else np.tril
    steps = Steps(graph, node)
    mask = graph.const(f"{node.name}.mask", part(np.ones(shape[-2:], bool), int(offset.reshape(-1)[0])))
    return steps.done(steps("Where", mask, node.inputs[0], 0))


@rewrites("ArgMax", "ArgMin")
def last_of_equals(graph: Graph, node: Node) -> bool:
    """Of equal numbers the last: the first of the reversed, counted from the end."""
    shape = sizes(node.inputs[0])
    if not node.attrs.get("select_last_index", 0) or shape is None or not shape:
        return False
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    steps, keep = Steps(graph, node), int(node.attrs.get("keepdims", 1))
    reversed_ = steps.sliced(node.inputs[0], axis, -1, -(2**31), -1)
    place = steps(node.op, reversed_, axis=axis, keepdims=keep)
    return steps.done(steps("Sub", shape[axis] - 1, place))


@rewrites("Mod")
def remainder(graph: Graph, node: Node) -> bool:
    """C's fmod: the remainder of the magnitudes, with the sign of the dividend."""
    x, y = node.inputs
    if not node.attrs.get("fmod", 0):
        return False
    if x.dtype is None or x.dtype.kind not in "fi":
        return False
    steps = Steps(graph, node)
    magnitudes = [steps("Max", side, steps("Sub", 0, side)) for side in (x, y)]
    magnitude = steps("Mod", *magnitudes)
    return steps.done(steps("Where", steps("Less", x, 0), steps("Sub", 0, magnitude), magnitude))


@rewrites("BitwiseNot")
def bitwise_not(graph: Graph, node: Node) -> bool:
    """-1 - x, in two's complement."""
    dtype = node.inputs[0].dtype
    steps = Steps(graph, node)
    return dtype is not None and dtype.kind == "i" and steps.done(steps("Sub", -1, node.inputs[0]))


@rewrites("IsInf")
def is_infinite(graph: Graph, node: Node) -> bool:
    """What equals infinity, of either sign or of one."""
    if not is_float(node):
        return False
    steps, x = Steps(graph, node), node.inputs[0]
    positive, negative = node.attrs.get("detect_positive", 1), node.attrs.get("detect_negative", 1)
    if positive and negative:
        return steps.done(steps("Equal", steps("Abs", x), np.inf))
    if not positive and not negative:
        return steps.done(steps("Less", steps("Abs", x), -1.0))
    return steps.done(steps("Equal", x, np.inf if positive else -np.inf))


@rewrites("EyeLike")
def identity_matrix(graph: Graph, node: Node) -> bool:
    """A constant: only the shape of the input counts."""
    shape = sizes(node.inputs[0])
    if shape is None or len(shape) != 2:
        return False
    dtype = tensor_dtype_to_np_dtype(node.attrs["dtype"]) if "dtype" in node.attrs else node.inputs[0].dtype
    values = np.eye(shape[0], shape[1], int(node.attrs.get("k", 0))).astype(dtype)
    return Steps(graph, node).done(graph.const(f"{node.name}.values", values))


@rewrites("Compress")
def compress(graph: Graph, node: Node) -> bool:
    """A Gather of what a known condition picks."""
    condition, x = known(node.inputs[1]), node.inputs[0]
    if condition is None:
        return False
    steps, axis = Steps(graph, node), node.attrs.get("axis")
    if axis is None:
        shape = sizes(x)
        if shape is None:
            return False
        x, axis = steps.reshaped(x, [int(np.prod(shape))]), 0
    places = np.flatnonzero(condition.reshape(-1))
    return bool(len(places)) and steps.done(steps("Gather", x, steps.integers("places", places), axis=int(axis)))


@rewrites("CumProd")
def cumulative_product(graph: Graph, node: Node) -> bool:
    """One product after the other, along an axis of few elements."""
    x, axis, shape = node.inputs[0], known(node.inputs[1]), sizes(node.inputs[0])
    if axis is None or shape is None:
        return False
    place = int(axis.reshape(-1)[0]) % len(shape)
    count = shape[place]
    if not 0 < count <= _MOST_PRODUCTS:
        return False
    steps = Steps(graph, node)
    parts: list[Tensor] = [steps.sliced(x, place, i, i + 1) for i in range(count)]
    if node.attrs.get("reverse", 0):
        parts.reverse()
    if node.attrs.get("exclusive", 0):
        one = [1 if a == place else size for a, size in enumerate(shape)]
        parts = [graph.const(f"{node.name}.one", np.ones(one, x.dtype)), *parts[:-1]]
    products = parts[:1]
    for part in parts[1:]:
        products.append(steps("Mul", products[-1], part))
    if node.attrs.get("reverse", 0):
        products.reverse()
    return steps.done(steps("Concat", *products, axis=place) if count > 1 else steps("Identity", products[0]))


@lowers("BitShift")
def right_shift(low: Lowering, node: Node) -> None:
    """RIGHT_SHIFT by known numbers."""
    by = low.static(node, 1, "number of places")
    if by is None or node.attrs.get("direction") not in ("RIGHT", b"RIGHT") or (by < 0).any():
        raise refusal(node, "it shifts to the left", low.cut_or_replace(node))
    x, name = low.value(node.inputs[0]), node.outputs[0].name
    x = low.arranged(x, range(len(x.shape)))
    places = low.file.constant(f"{node.name}.places", np.broadcast_to(by, x.shape).astype(x.dtype))
    low.set(node.outputs[0], low.emit("RIGHT_SHIFT", [x, places], x.stored, x, schema.RightShiftOptionsT(), name=name))


@rewrites("BitShift")
def bit_shift(graph: Graph, node: Node) -> bool:
    """A shift to the left by known numbers: a product with powers of two, of what has room for it."""
    by, x = known(node.inputs[1]), node.inputs[0]
    if by is None or node.attrs.get("direction") in ("RIGHT", b"RIGHT") or x.dtype != np.uint8:
        return False
    steps = Steps(graph, node)
    wide = steps.cast(x, np.int32)
    powers = graph.const(f"{node.name}.powers", np.left_shift(1, by.astype(np.int32), dtype=np.int32))
    kept = steps("Mod", steps("Mul", wide, powers), 256)
    return steps.done(steps.cast(kept, np.uint8))


@rewrites("Pow")
def power(graph: Graph, node: Node) -> bool:
    """A square is a multiplication; for any other, base and exponent are of one type: POW takes no two."""
    x, exponent = node.inputs
    number = known(exponent)
    if number is not None and number.size == 1 and float(number.reshape(-1)[0]) == 2.0:
        return Steps(graph, node).done(Steps(graph, node)("Mul", x, x))
    if x.dtype is None or exponent.dtype is None or x.dtype == exponent.dtype:
        return False
    steps = Steps(graph, node)
    if x.dtype.kind != "f" and exponent.dtype.kind == "f":  # the exponent may be a fraction
        return steps.done(steps.cast(steps("Pow", steps.cast(x, exponent.dtype), exponent), x.dtype))
    return steps.done(steps("Pow", x, steps.cast(exponent, x.dtype)))
