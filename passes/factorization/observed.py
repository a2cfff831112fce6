"""A layer with its samples and all that follows from them, worked out once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from edgec.passes.factorization.layers import Layer
from edgec.passes.factorization.metric import Metric, measure, retargeted
from edgec.passes.factorization.samples import Samples
from edgec.passes.factorization.whitening import Whitening, whitened


class Observed:
    """A layer on its data.

    Args:
        layer: what is looked at.
        samples: what it reads and should compute.
        metrics: the quadratic form of each group's error, measured where they are not given.
    """

    def __init__(self, layer: Layer, samples: Samples, metrics: list[Metric] | None = None) -> None:
        self.layer, self.samples = layer, samples
        self.metrics = metrics or [measure(samples, group, kernel) for group, kernel in enumerate(layer.kernel())]

    @property
    def unfit(self) -> str:
        """Why nothing can be fitted to these samples; empty where it can."""
        if not all(np.isfinite(metric.energy) and np.isfinite(metric.second).all() for metric in self.metrics):
            return "what it reads is too large for its squares"
        if not any(metric.energy for metric in self.metrics):
            return "what it computes is the same on all of the calibration data"
        if all(metric.silent for metric in self.metrics):
            return "what it reads is the same on all of the calibration data"
        return ""

    @cached_property
    def whitening(self) -> Whitening:
        """The kernel, whitened."""
        return whitened(self.layer, self.metrics)

    def error(self, kernel: np.ndarray) -> float:
        """The error of the output with a kernel of the layer's shape, relative to its variance, as an amplitude."""
        flat = kernel.reshape(self.layer.groups, self.layer.out, -1)
        total = sum(metric.energy for metric in self.metrics)
        missing = sum(metric.error(k) * metric.energy for metric, k in zip(self.metrics, flat, strict=True))
        return float(np.sqrt(missing / total)) if total else 0.0

    def towards(self, wanted: np.ndarray) -> Observed:
        """The same with other outputs to reach: (rows, groups, out)."""
        moved = [retargeted(metric, self.samples, group, wanted) for group, metric in enumerate(self.metrics)]
        return Observed(self.layer, self.samples, moved)
