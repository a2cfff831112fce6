"""A layer with its samples and all that follows from them, worked out once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.methods import Method
from edgec.passes.factorize.metric import Metric, measure, retargeted
from edgec.passes.factorize.samples import Samples
from edgec.passes.factorize.whitening import Whitening, whitened

# From so many independent samples on an average is taken as it is.
_SAMPLES_THAT_AGREE = 32


class Observed:
    """A layer on its data.

    Args:
        layer: what is looked at.
        samples: what it reads and should compute.
        metric: the quadratic forms of the groups' errors, measured where they are not given.
    """

    def __init__(self, layer: Layer, samples: Samples, metric: Metric | None = None) -> None:
        self.layer, self.samples = layer, samples
        self.metric = metric or measure(samples, layer.kernel(), isotropic=True)

    @property
    def unfit(self) -> str:
        """Why nothing can be fitted to these samples; empty where it can."""
        if not (np.isfinite(self.metric.energy).all() and np.isfinite(self.metric.second).all()):
            return "what it reads is too large for its squares"
        if not self.metric.energy.any():
            return "what it computes is the same on all of the calibration data"
        if self.metric.silent.all():
            return "what it reads is the same on all of the calibration data"
        return ""

    @cached_property
    def whitening(self) -> Whitening:
        """The kernel, whitened."""
        return whitened(self.layer, self.metric)

    def kept(self, method: Method, ranks: np.ndarray) -> np.ndarray:
        """The part of what the layer computes that is kept at ranks (candidates, modes): (candidates,).

        Of a matrix that is what its regression of that rank explains; of other kernels, what the method keeps of the
        whitened one.
        """
        if self.layer.is_matrix:
            return self.metric.regression.explained()[ranks[:, 0] - 1]
        return method.kept(self.layer, self.whitening.kernel, ranks)

    def error(self, kernel: np.ndarray) -> float:
        """The error of the output with a kernel of the layer's shape, relative to its variance, as an amplitude."""
        return float(np.sqrt(self.metric.error(kernel)))

    def biases(self, kernel: np.ndarray) -> np.ndarray:
        """The biases that go best with a kernel: (nodes, groups, out), float64."""
        flat = kernel.reshape(self.metric.cross.shape).astype(np.float64)
        return self.samples.mean_out - (self.samples.mean_in[:, :, None, :] @ flat.swapaxes(1, 2))[:, :, 0]

    def held_biases(self, kernel: np.ndarray, own: np.ndarray) -> np.ndarray:
        """The biases that go best with a kernel, as far as the samples agree on them: (nodes, groups, out), float64.

        What they change is an average over few independent samples. It is shrunk by the part of its square that
        chance explains (James and Stein, "Estimation with quadratic loss", 1961, all channels of a node together).

        Args:
            kernel: of the layer's shape.
            own: what the layer adds itself, (nodes, groups, out); a gemm's by its factor.
        """
        best = self.biases(kernel)
        images = self.samples.images
        if len(images) >= _SAMPLES_THAT_AGREE:
            return best
        if len(images) < 2:
            return own.astype(np.float64)
        flat = kernel.reshape(self.metric.cross.shape).astype(np.float32)
        held = best.copy()
        for place, rows in enumerate(self.samples.nodes):
            left = self.samples.wanted[:, rows] - self.samples.patches[:, rows] @ flat.swapaxes(1, 2)
            labels = self.samples.labels[rows]
            means = np.stack([left[:, labels == label].mean(axis=1, dtype=np.float64) for label in np.unique(labels)])
            chance = float(means.var(axis=0, ddof=1).sum()) / len(means)
            change = best[place] - own[place]
            size = float(np.square(change).sum())
            held[place] = own[place] + max(1 - chance / size, 0.0) * change if size > 0 else best[place]
        return held

    def predicted(self, kernel: np.ndarray) -> np.ndarray:
        """What the layer would compute with a kernel and the biases that go best with it: (groups, rows, out)."""
        flat = kernel.reshape(self.metric.cross.shape).astype(np.float32)
        return self.samples.whole(self.samples.patches @ flat.swapaxes(1, 2))

    def towards(self, wanted: np.ndarray) -> Observed:
        """The same with other outputs to reach, (groups, rows, out) with their means; the array is taken over."""
        samples = self.samples.towards(wanted)
        return Observed(self.layer, samples, retargeted(self.metric, self.samples, samples))
