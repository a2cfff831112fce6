"""Room in the ranges of activations for what no calibration sample showed.

Every range holds what other samples are expected to reach, as far as that costs less than it saves
(:mod:`.extremes`), within the bounds of the operator that computes the tensor; and scores may be sure ones
(:mod:`.scores`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers
from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.placement.placement import MOVES
from edgec.passes.quantize.ranges.calibration import Statistics
from edgec.passes.quantize.ranges.extremes import expected_range
from edgec.passes.quantize.ranges.softmax_headroom import responsive
from edgec.passes.quantize.scales.affine_parameters import Range

_PROBABILITY, _TANH = Range(0.0, 1.0), Range(-1.0, 1.0)
_BOUNDS = {"Sigmoid": _PROBABILITY, "HardSigmoid": _PROBABILITY, "Softmax": _PROBABILITY, "Tanh": _TANH}
# What these give lies between the extremes of what they read.
_BETWEEN = MOVES | {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMean"}
_EVERYTHING = Range(-np.inf, np.inf)


def with_room(
    graph: Graph,
    spans: Mapping[Variable, Range],
    seen: Mapping[Variable, Statistics],
    scheme: Scheme,
) -> dict[Variable, Range]:
    """``spans``, wide enough for what other samples are expected to show.

    Args:
        graph: sorted; not changed.
        spans: the range of each tensor, by what was seen of it.
        seen: of each of these.
        scheme: of the target.
    """
    # Whatever pixels come, their integers stand for all of them: so they do for what only moves pixels.
    pixels = {tensor: spans[tensor] for tensor, statistics in seen.items() if statistics.pixels}
    bounds, end = _bounds(graph, pixels), _at_the_end(graph)
    wider = dict(responsive(graph, spans))
    for tensor, statistics in seen.items():
        if not statistics.pixels and statistics.extremes.values:
            expected = expected_range(statistics.extremes, scheme, end=tensor in end)
            limit = bounds.get(tensor, _EVERYTHING)
            low = max(_moved(spans[tensor].low, statistics.low, expected.low), limit.low)
            high = min(_moved(spans[tensor].high, statistics.high, expected.high), limit.high)
            if tensor not in end:  # what has one sign in all samples has it by the way it is computed
                low = max(low, 0.0) if statistics.low >= 0 else low
                high = min(high, 0.0) if statistics.high <= 0 else high
            wider[tensor] = wider[tensor].union(Range(low, high))
    _within_joins(graph, wider)
    return wider | _alike({tensor: span for tensor, span in wider.items() if tensor not in end}, spans)


def _within_joins(graph: Graph, wider: dict[Variable, Range]) -> None:
    """What a Concat joins goes no further than the whole: as much was seen of that, and often they share its steps."""
    for node in graph.nodes:
        whole = wider.get(node.outputs[0]) if node.op == "Concat" else None
        for tensor in node.inputs if whole is not None else ():
            if tensor in wider and whole is not None:
                part = wider[tensor]
                wider[tensor] = Range(max(part.low, whole.low), min(part.high, whole.high))


def _alike(wider: Mapping[Variable, Range], spans: Mapping[Variable, Range]) -> dict[Variable, Range]:
    """Ends that were the same stay the same.

    Where one tensor hands its greatest values on to another, both have the same end, and so often the same steps: what
    is rounded once is not rounded anew. Rooms that differ would take that away.
    """
    lows, highs = defaultdict[float, list[float]](list), defaultdict[float, list[float]](list)
    for tensor, span in ((tensor, span) for tensor, span in spans.items() if tensor in wider):
        lows[span.low].append(wider[tensor].low)
        highs[span.high].append(wider[tensor].high)
    return {
        tensor: Range(min(lows[spans[tensor].low]), max(highs[spans[tensor].high])) if tensor in spans else span
        for tensor, span in wider.items()
    }


def _moved(end: float, seen: float, expected: float) -> float:
    """An end of a range, farther from zero as the expected extreme is than that which was seen.

    Where a calibrator has drawn it in, so that values saturate which do no harm, others may do so as well.
    """
    return end * expected / seen if seen * expected > 0 else expected


def _at_the_end(graph: Graph) -> set[Tensor]:
    """The outputs, and what nothing but they are computed of without weights."""
    found: set[Tensor] = set(graph.outputs)
    for node in reversed(graph.nodes):
        if any(isinstance(tensor, Constant) and tensor.values.dtype.kind == "f" for tensor in node.inputs):
            continue
        if all(tensor in found for tensor in node.outputs):
            found.update(t for t in node.inputs if all(set(reader.outputs) <= found for reader in consumers(t)))
    return found


def _bounds(graph: Graph, given: Mapping[Variable, Range]) -> dict[Tensor, Range]:
    """The tensors that cannot go beyond a range, whatever is fed; ``given`` are known to."""
    found: dict[Tensor, Range] = dict(given.items())
    for node in graph.nodes:
        bound = _bound(node, found)
        if bound is not None:
            found.update(dict.fromkeys(node.outputs, bound))
    return found


def _bound(node: Node, known: Mapping[Tensor, Range]) -> Range | None:
    if node.op in _BOUNDS:
        return _BOUNDS[node.op]
    if node.op == "Clip":
        return Range(_setting(node.inputs[1:2], -np.inf), _setting(node.inputs[2:3], np.inf))
    if node.op not in _BETWEEN:
        return None
    reads = node.inputs if node.op == "Concat" else node.inputs[:1]
    parts = [known.get(tensor) for tensor in reads]
    whole = parts[0]
    for part in parts:
        whole = None if whole is None or part is None else whole.union(part)
    return whole


def _setting(given: Iterable[Tensor], default: float) -> float:
    values = [tensor.values for tensor in given if isinstance(tensor, Constant)]
    return float(values[0].reshape(-1)[0]) if values else default
