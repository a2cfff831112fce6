"""The error of a layer's output as a quadratic form in its kernel.

Of a layer that reads patches x and should compute y, a kernel W with the best bias errs by::

    E |y - W x - b|^2  =  tr(W R W^T) - 2 tr(W B^T) + E |y - mean(y)|^2

with R the covariance of x and B that of y with x. So minimizing it over any parametrisation of W needs R and B alone,
not the data; the bias follows (b = mean(y) - W mean(x)). Where x comes from a network that is compressed already and y
from the original, the solution makes up for what the layers before did wrong (the asymmetric reconstruction of Zhang et
al., "Accelerating Very Deep Convolutional Networks for Classification and Detection", TPAMI 2016).

A patch of many channels has more covariances than a calibration set can tell apart. The measured ones are therefore
shrunk towards a Kronecker product of a covariance between channels and one between taps, and that between channels
towards its diagonal, by the weights that Ledoit and Wolf give ("A well-conditioned estimator for large-dimensional
covariance matrices", 2004), the images being the independent samples. The result is shrunk further, towards a multiple
of the identity, for which a kernel errs as its weights do: how far, is chosen by held-out error (:mod:`.isotropy`).
What the priors add to R, they add to B as if the original kernel were right there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from edgec.passes.factorize.isotropy import isotropic_part
from edgec.passes.factorize.modes import along
from edgec.passes.factorize.samples import Samples
from edgec.passes.layers.regression import Regression

# Of the mean variance, added to all: directions that no patch has shown must not cost nothing.
_RIDGE = 1e-3
# Parts of an only image that are taken for independent of each other.
_PARTS = 16


@dataclass(frozen=True)
class Metric:
    """The quadratic forms of the groups of a layer.

    Attributes:
        second: R, (groups, in * taps, in * taps), float32.
        cross: B, (groups, out, in * taps), float32.
        energy: E |y - mean(y)|^2 of each, the prior's part included, (groups,), float64.
        channels: the covariances between input channels, all taps together, (groups, in, in).
        taps: those between taps, (groups, taps, taps), of mean diagonal 1.
        shrinkage: the part of R that is no measurement, (groups,).
        silent: where nothing that is read ever varies, (groups,): channels can be dead, at the latest in a compressed
            network.
    """

    second: np.ndarray
    cross: np.ndarray
    energy: np.ndarray
    channels: np.ndarray
    taps: np.ndarray
    shrinkage: np.ndarray
    silent: np.ndarray

    def error(self, kernel: np.ndarray) -> float:
        """The part of the output's variance that a kernel (groups, out, ...) gets wrong, with its best bias."""
        flat = kernel.reshape(self.cross.shape).astype(np.float32, copy=False)
        got = products(flat @ self.second - 2 * self.cross, flat)
        missing = np.maximum(got + self.energy, 0.0)[self.energy > 0]
        total = float(self.energy.sum())
        return float(missing.sum()) / total if total else 0.0

    @cached_property
    def regression(self) -> Regression:
        """For the best kernels of any rank."""
        return Regression(self.second, self.cross)

    def of(self, groups: np.ndarray) -> Metric:
        """That of some of the groups, by a mask."""
        parts = (self.second, self.cross, self.energy, self.channels, self.taps, self.shrinkage, self.silent)
        return self if groups.all() else Metric(*(part[groups] for part in parts))


@np.errstate(over="ignore", invalid="ignore")  # what is not finite then is seen by Observed.unfit
def measure(samples: Samples, kernel: np.ndarray, *, isotropic: bool = False) -> Metric:
    """The quadratic forms of a layer.

    Args:
        samples: of the layer.
        kernel: the original one, (groups, out, in, *taps), which the prior trusts.
        isotropic: whether they are for kernels of lower rank, and are shrunk towards the weights' own as far as that
            lowers their held-out error.
    """
    flat, wanted, rows = samples.patches, samples.wanted, samples.rows
    groups, out, into = kernel.shape[:3]
    size = flat.shape[2]
    taps = size // into
    kernel = kernel.reshape(groups, out, into, taps).astype(np.float32, copy=False)
    second = flat.swapaxes(1, 2) @ flat
    second /= rows
    view = second.reshape(groups, into, taps, into, taps)
    channels = np.einsum("gitjt->gij", view) / np.float32(taps) if taps > 1 else second
    between = np.einsum("gitiu->gtu", view) / np.float32(into)
    between /= np.maximum(np.einsum("gtt->g", between) / np.float32(taps), np.float32(1e-30))[:, None, None]
    prior = _prior(samples, channels, between)
    shrinkage = _shrinkage(second, prior, _scatter(flat, samples.images, second))
    trace = np.einsum("gii->g", second, dtype=np.float64)
    ridge = (_RIDGE * trace / size + np.finfo(np.float32).tiny).astype(np.float32)
    part = shrinkage.astype(np.float32)
    # What the prior adds is computed rightly by the original kernel.
    trusted = along(along(kernel, part[:, None, None] * prior[0], 2), prior[1], 3)
    trusted += ridge[:, None, None, None] * kernel
    second *= (1 - part)[:, None, None]
    if taps == 1:
        diagonal = np.einsum("gii->gi", second)
        diagonal += part[:, None] * np.einsum("gii->gi", prior[0]) * prior[1][:, 0]
    else:
        view += (part[:, None, None] * prior[0])[:, :, None, :, None] * prior[1][:, None, :, None, :]
        channels = np.einsum("gitjt->gij", view) / np.float32(taps)
    np.einsum("gii->gi", second)[:] += ridge[:, None]
    cross = (wanted.swapaxes(1, 2) @ flat) * ((1 - part) / np.float32(rows))[:, None, None]
    cross += trusted.reshape(cross.shape)
    energy = (1 - shrinkage) * _power(wanted) / rows
    energy += products(trusted.reshape(groups, 1, -1), kernel.reshape(groups, 1, -1))
    metric = Metric(second, cross, energy, channels, between, shrinkage, trace <= 0)
    if not isotropic:
        return metric
    flat_kernel = kernel.reshape(groups, out, -1)
    return _towards_isotropy(metric, flat_kernel, trace / size, isotropic_part(samples, flat_kernel, trace / size))


