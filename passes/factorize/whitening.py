"""Kernels in coordinates in which what a layer reads is about uncorrelated: there, an error of the weights is an error
of the output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.metric import Metric
from edgec.passes.factorize.modes import along
from edgec.passes.factorize.stages import Chain, Stage

# Standard deviations below this part of the largest are taken for it.
_FLOOR = 1e-2
# A variance that only rounding leaves of what never varies.
_NOTHING = 1e-30


@dataclass(frozen=True)
class Whitening:
    """A whitened kernel.

    Attributes:
        kernel: of the layer's shape, float64.
        channels: (groups, in, in), what takes the input channels of a first stage back.
        taps: (taps, taps) for each spatial axis, what takes those of a stage back.
    """

    kernel: np.ndarray
    channels: np.ndarray
    taps: list[np.ndarray]

    def undone(self, chain: Chain) -> Chain:
        """A chain for the whitened kernel as one for the kernel."""
        stages = []
        for place, stage in enumerate(chain.stages):
            kernel = stage.kernel
            if place == 0:
                kernel = along(kernel, self.channels, 2)
            for axis in stage.axes:
                kernel = along(kernel, self.taps[axis][None], 3 + axis)
            stages.append(Stage(stage.name, kernel, stage.axes))
        return Chain(tuple(stages), chain.relative_error)


def whitened(layer: Layer, metric: Metric) -> Whitening:
    """The kernel multiplied by the roots of its input's covariance between channels, and between the taps of each axis.

    The taps of all groups share one covariance.
    """
    root, channels = symmetric_root(metric.channels)
    kernel = along(layer.kernel().astype(np.float64), root, 2)
    between = metric.taps.mean(axis=0).reshape((*layer.taps, *layer.taps))
    taps = []
    for axis in layer.axes:
        others = tuple(a for a in layer.axes if a != axis)
        marginal = between
        for other in reversed(others):
            marginal = np.trace(marginal, axis1=other, axis2=other + marginal.ndim // 2)
        root, inverse = symmetric_root(marginal / max(float(np.trace(marginal)), 1e-30))
        kernel = along(kernel, root[None], 3 + axis)
        taps.append(inverse)
    return Whitening(kernel, channels, taps)


def symmetric_root(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symmetric roots of covariances (..., n, n), and their inverses; directions without variance get a little.

    Those of a covariance that is zero are the identity: what never varies says nothing about any direction.
    """
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    largest = values[..., -1:]
    deviations = np.where(largest > _NOTHING, np.sqrt(np.maximum(values, np.maximum(largest, 0) * _FLOOR**2)), 1.0)
    flipped = vectors.swapaxes(-1, -2)
    deviations = deviations[..., None, :]
    return (vectors * deviations) @ flipped, (vectors / deviations) @ flipped
