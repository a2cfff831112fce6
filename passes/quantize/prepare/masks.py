"""Masks beside scores: what no reader can tell from a smaller number becomes that number.

Scores of a few units plus a mask of -1e4, or of the least float, have one scale as a sum, which leaves the scores no
step at all: attention becomes uniform. Yet a Softmax cannot tell -1e4 from 20 below the largest score. So before
anything is calibrated, masks are brought as near as their readers allow (:mod:`.distinguishable`): constants are
bounded, factors and infinities made finite, and what the network computes gets a Clip, which is part of the operator in
front of it. What the network computes stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, producer
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context
from edgec.passes.quantize.placement.placement import MOVES, candidates
from edgec.passes.quantize.ranges.calibration import calibrate
from edgec.passes.quantize.ranges.distinguishable import ALL, distinguishable
from edgec.passes.quantize.ranges.softmax_floors import least_margin, softmax_floors
from edgec.passes.quantize.scales.affine_parameters import Range

#: Operators that have one scale, or one sum, for parts that may be of any size.
_JOINS = frozenset({"Add", "Concat", "Max", "Min", "Sub", "Where"})
# What these give is nothing but what they read: a part is bounded before them.
_CHOOSING = MOVES | {"Max", "Min", "Where"}
# A tensor is bounded where that makes its range so many times narrower, which is two bits.
_LEAST_GAIN = 4.0
# What stands for an infinite mask: two of them, and what they are added to, still have a finite sum.
_INFINITE = 1e30
# A factor that makes one 8-bit step of the other operand twice as large as the bound suffices.
_STEPS = 255.0
_TINY = float(np.finfo(np.float32).tiny)


def bound_masks(graph: Graph, ctx: Context, samples: int | None, *, histograms: bool) -> None:
    """Bounds, in place, the parts of sums, maxima, choices and joins that take others' steps and need not.

    Args:
        graph: sorted; what it computes stays the same to within what 8 bits can tell.
        ctx: the calibration data; it is told what was bounded.
        samples: how many samples to look at; all by default.
        histograms: whether they will be wanted later; so one run over the data serves both.

    Raises:
        InputError: there are no samples, or a tensor is not finite on one.
    """
    shapes = ctx.get(Shapes)
    joins = [node for node in graph.nodes if node.op in _JOINS and shapes.dtype(node.outputs[0]) == np.float32]
    if not joins:
        return
    _make_finite(graph, ctx)
    possible = _possible(graph)
    parts = _parts(joins, shapes)
    wanted = [tensor for tensor in parts if isinstance(tensor, Variable) and _is_bounded(possible.get(tensor))]
    stored = (tensor.values for tensor in parts if isinstance(tensor, Constant))
    if not wanted or not all(np.isfinite(values).all() for values in stored):
        return  # what is not finite and no mask is refused where it is to be rounded
    softmaxes = [node for node in graph.nodes if node.op == "Softmax" and isinstance(node.inputs[0], Variable)]
    others = [t for t in _needed(graph, shapes, possible) if t not in wanted]
    statistics = calibrate(
        graph, [*wanted, *others], candidates(graph, shapes), ctx, samples=samples, histograms=histograms
    )
    seen = {tensor: one.range() for tensor, one in statistics.items()}
    floors: dict[Tensor, float] = dict(
        softmax_floors(graph, [node for node in softmaxes if _is_wide(node, seen, shapes)], seen, ctx).items()
    )
    every: dict[Tensor, Range] = dict(seen.items())
    every |= {constant: Range.of(constant.values) for constant in graph.constants() if _is_float(constant)}
    intervals = distinguishable(graph, every, floors)
    for tensor in parts:
        _bound(graph, tensor, every.get(tensor), intervals.get(tensor), every, ctx)
    ctx.changed()
    graph.sort()


def _make_finite(graph: Graph, ctx: Context) -> None:
    """Puts a finite number in the place of minus infinity, where no reader can tell how far down it lies."""
    infinite = [c for c in graph.constants() if _is_float(c) and (c.values == -inf).any()]
    possible = _possible(graph) if infinite else {}
    for constant in infinite:
        if possible.get(constant, ALL).low > -inf:
            constant.values = np.where(constant.values == -inf, np.float32(-_INFINITE), constant.values)
            ctx.did(constant.name, f"minus infinity is {-_INFINITE:.0e}: what reads it cannot tell")
    if infinite:
        ctx.changed()


def _possible(graph: Graph) -> dict[Tensor, Range]:
    """The sides on which a tensor is bounded by its readers, wherever the bounds may lie."""
    zero = Range(0.0, 0.0)
    tensors: list[Tensor] = [*graph.variables(), *graph.constants()]
    nothing = dict.fromkeys(tensors, zero)
    return distinguishable(graph, nothing, {node.inputs[0]: 0.0 for node in graph.nodes if node.op == "Softmax"})


def _is_bounded(interval: Range | None) -> bool:
    return interval is not None and (interval.low > -inf or interval.high < inf)


def _parts(joins: Iterable[Node], shapes: Shapes) -> list[Tensor]:
    """What joins read, seen through what only chooses and moves, and what sums give."""
    waiting: list[Tensor] = []
    for node in joins:
        waiting += node.inputs
        if node.op in ("Add", "Sub"):
            waiting.append(node.outputs[0])
    parts: dict[Tensor, None] = {}
    known = set(waiting)
    for tensor in waiting:
        maker = producer(tensor)
        if maker is not None and maker.op in _CHOOSING:
            reads = maker.inputs if maker.op != "Where" else maker.inputs[1:]
            more = [one for one in reads if one not in known]
            known.update(more)
            waiting += more
        elif tensor.name and shapes.dtype(tensor) == np.float32:
            parts[tensor] = None
    return list(parts)


def _needed(graph: Graph, shapes: Shapes, possible: Mapping[Tensor, Range]) -> list[Variable]:
    """The other tensors on which intervals depend: parts of sums, maxima, what is multiplied, what Softmax reads."""
    needed: dict[Variable, None] = {}
    for node in graph.nodes:
        if not any(_is_bounded(possible.get(tensor)) for tensor in (*node.inputs, *node.outputs)):
            continue
        of: list[Tensor] = []
        if node.op in ("Add", "Sub", "Mul", "Softmax"):
            of += node.inputs
        elif node.op in ("Max", "Min", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin"):
            of.append(node.outputs[0])
        needed.update(
            dict.fromkeys(t for t in of if isinstance(t, Variable) and t.name and shapes.dtype(t) == np.float32)
        )
    return list(needed)


def _is_wide(node: Node, seen: Mapping[Variable, Range], shapes: Shapes) -> bool:
    """Whether scores reach so far down that a floor may narrow them."""
    scores = node.inputs[0]
    assert isinstance(scores, Variable)
    shape = shapes.shape(scores)
    length = shape[int(node.attrs.get("axis", -1))] if shape else None
    return scores in seen and seen[scores].high - seen[scores].low > _LEAST_GAIN * least_margin(length or 1)


def _bound(
    graph: Graph,
    tensor: Tensor,
    seen: Range | None,
    interval: Range | None,
    every: Mapping[Tensor, Range],
    ctx: Context,
) -> None:
    if seen is None or interval is None or not np.isfinite([seen.low, seen.high]).all():
        return
    low, high = (float(np.clip(end, interval.low, interval.high)) for end in (seen.low, seen.high))
    if seen.width < _LEAST_GAIN * max(Range(low, high).width, _TINY):
        return
    ends = [np.float32(interval.low) if interval.low > seen.low else None]
    ends.append(np.float32(interval.high) if interval.high < seen.high else None)
    what = " and ".join(
        f"{side} {end:.3g} bounded there (they reached {reached:.3g})"
        for side, end, reached in (("below", ends[0], seen.low), ("above", ends[1], seen.high))
        if end is not None
    )
    ctx.did(tensor.name, f"values {what}: what reads them cannot tell")
    if isinstance(tensor, Constant):
        tensor.values = np.asarray(np.clip(tensor.values, ends[0], ends[1]), np.float32)
        return
    _bound_factor(graph, tensor, max(abs(low), abs(high)), every)
    sides = zip(ends, ("low", "high"), strict=True)
    bounds = [None if end is None else graph.const(f"{tensor.name}.{side}", end) for end, side in sides]
    shape = tensor.shape
    clipped = graph.op("Clip", [tensor, *bounds], name=f"{tensor.name}.bounded")
    clipped.dtype, clipped.shape = np.dtype(np.float32), None if shape is None else list(shape)
    graph.replace_uses(tensor, clipped)


def _bound_factor(graph: Graph, tensor: Variable, largest: float, every: Mapping[Tensor, Range]) -> None:
    """Makes a factor smaller with which one 8-bit step of the other operand passes the bounds already."""
    maker = producer(tensor)
    if maker is None or maker.op != "Mul":
        return
    for place, factor in enumerate(maker.inputs):
        other = every.get(maker.inputs[1 - place])
        if not isinstance(factor, Constant) or factor.values.size != 1 or other is None or not other.width:
            continue
        enough = 2 * largest * _STEPS / other.width
        if abs(float(factor.values.reshape(()))) > enough:
            values = np.sign(factor.values) * np.float32(enough)
            maker.inputs[place] = graph.const(f"{factor.name}.bounded", values.astype(np.float32))


def _is_float(constant: Constant) -> bool:
    return constant.dtype == np.float32