def _towards_isotropy(metric: Metric, kernel: np.ndarray, level: np.ndarray, part: float) -> Metric:
    """The forms with a part that says of all inputs the same: its variance is ``level`` (groups,).

    The arrays of ``metric`` are taken over.
    """
    keep, added = np.float32(1 - part), (part * level).astype(np.float32)
    metric.second[:] *= keep
    np.einsum("gii->gi", metric.second)[:] += added[:, None]
    metric.cross[:] *= keep
    metric.cross[:] += added[:, None, None] * kernel
    if metric.channels is not metric.second:
        metric.channels[:] *= keep
        np.einsum("gii->gi", metric.channels)[:] += added[:, None]
    if metric.taps.shape[1] > 1:
        metric.taps[:] *= keep
        np.einsum("gtt->gt", metric.taps)[:] += np.float32(part)
    energy = (1 - part) * metric.energy + part * level * _squares(kernel)
    return replace(metric, energy=energy, shrinkage=1 - (1 - part) * (1 - metric.shrinkage))


def retargeted(metric: Metric, before: Samples, behind: Samples) -> Metric:
    """The same forms with other wanted outputs for the same rows; what they trust beside the data stays."""
    part = (1 - metric.shrinkage) / before.rows
    moved = ((behind.wanted - before.wanted).swapaxes(1, 2) @ before.patches) * part[:, None, None].astype(np.float32)
    energy = metric.energy + part * (_power(behind.wanted) - _power(before.wanted))
    return replace(metric, cross=metric.cross + moved, energy=energy)


def _prior(samples: Samples, channels: np.ndarray, between: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the covariances of the patches are shrunk towards, as the two factors of a Kronecker product.

    That between channels is shrunk itself, towards its diagonal.
    """
    groups, into = channels.shape[:2]
    alone = np.zeros_like(channels)
    np.einsum("gii->gi", alone)[:] = np.einsum("gii->gi", channels)
    if between.shape[1] == 1:
        return alone, between
    apart = samples.patches.reshape(groups, samples.rows, into, -1).swapaxes(2, 3)
    one = np.ones((groups, 1, 1), channels.dtype)
    part = _shrinkage(channels, (alone, one), _scatter(apart, samples.images, channels)).astype(np.float32)
    return (1 - part)[:, None, None] * channels + part[:, None, None] * alone, between


def _scatter(rows: np.ndarray, images: Sequence[slice | np.ndarray], second: np.ndarray) -> np.ndarray:
    """The variances of covariances measured on these images, summed over their elements: (groups,).

    Positions of one image resemble each other, so it is the images that are taken for independent samples; of a single
    one, as many parts of it, of rows that lie together.

    Args:
        rows: centred, (groups, rows, n) or, with several observations each, (groups, rows, observations, n).
        images: the rows of each.
        second: their covariances, (groups, n, n).
    """
    if len(images) == 1:
        ends = np.linspace(0, rows.shape[1], min(rows.shape[1], _PARTS) + 1).astype(int).tolist()
        images = [slice(*pair) for pair in pairwise(ends)]
    squares = np.zeros(len(rows))
    for image in images:
        own = rows[:, image].reshape(len(rows), -1, rows.shape[-1])
        flipped = own.swapaxes(1, 2)
        gram = flipped @ own if own.shape[1] > own.shape[2] else own @ flipped
        squares += _squares(gram) / own.shape[1] ** 2
    return (squares / len(images) - _squares(second)) / max(len(images) - 1, 1)


def _shrinkage(second: np.ndarray, prior: tuple[np.ndarray, np.ndarray], scatter: np.ndarray) -> np.ndarray:
    """How much of covariances is better left to their priors: their variance by their distance from it, (groups,)."""
    channels, between = prior
    own = _squares(second)
    prior_own = _squares(channels) * _squares(between)
    view = second.reshape(len(second), channels.shape[1], between.shape[1], channels.shape[1], between.shape[1])
    together = np.einsum("gitju,gtu->gij", view, between, optimize=True) if between.shape[1] > 1 else second
    distance = own + prior_own - 2 * products(together, channels)
    apart = distance > 1e-12 * own
    return np.where(apart, np.clip(scatter / np.where(apart, distance, 1.0), 0.0, 1.0), 1.0)


def products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The inner product of what each group has: (groups,), float64."""
    groups = len(left)
    return (left.reshape(groups, 1, -1) @ right.reshape(groups, -1, 1)).astype(np.float64).reshape(groups)


def _squares(values: np.ndarray) -> np.ndarray:
    """The squared norm of what each group has: (groups,), float64."""
    return products(values, values)


def _power(outputs: np.ndarray) -> np.ndarray:
    """As :func:`_squares`, added up in double precision: small errors are differences of it."""
    return np.asarray(np.einsum("gro,gro->g", outputs, outputs, dtype=np.float64))
