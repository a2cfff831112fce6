"""The ranges with which the network's outputs err least, by derivatives.

The squared error of a tensor says little about its range. The few large values of a detector's last layers are the
objects, and must not saturate; those of its first layers are edges, which later layers ignore, and their range costs
all other values their steps. To first order the outputs move by J e, with e what rounding does to a tensor and J the
derivative of the outputs by it, and the mean of (v . J e)^2 over random vectors v is |J e|^2 (Hutchinson, "A stochastic
estimator of the trace of the influence matrix", 1990). One run backwards gives v^T J of all tensors at once.

What rounding does to a value depends on that value alone. So a histogram over values, weighted by v^T J, holds all that
is needed to tell the error of any range, and memory does not depend on how many images there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgec.ir.fingerprints import fingerprints
from edgec.ir.graph import Graph, Variable
from edgec.passes.calibration.dataset import ROLE
from edgec.passes.calibration.joined_outputs import joined_parts
from edgec.passes.framework.cache import same_data
from edgec.passes.framework.context import Context
from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.ranges.calibration import Statistics
from edgec.passes.quantize.ranges.calibrators import drawn_in
from edgec.passes.quantize.ranges.output_derivatives import looked_at, output_derivatives
from edgec.passes.quantize.scales.affine_parameters import Range, parameters

if TYPE_CHECKING:
    from edgec.passes.train.engine.slopes import Derivatives

# Batches that are looked at, and sums of random vectors that are kept apart.
_BATCHES, _SUMS = 64, 64
# Bins of a histogram on each side of zero, and what all of them may take, in bytes.
_BINS, _MEMORY = 1024, 1 << 28
# Networks of which they are kept: that which is quantized, and a change of it that is tried.
_NETWORKS = 2
# A range is left as it is where another takes less of the noise away than this: estimates of less are chance.
_WORTHWHILE = 0.5


class _Weighted:
    """Histograms of one tensor's values, weighted by derivatives; bins lie about zero, which is in the middle of one.

    Attributes:
        width: of a bin.
        sums: (results, sums, bins).
        chosen: ranges that were found already, by where the search began and the scheme's integers.
    """

    def __init__(self, seen: Statistics, results: int, sums: int) -> None:
        self.width = max(seen.high, -seen.low, 1e-30) / _BINS
        self.sums = np.zeros((results, sums, 2 * _BINS + 1), np.float32)
        self.chosen: dict[tuple[Range, str, bool], Range] = {}

    def counted(self, values: np.ndarray, slopes: Sequence[np.ndarray | None]) -> np.ndarray:
        """The histograms of a batch: (results, bins), float32."""
        bins = np.rint(values.reshape(-1) / np.float32(self.width)).astype(np.intp)
        np.clip(bins + _BINS, 0, 2 * _BINS, out=bins)
        found = np.zeros((len(slopes), 2 * _BINS + 1), np.float32)
        for result, slope in enumerate(slopes):
            if slope is not None:
                found[result] = np.bincount(bins, slope.reshape(-1), 2 * _BINS + 1)
        return found

    def noise(self, low: float, high: float, scheme: Scheme, powers: np.ndarray) -> float:
        """What a range does to the results, relative to their power, summed over them."""
        by = parameters(Range(low, high), scheme.activations, symmetric=scheme.symmetric)
        values = np.arange(-_BINS, _BINS + 1, dtype=np.float32) * np.float32(self.width)
        moved = self.sums @ (by.rounded(values) - values)
        return float((np.square(moved, dtype=np.float64).sum(axis=1) / powers).sum())


@dataclass(frozen=True)
class _Gathered:
    """What was gathered of one network: histograms by tensor, and the power of each result."""

    histograms: dict[str, _Weighted]
    powers: np.ndarray


def output_ranges(
    graph: Graph,
    spans: Mapping[Variable, Range],
    seen: Mapping[Variable, Statistics],
    others: Mapping[Variable, Statistics],
    scheme: Scheme,
    samples: int | None,
    ctx: Context,
) -> dict[Variable, Range]:
    """``spans``, where no other range takes half of a tensor's noise off the outputs; else that range.

    Args:
        graph: sorted; not changed.
        spans: the range of each tensor so far.
        seen: what was seen of these tensors.
        others: the same of what other targets may want, which is looked at in the same run.
        scheme: of the target.
        samples: how many samples to look at; all by default.
        ctx: the data, the seed, and what was gathered before.

    Raises:
        InputError: torch cannot run an operator.
        UsageError: torch is not installed.
    """
    prints = fingerprints(graph)
    kept: dict[tuple[object, ...], _Gathered] = ctx.cache.of(dict, _Gathered)
    key = (same_data(ctx.data[ROLE]), samples, *(prints[tensor] for tensor in graph.outputs))
    known = kept.pop(key, None)
    if known is None or any(prints[tensor] not in known.histograms for tensor in seen):
        found, powers = _gather(graph, {**others, **seen}, samples, ctx)
        known = _Gathered({prints[tensor]: one for tensor, one in found.items()}, powers)
    kept[key] = known
    while len(kept) > _NETWORKS:
        del kept[next(iter(kept))]
    return {
        tensor: _least_noise(known.histograms[prints[tensor]], span, seen[tensor], scheme, known.powers)
        for tensor, span in spans.items()
    }


def _gather(
    graph: Graph, wanted: Mapping[Variable, Statistics], samples: int | None, ctx: Context
) -> tuple[dict[Variable, _Weighted], np.ndarray]:
    """Runs the data forwards and backwards; the histograms, and the power of each result."""
    numbers, parts = looked_at(graph, _BATCHES, ctx, samples), len(joined_parts(graph))
    room = _MEMORY // (len(wanted) * parts * (2 * _BINS + 1) * 4)
    sums = max(1, min(_SUMS, room))
    rounds = -(-sums // len(numbers))
    found = {tensor: _Weighted(what, parts, sums) for tensor, what in wanted.items()}
    option = "quantize: calibrator", ", or write calibrator: mse"

    def count(made: Derivatives) -> tuple[list[np.ndarray], np.ndarray]:
        slopes = zip(*made.slopes, strict=True)
        return [one.counted(*each) for one, *each in zip(found.values(), made.values, slopes, strict=True)], made.powers

    doing = "what ranges do to the outputs"
    counts = output_derivatives(graph, list(found), numbers, rounds, ctx, option, doing, count)
    total = np.zeros(parts)
    for number, (histograms, powers) in enumerate(counts):
        total += powers
        for one, histogram in zip(found.values(), histograms, strict=True):
            one.sums[:, number % sums] += histogram
    return found, np.maximum(total, np.finfo(np.float64).tiny)


def _least_noise(one: _Weighted, span: Range, seen: Statistics, scheme: Scheme, powers: np.ndarray) -> Range:
    def noise(low: float, high: float) -> float:
        return one.noise(low, high, scheme, powers)

    key = span, scheme.activations, scheme.symmetric
    if key not in one.chosen:
        found = drawn_in(span, seen.range(), noise)
        better = noise(found.low, found.high) < _WORTHWHILE * noise(span.low, span.high)
        one.chosen[key] = found if better else span
    return one.chosen[key]
