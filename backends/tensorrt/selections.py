"""Operators that select, compare and count, by those that an older parser of TensorRT reads as they are meant."""

from __future__ import annotations

import numpy as np

from edgec.backends.tensorrt.spelling import Writer, is_read, rewrites
from edgec.ir.graph import Constant


@rewrites("top-k-smallest")
def smallest(write: Writer) -> bool:
    """The smallest of x are the largest of -x, negated; the positions are the same, those of equals included."""
    node = write.node
    if write.dtype.kind not in "fi":
        return False
    negative = write.op("Neg", "negative", node.inputs[0])
    attrs = {**node.attrs, "largest": 1}
    values, places = write.graph.op(
        "TopK", [negative, node.inputs[1]], name=f"{node.name}.largest", outputs=2, before=node, **attrs
    )
    return write.done(write.op("Neg", "values", values), places)


@rewrites("top-k-unsorted")
def sorted_all_the_same(write: Writer) -> bool:
    """Where any order will do, the sorted one does."""
    write.node.attrs["sorted"] = 1
    return True


@rewrites("Trilu", "trilu-rank")
def triangle(write: Writer) -> bool:
    """What lies on one side of a diagonal stays; the rest becomes 0, by a mask that is known."""
    shape, node = write.shape(), write.node
    diagonal = write.fixed(1) if write.input(1) is not None else np.array(0)
    if shape is None or len(shape) < 2 or diagonal is None:
        return False
    side = np.triu if node.attrs.get("upper", 1) else np.tril
    kept = side(np.ones(shape[-2:], bool), int(diagonal.reshape(-1)[0]))
    mask = write.array("mask", kept)
    if write.dtype == np.bool_:
        return write.done(write.op("And", "kept", node.inputs[0], mask))
    return write.done(write.op("Where", "kept", mask, node.inputs[0], write.array("zero", np.zeros((), write.dtype))))


@rewrites("Xor")
def exclusive_or(write: Writer) -> bool:
    """One of both, and not both."""
    one, other = write.node.inputs[:2]
    either = write.op("Or", "either", one, other)
    return write.done(write.op("And", "one", either, write.op("Not", "not", write.op("And", "both", one, other))))


@rewrites("IsInf")
def is_infinite(write: Writer) -> bool:
    """Beyond the largest number of the type: above it, below it, or both."""
    x, attrs = write.node.inputs[0], write.node.attrs
    if write.dtype.kind != "f":
        return False
    if write.dtype != np.float32:  # float64 is float32 in TensorRT
        x = write.cast("single", x, np.float32)
    largest = float(np.finfo(np.float32).max)
    above, below = (
        write.op("Greater", "above", x, write.array("most", np.array(largest, np.float32))),
        write.op("Less", "below", x, write.array("least", np.array(-largest, np.float32))),
    )
    both = attrs.get("detect_positive", 1), attrs.get("detect_negative", 1)
    if both == (0, 0):
        return write.done(write.op("And", "none", above, below))
    if both == (1, 1):
        return write.done(write.op("Or", "either", above, below))
    return write.done(above if both[0] else below)


@rewrites("OneHot")
def one_hot(write: Writer) -> bool:
    """Where the index is that of the position, the second of the values, elsewhere the first."""
    depth, shape, node = write.fixed(1), write.shape(), write.node
    if depth is None or shape is None:
        return False
    count, axis = int(depth.reshape(-1)[0]), int(node.attrs.get("axis", -1)) % (len(shape) + 1)
    # Neither Mod nor a comparison of int64 is sure to be there: int32 holds every index.
    index = write.cast("index", node.inputs[0], np.int32)
    wide = write.op("Unsqueeze", "wide", index, write.integers("axis", [axis]))
    counted = np.arange(count, dtype=np.int32).reshape([-1] + [1] * (len(shape) - axis))
    hit = write.op("Equal", "hit", wide, write.array("counted", counted))
    from_end = write.op("Equal", "hit.back", wide, write.array("counted.back", counted - np.int32(count)))
    values = node.inputs[2]
    if isinstance(values, Constant):
        off, on = (write.array(label, values.values[place]) for label, place in (("off", 0), ("on", 1)))
        return write.done(write.op("Where", "chosen", write.op("Or", "either", hit, from_end), on, off))
    parts = [write.op("Gather", label, values, write.array(f"{label}.place", np.array(place, np.int64)), axis=0)
             for label, place in (("off", 0), ("on", 1))]  # fmt: skip
    return write.done(write.op("Where", "chosen", write.op("Or", "either", hit, from_end), parts[1], parts[0]))


