"""The error of a layer's output as a quadratic form in its kernel.

Of a layer that reads patches x and should compute y, a kernel W with the best bias errs by::

    E |y - W x - b|^2  =  tr(W R W^T) - 2 tr(W B^T) + E |y - mean(y)|^2

with R the covariance of x and B that of y with x. So minimising it over any parametrisation of W needs R and B alone,
not the data; the bias follows (b = mean(y) - W mean(x)). Where x comes from a network that is compressed already and y
from the original, the solution makes up for what the layers before did wrong (the asymmetric reconstruction of Zhang et
al., "Accelerating Very Deep Convolutional Networks for Classification and Detection", TPAMI 2016).

A patch of many channels has more covariances than a calibration set can tell apart. The measured ones are therefore
shrunk towards a Kronecker product of a covariance between channels and one between taps, and that between channels
towards its diagonal, by the weights that Ledoit and Wolf give ("A well-conditioned estimator for large-dimensional
covariance matrices", 2004), the images being the independent samples; and what the prior adds to R, it adds to B as if
the original kernel were right there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from edgec.passes.factorization.regression import Regression
from edgec.passes.factorization.samples import Samples

# Of the mean variance, added to all: directions that no patch has shown must not cost nothing.
_RIDGE = 1e-3


@dataclass(frozen=True)
class Metric:
    """The quadratic form of one group of a layer.

    Attributes:
        second: R, (in * taps, in * taps), float32.
        cross: B, (out, in * taps), float32.
        energy: E |y - mean(y)|^2, the prior's part included.
        channels: the covariance between input channels, all taps together, (in, in).
        taps: that between taps, (taps, taps), of mean diagonal 1.
        mean_in, mean_out: of x and y for each node that has the kernel, (nodes, in * taps) and (nodes, out).
        shrinkage: the part of R that is the prior.
    """

    second: np.ndarray
    cross: np.ndarray
    energy: float
    channels: np.ndarray
    taps: np.ndarray
    mean_in: np.ndarray
    mean_out: np.ndarray
    shrinkage: float

    def error(self, kernel: np.ndarray) -> float:
        """The part of the output's variance that a kernel (out, in, taps) gets wrong, with its best bias."""
        flat = kernel.reshape(len(kernel), -1).astype(np.float32, copy=False)
        got = np.vdot(flat @ self.second - 2 * self.cross, flat)
        return max(float(got) + self.energy, 0.0) / self.energy if self.energy else 0.0

    @property
    def silent(self) -> bool:
        """Whether nothing that is read ever varies: channels can be dead, at the latest in a compressed network."""
        return not self.channels.any()

    @cached_property
    def regression(self) -> Regression:
        """For the best kernels of any rank."""
        return Regression(self.second, self.cross)

    def biases(self, kernel: np.ndarray) -> np.ndarray:
        """The biases that go best with a kernel (out, in, taps): (nodes, out), float64."""
        return self.mean_out - self.mean_in @ kernel.reshape(len(kernel), -1).astype(np.float64).T


@np.errstate(over="ignore", invalid="ignore")  # what is not finite then is seen by Observed.unfit
def measure(samples: Samples, group: int, kernel: np.ndarray) -> Metric:
    """The quadratic form of one group of a layer.

    Args:
        samples: of the layer.
        group: which.
        kernel: the group's original one, (out, in, *taps), which the prior trusts.
    """
    patches = samples.patches[:, group]
    rows, into, taps = patches.shape
    size = into * taps
    kernel = kernel.reshape(len(kernel), into, taps).astype(np.float32, copy=False)
    flat, mean_in = _centred(patches.reshape(rows, size), samples)
    wanted, mean_out = _centred(samples.wanted[:, group], samples)
    second = flat.T @ flat
    second /= rows
    view = second.reshape(into, taps, into, taps)
    channels = np.trace(view, axis1=1, axis2=3) / taps
    between = np.trace(view, axis1=0, axis2=2) / into
    between = between / max(float(np.trace(between)) / taps, 1e-30)
    prior = _prior(flat, samples.images, channels, between)
    shrinkage = _shrinkage(second, prior, _scatter(flat, samples.images, second))
    ridge = np.float32(_RIDGE * float(np.trace(second)) / size + np.finfo(np.float32).tiny)
    trusted = np.tensordot(np.tensordot(kernel, np.float32(shrinkage) * prior[0], (1, 0)), prior[1], (1, 0))
    view *= np.float32(1 - shrinkage)
    view += np.float32(shrinkage) * prior[0][:, None, :, None] * prior[1][None, :, None, :]
    channels = np.trace(view, axis1=1, axis2=3) / taps
    second[np.diag_indices(size)] += ridge
    cross = np.float32((1 - shrinkage) / rows) * (wanted.T @ flat)
    cross += (trusted + ridge * kernel).reshape(cross.shape)
    # What the prior adds is computed rightly by the original kernel.
    energy = (1 - shrinkage) * float(np.einsum("ro,ro->", wanted, wanted, dtype=np.float64)) / rows
    energy += float(np.vdot(trusted + ridge * kernel, kernel))
    return Metric(second, cross, energy, channels, between, mean_in, mean_out, shrinkage)


