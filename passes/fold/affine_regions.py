"""Arithmetic on the channels of one tensor, taken apart and put together again: one convolution of kernel 1.

A detector's head turns distances into boxes like this: Slices, sums and differences with the anchors, a Concat, a
product with the strides. All of it is a matrix of channels, a scale for each place and an offset. One layer computes
it, and int8 rounds once and not at every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Node, Tensor, producer
from edgec.passes.fold.sequences import cuts
from edgec.passes.framework.rewriter import Rewriter

# Fewer nodes than this are not worth a layer of their own; it, the scale and the offset are three.
_LEAST = 5
# Wider tensors than a box and what goes with it are left alone.
_MOST_CHANNELS, _MOST_NODES = 16, 32
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})


@dataclass(frozen=True)
class _Map:
    """``rows`` of channels of the source, and ``offset``: arrays of [channels, source channels, places] and
    [channels, places], with 1 place where all are alike."""

    rows: np.ndarray
    offset: np.ndarray


def fold_affine_region(rw: Rewriter, node: Node) -> bool:
    """Puts one convolution in the place of the arithmetic around ``node``, a Concat of channels."""
    last = _end(rw, node)
    shape, out = rw.static(node.outputs[0]), last.outputs[0]
    if shape is None or len(shape) < 3 or shape[0] != 1 or int(node.attrs.get("axis", 0)) % len(shape) != 1:
        return False
    if rw.dtype(out) != np.float32 or rw.static(out) != shape:
        return False
    region = _Region(rw, len(shape))
    whole = region.map_of(out)
    source = region.source
    if whole is None or source is None or len(region.nodes) < _LEAST:
        return False
    results = [tensor for one in region.nodes for tensor in one.outputs if tensor is not out and tensor.name]
    if any(rw.is_output(t) or not all(reader in region.nodes for reader in t.outputs) for t in results):
        return False
    parts = _factors(whole)
    before = rw.static(source)
    if parts is None or before is None or before[2:] != shape[2:]:
        return False
    matrix, scale, offset = parts
    label, kind = last.name or "region", rw.dtype(out)
    weights = matrix.reshape(*matrix.shape, *[1] * (len(shape) - 2)).astype(np.float32)
    x = rw.insert(
        last, "Conv", [source, rw.graph.const(f"{label}.matrix", weights)], name=f"{label}.matrix", shape=shape,
        dtype=kind, kernel_shape=[1] * (len(shape) - 2),
    )  # fmt: skip
    for op, values, neutral in (("Mul", scale, 1.0), ("Add", offset, 0.0)):
        if np.any(values != neutral):
            constant = rw.graph.const(f"{label}.{op.lower()}", _spread(values, shape))
            x = rw.insert(last, op, [x, constant], name=f"{label}.{op.lower()}", shape=shape, dtype=kind)
    rw.did(last, f"{len(region.nodes)} nodes of arithmetic on the channels of one tensor became one convolution")
    rw.replace(last, x)
    return True


def _end(rw: Rewriter, node: Node) -> Node:
    """The last of the arithmetic with constants that follows a Concat."""
    last = node
    while rw.single_use(last.outputs[0]):
        reader = last.outputs[0].outputs[0]
        others = [t for t in reader.inputs if t is not last.outputs[0]]
        if reader.op not in _ARITHMETIC or len(others) != 1 or not rw.is_fixed(others[0]):
            break
        last = reader
    return last


class _Region:
    """What can be traced back to one tensor.

    Attributes:
        nodes: on the way.
        source: the tensor.
    """

    def __init__(self, rw: Rewriter, rank: int) -> None:
        self._rw, self._rank = rw, rank
        self.nodes: dict[Node, None] = {}
        self.source: Tensor | None = None
        self._known: dict[Tensor, _Map | None] = {}
        self._depth = 0

    def map_of(self, tensor: Tensor) -> _Map | None:
        """What a tensor is of the source; ``None`` where it depends on anything else."""
        if tensor not in self._known:
            self._depth += 1
            self._known[tensor] = self._trace(tensor) if self._depth <= _MOST_NODES else None
            self._depth -= 1
        return self._known[tensor]

    def _trace(self, tensor: Tensor) -> _Map | None:
        node, shape = producer(tensor), self._rw.static(tensor)
        if shape is None or len(shape) != self._rank or len(self.nodes) > _MOST_NODES:
            return None
        if node is not None and self._rw.owns(node) and node.domain in ("", "ai.onnx"):
            if node.op in _ARITHMETIC and len(node.inputs) == 2:
                return self._arithmetic(node, shape)
            if node.op == "Concat" and int(node.attrs.get("axis", 0)) % self._rank == 1:
                return self._concat(node)
            if node.op in ("Slice", "Split"):
                return self._part(node, tensor, shape)
        return None

    def _arithmetic(self, node: Node, shape: tuple[int, ...]) -> _Map | None:
        left, right = node.inputs
        if self._rw.is_fixed(left) != self._rw.is_fixed(right):
            constant, x = (left, right) if self._rw.is_fixed(left) else (right, left)
            own, values = self.map_of(x), self._constant(constant, shape)
            if own is None or values is None or self._rw.static(x) != shape:
                return None
            self.nodes[node] = None
            return _with_constant(node.op, own, values, first=constant is left)
        a, b = self.map_of(left), self.map_of(right)
        if a is None or b is None or node.op not in ("Add", "Sub"):
            return None
        if self._rw.static(left) != shape or self._rw.static(right) != shape:
            return None
        self.nodes[node] = None
        sign = 1.0 if node.op == "Add" else -1.0
        return _Map(a.rows + sign * b.rows, a.offset + sign * b.offset)

    def _concat(self, node: Node) -> _Map | None:
        parts = [self.map_of(tensor) for tensor in node.inputs]
        if any(part is None for part in parts):
            return None
        self.nodes[node] = None
        own = [part for part in parts if part is not None]
        places = max(max(part.rows.shape[2], part.offset.shape[1]) for part in own)
        rows = [np.broadcast_to(part.rows, (*part.rows.shape[:2], places)) for part in own]
        offsets = [np.broadcast_to(part.offset, (len(part.offset), places)) for part in own]
        return _Map(np.concatenate(rows), np.concatenate(offsets))

    def _part(self, node: Node, tensor: Tensor, shape: tuple[int, ...]) -> _Map | None:
        """A stretch of the channels of the source, or of what is known already."""
        x = node.inputs[0]
        whole = self._rw.static(x)
        if whole is None or whole[2:] != shape[2:] or whole[0] != shape[0]:
            return None
        if node.op == "Slice":
            taken = cuts(self._rw, node)
            if taken is None or set(taken) != {1}:
                return None
            channels = np.arange(whole[1])[slice(*taken[1])]
        else:
            sizes = [self._rw.static(t) for t in node.outputs]
            if int(node.attrs.get("axis", 0)) % self._rank != 1 or None in sizes:
                return None
            place = next(i for i, t in enumerate(node.outputs) if t is tensor)
            start = sum(size[1] for size in sizes[:place] if size is not None)
            channels = np.arange(start, start + shape[1])
        if self.source is None and whole[1] <= _MOST_CHANNELS:
            self.source = x
        if x is not self.source:
            return None
        self.nodes[node] = None
        return _Map(np.eye(whole[1])[channels][:, :, None], np.zeros((len(channels), 1)))

    def _constant(self, tensor: Tensor, shape: tuple[int, ...]) -> np.ndarray | None:
        """A constant as [channels or 1, places or 1]."""
        values = self._rw.fixed(tensor)
        if values is None or values.dtype != np.float32 or values.ndim > self._rank:
            return None
        wide = values.astype(np.float64).reshape((1,) * (self._rank - values.ndim) + values.shape)
        if wide.shape[0] != 1:
            return None
        if any(size != 1 for size in wide.shape[2:]):
            wide = np.broadcast_to(wide, (1, wide.shape[1], *shape[2:]))
        return wide.reshape(wide.shape[1], -1)


def _with_constant(op: str, own: _Map, values: np.ndarray, *, first: bool) -> _Map | None:
    """``own`` with a constant added, taken away, multiplied or divided by; ``first``: the constant is in front."""
    if op == "Add":
        return _Map(own.rows, own.offset + values)
    if op == "Sub":
        return _Map(-own.rows, values - own.offset) if first else _Map(own.rows, own.offset - values)
    if op == "Div" and (first or np.any(values == 0)):
        return None
    factor = values if op == "Mul" else 1 / values
    return _Map(own.rows * factor[:, None, :], own.offset * factor)


def _factors(whole: _Map) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """A matrix, a scale for each place, and an offset; ``None`` where places differ by more than a scale."""
    rows = whole.rows
    size = np.abs(rows).sum(axis=(0, 1))
    if np.any(size == 0):
        return None
    scale = size / size[0]
    matrix = rows[:, :, 0]
    if not np.allclose(rows, matrix[:, :, None] * scale, rtol=1e-6, atol=0):
        return None
    return matrix, scale[None, :], whole.offset


def _spread(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values of [channels or 1, places or 1] in a shape that broadcasts to ``shape``."""
    places = shape[2:] if values.shape[1] != 1 else (1,) * (len(shape) - 2)
    return np.ascontiguousarray(values.reshape(1, len(values), *places).astype(np.float32))
