"""Kernels in coordinates in which what a layer reads is about uncorrelated: there, an error of the weights is an error
of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.passes.factorization.layers import Layer
from edgec.passes.factorization.metric import Metric
from edgec.passes.factorization.regression import cholesky
from edgec.passes.factorization.stages import Chain, Stage

# Standard deviations below this part of the largest are taken for it.
_FLOOR = 1e-2
# A variance that only rounding leaves of what never varies.
_NOTHING = 1e-30


@dataclass(frozen=True)
class Whitening:
    """A whitened kernel.

    Attributes:
        kernel: of the layer's shape, float64.
        channels: (groups, in, in), what its input channels were multiplied with.
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
                last = np.moveaxis(kernel, 2, -1)
                flat = last.reshape(len(kernel), -1, last.shape[-1])
                back = np.linalg.solve(self.channels.swapaxes(1, 2), flat.swapaxes(1, 2)).swapaxes(1, 2)
                kernel = np.moveaxis(back.reshape(last.shape), -1, 2)
            for axis in stage.axes:
                kernel = _along(kernel, self.taps[axis], 3 + axis)
            stages.append(Stage(stage.name, kernel, stage.axes))
        return Chain(tuple(stages), chain.relative_error)


def whitened(layer: Layer, metrics: Sequence[Metric]) -> Whitening:
    """The kernel multiplied by the roots of its input's covariance between channels, and between the taps of each axis.

    The taps of all groups share one covariance.
    """
    triangular = layer.is_matrix
    roots = [_triangular_root(m.channels) if triangular else symmetric_root(m.channels)[0] for m in metrics]
    kernel = np.stack([_along(k.astype(np.float64), root, 1) for k, root in zip(layer.kernel(), roots, strict=True)])
    between = np.mean([metric.taps for metric in metrics], axis=0).reshape((*layer.taps, *layer.taps))
    inverses = []
    for axis in layer.axes:
        others = tuple(a for a in layer.axes if a != axis)
        marginal = between
        for other in reversed(others):
            marginal = np.trace(marginal, axis1=other, axis2=other + marginal.ndim // 2)
        root, inverse = symmetric_root(marginal / max(float(np.trace(marginal)), 1e-30))
        kernel = _along(kernel, root, 3 + axis)
        inverses.append(inverse)
    return Whitening(kernel, np.stack(roots), inverses)


def symmetric_root(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symmetric root of a covariance, and its inverse; directions without variance get a little.

    Those of a covariance that is zero are the identity: what never varies says nothing about any direction.
    """
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    if values[-1] <= _NOTHING:
        return np.eye(len(values)), np.eye(len(values))
    deviations = np.sqrt(np.maximum(values, values[-1] * _FLOOR**2))
    return (vectors * deviations) @ vectors.T, (vectors / deviations) @ vectors.T


def _triangular_root(covariance: np.ndarray) -> np.ndarray:
    """A root L of a covariance L L^T: as good as the symmetric one where only singular values are asked for, which it
    leaves alone, at a small part of the time (a matrix may have thousands of inputs)."""
    level = float(np.trace(covariance)) / len(covariance)
    return np.eye(len(covariance)) if level <= _NOTHING else cholesky(covariance, _FLOOR**2)


def _along(values: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    """``values`` multiplied by a matrix from the right along an axis."""
    return np.moveaxis(np.tensordot(values, matrix, (axis, 0)), -1, axis)