def retargeted(metric: Metric, samples: Samples, group: int, wanted: np.ndarray) -> Metric:
    """The same form with other wanted outputs (rows, groups, out); what it trusts beside the data stays."""
    before, _ = _centred(samples.wanted[:, group], samples)
    behind, mean_out = _centred(wanted[:, group], samples)
    flat, _ = _centred(samples.patches[:, group].reshape(len(before), -1), samples)
    moved = np.float32((1 - metric.shrinkage) / len(before)) * ((behind - before).T @ flat)
    sums = [float(np.einsum("ro,ro->", rows, rows, dtype=np.float64)) for rows in (before, behind)]
    energy = metric.energy + (1 - metric.shrinkage) * (sums[1] - sums[0]) / len(before)
    return replace(metric, cross=metric.cross + moved, energy=energy, mean_out=mean_out)


def _centred(values: np.ndarray, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Rows without their mean over the rows of the same node, and those means: (rows, n), (nodes, n)."""
    if not samples.centred:
        return values, np.zeros((len(samples.nodes), values.shape[1]))
    means = np.stack([values[rows].mean(axis=0, dtype=np.float64) for rows in samples.nodes])
    centred = np.empty_like(values)
    for rows, mean in zip(samples.nodes, means, strict=True):
        np.subtract(values[rows], mean.astype(np.float32), out=centred[rows])
    return centred, means


def _prior(
    flat: np.ndarray, images: Sequence[slice], channels: np.ndarray, between: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the covariance of the patches is shrunk towards, as the two factors of a Kronecker product.

    That between channels is shrunk itself, towards its diagonal.
    """
    alone = np.diag(np.diag(channels))
    if len(between) == 1:
        return alone, between
    apart = flat.reshape(len(flat), len(channels), -1).swapaxes(1, 2)
    one = np.ones((1, 1), channels.dtype)
    part = _shrinkage(channels, (alone, one), _scatter(apart, images, channels))
    return np.float32(1 - part) * channels + np.float32(part) * alone, between


def _scatter(rows: np.ndarray, images: Sequence[slice], second: np.ndarray) -> float:
    """The variance of a covariance measured on these images, summed over its elements.

    Positions of one image resemble each other, so it is the images that are taken for independent samples; of a single
    one, its rows.

    Args:
        rows: centred, (rows, n) or, with several observations each, (rows, observations, n).
        images: the rows of each.
        second: their covariance, (n, n).
    """
    if len(images) == 1:
        images = [slice(i, i + 1) for i in range(len(rows))]
    squares = []
    for image in images:
        own = rows[image].reshape(-1, rows.shape[-1])
        gram = own.T @ own if len(own) > own.shape[1] else own @ own.T
        squares.append(float(np.vdot(gram, gram)) / len(own) ** 2)
    return (float(np.mean(squares)) - float(np.vdot(second, second))) / max(len(images) - 1, 1)


def _shrinkage(second: np.ndarray, prior: tuple[np.ndarray, np.ndarray], scatter: float) -> float:
    """How much of a covariance is better left to its prior: its variance by its distance from it."""
    channels, between = prior
    own = float(np.vdot(second, second))
    products = float(np.vdot(channels, channels)) * float(np.vdot(between, between))
    view = second.reshape(len(channels), len(between), len(channels), len(between))
    together = float(np.vdot(np.tensordot(view, between, ((1, 3), (0, 1))), channels))
    distance = own + products - 2 * together
    return float(np.clip(scatter / distance, 0.0, 1.0)) if distance > 1e-12 * own else 1.0
