"""From what was seen of the activations to the ranges that their integers span.

- ``minmax``: from the least value to the greatest; nothing saturates.
- ``percentile``: outliers saturate.
- ``mse``: the range of the least squared error, judged behind the functions that are applied to single values (a
  tensor that feeds SiLU needs no steps where SiLU is flat).
- ``entropy``: the range that loses least of the distribution, by the Kullback-Leibler divergence (Migacz, "8-bit
  Inference with TensorRT", GTC 2017).
- ``output``: that of ``mse``, or another where that one makes much less noise on the network's outputs
  (:mod:`.output_ranges`).

Whatever the calibrator, ranges get room for what no calibration sample showed (:mod:`.room`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgec.ir.graph import Graph, Variable
from edgec.passes.framework.plugins import imported, registered
from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.placement.pointwise import functions_of
from edgec.passes.quantize.ranges.calibration import Statistics
from edgec.passes.quantize.ranges.histograms import BINS, Histogram
from edgec.passes.quantize.scales.affine_parameters import Range, parameters

#: The entry points by which installed packages bring calibrators: functions of an :class:`Observed` that give a Range.
GROUP, KIND = "edgec.calibrators", "calibrator"
# How far each end is drawn in, at most, and in how many steps; then between the best one's neighbours.
_LEAST_PART, _COARSE, _FINE, _ROUNDS = 0.05, 12, 8, 2
# Entropy: steps of the quantized distribution, and thresholds that are tried.
_LEVELS, _THRESHOLDS = 128, 96


@dataclass(frozen=True)
class Observed:
    """A tensor and what was seen of it, for a calibrator.

    Attributes:
        graph: sorted; not to be changed.
        tensor: whose range is wanted.
        statistics: its extremes, and its histogram but for ``minmax``.
        scheme: of the target.
        percentile: the option of that name.
    """

    graph: Graph
    tensor: Variable
    statistics: Statistics
    scheme: Scheme
    percentile: float = 99.99

    @property
    def widest(self) -> Range:
        """From the least value to the greatest."""
        return self.statistics.range()


Calibrator = Callable[[Observed], Range]


def _minmax(seen: Observed) -> Range:
    return seen.widest


def _percentile(seen: Observed) -> Range:
    return seen.statistics.range(seen.percentile)


def _mse(seen: Observed) -> Range:
    histogram, widest = seen.statistics.histogram, seen.widest
    if histogram is None or seen.statistics.low == seen.statistics.high:
        return widest
    return _least_error(seen.graph, seen.tensor, widest, histogram, seen.scheme)


def _entropy(seen: Observed) -> Range:
    histogram, widest = seen.statistics.histogram, seen.widest
    if histogram is None or seen.statistics.low == seen.statistics.high:
        return widest
    return _least_divergence(widest, histogram)


#: edgec's own, by name; ``output`` begins with the ranges of ``mse``.
CALIBRATORS: Mapping[str, Calibrator] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
    "output": _mse,
}


def calibrator_names() -> list[str]:
    """The names of all calibrators: edgec's own, then those of installed packages."""
    return [*CALIBRATORS, *sorted(set(registered(GROUP, KIND)) - set(CALIBRATORS))]


def calibrator(name: str) -> Calibrator:
    """The calibrator of that name.

    Raises:
        UsageError: an installed package brings it, and cannot be imported.
        KeyError: there is none.
    """
    if name in CALIBRATORS:
        return CALIBRATORS[name]
    brought: Calibrator = imported(registered(GROUP, KIND)[name], KIND)
    return brought


def counts(name: str) -> bool:
    """Whether a calibrator looks at histograms."""
    return name != "minmax"


def ranges(
    graph: Graph, seen: Mapping[Variable, Statistics], name: str, percentile: float, scheme: Scheme
) -> dict[Variable, Range]:
    """The range of each tensor.

    Args:
        graph: sorted; not changed.
        seen: with histograms where the calibrator :func:`counts`.
        name: of the calibrator.
        percentile: the upper one, for ``percentile``.
        scheme: of the target.

    Raises:
        UsageError: a package brings the calibrator, and it cannot be used.
    """
    choose = calibrator(name)
    return {
        tensor: choose(Observed(graph, tensor, statistics, scheme, percentile)) for tensor, statistics in seen.items()
    }


