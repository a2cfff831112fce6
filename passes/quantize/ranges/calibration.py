"""What values each activation takes, gathered in one pass over the calibration data.

Every image is run once with a tap on each activation, in parallel on the context's threads, and only its extremes and
its histogram are kept: memory hardly depends on how many images there are. Results do not depend on the threads, for
merging is exact. Tensors are known by content, so targets whose graphs differ share what they have in common.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.execution import Session, batch_size
from edgec.ir.fingerprints import fingerprints
from edgec.ir.graph import Graph, Variable
from edgec.passes.calibration.dataset import ROLE
from edgec.passes.framework import input_domain
from edgec.passes.framework.cache import same_data
from edgec.passes.framework.context import Context
from edgec.passes.quantize.ranges.extremes import Extremes
from edgec.passes.quantize.ranges.histograms import Histogram
from edgec.passes.quantize.scales.affine_parameters import Range

_PIXEL = 255
PixelMap = tuple[np.ndarray, np.ndarray]


@dataclass
class Statistics:
    """What was seen of one tensor.

    Attributes:
        low, high: the extremes.
        pixels: whether every value was that of a whole pixel from 0 to 255, to within 1e-3.
        histogram: of all values; ``None`` where it was not asked for.
        fault: where the first value that is no finite number was; ``None`` where there was none.
        extremes: those of each batch.
    """

    low: float
    high: float
    pixels: bool = False
    histogram: Histogram | None = None
    fault: str | None = None
    extremes: Extremes = field(default_factory=Extremes)

    @staticmethod
    def of(values: np.ndarray, where: str, *, histogram: bool = False, pixels: PixelMap | None = None) -> Statistics:
        """The statistics of one array.

        Args:
            values: float32, any shape.
            where: what to call this array in a fault.
            histogram: whether to count values.
            pixels: (a, b) to see whether the values are a * pixel + b; ``None`` where they are not of pixels.
        """
        if not values.size:
            return Statistics(0.0, 0.0)
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            return Statistics(0.0, 0.0, fault=f"{'NaN' if np.isnan(values).any() else 'infinite'} on {where}")
        whole = pixels is not None and _are_pixels(values, *pixels)
        counted = Histogram.of(values, max(-low, high)) if histogram else None
        return Statistics(low, high, whole, counted, extremes=Extremes([low], [high], values.size))

    def merge(self, other: Statistics) -> None:
        """Adds what ``other`` saw."""
        self.fault = self.fault or other.fault
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.pixels = self.pixels and other.pixels
        self.extremes.merge(other.extremes)
        if self.histogram is not None and other.histogram is not None:
            self.histogram.merge(other.histogram)

    def range(self, percent: float | None = None) -> Range:
        """From the least to the greatest value, or between the percentiles ``100 - percent`` and ``percent``."""
        if percent is None or percent == 100 or self.histogram is None:
            return Range(self.low, self.high)
        low, high = self.histogram.percentile(100 - percent), self.histogram.percentile(percent)
        return Range(max(low, self.low), min(high, self.high))


def calibrate(
    graph: Graph,
    wanted: Sequence[Variable],
    candidates: Sequence[Variable],
    ctx: Context,
    *,
    samples: int | None = None,
    histograms: bool = False,
) -> dict[Variable, Statistics]:
    """The statistics of the ``wanted`` tensors of ``graph`` over the calibration data.

    Args:
        graph: sorted; not changed.
        wanted: float32 activations.
        candidates: what other targets may want: gathered in the same run where one is needed anyway.
        ctx: the data, the threads, and what was gathered before.
        samples: how many samples to look at; all by default.
        histograms: whether percentiles will be asked for.

    Raises:
        InputError: there are no samples, or a wanted tensor is not finite on one.
    """
    known: dict[str, Statistics] = ctx.cache.of(dict, calibrate, same_data(ctx.data[ROLE]), samples, histograms)
    prints = fingerprints(graph)
    if any(prints[tensor] not in known for tensor in wanted):
        missing = [t for t in dict.fromkeys((*wanted, *candidates)) if prints[t] not in known]
        gathered = _gather(graph, missing, ctx, samples, histograms)
        known.update({prints[tensor]: found for tensor, found in gathered.items()})
    for tensor in wanted:
        fault = known[prints[tensor]].fault
        if fault is not None:
            raise InputError(
                f"tensor '{tensor.name}'",
                f"is {fault} of the calibration data",
                "correct the data or its preprocessing, or the weights in front of it",
            )
    return {tensor: known[prints[tensor]] for tensor in wanted}


def _gather(
    graph: Graph, tensors: Sequence[Variable], ctx: Context, samples: int | None, histograms: bool
) -> dict[Variable, Statistics]:
    inputs = {t: input_domain.pixels(graph, t.name, ctx.config.affine.get(t.name)) for t in graph.inputs}
    outputs = {t.name for t in graph.outputs}
    session = Session(graph, [t for t in tensors if t not in inputs and t.name not in outputs], blocked=True)
    size = batch_size(graph)
    data = ctx.data["calibration"]
    count = len(data) if samples is None else min(samples, len(data))
    batches = -(-count // size)
    found: dict[Variable, Statistics] = {}

    def observe(index: int, feeds: Mapping[str, np.ndarray]) -> list[Statistics]:
        values = {**session.run(feeds), **feeds}
        where = f"sample {index * size}" if size == 1 else f"samples {index * size} to {(index + 1) * size - 1}"
        return [Statistics.of(values.pop(t.name), where, histogram=histograms, pixels=inputs.get(t)) for t in tensors]

    def take(result: Future[list[Statistics]]) -> None:
        for tensor, seen in zip(tensors, result.result(), strict=True):
            if tensor in found:
                found[tensor].merge(seen)
            else:
                found[tensor] = seen

    with ThreadPoolExecutor(max(1, ctx.threads)) as pool:
        running: deque[Future[list[Statistics]]] = deque()
        for index, feeds in enumerate(islice(ctx.feeds(graph, "calibration"), batches)):
            running.append(pool.submit(observe, index, feeds))
            # As many images are in memory as are worked on, and one that comes next.
            if len(running) > max(1, ctx.threads):
                take(running.popleft())
            ctx.progress(index + 1, batches, "calibrating")
        while running:
            take(running.popleft())
    if tensors and not found:
        raise InputError(data.source, "has no samples to calibrate with", "name a data set that has some")
    return found


def _are_pixels(values: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    if max(a.size, b.size) > 1 and (values.ndim < 2 or max(a.size, b.size) != values.shape[1]):
        return False  # an input that is taken without a batch has its channels elsewhere
    shape = (1, -1) + (1,) * (values.ndim - 2)
    found = (values.astype(np.float64) - b.reshape(shape)) / a.reshape(shape)
    whole = np.abs(found - np.rint(found)) <= 1e-3
    return bool(whole.all() and found.min() >= -1e-3 and found.max() <= _PIXEL + 1e-3)