@rewrites("Hardmax")
def hardmax(write: Writer) -> bool:
    """1 at the first of the largest along an axis, 0 elsewhere."""
    shape, x = write.shape(), write.node.inputs[0]
    if shape is None:
        return False
    axis = int(write.node.attrs.get("axis", -1)) % len(shape)
    places = write.cast("places", write.op("ArgMax", "largest", x, axis=axis, keepdims=1), np.int32)
    counted = np.arange(shape[axis], dtype=np.int32).reshape([-1] + [1] * (len(shape) - axis - 1))
    hit = write.op("Equal", "hit", places, write.array("counted", counted))
    return write.done(write.cast("hardmax", hit, write.dtype))


@rewrites("CastLike")
def cast_like(write: Writer) -> bool:
    """A Cast to the type that the other tensor is known to have."""
    dtype = write.type_of(write.node.inputs[1])
    return dtype is not None and write.done(write.cast("cast", write.node.inputs[0], dtype))


@rewrites("dropout-mask")
def dropout(write: Writer) -> bool:
    """In inference everything passes, and the mask is all true."""
    node, x = write.node, write.node.inputs[0]
    if len(node.outputs) < 2 or not is_read(write.graph, node.outputs[1]):
        return write.done(write.op("Identity", "passed", x))
    shape = write.shape()
    if shape is None:
        return False
    return write.done(write.op("Identity", "passed", x), write.array("mask", np.ones(shape, bool)))


@rewrites("max-pool-indices-unread")
def without_indices(write: Writer) -> bool:
    """An output that nothing reads goes: its being there is enough for the parser to refuse the node."""
    del write.node.outputs[1:]
    return True


@rewrites("pow-integers")
def power(write: Writer) -> bool:
    """A float to the power of an integer is that to the power of the same float."""
    node = write.node
    if write.dtype.kind != "f":
        return False
    exponent = write.fixed(1)
    node.inputs[1] = (
        write.cast("exponent", node.inputs[1], write.dtype)
        if exponent is None
        else write.array("exponent", exponent.astype(write.dtype))
    )
    return True


@rewrites("bool-moves")
def moved_as_integers(write: Writer) -> bool:
    """Truth values are moved as int32, and are truth values again behind it."""
    node = write.node
    first = 1 if node.op == "Where" else 0
    places = {"Where": (1, 2), "Equal": (0, 1), "ScatterND": (0, 2), "ScatterElements": (0, 2)}.get(node.op, (first,))
    for place in places:
        node.inputs[place] = write.cast(f"integer{place}", node.inputs[place], np.int32)
    if node.op == "Equal":
        return True
    copied = write.graph.op(node.op, list(node.inputs), name=node.name, before=node, domain=node.domain, **node.attrs)
    return write.done(write.cast("truth", copied, np.bool_))


@rewrites("Mod")
def modulo(write: Writer) -> bool:
    """x - y * (x / y), the quotient of integers rounded as the node says: to 0, or down."""
    x, y = write.node.inputs[:2]
    if write.dtype not in (np.int32, np.int64):
        return False
    rest = write.op("Sub", "rest", x, write.op("Mul", "whole", y, write.op("Div", "quotient", x, y)))
    if write.node.attrs.get("fmod", 0):
        return write.done(rest)
    zero = write.array("zero", np.zeros((), write.dtype))
    # Rounded to 0, the rest has the sign of x: where that is not y's, it is one y short.
    high = write.op("And", "high", write.op("Less", "negative", rest, zero), write.op("Greater", "up", y, zero))
    low = write.op("And", "low", write.op("Greater", "positive", rest, zero), write.op("Less", "down", y, zero))
    short = write.op("Or", "short", high, low)
    return write.done(write.op("Where", "modulo", short, write.op("Add", "lifted", rest, y), rest))


@rewrites("if-names")
def branch_names(write: Writer) -> bool:
    """What the branches of an If give gets names of its own in each of them."""
    node = write.node
    for label, body in (("then", node.attrs["then_branch"]), ("else", node.attrs["else_branch"])):
        for place, tensor in enumerate(body.outputs):
            body.outputs[place] = body.op("Identity", [tensor], name=f"{node.name}.{label}{place}")
            body.outputs[place].dtype, body.outputs[place].shape = tensor.dtype, tensor.shape
    return True