def _least_error(graph: Graph, tensor: Variable, widest: Range, histogram: Histogram, scheme: Scheme) -> Range:
    """The ends are drawn in, one after the other, to where the squared error of all functions together is least."""
    places = np.flatnonzero(histogram.counts)
    counts = histogram.counts[places].astype(np.float64)
    values = histogram.centers[places].astype(np.float32).clip(widest.low, widest.high)
    wanted = functions_of(graph, tensor, values)
    # Functions of the same kind of number, such as x and SiLU(x), are summed as they are.
    exact = wanted.shape[0] == 1 and np.array_equal(wanted[0], values)

    def error(low: float, high: float) -> float:
        by = parameters(Range(low, high), scheme.activations, symmetric=scheme.symmetric)
        rounded = by.rounded(values)
        if exact:
            apart = (rounded - values).astype(np.float64) ** 2
        else:
            made = np.stack([np.interp(rounded, values, row) for row in wanted])
            apart = ((made - wanted) ** 2).sum(axis=0)
        return float(counts @ apart)

    return drawn_in(widest, widest, error)


def drawn_in(start: Range, widest: Range, error: Callable[..., float]) -> Range:
    """The range of least error that is found by moving one end after the other.

    Args:
        start: where the ends begin.
        widest: what holds every value.
        error: of a range, by its ends ``low`` and ``high``.
    """
    low, high = min(start.low, 0.0), max(start.high, 0.0)
    for _ in range(_ROUNDS):
        if widest.low < 0:
            low = _end(low, widest.low, partial(error, high=high))
        if widest.high > 0:
            high = _end(high, widest.high, partial(error, low))
    return Range(low, high)


def _end(now: float, widest: float, error: Callable[[float], float]) -> float:
    """The end of least error between a part of the widest one and itself."""
    coarse = np.linspace(_LEAST_PART, 1.0, _COARSE)
    errors = [error(float(part) * widest) for part in coarse]
    best = int(np.argmin(errors))
    fine = np.linspace(coarse[max(best - 1, 0)], coarse[min(best + 1, _COARSE - 1)], _FINE)
    tried = {float(part) * widest: found for part, found in zip(coarse, errors, strict=True)}
    tried |= {float(part) * widest: error(float(part) * widest) for part in fine}
    tried[now] = error(now)
    return min(tried, key=lambda end: tried[end])


def _least_divergence(widest: Range, histogram: Histogram) -> Range:
    """Both ends at one threshold, that which keeps most of the distribution of magnitudes."""
    magnitudes = (histogram.counts[BINS:] + histogram.counts[BINS - 1 :: -1]).astype(np.float64)
    used = int(np.flatnonzero(magnitudes)[-1]) + 1
    best, least = used, np.inf
    for end in np.unique(np.linspace(min(_LEVELS, used), used, _THRESHOLDS).astype(int)):
        kept = magnitudes[:end].copy()
        outside = magnitudes[end:].sum()
        reference = kept.copy()
        reference[-1] += outside
        level = np.arange(end) * _LEVELS // end
        filled = kept > 0
        sums = np.bincount(level, kept, _LEVELS)
        holders = np.bincount(level, filled, _LEVELS)
        spread = np.where(filled, sums[level] / np.maximum(holders[level], 1), 0.0)
        p, q = reference / reference.sum(), spread / max(spread.sum(), 1.0)
        both = (p > 0) & (q > 0)
        divergence = float((p[both] * np.log(p[both] / q[both])).sum()) + float(p[(p > 0) & (q == 0)].sum()) * 10
        if divergence < least:
            best, least = int(end), divergence
    threshold = best * histogram.width
    return Range(max(widest.low, -threshold), min(widest.high, threshold))
